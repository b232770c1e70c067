"""What the meter keeps of gangs that are long over is small, and it still answers every late fact as it did."""

from __future__ import annotations

import dataclasses
import random
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_books import Books, attempt, hold, release, stop
from ledger_facts import GANGS, NAMED, any_fact, gang, node, slowly
from price_words import price, priced

from fairlead.ledger.ends import End, Ends
from fairlead.ledger.gangs import Gangs
from fairlead.ledger.meter import Meter
from fairlead.ledger.payers import Payers
from fairlead.ledger.snapshot import freeze, thaw
from fairlead.ledger.timeline import HoldKey
from fairlead.model import codec
from fairlead.model.codec import Cut
from fairlead.model.events import GangRefused, GangSeen, NodeSeen, QueueSeen
from fairlead.model.gang import PodShape, Role
from fairlead.model.hardware import Resources
from fairlead.model.reasons import Reason, refuse
from fairlead.model.tenancy import Queue

HOUR = 3_600_000
DAY = 24 * HOUR
CURRENT = NodeSeen(node=node(), at_ms=3 * DAY)
OVER = [*NAMED, NodeSeen(node=node(), at_ms=0), hold(HOUR, ("n1", (0,)), ("n1", (1,)))]
"""A gang of two members, in a price book's time or not."""
FORGOTTEN = [release(2 * HOUR), release(3 * HOUR, 1, estimated_ms=7), CURRENT, Cut(at_ms=3 * DAY)]

numbers = st.one_of(st.integers(0, 3), st.sampled_from([-1, 2**32 - 1, 2**32, 2**63, -(2**63), 2**70]))
holds = st.tuples(st.sampled_from(["g1", "g2"]), numbers, numbers)


def again(meter: Meter) -> Meter:
    return thaw(freeze(meter), meter.cluster)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(["tell", "pack", "restore"]), holds, st.tuples(numbers, numbers))))
def test_packed_ends_are_a_mapping_like_any_other(steps: list[tuple[str, HoldKey, End]]) -> None:
    ends, plain = Ends(), dict[HoldKey, End]()
    for what, key, end in steps:
        match what:
            case "tell":
                ends.tell(key, end)
                plain[key] = end
            case "pack":
                ends.pack([key], str)
            case _:
                saved, ends = ends.saved(), Ends()
                ends.restore(saved, lambda held, key=key: held[0] == key[0], str)
        assert ends.get(key) == plain.get(key)
        assert (key in ends) == (key in plain)
        assert ends.saved() == sorted(plain.items())


def test_a_large_gang_is_packed_and_found_member_by_member() -> None:
    ends, ranks = Ends(), list(range(4_096))
    random.Random(1).shuffle(ranks)
    for rank in ranks:
        ends.tell(("g", 1, rank), (rank, 0))
    ends.pack([("g", 1, rank) for rank in ranks], str)
    assert not ends._recent
    assert len(ends._packed["g"]) == 20 * 4_096
    assert [ends.get(("g", 1, rank)) for rank in range(4_096)] == [(rank, 0) for rank in range(4_096)]
    rows = ends._packed["g"]
    ends.tell(("g", 2, 0), (1, 1))
    assert ends._packed["g"] is rows  # an attempt that goes on does not copy what those before left
    assert ends.get(("g", 1, 4_096)) is ends.get(("g", 0, 7)) is ends.get(("g", 2, 1)) is None


def test_an_end_that_no_row_can_hold_counts_before_the_row_and_after_it() -> None:
    ends, key = Ends(), ("g", 0, 7)
    for at_ms in (5, 2**70, 6):
        ends.tell(key, (at_ms, 0))
        assert ends.get(key) == (at_ms, 0)
        assert ends.saved() == [(key, (at_ms, 0))]
        ends.pack([key], str)
        assert ends.get(key) == (at_ms, 0)
        assert ends.saved() == [(key, (at_ms, 0))]
    assert not ends._recent


facts = st.lists(
    st.one_of(any_fact(), st.integers(0, 400).map(lambda at: Cut(at_ms=at)), st.just(Cut(at_ms=400))), max_size=30
)


@settings(max_examples=150)
@given(facts, st.sampled_from([HOUR, 5 * HOUR]), st.booleans())
def test_a_meter_that_packs_says_what_one_says_that_does_not(stream: list[Any], step_ms: int, broken: bool) -> None:
    """The facts are of weeks, so that most come for what was forgotten, and late ones are moved by days."""
    packs, wide = Meter("c"), Meter("c")
    wide._ends.pack = lambda keys, id_of: None  # type: ignore[method-assign]
    wide._attempts._unmark = lambda key: None  # type: ignore[method-assign]
    for record in [*NAMED, *(slowly(fact, step_ms) for fact in stream), *stream, Cut(at_ms=step_ms * 500)]:
        if broken and isinstance(record, Cut):
            packs = again(packs)
        fact = codec.fact_id(codec.encode(record))
        assert packs.apply(record, fact) == wide.apply(record, fact)
        assert packs.open_holds() == wide.open_holds()
    assert packs.saved() == wide.saved()


@pytest.mark.parametrize("read_back", [False, True])
@pytest.mark.parametrize(
    ("late", "ends"),
    [
        (release(HOUR + 5), [(2 * HOUR, 0), (3 * HOUR, 7)]),  # taken as of two days before the newest
        (release(4 * DAY, 1), [(2 * HOUR, 0), (3 * HOUR, 7)]),
        (hold(HOUR, ("n1", (0,)), ("n1", (1,))), [(2 * HOUR, 0), (3 * HOUR, 7)]),
        (hold(4 * DAY, ("n1", (2,)), ("n1", (3,))), [(2 * HOUR, 0), (3 * HOUR, 7)]),
    ],
)
def test_what_is_told_again_of_a_forgotten_hold_books_nothing(late: Any, ends: list[End], read_back: bool) -> None:
    books = Books().take(*OVER, *FORGOTTEN)
    assert not books.meter._holds
    assert not books.meter._ends._recent
    if read_back:
        books.meter = again(books.meter)
    count = len(books.sealed)
    books.take(late)
    assert [books.meter._ends.get(("g1", 1, rank)) for rank in (0, 1)] == ends
    assert books.meter.is_over(("g1", 1, 0))
    assert books.meter.open_holds() == ()
    assert len(books.sealed) == count
    assert books.take(NodeSeen(node=node(), at_ms=7 * DAY), Cut(at_ms=7 * DAY)).gpu_ms()
    assert not books.meter._ends._recent


def test_an_end_that_comes_before_its_beginning_is_kept_from_the_snapshot_on() -> None:
    books = Books().take(*NAMED, NodeSeen(node=node(), at_ms=0), release(3 * HOUR))
    books.meter = again(books.meter)
    assert books.meter._ends.get(("g1", 1, 0)) == (3 * HOUR, 0)
    books.take(release(2 * HOUR), hold(HOUR, ("n1", (0,))), Cut(at_ms=5 * HOUR))
    assert books.gpu_ms()["held:lab:vision:in-quota"] == HOUR


def test_marks_that_are_none_are_forgotten_with_the_last_book_that_has_them() -> None:
    books = Books().take(*OVER, release(2 * HOUR), release(3 * HOUR, 1), attempt(2, hold(4 * DAY, ("n1", (2,)))))
    books.take(Cut(at_ms=4 * DAY))
    attempts = books.meter._attempts
    assert attempts._marks == {("g1", 1): [], ("g1", 2): []}  # attempt 2 goes on: what stops 1 is its restart
    books.take(stop(4 * DAY + HOUR), Cut(at_ms=4 * DAY + 2 * HOUR))
    assert attempts.book("g1", 2).before is attempts.book("g1", 1).marks
    assert [name for name in books.gpu_ms() if name.startswith("waste:restart")]
    gone = dataclasses.replace(release(5 * DAY), attempt=2)
    books.take(gone, NodeSeen(node=node(), at_ms=9 * DAY), Cut(at_ms=9 * DAY))
    assert len(attempts._marks["g1", 1]) == 1
    assert ("g1", 2) not in attempts._marks


def test_marks_of_an_attempt_that_goes_on_stay_its_own_when_the_next_is_forgotten() -> None:
    later = dataclasses.replace(release(2 * HOUR), attempt=2)
    books = Books().take(*OVER, attempt(2, hold(HOUR, ("n1", (2,)))), later, CURRENT, Cut(at_ms=3 * DAY))
    attempts = books.meter._attempts
    assert list(attempts._books) == [("g1", 1)]
    books.take(stop(3 * DAY + HOUR))
    assert attempts._marks["g1", 1] is attempts.book("g1", 1).marks
    assert len(attempts._marks["g1", 1]) == 1


def test_a_stop_is_known_to_the_next_attempt_though_its_own_is_forgotten() -> None:
    books = Books().take(*OVER, stop(HOUR + 1), *FORGOTTEN)
    assert not books.meter._attempts._books
    books.take(attempt(2, hold(3 * DAY + HOUR, ("n1", (2,)))), Cut(at_ms=3 * DAY + 2 * HOUR))
    assert [name for name in books.gpu_ms() if name.startswith("waste:restart")]


@pytest.mark.parametrize("read_back", [False, True])
def test_a_price_that_comes_late_for_a_forgotten_attempt_is_charged_by_what_it_was(read_back: bool) -> None:
    """By the chain that its queue had then, though it was moved, and the gang with it."""
    books = Books().take(*OVER, *FORGOTTEN, QueueSeen(queue=Queue(name="vision", parent="speech"), at_ms=3 * DAY))
    books.take(GangSeen(gang=gang("g1", "speech"), at_ms=3 * DAY))
    if read_back:
        books.meter = again(books.meter)
    books.take(priced(price("inQuota=2"), at_ms=3 * DAY))
    pricing = books.meter.pricing
    lines = pricing.correction(pricing.late[0], [sealed.entry for sealed in books.sealed]).lines
    assert {(line.tenant, line.queue) for line in lines} == {("lab", "vision")}
    assert sum(line.nanos for line in lines) == 3 * 2 * 10**9


def cut_gang(uid: str, **profiles: str) -> GangSeen:
    shape = PodShape(requests=Resources(pods=1))
    roles = tuple(Role(name=name, replicas=1, gpus=0, mig=mig, pod=shape) for name, mig in profiles.items())
    return GangSeen(gang=dataclasses.replace(gang(uid), roles=roles), at_ms=0)


TREES = [("a", "x"), ("a", "y"), ("b", "x"), ("x", ""), ("x", "y"), ("y", "")]

told = st.one_of(
    st.builds(
        lambda uid, queue, mig: dataclasses.replace(
            cut_gang(uid, worker=mig), gang=dataclasses.replace(cut_gang(uid, worker=mig).gang, queue=queue)
        ),
        st.sampled_from(GANGS), st.sampled_from(["a", "b"]), st.sampled_from(["", "1g.10gb", "2g.20gb"]),
    ),
    st.builds(
        lambda uid, number, members: dataclasses.replace(
            hold(0, *[("n1", (0,))] * members, uid=uid), attempt=number
        ),
        st.sampled_from(GANGS), st.integers(1, 12), st.integers(1, 12),
    ),
    st.builds(lambda names: Queue(name=names[0], parent=names[1]), st.sampled_from(TREES)),
)  # fmt: skip


@settings(max_examples=200)
@given(st.lists(told, max_size=25), st.booleans())
def test_what_prices_go_by_is_what_each_was_first_told_with(stream: list[Any], read_back: bool) -> None:
    payers, queues = Payers(), dict[str, Queue]()
    gangs: dict[str, tuple[str, str]] = {}
    plain: dict[tuple[str, int], tuple[tuple[str, ...], dict[int, str]]] = {}
    for one in stream:
        match one:
            case Queue():
                queues[one.name] = one
            case GangSeen():
                payers.learn(one.gang)
                gangs[one.gang.id] = one.gang.queue, one.gang.roles[0].mig
            case _:
                payers.open(one, queues)
                queue, mig = gangs.get(one.gang, ("", ""))
                chain = (queue,)
                while chain[-1] in queues and queues[chain[-1]].parent in queues:
                    chain = (*chain, queues[chain[-1]].parent)
                known = plain.setdefault((one.gang, one.attempt), (chain, {}))
                for member in one.placement.members if mig else ():
                    known[1].setdefault(member.rank, mig)
        if read_back:
            saved, payers = payers.saved(), Payers()
            payers.restore(*saved, str)
    for (uid, number), (chain, mig) in plain.items():
        payer = payers.of(uid, number)
        assert payer is not None
        assert payer.chain == chain
        assert {rank: payer.profile(rank) for rank in range(-1, 14) if payer.profile(rank)} == mig
    assert payers.saved()[1] == sorted((key, *value) for key, value in plain.items())
    assert payers.of("g1", 13) is payers.of("nobody", 1) is None


def test_a_gang_is_who_it_was_seen_to_be_and_has_one_id() -> None:
    gangs, refusal = Gangs(), refuse(Reason.SUSPENDED)
    gangs.learn(GangRefused(gang="g1", namespace="ns", name="old", queue="q", refusal=refusal, at_ms=0))
    assert (gangs.who("g1").name, gangs.queue_of("g1")) == ("old", "q")
    first = gangs.id_of("g1")
    gangs.learn(dataclasses.replace(cut_gang("g1"), gang=gang("".join(["g", "1"]))))
    gangs.learn(GangRefused(gang="g1", namespace="ns", name="old", queue="q", refusal=refusal, at_ms=0))
    assert (gangs.who("g1").name, gangs.queue_of("g1")) == ("job-g1", "vision")
    assert gangs.id_of("".join(["g", "1"])) is first
    assert (gangs.who("g2").queue, gangs.queue_of("g2"), gangs.id_of("g2")) == ("", "", "g2")


def test_gangs_of_which_the_same_is_known_share_it_and_what_only_one_has_is_not_kept_of_each_step() -> None:
    payers = Payers()
    for number in range(100):
        payers.learn(gang(f"h{number}"))
        payers.open(hold(0, ("n1", (0,)), uid=f"h{number}"), {})
    assert len({id(known) for known in payers._gangs.values()}) == 1
    shared = len(payers._shared)
    for number in range(2, 300):
        payers.open(attempt(number, hold(0, ("n1", (0,)), uid="h0")), {})
    assert len(payers._shared) < shared + 10
    payers.learn(cut_gang("wide", worker="1g.10gb").gang)
    for count in range(1, 300):
        payers.open(hold(0, *[("n1", (0,))] * count, uid="wide"), {})
    assert len(payers._shared) < shared + 30


def live(meter: Meter, first: int, last: int) -> None:
    """Let gangs of two members come and go, one after the other, in six hours each."""
    for number in range(first, last):
        uid, at = f"{number:08x}-0000-4000-8000-000000000000", number * 6 * HOUR
        facts: list[Any] = [
            GangSeen(gang=gang(uid), at_ms=at),
            hold(at, ("n1", (0,)), ("n1", (1,)), uid=uid),
            release(at + HOUR + number, uid=uid),
            release(at + HOUR - number, 1, uid=uid),
        ]
        for fact in facts:
            meter.apply(codec.decode(codec.encode(fact)), f"{number}")
        meter.apply(Cut(at_ms=at + 2 * HOUR), "c")


def test_a_gang_that_is_over_takes_a_few_hundred_bytes() -> None:
    """It took 1.9 kB when each kept its own of all that it has in common with others; what is read back is as small."""
    meter = Meter("c")
    for fact in (*NAMED, NodeSeen(node=node(), at_ms=0)):
        meter.apply(fact, "f")
    tracemalloc.start()
    try:
        live(meter, 0, 200)
        before = tracemalloc.get_traced_memory()[0]
        live(meter, 200, 800)
        grown = tracemalloc.get_traced_memory()[0] - before
        before = tracemalloc.get_traced_memory()[0]
        back = again(meter)
        read = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 600 * 700, grown
    assert read < 800 * 900, read
    assert back.saved() == meter.saved()
