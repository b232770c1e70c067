"""What device time costs: price books, and the facts about money that the books take. Money is integers all the way."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations

from fairlead.errors import UnreadableInput
from fairlead.units import fixed_text, moment_ms, utc_text

PRICE_SCALE = 10_000_000_000
"""Prices are in ten-billionths of a currency's unit an hour: ten decimal places."""
MOST_PER_HOUR = 1_000_000
_PRICE = re.compile(r"([0-9]{1,7})(?:\.([0-9]{1,10}))?")
_CURRENCY = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,31}")


class PriceTier(StrEnum):
    """How a queue came to hold what it pays for. Reserved is held in its own reservation, reserved-idle kept for it."""

    IN_QUOTA = "in-quota"
    BORROWED = "borrowed"
    RESERVED = "reserved"
    RESERVED_IDLE = "reserved-idle"
    OPPORTUNISTIC = "opportunistic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What an hour of one GPU of a model, or of one MIG instance of a profile of it, costs by tier, in `PRICE_SCALE`.

    It holds for `queue` and those below it, "" is everybody, and from `from_ms` to before `to_ms` (UTC); None is ever.
    A tier that is not in `per_hour` has no price here; 0 is free.
    """

    model: str
    mig: str = ""
    queue: str = ""
    from_ms: int | None = None
    to_ms: int | None = None
    per_hour: tuple[tuple[PriceTier, int], ...] = ()

    @property
    def sku(self) -> str:
        """What is priced: the model, and the profile where it is of instances."""
        return f"{self.model}/{self.mig}" if self.mig else self.model

    @property
    def period(self) -> str:
        """When it holds, for people."""
        begins = "ever" if self.from_ms is None else utc_text(self.from_ms)
        return f"{begins} to {'ever' if self.to_ms is None else utc_text(self.to_ms)}"

    def is_valid(self, at_ms: int) -> bool:
        """Whether it holds at a moment."""
        return (self.from_ms is None or self.from_ms <= at_ms) and (self.to_ms is None or at_ms < self.to_ms)

    def meets(self, other: Price) -> bool:
        """Whether both price the same thing for the same queue at some moment."""
        return (
            (self.sku, self.queue) == (other.sku, other.queue)
            and not {tier for tier, _ in self.per_hour}.isdisjoint(tier for tier, _ in other.per_hour)
            and (self.to_ms is None or other.from_ms is None or other.from_ms < self.to_ms)
            and (other.to_ms is None or self.from_ms is None or self.from_ms < other.to_ms)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceBook:
    """Prices in one currency: a code such as EUR, or a name such as GPU-credits."""

    name: str
    currency: str
    prices: tuple[Price, ...] = ()

    def closed(self, at_ms: int) -> PriceBook:
        """Return it as it is when it is taken away at a moment: what was priced before stays priced."""
        kept = [price for price in self.prices if price.from_ms is None or price.from_ms < at_ms]
        ends = [at_ms if price.to_ms is None else min(price.to_ms, at_ms) for price in kept]
        return replace(self, prices=tuple(replace(p, to_ms=end) for p, end in zip(kept, ends, strict=True)))


def check_book(book: PriceBook, others: Iterable[PriceBook] = (), *, field: str) -> PriceBook:
    """Return the book, if it can be honoured beside the others.

    Raises
    ------
    UnreadableInput
        A price ends before it begins, says nothing or too much, or two of them overlap; the message names `field`, and
        of an overlap both periods.
    """
    if not _CURRENCY.fullmatch(book.currency):
        raise UnreadableInput(
            f"{field}.currency: {book.currency!r} is none; write a code such as EUR, or a name such as GPU-credits"
        )
    for at, price in enumerate(book.prices):
        where = f"{field}.prices[{at}]"
        if not price.model.strip() or not price.model.isprintable():
            raise UnreadableInput(f"{where}.model: {price.model!r} is no model; write it as the node's GPUs say it")
        if price.from_ms is not None and price.to_ms is not None and price.from_ms >= price.to_ms:
            raise UnreadableInput(f"{where}.to: is not after from; give it a later time")
        if not price.per_hour:
            raise UnreadableInput(f"{where}.perHour: says no tier; write for example inQuota: '2.50'")
        if any(not 0 <= amount <= MOST_PER_HOUR * PRICE_SCALE for _, amount in price.per_hour):
            raise UnreadableInput(f"{where}.perHour: must be 0 to {MOST_PER_HOUR}")
    for problem in overlaps((book, *others)):
        raise UnreadableInput(f"{field}.prices: {problem}")
    return book


def overlaps(books: Sequence[PriceBook]) -> Iterator[str]:
    """Yield a sentence for each two prices that hold for the same thing at the same time, with their periods."""
    prices = [(book, price) for book in books for price in book.prices]
    for (one, a), (two, b) in combinations(prices, 2):
        if a.meets(b):
            of = f" for queue {a.queue}" if a.queue else ""
            other = "" if one.name == two.name else f" of book {two.name}"
            yield f"{a.sku}{of} has a price {a.period} and another{other} {b.period}; end one where the other begins"


def per_hour_of(text: str, *, field: str) -> int:
    """Return a price such as ``2.50`` in `PRICE_SCALE`.

    Raises
    ------
    UnreadableInput
        It is no price; the message names `field`.
    """
    match = _PRICE.fullmatch(text)
    if match is None:
        raise UnreadableInput(f"{field}: {text!r} is no price; write at most ten decimal places, for example '2.50'")
    return int(match[1]) * PRICE_SCALE + int((match[2] or "").ljust(10, "0"))


def per_hour_text(amount: int) -> str:
    """Write a price exactly, two places at least."""
    return fixed_text(amount, 10)


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
    times = {
        name: moment_ms(said[name], field=f"{field}.{name}") if said.get(name) else None for name in ("from", "to")
    }
    amounts = {
        tier: per_hour_of(per_hour[word], field=f"{field}.perHour.{word}")
        for word, tier in TIER_WORDS.items()
        if per_hour.get(word)
    }
    return Price(
        model=said.get("model", ""),
        mig=said.get("mig", ""),
        queue=said.get("queue", ""),
        from_ms=times["from"],
        to_ms=times["to"],
        per_hour=tuple(amounts.items()),
    )
