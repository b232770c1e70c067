"""What device time costs: price books, and the facts about money that the books take. Money is integers all the way."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations

from fairlead.errors import UnreadableInput
from fairlead.model.costs import FixedCost, HardwareCost, cost_problems, fixed_problems
from fairlead.model.rates import PRICE_SCALE, Lasting, ended, per_hour_of, period_of

MOST_PER_HOUR = 1_000_000
_CURRENCY = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,31}")


class PriceTier(StrEnum):
    """How a queue came to hold what it pays for. Reserved is held in its own reservation, reserved-idle kept for it."""

    IN_QUOTA = "in-quota"
    BORROWED = "borrowed"
    RESERVED = "reserved"
    RESERVED_IDLE = "reserved-idle"
    OPPORTUNISTIC = "opportunistic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Price(Lasting):
    """What an hour of one GPU of a model, or of one MIG instance of a profile of it, costs by tier, in `PRICE_SCALE`.

    It holds for `queue` and those below it, "" is everybody, and from `from_ms` to before `to_ms` (UTC); None is ever.
    A tier that is not in `per_hour` has no price here; 0 is free.
    """

    model: str
    mig: str = ""
    queue: str = ""
    per_hour: tuple[tuple[PriceTier, int], ...] = ()

    @property
    def sku(self) -> str:
        """What is priced: the model, and the profile where it is of instances."""
        return f"{self.model}/{self.mig}" if self.mig else self.model

    def meets(self, other: Price) -> bool:
        """Whether both price the same thing for the same queue at some moment."""
        return (
            (self.sku, self.queue) == (other.sku, other.queue)
            and not {tier for tier, _ in self.per_hour}.isdisjoint(tier for tier, _ in other.per_hour)
            and self.overlaps(other)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceBook:
    """Prices in one currency, a code such as EUR or a name such as GPU-credits, and what the platform itself pays."""

    name: str
    currency: str
    prices: tuple[Price, ...] = ()
    costs: tuple[HardwareCost, ...] = ()
    fixed: tuple[FixedCost, ...] = ()

    def closed(self, at_ms: int) -> PriceBook:
        """Return it as it is when it is taken away at a moment: what it said of the time before stays."""
        return replace(
            self,
            prices=ended(self.prices, at_ms),
            costs=ended(self.costs, at_ms),
            fixed=ended(self.fixed, at_ms),
        )


def check_book(book: PriceBook, others: Iterable[PriceBook] = (), *, field: str) -> PriceBook:
    """Return the book, if it can be honoured beside the others.

    Raises
    ------
    UnreadableInput
        A price or cost ends before it begins, says nothing or too much, or two of them overlap; the message names
        `field`, and of an overlap both periods.
    """
    if not _CURRENCY.fullmatch(book.currency):
        raise UnreadableInput(
            f"{field}.currency: {book.currency!r} is none; write a code such as EUR, or a name such as GPU-credits"
        )
    for at, price in enumerate(book.prices):
        where = f"{field}.prices[{at}]"
        if not price.model.strip() or not price.model.isprintable():
            raise UnreadableInput(f"{where}.model: {price.model!r} is no model; write it as the node's GPUs say it")
        if price.is_backward:
            raise UnreadableInput(f"{where}.to: is not after from; give it a later time")
        if not price.per_hour:
            raise UnreadableInput(f"{where}.perHour: says no tier; write for example inQuota: '2.50'")
        if any(not 0 <= amount <= MOST_PER_HOUR * PRICE_SCALE for _, amount in price.per_hour):
            raise UnreadableInput(f"{where}.perHour: must be 0 to {MOST_PER_HOUR}")
    for at, cost in enumerate(book.costs):
        for name, problem in cost_problems(cost):
            raise UnreadableInput(f"{field}.costs[{at}].{name}: {problem}")
    for at, fixed in enumerate(book.fixed):
        for name, problem in fixed_problems(fixed):
            raise UnreadableInput(f"{field}.fixed[{at}].{name}: {problem}")
    books = (book, *others)
    for problem in overlaps(books):
        raise UnreadableInput(f"{field}.prices: {problem}")
    for problem in _twice([(one.name, cost.model, cost) for one in books for cost in one.costs]):
        raise UnreadableInput(f"{field}.costs: {problem}")
    for problem in _twice([(one.name, fixed.name, fixed) for one in books for fixed in one.fixed]):
        raise UnreadableInput(f"{field}.fixed: {problem}")
    return book


def _twice(said: Sequence[tuple[str, str, Lasting]]) -> Iterator[str]:
    """Yield a sentence for each two costs, given as (book, whose, cost), of the same at the same time."""
    for (one, what, a), (two, other, b) in combinations(said, 2):
        if what == other and a.overlaps(b):
            of = "" if one == two else f" of book {two}"
            yield f"{what} has a cost {a.period} and another{of} {b.period}; end one where the other begins"


def overlaps(books: Sequence[PriceBook]) -> Iterator[str]:
    """Yield a sentence for each two prices that hold for the same thing at the same time, with their periods."""
    prices = [(book, price) for book in books for price in book.prices]
    for (one, a), (two, b) in combinations(prices, 2):
        if a.meets(b):
            of = f" for queue {a.queue}" if a.queue else ""
            other = "" if one.name == two.name else f" of book {two.name}"
            yield f"{a.sku}{of} has a price {a.period} and another{other} {b.period}; end one where the other begins"


class MoneyFact:
    """About prices and what was decided on by hand. It changes the books and no decision."""

    __slots__ = ()
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceBookSeen(MoneyFact):
    """A price book is there, like this."""

    book: PriceBook
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceBookGone(MoneyFact):
    """A price book was taken away: it prices nothing from then on."""

    name: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AdjustedLine:
    """What a queue is charged (or, below 0, given back) in nano-units. `sku` "" is of no kind of device."""

    tenant: str
    queue: str
    tier: PriceTier
    nanos: int
    currency: str
    sku: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjusted(MoneyFact):
    """Somebody, or a price that came late, changes what queues were charged for [from_ms, to_ms).

    `reason` is a short token, `note` what else is to be said. `refers` is the id of the entry that is mended, or of the
    fact with the price.
    """

    actor: str
    reason: str
    lines: tuple[AdjustedLine, ...]
    from_ms: int
    to_ms: int
    at_ms: int
    note: str = ""
    refers: str = ""


Decision = PriceBookSeen | PriceBookGone | Adjusted


TIER_WORDS = {
    "inQuota": PriceTier.IN_QUOTA,
    "borrowed": PriceTier.BORROWED,
    "reserved": PriceTier.RESERVED,
    "reservedIdle": PriceTier.RESERVED_IDLE,
    "opportunistic": PriceTier.OPPORTUNISTIC,
}
"""How objects and files write the tiers."""


def price_of(said: Mapping[str, str], per_hour: Mapping[str, str], *, field: str) -> Price:
    """Return a price from what people write: ``model``, ``mig``, ``queue``, ``from`` and ``to``, and texts by tier.

    Raises
    ------
    UnreadableInput
        A text is no time or no price; the message names the field below `field`.
    """
    from_ms, to_ms = period_of(said.get("from", ""), said.get("to", ""), field=field)
    amounts = {
        tier: per_hour_of(per_hour[word], field=f"{field}.perHour.{word}")
        for word, tier in TIER_WORDS.items()
        if per_hour.get(word)
    }
    return Price(
        model=said.get("model", ""),
        mig=said.get("mig", ""),
        queue=said.get("queue", ""),
        from_ms=from_ms,
        to_ms=to_ms,
        per_hour=tuple(amounts.items()),
    )
