"""Verify knows what every entry costs: whoever rewrites an amount with both chains whole is found by the prices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ledger_books import hold, release
from ledger_facts import NAMED, node
from price_words import PricedBooks, price, priced

from fairlead.ledger.chain import Head, seal
from fairlead.ledger.entry import Entry, EntryKind, Posting
from fairlead.model.codec import Cut
from fairlead.model.events import NodeSeen
from fairlead.model.prices import Adjusted, AdjustedLine, PriceTier


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


# --- adjustments: each is booked once, and as it was decided ----------------------------------------------------------


def line(nanos: int, **more: Any) -> AdjustedLine:
    said = {"tenant": "lab", "queue": "vision", "tier": PriceTier.IN_QUOTA, "currency": "EUR"}
    return AdjustedLine(nanos=nanos, **said | more)


def decided(at_ms: int, *lines: AdjustedLine) -> Adjusted:
    return Adjusted(
        actor="ann", reason="outage", note="rack r7", lines=lines, from_ms=2_000, to_ms=6_000, at_ms=at_ms, refers="e"
    )


def adjusted() -> PricedBooks:
    """Books in which something was given back, of that a part of what a device earned; and then nothing."""
    given = decided(10_000, line(-30), line(-7, sku="A100"), line(4, queue="lab"))
    facts = (*NAMED, NodeSeen(node=node(), at_ms=1_000), priced(price("inQuota=3.60")), hold(2_000, ("n1", (0,))))
    return PricedBooks().take(*facts, Cut(at_ms=9_000), given, decided(11_000, line(5), line(-5)))


def the_last(**changes: Any) -> Any:
    return lambda entry: replace(entry, **changes) if entry.kind is EntryKind.ADJUSTMENT else entry


def more_given_back(entry: Entry) -> Entry:
    if entry.kind is not EntryKind.ADJUSTMENT:
        return entry
    first, second, *rest = entry.postings
    return replace(
        entry, postings=(replace(first, amount=first.amount - 1), replace(second, amount=second.amount + 1), *rest)
    )


def test_what_was_decided_is_booked_once_and_what_comes_to_nothing_needs_no_entry() -> None:
    found = adjusted()
    assert found.audit().verified
    (entry,) = [s.entry for s in found.sealed if s.entry.kind is EntryKind.ADJUSTMENT]
    assert {part.account: part.amount for part in entry.postings} == {
        "spend:lab:vision:in-quota": -37,
        "spend:lab:lab:in-quota": 4,
        "credit:outage": 26,
        "revenue:A100": 7,
    }


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        (more_given_back, "postings", "they are not what its record decided on"),
        (the_last(actor="bob"), "actor", "is 'bob', its record says 'ann'"),
        (the_last(reason="outage"), "reason", "is 'outage', its record says 'outage: rack r7'"),
        (the_last(refers=""), "refers", "is '', its record says 'e'"),
        (the_last(from_ms=1_999), "from_ms", "is 1999, its record says 2000"),
        (the_last(to_ms=6_001), "to_ms", "is 6001, its record says 6000"),
        (the_last(to_ms=1_000), "to_ms", "is 1000, before from_ms 2000"),
    ],
)
def test_an_adjustment_that_is_not_as_it_was_decided_is_named(change: Any, field: str, message: str) -> None:
    found = adjusted()
    finding = rewritten(found, change).audit().findings[0]
    assert (finding.entry, finding.field, finding.message) == (len(found.sealed), field, message)


def test_a_decision_that_nobody_booked_is_named_by_its_record_and_one_booked_twice_by_its_entry() -> None:
    found = adjusted()
    number = next(row.number for row in found.rows if row.kind == "Adjusted")
    whole = [sealed.entry for sealed in found.sealed]
    found.sealed = list(seal(Head(), whole[:-1])[0])
    assert [f.sentence for f in found.audit().findings] == [
        f"journal record {number}: lines: no entry books what was adjusted"
    ]
    found.sealed = list(seal(Head(), [*whole, whole[-1]])[0])
    assert [f.sentence for f in found.audit().findings] == [
        f"entry {len(whole) + 1}: fact: its record decides on no adjustment, or is booked already"
    ]


def test_of_what_is_wrong_entries_are_named_first_and_then_records_each_in_their_order() -> None:
    found = adjusted()
    found.take(decided(12_000, line(1)), decided(13_000, line(2)))
    wrong = [replace(s.entry, id="i") if s.number in (2, 4) else s.entry for s in found.sealed]
    found.sealed = list(seal(Head(), wrong[:-2])[0])
    named = [(finding.entry, finding.record) for finding in found.audit().findings]
    records = [row.number for row in found.rows if row.kind == "Adjusted"]
    assert named == [(2, None), (4, None), (None, records[-2]), (None, records[-1])]
