"""What each queue's days cost, as sums of which two can be compared: device time and money by pool and tier.

A day is what the books say now of its time, whenever that was booked: a price that came late counts on the days it is
of, in proportion to what was held there, and what somebody decided by hand is told beside and judged by nobody. A day
is read in parts that are cut wherever a price begins or ends, so that in each one price holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from fairlead.ledger import accounts
from fairlead.ledger.accounts import TICKS, Kind, currency_of
from fairlead.ledger.entry import EntryKind
from fairlead.ledger.periods import Line
from fairlead.ledger.prices import PriceList, Rate, Terms, largest_remainder
from fairlead.ledger.pricing import LATE_PRICE, RESERVATION, tiers_for
from fairlead.model.calendars import Span
from fairlead.model.prices import Adjusted, PriceTier
from fairlead.units import TICKS_PER_GPU_MS

Cell = tuple[str, str]
"""(pool, tier of the price that counts)."""
Chain = tuple[str, ...]
"""A queue and those above it, nearest first: whose prices it pays."""
Listed = tuple[str, str, str, Chain]
"""(pool, tier, sku, chain)."""
_Key = TypeVar("_Key", Cell, Listed)

KEPT = PriceTier.RESERVED_IDLE.value
"""The tier of what is kept idle for a queue: paid for, and held by nobody."""


@dataclass(slots=True, kw_only=True)
class Cost:
    """Device time in ticks and money in nano-units of one currency; sums, so that days can be added up.

    `listed` is ticks times the listed price an hour, for every chain that the queue had in the time. `credit` is what
    the platform bears, 0 or less; `by_hand` what was adjusted, which is in none of the others. Where nobody measured
    anything, `used` is 0.
    """

    ticks: dict[Cell, int] = field(default_factory=dict[Cell, int])
    nanos: dict[Cell, int] = field(default_factory=dict[Cell, int])
    listed: dict[Listed, int] = field(default_factory=dict[Listed, int])
    credit: int = 0
    by_hand: int = 0
    used: int = 0
    idle: int = 0
    wasted: int = 0

    @property
    def spent(self) -> int:
        """What was charged by prices, less what the platform bears."""
        return sum(self.nanos.values()) + self.credit

    @property
    def held(self) -> int:
        """Ticks that were held."""
        return sum(ticks for (_, tier), ticks in self.ticks.items() if tier != KEPT)


@dataclass(frozen=True, slots=True)
class Day:
    """One day of a queue. `span` is the whole day, `booked_ms` how much of it is booked; `tenant` is that of then."""

    tenant: str
    span: Span
    booked_ms: int
    cost: Cost

    @property
    def whole_ms(self) -> int:
        """How long the day is: 23, 24 or 25 hours."""
        return self.span.to_ms - self.span.from_ms

    @property
    def is_whole(self) -> bool:
        """Whether all of it is booked."""
        return self.booked_ms == self.whole_ms


@dataclass(frozen=True, slots=True)
class Part:
    """What was booked in [from_ms, to_ms) of a day; no price changes inside."""

    day: Span
    from_ms: int
    to_ms: int
    lines: Sequence[Line]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """What prices are looked up in: the price books, and queue -> (from_ms, chain) in order of time."""

    prices: PriceList
    chains: Mapping[str, Sequence[tuple[int, Chain]]]
    adjusted: Sequence[Adjusted] = ()

    def chain(self, queue: str, at_ms: int) -> Chain:
        """Return whose prices a queue paid at a moment; of one that was told of later, that of then."""
        known = self.chains.get(queue) or ((at_ms, (queue,)),)
        return next((chain for from_ms, chain in reversed(known) if from_ms <= at_ms), known[0][1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The days of all queues in one currency, in order; a queue's begin with the first that has anything of it.

    `earned` is (pool, sku) -> nano-units, of all queues and days: what the prices of a pool are weighted by.
    """

    currency: str
    tariff: Tariff
    days: Mapping[str, Sequence[Day]]
    earned: Mapping[tuple[str, str], int]


def costs_of(parts: Sequence[Part], tariff: Tariff) -> tuple[Costs, ...]:
    """Return what the days of queues cost, for each currency in which anything was charged. `parts` are in order."""
    lines = [line for part in parts for line in part.lines]
    there = {currency_of(line.unit) or "" for line in lines if line.account.startswith(f"{Kind.SPEND}:")}
    late = {line.currency for fact in tariff.adjusted for line in fact.lines}
    return tuple(_Fold(currency, parts, tariff).costs() for currency in sorted(there | late))


class _Fold:
    """The sums of one currency. `_cells` are (day, queue, cell, part's bounds) -> ticks, for late prices to go to."""

    def __init__(self, currency: str, parts: Sequence[Part], tariff: Tariff) -> None:
        self._currency, self._parts, self._tariff = currency, parts, tariff
        self._unit = accounts.money(currency)
        self._earned = _earned(parts, self._unit)
        self._skus: dict[str, list[str]] = {}
        for pool, sku in sorted(self._earned, key=lambda at: (-self._earned[at], at)):
            self._skus.setdefault(pool, []).append(sku)
        self._tenants: dict[tuple[Span, str], str] = {}
        self._chains: dict[str, set[Chain]] = {}
        self._rates: dict[tuple[Chain, str, str, int], Rate | None] = {}
        self._sums: dict[tuple[Span, str], Cost] = {}
        self._cells: list[tuple[Part, str, Cell, int]] = []

    def costs(self) -> Costs:
        for part in self._parts:
            for line in part.lines:
                self._take(part, line)
        for fact in self._tariff.adjusted:
            if fact.actor == LATE_PRICE:
                self._spread(fact)
        booked: dict[Span, int] = {}
        for part in self._parts:
            booked[part.day] = booked.get(part.day, 0) + part.to_ms - part.from_ms
        days: dict[str, list[Day]] = {}
        for queue in sorted({queue for _, queue in self._sums}):
            first = min(day.from_ms for day, of in self._sums if of == queue)
            days[queue] = [
                Day(self._tenants.get((day, queue), ""), day, booked[day], self._sums.get((day, queue)) or Cost())
                for day in sorted(booked)
                if day.from_ms >= first
            ]
        return Costs(currency=self._currency, tariff=self._tariff, days=days, earned=self._earned)

    def _take(self, part: Part, line: Line) -> None:
        account = accounts.parse(line.account)
        queue = account.queue
        match account.kind:
            case Kind.HELD if line.unit == TICKS:
                self._time(part, queue, account.tier, line)
            case Kind.RESERVED_IDLE if line.actor and f"{line.reason}/".startswith(RESERVATION):
                self._time(part, line.actor, KEPT, line)
            case Kind.USE if account.use in ("used", "idle"):
                cost = self._of(part, queue)
                cost.used += line.amount if account.use == "used" else 0
                cost.idle += line.amount if account.use == "idle" else 0
            case Kind.WASTE:
                self._of(part, queue).wasted += line.amount
            case Kind.SPEND if line.unit == self._unit:
                cost = self._of(part, queue)
                if line.kind == EntryKind.SPLIT:
                    cost.credit += line.amount
                elif line.kind == EntryKind.ADJUSTMENT:
                    cost.by_hand += line.amount if line.actor != LATE_PRICE else 0
                else:
                    _add(cost.nanos, (line.pool, account.tier), line.amount)
            case _:
                return
        if queue:
            self._tenants[part.day, queue] = account.tenant

    def _time(self, part: Part, queue: str, tier: str, line: Line) -> None:
        """Take held or kept time, with what the books list for it: by the chain of the day, and by any it has had.

        So days before and after a queue was moved can be compared at the prices of one place.
        """
        skus, mine = self._skus.get(line.pool, ()), self._tariff.chain(queue, part.from_ms)
        paid = (self._rate(mine, tier, sku, part.from_ms) for sku in skus)
        cell = (line.pool, next((rate.tier.value for rate in paid if rate is not None), tier))
        cost = self._of(part, queue)
        _add(cost.ticks, cell, line.amount)
        self._cells.append((part, queue, cell, line.amount))
        for chain in self._chains.setdefault(queue, {self._tariff.chain(queue, one.from_ms) for one in self._parts}):
            for sku in skus:
                rate = self._rate(chain, tier, sku, part.from_ms)
                if rate is not None and rate.currency == self._currency:
                    _add(cost.listed, (*cell, sku, chain), line.amount * rate.per_hour)

    def _spread(self, fact: Adjusted) -> None:
        """Put what a late price changed onto the days it is of, as devices were held there.

        Of what it says of time that was not read the part is left out, by how long that is.
        """
        read = [(max(part.from_ms, fact.from_ms), min(part.to_ms, fact.to_ms)) for part in self._parts]
        inside, length = sum(max(0, end - begin) for begin, end in read), fact.to_ms - fact.from_ms
        if not inside:
            return
        for line in fact.lines:
            if line.currency != self._currency:
                continue
            found = [
                (part, cell, ticks * _overlap(part, fact) // (part.to_ms - part.from_ms))
                for part, queue, cell, ticks in self._cells
                if queue == line.queue and cell[1] == line.tier
            ]
            priced = [at for at in found if not line.sku or (at[1][0], line.sku) in self._earned]
            found = [at for at in priced or found if at[2] > 0]
            if not found:
                continue
            amounts = largest_remainder(line.nanos * inside // length, [ticks for _, _, ticks in found])
            for (part, cell, _), amount in zip(found, amounts, strict=True):
                cost = self._of(part, line.queue)
                if line.sku:
                    _add(cost.nanos, cell, amount)
                else:
                    cost.credit += amount

    def _rate(self, chain: Chain, tier: str, sku: str, at_ms: int) -> Rate | None:
        """Return the price of a sku from the beginning of a part on, None where there is none."""
        key = (chain, tier, sku, at_ms)
        if key not in self._rates:
            terms = Terms(model=sku, mig="", chain=chain, tiers=tiers_for(PriceTier(tier)), ticks=TICKS_PER_GPU_MS)
            self._rates[key] = next((rate for *_, rate in self._tariff.prices.rates(terms, at_ms, at_ms + 1)), None)
        return self._rates[key]

    def _of(self, part: Part, queue: str) -> Cost:
        return self._sums.setdefault((part.day, queue), Cost())


def total(costs: Iterable[Cost]) -> Cost:
    """Return the sum of costs."""
    found = Cost()
    for cost in costs:
        for cell, ticks in cost.ticks.items():
            _add(found.ticks, cell, ticks)
        for cell, nanos in cost.nanos.items():
            _add(found.nanos, cell, nanos)
        for key, listed in cost.listed.items():
            _add(found.listed, key, listed)
        found.credit += cost.credit
        found.by_hand += cost.by_hand
        found.used += cost.used
        found.idle += cost.idle
        found.wasted += cost.wasted
    return found


def _earned(parts: Iterable[Part], unit: str) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for part in parts:
        for line in part.lines:
            if line.unit == unit and line.kind == EntryKind.SEGMENT and line.account.startswith(f"{Kind.REVENUE}:"):
                key = (line.pool, accounts.parse(line.account).sku)
                found[key] = found.get(key, 0) - line.amount
    return found


def _overlap(part: Part, fact: Adjusted) -> int:
    return max(0, min(part.to_ms, fact.to_ms) - max(part.from_ms, fact.from_ms))


def _add(sums: dict[_Key, int], key: _Key, amount: int) -> None:
    sums[key] = sums.get(key, 0) + amount
