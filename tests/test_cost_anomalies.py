"""Days that cost what nobody would expect: what is told, what alarms, and what drove it, each amount by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from cost_words import (
    BEGIN,
    CHAIN,
    DAY,
    HOUR,
    NANO,
    PRICES,
    TICKS,
    USUAL,
    costs,
    judged,
    late,
    line,
    lines,
    listed,
    parts,
    tariff,
    told,
)
from hypothesis import given
from hypothesis import strategies as st
from months import BERLIN

from fairlead.ledger.anomalies import DAYS_LEAST, Kind
from fairlead.ledger.cost_days import Cost, Part, costs_of
from fairlead.ledger.cost_drivers import Driver, Known, Per, divide
from fairlead.units import moment_ms

WEEKS = [USUAL] * 14


def after(*day: str, before: Any = WEEKS) -> list[Part]:
    return parts([*before, day])


def test_a_day_as_any_other_is_not_told() -> None:
    assert told(after(*USUAL)) == {}
    assert told(after("15 in-quota at 2")) == {}  # half as much again


def test_a_day_that_is_far_above_the_others_alarms_with_what_drove_it() -> None:
    assert told(after("30 in-quota at 2")) == {"spend!": {"volume": 40}}
    assert told(after("10 in-quota at 2", "6 in-quota/big at 5")) == {
        "spend!": {"volume": 12, "hardware": 18},
        "per-held-hour": {"hardware": 18},
    }


def test_days_that_vary_may_vary() -> None:
    """Median 20, median deviation 10 (EUR): up to 70 is as usual, though it is three times the median."""
    before = [[f"{hours} in-quota at 2"] for hours in (5, 10, 15, 5, 10, 15, 10)] * 2
    assert told(after("34 in-quota at 2", before=[["3 in-quota at 2"], *before[1:]])) == {}
    assert "spend!" in told(after("36 in-quota at 2", before=before))


def test_one_spike_neither_hides_the_next_nor_makes_usual_days_strange() -> None:
    before = [*WEEKS[:6], ("500 in-quota at 2",), *WEEKS[:7]]
    assert told(after("30 in-quota at 2", before=before)) == {"spend!": {"volume": 40}}
    assert told(after(*USUAL, before=before)) == {}


@pytest.mark.parametrize("nothing", [(), ("10 in-quota",), ("1 in-quota at 0",)])
def test_a_quiet_or_free_day_says_nothing_of_what_a_busy_one_costs(nothing: tuple[str, ...]) -> None:
    every_fourth = [USUAL if at % 4 == 0 else nothing for at in range(28)]
    assert told(after(*USUAL, before=every_fourth)) == {}
    assert told(after("30 in-quota at 2", before=every_fourth)) == {"spend!": {"volume": 40}}
    assert told(after(*USUAL, before=every_fourth[4:])) == {"too-little-history": {}}
    assert told(after(*nothing, before=every_fourth)) == {}


def test_too_little_history_is_said() -> None:
    few = parts([USUAL] * DAYS_LEAST)
    assert [(one.kind, one.alarm) for one in judged(few, days=DAYS_LEAST)] == [(Kind.TOO_LITTLE_HISTORY, False)] * 7
    assert told(parts([USUAL] * (DAYS_LEAST + 1))) == {}
    cut = parts([USUAL] * (DAYS_LEAST + 1))
    first = cut[0]
    cut[0] = Part(first.day, first.from_ms + HOUR, first.to_ms, first.lines)  # the books begin in the middle of a day
    assert told(cut) == {"too-little-history": {}}
    assert told(parts([USUAL, ("10 in-quota",)])) == {}  # of what cost nothing there is nothing to say


def test_the_dearest_and_the_cheapest_quarter_of_the_days_say_nothing_of_what_an_hour_costs() -> None:
    before = [[f"10 in-quota at {at}"] for at in (4, 2, 1, 2, 2, 1, 2, 4)]
    assert told(after("10 in-quota at 2.3", before=before)) == {"per-held-hour!": {"unexplained": 3}}


def test_what_is_older_than_four_weeks_is_forgotten() -> None:
    before = [*[("100 in-quota at 2",)] * 28, *[USUAL] * 28]
    assert told(after("30 in-quota at 2", before=before)) == {"spend!": {"volume": 40}}


def test_a_day_that_is_not_over_alarms_when_it_is_more_than_a_whole_one_may_be() -> None:
    assert told(parts([*WEEKS, ("14 in-quota at 2",)], hours=6)) == {}
    (found,) = judged(parts([*WEEKS, ("30 in-quota at 2",)], hours=6))
    assert found.divided is not None
    assert (found.kind, found.divided.expected) == (Kind.SPEND, 20 * NANO)


@pytest.mark.parametrize(("begin", "hours"), [("2026-03-14T23:00:00Z", 23), ("2026-10-10T22:00:00Z", 25)])
@pytest.mark.parametrize(("rate", "alarms"), [(1.48, False), (1.53, True)])
def test_a_day_of_23_or_25_hours_is_compared_by_the_hour(begin: str, hours: int, rate: float, alarms: bool) -> None:
    days = [("24 in-quota at 2",)] * 14
    given = parts([*days, (f"{hours * rate} in-quota at 2",)], calendar=BERLIN, begin=moment_ms(begin))
    assert given[-1].to_ms - given[-1].from_ms == hours * HOUR
    assert bool(told(given)) == alarms
    if alarms:
        (found,) = judged(given)
        assert found.divided is not None
        assert found.divided.expected == hours * 2 * NANO


def test_what_is_expected_of_a_shorter_day_is_rounded_down() -> None:
    days = [USUAL] * 14
    given = parts([*days, ("30 in-quota at 2",)], calendar=BERLIN, begin=moment_ms("2026-03-14T23:00:00Z"))
    (found,) = judged(given)
    assert found.divided is not None
    assert found.divided.expected == 20 * NANO * 23 // 24


NOON = BEGIN + 14 * DAY + 12 * HOUR


def test_a_price_that_changed_is_known() -> None:
    doubled = tariff(listed("inQuota=2 | inQuota=4", BEGIN + 14 * DAY))
    assert told(after("10 in-quota at 4"), doubled) == {"spend": {"price": 20}, "per-held-hour": {"price": 20}}
    assert told(after("10 in-quota at 5"), doubled) == {
        "spend": {"price": 20, "unexplained": 10},
        "per-held-hour!": {"price": 20, "unexplained": 10},
    }
    dearer = told(after("40 in-quota at 4"), doubled)
    assert dearer["spend!"] == {"volume": 60, "price": 80}


def test_a_price_that_changed_at_noon_holds_from_noon_on() -> None:
    """What ran in the afternoon only costs the new price, not the mean of the day."""
    given = after()
    day = given.pop().day
    afternoon = parts([("10 in-quota at 4",)])[0].lines
    given += [Part(day, day.from_ms, NOON, ()), Part(day, NOON, day.to_ms, afternoon)]
    doubled = tariff(listed("inQuota=2 | inQuota=4", NOON))
    assert told(given, doubled) == {"spend": {"price": 20}, "per-held-hour": {"price": 20}}


def test_what_was_free_or_had_no_price_and_has_one_now_is_a_price() -> None:
    both = [("10 in-quota at 2", "10 borrowed"), *[("10 in-quota at 2", "10 borrowed")] * 13]
    for begins in ("inQuota=2 | inQuota=2 borrowed=1", "inQuota=2 borrowed=0 | inQuota=2 borrowed=1"):
        found = told(
            after("10 in-quota at 2", "10 borrowed at 1", before=both), tariff(listed(begins, BEGIN + 14 * DAY))
        )
        assert found == {"per-held-hour": {"price": 10}}, begins


def test_a_price_that_nobody_was_charged_drives_nothing() -> None:
    before = ("10 in-quota at 2", "10 borrowed")
    dearer = tariff(listed("inQuota=2 | inQuota=4 borrowed=1", BEGIN + 14 * DAY))
    found = told(after("10 in-quota at 4", "10 borrowed", before=[before] * 14), dearer)
    assert found == {"spend": {"price": 20}, "per-held-hour": {"price": 20}}


@pytest.mark.parametrize(
    ("before", "day", "drivers"),
    [
        (("6 in-quota at 2", "4 borrowed at 1"), ("10 in-quota at 2",), {"tier": 4}),
        (USUAL, ("5 in-quota at 2", "5 in-quota/big at 5"), {"hardware": 15}),
        (USUAL, ("10 in-quota at 2", "4 reserved-idle at 1.5"), {"reserved-idle": 6}),
        (
            ("10 in-quota at 2", "2 reserved-idle at 1.5"),
            ("20 in-quota at 2", "8 reserved-idle at 1.5"),
            {"reserved-idle": 6},
        ),
        (("10 in-quota at 2", "-5 credit"), ("10 in-quota at 2",), {"credit": 5}),
        (
            ("5 in-quota at 2", "3 in-quota/big at 5", "2 borrowed/big at 4"),
            ("10 in-quota/big at 5", "5 reserved-idle/big at 4"),
            {"hardware": 13, "tier": 4, "reserved-idle": 20},
        ),
    ],
)
def test_a_rise_that_is_known_is_told_and_does_not_alarm(
    before: tuple[str, ...], day: tuple[str, ...], drivers: dict[str, float]
) -> None:
    found = told(after(*day, before=[before] * 14))
    assert found["per-held-hour"] == drivers
    assert not [kind for kind in found if kind.startswith("per") and kind.endswith("!")]


def test_what_nothing_explains_alarms() -> None:
    """No book says 2.5: the queue was moved, or a pool has other devices than it had."""
    assert told(after("10 in-quota at 2.5")) == {"per-held-hour!": {"unexplained": 5}}
    assert told(after("10 in-quota at 2.2")) == {}
    assert told(after("10 in-quota at 2.21")) == {"per-held-hour!": {"unexplained": 2.1}}
    assert told(after("0.5 in-quota at 2.5")) == {}  # half an hour says nothing


def test_what_no_book_prices_explains_nothing() -> None:
    before = ("10 in-quota at 2", "10 borrowed")
    found = told(after("10 in-quota at 2", "10 borrowed at 0.8", before=[before] * 14), tariff(listed("inQuota=2")))
    assert found == {"per-held-hour!": {"unexplained": 8}}


def test_what_is_paid_as_in_quota_is_compared_as_in_quota() -> None:
    """Reserved time has no price of its own, and the price is that of the queue above."""
    of_lab = tariff([replace(one, queue="lab") for one in PRICES])
    before = ("10 reserved", "20 charged")
    found = told(after("8 reserved", "16 charged", "2 borrowed at 4", before=[before] * 14), of_lab)
    assert found == {"per-held-hour": {"tier": 4}}


def test_something_dearer_does_not_hide_behind_something_cheaper() -> None:
    before = ("8 in-quota at 2", "4 borrowed at 1")
    found = told(after("2 in-quota at 4", "10 borrowed at 1", before=[before] * 14))
    assert found == {"per-held-hour!": {"tier": -6, "unexplained": 4}}


def test_an_hour_of_use_is_dearer_where_more_is_idle_wasted_or_not_measured() -> None:
    before = ("10 in-quota at 2", "8 used", "1 idle", "1 wasted")
    found = told(after("10 in-quota at 2", "4 used", "3 idle", "1 wasted", before=[before] * 14))
    assert found == {"per-used-hour": {"idle": 5, "unmeasured": 5}}
    found = told(after("10 in-quota at 2", "4 used", "6 wasted", before=[before] * 14))
    assert found == {"per-used-hour": {"idle": -2.5, "wasted": 12.5}}
    assert told(after("10 in-quota at 2", before=[before] * 14)) == {}  # nobody measured it


def test_a_price_that_came_late_is_of_the_days_it_is_of() -> None:
    """Booked months later, of the 3rd to the 5th day, on one of which nothing ran: no day is strange for it."""
    days = [*WEEKS[:3], (), *WEEKS[:11]]
    booked = listed("inQuota=2 | inQuota=4 | inQuota=2", BEGIN + 2 * DAY, BEGIN + 5 * DAY)
    fact = late(40 * NANO, BEGIN + 2 * DAY, BEGIN + 5 * DAY)
    found = costs(parts(days), tariff(booked, fact))
    assert [day.cost.spent // NANO for day in found.days["vision"]][:6] == [20, 20, 40, 0, 40, 20]
    assert told(parts(days), tariff(booked, fact), days=5) == {}
    by_time = parts([(*words, "5 by-hand") for words in days])
    assert told(by_time, tariff(booked, fact), days=5) == {}


def test_a_late_price_is_of_one_queue_and_one_tier() -> None:
    """Others held four times as much on the first day, and as much in another tier on the second."""
    given = parts([("10 in-quota at 2",), ("10 in-quota at 2", "10 borrowed at 1")])
    given[0] = replace(given[0], lines=[*given[0].lines, *lines(["40 in-quota at 2"], "speech")])
    found = costs(given, tariff(PRICES, late(8 * NANO, BEGIN, BEGIN + 2 * DAY)))
    spent = {queue: [day.cost.spent // NANO for day in days] for queue, days in found.days.items()}
    assert spent == {"speech": [80, 0], "vision": [24, 34]}
    assert [day.cost.nanos.get(("main", "borrowed"), 0) // NANO for day in found.days["vision"]] == [0, 10]


def test_a_late_price_is_of_its_currency() -> None:
    dollars = late(8 * NANO, BEGIN, BEGIN + 2 * DAY, currency="USD")
    found = costs_of(parts([USUAL] * 2), tariff(PRICES, dollars))
    spent = {one.currency: [day.cost.spent // NANO for day in one.days["vision"]] for one in found}
    assert spent == {"EUR": [20, 20], "USD": [4, 4]}


def test_of_a_late_price_the_part_that_was_read_counts() -> None:
    fact = late(60 * NANO, BEGIN - DAY, BEGIN + 2 * DAY)
    found = costs(parts([USUAL] * 2), tariff(PRICES, fact))
    assert [day.cost.spent // NANO for day in found.days["vision"]] == [40, 40]
    nothing = costs(parts([()] * 2 + [USUAL]), tariff(PRICES, fact))
    assert [day.cost.spent // NANO for day in nothing.days["vision"]] == [20]


def test_a_late_price_goes_where_devices_were_held() -> None:
    """Of three times as many hours three times as much, and where only the pool is that has what is priced."""
    days = [("10 in-quota at 2", "9 in-quota/big at 5"), ("30 in-quota at 2", "9 in-quota/big at 5")]
    found = costs(parts(days), tariff(PRICES, late(40 * NANO, BEGIN, BEGIN + 2 * DAY)))
    more = [{pool: nanos // NANO for (pool, _), nanos in day.cost.nanos.items()} for day in found.days["vision"]]
    assert more == [{"main": 30, "big": 45}, {"main": 90, "big": 45}]


def test_a_late_credit_is_a_credit() -> None:
    fact = late(-8 * NANO, BEGIN, BEGIN + 2 * DAY, sku="")
    assert [day.cost.credit // NANO for day in costs(parts([USUAL] * 2), tariff(PRICES, fact)).days["vision"]] == [
        -4,
        -4,
    ]


def test_what_was_decided_by_hand_is_told_beside_and_judged_by_nobody() -> None:
    assert told(after(*USUAL, "900 by-hand")) == {}
    (found,) = judged(after("30 in-quota at 2", "-7 by-hand"))
    assert (found.by_hand, found.divided and found.divided.actual) == (-7 * NANO, 60 * NANO)


def test_what_each_model_earned_is_what_was_charged_for_its_time() -> None:
    given = parts([("10 in-quota at 2", "3 borrowed at 1", "5 in-quota/big at 5"), ("10 in-quota at 2", "9 by-hand")])
    more = [*lines(["1 in-quota at 2"], "speech"), line("adjustment", "revenue:A100", -9 * NANO, "main", "money:EUR")]
    given[1] = replace(given[1], lines=[*given[1].lines, *more])
    assert costs(given).earned == {("main", "A100"): 45 * NANO, ("big", "H100"): 25 * NANO}
    dollars = line("segment", "revenue:A100", -7 * NANO, "main", "money:USD")
    paid = line("segment", "spend:lab:vision:in-quota", 7 * NANO, "main", "money:USD")
    given[0] = replace(given[0], lines=[*given[0].lines, dollars, paid])
    by_currency = {found.currency: found.earned for found in costs_of(given, tariff())}
    assert by_currency["EUR"] == {("main", "A100"): 45 * NANO, ("big", "H100"): 25 * NANO}
    assert by_currency["USD"] == {("main", "A100"): 7 * NANO}


def test_only_what_is_kept_for_a_queue_by_its_reservation_is_paid_by_it() -> None:
    kept = [
        line("segment", "reserved-idle:main", TICKS, "main", actor=queue, reason=reason)
        for queue, reason in (("vision", "gang/g1"), ("", "reservation/r1"), ("vision", "reservation/r2"))
    ]
    given = parts([USUAL])
    given[0] = replace(given[0], lines=[*given[0].lines, *kept])
    found = costs(given).days
    assert set(found) == {"vision"}
    assert found["vision"][0].cost.ticks == {CELL: 10 * TICKS, ("main", "reserved-idle"): TICKS}


def test_a_queue_that_was_moved_pays_the_new_prices_from_that_moment_on() -> None:
    moved = replace(tariff(), chains={"vision": [(BEGIN, ("vision", "lab")), (BEGIN + DAY, ("vision", "shop"))]})
    found = [moved.chain("vision", at) for at in (BEGIN - 1, BEGIN, BEGIN + DAY - 1, BEGIN + DAY)]
    assert [chain[-1] for chain in found] == ["lab", "lab", "lab", "shop"]
    assert moved.chain("speech", BEGIN) == ("speech",)


def test_every_step_is_rounded_down() -> None:
    """A third of the time costs 33, a third of 100, and at twice the price 66, two thirds of it."""
    before = Cost(ticks={CELL: 3}, nanos={CELL: 100}, listed={(*CELL, "A100", CHAIN): 3})
    now = Cost(ticks={CELL: 1}, nanos={CELL: 67}, listed={(*CELL, "A100", CHAIN): 2})
    divided = divide(before, now, Per.DAY, KNOWN, 100)
    assert {driver.value: amount for driver, amount in divided.parts.items() if amount} == {
        "volume": -67, "price": 33, "unexplained": 1
    }  # fmt: skip


def test_a_pool_of_two_models_changes_by_what_each_earned() -> None:
    """Three quarters of the pool's money is of the model whose price doubles."""
    both = {("main", "A100"): 3, ("main", "L40"): 1}
    before, now = (
        Cost(ticks={CELL: 10}, nanos={CELL: spent}, listed=said)
        for spent, said in (
            (100, {(*CELL, "A100", CHAIN): 20, (*CELL, "L40", CHAIN): 10}),
            (200, {(*CELL, "A100", CHAIN): 40, (*CELL, "L40", CHAIN): 10}),
        )
    )
    divided = divide(before, now, Per.HELD, Known(CHAIN, both))
    assert (divided.parts["price"], divided.parts["unexplained"]) == (75, 25)


CELL = ("main", "in-quota")
KNOWN = Known(CHAIN, {("main", "A100"): 5, ("big", "A100"): 2})
CELLS = st.tuples(st.sampled_from(["main", "big"]), st.sampled_from(["in-quota", "borrowed", "reserved-idle"]))
AMOUNTS = st.dictionaries(CELLS, st.integers(1, 10**18), max_size=6)
COSTS = st.builds(
    lambda ticks, nanos, use, credit, listed: Cost(
        ticks=ticks, nanos=nanos, credit=-credit, used=use[0], idle=use[1], wasted=use[2],
        listed={(*cell, "A100", CHAIN): amount for cell, amount in listed.items()},
    ),
    AMOUNTS, AMOUNTS, st.tuples(*[st.integers(1, 10**18)] * 3), st.integers(0, 10**12), AMOUNTS,
)  # fmt: skip


@given(before=COSTS, now=COSTS, per=st.sampled_from(Per), expected=st.integers(0, 10**18))
def test_the_parts_sum_to_the_change_exactly(before: Cost, now: Cost, per: Per, expected: int) -> None:
    before.ticks[CELL] = now.ticks[CELL] = 7
    divided = divide(before, now, per, KNOWN, expected)
    assert sum(divided.parts.values()) == divided.change == now.spent - divided.expected


LISTED = {("main", "in-quota"): (2, 3), ("main", "borrowed"): (1, 4), ("big", "in-quota"): (5, 5)}
"""(pool, tier) -> EUR an hour before and from the last day on."""
HOURS = st.dictionaries(st.sampled_from(sorted(LISTED)), st.integers(1, 10**6).map(lambda n: n / 1000), min_size=1)


@given(before=st.lists(HOURS, min_size=DAYS_LEAST, max_size=14), now=HOURS)
def test_what_is_charged_as_listed_is_explained(before: Any, now: Any) -> None:
    """Whatever is held where, at prices that change as they are listed: nothing but rounding is unexplained."""

    def words(hours: dict[tuple[str, str], float], at: int) -> list[str]:
        return [f"{count} {tier}/{pool} at {LISTED[pool, tier][at]}" for (pool, tier), count in hours.items()]

    last = BEGIN + len(before) * DAY
    prices = [*listed("inQuota=2 borrowed=1 | inQuota=3 borrowed=4", last), *listed("inQuota=5", model="H100")]
    given = parts([*(words(day, 0) for day in before), words(now, 1)])
    for one in judged(given, tariff(prices)):
        assert one.divided is None or abs(one.divided.parts[Driver.UNEXPLAINED]) <= len(LISTED)


@given(cost=COSTS, per=st.sampled_from([Per.HELD, Per.USED]))
def test_a_day_as_before_changes_nothing(cost: Cost, per: Per) -> None:
    cost.ticks[CELL] = 7
    cost.nanos = {cell: nanos for cell, nanos in cost.nanos.items() if cell in cost.ticks}
    divided = divide(cost, cost, per, KNOWN)
    assert (divided.change, set(divided.parts.values())) == (0, {0})
