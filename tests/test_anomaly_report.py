"""`fairlead report anomalies` over real books, and the worked example of docs/explanation/money.md."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from cost_books import BEGIN, CHANGED, DAY, HOUR, LISTED, Days
from price_words import price, priced
from typer.testing import CliRunner

from fairlead.cli.report import app
from fairlead.errors import NotFound
from fairlead.model.events import QueueSeen
from fairlead.model.gang import Tier
from fairlead.model.prices import Adjusted, AdjustedLine, PriceTier
from fairlead.model.tenancy import Queue

PAGE = Path(__file__).resolve().parents[1] / "docs" / "explanation" / "money.md"


def run(days: Days, *arguments: str) -> str:
    done = CliRunner().invoke(app, ["anomalies", "--file", str(days.path), *arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def told(days: Days, *arguments: str) -> dict[tuple[str, str], dict[str, float]]:
    """(day, kind and ``!`` where it alarms) -> EUR that are not 0."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in json.loads(run(days, "-o", "json", *arguments))["rows"]:
        of = ("speech" if row["day"] == "2026-11-16" else "lab", "vision", "EUR")
        assert (row["tenant"], row["queue"], row["currency"]) == of
        amounts = {name[:-6]: nanos / 10**9 for name, nanos in row.items() if name.endswith("_nanos") and nanos}
        found[row["day"], row["kind"] + "!" * (row["alarm"] == "yes")] = amounts
    return found


@pytest.fixture
def days(tmp_path: Path) -> Any:
    found = Days(tmp_path)
    yield found
    found.books.close()


def test_the_worked_example(days: Days) -> None:
    """Every number of the table in docs/explanation/money.md."""
    days.usual(14).holds((20, Tier.IN_QUOTA), (10, Tier.BORROWED))
    days.tell(QueueSeen(queue=Queue(name="vision", parent="speech"), at_ms=days.now)).usual(1)
    found = told(days, "--since", "2026-11-15")
    assert found == {
        ("2026-11-15", "spend!"): {
            "expected": 20, "actual": 80, "change": 60, "volume": 40, "tier": 10, "price": 10,
        },
        ("2026-11-15", "per-held-hour"): {"expected": 60, "actual": 80, "change": 20, "tier": 10, "price": 10},
        ("2026-11-16", "per-held-hour!"): {
            "expected": 20, "actual": 30, "change": 10, "price": 5, "unexplained": 5,
        },
    }  # fmt: skip
    names = ("expected", "actual", "volume", "tier", "price", "unexplained")
    rows = [
        [day, f"`{kind.strip('!')}`", "yes" if "!" in kind else "no", *(f"{of.get(name, 0):.2f}" for name in names)]
        for (day, kind), of in found.items()
    ]
    assert PAGE.read_text(encoding="utf-8").count("".join(f"| {' | '.join(row)} |\n" for row in rows)) == 1


def test_a_late_price_alarms_nobody_on_the_day_it_is_booked(days: Days) -> None:
    days.usual(12)
    late = price("inQuota=8", begin=BEGIN + 9 * DAY, end=BEGIN + 10 * DAY, queue="vision")
    days.tell(priced(*LISTED, CHANGED, late, at_ms=days.now)).usual(2)
    assert told(days, "--since", "2026-11-10") == {
        ("2026-11-10", "spend"): {"expected": 20, "actual": 80, "change": 60, "price": 60},
        ("2026-11-10", "per-held-hour"): {"expected": 20, "actual": 80, "change": 60, "price": 60},
    }


def test_a_price_holds_from_the_hour_it_begins(days: Days) -> None:
    """At six; the job runs from one to eleven."""
    six = BEGIN + 8 * DAY + 6 * HOUR
    days.tell(priced(price("inQuota=2", end=six), price("inQuota=4", begin=six), at_ms=BEGIN)).usual(9)
    assert told(days, "--since", "2026-11-09") == {
        ("2026-11-09", "per-held-hour"): {"expected": 20, "actual": 30, "change": 10, "price": 10}
    }


def test_what_was_decided_by_hand_stands_beside(days: Days) -> None:
    days.usual(8)
    line = AdjustedLine(tenant="lab", queue="vision", tier=PriceTier.IN_QUOTA, nanos=900 * 10**9, currency="EUR")
    when = (BEGIN + 8 * DAY, BEGIN + 9 * DAY)
    days.tell(Adjusted(actor="ann", reason="setup", lines=(line,), from_ms=when[0], to_ms=when[1], at_ms=days.now))
    days.usual(1).holds((20, Tier.IN_QUOTA))
    found = told(days, "--since", "2026-11-08")
    assert found == {("2026-11-10", "spend!"): {"expected": 20, "actual": 40, "change": 20, "volume": 20}}


def test_a_window_is_of_whole_days_and_what_has_too_little_before_it_says_so(days: Days) -> None:
    days.usual(8)
    (first, *_) = told(days)
    assert first == ("2026-11-01", "too-little-history")
    assert len(told(days)) == 7
    assert told(days, "--period", "2026-11-03") == told(
        days, "--since", "2026-11-03T05:00", "--until", "2026-11-03T06:00"
    )
    with pytest.raises(NotFound, match="they go from"):
        run(days, "--since", "2027-01-01")


def test_the_bytes_are_those_of_the_books(days: Days) -> None:
    days.usual(8).holds((20, Tier.IN_QUOTA))
    document = json.loads(run(days, "-o", "json"))
    assert (document["report"], document["alarms"]) == ("anomalies", 1)
    assert run(days, "-o", "json") == run(days, "-o", "json")
    rows = list(csv.DictReader(io.StringIO(run(days, "-o", "csv", "--since", "2026-11-09"))))
    assert [(row["day"], row["kind"], row["volume_nanos"]) for row in rows] == [
        ("2026-11-09", "spend", str(20 * 10**9))
    ]


def test_a_calendar_of_ones_own_has_its_own_days(days: Days) -> None:
    days.usual(9)
    done = CliRunner().invoke(app, ["--time-zone", "Asia/Kolkata", "anomalies", "--file", str(days.path), "-o", "json"])
    assert [row["kind"] for row in json.loads(done.output)["rows"]] == ["too-little-history"] * 8
