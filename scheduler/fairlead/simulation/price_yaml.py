"""PriceBook documents as people write them."""

from __future__ import annotations

from typing import Any

from fairlead.model.costs import COST_WORDS, FixedCost, HardwareCost, cost_of, fixed_of
from fairlead.model.prices import TIER_WORDS, Price, PriceBook, check_book, price_of
from fairlead.simulation.fields import DNS_LABEL, Fields

_ANY = 2**31  # what makes sense is for the book's own rules to say


def book_of(document: Fields) -> PriceBook:
    """Read one PriceBook.

    Raises
    ------
    UnreadableInput
        A field is missing, unknown or wrong, or two prices or costs overlap; the text names it.
    """
    document.ignore("status")
    meta, spec = document.inner("metadata"), document.inner("spec")
    book = PriceBook(
        name=meta.text("name", pattern=DNS_LABEL),
        currency=spec.text("currency"),
        prices=tuple(_price(item) for item in spec.items("prices")),
        costs=tuple(_cost(item) for item in spec.items("costs")),
        fixed=tuple(_fixed(item) for item in spec.items("fixed")),
    )
    spec.done()
    document.done()
    return check_book(book, field=spec.path)


def _price(item: Fields) -> Price:
    said = {name: item.text(name, "") for name in ("mig", "queue", "from", "to")}
    amounts = item.inner("perHour")
    per_hour = {word: amounts.text(word, "") for word in TIER_WORDS}
    amounts.done()
    price = price_of({"model": item.text("model"), **said}, per_hour, field=item.path)
    item.done()
    return price


def _cost(item: Fields) -> HardwareCost:
    said: dict[str, Any] = {"model": item.text("model"), "from": item.text("from", ""), "to": item.text("to", "")}
    for name, words in COST_WORDS.items():
        part = item.inner(name)
        if item.has(name):
            said[name] = {word: _word(part, word, kind) for word, kind in words.items() if part.has(word)}
        part.ignore(*words)
        part.done()
    item.done()
    return cost_of(said, field=item.path)


def _word(part: Fields, word: str, kind: type) -> str | int:
    return part.text(word) if kind is str else part.integer(word, low=-_ANY, high=_ANY)


def _fixed(item: Fields) -> FixedCost:
    said = {word: item.text(word, "") for word in ("name", "perMonth", "from", "to")}
    item.done()
    return fixed_of(said, field=item.path)
