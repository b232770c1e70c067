"""From ticks to money: which price an interval has, and how much that is, to the nano-unit.

What `ticks` of a device's 840 cost over [a, b) is F(b) - F(a), where F(t) is the cost from 1970 to t rounded down. So
however an interval is cut, its pieces cost together exactly what it costs whole, and what is taken back is exactly
what was charged; over any time the amount is less than one nano-unit from the exact one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from fairlead.model.prices import Price, PriceBook, PriceTier
from fairlead.model.rates import PRICE_SCALE
from fairlead.units import NANO, TICKS_PER_GPU_MS

HOUR_MS = 3_600_000
_WHOLE_HOUR = TICKS_PER_GPU_MS * HOUR_MS * (PRICE_SCALE // NANO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """What applies to an interval: a price an hour in `PRICE_SCALE`, of so many of a device's ticks."""

    currency: str
    sku: str
    tier: PriceTier
    per_hour: int
    ticks: int

    def nanos(self, from_ms: int, to_ms: int) -> int:
        """Return what [from_ms, to_ms) costs."""
        rate = self.per_hour * self.ticks
        return rate * to_ms // _WHOLE_HOUR - rate * from_ms // _WHOLE_HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a price is looked up by: the device's model, the MIG profile, the queue's chain (nearest first), the tier.

    `ticks` is the part of the device; an instance of a MIG profile that has a price of its own is one whole instance.
    """

    model: str
    mig: str
    chain: tuple[str, ...]
    tiers: tuple[PriceTier, ...]
    ticks: int


class PriceList:
    """All price books together, to be looked things up in. Where two contradict each other the first by name holds."""

    def __init__(self, books: Iterable[PriceBook] = ()) -> None:
        """Sort them by what they price."""
        self.books = tuple(sorted(books, key=lambda book: book.name))
        self._of: dict[tuple[str, str, PriceTier], list[tuple[Price, str, int]]] = {}
        for book in self.books:
            for price in book.prices:
                for tier, amount in price.per_hour:
                    known = self._of.setdefault((price.queue, price.sku, tier), [])
                    known.append((price, book.currency, amount))

    def rates(self, terms: Terms, from_ms: int, to_ms: int) -> Iterator[tuple[int, int, Rate | None]]:
        """Cut an interval where its price changes; yield each piece with its price, None where there is none."""
        skus = [(f"{terms.model}/{terms.mig}", TICKS_PER_GPU_MS)] if terms.mig else []
        skus.append((terms.model, terms.ticks))
        found = [
            (price, Rate(currency=currency, sku=price.sku, tier=tier, per_hour=amount, ticks=ticks))
            for tier in terms.tiers
            for queue in (*terms.chain, "")
            for sku, ticks in skus
            for price, currency, amount in self._of.get((queue, sku, tier), ())
        ]
        edges = {edge for price, _ in found for edge in (price.from_ms, price.to_ms) if edge is not None}
        cuts = sorted({from_ms, to_ms, *(edge for edge in edges if from_ms < edge < to_ms)})
        last: tuple[int, int, Rate | None] | None = None
        for begin, end in pairwise(cuts):
            rate = next((rate for price, rate in found if price.is_valid(begin)), None)
            if last is not None and last[2] == rate:
                last = (last[0], end, rate)
                continue
            if last is not None:
                yield last
            last = (begin, end, rate)
        if last is not None:
            yield last

    def differs(self, other: PriceList) -> tuple[int | None, int | None] | None:
        """Return from when to when (None is ever) the two price something differently, None where they never do."""
        both = [price for books in (self.books, other.books) for book in books for price in book.prices]
        edges = sorted({edge for price in both for edge in (price.from_ms, price.to_ms) if edge is not None})
        spans = list(pairwise([None, *edges, None]))
        different = [span for span in spans if self._at(_inside(*span)) != other._at(_inside(*span))]
        return (different[0][0], different[-1][1]) if different else None

    def _at(self, at_ms: int) -> list[tuple[str, str, str, str, int]]:
        return [
            (queue, sku, tier, currency, amount)
            for (queue, sku, tier), known in sorted(self._of.items())
            for price, currency, amount in known
            if price.is_valid(at_ms)
        ]


def _inside(from_ms: int | None, to_ms: int | None) -> int:
    return from_ms if from_ms is not None else 0 if to_ms is None else to_ms - 1


def largest_remainder(total: int, weights: Sequence[int]) -> list[int]:
    """Divide an amount in proportion to weights (0 or more, not all 0); the parts sum to it exactly.

    Each is the exact share rounded down, and what is left goes, one each, to those that lost most; of equals, to the
    earlier.
    """
    whole, sign = sum(weights), -1 if total < 0 else 1
    assert whole > 0, weights
    shares = [divmod(abs(total) * weight, whole) for weight in weights]
    left = abs(total) - sum(share for share, _ in shares)
    by_loss = sorted(range(len(weights)), key=lambda at: (-shares[at][1], at))
    lucky = set(by_loss[:left])
    return [sign * (share + (at in lucky)) for at, (share, _) in enumerate(shares)]
