"""Sums by hour and by day: kept with the entries, equal to what the entries say, and made anew bit for bit."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from books_story import story
from hypothesis import given
from hypothesis import strategies as st
from ledger_facts import NAMED, node, placement
from months import BERLIN
from postgres_server import PostgresServer
from random_books import BEGIN, END, random_books
from typer.testing import CliRunner

from fairlead.cli import ledger
from fairlead.ledger.accounts import BESIDE, Kind
from fairlead.ledger.rollup import DAY_MS, HOUR_MS, over_jobs, spans
from fairlead.model.calendars import Calendar, Grain, Span
from fairlead.model.events import Intended, MemberReleased, NodeSeen
from fairlead.model.gang import Tier
from fairlead.reports import charges, efficiency, waste
from fairlead.reports import usage as usage_report
from fairlead.reports.booked import Booked, By, booked
from fairlead.reports.usage import from_database
from fairlead.service.bookkeeper import Bookkeeper
from fairlead.store import engine as database
from fairlead.store import entries, rollups, usage
from fairlead.timezones import zone_of

T0 = 20_000 * DAY_MS


@given(st.integers(0, 80), st.integers(1, 80))
def test_a_window_of_hours_is_whole_days_and_the_hours_at_its_ends(begin: int, length: int) -> None:
    found = spans(begin * HOUR_MS, (begin + length) * HOUR_MS)
    edges = [begin * HOUR_MS, *(to for _, _, to in found)]
    assert [at for _, at, _ in found] == edges[:-1]
    assert edges[-1] == (begin + length) * HOUR_MS
    for size, at, to in found:
        assert at % size == to % size == 0 < to - at
        assert size == DAY_MS or to - at < 2 * DAY_MS


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


def windows(seed: int = 3) -> list[tuple[int | None, int | None]]:
    rng = random.Random(seed)
    found: list[tuple[int | None, int | None]] = [(None, None), (T0, T0 + DAY_MS), (None, T0 + 3 * DAY_MS)]
    for _ in range(20):
        since = T0 + rng.randrange(0, 6 * DAY_MS) // (unit := rng.choice((1, 900_000, HOUR_MS, DAY_MS))) * unit
        found += [(since, since + rng.choice((1, 40, 90, 96, 300)) * rng.choice((unit, HOUR_MS))), (since, None)]
    return found


def test_every_window_has_what_the_entries_have(tmp_path: Path) -> None:
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
    report = from_database(engine, since_ms=T0 + 8 * HOUR_MS + 1, until_ms=T0 + 3 * DAY_MS, by=By.QUEUE)
    assert report.balanced
    assert report.rows
    engine.dispose()
    books.close()


CALENDARS = (
    BERLIN,
    Calendar(zone=zone_of("Asia/Kathmandu", field="zone")),  # a quarter to six ahead
    Calendar(zone=zone_of("America/Sao_Paulo", field="zone"), month_starts_on=15, year_starts_in=4),
)


def spans_of(seed: int) -> list[Span | None]:
    rng = random.Random(seed)
    found: list[Span | None] = [None]
    for calendar in CALENDARS:
        for grain in (Grain.HOUR, Grain.DAY, Grain.MONTH):
            found.append(calendar.at(grain, rng.randrange(BEGIN, END)))
    cuts = sorted(rng.randrange(BEGIN, END) for _ in range(4))
    return [*found, Span(cuts[0], cuts[1], ""), Span(cuts[1], cuts[3], ""), Span(cuts[2], cuts[2] + 1, "")]


def documents(found: Booked, by: By) -> list[bytes]:
    """Every report over jobs that is made of what was booked, as bytes."""
    made = (
        charges.chargeback(found, by), waste.waste(found, by),
        charges.showback(found, by, "EUR"), efficiency.efficiency(found, by), efficiency.reservations(found),
    )  # fmt: skip
    return [msgspec.json.encode(one.to_data(), order="sorted") for one in made]


def compare(engine: database.Engine, seed: int) -> list[bytes]:
    """Hold reports from sums against those from entries, byte for byte; return them."""
    told: list[bytes] = []
    for span in spans_of(seed):
        summed, raw = booked(engine, span, jobs=False), booked(engine, span)
        assert any(line.gang for line in raw.lines) or not raw.lines or span is not None
        assert summed.lines == tuple(over_jobs(raw.lines)), span
        for by in (By.QUEUE, By.TENANT):
            found = documents(summed, by)
            assert found == documents(Booked(
                since_ms=raw.since_ms, until_ms=raw.until_ms, as_of_ms=raw.as_of_ms, lines=tuple(over_jobs(raw.lines)),
            ), by), span  # fmt: skip
            told += found
            assert found[:2] == documents(raw, by)[:2], span  # these have no row and no field of what comes to nothing
        kept = [[row for row in efficiency.reservations(one).rows if row[2] or row[3]] for one in (raw, summed)]
        assert kept[0] == kept[1], span
        with database.reading(engine) as connection:
            for jobs in (False, True):
                amounts = usage.amounts(connection, summed.since_ms, summed.until_ms, jobs=jobs)
                report = usage_report.report(amounts, (), as_of_ms=0, by=By.QUEUE)
                told.append(msgspec.json.encode(usage_report.to_data(report)))
            assert told[-1] == told[-2], span
            for unit in BESIDE:
                pods = [usage.beside(connection, unit, raw.since_ms, raw.until_ms, jobs=jobs) for jobs in (False, True)]
                sums: dict[tuple[str, ...], int] = {}
                for (account, pool, *_), amount in pods[1].items():
                    names = (account, pool, "", "", "")
                    sums[names] = sums.get(names, 0) + amount
                assert pods[0] == {names: amount for names, amount in sorted(sums.items()) if amount}, span
    return told


@pytest.mark.parametrize("seed", range(6))
def test_reports_from_sums_and_from_entries_are_the_same_bytes(tmp_path: Path, seed: int) -> None:
    engine = random_books(f"sqlite:///{tmp_path}/b.sqlite", seed)
    told = compare(engine, seed)
    assert any(b'"wasted_gpu_ms":0' not in text and b'"cost_nanos":' in text for text in told)
    with database.writing(engine) as connection:
        assert rollups.rebuild(connection) == 0
    engine.dispose()


@pytest.mark.postgres
def test_reports_from_sums_are_the_same_bytes_on_both_databases(postgres: PostgresServer, tmp_path: Path) -> None:
    engines = [random_books(url, 7) for url in (f"sqlite:///{tmp_path}/b.sqlite", postgres.schema())]
    told = [compare(engine, 7) for engine in engines]
    assert told[0] == told[1]
    cells = []
    for engine in engines:
        with database.reading(engine) as connection:
            cells.append(list(rollups.read(connection)))
        engine.dispose()
    assert sorted(cells[0]) == sorted(cells[1])


def test_sums_are_carried_on_from_any_entry_and_as_of_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollups, "_FEW", 3)
    engine = random_books(f"sqlite:///{tmp_path}/b.sqlite", 11)
    prefixes = (f"{Kind.HELD}:", f"{Kind.SPEND}:")
    with database.reading(engine) as connection:
        head = entries.head(connection).number
        for since, number in ((None, head // 2), (BEGIN + 20 * DAY_MS + 77, head // 3), (BEGIN + DAY_MS, head - 1)):
            sums = usage.by_account(connection, prefixes, since, up_to=number)
            more = usage.by_account(connection, prefixes, since, after=number)
            for key, amount in more.items():
                sums[key] = sums.get(key, 0) + amount
            whole = usage.by_account(connection, prefixes, since)
            assert {key: amount for key, amount in sums.items() if amount} == whole
            assert {unit for unit, _ in whole} == {"ticks", "money:EUR", "money:USD", *BESIDE}
    engine.dispose()


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
            "UPDATE rollup SET amount = amount + 1 WHERE start_ms = (SELECT max(start_ms) FROM rollup)"
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
        before, sums = dict(rollups.read(connection)), [rollups.sums(connection, (T0, T0 + 4 * DAY_MS + 9))]
        begin_ms = rollups.begin_ms(connection)
    with database.writing(books._engine) as connection:
        connection.exec_driver_sql("DELETE FROM rollup")
        connection.exec_driver_sql("DELETE FROM meta WHERE name = 'rollups'")
        sums.append(rollups.sums(connection, (T0, T0 + 4 * DAY_MS + 9)))  # what is not in yet is read
        assert rollups.begin_ms(connection) == begin_ms
        rollups.add(connection, list(entries.read(connection, up_to=200)))
        sums.append(rollups.sums(connection, (T0, T0 + 4 * DAY_MS + 9)))
    assert sums[0] == sums[1] == sums[2]
    again = Bookkeeper(books.url)
    again.open()
    with database.reading(books._engine) as connection:
        assert dict(rollups.read(connection)) == before
        assert rollups.begin_ms(connection) == begin_ms == min(e.entry.from_ms for e in entries.read(connection))
    again.close()
    books.close()


def test_entries_that_are_dropped_are_taken_out(tmp_path: Path) -> None:
    books = Bookkeeper(f"sqlite:///{tmp_path}/b.sqlite")
    books.record([fact for _, facts in story() for fact in facts], 1)
    books.cut(2 * HOUR_MS)
    with database.writing(books._engine) as connection:
        for table in ("posting", "entry"):
            connection.exec_driver_sql(f"DROP TRIGGER {table}_no_delete")
        rollups.take_out(connection, 3)
        for table in ("posting", "entry"):
            connection.exec_driver_sql(f"DELETE FROM {table} WHERE number <= 3")
        left = dict(rollups.read(connection))
        assert all(left.values())
        assert rollups.rebuild(connection) == 0
    books.close()
