"""How budgets stand in the books: periods by somebody's clock, resets, rates, forecasts, alerts, GPU time and money."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ledger_books import hold, release
from ledger_facts import NAMED, node
from price_words import price, priced
from typer.testing import CliRunner

from fairlead.budget_words import BudgetWords, budget_of
from fairlead.cli import budget as budget_cli
from fairlead.errors import NotFound
from fairlead.model.calendars import Grain
from fairlead.model.events import ExceptionSeen, NodeSeen, QueueSeen, QueueSpent
from fairlead.model.queue_caps import Budget, QueueCaps
from fairlead.model.quota_exception import QuotaException, granted
from fairlead.model.tenancy import Queue
from fairlead.reports.budgets import Alerts, BudgetStanding, BudgetTally
from fairlead.service.bookkeeper import Bookkeeper
from fairlead.service.metrics import Metrics
from fairlead.units import moment_ms

HOUR = 3_600_000
DAY = 24 * HOUR


def at(text: str) -> int:
    return moment_ms(text)


def budget(**words: Any) -> Budget:
    return budget_of(BudgetWords(**words), field="budget")


def queues(lab: Budget | None = None, vision: Budget | None = None) -> dict[str, Queue]:
    return {
        "lab": Queue(name="lab", caps=QueueCaps(budget=lab)),
        "vision": Queue(name="vision", parent="lab", caps=QueueCaps(budget=vision)),
        "speech": Queue(name="speech"),
    }


@pytest.fixture
def books(tmp_path: Path) -> Any:
    found = Bookkeeper(f"sqlite:///{tmp_path}/b.sqlite")
    yield found
    found.close()


def begun(books: Bookkeeper, start: int, *more: Any) -> Bookkeeper:
    """One node, and two of its GPUs held by vision from `start` on."""
    books.record([*NAMED, *more, NodeSeen(node=node(), at_ms=start), hold(start, ("n1", (0, 1)))], start)
    assert books.trouble == ""
    return books


def test_a_budget_counts_what_is_below_it_with_what_is_open(books: Bookkeeper) -> None:
    start = at("2026-11-10T00:00:00Z")
    begun(books, start)
    (lab, vision) = books.budgets(queues(budget(gpu_hours=100), budget(gpu_hours=8)), start + 3 * HOUR)
    assert (lab.used, vision.used, lab.left) == (6 * HOUR, 6 * HOUR, 94 * HOUR)
    assert lab.period.name == "2026-11"
    assert lab.a_day == 6 * HOUR  # in the last day, most of which nothing was held
    assert lab.exhausted_ms == start + 3 * HOUR + 94 * DAY // 6
    assert vision.exhausted_ms == start + 3 * HOUR + 2 * DAY // 6
    assert books.budgets(queues(), start + 3 * HOUR) == ()


@pytest.mark.parametrize(
    ("words", "begins", "ends"),
    [
        ({"period": "Day", "time_zone": "Asia/Kolkata"}, "2026-11-09T18:30:00Z", "2026-11-10T18:30:00Z"),
        ({"time_zone": "America/Sao_Paulo"}, "2026-11-01T03:00:00Z", "2026-12-01T03:00:00Z"),
        ({"time_zone": "Europe/Berlin", "month_starts_on": 31}, "2026-10-30T23:00:00Z", "2026-11-29T23:00:00Z"),
        ({"period": "Quarter", "year_starts_in": 2}, "2026-11-01T00:00:00Z", "2027-02-01T00:00:00Z"),
        ({"period": "Year", "year_starts_in": 4}, "2026-04-01T00:00:00Z", "2027-04-01T00:00:00Z"),
    ],
)
def test_periods_are_those_of_somebodys_clock(words: dict[str, Any], begins: str, ends: str) -> None:
    span = budget(gpu_hours=1, **words).span(at("2026-11-10T12:00:00Z"))
    assert (span.from_ms, span.to_ms) == (at(begins), at(ends))


def test_a_budget_begins_anew_at_the_midnight_of_its_zone(books: Bookkeeper) -> None:
    midnight = at("2026-11-10T18:30:00Z")  # in Kolkata, in the middle of an hour of UTC
    begun(books, midnight - 2 * HOUR)
    mine = queues(vision=budget(gpu_hours=3, period="Day", time_zone="Asia/Kolkata"))
    (before,) = books.budgets(mine, midnight - 1)
    assert (before.used, before.left < 0) == (2 * (2 * HOUR - 1), True)
    books.record([release(midnight + HOUR)], midnight + 2 * HOUR)
    (after,) = books.budgets(mine, midnight + 2 * HOUR)
    assert (after.used, after.period.from_ms) == (2 * HOUR, midnight)
    assert after.a_day == 2 * HOUR * DAY // (2 * HOUR)  # the period is younger than a day
    assert after.exhausted_ms == midnight + 3 * HOUR


def test_sums_that_are_carried_on_are_those_that_are_read_anew(books: Bookkeeper) -> None:
    start = at("2026-11-29T20:00:00Z")
    mine = queues(budget(amount="50", currency="EUR"), budget(gpu_hours=9, period="Day"))
    begun(books, start, priced(price("inQuota=3.60")))
    for step in range(1, 30):
        now = start + step * HOUR + step * 777
        facts = [release(now - 5_000, rank=0)] if step == 20 else []
        facts += [NodeSeen(node=node(not_ready_since_ms=now - HOUR), at_ms=now)] if step == 10 else []
        facts += [NodeSeen(node=node(), at_ms=now)] if step == 12 else []
        facts += [priced(price("inQuota=1.80"), at_ms=now)] if step == 15 else []
        books.record(facts, now)
        assert books.trouble == ""
        found = books.budgets(mine, now)
        assert found == books._read(lambda c, moment, now=now: BudgetTally().read(c, moment, mine, now))
        hours = books.usage(now, since_ms=found[1].period.from_ms).rows
        assert found[1].used == sum(row.gpu_ms for row in hours if row.queue == "vision")


def test_money_is_told_as_the_gpu_time_that_it_comes_to(books: Bookkeeper) -> None:
    start = at("2026-11-10T00:00:00Z")
    begun(books, start, priced(price("inQuota=2.00")))
    mine = queues(budget(amount="40", currency="EUR"))
    (lab,) = books.budgets(mine, start + 5 * HOUR)
    assert (lab.used, lab.left) == (20 * 10**9, 20 * 10**9)
    assert lab.fact() == QueueSpent(
        queue="lab",
        gpu_ms=10 * HOUR,
        period_start_ms=lab.period.from_ms,
        period_end_ms=lab.period.to_ms,
        at_ms=start + 5 * HOUR,
        worth_gpu_ms=20 * HOUR,
    )
    nothing = books.budgets(queues(budget(amount="40", currency="USD")), start + 5 * HOUR)[0].fact()
    assert nothing.worth_gpu_ms is None
    over = books.budgets(queues(budget(amount="5", currency="EUR")), start + 5 * HOUR)[0]
    assert over.fact().worth_gpu_ms == 10 * HOUR * 5 // 20
    time = books.budgets(queues(budget(gpu_hours=40)), start + 5 * HOUR)[0]
    assert time.fact().worth_gpu_ms is None


def standing(used: int, amount: int = 100, now: str = "2026-11-16T00:00:00Z", **words: Any) -> BudgetStanding:
    one = replace(budget(gpu_hours=1, **words), gpu_ms=amount)
    return BudgetStanding(
        queue="lab", budget=one, period=one.span(at(now)), at_ms=at(now), used=used, gpu_ms=used, a_day=10
    )


def test_an_even_pace_is_what_ahead_is_measured_against() -> None:
    assert standing(60).ahead == 10  # half of November has passed
    assert standing(40).ahead == -10


def test_the_forecast_is_none_where_it_lasts_and_now_where_nothing_is_left() -> None:
    assert standing(60).exhausted_ms == at("2026-11-20T00:00:00Z")
    assert standing(0, 10_000).exhausted_ms is None
    assert standing(100).exhausted_ms == at("2026-11-16T00:00:00Z")
    assert replace(standing(60), a_day=0).exhausted_ms is None


def test_each_percent_is_said_once_a_period() -> None:
    alerts = Alerts()
    said = [
        [one.alert for one in alerts.news([found])]
        for found in (
            standing(49), standing(50), standing(55), standing(45), standing(51), standing(101), standing(120),
            standing(50, now="2026-12-02T00:00:00Z"),
        )
    ]  # fmt: skip
    assert said == [[], [50], [], [], [], [100], [], [50]]


def test_the_ratio_is_a_series_of_the_queues_that_have_a_budget() -> None:
    metrics = Metrics()
    metrics.policy.observe_budgets([standing(25)])
    assert b'fairlead_budget_spent_ratio{queue="lab"} 0.25' in metrics.exposition()
    metrics.policy.observe_budgets([])
    assert b"fairlead_budget_spent_ratio{" not in metrics.exposition()


def test_budget_show_says_what_is_left_and_ends_with_6_where_nothing_is(books: Bookkeeper, tmp_path: Path) -> None:
    start = at("2026-11-10T00:00:00Z")
    begun(books, start, *(QueueSeen(queue=one, at_ms=0) for one in queues(budget(gpu_hours=8)).values()))
    books.record([release(start + 3 * HOUR)], start + 3 * HOUR)

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(budget_cli.app, ["show", "--file", f"{tmp_path}/b.sqlite", *arguments])

    shown = run()
    assert shown.exit_code == 0, shown.output
    assert shown.output.splitlines()[1].split() == [
        "lab", "2026-11", "6.000", "8.000", "GPU-h", "75", "6.000", "3.567", "2026-11-10T11:00",
        "2026-12-01T00:00", "UTC", "50",
    ]  # fmt: skip
    (data,) = json.loads(run("--json").output)["items"]
    assert (data["used"], data["left"], data["time_zone"]) == (6 * HOUR, 2 * HOUR, "UTC")
    assert isinstance(run("speech").exception, NotFound)
    books.record([hold(start + 4 * HOUR, ("n1", (3,)), uid="g1")], start + 4 * HOUR)
    books.record([QueueSeen(queue=queues(budget(gpu_hours=1))["lab"], at_ms=start + 5 * HOUR)], start + 5 * HOUR)
    assert run().exit_code == 6


def test_periods_have_the_names_of_the_calendar() -> None:
    assert {word: budget(gpu_hours=1, period=word).period for word in ("Day", "Month", "Quarter", "Year")} == {
        "Day": Grain.DAY, "Month": Grain.MONTH, "Quarter": Grain.QUARTER, "Year": Grain.YEAR,
    }  # fmt: skip


def test_an_exception_adds_gpu_hours_or_units_of_the_currency(books: Bookkeeper, tmp_path: Path) -> None:
    start = at("2026-11-10T00:00:00Z")
    said = {"name": "more", "owner": "ops", "reason": "a deadline", "starts_ms": start + HOUR, "more_budget": 5}
    more = [QuotaException(**said, queue=queue, expires_ms=start + 3 * HOUR) for queue in ("lab", "vision")]
    mine = queues(budget(gpu_hours=8), budget(amount="9", currency="EUR"))
    assert granted(mine["vision"], more[1]).caps.budget == budget(amount="14", currency="EUR")
    seen = [*(QueueSeen(queue=one, at_ms=0) for one in mine.values()), ExceptionSeen(exception=more[0], at_ms=0)]
    begun(books, start, *seen)
    amounts = []
    for hours in (0, 2, 4):
        books.record([NodeSeen(node=node(gpus=2), at_ms=start + hours * HOUR)], start + hours * HOUR)
        shown = CliRunner().invoke(budget_cli.app, ["show", "lab", "--file", f"{tmp_path}/b.sqlite", "--json"])
        amounts.append(json.loads(shown.output)["items"][0]["amount"] // HOUR)
    assert amounts == [8, 13, 8]
