"""The migrations build exactly what `tables.py` says, and nobody updates or deletes (P5)."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from test_ledger import EXAMPLE, Books

from fairlead.errors import BooksDoNotVerify
from fairlead.ledger.audit import audit
from fairlead.ledger.chain import Sealed
from fairlead.store import engine as database
from fairlead.store import entries, journal, tables

FILLED = {
    "journal": "INSERT INTO journal VALUES (1, 'i', 'Cut', '', 0, 0, '{}', 'h')",
    "entry": "INSERT INTO entry VALUES "
    "(1, 'i', 'segment', 'f', 0, 'n', 'd', 'p', 0, 1, '', '', '', 0, -1, 0, 'h', '', '', '')",
    "posting": "INSERT INTO posting VALUES (1, 0, 'free:p', 840, 'ticks')",
    "period": "INSERT INTO period VALUES (1, '2026-09', 'closed', 0, 1, 'UTC', 1, 1, 'ann', 0, 'h', 0, 0, 's', 'h')",
    "statement": "INSERT INTO statement VALUES ('2026-09', 1, '{}')",
}


HEAD_OF_THE_FIRST_VERSION = "9e3204938c49f95010db1d728c006965fe9ee7e741076adcae03265c44f5fb6f"
"""Of the worked example, as the first version of these programs chained it: no later one may find another."""


def change_schema(engine: sa.Engine, version: str) -> None:
    """Bring the tables to a version, later or earlier."""
    with database.writing(engine) as connection:
        config = database._config(connection)
        is_earlier = version != "head" and "entry" in sa.inspect(connection).get_table_names()
        (command.downgrade if is_earlier else command.upgrade)(config, version)


def write_as_version_1(connection: sa.Connection, sealed: list[Sealed]) -> None:
    """Write entries as the first version did, which had neither units nor reasons."""
    for item in sealed:
        row = {name: getattr(item.entry, name) for name in entries._FIELDS if name not in ("actor", "reason", "refers")}
        row |= {"kind": item.entry.kind.value, "number": item.number, "hash": item.hash}
        said = ", ".join(f":{name}" for name in row)
        connection.execute(sa.text(f"INSERT INTO entry ({', '.join(row)}) VALUES ({said})"), row)
        for line, part in enumerate(item.entry.postings):
            values = {"n": item.number, "l": line, "a": part.account, "t": part.amount}
            connection.execute(sa.text("INSERT INTO posting VALUES (:n, :l, :a, :t)"), values)


@pytest.fixture
def engine(tmp_path: Path) -> sa.Engine:
    opened = database.connect(f"sqlite:///{tmp_path}/b.sqlite")
    database.upgrade(opened)
    return opened


def test_upgrade_from_empty_and_check(engine: sa.Engine) -> None:
    assert database.findings(engine) == ()
    database.upgrade(engine)  # again changes nothing
    with database.writing(engine) as connection:
        config = database._config(connection)
        try:
            command.check(config)
        except CommandError as error:
            raise AssertionError(f"tables.py and migrations/ differ: {error}") from None


def test_a_planted_column_a_missing_trigger_and_an_old_schema_are_found(engine: sa.Engine, tmp_path: Path) -> None:
    with database.writing(engine) as connection:
        connection.exec_driver_sql("ALTER TABLE entry ADD COLUMN planted TEXT")
        connection.exec_driver_sql("DROP TRIGGER posting_no_update")
    text = "\n".join(database.findings(engine))
    assert "planted" in text
    assert "posting_no_update is missing" in text
    empty = database.connect(f"sqlite:///{tmp_path}/empty.sqlite")
    assert "fairlead db upgrade" in database.findings(empty)[0]


@pytest.mark.parametrize("table", tables.APPEND_ONLY)
@pytest.mark.parametrize("statement", ["UPDATE {} SET {} = '2'", "DELETE FROM {}"])
def test_update_and_delete_are_refused(engine: sa.Engine, table: str, statement: str) -> None:
    with database.writing(engine) as connection:
        for name in tables.APPEND_ONLY:
            connection.exec_driver_sql(FILLED[name])
    column = tables.metadata.tables[table].columns.keys()[0]
    with pytest.raises(BooksDoNotVerify, match=f"{table} is append-only"), database.writing(engine) as connection:
        connection.exec_driver_sql(statement.format(table, column))
    with database.reading(engine) as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(tables.metadata.tables[table])).scalar() == 1


def test_sqlite_is_durable_and_writers_queue(engine: sa.Engine) -> None:
    with database.reading(engine) as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        with database.reading(engine) as other:  # readers do not wait for each other
            assert other.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_downgrade_and_up_again(engine: sa.Engine) -> None:
    with database.writing(engine) as connection:
        command.downgrade(database._config(connection), "base")
        assert not set(sa.inspect(connection).get_table_names()) & set(tables.metadata.tables)
    database.upgrade(engine)
    assert database.findings(engine) == ()


def test_books_of_the_first_version_keep_their_bytes_up_and_down(tmp_path: Path) -> None:
    opened = database.connect(f"sqlite:///{tmp_path}/old.sqlite")
    change_schema(opened, "0001")
    books = Books().take(*EXAMPLE)
    with database.writing(opened) as connection:
        journal.append(connection, books.rows)
        write_as_version_1(connection, books.sealed)
    for _ in range(2):
        change_schema(opened, "head")
        assert database.findings(opened) == ()
        with database.reading(opened) as connection:
            found = audit("c", journal.read(connection), entries.read(connection))
        assert found.verified
        assert found.head.hash == HEAD_OF_THE_FIRST_VERSION
        change_schema(opened, "0001")
        assert {"ticks"} <= {column["name"] for column in sa.inspect(opened).get_columns("posting")}


@pytest.mark.parametrize(
    "planted",
    [
        "INSERT INTO posting VALUES (1, 1, 'spend:a:b:in-quota', 5, 'money:EUR')",
        FILLED["period"],
        FILLED["entry"].replace("(1, 'i'", "(2, 'j'").replace("'', '')", "'who', '')"),
    ],
)
def test_books_that_say_more_do_not_go_back(engine: sa.Engine, planted: str) -> None:
    with database.writing(engine) as connection:
        for statement in (FILLED["entry"], FILLED["posting"], planted):
            connection.exec_driver_sql(statement)
    with pytest.raises(RuntimeError, match="cannot hold"):
        change_schema(engine, "0001")
    assert database.findings(engine) == ()


def test_the_sql_for_postgresql_protects_every_table() -> None:
    out = io.StringIO()
    config = Config(output_buffer=out)
    config.set_main_option("script_location", str(database.migrations_folder()))
    command.upgrade(config, "head", sql=True)
    sql = out.getvalue()
    for table in tables.APPEND_ONLY:
        for verb in ("UPDATE", "DELETE", "TRUNCATE"):
            assert f"BEFORE {verb} ON {table} " in sql
    assert "BIGINT" in sql
    assert "fairlead_append_only()" in sql


def test_bad_urls_are_refused_by_name() -> None:
    for url in ("mysql://x/y", "nonsense://", "://"):
        with pytest.raises(Exception, match="--database"):
            database.connect(url)
