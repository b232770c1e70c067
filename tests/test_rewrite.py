"""The big tables written anew: every byte stays, so do keys, triggers and rights, and a kill leaves the old ones."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from books_story import story
from ledger_facts import node
from postgres_server import PostgresServer
from test_books_crash import verified
from typer.testing import CliRunner

from fairlead.cli import db
from fairlead.errors import BooksDoNotVerify, Unreachable, UnreadableInput
from fairlead.model.events import NodeSeen
from fairlead.service.bookkeeper import Bookkeeper
from fairlead.store import engine as database
from fairlead.store import entries, protection, tables
from fairlead.store import rewrite as module
from fairlead.store.rewrite import rewrite

REFUSED = (BooksDoNotVerify, Unreachable)
COPIED = tuple(f"copied {table.name}" for table in tables.BIG)
STEPS = (*COPIED, "compared", "dropped", "renamed", "protected")
BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]


@pytest.fixture(params=BOTH)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Books of the story, in each database."""
    on_server = request.param == "postgresql"
    url = request.getfixturevalue("postgres").schema() if on_server else f"sqlite:///{tmp_path}/b.sqlite"
    books = Bookkeeper(url)
    for now_ms, facts in story():
        books.record(facts, now_ms)
    books.close()
    return url


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    opened = database.connect(url)
    yield opened
    opened.dispose()


def content(engine: sa.Engine) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the three tables, in order, and all that the catalog says of every table."""
    with database.reading(engine) as connection:
        found = {
            table.name: [tuple(row) for row in connection.execute(table.select().order_by(*table.primary_key))]
            for table in tables.BIG
        }
        look = sa.inspect(connection)
        names = sorted(look.get_table_names())
        found["tables"] = [(name, repr(look.get_columns(name)), _indexes(look, name)) for name in names]
        found["keys"] = [(name, repr(look.get_pk_constraint(name)), repr(look.get_foreign_keys(name)),
                          repr(look.get_unique_constraints(name))) for name in names]  # fmt: skip
        found["protection"] = [(table.name, protection.of(connection, table.name)) for table in tables.BIG]
    return found


def _indexes(look: Any, name: str) -> str:
    """All that is said of a table's indexes; a condition is an object without a text of its own."""
    told = [
        (index["name"], index["column_names"], index["unique"],
         {option: str(value) for option, value in index.get("dialect_options", {}).items()})
        for index in look.get_indexes(name)
    ]  # fmt: skip
    return repr(told)


def run(engine: sa.Engine, failpoint: Callable[[sa.Connection, str], object] = lambda _c, _n: None) -> dict[str, int]:
    with database.writing(engine) as connection:
        return rewrite(connection, failpoint=lambda name: failpoint(connection, name))


def test_everything_is_as_before_and_still_append_only(engine: sa.Engine, url: str) -> None:
    before, audit = content(engine), verified(url)
    steps: list[str] = []
    assert run(engine, lambda _c, name: steps.append(name)) == {t.name: len(before[t.name]) for t in tables.BIG}
    assert tuple(steps) == STEPS
    assert content(engine) == before
    assert database.findings(engine) == ()
    assert verified(url) == audit
    for table in tables.BIG:
        statements = [f"UPDATE {table.name} SET number = 1", f"DELETE FROM {table.name}"]
        statements += [f"TRUNCATE {table.name} CASCADE"] if engine.dialect.name == "postgresql" else []
        for statement in statements:
            with pytest.raises(REFUSED, match="append-only"), database.writing(engine) as connection:
                connection.exec_driver_sql(statement)
    with pytest.raises(BooksDoNotVerify), database.writing(engine) as connection:
        connection.exec_driver_sql("INSERT INTO posting VALUES (999999, 0, 'a', 1, 'ticks')")  # of no entry


def killed_at(engine: sa.Engine, url: str, step: str) -> None:
    """Rewrite in a child that dies there, look at what it left, and do it again."""

    def work() -> None:
        own = database.connect(url)
        run(own, lambda _c, name: name == step and os.kill(os.getpid(), signal.SIGKILL))

    before = content(engine)
    engine.dispose()
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL
    assert content(engine) == before
    run(engine)
    assert content(engine) == before


def test_killed_at_any_step_the_old_tables_are_there(engine: sa.Engine, url: str) -> None:
    for step in STEPS if engine.dialect.name == "sqlite" else ("copied posting", "protected"):
        killed_at(engine, url, step)


@pytest.mark.parametrize(
    ("step", "planted", "said"),
    [
        ("copied journal", "UPDATE journal_rewritten SET recorded_ms = 5 WHERE number = 3", "journal, number 3: rec"),
        ("copied entry", "UPDATE entry_rewritten SET hash = upper(hash) WHERE number = 2", "entry, number 2: hash"),
        ("copied posting", "UPDATE posting_rewritten SET amount = -amount WHERE number = 7 AND line = 1",
         "posting, number 7, line 1: amount would be another"),
        ("copied posting", "DELETE FROM posting_rewritten WHERE number = 4 AND line = 0", "posting, number 4, line 0"),
        ("copied journal", "INSERT INTO journal_rewritten SELECT 999, 'x', kind, subject, at_ms, recorded_ms, payload, "
         "hash FROM journal WHERE number = 1", "journal has .* rows and would have"),
    ],
)  # fmt: skip
def test_a_planted_difference_is_refused(engine: sa.Engine, step: str, planted: str, said: str) -> None:
    before = content(engine)
    with pytest.raises(BooksDoNotVerify, match=said):
        run(engine, lambda connection, name: name == step and connection.exec_driver_sql(planted))
    assert content(engine) == before


def test_who_keeps_the_books_goes_on(engine: sa.Engine, url: str) -> None:
    books = Bookkeeper(url)
    books.open()
    run(engine)
    at_ms = 20_000_000
    books.record([NodeSeen(node=node(sick=(1,)), at_ms=at_ms)], at_ms)
    assert books.trouble == ""
    books.close()
    verified(url)


def test_in_the_middle_of_a_writers_transaction_it_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_MS", 50)
    monkeypatch.setattr(database, "BUSY_MS", 0)
    engine, other = database.connect(url), database.connect(url)
    with database.writing(other) as connection:
        connection.exec_driver_sql("INSERT INTO journal VALUES (999, 'x', 'Cut', '', 0, 0, '{}', 'h')")
        with pytest.raises(Unreachable, match="lock"):
            run(engine)
        connection.rollback()
    assert run(engine)["journal"] < 999
    engine.dispose()
    other.dispose()


def test_another_type_is_said_and_nothing_gets_lost(engine: sa.Engine) -> None:
    def changed(*more: sa.Column[Any], without: str = "") -> list[sa.Table]:
        apart = sa.MetaData()
        columns = [sa.Column(c.name, sa.Integer if c.name == "line" else c.type, primary_key=c.primary_key)
                   for c in tables.posting.columns if c.name != without]  # fmt: skip
        key = sa.ForeignKeyConstraint(["number"], ["entry.number"], name="posting_entry")
        return [tables.entry.to_metadata(apart), sa.Table("posting", apart, *columns, *more, key)]

    with database.reading(engine) as connection:
        before = entries.head(connection), entries.balances(connection)
    cast = {"posting": {"line": "CAST(line AS INTEGER)"}}
    for wrong, values, said in (
        (changed(), {}, "posting.line was BIGINT: say its value"),
        (changed(sa.Column("more", sa.Text)), cast, "are given"),
        (changed(without="unit"), cast, "are given"),
    ):
        with pytest.raises(AssertionError, match=said), database.writing(engine) as connection:
            rewrite(connection, wrong, values)
    with pytest.raises(BooksDoNotVerify), database.writing(engine) as connection:
        rewrite(connection, changed(), {"posting": {"line": "0"}})  # two lines become one
    with database.writing(engine) as connection:
        rewrite(connection, changed(sa.Column("more", sa.Text)), {"posting": {**cast["posting"], "more": "'m%'"}})
        kinds = {column["name"]: str(column["type"]) for column in sa.inspect(connection).get_columns("posting")}
        assert (kinds["line"], kinds["more"]) == ("INTEGER", "TEXT")
        assert set(connection.exec_driver_sql("SELECT more FROM posting").scalars()) == {"m%"}
    with database.reading(engine) as connection:
        assert (entries.head(connection), entries.balances(connection)) == before
    with pytest.raises(REFUSED, match="append-only"), database.writing(engine) as connection:
        connection.exec_driver_sql("UPDATE posting SET more = ''")


@pytest.mark.postgres
def test_a_reader_that_waits_sees_the_rows(postgres: PostgresServer) -> None:
    url = postgres.schema()
    books = Bookkeeper(url)
    books.record([NodeSeen(node=node(), at_ms=0)], 0)
    engine = database.connect(url)
    found: list[int] = []

    def read() -> None:
        other = database.connect(url)
        with database.reading(other) as connection:
            found.append(entries.head(connection).number)
            found.append(int(connection.exec_driver_sql("SELECT count(*) FROM journal").scalar_one()))
        other.dispose()

    reader = threading.Thread(target=read)

    def wait_for_it(connection: sa.Connection, name: str) -> None:
        if name == "compared":
            reader.start()
            until = time.monotonic() + 20
            while not connection.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE NOT granted").scalar():
                assert time.monotonic() < until
                time.sleep(0.01)

    run(engine, wait_for_it)
    reader.join(20)
    assert found == [books.head.number, 1]
    engine.dispose()
    books.close()


@pytest.mark.postgres
@pytest.mark.parametrize("setting", ["enable_seqscan", "enable_indexscan"])
def test_the_order_in_which_the_catalog_keeps_triggers_does_not_matter(postgres: PostgresServer, setting: str) -> None:
    """A row of the catalog that is written anew, as by DISABLE and ENABLE, goes to its end or into any free place."""
    engine = database.connect(postgres.schema())
    database.upgrade(engine)
    with engine.begin() as connection:
        for scan in (setting, "enable_bitmapscan"):
            connection.exec_driver_sql(f"SET LOCAL {scan} = off")
        before = protection.of(connection, "posting")
        assert [text.split()[2] for text in before.triggers] == sorted(text.split()[2] for text in before.triggers)
        for order in (before.triggers, before.triggers[::-1]):
            for text in order:
                for verb in ("DISABLE", "ENABLE"):
                    connection.exec_driver_sql(f"ALTER TABLE posting {verb} TRIGGER {text.split()[2]}")
            assert protection.of(connection, "posting") == before
    engine.dispose()


@pytest.mark.postgres
def test_rights_and_owners_are_made_again(postgres: PostgresServer) -> None:
    engine = database.connect(postgres.schema())
    database.upgrade(engine)
    with database.writing(engine) as connection:
        for statement in (
            'CREATE ROLE "Books owner"', "CREATE ROLE reader", "CREATE ROLE writer", "CREATE ROLE everywhere",
            "ALTER TABLE entry OWNER TO writer", 'ALTER TABLE posting OWNER TO "Books owner"',
            "REVOKE UPDATE, DELETE, TRUNCATE ON posting FROM \"Books owner\"", "GRANT SELECT ON entry TO reader",
            "GRANT INSERT ON entry TO reader WITH GRANT OPTION", "GRANT SELECT ON journal TO PUBLIC",
            "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO everywhere",
            "ALTER TABLE entry ENABLE ALWAYS TRIGGER entry_no_update",
        ):  # fmt: skip
            connection.exec_driver_sql(statement)
    before = content(engine)
    assert any("ENABLE ALWAYS" in text for text in dict(before["protection"])["entry"].triggers)
    run(engine)
    assert content(engine) == before
    for refused in ("ALTER TABLE entry ENABLE ROW LEVEL SECURITY", "GRANT SELECT (id) ON entry TO reader",
                    "CREATE PUBLICATION books FOR TABLE entry"):  # fmt: skip
        with database.writing(engine) as connection:
            connection.exec_driver_sql(refused)
            with pytest.raises(BooksDoNotVerify, match="entry: row security"):
                rewrite(connection)
            connection.rollback()
    with database.writing(engine) as connection:
        connection.exec_driver_sql("ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM everywhere")
    engine.dispose()


def test_the_command(tmp_path: Path) -> None:
    books = Bookkeeper(f"sqlite:///{tmp_path}/b.sqlite")
    books.record([NodeSeen(node=node(), at_ms=0)], 0)
    books.cut(1_000)
    books.close()
    file = ["rewrite", "--file", str(tmp_path / "b.sqlite")]
    done = CliRunner().invoke(db.app, file)
    assert (done.exit_code, books.head.hash in done.stdout) == (0, True), done.output
    assert "2 of journal, 4 of entry, 8 of posting" in done.stdout
    assert '"entry": 4' in CliRunner().invoke(db.app, [*file, "--json"]).stdout
    engine = database.connect(books.url)
    with database.writing(engine) as connection:
        connection.exec_driver_sql("DROP TRIGGER entry_no_update")
    engine.dispose()
    with pytest.raises(UnreadableInput, match="entry_no_update is missing"):
        CliRunner().invoke(db.app, file, catch_exceptions=False)
