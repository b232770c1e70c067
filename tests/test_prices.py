"""What device time costs: frozen when it is posted, exact however it is cut, mended when a price comes late."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_books import hold, release
from ledger_facts import NAMED, gang, node, streams
from price_words import PricedBooks, book, price, priced

from fairlead.errors import UnreadableInput
from fairlead.ledger.entry import EntryKind
from fairlead.ledger.prices import PriceList, Rate, largest_remainder
from fairlead.ledger.sweep import Sweep
from fairlead.model.codec import Cut
from fairlead.model.events import Adjusted, GangSeen, KeptFree, NodeSeen, PriceBookGone, QueueSeen
from fairlead.model.gang import Role, Tier
from fairlead.model.hardware import NodeName
from fairlead.model.prices import AdjustedLine, PriceTier, check_book
from fairlead.model.rates import per_hour_of, per_hour_text
from fairlead.model.tenancy import Queue
from fairlead.units import money_text

HOUR = 3_600_000
A_SECOND = 1_000_000  # nano-units that a second costs at 3.60 an hour


def story(*, until_ms: int = 11_000, **more: Any) -> list[Any]:
    """Two GPUs for four seconds, from 2 s on."""
    return [*NAMED, NodeSeen(node=node(), at_ms=1_000), hold(2_000, ("n1", (0, 1)), **more), release(6_000),
            Cut(at_ms=until_ms)]  # fmt: skip


def test_a_hold_costs_what_the_book_says_and_both_sides_are_posted() -> None:
    books = PricedBooks().take(priced(price("inQuota=3.60")), *story())
    assert books.money() == {"spend:lab:vision:in-quota": 8 * A_SECOND, "revenue:NVIDIA A100-SXM4-80GB": -8 * A_SECOND}
    held = [s.entry for s in books.sealed if s.entry.gang]
    assert [[(p.account, p.amount, p.unit) for p in e.postings[2:]] for e in held] == [
        [
            ("spend:lab:vision:in-quota", 4 * A_SECOND, "money:EUR"),
            ("revenue:NVIDIA A100-SXM4-80GB", -4 * A_SECOND, "money:EUR"),
        ]
    ] * 2
    assert not any(len(s.entry.postings) > 2 for s in books.sealed if not s.entry.gang)


def test_an_interval_in_which_the_price_changes_is_cut_there() -> None:
    books = PricedBooks().take(priced(price("inQuota=3.60", None, 3_000), price("inQuota=7.20", 3_000)), *story())
    assert [(s.entry.from_ms, s.entry.to_ms, s.entry.postings[2].amount) for s in books.sealed if s.entry.gang] == [
        (2_000, 3_000, A_SECOND),
        (3_000, 6_000, 6 * A_SECOND),
    ] * 2
    assert books.money()["spend:lab:vision:in-quota"] == 14 * A_SECOND


@pytest.mark.parametrize(
    ("tier", "said", "account", "seconds"),
    [
        (Tier.BORROWED, "inQuota=3.60 borrowed=1.80", "borrowed", 4),
        (Tier.RESERVED, "inQuota=3.60", "in-quota", 8),
        (Tier.RESERVED, "inQuota=3.60 reserved=7.20", "reserved", 16),
        (Tier.OPPORTUNISTIC, "inQuota=3.60 borrowed=1.80", "borrowed", 4),
        (Tier.OPPORTUNISTIC, "borrowed=1.80 opportunistic=0.90", "opportunistic", 2),
    ],
)
def test_each_tier_has_its_price_and_two_of_them_have_one_to_fall_back_on(
    tier: Tier, said: str, account: str, seconds: int
) -> None:
    books = PricedBooks().take(priced(price(said)), *story(tier=tier))
    assert books.money()[f"spend:lab:vision:{account}"] == seconds * A_SECOND


def test_what_has_no_price_is_booked_without_money_and_free_is_a_price() -> None:
    assert PricedBooks().take(priced(price("borrowed=9")), *story()).money() == {}
    books = PricedBooks().take(priced(price("inQuota=0")), *story())
    assert books.money() == {}
    assert {len(s.entry.postings) for s in books.sealed if s.entry.gang} == {2}
    charges = [c for s in books.sealed for c in books.meter.pricing.charges_of(s.entry)]
    assert {c.rate is None for c in charges} == {False}


def test_the_price_of_the_nearest_queue_holds_for_what_is_below_it() -> None:
    prices = (price("inQuota=3.60"), price("inQuota=1.80", queue="lab"), price("inQuota=0.90", queue="speech"))
    books = PricedBooks().take(priced(*prices), *story())
    assert books.money()["spend:lab:vision:in-quota"] == 4 * A_SECOND


def test_currencies_and_credits_stand_side_by_side() -> None:
    credits = priced(price("inQuota=36", queue="speech"), name="credits", currency="GPU-credits")
    books = PricedBooks().take(priced(price("inQuota=3.60")), credits, *story())
    books.take(hold(12_000, ("n1", (3,)), uid="g2"), release(13_000, uid="g2"), Cut(at_ms=14_000))
    assert books.money()["spend:lab:vision:in-quota"] == 8 * A_SECOND
    assert books.money("GPU-credits") == {
        "spend:speech:speech:in-quota": 10**7,
        "revenue:NVIDIA A100-SXM4-80GB": -(10**7),
    }


def test_an_instance_has_the_price_of_its_profile_else_its_part_of_the_gpu() -> None:
    cut = gang("g4")
    roles = (Role(name="worker", replicas=1, mig="1g.10gb"),)
    facts = [
        *NAMED,
        GangSeen(gang=type(cut)(**{**{f: getattr(cut, f) for f in cut.__slots__}, "roles": roles}), at_ms=0),
        NodeSeen(node=node(cut="1g.10gb@0,1g.10gb@1"), at_ms=0),
        hold(0, ("n1", (3,), 125), uid="g4"),
        release(8_000, uid="g4"),
    ]
    part = PricedBooks().take(priced(price("inQuota=3.60")), *facts)
    assert part.money()["spend:lab:vision:in-quota"] == A_SECOND
    whole = PricedBooks().take(priced(price("inQuota=3.60"), price("inQuota=0.90", mig="1g.10gb")), *facts)
    assert whole.money() == {
        "spend:lab:vision:in-quota": 2 * A_SECOND,
        "revenue:NVIDIA A100-SXM4-80GB/1g.10gb": -2 * A_SECOND,
    }


def test_what_is_taken_back_is_what_was_charged() -> None:
    books = PricedBooks().take(priced(price("inQuota=3.60")), *story()[:-2], Cut(at_ms=9_000))
    assert books.money()["spend:lab:vision:in-quota"] == 14 * A_SECOND
    books.take(NodeSeen(node=node(not_ready_since_ms=4_000), at_ms=9_500))
    assert books.money()["spend:lab:vision:in-quota"] == 4 * A_SECOND
    assert any(s.entry.kind is EntryKind.REVERSAL and len(s.entry.postings) == 4 for s in books.sealed)


# --- prices that come late ------------------------------------------------------------------------------------------


def test_a_price_that_comes_late_is_posted_as_an_adjustment_and_nothing_is_changed() -> None:
    books = PricedBooks().take(priced(price("inQuota=3.60")), *story())
    before = list(books.sealed)
    late = priced(price("inQuota=3.60", None, 5_000), price("inQuota=1.80", 5_000), at_ms=20_000)
    books.take(late)
    assert books.sealed[: len(before)] == before
    (entry,) = [sealed.entry for sealed in books.sealed[len(before) :]]
    assert (entry.kind, entry.actor, entry.reason) == (EntryKind.ADJUSTMENT, "late-price", "late-price")
    assert (entry.from_ms, entry.to_ms) == (5_000, 6_000)
    assert entry.refers in {row.id for row in books.rows if row.kind == "PriceBookSeen"}
    assert {p.account: p.amount for p in entry.postings} == {
        "spend:lab:vision:in-quota": -A_SECOND,
        "revenue:NVIDIA A100-SXM4-80GB": A_SECOND,
    }
    assert books.money()["spend:lab:vision:in-quota"] == 7 * A_SECOND


def test_the_first_price_may_come_after_the_work() -> None:
    books = PricedBooks().take(*story(), priced(price("inQuota=3.60"), at_ms=20_000))
    assert books.money()["spend:lab:vision:in-quota"] == 8 * A_SECOND


def test_another_currency_takes_back_the_one_and_charges_the_other() -> None:
    books = PricedBooks().take(priced(price("inQuota=3.60")), *story())
    books.take(priced(price("inQuota=36"), currency="GPU-credits", at_ms=20_000))
    assert books.money() == {}
    assert books.money("GPU-credits")["spend:lab:vision:in-quota"] == 80 * A_SECOND


def test_a_price_for_the_future_corrects_nothing() -> None:
    books = PricedBooks().take(priced(price("inQuota=3.60")), *story())
    number = len(books.sealed)
    books.take(priced(price("inQuota=3.60", None, 60_000), price("inQuota=9", 60_000), at_ms=20_000))
    assert len(books.sealed) == number
    assert not any(row.kind == "Adjusted" for row in books.rows)


def test_a_book_that_is_taken_away_prices_what_was_before() -> None:
    books = PricedBooks().take(priced(price("inQuota=3.60")), *story(), PriceBookGone(name="eur", at_ms=12_000))
    books.take(hold(13_000, ("n1", (0,)), uid="g2"), release(14_000, uid="g2"), Cut(at_ms=15_000))
    assert books.money() == {"spend:lab:vision:in-quota": 8 * A_SECOND, "revenue:NVIDIA A100-SXM4-80GB": -8 * A_SECOND}


times = st.integers(0, 400)
books_of_prices = st.lists(
    st.tuples(times, st.sampled_from(["", "lab", "speech"]), st.sampled_from([1, 840_000_000, 98_765_432_109_876])),
    max_size=3,
    unique_by=lambda price: price[:2],
)


@st.composite
def any_book(draw: Any) -> Any:
    """Prices for some queues, each until the next of its queue, told at any time."""
    found, prices = sorted(draw(books_of_prices)), []
    for begin, queue, amount in found:
        end = min((other for other, q, _ in found if q == queue and other > begin), default=None)
        amounts = tuple((tier, amount + at) for at, tier in enumerate(PriceTier))
        prices.append(price("inQuota=1", begin or None, end, queue=queue, per_hour=amounts))
    name = draw(st.sampled_from(["eur", "eur", "usd"]))
    return priced(*prices, name=name, currency=name.upper(), at_ms=draw(times))


@settings(max_examples=150)
@given(streams, st.lists(st.tuples(st.integers(0, 25), any_book()), max_size=3), st.booleans())
def test_the_net_of_all_entries_is_what_the_price_books_say_at_last(stream: Any, told: Any, gone: bool) -> None:
    records = list(stream)
    for at, seen in told:
        records.insert(at, seen)
    if gone:
        records.append(PriceBookGone(name="usd", at_ms=200))
    books = PricedBooks().take(*NAMED, *records, Cut(at_ms=500))
    found = books.audit()
    assert found.verified, [f.sentence for f in found.findings]
    due: dict[tuple[str, str], int] = {}
    sweep = Sweep()
    for record in [*NAMED, *records, Cut(at_ms=500)]:
        sweep.read(record)
    edges = {edge for b in books.meter.pricing.list.books for p in b.prices for edge in (p.from_ms, p.to_ms)}
    lines = [line for _, _, *both in sweep.spans() for line in both]
    for spans in lines:
        for (begin, parts), (end, _) in zip(spans, [*spans[1:], (500, ())][: len(spans)], strict=True):
            for what in parts if begin < 500 else ():
                pieces = sorted({begin, min(end, 500), *(e for e in edges if e is not None and begin < e < end)})
                for a, b in itertools.pairwise(pieces):
                    for account, currency, amount in cost(books, what, a, b):
                        due[currency, account] = due.get((currency, account), 0) + amount
    is_ = {(c, a): n for c, sums in found.money.items() for a, n in sums.items() if a.startswith("spend") and n}
    assert is_ == {key: nanos for key, nanos in due.items() if nanos}


def cost(books: PricedBooks, what: Any, a: int, b: int) -> Any:
    """What a span costs, looked up by hand: by the queue, the one above it, everybody; of two books the first."""
    kind, tenant, queue, tier = ([*what[0].split(":"), "", "", ""])[:4]
    sign = 1
    if what[0].startswith("waste:topology:"):  # given back, as it was charged in the tier that it was held in
        sign, (_, _, tenant, queue), tier = -1, what[0].split(":"), what[9].split("/")[1]
    elif kind == "reserved-idle" and what[9].startswith("reservation/"):  # whoever reserved it pays for it
        tenant, queue, tier = what[8], what[8], kind
    elif kind != "held":
        return
    fall_back = {"reserved": "in-quota", "opportunistic": "borrowed"}
    chain = [queue, *([tenant] if tenant != queue else []), ""]
    for wanted in [tier, *([fall_back[tier]] if tier in fall_back else [])]:
        for name in chain:
            for one in books.meter.pricing.list.books:
                for p in one.prices:
                    if p.queue == name and p.is_valid(a) and wanted in dict(p.per_hour):
                        rate = dict(p.per_hour)[PriceTier(wanted)] * what[7]
                        whole = 840 * HOUR * 10
                        amount = sign * (rate * b // whole - rate * a // whole)
                        yield f"spend:{tenant}:{queue}:{wanted}", one.currency, amount
                        return


# --- amounts ----------------------------------------------------------------------------------------------------------

per_hours = st.integers(0, 10**16)


@given(per_hours, st.integers(1, 840), st.lists(st.integers(0, 2**41), min_size=2, max_size=9))
def test_however_an_interval_is_cut_its_pieces_cost_what_it_costs_whole(per_hour: int, ticks: int, at: Any) -> None:
    rate = Rate(currency="EUR", sku="x", tier=PriceTier.IN_QUOTA, per_hour=per_hour, ticks=ticks)
    cuts = sorted(at)
    pieces = sum(rate.nanos(a, b) for a, b in itertools.pairwise(cuts))
    assert pieces == rate.nanos(cuts[0], cuts[-1])
    exact = Fraction(per_hour, 10) * Fraction(ticks * (cuts[-1] - cuts[0]), 840 * HOUR)
    assert abs(pieces - exact) < 1


@given(st.lists(st.tuples(per_hours, st.integers(0, 10**9)), min_size=1, max_size=7), st.integers(1, 3))
def test_slices_in_three_tiers_at_prices_of_ten_places_sum_exactly(slices: Any, tiers: int) -> None:
    """One GPU in 1 to 7 slices, each held in up to three tiers one after the other: nothing is lost or made."""
    total = 0
    for at, (per_hour, lasts) in enumerate(slices):
        ticks = 840 * (at + 1) // len(slices) - 840 * at // len(slices)
        rates = [Rate(currency="EUR", sku="x", tier=t, per_hour=per_hour, ticks=ticks) for t in list(PriceTier)[:tiers]]
        edges = [lasts * n // tiers for n in range(tiers + 1)]
        parts = [rate.nanos(*span) for rate, span in zip(rates, itertools.pairwise(edges), strict=True)]
        assert sum(parts) == rates[0].nanos(0, lasts)
        total += sum(parts)
    weights = [840 * (at + 1) // len(slices) - 840 * at // len(slices) for at in range(len(slices))]
    shares = largest_remainder(total, weights)
    assert sum(shares) == total
    assert all(abs(share - Fraction(total * weight, 840)) < 1 for share, weight in zip(shares, weights, strict=True))


@given(st.integers(-(10**18), 10**18), st.lists(st.integers(0, 10**12), min_size=1, max_size=9).filter(any))
def test_parts_of_an_amount_sum_to_it_and_are_less_than_one_off(total: int, weights: list[int]) -> None:
    parts = largest_remainder(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part - Fraction(total * weight, sum(weights))) < 1


# --- what is refused --------------------------------------------------------------------------------------------------


def test_prices_that_overlap_are_refused_and_both_periods_are_named() -> None:
    january, june = 1_767_225_600_000, 1_780_272_000_000
    twice = book(price("inQuota=1", january), price("inQuota=2 borrowed=1", june))
    with pytest.raises(UnreadableInput) as refused:
        check_book(twice, field="spec")
    assert str(refused.value) == (
        "spec.prices: NVIDIA A100-SXM4-80GB has a price 2026-01-01T00:00:00Z to ever and another "
        "2026-06-01T00:00:00Z to ever; end one where the other begins"
    )
    check_book(book(price("inQuota=1", january, june), price("inQuota=2", june)), field="spec")
    check_book(book(price("inQuota=1"), price("borrowed=2"), price("inQuota=1", queue="lab")), field="spec")
    other = book(price("inQuota=1"), name="usd", currency="USD")
    with pytest.raises(UnreadableInput, match="another of book usd"):
        check_book(book(price("inQuota=2")), [other], field="spec")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (book(price("inQuota=1", 5, 5)), r"prices\[0\].to: is not after from"),
        (book(price("inQuota=1", model=" ")), r"prices\[0\].model"),
        (book(price("inQuota=1", model="a\x00")), r"prices\[0\].model"),
        (book(price("", None)), r"prices\[0\].perHour: says no tier"),
        (book(price("inQuota=1000001")), r"prices\[0\].perHour: must be"),
        (book(currency="=cmd|x"), "currency"),
    ],
)
def test_what_a_book_may_not_say(wrong: Any, message: str) -> None:
    with pytest.raises(UnreadableInput, match=message):
        check_book(wrong, field="spec")


@pytest.mark.parametrize("text", ["", "-1", "1e3", "1,5", "1.12345678901", "12345678", "nan", " 1", "1 EUR", "\u0661"])
def test_what_is_no_price(text: str) -> None:
    with pytest.raises(UnreadableInput, match=r"^p: .*'2\.50'"):
        per_hour_of(text, field="p")


def test_prices_and_amounts_are_written_exactly() -> None:
    assert [per_hour_text(per_hour_of(text, field="p")) for text in ("2.5", "0", "0.0000000001", "999999.99")] == [
        "2.50", "0.00", "0.0000000001", "999999.99",
    ]  # fmt: skip
    assert [money_text(nanos) for nanos in (12_500_000_000, -1, 0)] == ["12.50", "-0.000000001", "0.00"]


def test_lists_say_from_when_to_when_they_differ() -> None:
    one = PriceList([book(price("inQuota=1"))])
    two = PriceList([book(price("inQuota=1", None, 50), price("inQuota=2", 50, 90), price("inQuota=1", 90))])
    assert one.differs(two) == (50, 90)
    assert one.differs(one) is None
    assert one.differs(PriceList()) == (None, None)


# --- adjustments by hand ----------------------------------------------------------------------------------------------


def test_an_adjustment_is_an_entry_with_who_and_why() -> None:
    line = AdjustedLine(tenant="lab", queue="vision", tier=PriceTier.IN_QUOTA, nanos=-3 * A_SECOND, currency="EUR")
    fact = Adjusted(
        actor="ann", reason="outage", note="rack r7", lines=(line,), from_ms=2_000, to_ms=6_000, at_ms=20_000
    )
    books = PricedBooks().take(priced(price("inQuota=3.60")), *story(), fact)
    assert books.money() == {
        "spend:lab:vision:in-quota": 5 * A_SECOND,
        "revenue:NVIDIA A100-SXM4-80GB": -8 * A_SECOND,
        "credit:outage": 3 * A_SECOND,
    }
    entry = books.sealed[-1].entry
    assert (entry.actor, entry.reason, entry.from_ms) == ("ann", "outage: rack r7", 2_000)
    assert books.take(fact).sealed[-1].entry is entry


def test_a_queue_that_moves_later_is_charged_as_it_was_when_the_hold_began() -> None:
    books = PricedBooks().take(priced(price("inQuota=3.60"), price("inQuota=1.80", queue="lab")), *story()[:-2])
    books.take(QueueSeen(queue=Queue(name="vision", parent="speech"), at_ms=3_000), release(6_000))
    assert books.money()["spend:lab:vision:in-quota"] == 4 * A_SECOND


def test_who_reserved_pays_for_what_stands_idle_and_nobody_for_what_a_rule_keeps() -> None:
    def kept(keeper: str, queue: str, device: str, at_ms: int) -> KeptFree:
        return KeptFree(keeper=keeper, queue=queue, devices=((NodeName("n1"), (device,)),), at_ms=at_ms)

    books = PricedBooks().take(
        *NAMED,
        priced(price("inQuota=3.60 reserved=7.20 reservedIdle=1.80")),
        NodeSeen(node=node(), at_ms=0),
        kept("reservation/night", "vision", "gpu-0", 1_000),
        kept("promise/g1", "vision", "gpu-1", 1_000),
        kept("reservation/repair", "", "gpu-2", 1_000),
        hold(3_000, ("n1", (0,)), tier=Tier.RESERVED),
        release(4_000),
        Cut(at_ms=9_000),
    )
    assert books.money() == {
        "spend:lab:vision:reserved-idle": 7 * A_SECOND // 2,  # seconds 1 to 3 and 4 to 9
        "spend:lab:vision:reserved": 2 * A_SECOND,
        "revenue:NVIDIA A100-SXM4-80GB": -11 * A_SECOND // 2,
    }
    books.take(priced(price("inQuota=3.60 reserved=7.20 reservedIdle=3.60"), at_ms=9_500))
    assert books.money()["spend:lab:vision:reserved-idle"] == 7 * A_SECOND
