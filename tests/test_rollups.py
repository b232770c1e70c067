"""Sums by quarter and by day: kept with the entries, equal to what the entries say, and made anew bit for bit."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from books_story import story
from hypothesis import given
from hypothesis import strategies as st
from ledger_facts import NAMED, node, placement
from postgres_server import PostgresServer
from typer.testing import CliRunner

from fairlead.cli import ledger
from fairlead.errors import BooksDoNotVerify
from fairlead.ledger.rollup import DAY_MS, QUARTER_MS, pieces
from fairlead.model.events import Intended, MemberReleased, NodeSeen
from fairlead.model.gang import Tier
from fairlead.reports.usage import By, from_database
from fairlead.service.bookkeeper import Bookkeeper
from fairlead.store import engine as database
from fairlead.store import entries, rollups, usage

HOUR_MS = 3_600_000
T0 = 20_000 * DAY_MS


@given(st.integers(0, 3 * DAY_MS), st.integers(1, 4 * DAY_MS))
def test_the_pieces_of_an_interval_add_up_and_stay_in_their_cells(from_ms: int, length: int) -> None:
    found = pieces(from_ms, from_ms + length)
    assert sum(ms for size, _, ms in found if size == DAY_MS) == length
    whole = {start for size, start, ms in found if size == DAY_MS and ms == DAY_MS}
    quarters = [(start, ms) for size, start, ms in found if size == QUARTER_MS]
    assert sum(ms for _, ms in quarters) == length - len(whole) * DAY_MS
    for start, ms in quarters:
        assert 0 < ms <= QUARTER_MS
        assert start // DAY_MS * DAY_MS not in whole
        assert start + QUARTER_MS > from_ms
        assert start < from_ms + length


def days(books: Bookkeeper, seed: int = 1) -> None:
    """Three nodes over five days with a gap of two, so that entries are of minutes, of hours and of days."""
    rng = random.Random(seed)
    now = T0 + 7 * HOUR_MS
    books.record([*NAMED, *[NodeSeen(node=node(name), at_ms=now) for name in ("n1", "n2", "n3")]], now)
    for attempt in range(1, 40):
        now += rng.randint(1, 3 * HOUR_MS) + (2 * DAY_MS + 777 if attempt == 20 else 0)
        uid, on = f"g{attempt % 3 + 1}", placement(("n1", (0, 1)), (rng.choice(("n2", "n3")), (2,), 300))
        hold = Intended(gang=uid, attempt=attempt, placement=on, tier=Tier.IN_QUOTA, at_ms=now, deadline_ms=now + 9)
        end = now + rng.randint(1, 20 * HOUR_MS)
        facts: list[Any] = [hold, *[MemberReleased(gang=uid, attempt=attempt, rank=r, at_ms=end) for r in (0, 1)]]
        books.record([facts[0]], now)
        books.record(facts[1:], now)
    books.cut(now + 30 * HOUR_MS)
    assert books.trouble == ""


def by_account(found: list[usage.Amount]) -> dict[tuple[str, str], int]:
    sums: dict[tuple[str, str], int] = {}
    for amount in found:
        sums[amount.account, amount.pool] = sums.get((amount.account, amount.pool), 0) + amount.ticks
    return {key: sums[key] for key in sorted(sums) if sums[key]}


def windows() -> list[tuple[int | None, int | None]]:
    rng = random.Random(3)
    found: list[tuple[int | None, int | None]] = [(None, None), (T0, T0 + DAY_MS), (None, T0 + 3 * DAY_MS)]
    for _ in range(25):
        since = T0 + rng.randrange(0, 600) * QUARTER_MS
        found += [(since, since + rng.choice((1, 3, 90, 96, 300)) * QUARTER_MS), (since, None)]
    return found


def test_every_window_of_quarters_has_what_the_entries_have(tmp_path: Path) -> None:
    books = Bookkeeper(f"sqlite:///{tmp_path}/b.sqlite")
    days(books)
    engine = database.connect(books.url)
    with database.reading(engine) as connection:
        for since, until in windows():
            summed = by_account(usage.amounts(connection, since, until, jobs=False))
            assert summed == by_account(usage.amounts(connection, since, until)), (since, until)
            assert all(a.gang == "" for a in usage.amounts(connection, since, until, jobs=False))
        lengths = {entry.entry.to_ms - entry.entry.from_ms for entry in entries.read(connection)}
    assert max(lengths) > DAY_MS > HOUR_MS > min(lengths)
    whole, parts = (
        from_database(engine, since_ms=T0 + shift, until_ms=T0 + 3 * DAY_MS, by=By.QUEUE) for shift in (0, 1)
    )
    assert whole.rows == parts.rows  # one from rollups, one from entries; the books begin later than both
    assert whole.balanced
    engine.dispose()
    books.close()


def test_they_are_made_anew_bit_for_bit_and_a_wrong_one_is_found(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite"
    books = Bookkeeper(f"sqlite:///{path}")
    days(books)
    engine = database.connect(books.url)
    with database.reading(engine) as connection:
        before = dict(rollups.read(connection))
        assert rollups.number(connection) == books.head.number
    run = ["rebuild-rollups", "--file", str(path)]
    done = CliRunner().invoke(ledger.app, run)
    assert done.exit_code == 0, done.output
    with database.reading(engine) as connection:
        assert dict(rollups.read(connection)) == before
    with database.writing(engine) as connection:
        connection.exec_driver_sql(
            "UPDATE rollup SET ticks = ticks + 1 WHERE start_ms = (SELECT max(start_ms) FROM rollup)"
        )
    bad = CliRunner().invoke(ledger.app, ["verify", "--file", str(path)])
    assert bad.exit_code == 7
    assert "rollup" in bad.output
    done = CliRunner().invoke(ledger.app, run)
    assert done.exit_code == 1
    assert "differed" in done.output
    assert CliRunner().invoke(ledger.app, ["verify", "--file", str(path)]).exit_code == 0
    engine.dispose()
    books.close()


def test_books_from_before_there_were_any_are_caught_up_with(tmp_path: Path) -> None:
    books = Bookkeeper(f"sqlite:///{tmp_path}/b.sqlite")
    days(books)
    with database.reading(books._engine) as connection:
        before = dict(rollups.read(connection))
    with database.writing(books._engine) as connection:
        connection.exec_driver_sql("DELETE FROM rollup")
        connection.exec_driver_sql("DELETE FROM meta WHERE name = 'rollups'")
        assert usage.amounts(connection, jobs=False) == usage.amounts(connection)  # nobody reads what lacks something
    again = Bookkeeper(books.url)
    again.open()
    with database.reading(books._engine) as connection:
        assert dict(rollups.read(connection)) == before
    again.close()
    books.close()


@pytest.mark.postgres
def test_both_databases_have_the_same_cells(postgres: PostgresServer, tmp_path: Path) -> None:
    found = []
    for url in (postgres.schema(), f"sqlite:///{tmp_path}/b.sqlite"):
        books = Bookkeeper(url)
        days(books)
        with database.reading(books._engine) as connection:
            found.append((dict(rollups.read(connection)), [rollups.sums(connection, *w) for w in windows()]))
        books.close()
    assert found[0] == found[1]


def test_archived_entries_stay_in_the_sums(tmp_path: Path) -> None:
    books = Bookkeeper(f"sqlite:///{tmp_path}/b.sqlite")
    books.record([fact for _, facts in story() for fact in facts], 1)
    books.cut(2 * HOUR_MS)
    with database.writing(books._engine) as connection:
        for table in ("posting", "entry"):
            connection.exec_driver_sql(f"DROP TRIGGER {table}_no_delete")
            connection.exec_driver_sql(f"DELETE FROM {table} WHERE number < 3")
        with pytest.raises(BooksDoNotVerify, match="before 3 are archived"):
            rollups.rebuild(connection)
    books.close()
