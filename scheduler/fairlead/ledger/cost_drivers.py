"""Why a day cost what it did: the difference from what was to be expected, divided exactly among what drove it.

Theory of operation. Between the expected cost and the real one lie hypothetical ones, in each of which one more thing
is as it really was: first how much was held, then on which pools, in which tiers, and so on. What a step adds is what
that thing drove, and since each begins where the one before ended, the parts sum to the whole difference, to the
nano-unit. The last step is to what was really charged: what nothing that is known explains.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from fairlead.ledger.cost_days import KEPT, Cell, Chain, Cost


class Driver(StrEnum):
    """What can drive a cost, in the order of the steps."""

    VOLUME = "volume"
    IDLE = "idle"
    WASTED = "wasted"
    UNMEASURED = "unmeasured"
    HARDWARE = "hardware"
    TIER = "tier"
    RESERVED_IDLE = "reserved-idle"
    PRICE = "price"
    CREDIT = "credit"
    UNEXPLAINED = "unexplained"


class Per(StrEnum):
    """What a day's cost is compared by: as it is, or for as much time as was held, or used, that day."""

    DAY = "day"
    HELD = "held"
    USED = "used"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of prices: whose a queue paid before, and (pool, sku) -> nano-units that this earned."""

    chain: Chain
    earned: Mapping[tuple[str, str], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Divided:
    """An expected cost, the real one, and what drove the difference: nano-units, the parts sum to it exactly."""

    expected: int
    actual: int
    parts: Mapping[Driver, int]

    @property
    def change(self) -> int:
        """How much more than expected it was."""
        return self.actual - self.expected


def divide(before: Cost, now: Cost, per: Per, known: Known, expected: int = 0) -> Divided:
    """Divide what a day cost beyond what was to be expected by `before`, the sum of days that were as usual.

    Of `Per.DAY` the expected cost is given; else it is what as many held, or used, ticks cost before: there must be
    some in both.
    """
    level = Fraction(expected)
    if per is not Per.DAY:
        ticks, of = (now.held, before.held) if per is Per.HELD else (now.used, before.used)
        level = Fraction(before.spent * ticks, of)
    expected = last = level.numerator // level.denominator
    parts = dict.fromkeys(Driver, 0)
    for driver, reached in (*_steps(before, now, per, known), (Driver.UNEXPLAINED, Fraction(now.spent))):
        whole = reached.numerator // reached.denominator
        parts[driver], last = whole - last, whole
    return Divided(expected=expected, actual=now.spent, parts=parts)


def _steps(before: Cost, now: Cost, per: Per, known: Known) -> Iterator[tuple[Driver, Fraction]]:
    """Yield what the day would have cost when one thing after the other is as it was."""
    scale = Fraction(now.held, before.held) if before.held else Fraction(0)
    if per is Per.DAY:
        yield Driver.VOLUME, before.spent * scale
    elif per is Per.USED:
        yield from _of_use(before, now)
    prices = {cell: _old_price(before, now, cell) for cell in now.ticks}
    kept, credit = sum(n for (_, tier), n in before.nanos.items() if tier == KEPT) * scale, before.credit * scale
    yield Driver.HARDWARE, _on_pools(before, now, prices) + kept + credit
    held = sum((now.ticks[cell] * prices[cell] for cell in prices if cell[1] != KEPT), Fraction(0))
    yield Driver.TIER, held + kept + credit
    held += sum((now.ticks[cell] * prices[cell] for cell in prices if cell[1] == KEPT), Fraction(0))
    yield Driver.RESERVED_IDLE, held + credit
    priced = sum((_priced(before, now, cell, prices[cell], known) for cell in prices), Fraction(0))
    yield Driver.PRICE, priced + credit
    yield Driver.CREDIT, priced + now.credit


def _of_use(before: Cost, now: Cost) -> Iterator[tuple[Driver, Fraction]]:
    """Yield what idle, wasted and unmeasured time add: each share of the held time that was not used has its part."""
    level = Fraction(before.spent * now.used, before.used)
    for driver, then, today in (
        (Driver.IDLE, before.idle, now.idle),
        (Driver.WASTED, before.wasted, now.wasted),
        (Driver.UNMEASURED, _unmeasured(before), _unmeasured(now)),
    ):
        level += Fraction(before.spent * (today * before.held - then * now.held), before.used * before.held)
        yield driver, level


def _unmeasured(cost: Cost) -> int:
    return cost.held - cost.used - cost.idle - cost.wasted


def _on_pools(before: Cost, now: Cost, prices: Mapping[Cell, Fraction]) -> Fraction:
    """Return what the held time would cost with each pool's tiers as before; of a pool that is new, as they are."""
    found = Fraction(0)
    for pool in {pool for pool, tier in now.ticks if tier != KEPT}:
        ticks = _held_on(now.ticks, pool)
        then = _held_on(before.ticks, pool)
        if then:
            found += Fraction(_held_on(before.nanos, pool) * ticks, then)
        else:
            found += sum(now.ticks[cell] * prices[cell] for cell in prices if cell[0] == pool and cell[1] != KEPT)
    return found


def _held_on(sums: Mapping[Cell, int], pool: str) -> int:
    return sum(amount for cell, amount in sums.items() if cell[0] == pool and cell[1] != KEPT)


def _old_price(before: Cost, now: Cost, cell: Cell) -> Fraction:
    """Return nano-units a tick as before; of what was never had before, as on the day: that it is had is the mix."""
    of = before if before.ticks.get(cell) else now
    return Fraction(of.nanos.get(cell, 0), of.ticks[cell]) if of.ticks[cell] else Fraction(0)


def _priced(before: Cost, now: Cost, cell: Cell, price: Fraction, known: Known) -> Fraction:
    """Return what a cell's time costs at the old price, changed as the price books have changed.

    Of a pool with several skus each one's change counts by what it earned.
    """
    ticks = now.ticks[cell]
    if not before.ticks.get(cell) or not ticks:
        return ticks * price
    weighed, whole, begins = Fraction(0), 0, False
    for (pool, sku), nanos in known.earned.items():
        key = (*cell, sku, known.chain)
        then, today = before.listed.get(key, 0), now.listed.get(key, 0)
        if pool == cell[0] and then:
            whole, weighed = whole + nanos, weighed + Fraction(nanos * today * before.ticks[cell], then * ticks)
        begins = begins or (pool == cell[0] and bool(today))
    if not whole:  # it had no price: that it has one now is what it costs
        return Fraction(now.nanos.get(cell, 0)) if begins else ticks * price
    return ticks * price * weighed / whole
