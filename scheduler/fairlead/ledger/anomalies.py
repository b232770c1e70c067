"""Which days of a queue cost what nobody would expect: far more than its own days before, or more for the same time.

A day is compared with the whole days before it on which the queue was charged anything: idle and free days say nothing
of what a busy one costs. Median and median deviation are not moved by one spike, and half of the median is what any day
may vary by. A day that is not over is alarming as soon as it alone is more than a whole one may be.

For the same time, a day is compared with the middle half of those days, by what an hour cost. Prices that were changed,
other pools, other tiers and idle time are known; what none of them explains is what alarms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from statistics import median_low

from fairlead.ledger.cost_days import Cost, Costs, Day, total
from fairlead.ledger.cost_drivers import Divided, Driver, Known, Per, divide
from fairlead.model.calendars import Span
from fairlead.units import TICKS_PER_GPU_MS

DAYS = 28
"""How many days back a day is compared with: four weeks, so that every day of the week is in them as often."""
DAYS_LEAST = 7
"""How many of them must have been charged for: fewer say nothing of what is usual."""
DEVIATIONS = 5
"""How many median deviations above the median a day may be; about 3.4 standard deviations where days are normal."""
SPEND_PERCENT = 50
"""How much above the median a day may always be: a steady queue hardly deviates, and a little more is no alarm."""
UNIT_PERCENT = 10
"""How much more the same time may cost; a part of it that is more than this and that nothing explains alarms."""
LEAST_TICKS = TICKS_PER_GPU_MS * 3_600_000
"""A GPU-hour: of less time a day, what it cost an hour says nothing."""


class Kind(StrEnum):
    """What is told of a day."""

    SPEND = "spend"
    PER_HELD_HOUR = "per-held-hour"
    PER_USED_HOUR = "per-used-hour"
    TOO_LITTLE_HISTORY = "too-little-history"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is told of a queue's day; `divided` is None where there is too little to compare with.

    One that is no `alarm` is told because it is a rise, which is explained.
    """

    day: Span
    tenant: str
    queue: str
    currency: str
    kind: Kind
    alarm: bool
    by_hand: int
    divided: Divided | None


def findings(costs: Costs, since_ms: int) -> Iterator[Finding]:
    """Yield what is to be told of the days that begin at a moment or later, by queue and day."""
    for queue, days in sorted(costs.days.items()):
        for at, day in enumerate(days):
            if day.span.from_ms >= since_ms:
                yield from _of_day(costs, queue, [one for one in days[max(0, at - DAYS) : at] if _counts(one)], day)


def _counts(day: Day) -> bool:
    return day.is_whole and day.cost.spent > 0


def _of_day(costs: Costs, queue: str, before: Sequence[Day], day: Day) -> Iterator[Finding]:
    if day.cost.spent <= 0:
        return
    found: list[tuple[Kind, bool, Divided | None]] = []
    if len(before) < DAYS_LEAST:
        found.append((Kind.TOO_LITTLE_HISTORY, False, None))
    else:
        usual = _usual(before)
        known = Known(costs.tariff.chain(queue, before[0].span.from_ms), costs.earned)
        if (spend := _spend(before, usual, day, known)) is not None:
            found.append((Kind.SPEND, *spend))
        for kind, per in ((Kind.PER_HELD_HOUR, Per.HELD), (Kind.PER_USED_HOUR, Per.USED)):
            if (rise := _rise(usual, day.cost, per, known)) is not None:
                found.append((kind, *rise))
    for kind, alarm, divided in found:
        yield Finding(
            day=day.span, tenant=day.tenant, queue=queue, currency=costs.currency, kind=kind,
            alarm=alarm, by_hand=day.cost.by_hand, divided=divided,
        )  # fmt: skip


def _spend(before: Sequence[Day], usual: Cost, day: Day, known: Known) -> tuple[bool, Divided] | None:
    """Compare a day by its length, so that one of 23 or 25 hours is as any other. What new prices cost is no alarm."""
    rates = [Fraction(one.cost.spent, one.whole_ms) for one in before]
    middle = median_low(rates)
    deviation = median_low([abs(rate - middle) for rate in rates])
    most = middle + max(DEVIATIONS * deviation, middle * Fraction(SPEND_PERCENT, 100))
    if day.cost.spent <= most * day.whole_ms:
        return None
    expected = middle * day.whole_ms
    divided = divide(usual, day.cost, Per.DAY, known, expected.numerator // expected.denominator)
    return divided.actual - divided.parts[Driver.PRICE] > most * day.whole_ms, divided


def _rise(usual: Cost, now: Cost, per: Per, known: Known) -> tuple[bool, Divided] | None:
    if not usual.held or now.held < LEAST_TICKS or (per is Per.USED and not (usual.used and now.used)):
        return None
    divided = divide(usual, now, per, known)
    may = divided.expected * UNIT_PERCENT // 100
    alarm = divided.parts[Driver.UNEXPLAINED] > may
    return (alarm, divided) if alarm or divided.change > may else None


def _usual(days: Sequence[Day]) -> Cost:
    """Return the sum of the middle half of days by what an hour that was held cost: odd ones are at the ends."""
    held = [day.cost for day in days if day.cost.held]
    held.sort(key=lambda cost: Fraction(cost.spent, cost.held))
    return total(held[len(held) // 4 : len(held) - len(held) // 4])
