"""What counts at the very moment, what is told in another order than it happened, and how far back anything reaches.

Books are asked what they say, and audited: the auditor reads the same journal with other code.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ledger_books import Books, hold, release
from ledger_facts import NAMED, gang, node, placement
from price_words import PricedBooks, price, priced

from fairlead.errors import UnreadableInput
from fairlead.ledger.adjusting import NOTE_MAX, REASON_MAX, said
from fairlead.ledger.chain import Head, seal
from fairlead.ledger.entry import OUTCOMES, Entry, EntryKind
from fairlead.ledger.meter import Meter
from fairlead.model.codec import Cut
from fairlead.model.events import (
    DevicesCounted,
    GangRefused,
    GangSeen,
    GrowIntended,
    Intended,
    KeptFree,
    MemberRunning,
    NodeGone,
    NodeSeen,
    Recovered,
    Started,
    StopIntended,
)
from fairlead.model.gang import Tier
from fairlead.model.hardware import Gpu, Machine
from fairlead.model.reasons import Reason, refuse
from fairlead.model.rules import Rules

HOUR = 3_600_000
FLEET = (*NAMED, NodeSeen(node=node(), at_ms=0))
HELD = "held:lab:vision:in-quota"
KEPT = "reserved-idle:main"
RESTART = "waste:restart:lab:vision"


def rule(at_ms: int, *kept: str, name: str = "promise/g9", queue: str = "lab") -> KeptFree:
    return KeptFree(keeper=name, queue=queue, devices=(("n1", kept),) if kept else (), at_ms=at_ms)


def engine(at_ms: int, **more: Any) -> Started:
    return Started(rules=Rules(), at_ms=at_ms, **more)


def stop(at_ms: int, reason: Reason = Reason.PREEMPTED, attempt: int = 1, **more: Any) -> StopIntended:
    return StopIntended(gang="g1", attempt=attempt, cause=refuse(reason), requeue=True, at_ms=at_ms, **more)


def attempt(number: int, fact: Intended) -> Intended:
    return dataclasses.replace(fact, attempt=number)


def grow(at_ms: int, *members: tuple[Any, ...], joining: int = 1, slowed: int = 0) -> GrowIntended:
    return GrowIntended(
        gang="g1", attempt=1, placement=placement(*members, slowed=slowed), tier=Tier.IN_QUOTA, joining=joining,
        at_ms=at_ms, deadline_ms=at_ms + 30_000,
    )  # fmt: skip


def found_again(at_ms: int, since_ms: int, holding: tuple[int, ...], *members: tuple[Any, ...]) -> Recovered:
    return Recovered(
        gang="g1", attempt=1, placement=placement(*members), tier=Tier.IN_QUOTA, since_ms=since_ms, bound=True,
        holding=holding, running=(), at_ms=at_ms,
    )  # fmt: skip


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


# Waste.


def test_a_stop_wastes_of_each_member_what_it_did_not_save_since_it_held_anything() -> None:
    """All was booked before the stop is told; one of two on a node joined after the last checkpoint."""
    books = Books().take(*FLEET, hold(1_000, ("n1", (0,))), grow(5_000, ("n1", (0,)), ("n1", (1,))))
    books.take(DevicesCounted(name="n1", from_ms=1_000, busy=(("gpu-0", 1_000), ("gpu-1", 1_000)), at_ms=7_000))
    books.take(Cut(at_ms=8_000), stop(9_000, by="g2", safe_ms=2_000), release(9_000), release(9_000, rank=1))
    found = books.take(Cut(at_ms=10_000)).gpu_ms()
    assert found["waste:preempted:lab:vision"] == 7_000 + 4_000
    assert found["use:lab:vision:used"] == 1_000


def test_a_stop_reaches_no_further_back_on_a_node_than_its_first_hold_there() -> None:
    books = Books().take(*FLEET, NodeSeen(node=node("n2"), at_ms=0), hold(2_000, ("n1", (0,)), ("n2", (0,))))
    books.take(grow(5_000, ("n1", (0,)), ("n2", (0,)), ("n1", (1,))))
    touched = books.meter._attempts.touched
    assert dict(touched("g1", 1, 1_000)) == {"n1": 2_000, "n2": 2_000}
    assert dict(touched("g1", 1, 3_000)) == {"n1": 3_000, "n2": 3_000}
    assert touched("g1", 2, 0) == []


def test_books_that_begin_with_a_stop_know_of_no_time_before_that_is_safe() -> None:
    books = Books().take(stop(9_000, by="g2"), *FLEET, hold(1_000, ("n1", (0,))), release(9_000), Cut(at_ms=10_000))
    found = books.gpu_ms()
    assert found["waste:preempted:lab:vision"] == found[HELD] == 8_000


def test_who_is_named_by_a_growth_before_the_attempt_is_told_is_not_waited_for() -> None:
    again = attempt(2, hold(5_000, ("n1", (0,))))
    grown = dataclasses.replace(grow(6_000, ("n1", (0,)), ("n1", (1,))), attempt=2)
    books = Books().take(*FLEET, hold(0, ("n1", (0,))), stop(1_000, by="g2"), release(2_000), grown, again)
    books.take(MemberRunning(gang="g1", attempt=2, rank=0, at_ms=7_000), Cut(at_ms=9_000))
    assert books.gpu_ms()[RESTART] == 2_000 + 1_000, "rank 1 joins at 6 s and has only rank 0 to wait for"


def test_a_restart_is_over_at_the_moment_that_the_last_member_runs() -> None:
    books = Books().take(*FLEET, hold(0, ("n1", (0,))), stop(1_000, by="g2"), release(2_000))
    books.take(attempt(2, hold(5_000, ("n1", (0,)), ("n1", (1,)))))
    for rank, at_ms in ((0, 6_000), (1, 8_000), (1, 9_000)):
        books.take(MemberRunning(gang="g1", attempt=2, rank=rank, at_ms=at_ms))
    books.take(DevicesCounted(name="n1", from_ms=8_000, busy=(("gpu-0", 500), ("gpu-1", 500)), at_ms=10_000))
    found = books.take(Cut(at_ms=10_000)).gpu_ms()
    assert (found[RESTART], found["use:lab:vision:used"], found["use:lab:vision:idle"]) == (6_000, 2_000, 2_000)


@pytest.mark.parametrize("first", [False, True])
def test_all_run_since_the_earliest_moment_at_which_each_was_said_to(first: bool) -> None:
    told = [MemberRunning(gang="g1", attempt=2, rank=0, at_ms=at_ms) for at_ms in (6_000, 8_000)]
    books = Books().take(*FLEET, hold(0, ("n1", (0,))), stop(1_000, by="g2"), release(2_000))
    books.take(attempt(2, hold(5_000, ("n1", (0,)))), *(told if first else reversed(told)), Cut(at_ms=9_000))
    assert books.gpu_ms()[RESTART] == 1_000


# Windows in which devices were counted.


def test_a_count_is_exact_where_the_hold_lasts_as_long_as_its_window_to_the_moment() -> None:
    def reasons(begin: int, end: int) -> set[str]:
        books = Books().take(*FLEET, hold(begin, ("n1", (0,))), release(end))
        books.take(DevicesCounted(name="n1", from_ms=1_000, busy=(("gpu-0", 250),), at_ms=5_000), Cut(at_ms=9_000))
        assert books.audit().verified
        return {s.entry.reason for s in books.sealed if s.entry.kind in OUTCOMES}

    assert reasons(1_000, 5_000) == {"exact"}
    assert reasons(1_001, 5_000) == {"estimated"}
    assert reasons(1_000, 4_999) == {"estimated"}


def test_of_two_windows_around_a_moment_the_one_told_last_counts() -> None:
    books = Books().take(*FLEET, hold(0, ("n1", (0,))))
    for from_ms, busy, to_ms in ((2_000, 1_000, 6_000), (0, 500, 4_000)):
        books.take(DevicesCounted(name="n1", from_ms=from_ms, busy=(("gpu-0", busy),), at_ms=to_ms))
    found = books.take(Cut(at_ms=8_000)).gpu_ms()
    assert found["use:lab:vision:used"] == 2_000 + 2_000
    assert found["use:lab:vision:idle"] == 2_000


@pytest.mark.parametrize(("longer_ms", "used"), [(0, HOUR), (1, 0)])
def test_a_window_of_an_hour_counts_and_a_longer_one_does_not(longer_ms: int, used: int) -> None:
    books = Books().take(*FLEET, hold(0, ("n1", (0,))))
    books.take(DevicesCounted(name="n1", from_ms=0, busy=(("gpu-0", 1_000),), at_ms=HOUR + longer_ms))
    assert books.take(Cut(at_ms=2 * HOUR)).gpu_ms().get("use:lab:vision:used", 0) == used


def test_a_window_that_came_days_ago_still_says_what_a_late_stop_leaves_of_it() -> None:
    books = Books().take(*FLEET, hold(0, ("n1", (0,))))
    for hour in range(6):
        counted = DevicesCounted(name="n1", from_ms=hour * HOUR, busy=(("gpu-0", 1_000),), at_ms=(hour + 1) * HOUR)
        books.take(counted, Cut(at_ms=(hour + 1) * HOUR))
    books.take(Cut(at_ms=40 * HOUR), stop(41 * HOUR, by="g2", safe_ms=2 * HOUR), Cut(at_ms=42 * HOUR))
    found = books.gpu_ms()
    assert found["use:lab:vision:used"] == 2 * HOUR
    assert found["waste:preempted:lab:vision"] == 40 * HOUR


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
