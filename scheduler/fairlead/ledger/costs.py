"""What device time costs the platform: an hour of a GPU by part, and the fixed costs of a time, to the nano-unit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from enum import StrEnum
from fractions import Fraction
from math import floor

from fairlead.model.calendars import HOUR_MS, Calendar, Grain
from fairlead.model.costs import MONTH_HOURS, WHOLE, FixedCost, HardwareCost, Outlay
from fairlead.model.prices import PriceBook
from fairlead.model.rates import PRICE_SCALE
from fairlead.units import NANO

WATTS_PER_KW = 1_000
YEAR_HOURS = 12 * MONTH_HOURS


class Part(StrEnum):
    """What a GPU's hour is paid for."""

    DEPRECIATION = "depreciation"
    RENTAL = "rental"
    POWER = "power"
    COOLING = "cooling"
    NETWORKING = "networking"
    STORAGE = "storage"
    SPARES = "spares"
    ENGINEERING = "engineering"


def gpu_hour(cost: HardwareCost) -> dict[Part, int]:
    """Return what an hour of one GPU costs by part, in `PRICE_SCALE`.

    The parts sum to the exact cost of the hour rounded down; each is its exact amount rounded down, or one more. What
    was bought is in the life over which it is depreciated.
    """
    exact = dict.fromkeys(Part, Fraction())
    if (bought := cost.purchase) is not None:
        price = Fraction(bought.price, bought.gpus)
        exact[Part.DEPRECIATION] = (price - Fraction(bought.residual, bought.gpus)) / (bought.life_months * MONTH_HOURS)
        exact[Part.SPARES] = price * bought.spares_millionths / WHOLE / YEAR_HOURS
    if (power := cost.power) is not None:
        exact[Part.POWER] = Fraction(power.watts * power.per_kwh, WATTS_PER_KW)
        exact[Part.COOLING] = exact[Part.POWER] * (power.pue_millionths - WHOLE) / WHOLE
    exact[Part.RENTAL] = _an_hour(cost.rental)
    exact[Part.NETWORKING] = _an_hour(cost.networking)
    exact[Part.STORAGE] = _an_hour(cost.storage)
    exact[Part.ENGINEERING] = _an_hour(cost.engineering)
    found = {part: floor(amount) for part, amount in exact.items()}
    left = floor(sum(exact.values())) - sum(found.values())
    for part in sorted(Part, key=lambda part: found[part] - exact[part])[:left]:  # who lost most gets one more
        found[part] += 1
    return found


def _an_hour(outlay: Outlay | None) -> Fraction:
    return Fraction() if outlay is None else Fraction(outlay.amount, outlay.hours * outlay.gpus)


def _by_life(cost: HardwareCost) -> Iterator[HardwareCost]:
    """Cut a cost where what was bought comes into service and where its life ends; else it is worth what it was."""
    bought = cost.purchase
    if bought is None or bought.in_service_ms is None:
        yield cost
        return
    keeps = replace(cost, purchase=replace(bought, residual=bought.price))
    begin = bought.in_service_ms
    end = begin + bought.life_months * MONTH_HOURS * HOUR_MS
    for piece, since, until in ((keeps, None, begin), (cost, begin, end), (keeps, end, None)):
        begins = [at for at in (cost.from_ms, since) if at is not None]
        ends = [at for at in (cost.to_ms, until) if at is not None]
        cut = replace(piece, from_ms=max(begins, default=None), to_ms=min(ends, default=None))
        if not cut.is_backward:
            yield cut


class CostList:
    """All price books' costs in one currency, to be looked up. Where two contradict each other the first book holds."""

    def __init__(self, books: Iterable[PriceBook], currency: str) -> None:
        """Sort them by model."""
        ours = [book for book in sorted(books, key=lambda book: book.name) if book.currency == currency]
        self.fixed = tuple(fixed for book in ours for fixed in book.fixed)
        self._of: dict[str, list[tuple[HardwareCost, dict[Part, int]]]] = {}
        for cost in (cost for book in ours for cost in book.costs):
            self._of.setdefault(cost.model, []).extend((piece, gpu_hour(piece)) for piece in _by_life(cost))

    def edges(self, from_ms: int, to_ms: int) -> list[int]:
        """Return both ends of a time and, between them in order, the moments at which some cost begins or ends."""
        moments = {at for costs in self._of.values() for cost, _ in costs for at in (cost.from_ms, cost.to_ms)}
        return sorted({from_ms, to_ms, *(at for at in moments if at is not None and from_ms < at < to_ms)})

    def at(self, model: str, at_ms: int) -> dict[Part, int] | None:
        """Return what an hour of a GPU costs at a moment, by part in `PRICE_SCALE`; None where nothing says it."""
        return next((parts for cost, parts in self._of.get(model, ()) if cost.is_valid(at_ms)), None)


def fixed_nanos(fixed: Iterable[FixedCost], calendar: Calendar, from_ms: int, to_ms: int) -> dict[str, int]:
    """Return name -> what fixed costs come to in a time, in nano-units, sorted; names without cost in it are left out.

    Of a month that is cut, what [a, b) costs is F(b) - F(a), where F(t) is the cost from the month's beginning up to t
    rounded down: the months' parts sum to the month, however it is cut.
    """
    found: dict[str, int] = {}
    for one in sorted(fixed, key=lambda one: one.name):
        begin = from_ms if one.from_ms is None else max(from_ms, one.from_ms)
        end = to_ms if one.to_ms is None else min(to_ms, one.to_ms)
        for month in calendar.spans(Grain.MONTH, begin, end):
            length = (month.to_ms - month.from_ms) * (PRICE_SCALE // NANO)
            upto, since = min(end, month.to_ms) - month.from_ms, max(begin, month.from_ms) - month.from_ms
            nanos = one.per_month * upto // length - one.per_month * since // length
            found[one.name] = found.get(one.name, 0) + nanos
    return found
