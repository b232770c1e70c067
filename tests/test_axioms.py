"""What a fair division promises: the axioms where they hold exactly, and what holds where they do not."""

from __future__ import annotations

import math
from typing import Any

import builders
import pytest
import quota_words
from builders import Stage, tell
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.model import events as ev
from fairlead.model.effects import Phase, Stop
from fairlead.model.reasons import Reason
from fairlead.ordering.fair_share import Claim, divide, entitlements, gpu_entitlements
from fairlead.ordering.queue_tree import QueueTree
from fairlead.ordering.standing import Standing
from fairlead.placement.feasible import Feasibility
from fairlead.placement.placer import Placer
from fairlead.world.overlay import Overlay

EXACT = math.lcm(*range(1, 55))
"""Amounts in multiples of this divide without a rest by every sum of up to six weights up to nine."""
CLAIMS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), min_size=1, max_size=6)
LOOKS = settings(max_examples=200, deadline=None, derandomize=True)
FEW = settings(max_examples=25, deadline=None, derandomize=True)


def shares(amount: int, pairs: list[tuple[int, int]]) -> list[int]:
    """Divide among (demand, weight): one level, one kind of device, no guarantees, no limits, divisible."""
    return divide(amount * EXACT, [Claim(0, demand * EXACT, weight) for demand, weight in pairs])


# --- where the axioms hold exactly ------------------------------------------------------------------------------------


@given(st.integers(0, 200), CLAIMS)
@LOOKS
def test_sharing_incentive_nobody_is_worse_off_than_with_a_partition_by_weight(amount, pairs) -> None:
    weights = sum(weight for _, weight in pairs)
    for share, (demand, weight) in zip(shares(amount, pairs), pairs, strict=True):
        assert share * weights >= min(demand * EXACT * weights, amount * EXACT * weight)


@given(st.integers(0, 200), CLAIMS)
@LOOKS
def test_pareto_efficiency_nothing_is_left_that_anybody_wants(amount, pairs) -> None:
    found = shares(amount, pairs)
    assert sum(found) == EXACT * min(amount, sum(demand for demand, _ in pairs))
    assert all(share <= demand * EXACT for share, (demand, _) in zip(found, pairs, strict=True))


@given(st.integers(0, 200), CLAIMS, st.integers(0, 5), st.integers(0, 120))
@LOOKS
def test_strategy_proofness_no_other_demand_than_the_true_one_gives_more_of_use(amount, pairs, who, said) -> None:
    who %= len(pairs)
    true = pairs[who][0]
    lying = [*pairs[:who], (said, pairs[who][1]), *pairs[who + 1 :]]
    assert min(shares(amount, lying)[who], true * EXACT) <= shares(amount, pairs)[who]


@given(st.integers(0, 200), CLAIMS)
@LOOKS
def test_no_envy_nobody_would_rather_have_anothers_share_by_weight(amount, pairs) -> None:
    found = shares(amount, pairs)
    for mine, (demand, weight) in zip(found, pairs, strict=True):
        for theirs, (_, other) in zip(found, pairs, strict=True):
            assert mine * other >= min(demand * EXACT * other, theirs * weight)


def test_the_published_hierarchical_shares_are_met() -> None:
    """Gavel's hierarchical example: 9 GPUs, three entities of weights 1:2:3 with six one-GPU jobs each."""
    sixths = 6
    queues = {f"e{i}": builders.queue(f"e{i}", f"weight={i}") for i in (1, 2, 3)}
    jobs = {
        f"e{i}-{n}": builders.queue(f"e{i}-{n}", f"parent=e{i} weight={1 + n % 2}") for i in (1, 2, 3) for n in range(6)
    }
    found = entitlements(9 * sixths, queues | jobs, dict.fromkeys(jobs, sixths))
    by_entity = {i: sorted({found[name] for name in jobs if name.startswith(f"e{i}-")}) for i in (1, 2, 3)}
    assert by_entity == {1: [1, 2], 2: [2, 4], 3: [3, 6]}, "1/6, 1/3 | 1/3, 2/3 | 1/2, 1"


# --- what is given up, and where --------------------------------------------------------------------------------------


def whole(capacity: int, queues: dict[str, str], demand: dict[str, int], policy: str, held: dict[str, int]) -> Any:
    policies = {"default": quota_words.policy("default", policy)} if policy else {}
    tree = QueueTree({name: builders.queue(name, text) for name, text in queues.items()}, policies)
    found = gpu_entitlements(
        tree, 1000 * capacity, {n: 1000 * d for n, d in demand.items()}, {n: 1000 * h for n, h in held.items()}
    )
    return {name: found.get(name, 0) // 1000 for name in queues}


GIVEN_UP: dict[str, Any] = {
    "guarantees: b has no part and envies a": (
        {"a": "guaranteed=8", "b": ""}, {"a": 8, "b": 8}, "", {}, {"a": 8, "b": 0},
    ),
    "limits: three GPUs are idle that a wants": (
        {"a": "limit=2", "b": ""}, {"a": 8, "b": 3}, "", {}, {"a": 2, "b": 3},
    ),
    "lend limits: six GPUs are idle that b wants": (
        {"a": "guaranteed=6 lend=0", "b": ""}, {"a": 0, "b": 8}, "", {}, {"a": 0, "b": 2},
    ),
    "hierarchy: a envies c, who is nobody's sibling": (
        {"org": "", "a": "parent=org", "b": "parent=org", "c": ""}, {"a": 8, "b": 8, "c": 8}, "", {},
        {"org": 0, "a": 2, "b": 2, "c": 4},
    ),
    "slo: b envies a": ({"a": "need=6", "b": ""}, {"a": 8, "b": 8}, "slo", {}, {"a": 7, "b": 1}),
    "work-conserving: b came late": (
        {"a": "", "b": ""}, {"a": 8, "b": 8}, "work-conserving", {"a": 8}, {"a": 8, "b": 0},
    ),
    "equal: weights buy nothing": ({"a": "weight=3", "b": ""}, {"a": 8, "b": 8}, "equal", {}, {"a": 4, "b": 4}),
}  # fmt: skip


@pytest.mark.parametrize(("queues", "demand", "policy", "held", "expected"), GIVEN_UP.values(), ids=GIVEN_UP)
def test_where_an_axiom_is_given_up_there_is_a_case(queues, demand, policy, held, expected) -> None:
    assert whole(8, queues, demand, policy, held) == expected


def test_whole_gpus_are_not_strategy_proof_by_less_than_one_gpu() -> None:
    """The odd GPUs go to the first names; who says that he wants a part of one has the division made finer."""
    queues = {name: builders.queue(name) for name in ("a", "b", "c")}
    assert entitlements(8000, queues, dict.fromkeys(queues, 8000))["c"] == 2000
    assert entitlements(8000, queues, {"a": 8000, "b": 8000, "c": 7999})["c"] == 2666


def test_gangs_leave_idle_what_no_gang_fits_into() -> None:
    stage = Stage([builders.node("n1", "8")], [builders.queue("a"), builders.queue("b")])
    for name, queue in (("a1", "a"), ("b1", "b"), ("a2", "a")):
        stage.submit(name, f"1x3 queue={queue}")
    assert [tell(effect) for effect in stage.settle()] == ["place a1 on n1", "place b1 on n1"]


# --- what is promised of gangs on nodes -------------------------------------------------------------------------------


def played(stage: Stage, rounds: int = 12) -> int:
    """Let everything run that is placed, and let go who is stopped, until nothing moves; returns the rounds."""
    for at in range(rounds):
        effects = stage.settle()
        for effect in effects:
            if isinstance(effect, Stop):
                stage.release(effect.gang)
        for name, record in stage.state.gangs.items():
            if record.current is not None and record.current.bound_ms is None and record.current.stop is None:
                stage.run(name)
        if not effects:
            return at
    raise AssertionError("it never comes to rest")


def used(stage: Stage) -> dict[str, int]:
    return {view.name: view.used_gpus for view in stage.engine.queue_views()}


def entitled(stage: Stage) -> dict[str, int]:
    return {view.name: view.entitled_gpus for view in stage.engine.queue_views()}


@given(st.lists(st.integers(0, 3), min_size=2, max_size=4), st.data())
@FEW
def test_a_nobody_is_held_below_his_guarantee_longer_than_one_round_of_stops(guarantees, data) -> None:
    """(a): the room is made in the first decision after the gang came; it waits for nothing but the victims' end."""
    nodes = 2 + sum(guarantees)
    queues = {f"q{i}": f"guaranteed={8 * g}" for i, g in enumerate(guarantees)} | {"spare": ""}
    stage = Stage(
        [builders.node(f"n{i:02}", "8") for i in range(nodes)], [builders.queue(n, t) for n, t in queues.items()]
    )
    for i in range(8 * nodes):
        stage.submit(f"s{i}", "1x1 queue=spare")
    played(stage)
    for i, guaranteed in enumerate(guarantees):
        for n in range(guaranteed):
            size = data.draw(st.sampled_from(["1x8", "2x4", "1x4"]))
            stage.submit(f"g{i}-{n}", f"{size} queue=q{i} within=node")
    first = stage.settle()
    stopped = [effect for effect in first if isinstance(effect, Stop)]
    for effect in stopped:
        stage.release(effect.gang)
    stage.settle()
    waiting = [name for name, record in stage.state.gangs.items() if name.startswith("g") and record.current is None]
    assert waiting == [], "everybody within his guarantee runs after one round of stops"


@given(st.lists(st.tuples(st.sampled_from([1, 2, 4]), st.integers(1, 24), st.integers(1, 3)), min_size=2, max_size=4))
@FEW
def test_b_what_a_queue_holds_is_within_one_largest_gang_of_its_entitlement(rows) -> None:
    queues = [builders.queue(f"q{i}", f"weight={weight}") for i, (_, _, weight) in enumerate(rows)]
    stage = Stage([builders.node(f"n{i}", "8") for i in range(4)], queues)
    for i, (size, count, _) in enumerate(rows):
        for n in range(count):
            stage.submit(f"g{i}-{n}", f"1x{size} queue=q{i}")
        played(stage)
    largest = max(size for size, _, _ in rows)
    holds, may = used(stage), entitled(stage)
    for name, gpus in holds.items():
        assert abs(gpus - may[name]) <= largest, (rows, holds, may)


NAMED = {
    Reason.QUEUE_AT_LIMIT, Reason.BORROW_LIMIT, Reason.NOT_LENT, Reason.ABOVE_LIMIT, Reason.WAITING_FOR_VICTIMS,
}  # fmt: skip
"""Rules by which something placeable is left idle."""


@given(
    st.lists(
        st.tuples(st.integers(0, 8), st.integers(0, 12), st.integers(-1, 6), st.integers(-1, 6), st.integers(1, 6)),
        min_size=2,
        max_size=4,
    )
)
@FEW
def test_c_nothing_placeable_is_left_idle_except_by_a_named_rule(rows) -> None:
    queues = []
    for i, (guaranteed, limit, lend, borrow, _) in enumerate(rows):
        words = [f"guaranteed={guaranteed}", f"limit={max(guaranteed, limit)}"]
        words += [f"lend={min(lend, guaranteed)}"] if lend >= 0 else []
        words += [f"borrow={borrow}"] if borrow >= 0 else []
        queues.append(builders.queue(f"q{i}", " ".join(words)))
    stage = Stage([builders.node(f"n{i}", "8") for i in range(2)], queues)
    for i, row in enumerate(rows):
        for n in range(row[4]):
            stage.submit(f"g{i}-{n}", f"1x{1 + (n + i) % 4} queue=q{i} fixed")
    stage.settle()
    world = stage.engine.world(stage.now_ms)
    placer = Placer(Overlay(world), Feasibility(world.inventory, world.pools))
    for waiting in world.waiting:
        mark = placer.overlay.checkpoint()
        if placer.place(waiting.gang).placement is not None:
            refusal = stage.view(waiting.gang.name).refusal
            assert refusal is not None
            assert refusal.reason in NAMED, refusal.message
        placer.overlay.roll_back(mark)


def average_share(jobs: list[str], *, early: int, half_lives: int = 10) -> float:
    """GPUs that queue a holds on average, against b's steady gangs of four, on eight GPUs over so many half-lives."""
    stage = Stage([builders.node("n1", "8")], [builders.queue("a"), builders.queue("b")])
    stage.take(ev.PolicySeen(policy=quota_words.policy("default", "weighted halflife=4h"), at_ms=stage.now_ms))
    hour, held, ends = 3_600_000, 0, dict[str, int]()
    count = {"a": 0, "b": 0}
    for step in range(4 * half_lives):
        for queue, texts in (("a", jobs), ("b", ["1x4"])):
            backlog = sum(r.queue == queue and r.phase is Phase.PENDING for r in stage.state.gangs.values())
            while backlog < (early if queue == "a" else 2):
                for text in texts:
                    count[queue] += 1
                    stage.submit(f"{queue}{count[queue]}", f"{text} queue={queue} fixed")
                    backlog += 1
        stage.settle()
        for name, record in list(stage.state.gangs.items()):
            if record.current is not None and name not in ends:
                stage.run(name)
                ends[name] = step + 1 + (1 if name.startswith("b") else int(name[1:]) % 2)
        held += used(stage)["a"]
        stage.now_ms += hour
        for name in [name for name, at in ends.items() if at <= step + 1]:
            del ends[name]
            for rank in range(len(stage.attempt(name).placement.members)):
                stage.end(name, rank)
            stage.settle()
            stage.release(name)
    return held / (4 * half_lives)


def test_d_splitting_padding_or_submitting_early_wins_no_more_than_one_gang() -> None:
    honest = average_share(["1x4"], early=1)
    for tried in (
        average_share(["1x1"] * 4, early=4),
        average_share(["1x1"] * 16, early=64),
        average_share(["1x4"], early=40),
    ):
        assert abs(tried - honest) <= 4, (honest, tried)


# --- a great many queues ----------------------------------------------------------------------------------------------


def test_ten_thousand_queues_twelve_deep_are_divided_and_only_those_that_want_something_are_looked_at() -> None:
    queues = {}
    for i in range(10_000):
        parent = f"q{(i - 1) // 2}" if i and i % 12 else (f"q{i - 1}" if i else "")
        queues[f"q{i}"] = builders.queue(
            f"q{i}", f"parent={parent} weight={1 + i % 5} guaranteed={i % 3}" if parent else ""
        )
    tree = QueueTree(queues)
    place = Standing(80_000_000, tree, {f"q{i}": 1000 for i in range(0, 10_000, 500)}, [("q9999", 8000)])
    assert sum(place.entitled.values()) == 28_000
    assert len(tree.active(["q9999"]).upward) == len(tree.chains["q9999"])
    everybody = gpu_entitlements(tree, 20_000_000, dict.fromkeys(queues, 4000))
    assert sum(everybody.values()) == 20_000_000
