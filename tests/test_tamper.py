"""Whatever is changed, removed or swapped in the books' tables is found, and the row is named.

Each case is one statement on a copy of small books whose triggers were dropped.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from books_story import story
from postgres_server import PostgresServer
from typer.testing import CliRunner

from fairlead.cli import ledger
from fairlead.reports.verification import verify
from fairlead.service.bookkeeper import Bookkeeper
from fairlead.store import engine as database
from fairlead.store import tables

FREE = {("journal", "recorded_ms")}  # when a record was written is for people and in no hash
COLUMNS = [
    (table, column.name)
    for table in ("journal", "entry", "posting")
    for column in tables.metadata.tables[table].columns
    if (table, column.name) not in FREE
]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("books") / "honest.sqlite"
    books = Bookkeeper(f"sqlite:///{path}")
    for now_ms, facts in story():
        books.record(facts, now_ms)
    books.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA foreign_keys = OFF")
    for table in ("journal", "entry", "posting"):
        for verb in ("update", "delete"):
            connection.execute(f"DROP TRIGGER {table}_no_{verb}")
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path


def tampered(honest: Path, path: Path, *statements: str) -> str:
    """Return the first finding after statements on a copy of the books, "" where they still verify."""
    shutil.copy(honest, path)
    connection = sqlite3.connect(path)
    for statement in statements:
        assert connection.execute(statement).rowcount == 1, statement
    connection.commit()
    connection.close()
    engine = database.connect(f"sqlite:///{path}")
    with database.reading(engine) as reading:
        found = verify(reading)
    engine.dispose()
    return found.findings[0].sentence if found.findings else ""


def other(value: Any) -> str:
    return f"'{value}x'" if isinstance(value, str) else str(value + 1)


def changes(path: Path, table: str, column: str) -> tuple[str, int]:
    """Return a statement that changes this column of a row in the middle, and the row's number."""
    connection = sqlite3.connect(path)
    count = connection.execute(f"SELECT max(number) FROM {table}").fetchone()[0]
    number = count // 2
    line = " AND line = 1" if table == "posting" else ""
    value = connection.execute(f"SELECT {column} FROM {table} WHERE number = {number}{line}").fetchone()[0]
    connection.close()
    new = count + 5 if column == "number" else 7 if column == "line" else other(value)
    return f"UPDATE {table} SET {column} = {new} WHERE number = {number}{line}", number


def test_books_that_nobody_touched_verify(honest: Path, tmp_path: Path) -> None:
    assert tampered(honest, tmp_path / "b.sqlite") == ""
    free = tampered(honest, tmp_path / "c.sqlite", "UPDATE journal SET recorded_ms = 1 WHERE number = 5")
    assert free == ""


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_any_changed_value_is_found_in_its_row(honest: Path, tmp_path: Path, table: str, column: str) -> None:
    statement, number = changes(honest, table, column)
    found = tampered(honest, tmp_path / "b.sqlite", statement)
    moved = number + 1 if column == "number" and table != "posting" else number
    where = f"journal record {moved}:" if table == "journal" else f"entry {moved}:"
    assert found.startswith(where), (statement, found)


@pytest.mark.parametrize("table", ["journal", "entry", "posting"])
def test_a_removed_row_is_found(honest: Path, tmp_path: Path, table: str) -> None:
    found = tampered(
        honest, tmp_path / "b.sqlite", f"DELETE FROM {table} WHERE number = 20" + " AND line = 0" * (table == "posting")
    )
    expected = {
        "journal": "journal record 21: number: 20 should come here: records are missing",
        "entry": "entry 21: number: 20 should come here: entries are missing",
        "posting": "entry 20: postings",
    }
    assert found.startswith(expected[table])


@pytest.mark.parametrize("table", ["journal", "entry"])
def test_two_swapped_rows_are_found(honest: Path, tmp_path: Path, table: str) -> None:
    moves = [(20, 99_999), (24, 20), (99_999, 24)]
    swap = [f"UPDATE {table} SET number = {to} WHERE number = {from_}" for from_, to in moves]
    found = tampered(honest, tmp_path / "b.sqlite", *swap)
    assert found.startswith("entry 20:" if table == "entry" else "journal record 20:")


def test_swapped_and_added_postings_are_found(honest: Path, tmp_path: Path) -> None:
    moves = [(0, 9), (1, 0), (9, 1)]
    swap = [f"UPDATE posting SET line = {to} WHERE number = 8 AND line = {from_}" for from_, to in moves]
    assert tampered(honest, tmp_path / "b.sqlite", *swap).startswith("entry 8: postings[0].account")
    more = "INSERT INTO posting (number, line, account, amount, unit) VALUES (8, 2, 'free:main', 0, 'ticks')"
    assert tampered(honest, tmp_path / "c.sqlite", more).startswith("entry 8: postings")
    stray = more.replace("(8, 2", "(70000, 0")
    assert (
        tampered(honest, tmp_path / "d.sqlite", stray) == "entry 70000: number: there are postings of it, but no entry"
    )


def test_an_entry_without_its_postings_and_the_other_way_round(honest: Path, tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite"
    shutil.copy(honest, path)
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM entry WHERE number = (SELECT max(number) FROM entry)")
    connection.commit()
    connection.close()
    bad = CliRunner().invoke(ledger.app, ["verify", "--file", str(path)])
    assert bad.exit_code == 7
    assert "there are postings of it, but no entry" in bad.output
    assert "the books do not verify" in bad.output


def test_the_unit_and_the_cluster_of_the_books(honest: Path, tmp_path: Path) -> None:
    unit = "UPDATE meta SET value = '841' WHERE name = 'ticks_per_gpu_ms'"
    assert "ticks_per_gpu_ms: is '841'" in tampered(honest, tmp_path / "b.sqlite", unit)
    cluster = "UPDATE meta SET value = 'another' WHERE name = 'cluster'"
    assert tampered(honest, tmp_path / "c.sqlite", cluster).startswith("entry 1: id:")


def test_a_rewritten_tail_is_only_seen_against_the_published_head(honest: Path, tmp_path: Path) -> None:
    """What docs/explanation/books.md says that a chain cannot show: the last records and all that follows from them."""
    short = Bookkeeper(f"sqlite:///{tmp_path}/b.sqlite")
    for now_ms, facts in story()[:-2]:
        short.record(facts, now_ms)
    with database.reading(short._engine) as connection:
        assert verify(connection).verified
    whole = sqlite3.connect(honest).execute("SELECT number, hash FROM entry ORDER BY number DESC LIMIT 1").fetchone()
    assert (short.head.number, short.head.hash) != whole
    short.close()


@pytest.mark.postgres
def test_postgresql_names_the_same_rows(postgres: PostgresServer) -> None:
    books = Bookkeeper(postgres.schema())
    for now_ms, facts in story():
        books.record(facts, now_ms)
    rng = random.Random(1)
    for table in ("journal", "entry", "posting"):
        with database.writing(books._engine) as connection:
            connection.exec_driver_sql(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
    for table, column in rng.sample(COLUMNS, 8):
        if column in ("number", "line"):
            continue
        text = "|| 'x'" if str(tables.metadata.tables[table].c[column].type) == "TEXT" else "+ 1"
        line = " AND line = 1" if table == "posting" else ""
        with database.writing(books._engine) as connection:
            undone = connection.begin_nested()
            connection.exec_driver_sql(f"UPDATE {table} SET {column} = {column} {text} WHERE number = 9{line}")
            first = verify(connection).findings[0]
            assert (first.record if table == "journal" else first.entry) == 9, (table, column, first)
            undone.rollback()
    books.close()
