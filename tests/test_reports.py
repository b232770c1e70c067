"""Reports: every number by hand, bytes that do not change, names that no spreadsheet runs, and `unmeasured` said."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from months import BERLIN, Months, ms
from priced_books import BEGIN, ENTRIES, HOUR, NANO, ODD, priced_books
from typer.testing import CliRunner

from fairlead.cli.report import app
from fairlead.errors import NotFound, UnreadableInput
from fairlead.ledger.entry import EntryKind
from fairlead.model.calendars import Span
from fairlead.reports import charges, efficiency, statements
from fairlead.reports.booked import Booked, By, booked
from fairlead.reports.document import Document, csv_text
from fairlead.store.engine import Engine


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return priced_books(tmp_path)


def rows(found: Document) -> list[dict[str, object]]:
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


def hours(row: dict[str, object], *names: str) -> list[object]:
    return [None if row[f"{n}_gpu_ms"] is None else row[f"{n}_gpu_ms"] / HOUR for n in names]


def test_showback(engine: Engine) -> None:
    speech, vision = rows(charges.showback(booked(engine), By.QUEUE))
    assert hours(vision, "in_quota", "borrowed", "reserved") == [4, 2, 0]
    names = ("used", "idle", "wasted")
    assert hours(vision, "in_quota", *names) == [4, 4, 1, 1]
    assert vision["cost_nanos"] == 12 * NANO  # 8 + 6, less 2
    assert vision["idle_cost_nanos"] == 2 * NANO  # an hour of six
    # Nobody measured speech and nothing prices it: that is not zero.
    assert (speech["held_gpu_ms"], speech["cost_nanos"], speech["idle_cost_nanos"]) == (2 * HOUR, None, None)
    assert hours(speech, *names) == [None, None, 0]


def test_chargeback_has_what_was_decided_by_hand_on_its_own_line(engine: Engine) -> None:
    found = charges.chargeback(booked(engine), By.TENANT)
    told = [(row["tier"], row["what"], row["reason"], row["amount_nanos"]) for row in rows(found)]
    assert told == [
        ("borrowed", "usage", "", 6 * NANO),
        ("in-quota", "adjustment", "outage", -2 * NANO),
        ("in-quota", "usage", "", 8 * NANO),
    ]
    assert found.facts["total_nanos EUR"] == 12 * NANO


def test_efficiency_divides_what_was_held(engine: Engine) -> None:
    found = efficiency.efficiency(booked(engine), By.QUEUE)
    speech, vision = rows(found)
    assert hours(vision, "held", "used", "idle", "unattributable", "wasted", "unmeasured") == [6, 4, 1, 0, 1, 0]
    assert vision["used_permille"] == 666
    assert hours(speech, "held", "used", "unmeasured") == [2, None, 2]
    facts = {name: value / HOUR for name, value in found.facts.items()}
    assert facts.pop("capacity_gpu_ms") == sum(facts.values()) == 10
    assert (facts["held_gpu_ms"], facts["reserved_idle_gpu_ms"], facts["free_gpu_ms"]) == (8, 1, 1)


def test_idle_jobs_come_with_their_owners(engine: Engine) -> None:
    found = efficiency.idle(booked(engine))
    (row,) = rows(found)
    assert (row["queue"], row["name"], row["idle_permille"], row["idle_cost_nanos"]) == (
        "vision",
        "train",
        166,
        14 * NANO // 6,
    )
    assert found.facts["unmeasured_gpu_ms"] == 2 * HOUR


def test_reservations(engine: Engine) -> None:
    (row,) = rows(efficiency.reservations(booked(engine)))
    assert row == {
        "queue": "speech", "rule": "reservation", "held_gpu_ms": 0, "kept_idle_gpu_ms": HOUR, "held_permille": 0,
    }  # fmt: skip


def test_books_without_samples_say_so(tmp_path: Path) -> None:
    plain = priced_books(tmp_path, tuple(e for e in ENTRIES if e.kind is EntryKind.SEGMENT))
    found = efficiency.efficiency(booked(plain), By.QUEUE)
    for row in rows(found):
        assert hours(row, "used", "idle", "unattributable", "wasted") == [None] * 4
        assert row["unmeasured_gpu_ms"] == row["held_gpu_ms"]
    assert "unmeasured" in found.to_csv()
    assert efficiency.idle(booked(plain)).rows == ()


def test_windows_cut_what_sticks_out_and_their_parts_are_the_whole(engine: Engine) -> None:
    whole = charges.showback(booked(engine), By.JOB)
    parts = [
        charges.showback(booked(engine, Span(BEGIN + a, BEGIN + b, "")), By.JOB)
        for a, b in ((0, 1), (1, 3 * HOUR + 7), (3 * HOUR + 7, 5 * HOUR), (5 * HOUR, 10 * HOUR))
    ]
    for column in ("held_gpu_ms", "used_gpu_ms", "idle_gpu_ms", "wasted_gpu_ms", "cost_nanos"):
        at = whole.columns.index(column)
        wanted = {row[:5]: row[at] for row in whole.rows}
        for key, total in wanted.items():
            told = [row[at] for part in parts for row in part.rows if row[:5] == key and row[at] is not None]
            if total is None:
                assert told == []
            elif column in ("held_gpu_ms", "cost_nanos"):
                assert sum(told) == total, column
            else:  # a sample says how much, not when: its parts are rounded to whole GPU-ms, one by one
                assert 0 <= total - sum(told) < len(told), column
    with pytest.raises(NotFound, match="they go from"):
        booked(engine, Span(0, 1, ""))


def test_two_currencies_need_a_name(tmp_path: Path) -> None:
    last = ENTRIES[1]
    usd = tuple(dataclasses.replace(p, unit=p.unit.replace("EUR", "USD")) for p in last.postings)
    engine = priced_books(tmp_path, (*ENTRIES[:1], dataclasses.replace(last, postings=usd)))
    with pytest.raises(UnreadableInput, match="--currency: the books have EUR and USD; name one"):
        charges.showback(booked(engine), By.QUEUE)
    assert charges.showback(booked(engine), By.QUEUE, "USD").rows[0][-3] == 6 * NANO
    facts = charges.chargeback(booked(engine), By.QUEUE).facts
    assert (facts["total_nanos EUR"], facts["total_nanos USD"]) == (8 * NANO, 6 * NANO)


def test_a_closed_month_is_its_frozen_statement_with_its_corrections(tmp_path: Path) -> None:
    months = Months(tmp_path).pass_to("2026-10-05T00:00Z")
    span = BERLIN.named("2026-09")
    before = booked(months.engine, span)
    (step, *_) = months.close("2026-09")[1:]
    after = booked(months.engine, span)
    assert (before.period, after.period, after.sha256) == ("", "2026-09", step.sha256)
    assert efficiency.efficiency(before, By.JOB).rows == efficiency.efficiency(after, By.JOB).rows
    assert after.since_ms < before.since_ms  # the whole month, though the books began late in it
    assert statements.statement(months.engine, "2026-09").lines == after.lines


def test_bytes_are_the_same_and_have_their_digest(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    other = priced_books(tmp_path / "again")
    for report in (lambda f: charges.showback(f, By.JOB), lambda f: charges.chargeback(f, By.JOB), efficiency.idle):
        one, two = report(booked(engine)), report(booked(other))
        assert (one.to_data(), one.to_csv()) == (two.to_data(), two.to_csv())
        body = dict(one.to_data())
        sha256 = body.pop("sha256")
        canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert hashlib.sha256(canonical.encode()).hexdigest() == sha256


def test_csv_runs_no_formula(engine: Engine) -> None:
    text = charges.showback(booked(engine), By.JOB).to_csv()
    read = list(csv.reader(io.StringIO(text, newline="")))
    assert [row[2:4] for row in read[1:]] == [["'" + ODD, 'tune,"x"??'], ["", ""], ["ns", "train"]]
    assert len({len(row) for row in read}) == 1


@given(st.lists(st.one_of(st.none(), st.integers(), st.text()), min_size=2, max_size=4))
def test_csv_cells_read_back_and_begin_no_formula(values) -> None:
    (head, row) = list(csv.reader(io.StringIO(csv_text([f"c{i}" for i in range(len(values))], [values]), newline="")))
    assert len(row) == len(head) == len(values)
    for cell, value in zip(row, values, strict=True):
        if isinstance(value, str):
            assert not cell.startswith(("=", "+", "@", "\t", "\r", "\n"))
            assert not cell.startswith("-") or float(cell) <= 0
            assert all(c >= " " for c in cell)
        else:
            assert cell == ("" if value is None else str(value))


def run(engine: Engine, *words: str) -> str:
    done = CliRunner().invoke(app, [*words, "--database", str(engine.url)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_commands(engine: Engine) -> None:
    text = run(engine, "showback")
    assert text.splitlines()[2].split() == [
        "lab", "vision", "4.000", "2.000", "0.000", "0.000", "6.000", "4.000", "1.000", "1.000", "0.000", "12.00",
        "2.00", "0.00",
    ]  # fmt: skip
    assert "as of 2026-09-22T00:00:00Z" in text
    for name in ("showback", "chargeback", "efficiency", "waste", "idle", "reservations"):
        data = json.loads(run(engine, name, "-o", "json"))
        assert data["report"] == name
        assert data["as_of_ms"] == BEGIN + 10 * HOUR
        assert run(engine, name, "-o", "csv").splitlines()[0] == ",".join(data["rows"][0])
    each = json.loads(run(engine, "efficiency", "--each", "hour", "--by", "tenant", "-o", "json"))["rows"]
    assert [row["held_gpu_ms"] for row in each] == [HOUR] * 8
    assert each[0]["span"].endswith("+00:00")
    days = json.loads(run(engine, "--time-zone", "Asia/Kolkata", "efficiency", "--each", "day", "-o", "json"))["rows"]
    assert {row["span"] for row in days} == {"2026-09-21", "2026-09-22"}
    period = json.loads(run(engine, "efficiency", "--period", "2026-09-21", "-o", "json"))
    assert period["since_ms"] == BEGIN


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("showback", "-o", "xml"), "--output: 'xml' is none of table, json, csv"),
        (("showback", "--by", "user"), "--by: 'user' is none of"),
        (("showback", "--each", "week"), "--each: 'week' is none of"),
        (("showback", "--period", "2026-13"), "--period: '2026-13' is no month"),
        (("showback", "--period", "2026-09", "--since", "0"), "--period: says from when to when"),
        (("showback", "--since", "5", "--until", "5"), "--since: must be before --until"),
        (("--time-zone", "Mars/Olympus", "showback"), "--time-zone: there is no time zone"),
    ],
)
def test_bad_questions_are_refused(engine: Engine, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UnreadableInput, match=message):
        run(engine, *words)


def test_empty_books_have_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nothing booked yet"):
        booked(priced_books(tmp_path, ()))


def test_a_window_may_begin_before_the_books(engine: Engine) -> None:
    found = booked(engine, Span(0, ms("2100-01-01T00:00Z"), ""))
    assert isinstance(found, Booked)
    assert (found.since_ms, found.until_ms) == (BEGIN, BEGIN + 10 * HOUR)
