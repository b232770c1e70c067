"""PriceBook documents as people write them."""

from __future__ import annotations

from fairlead.model.prices import TIER_WORDS, Price, PriceBook, check_book, price_of
from fairlead.simulation.fields import DNS_LABEL, Fields


def book_of(document: Fields) -> PriceBook:
    """Read one PriceBook.

    Raises
    ------
    UnreadableInput
        A field is missing, unknown or wrong, or two prices overlap; the text names it.
    """
    document.ignore("status")
    meta, spec = document.inner("metadata"), document.inner("spec")
    book = PriceBook(
        name=meta.text("name", pattern=DNS_LABEL),
        currency=spec.text("currency"),
        prices=tuple(_price(item) for item in spec.items("prices")),
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
