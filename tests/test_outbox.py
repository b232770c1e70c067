"""The database is away, locked, full, read-only or at odds: nothing is lost or written twice, and it is said."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import psycopg
import pytest
from books_oracle import gpu_ms
from books_story import story
from ledger_books import posted
from ledger_facts import node
from postgres_server import PostgresServer

from fairlead.errors import BooksDoNotVerify, Unreachable
from fairlead.model.events import NodeSeen
from fairlead.reports.verification import verify
from fairlead.service import bookkeeper
from fairlead.service.bookkeeper import Bookkeeper
from fairlead.service.outbox import Outbox
from fairlead.store import engine as database

END_MS = 4 * 3_600_000
MINUTE_MS = 60_000


def fact(at_ms: int) -> NodeSeen:
    return NodeSeen(node=node(), at_ms=at_ms)


def times(outbox: Outbox, most: int = 100) -> list[int]:
    return [queued.record.at_ms for queued in outbox.take(most)]


def whole_story(url: str, books: Bookkeeper) -> None:
    """The books have the whole story once, as the oracle counts it."""
    books.cut(END_MS)
    assert books.trouble == ""
    assert books.behind_ms(END_MS) == 0
    with database.reading(books._engine) as connection:
        audited = verify(connection)
        count = connection.exec_driver_sql("SELECT count(*) FROM journal WHERE kind <> 'Cut'").scalar()
    assert audited.verified, audited.findings
    assert posted(audited) == gpu_ms([fact for _, facts in story() for fact in facts], END_MS)
    assert count == sum(len(facts) for _, facts in story())
    books.close()


# --- the file by itself -------------------------------------------------------------------------------------------


def test_what_is_kept_is_read_by_the_next_in_order(tmp_path: Path) -> None:
    path = tmp_path / "outbox"
    one = Outbox(path)
    for at in (1, 2):
        one.put(fact(at), at)
    assert times(one, 1) == [1]
    one.keep()  # the taken one too: it is not committed
    one.put(fact(3), 3)
    one.keep()
    one.done()
    assert times(one) == [2, 3]
    one.give_back()
    size = one.bytes
    one.close()
    two = Outbox(path)
    two.open()
    two.put(fact(4), 4)
    assert two.restored == 3
    assert two.bytes > size
    assert two.oldest_ms == 1
    assert times(two) == [1, 2, 3]  # what the other had committed comes again, and the journal knows it
    two.done()
    assert times(two) == [4]
    two.done()
    assert (two.bytes, len(two), path.exists()) == (0, 0, False)


def test_memory_holds_nothing_while_much_waits(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox")
    for at in range(50):
        outbox.put(fact(at), at)
        outbox.keep()
        assert not outbox._memory
    assert times(outbox, 20) == list(range(20))
    outbox.done()
    assert len(outbox) == 30
    assert times(outbox) == list(range(20, 50))


def test_a_torn_last_line_is_cut_off_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "outbox"
    one = Outbox(path)
    for at in (1, 2, 3):
        one.put(fact(at), at)
    one.keep()
    one.close()
    good = path.read_bytes()
    path.write_bytes(good[:-7])
    two = Outbox(path)
    two.open()
    assert times(two) == [1, 2]
    two.give_back()
    two.put(fact(9), 9)
    two.keep()
    two.close()
    three = Outbox(path)
    three.open()
    assert times(three) == [1, 2, 9]
    three.close()
    path.write_bytes(good.replace(b'"at_ms":2', b'"at_ms":7'))
    with pytest.raises(BooksDoNotVerify, match="outbox, line 2: damaged"):
        Outbox(path).open()


def test_one_process_has_the_file(tmp_path: Path) -> None:
    one, two = Outbox(tmp_path / "outbox"), Outbox(tmp_path / "outbox")
    one.put(fact(1), 1)
    one.keep()
    two.put(fact(2), 2)
    with pytest.raises(Unreachable, match="in use by another process"):
        two.keep()
    assert len(two) == 1
    one.close()


def test_a_full_disk_leaves_everything_in_memory_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    books = Bookkeeper(f"sqlite:///{tmp_path}/no/b.sqlite", outbox=tmp_path / "outbox")
    honest, room = os.pwrite, [30]

    def full(file: int, data: bytes, at: int) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = honest(file, data[: room[0]], at)
        room[0] -= written
        return written

    monkeypatch.setattr(os, "pwrite", full)
    books.record([fact(1)], 1)
    assert "the outbox" in books.trouble
    assert "No space left on device: 1 facts are in memory only" in books.trouble
    assert (tmp_path / "outbox").read_bytes() == b""
    room[0] = 10**9
    books.record([fact(2)], 2)
    assert "memory only" not in books.trouble
    assert (tmp_path / "outbox").read_bytes().count(b"\n") == 2
    (tmp_path / "no").mkdir()
    books.record((), MINUTE_MS)
    assert books.trouble == ""
    assert not (tmp_path / "outbox").exists()
    books.close()


# --- the books, with failures -------------------------------------------------------------------------------------


class Failing:
    """Fails real statements of a SQLite file by what a real cause does to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.holder: sqlite3.Connection | None = None

    def begin(self, how: str, books: Bookkeeper) -> None:
        books._engine.dispose()
        if how == "locked":
            self.holder = sqlite3.connect(self.path, isolation_level=None)
            self.holder.execute("BEGIN IMMEDIATE")
        elif how == "full":
            self.pragma(books, "max_page_count = 1")
        else:
            self.pragma(books, "query_only = ON")

    def pragma(self, books: Bookkeeper, text: str) -> None:
        from sqlalchemy import event

        def prepare(connection: Any, _record: object) -> None:
            connection.execute(f"PRAGMA {text}")

        event.listen(books._engine, "connect", prepare)
        self.undo = lambda: event.remove(books._engine, "connect", prepare)

    def end(self, books: Bookkeeper) -> None:
        if self.holder is not None:
            self.holder.close()
        else:
            self.undo()
            books._engine.dispose()


@pytest.mark.parametrize(
    ("how", "said"), [("locked", "locked"), ("full", "full"), ("read-only", "readonly")]
)  # fmt: skip
def test_sqlite_fails_for_ten_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, said: str) -> None:
    monkeypatch.setattr(database, "BUSY_MS", 0)
    path = tmp_path / "b.sqlite"
    books, failing = Bookkeeper(f"sqlite:///{path}"), Failing(path)
    for number, (now_ms, facts) in enumerate(story()):
        if number == 6:
            failing.begin(how, books)
        if number == 12:
            assert said in books.trouble
            assert books.behind_ms(now_ms) >= 10 * MINUTE_MS
            assert (tmp_path / "b.sqlite-outbox").exists()
            failing.end(books)
        books.record(facts, now_ms)
    whole_story(books.url, books)
    assert not (tmp_path / "b.sqlite-outbox").exists()


@pytest.mark.parametrize("dies_at", [5, 9, 15])
def test_killed_while_the_database_is_away_the_next_process_writes_it(tmp_path: Path, dies_at: int) -> None:
    url = f"sqlite:///{tmp_path}/b.sqlite"

    def child() -> None:
        def away(_step: str) -> None:
            if begun >= 4:
                raise Unreachable("the database is away")

        begun = 0
        books = Bookkeeper(url, failpoint=away)
        for begun, (now_ms, facts) in enumerate(story()):
            if begun == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            books.record(facts, now_ms)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert (tmp_path / "b.sqlite-outbox").exists()
    books = Bookkeeper(url)
    books.open()
    for now_ms, facts in story()[dies_at:]:  # nobody tells again what the other process was told
        books.record(facts, now_ms)
    whole_story(url, books)


def test_what_was_committed_just_before_the_kill_is_not_written_twice(tmp_path: Path) -> None:
    url, path = f"sqlite:///{tmp_path}/b.sqlite", tmp_path / "b.sqlite-outbox"
    books = Bookkeeper(url)
    left = Outbox(path)
    for now_ms, facts in story():
        books.record(facts, now_ms)
        for each in facts:
            left.put(each, now_ms)
    left.keep()
    left.close()
    books.close()
    books = Bookkeeper(url)
    books.record((), END_MS)
    with database.reading(books._engine) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM journal WHERE kind = 'Again'").scalar() == 0
    whole_story(url, books)


def test_the_limit_counts_what_an_earlier_process_left(tmp_path: Path) -> None:
    path = tmp_path / "outbox"
    left = Outbox(path)
    left.put(fact(1), 1)
    left.keep()
    left.close()
    books = Bookkeeper(f"sqlite:///{tmp_path}/no/b.sqlite", outbox=path)
    books.record((), 2)
    assert books.behind_ms(MINUTE_MS) == MINUTE_MS - 1
    assert books.full(bookkeeper.OUTBOX_MS + 1)
    books.close()


@pytest.mark.postgres
def test_postgresql_is_stopped_for_ten_minutes_and_crashes(tmp_path: Path) -> None:
    server = PostgresServer()
    try:
        url = server.schema()
        books = Bookkeeper(url, outbox=tmp_path / "outbox")
        for number, (now_ms, facts) in enumerate(story()):
            if number in (4, 14):
                server.stop(signal.SIGQUIT if number == 14 else signal.SIGINT)
            if number in (9, 16):
                assert books.behind_ms(now_ms) >= 10 * MINUTE_MS
                assert (tmp_path / "outbox").stat().st_size
                server.start()
            books.record(facts, now_ms)
        whole_story(url, books)
    finally:
        server.remove()


@pytest.mark.postgres
@pytest.mark.parametrize("code", ["40001", "40P01", "53100", "25006"])
def test_postgresql_refuses_a_few_transactions(postgres: PostgresServer, tmp_path: Path, code: str) -> None:
    """Serialization failure, deadlock, disk full, read-only: raised by the server itself in the middle of posting."""
    url = postgres.schema()
    books = Bookkeeper(url, outbox=tmp_path / "outbox")
    books.open()
    schema = url.rpartition("%3D")[2]
    with psycopg.connect(postgres.address, autocommit=True) as connection:
        connection.execute(f"SET search_path = {schema}")
        connection.execute("CREATE SEQUENCE tries")  # counts through rollbacks
        connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF nextval('{schema}.tries') % 4 <> 0 THEN RAISE EXCEPTION 'not now' USING ERRCODE = '{code}'; END IF; "
            "RETURN NULL; END $$"
        )
        connection.execute(
            "CREATE TRIGGER refuse AFTER INSERT ON entry FOR EACH STATEMENT EXECUTE FUNCTION refuse()"
        )  # fmt: skip
    refused = 0
    for now_ms, facts in story():
        books.record(facts, now_ms)
        refused += "not now" in books.trouble
    assert refused > 5
    for attempt in range(1, 5):
        books.record((), END_MS + attempt * MINUTE_MS)
    with psycopg.connect(postgres.address, autocommit=True) as connection:
        connection.execute(f"DROP TRIGGER refuse ON {schema}.entry")
    whole_story(url, books)
