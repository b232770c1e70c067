"""Names of accounts and units, and entries that no device's timeline makes: what they may say."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_ledger import EXAMPLE, Books

from fairlead.errors import UnreadableInput
from fairlead.ledger import accounts, adjusting
from fairlead.ledger.audit import Audit
from fairlead.ledger.chain import seal
from fairlead.ledger.entry import Entry, EntryKind, Origin, Posting, State, entry_bytes, make_entry
from fairlead.model.gang import Tier
from fairlead.model.prices import Adjusted, AdjustedLine, PriceTier


def test_accounts_are_read_back_and_checked() -> None:
    assert accounts.parse(accounts.held("lab", "vision", Tier.BORROWED)).tier == "borrowed"
    assert accounts.parse(accounts.down("main", accounts.Cause.NODE_LOST)).cause == "node-lost"
    assert accounts.parse(accounts.spend("lab", "vision", "opportunistic")).tier == "opportunistic"
    assert accounts.parse(accounts.use("lab", "vision", "idle")).use == "idle"
    assert accounts.parse(accounts.waste("node-lost", "lab", "vision")).cause == "node-lost"
    assert accounts.parse(accounts.credit("outage")).reason == "outage"
    assert accounts.parse("rounding").kind is accounts.Kind.ROUNDING
    for bad in (
        "money:x", "held:a:b", "held:a::in-quota", "down:main:tired", "free:", "held:a:b:stolen", "rounding:",
        "spend:a:b:free", "use:a:b:lost", "revenue:a%41", "revenue:a\x00", "credit:=cmd", "free:%ZZ",
    ):  # fmt: skip
        with pytest.raises(UnreadableInput, match="account"):
            accounts.parse(bad)


@given(st.text(min_size=1))
def test_any_text_may_be_a_part_of_an_accounts_name_and_none_is_mistaken_for_another(text: str) -> None:
    name = accounts.revenue(text)
    assert accounts.parse(name).sku == text
    assert re.fullmatch(r"revenue:[-A-Za-z0-9._~/% ]+", name)
    assert name.count(":") == 1


def test_parts_that_mean_something_elsewhere_are_escaped() -> None:
    assert accounts.revenue("NVIDIA A100-SXM4-80GB") == "revenue:NVIDIA A100-SXM4-80GB"
    assert accounts.held("a:b", "=cmd|' /C calc'!A0", Tier.BORROWED) == (
        "held:a%3Ab:%3Dcmd%7C%27 /C calc%27%21A0:borrowed"
    )  # fmt: skip
    assert accounts.credit("d\u00fcrr\x00") == "credit:d%C3%BCrr%00"


@pytest.mark.parametrize("currency", ["", "EUR ", "=EUR", "E:R", "€", "9", "A" * 33, "E\n"])
def test_what_is_no_currency_is_refused(currency: str) -> None:
    with pytest.raises(UnreadableInput, match="currency"):
        accounts.money(currency)
    with pytest.raises(UnreadableInput, match="unit"):
        accounts.currency_of(f"money:{currency}")


def test_currencies_are_units_beside_ticks() -> None:
    assert accounts.currency_of(accounts.money("GPU-credits")) == "GPU-credits"
    assert accounts.currency_of(accounts.TICKS) is None


MONEY = (
    Posting(account="spend:lab:vision:in-quota", amount=7, unit="money:EUR"),
    Posting(account="revenue:A100", amount=-7, unit="money:EUR"),
)


def adjusted(books: Books, *postings: Posting, **changes: Any) -> Audit:
    """Decide on an adjustment of seven nano-units, and book this for it instead of what the meter would."""
    line = AdjustedLine(
        tenant="lab", queue="vision", tier=PriceTier.IN_QUOTA, nanos=7, currency="EUR", sku="A100"
    )  # fmt: skip
    fact = Adjusted(actor="ann", reason="outage", lines=(line,), from_ms=0, to_ms=0, at_ms=11_000)
    before = books.heads[1]
    books.take(fact).sealed.pop()
    books.heads = (books.heads[0], before)
    last = books.rows[-1]
    entry = Entry(
        id="adjusted", kind=EntryKind.ADJUSTMENT, fact=last.id, at_ms=last.at_ms, node="", device="", pool="",
        from_ms=0, to_ms=0, actor="ann", reason="outage", postings=postings,
    )  # fmt: skip
    books.sealed += seal(books.heads[1], [dataclasses.replace(entry, **changes)])[0]
    return books.audit()


def test_an_adjustment_balances_by_itself_and_says_who_and_why() -> None:
    found = adjusted(Books().take(*EXAMPLE), *MONEY)
    assert found.verified, found.findings
    assert found.money == {"EUR": {"spend:lab:vision:in-quota": 7, "revenue:A100": -7}}
    assert sum(found.balances.values()) == 0


@pytest.mark.parametrize(
    ("postings", "changes", "field"),
    [
        (MONEY[:1], {}, "postings"),
        ((MONEY[0], dataclasses.replace(MONEY[1], unit="money:USD")), {}, "postings"),
        ((MONEY[0], dataclasses.replace(MONEY[1], unit="ticks")), {}, "postings[1].unit"),
        ((MONEY[0], dataclasses.replace(MONEY[1], account="capacity:main")), {}, "postings[1].unit"),
        ((MONEY[0], dataclasses.replace(MONEY[1], unit="coins")), {}, "postings[1].account"),
        (MONEY, {"from_ms": 1}, "to_ms"),
        (MONEY, {"fact": "none"}, "fact"),
        (MONEY, {"reason": 7}, "reason"),
        (MONEY, {"reason": "goodwill"}, "reason"),
        (MONEY, {"actor": "bob"}, "actor"),
        (MONEY, {"refers": "x"}, "refers"),
        (tuple(dataclasses.replace(part, amount=part.amount * 2) for part in MONEY), {}, "postings"),
    ],
)
def test_what_an_adjustment_may_not_be(postings: Any, changes: Any, field: str) -> None:
    assert adjusted(Books().take(*EXAMPLE), *postings, **changes).findings[0].field == field


def test_what_was_decided_is_booked_once() -> None:
    books = Books().take(*EXAMPLE)
    found = adjusted(books, *MONEY)
    books.heads = (books.heads[0], found.head)
    entry = dataclasses.replace(books.sealed[-1].entry, id="again")
    books.sealed += seal(found.head, [entry])[0]
    assert books.audit().findings[0].field == "fact"
    del books.sealed[-2:]
    assert [finding.field for finding in books.audit().findings] == ["lines"]


def test_fields_that_came_later_are_in_the_bytes_only_where_they_say_something() -> None:
    entry = Books().take(*EXAMPLE).sealed[0].entry
    assert b"actor" not in entry_bytes(entry)
    assert b"unit" not in entry_bytes(entry)
    seen = {entry_bytes(entry)}
    seen |= {entry_bytes(dataclasses.replace(entry, **{name: "x"})) for name in ("actor", "reason", "refers")}
    seen |= {entry_bytes(dataclasses.replace(entry, postings=(*entry.postings, *MONEY)))}
    assert len(seen) == 5


FACT = "f" * 64
WHOLE = State(
    account="held:lab:vision:in-quota", pool="main", gang="g1", namespace="ns", name="job", attempt=1, rank=0
)  # fmt: skip
PINNED = [
    (EntryKind.SEGMENT, WHOLE, "541542f255b5899c2db9725d05a0775b9a0aa3d740e12a99bfcd03d91badbc7e"),
    (
        EntryKind.REVERSAL, dataclasses.replace(WHOLE, ticks=120),
        "061562d58e9b73ceee476abb5fd2d4ce18784a251b6975efc3cd9e0c0f5df322",
    ),
    (
        EntryKind.SEGMENT, State(account="use:lab:vision:idle", pool="main", gang="g1", attempt=1, rank=0, ticks=210),
        "61dde9fbf27fce97464d4f8ee7057c6d3201814a4a3e6b4d370a66d285316617",
    ),
    (
        EntryKind.SEGMENT, State(account="reserved-idle:main", pool="main", actor="vision", reason="promise/g9"),
        "3c2caad56feb3120322ba6aa70dba40b587b509836292ab4ad92b7af64bf00c3",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "state", "id_"), PINNED)
def test_the_ids_of_entries_are_what_they_always_were(kind: EntryKind, state: State, id_: str) -> None:
    entry = make_entry(Origin("c", FACT, 5), kind, ("n1", "gpu-0"), state, (1_000, 3_000), 7)
    assert entry.id == id_


def test_the_bytes_of_an_entry_are_what_they_always_were() -> None:
    kind, state, id_ = PINNED[1]
    entry = make_entry(Origin("c", FACT, 5), kind, ("n1", "gpu-0"), state, (1_000, 3_000), 7)
    assert entry_bytes(entry) == (
        b'{"at_ms":5,"attempt":1,"device":"gpu-0","estimated_ms":7,"fact":"%s","from_ms":1000,"gang":"g1","id":"%s",'
        b'"kind":"reversal","name":"job","namespace":"ns","node":"n1","pool":"main","postings":'
        b'[{"account":"capacity:main","ticks":240000},{"account":"held:lab:vision:in-quota","ticks":-240000}],'
        b'"rank":0,"to_ms":3000}'
    ) % (FACT.encode(), id_.encode())


@pytest.mark.parametrize("text", ["", "  ", "a" * 65, "two\nlines", "nul\0"])
def test_what_people_say_is_one_printable_line_of_a_bounded_length(text: str) -> None:
    assert adjusting.said(f" {'a' * 64} ", 64, field="--reason") == "a" * 64
    with pytest.raises(UnreadableInput, match="--reason: must be 1 to 64 characters"):
        adjusting.said(text, 64, field="--reason")
