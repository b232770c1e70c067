"""Price books in a line each, and books in memory that correct what prices change of the past."""

from __future__ import annotations

from typing import Any

from ledger_books import Books
from mig_grids import A100_80 as MODEL

from fairlead.model.events import PriceBookSeen
from fairlead.model.prices import TIER_WORDS, Price, PriceBook
from fairlead.model.rates import per_hour_of


def price(text: str, begin: int | None = None, end: int | None = None, **more: Any) -> Price:
    """``inQuota=2.50 borrowed=1`` of an A100, from and to when (ms)."""
    said = dict(part.split("=") for part in text.split())
    per_hour = tuple((TIER_WORDS[word], per_hour_of(amount, field=word)) for word, amount in said.items())
    return Price(**{"model": MODEL, "from_ms": begin, "to_ms": end, "per_hour": per_hour, **more})


def book(*prices: Price, name: str = "eur", currency: str = "EUR") -> PriceBook:
    return PriceBook(name=name, currency=currency, prices=prices)


def priced(*prices: Price, at_ms: int = 0, **more: Any) -> PriceBookSeen:
    return PriceBookSeen(book=book(*prices, **more), at_ms=at_ms)


class PricedBooks(Books):
    """They answer late prices at once, as the bookkeeper does."""

    def take(self, *records: Any) -> PricedBooks:
        for record in records:
            super().take(record)
            while self.meter.pricing.late:
                late = self.meter.pricing.late[0]
                posted = [sealed.entry for sealed in self.sealed if sealed.number <= late.up_to]
                super().take(self.meter.pricing.correction(late, posted))
        return self

    def money(self, currency: str = "EUR") -> dict[str, int]:
        """Account -> nano-units, after everything verified."""
        found = self.audit()
        assert found.verified, [f.sentence for f in found.findings]
        return {name: nanos for name, nanos in found.money.get(currency, {}).items() if nanos}
