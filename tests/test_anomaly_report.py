"""`fairlead report anomalies` over real books, and the worked example of docs/explanation/money.md."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from ledger_books import hold, release
from ledger_facts import NAMED, gang, node
from price_words import price, priced
from typer.testing import CliRunner

from fairlead.cli.report import app
from fairlead.errors import NotFound
from fairlead.model.events import GangSeen, NodeSeen, QueueSeen
from fairlead.model.gang import Tier
from fairlead.model.prices import Adjusted, AdjustedLine, PriceTier
from fairlead.model.tenancy import Queue
from fairlead.service.bookkeeper import Bookkeeper
from fairlead.units import moment_ms

PAGE = Path(__file__).resolve().parents[1] / "docs" / "explanation" / "money.md"
HOUR = 3_600_000
DAY = 24 * HOUR
BEGIN = moment_ms("2026-11-01T00:00:00Z")
LISTED = (price("inQuota=3 borrowed=3"), price("inQuota=2 borrowed=3", end=BEGIN + 14 * DAY, queue="lab"))
CHANGED = price("inQuota=2.5 borrowed=3", begin=BEGIN + 14 * DAY, queue="lab")


class Days:
    """Books of four GPUs, one of which vision holds for ten hours a day, in quota."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "b.sqlite"
        self.books = Bookkeeper(f"sqlite:///{self.path}")
        self.day, self.uid = 0, 0
        self.tell(*NAMED, priced(*LISTED, CHANGED), NodeSeen(node=node(), at_ms=BEGIN))

    @property
    def now(self) -> int:
        return BEGIN + self.day * DAY

    def tell(self, *facts: Any) -> Days:
        self.books.record(facts, self.now)
        assert self.books.trouble == ""
        return self

    def holds(self, *hours: tuple[int, Tier]) -> Days:
        """A day, on which a job of each tier holds a GPU for so many hours from one o'clock on."""
        for gpu, (count, tier) in enumerate(hours):
            self.uid += 1
            uid = f"u{self.uid}"
            self.tell(
                GangSeen(gang=gang(uid), at_ms=self.now),
                hold(self.now + HOUR, ("n1", (gpu,)), uid=uid, tier=tier),
                release(self.now + (1 + count) * HOUR, uid=uid),
            )
        self.day += 1
        return self.tell()

    def usual(self, days: int) -> Days:
        for _ in range(days):
            self.holds((10, Tier.IN_QUOTA))
        return self

    def run(self, *arguments: str) -> str:
        done = CliRunner().invoke(app, ["anomalies", "--file", str(self.path), *arguments])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.output

    def told(self, *arguments: str) -> dict[tuple[str, str], dict[str, float]]:
        """(day, kind and ``!`` where it alarms) -> EUR that are not 0."""
        found: dict[tuple[str, str], dict[str, float]] = {}
        for row in json.loads(self.run("-o", "json", *arguments))["rows"]:
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
    told = days.told("--since", "2026-11-15")
    assert told == {
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
        for (day, kind), of in told.items()
    ]
    assert PAGE.read_text(encoding="utf-8").count("".join(f"| {' | '.join(row)} |\n" for row in rows)) == 1


def test_a_late_price_alarms_nobody_on_the_day_it_is_booked(days: Days) -> None:
    days.usual(12)
    late = price("inQuota=8", begin=BEGIN + 9 * DAY, end=BEGIN + 10 * DAY, queue="vision")
    days.tell(priced(*LISTED, CHANGED, late, at_ms=days.now)).usual(2)
    assert days.told("--since", "2026-11-10") == {
        ("2026-11-10", "spend"): {"expected": 20, "actual": 80, "change": 60, "price": 60},
        ("2026-11-10", "per-held-hour"): {"expected": 20, "actual": 80, "change": 60, "price": 60},
    }


def test_a_price_holds_from_the_hour_it_begins(days: Days) -> None:
    """At six; the job runs from one to eleven."""
    six = BEGIN + 8 * DAY + 6 * HOUR
    days.tell(priced(price("inQuota=2", end=six), price("inQuota=4", begin=six), at_ms=BEGIN)).usual(9)
    assert days.told("--since", "2026-11-09") == {
        ("2026-11-09", "per-held-hour"): {"expected": 20, "actual": 30, "change": 10, "price": 10}
    }


def test_what_was_decided_by_hand_stands_beside(days: Days) -> None:
    days.usual(8)
    line = AdjustedLine(tenant="lab", queue="vision", tier=PriceTier.IN_QUOTA, nanos=900 * 10**9, currency="EUR")
    when = (BEGIN + 8 * DAY, BEGIN + 9 * DAY)
    days.tell(Adjusted(actor="ann", reason="setup", lines=(line,), from_ms=when[0], to_ms=when[1], at_ms=days.now))
    days.usual(1).holds((20, Tier.IN_QUOTA))
    told = days.told("--since", "2026-11-08")
    assert told == {("2026-11-10", "spend!"): {"expected": 20, "actual": 40, "change": 20, "volume": 20}}


def test_a_window_is_of_whole_days_and_what_has_too_little_before_it_says_so(days: Days) -> None:
    days.usual(8)
    (first, *_) = days.told()
    assert first == ("2026-11-01", "too-little-history")
    assert len(days.told()) == 7
    assert days.told("--period", "2026-11-03") == days.told(
        "--since", "2026-11-03T05:00", "--until", "2026-11-03T06:00"
    )
    with pytest.raises(NotFound, match="they go from"):
        days.run("--since", "2027-01-01")


def test_the_bytes_are_those_of_the_books(days: Days) -> None:
    days.usual(8).holds((20, Tier.IN_QUOTA))
    document = json.loads(days.run("-o", "json"))
    assert (document["report"], document["alarms"]) == ("anomalies", 1)
    assert days.run("-o", "json") == days.run("-o", "json")
    rows = list(csv.DictReader(io.StringIO(days.run("-o", "csv", "--since", "2026-11-09"))))
    assert [(row["day"], row["kind"], row["volume_nanos"]) for row in rows] == [
        ("2026-11-09", "spend", str(20 * 10**9))
    ]


def test_a_calendar_of_ones_own_has_its_own_days(days: Days) -> None:
    days.usual(9)
    done = CliRunner().invoke(app, ["--time-zone", "Asia/Kolkata", "anomalies", "--file", str(days.path), "-o", "json"])
    assert [row["kind"] for row in json.loads(done.output)["rows"]] == ["too-little-history"] * 8
