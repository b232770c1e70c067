"""`make ledger-rewrite`: journal, entries and postings of large books are written anew; how long, and is all the same?

Argument: how many entries. They are chained entries of one month without facts (`fairlead.bench.ledger`), in a SQLite
file and in a PostgreSQL server of its own with fsync on. tests/test_rewrite.py has what else must be as before.
"""

from __future__ import annotations

import sys
import tempfile
import time

from postgres_server import PostgresServer

from fairlead.bench.ledger import fill
from fairlead.ledger.chain import follow
from fairlead.service.bookkeeper import Bookkeeper
from fairlead.store import engine as database
from fairlead.store import entries
from fairlead.store.rewrite import rewrite

LIMIT_S = 300


def measure(url: str, size: int) -> None:
    """Fill, rewrite, compare, and print a line; fail where something differs, or takes too long."""
    books = Bookkeeper(url, cluster="bench")
    books.open()
    books.close()
    engine = database.connect(url)
    fill(engine, size, 200)
    with database.reading(engine) as connection:
        head, totals = entries.head(connection), entries.balances(connection)
    began = time.perf_counter()
    with database.writing(engine) as connection:
        rows = rewrite(connection)
    took = time.perf_counter() - began
    with database.reading(engine) as connection:
        assert entries.balances(connection) == totals
        strays: list[int] = []
        assert follow(entries.links(connection, strays)) == (head, None)
        assert not strays
    assert database.findings(engine) == ()
    print(f"{engine.dialect.name}: {took:.1f} s: {rows}: equal totals, the chain holds to {head.number}", flush=True)
    assert took <= LIMIT_S, took
    engine.dispose()


def main() -> None:
    """Measure both databases, one after the other."""
    size = int(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="fairlead-rewrite-") as folder:
        measure(f"sqlite:///{folder}/books.sqlite", size)
    server = PostgresServer(fsync=True)
    try:
        measure(server.address, size)
    finally:
        server.remove()


if __name__ == "__main__":
    main()
