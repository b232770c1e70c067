"""The same books in PostgreSQL: the same chain, the same refusals. Skips where there is no server to start."""

from __future__ import annotations

from pathlib import Path

import pytest
from books_story import story
from postgres_server import PostgresServer
from price_words import price, priced
from test_ledger import EXAMPLE, Books
from test_migrations import FILLED, HEAD_OF_THE_FIRST_VERSION, change_schema, write_as_version_1

from fairlead.cli.books_file import to_read
from fairlead.errors import BooksDoNotVerify, Unreachable
from fairlead.ledger.audit import audit
from fairlead.reports.spending import spent
from fairlead.service.bookkeeper import Bookkeeper
from fairlead.store import engine as database
from fairlead.store import entries, journal, tables

pytestmark = pytest.mark.postgres


def test_the_same_facts_make_the_same_chain(postgres: PostgresServer, tmp_path: Path) -> None:
    server = postgres.schema()
    heads, reports = [], []
    for url in (server, f"sqlite:///{tmp_path}/b.sqlite"):
        books = Bookkeeper(url)
        for now_ms, facts in story():
            books.record(facts, now_ms)
            carried_on = books.queue_usage(now_ms)
        assert books.trouble == ""
        heads.append(books.head)
        late = 1_700_000_000_000
        reports.append((carried_on, books.usage(2 * late, since_ms=5_000, until_ms=late), books.usage(4 * 3_600_000)))
        books.close()
    assert heads[0] == heads[1]
    assert reports[0] == reports[1]
    engine = database.connect(server)
    assert database.findings(engine) == ()
    with database.reading(engine) as strict, to_read(server) as patient, database.reading(patient) as asked:
        limits = [c.exec_driver_sql("SHOW statement_timeout").scalar() for c in (strict, asked)]
    assert limits == ["1min", "1h"]
    with database.reading(engine) as connection:
        found = audit(journal.get_meta(connection, "cluster"), journal.read(connection), entries.read(connection))
    assert found.verified
    assert found.head == heads[0]
    with database.writing(engine) as connection:
        for name in ("period", "statement"):  # the others have rows
            connection.exec_driver_sql(FILLED[name])
    for table in tables.APPEND_ONLY:
        column = tables.metadata.tables[table].columns.keys()[0]
        for statement in (f"UPDATE {table} SET {column} = '0'", f"DELETE FROM {table}", f"TRUNCATE {table} CASCADE"):
            with pytest.raises((BooksDoNotVerify, Unreachable), match="append-only"), database.writing(engine) as open_:
                open_.exec_driver_sql(statement)
    engine.dispose()


def test_the_schema_goes_back_and_forth_under_books_of_the_first_version(postgres: PostgresServer) -> None:
    engine = database.connect(postgres.schema())
    books = Books().take(*EXAMPLE)
    change_schema(engine, "0001")
    with database.writing(engine) as connection:
        journal.append(connection, books.rows)
        write_as_version_1(connection, books.sealed)
    for _ in range(2):
        change_schema(engine, "head")
        assert database.findings(engine) == ()
        with database.reading(engine) as connection:
            found = audit("c", journal.read(connection), entries.read(connection))
        assert found.verified
        assert found.head.hash == HEAD_OF_THE_FIRST_VERSION
        with pytest.raises((BooksDoNotVerify, Unreachable), match="append-only"), database.writing(engine) as open_:
            open_.exec_driver_sql("DELETE FROM posting")
        change_schema(engine, "0001")
    engine.dispose()


def test_prices_late_ones_too_make_the_same_entries_and_sums(postgres: PostgresServer, tmp_path: Path) -> None:
    heads, sums = [], []
    for url in (postgres.schema(), f"sqlite:///{tmp_path}/b.sqlite"):
        books = Bookkeeper(url)
        for now_ms, facts in story():
            books.record(facts, now_ms)
        late = [priced(price("borrowed=3.60", None, 5_000_000), price("borrowed=0.90", 5_000_000), at_ms=1)]
        books.record(late, now_ms)
        assert books.trouble == ""
        heads.append(books.head)
        books.close()
        engine = database.connect(url)
        with database.reading(engine) as connection:
            sums += [spent(connection), spent(connection, 3_333, 6_000_001), spent(connection, None, 20_000)]
        engine.dispose()
    assert heads[0] == heads[1]
    assert sums[:3] == sums[3:]
    assert all(found["money:EUR"] for found in sums)
