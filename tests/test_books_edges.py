"""What counts at the very moment, what is told in another order than it happened, and how far back anything reaches.

Books are asked what they say, and audited: the auditor reads the same journal with other code.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ledger_books import Books, attempt, engine, found_again, grow, hold, release, rule, stop
from ledger_facts import NAMED, gang, node
from price_words import PricedBooks, price, priced

from fairlead.errors import UnreadableInput
from fairlead.ledger.adjusting import NOTE_MAX, REASON_MAX, said
from fairlead.ledger.chain import Head, seal
from fairlead.ledger.entry import Entry, EntryKind
from fairlead.ledger.meter import Meter
from fairlead.model.codec import Cut
from fairlead.model.events import (
    DevicesCounted,
    GangRefused,
    GangSeen,
    NodeGone,
    NodeSeen,
)
from fairlead.model.gang import PodShape
from fairlead.model.hardware import Gpu, Machine, Resources
from fairlead.model.reasons import Reason, refuse

HOUR = 3_600_000
FLEET = (*NAMED, NodeSeen(node=node(), at_ms=0))
HELD = "held:lab:vision:in-quota"
KEPT = "reserved-idle:main"
RESTART = "waste:restart:lab:vision"


def spans(books: Books, account: str) -> list[tuple[int, int]]:
    """From when to when entries say that a device was in an account, in the order in which they were booked."""
    return [(s.entry.from_ms, s.entry.to_ms) for s in books.sealed if s.entry.account == account]


# Kept free, and the engine that keeps it.


def test_what_was_kept_is_kept_no_more_from_the_moment_that_another_engine_begins() -> None:
    books = Books().take(*FLEET, engine(0), rule(1_000, "gpu-1"), engine(4_000), Cut(at_ms=10_000))
    assert books.gpu_ms()[KEPT] == 3_000


def test_at_one_moment_an_engine_and_what_it_keeps_go_by_the_journals_order() -> None:
    after = Books().take(*FLEET, engine(1_000), rule(1_000, "gpu-1"), Cut(at_ms=3_000))
    assert after.gpu_ms()[KEPT] == 2_000
    before = Books().take(*FLEET, rule(1_000, "gpu-1"), engine(1_000), Cut(at_ms=3_000))
    assert KEPT not in before.gpu_ms()


def test_a_rule_of_the_first_moment_holds_where_no_engine_was_seen_to_begin() -> None:
    books = Books().take(*FLEET, rule(0, "gpu-1"), Cut(at_ms=1_000))
    assert books.gpu_ms()[KEPT] == 1_000


def test_of_two_rules_for_one_device_the_first_by_name_has_it_until_it_lets_go() -> None:
    books = Books().take(
        *FLEET,
        rule(0, "gpu-1", name="reservation/b", queue="lab"),
        rule(1_000, "gpu-1", name="reservation/a", queue="speech"),
        rule(3_000, name="reservation/a", queue="speech"),
        Cut(at_ms=4_000),
    )
    assert books.gpu_ms()[KEPT] == 4_000
    booked = [(s.entry.reason, s.entry.actor, s.entry.from_ms, s.entry.to_ms) for s in books.sealed]
    assert [entry for entry in booked if entry[0]] == [
        ("reservation/b", "lab", 0, 1_000),
        ("reservation/a", "speech", 1_000, 3_000),
        ("reservation/b", "lab", 3_000, 4_000),
    ]


def test_days_later_a_rule_still_keeps_and_one_of_an_engine_that_is_gone_still_does_not() -> None:
    days = [Cut(at_ms=day * 24 * HOUR) for day in range(1, 8)]
    kept = Books().take(*FLEET, engine(0), rule(HOUR, "gpu-1"), rule(2 * HOUR, "gpu-1", "gpu-2"), *days)
    kept.take(rule(170 * HOUR), Cut(at_ms=171 * HOUR))
    assert kept.gpu_ms()[KEPT] == HOUR + 2 * 168 * HOUR
    gone = Books().take(*FLEET, engine(0), rule(HOUR, "gpu-1"), engine(2 * HOUR), *days)
    gone.take(hold(169 * HOUR, ("n1", (1,))), release(170 * HOUR), Cut(at_ms=171 * HOUR))
    assert gone.gpu_ms()[KEPT] == HOUR


# Ends and beginnings.


def test_a_hold_ends_with_its_release_or_its_node_whichever_came_first() -> None:
    for first, second in (
        (release(3_000), NodeGone(name="n1", at_ms=5_000)),
        (NodeGone(name="n1", at_ms=3_000), release(5_000)),
        (release(5_000), NodeGone(name="n1", at_ms=3_000)),
        (NodeGone(name="n1", at_ms=5_000), release(3_000)),
    ):
        books = Books().take(*FLEET, hold(1_000, ("n1", (0,))), first, second)
        books.take(NodeSeen(node=node(), at_ms=8_000), Cut(at_ms=9_000))
        assert books.gpu_ms()[HELD] == 2_000
        assert books.meter.is_over(("g1", 1, 0))


def test_books_know_a_hold_whose_beginning_or_end_they_were_told_and_no_other() -> None:
    books = Books().take(*FLEET, hold(1_000, ("n1", (0,))), release(2_000, rank=1), hold(2_000, ("n1", (2,)), uid="g2"))
    books.take(release(3_000, uid="g2"))
    of = {(gang, rank): books.meter for gang in ("g1", "g2") for rank in (0, 1)}
    assert {at: meter.knows((at[0], 1, at[1])) for at, meter in of.items()} == {
        ("g1", 0): True, ("g1", 1): True, ("g2", 0): True, ("g2", 1): False,
    }  # fmt: skip
    assert [at for at, meter in of.items() if meter.is_over((at[0], 1, at[1]))] == [("g1", 1), ("g2", 0)]


def test_a_hold_that_begins_as_its_node_goes_is_one_of_the_node_that_comes_back() -> None:
    books = Books().take(*FLEET, NodeGone(name="n1", at_ms=2_000), hold(2_000, ("n1", (0,))))
    books.take(NodeSeen(node=node(), at_ms=3_000), Cut(at_ms=5_000))
    assert books.gpu_ms()[HELD] == 2_000
    assert books.meter.open_holds() == (("g1", 1, 0),)


def test_a_release_that_is_as_old_as_its_hold_leaves_nothing_and_an_older_one_no_less() -> None:
    for end in (1_000, 500):
        books = Books().take(*FLEET, hold(1_000, ("n1", (0,))), release(end), Cut(at_ms=2_000))
        assert HELD not in books.gpu_ms()
        assert books.meter.open_holds() == ()


def test_only_an_end_that_was_estimated_has_a_width_and_only_at_that_end() -> None:
    exact = Books().take(*FLEET, hold(1_000, ("n1", (0,)), ("n1", (1,))), release(2_000), Cut(at_ms=3_000))
    assert {s.entry.estimated_ms for s in exact.sealed} == {0}
    exact.take(release(5_000, rank=1, estimated_ms=700), Cut(at_ms=9_000))
    wide = [(s.entry.rank, s.entry.to_ms, s.entry.estimated_ms) for s in exact.sealed if s.entry.estimated_ms]
    assert wide == [(1, 5_000, 700)]


def test_of_two_ends_at_one_moment_the_one_told_first_says_how_wide_it_is() -> None:
    for widths in ((0, 70), (70, 0)):
        books = Books().take(*FLEET, *(release(5_000, estimated_ms=width) for width in widths))
        books.take(hold(1_000, ("n1", (0,))), Cut(at_ms=9_000))
        assert [s.entry.estimated_ms for s in books.sealed if s.entry.gang] == [widths[0]]


@pytest.mark.parametrize("asks", [{"cpu_milli": 64_000}, {"memory_bytes": 2**38}, {"pods": 110}])
def test_what_our_own_pods_ask_for_leaves_the_rest_of_their_node_to_nobody(asks: dict[str, int]) -> None:
    def asking(uid: str, amounts: dict[str, int]) -> GangSeen:
        role = dataclasses.replace(gang().roles[0], pod=PodShape(requests=Resources(**amounts)))
        return GangSeen(gang=dataclasses.replace(gang(uid), roles=(role,)), at_ms=0)

    def stranded(more: int) -> int:
        (thing, amount) = next(iter(asks.items()))
        named = (asking("g1", {thing: amount // 2}), asking("g2", {thing: amount // 2 + more}))
        books = Books().take(*FLEET, *named, hold(0, ("n1", (0,))), hold(0, ("n1", (1,)), uid="g2"), Cut(at_ms=1_000))
        return books.gpu_ms().get("stranded:main", 0)

    assert (stranded(0), stranded(-1)) == (2_000, 0)


@pytest.mark.parametrize(("known_ms", "width"), [(3_000, 2_000), (4_999, 1), (5_000, 0)])
def test_what_was_found_to_be_over_ended_between_what_was_known_last_and_now(known_ms: int, width: int) -> None:
    books = Books().take(*FLEET, hold(1_000, ("n1", (0,))), Cut(at_ms=known_ms))
    books.take(found_again(5_000, 1_000, (), ("n1", (0,))), Cut(at_ms=6_000))
    assert books.gpu_ms()[HELD] == 4_000
    ends = [s.entry.estimated_ms for s in books.sealed if s.entry.gang and s.entry.to_ms == 5_000]
    assert ends == [width]


def test_who_was_found_later_than_books_are_known_to_reach_has_an_end_of_no_width() -> None:
    """What was told late: the line was drawn after it, so nothing between is unknown."""
    books = Books().take(*FLEET, hold(1_000, ("n1", (0,))), Cut(at_ms=9_000))
    books.take(found_again(5_000, 1_000, (), ("n1", (0,))), Cut(at_ms=10_000))
    assert books.gpu_ms()[HELD] == 4_000
    assert {s.entry.estimated_ms for s in books.sealed} == {0}


def test_who_joined_later_did_not_hold_since_the_attempt_began() -> None:
    books = Books().take(*FLEET, hold(1_000, ("n1", (0,))), grow(3_000, ("n1", (0,)), ("n1", (1,))))
    books.take(found_again(5_000, 500, (0, 1), ("n1", (0,)), ("n1", (1,))), Cut(at_ms=6_000))
    assert books.gpu_ms()[HELD] == 5_500 + 3_000


# Money.


def test_a_device_costs_what_the_model_costs_that_it_was_then() -> None:
    def seen(model: str, at_ms: int) -> NodeSeen:
        gpu = Gpu(id="GPU0", index=0, device="gpu-0", model=model, healthy=True)
        return NodeSeen(node=dataclasses.replace(node(), machine=Machine(gpus=(gpu,))), at_ms=at_ms)

    prices = (price("inQuota=3.60", model="old"), price("inQuota=7.20", model="new"))
    books = PricedBooks().take(*NAMED, priced(*prices), seen("old", 0), hold(1_000, ("n1", (0,))), release(3_000))
    books.take(seen("new", 4_000), hold(5_000, ("n1", (0,)), uid="g2"), release(6_000, uid="g2"), Cut(at_ms=9_000))
    assert books.money() == {
        "spend:lab:vision:in-quota": 2_000_000,
        "revenue:old": -2_000_000,
        "spend:speech:speech:in-quota": 2_000_000,
        "revenue:new": -2_000_000,
    }
    assert [books.meter.pricing.model_of("n1", "gpu-0", at_ms) for at_ms in (0, 3_999, 4_000)] == ["old", "old", "new"]
    assert books.meter.pricing.model_of("n1", "gpu-7", 0) == ""


def test_a_price_that_changes_within_a_hold_leaves_its_estimated_end_as_wide_as_it_is_and_makes_no_other() -> None:
    prices = (price("inQuota=3.60", None, 3_000), price("inQuota=7.20", 3_000, 5_000))
    books = PricedBooks().take(*FLEET, priced(*prices), hold(2_000, ("n1", (0,))), release(6_000, estimated_ms=70))
    held = [(s.entry.from_ms, s.entry.to_ms, s.entry.estimated_ms) for s in books.sealed if s.entry.gang]
    assert held == [(2_000, 3_000, 0), (3_000, 5_000, 0), (5_000, 6_000, 70)]
    assert books.money()["spend:lab:vision:in-quota"] == 5_000_000


def test_a_late_price_of_a_time_that_was_taken_back_since_corrects_it_by_nothing() -> None:
    books = PricedBooks().take(*FLEET, priced(price("inQuota=3.60")), hold(1_000, ("n1", (0,))), Cut(at_ms=9_000))
    books.take(NodeSeen(node=node(not_ready_since_ms=4_000), at_ms=9_500), Cut(at_ms=10_000))
    assert books.money()["spend:lab:vision:in-quota"] == 3_000_000
    books.take(priced(price("inQuota=36"), at_ms=11_000))
    assert books.money()["spend:lab:vision:in-quota"] == 30_000_000
    change = books.sealed[-1].entry
    assert (change.kind, change.from_ms, change.to_ms) == (EntryKind.ADJUSTMENT, 1_000, 9_000)


def test_prices_that_change_for_a_part_of_a_time_correct_that_part() -> None:
    """All of them reach further than what was held: in the middle, from before it, and beyond it."""
    for change, worth in (
        ((None, 3_000), 9 * 2_000_000 + 3_000_000),
        ((4_000, None), 9 * 2_000_000 + 3_000_000),
        ((2_000, 5_000), 9 * 3_000_000 + 2_000_000),
        ((6_000, None), 5_000_000),
        ((None, 1_000), 5_000_000),
    ):
        books = PricedBooks().take(*FLEET, priced(price("inQuota=3.60")), hold(1_000, ("n1", (0,))))
        begin, end = change
        prices = [price("inQuota=32.40", begin, end)]
        prices += [price("inQuota=3.60", None, begin)] if begin is not None else []
        prices += [price("inQuota=3.60", end, None)] if end is not None else []
        books.take(Cut(at_ms=3_500), release(6_000), Cut(at_ms=8_000), priced(*prices, at_ms=9_000))
        assert books.money()["spend:lab:vision:in-quota"] == worth, change
        last = books.sealed[-1].entry
        corrected = max(begin or 0, 1_000), min(end or 9_000, 6_000)
        assert (last.kind is EntryKind.ADJUSTMENT) == (corrected[0] < corrected[1]), change
        assert last.kind is not EntryKind.ADJUSTMENT or (last.from_ms, last.to_ms) == corrected


def test_a_late_price_corrects_all_that_was_posted_before_it_and_nothing_after() -> None:
    books = Books().take(*FLEET, hold(0, ("n1", (0,))), Cut(at_ms=5_000), priced(price("inQuota=3.60"), at_ms=6_000))
    (late,) = books.meter.pricing.late
    assert late.up_to == len(books.sealed) == books.sealed[-1].number
    assert (late.from_ms, late.to_ms) == (None, None)


@pytest.mark.parametrize(("text", "most"), [("r", REASON_MAX), ("n", NOTE_MAX)])
def test_a_reason_and_a_note_are_as_long_as_they_may_be_and_no_longer(text: str, most: int) -> None:
    assert most == {"r": 64, "n": 1_024}[text], "what docs/reference/ledger.md says"
    assert said(f"  {text * most} ", most, field="--x") == text * most
    with pytest.raises(UnreadableInput, match=f"--x: must be 1 to {most} characters"):
        said(text * (most + 1), most, field="--x")


# Names.


def test_a_gang_that_is_described_again_keeps_the_queue_that_it_began_in() -> None:
    books = Books().take(*FLEET, hold(0, ("n1", (0,))), GangSeen(gang=gang("g1", "speech"), at_ms=1_000))
    books.take(attempt(2, hold(2_000, ("n1", (1,)))), Cut(at_ms=3_000))
    found = books.gpu_ms()
    assert (found[HELD], found["held:speech:speech:in-quota"]) == (3_000, 1_000)


def test_who_was_refused_has_the_name_it_was_refused_by_until_it_is_described() -> None:
    def refused(uid: str, queue: str) -> GangRefused:
        why = refuse(Reason.PLACE_CONFLICT, detail="x")
        return GangRefused(gang=uid, namespace="ns", name="odd", queue=queue, refusal=why, at_ms=0)

    books = Books().take(*FLEET, refused("g7", "vision"), refused("g7", "lab"), refused("g1", "speech"))
    books.take(hold(0, ("n1", (0,)), uid="g7"), hold(0, ("n1", (1,))), Cut(at_ms=1_000))
    assert books.gpu_ms()[HELD] == 2_000
    assert {s.entry.gang: s.entry.name for s in books.sealed if s.entry.gang} == {"g7": "odd", "g1": "job-g1"}


def test_a_node_of_no_pool_takes_its_devices_out_of_what_is_ours_and_holds_with_them_stay() -> None:
    books = Books().take(*FLEET, hold(0, ("n1", (0,))), NodeSeen(node=node(pool=""), at_ms=1_000), Cut(at_ms=3_000))
    found = books.gpu_ms()
    assert (found[HELD], found["unmanaged:-"], found["free:main"]) == (3_000, 3 * 2_000, 3_000)
    assert spans(books, HELD) == [(0, 1_000), (1_000, 3_000)], "each of a pool of its own"
    assert {s.entry.kind for s in books.sealed} == {EntryKind.SEGMENT}


# What was written once.


def story() -> list[Any]:
    """Facts that make an entry of every kind."""
    return [
        engine(0, meter=1),
        *FLEET,
        priced(price("inQuota=3.60 reservedIdle=1.80")),
        rule(500, "gpu-3", name="reservation/exam"),
        hold(1_000, ("n1", (0, 1)), ("n1", (2,), 250)),
        DevicesCounted(name="n1", from_ms=1_000, busy=(("gpu-0", 250), ("gpu-2", 900)), at_ms=5_000),
        Cut(at_ms=6_000),
        release(7_000, estimated_ms=40),
        stop(8_000, by="g2", safe_ms=2_000),
        NodeSeen(node=node(not_ready_since_ms=4_000), at_ms=8_500),
        Cut(at_ms=9_000),
        priced(price("inQuota=7.20"), at_ms=9_500),
        NodeGone(name="n1", at_ms=10_000),
    ]


def test_entries_of_every_kind_have_the_bytes_that_they_always_had() -> None:
    """Whoever holds a head that was published once must be able to check the books of then with the code of today."""
    assert PricedBooks().take(*story()).audit().verified
    folded, made = Meter("c"), list[Entry]()
    for number, fact in enumerate(story()):
        made += folded.apply(fact, f"fact {number}").entries
        for late in folded.pricing.late:
            made += folded.apply(folded.pricing.correction(late, made[: late.up_to]), f"late {number}").entries
    assert {entry.kind for entry in made} == set(EntryKind)
    assert len(made) == 47
    assert seal(Head(), made)[1].hash == "38e69172fd5a4f8619c09e5ff60e0116763e7cce081328f3218278e0b77eeda4"


def test_an_entry_that_lost_its_lines_is_of_no_account() -> None:
    entry = Books().take(*FLEET, Cut(at_ms=1_000)).sealed[0].entry
    accounts = [dataclasses.replace(entry, postings=entry.postings[:lines]).account for lines in (2, 1, 0)]
    assert accounts == ["free:main", "", ""]
