"""`make ledger-tamper`: one row of many is changed, removed or swapped; how long until verifying names it.

Arguments: entries, and a database URL (a new SQLite file where there is none). The rows are chained entries of one
month without facts (`fairlead.bench.ledger`), so this is the chain's part; `test_tamper.py` has every column.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time

from fairlead.bench.ledger import fill
from fairlead.reports.verification import verify
from fairlead.service.bookkeeper import Bookkeeper
from fairlead.store import engine as database

LIMIT_S = 30


def cases(at: int) -> dict[str, tuple[list[str], str]]:
    """Statements on rows about `at`, and how the finding must begin."""
    swap = [(at, 0), (at + 7, at), (0, at + 7)]
    return {
        "an amount": ([f"UPDATE posting SET amount = amount + 840 WHERE number = {at} AND line = 1"], f"entry {at}: "),
        "an entry's end": ([f"UPDATE entry SET to_ms = to_ms + 1 WHERE number = {at}"], f"entry {at}: "),
        "a hash": ([f"UPDATE entry SET hash = '{'0' * 64}' WHERE number = {at}"], f"entry {at}: "),
        "a posting gone": ([f"DELETE FROM posting WHERE number = {at} AND line = 0"], f"entry {at}: "),
        "an entry gone": (
            [f"DELETE FROM {table} WHERE number = {at}" for table in ("posting", "entry")],
            f"entry {at + 1}: number: {at} should come here",
        ),
        "two swapped": ([f"UPDATE entry SET number = {to} WHERE number = {of}" for of, to in swap], f"entry {at}: "),
    }


def main() -> None:
    """Fill, tamper, verify, undo, and print a line a case; fail where the row is not named, or not in time."""
    size = int(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="fairlead-tamper-") as folder:
        url = sys.argv[2] if len(sys.argv) > 2 else f"sqlite:///{folder}/books.sqlite"
        books = Bookkeeper(url, cluster="bench")
        books.open()
        books.close()
        engine = database.connect(url)
        fill(engine, size, 200)
        sqlite = engine.dialect.name == "sqlite"
        at = size - random.Random(1).randrange(size // 50)  # near the end: nearly everything is read before it
        for what, (statements, begins) in cases(at).items():
            with engine.connect() as connection:
                if sqlite:
                    connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
                for table in ("entry", "posting"):
                    if not sqlite:
                        connection.exec_driver_sql(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
                        continue
                    for verb in ("update", "delete"):
                        connection.exec_driver_sql(f"DROP TRIGGER {table}_no_{verb}")
                for statement in statements:
                    connection.exec_driver_sql(statement)
                began = time.perf_counter()
                first = verify(connection).findings[0].sentence
                took = time.perf_counter() - began
                connection.rollback()
            print(f"{what}: {took:.1f} s: {first}", flush=True)
            assert first.startswith(begins), (what, first)
            assert took <= LIMIT_S, (what, took)
        engine.dispose()


if __name__ == "__main__":
    main()
