"""Verify knows what every entry costs: whoever rewrites an amount with both chains whole is found by the prices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ledger_books import hold, release
from ledger_facts import NAMED, node
from price_words import PricedBooks, price, priced

from fairlead.ledger.chain import Head, seal
from fairlead.ledger.entry import Entry, Posting
from fairlead.model.codec import Cut
from fairlead.model.events import NodeSeen


def books() -> PricedBooks:
    """Two GPUs for four seconds at a price that doubles in the middle, and one at a price that comes late."""
    prices = (price("inQuota=3.60", None, 3_000), price("inQuota=7.20", 3_000))
    early = [*NAMED, NodeSeen(node=node(), at_ms=1_000), priced(*prices), hold(2_000, ("n1", (0, 1))), release(6_000)]
    return PricedBooks().take(*early, Cut(at_ms=9_000), priced(*prices, name="again", currency="GPU-credits"))


def rewritten(found: PricedBooks, change: Any) -> PricedBooks:
    """Change entries, and make the chain anew over all of them."""
    found.sealed = list(seal(Head(), tuple(change(sealed.entry) for sealed in found.sealed))[0])
    return found


def dearer(entry: Entry) -> Entry:
    """Shift a nano-unit from one account to the other; the entry still balances."""
    more = [replace(p, amount=p.amount + (1 if p.amount > 0 else -1)) for p in entry.postings[2:]]
    return replace(entry, postings=(*entry.postings[:2], *more)) if entry.gang else entry


def for_nothing(entry: Entry) -> Entry:
    return replace(entry, postings=entry.postings[:2])


def for_somebody_else(entry: Entry) -> Entry:
    def moved(p: Posting) -> Posting:
        return replace(p, account=p.account.replace("vision", "speech"))

    return replace(entry, postings=(*entry.postings[:2], *map(moved, entry.postings[2:])))


def in_other_money(entry: Entry) -> Entry:
    return replace(entry, postings=tuple(replace(p, unit=p.unit.replace("EUR", "USD")) for p in entry.postings))


def where_it_was_free(entry: Entry) -> Entry:
    """Charge somebody for time in which nobody held the device."""
    if entry.gang or not entry.account.startswith("free"):
        return entry
    made = [Posting(account="spend:lab:vision:in-quota", amount=9, unit="money:EUR"),
            Posting(account="revenue:x", amount=-9, unit="money:EUR")]  # fmt: skip
    return replace(entry, postings=(*entry.postings, *made))


def test_what_was_booked_by_the_prices_verifies() -> None:
    assert books().audit().verified
    assert rewritten(books(), lambda entry: entry).audit().verified


@pytest.mark.parametrize("change", [dearer, for_nothing, for_somebody_else, in_other_money, where_it_was_free])
def test_an_amount_that_no_price_gives_is_named_with_its_entry(change: Any) -> None:
    found = books()
    first = next(s.number for s in found.sealed if change(s.entry) != s.entry and s.entry.device)
    finding = rewritten(found, change).audit().findings[0]
    assert (finding.entry, finding.field) == (first, "postings")
    assert finding.message.startswith("the money is ")
    assert "by the prices of that time it is" in finding.message
