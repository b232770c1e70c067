"""Books begin from a snapshot of the meter and what came after it; where none fits, from the first record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from books_disorder import HOUR_MS, T0, export
from ledger_books import hold, release
from ledger_facts import NAMED, node
from postgres_server import PostgresServer

from fairlead.errors import Unreachable
from fairlead.ledger.meter import Meter
from fairlead.ledger.snapshot import READABLE
from fairlead.model.events import NodeSeen
from fairlead.service.bookkeeper import Bookkeeper
from fairlead.store import engine as database
from fairlead.store import journal, snapshots
from fairlead.store.tables import entry, meter_snapshot


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/b.sqlite"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.schema()


@pytest.fixture
def applied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The records that meters are given, as they are given them."""
    given: list[str] = []
    apply = Meter.apply

    def noted(self: Meter, record: Any, fact: str) -> Any:
        given.append(type(record).__name__)
        return apply(self, record, fact)

    monkeypatch.setattr(Meter, "apply", noted)
    return given


def kept(url: str, hours: int = 5, *, after: int = 4) -> None:
    """Some hours of a node that is in use, each with its cut."""
    books = Bookkeeper(url, snapshot_after=after)
    books.record([*NAMED, NodeSeen(node=node(), at_ms=T0), hold(T0 + 1, ("n1", (0, 1)))], T0 + 2)
    for hour in range(1, hours + 1):
        books.record([release(T0 + hour * HOUR_MS + 7, uid=f"g{hour}")], T0 + hour * HOUR_MS + 9)
    assert books.trouble == ""
    books.close()


def numbers(url: str) -> list[int]:
    engine = database.connect(url)
    with database.reading(engine) as connection:
        found = connection.execute(sa.select(meter_snapshot.c.number).order_by(meter_snapshot.c.number)).scalars().all()
    engine.dispose()
    return list(found)


def spoil(url: str, **values: Any) -> None:
    engine = database.connect(url)
    with database.writing(engine) as connection:
        connection.execute(meter_snapshot.update().values(**values))
    engine.dispose()


def begun(url: str) -> Bookkeeper:
    books = Bookkeeper(url)
    books.open()
    return books


def records(url: str) -> int:
    engine = database.connect(url)
    with database.reading(engine) as connection:
        number = journal.head(connection).number
    engine.dispose()
    return number


def test_only_what_came_after_the_snapshot_is_replayed(url: str, applied: list[str]) -> None:
    kept(url)
    assert len(numbers(url)) == snapshots.KEPT
    applied.clear()
    books = begun(url)
    assert len(applied) == records(url) - numbers(url)[-1] < 3
    assert books.trouble == ""
    assert books.open_holds() == ()
    books.close()


def test_books_go_on_from_a_snapshot_as_from_a_replay(url: str, tmp_path: Path) -> None:
    other = f"sqlite:///{tmp_path}/whole.sqlite"
    for where, after in ((url, 4), (other, 10**9)):
        kept(where, after=after)
        books = begun(where)
        books.record([hold(T0 + 6 * HOUR_MS, ("n1", (2,)), uid="g2")], T0 + 6 * HOUR_MS + 5)
        books.record([release(T0 + 8 * HOUR_MS, uid="g2")], T0 + 8 * HOUR_MS + 5)
        books.close()
    assert numbers(other) == []
    assert export(url, 0) == export(other, 0)


@pytest.mark.parametrize(
    "spoiled",
    [{"form": "another"}, {"sha256": "0"}, {"content": b"x"}, {"journal_hash": "0"}],
    ids=lambda values: next(iter(values)),
)
def test_a_snapshot_that_does_not_fit_is_passed_over(url: str, applied: list[str], spoiled: dict[str, Any]) -> None:
    kept(url)
    spoil(url, **spoiled)
    applied.clear()
    books = begun(url)
    assert len(applied) == records(url)
    assert books.trouble == ""
    books.close()


def test_a_snapshot_of_a_form_that_only_lacks_fields_is_read(url: str, applied: list[str]) -> None:
    kept(url)
    spoil(url, form=READABLE[-1])
    applied.clear()
    begun(url).close()
    assert len(applied) < records(url)


def test_a_damaged_snapshot_leaves_the_one_before_it(url: str, applied: list[str]) -> None:
    kept(url)
    older, newest = numbers(url)
    engine = database.connect(url)
    with database.writing(engine) as connection:
        connection.execute(meter_snapshot.update().where(meter_snapshot.c.number == newest).values(content=b"x"))
    engine.dispose()
    applied.clear()
    begun(url).close()
    assert len(applied) == records(url) - older


def test_a_snapshot_that_the_entries_contradict_is_not_believed(url: str, applied: list[str]) -> None:
    """Whoever changed it can't make the books go on from what never was: the chain of entries ends elsewhere."""
    kept(url)
    spoil(url, entries_hash="0" * 64)
    applied.clear()
    books = begun(url)
    assert applied.count("NodeSeen") == 1  # all of it
    assert len(applied) == records(url) + (records(url) - numbers(url)[-1])
    assert books.trouble == ""
    books.close()


def test_entries_that_no_replay_makes_are_said_with_and_without_a_snapshot(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/b.sqlite"
    kept(url)
    engine = database.connect(url)
    with database.writing(engine) as connection:
        connection.exec_driver_sql("DROP TRIGGER entry_no_update")
        last = sa.select(sa.func.max(entry.c.number)).scalar_subquery()
        connection.execute(entry.update().where(entry.c.number == last).values(hash="0" * 64))
    engine.dispose()
    books = begun(url)
    assert "a replay of the journal ends" in books.trouble
    books.close()


def test_none_is_written_before_there_is_enough_to_replay(url: str) -> None:
    kept(url, after=10_000)
    assert numbers(url) == []


def test_a_snapshot_that_cannot_be_written_costs_nothing_but_time(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> None:
        raise Unreachable("the database is full")

    with monkeypatch.context() as patched:
        patched.setattr(snapshots, "keep", away)
        kept(url)
    assert numbers(url) == []
    books = begun(url)
    assert books.trouble == ""
    books.record([release(T0 + 9 * HOUR_MS)], T0 + 9 * HOUR_MS + 5)
    assert books.trouble == ""
    books.close()


def test_reports_know_what_is_open_from_the_snapshot(url: str, applied: list[str]) -> None:
    kept(url)
    engine = database.connect(url)
    applied.clear()
    with database.reading(engine) as connection:
        meter = snapshots.current(connection)
    engine.dispose()
    assert len(applied) < 3
    assert {segment.device for segment in meter.open_segments()} == {f"gpu-{index}" for index in range(4)}
