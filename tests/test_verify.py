"""`verify` must see every planted bug: a good plan is spoilt in one way each, and the way must be named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import builders
import pytest
from builders import T0, Stage

from fairlead.model import events as ev
from fairlead.model.effects import Effect, Nominate, Place, Stop
from fairlead.model.gang import GangId, Member
from fairlead.model.hardware import NodeName
from fairlead.model.reasons import Reason, refuse
from fairlead.planning.decide import decide
from fairlead.planning.plan import Plan
from fairlead.planning.verify import violations
from fairlead.world.snapshot import World

NODES = {
    "n1": "8 rack=r1 unhealthy=7",
    "n2": "8 rack=r1 cpu=8 ext=example.com/nic:1",
    "n3": "8 rack=r2 label=zone:east",
    "n4": "8 rack=r2 cordoned",
    "n5": "8 rack=r2 notready",
    "n6": "8 rack=r3 taint=keep:off",
    "n7": "8 rack=r3 model=A100 memory=40",
    "n8": "8 rack=r3 pool=",
    "n9": "8 rack=r4",
}
QUEUES = {"team": "limit=24", "low": "parent=root", "root": "limit=40", "strict": "ns=nobody"}
SpoilPlace = Callable[[Place], Place]


def a_world(text: str) -> tuple[World, Plan]:
    stage = Stage(
        [builders.node(name, node) for name, node in NODES.items()],
        [builders.queue(name, queue) for name, queue in QUEUES.items()],
    )
    stage.take(ev.ForeignDevices(name=NodeName("n3"), devices=("gpu-5",), at_ms=T0))
    stage.take(ev.NodeUsed(name=NodeName("n1"), taken=replace(stage.state.nodes["n1"].allocatable, cpu_milli=0,
               memory_bytes=0, ephemeral_bytes=0, pods=1), host_ports=(("TCP", "0.0.0.0", 80),), at_ms=T0))  # fmt: skip
    stage.submit("a", text)
    world = stage.engine.world(stage.now_ms)
    plan = decide(world)
    assert [type(effect) for effect in plan.effects] == [Place]
    return world, plan


def spoil(plan: Plan, change: SpoilPlace) -> Plan:
    return replace(plan, effects=tuple(change(e) if isinstance(e, Place) else e for e in plan.effects))


def with_member(which: int, **fields: object) -> SpoilPlace:
    def change(effect: Place) -> Place:
        members = list(effect.placement.members)
        members[which] = replace(members[which], **fields)
        return replace(effect, placement=replace(effect.placement, members=tuple(members)))

    return change


def drop_member(effect: Place) -> Place:
    return replace(effect, placement=replace(effect.placement, members=effect.placement.members[:-1]))


def twice_the_member(effect: Place) -> Place:
    members = effect.placement.members
    return replace(
        effect, placement=replace(effect.placement, members=(*members, replace(members[0], rank=len(members))))
    )


def gpus(*numbers: int) -> tuple[str, ...]:
    return tuple(f"gpu-{i}" for i in numbers)


PLANTED = [
    pytest.param("2x2 within=rack", drop_member, "1 of 2 members placed", id="a member is dropped"),
    pytest.param("2x2 within=rack", twice_the_member, "3 of 2 members placed", id="a member is there twice"),
    pytest.param("2x2", with_member(1, rank=5), "ranks are not", id="ranks have a gap"),
    pytest.param("2x2", with_member(1, role="other"), "no such node or role", id="an unknown role"),
    pytest.param("2x2", with_member(1, index=0), "2 of 2 members placed", id="an index is there twice"),
    pytest.param("2x2", with_member(1, devices=gpus(0)), "gets 1 devices", id="a device too few"),
    pytest.param("2x2", with_member(1, devices=gpus(3, 4, 5)), "gets 3 devices", id="a device too many"),
    pytest.param(
        "2x2", with_member(1, node="n3", devices=gpus(0, 0)), "to two members", id="a device twice in a member"
    ),
    pytest.param("1x2", with_member(0, node="n1", devices=gpus(6, 7)), "is not healthy", id="an unhealthy device"),
    pytest.param("1x2", with_member(0, node="n3", devices=gpus(4, 5)), "is not free", id="a device of another client"),
    pytest.param("1x2", with_member(0, devices=("gpu-0", "gpu-99")), "has no device", id="a device that is not there"),
    pytest.param(
        "2x2 within=rack", with_member(1, node="n3", devices=gpus(0, 1)), "asked for one rack", id="two racks"
    ),
    pytest.param("1x2", with_member(0, node="n4"), "takes no pods", id="a cordoned node"),
    pytest.param("1x2", with_member(0, node="n5"), "takes no pods", id="a node that is not ready"),
    pytest.param("1x2", with_member(0, node="n8"), "takes no pods", id="a node outside every pool"),
    pytest.param("1x2", with_member(0, node="n99"), "no such node", id="a node that is not there"),
    pytest.param("1x2", with_member(0, node="n6"), "has the taint keep", id="a taint that is not tolerated"),
    pytest.param("1x2 model=H100", with_member(0, node="n7"), "not of the kind", id="the wrong model"),
    pytest.param("1x2 memory=80", with_member(0, node="n7"), "not of the kind", id="too little memory"),
    pytest.param("1x2 cpu=9", with_member(0, node="n2"), "CPU left", id="not enough CPU"),
    pytest.param("1x2 select=zone:east", with_member(0, node="n9"), "is not selected", id="not the selected node"),
    pytest.param("1x2 port=80", with_member(0, node="n1"), "host port 80", id="a host port that is taken"),
    pytest.param("1x2 ext=example.com/nic:1", with_member(0, node="n9"), "example.com/nic", id="no extended resource"),
    pytest.param("1x2", lambda e: replace(e, attempt=7), "attempt 7 after 0", id="the wrong attempt"),
    pytest.param("1x2", lambda e: replace(e, gang=GangId("ghost")), "placed without waiting", id="nobody waits for it"),
]


@pytest.mark.parametrize(("text", "change", "said"), PLANTED)
def test_a_planted_bug_in_a_placement_is_named(text: str, change: SpoilPlace, said: str) -> None:
    world, plan = a_world(text)
    assert violations(plan, world) == []
    found = violations(spoil(plan, change), world)
    assert any(said in violation.text for violation in found), found
    assert {violation.effect for violation in found} == {0}


def test_a_plan_on_another_world_is_refused_whole() -> None:
    world, plan = a_world("1x2")
    found = violations(replace(plan, version=plan.version - 1), world)
    assert len(found) == len(plan.effects)


def test_two_gangs_with_one_device_are_seen_across_effects() -> None:
    stage = Stage([builders.node("n1", "2"), builders.node("n2", "2")], [builders.queue("team")])
    stage.submit("a", "1x2")
    stage.submit("b", "1x2")
    world = stage.engine.world(stage.now_ms)
    plan = decide(world)
    first, second = plan.effects
    stolen = replace(second, placement=first.placement)
    found = violations(replace(plan, effects=(first, stolen)), world)
    assert found
    assert all(v.effect == 1 and "is not free" in v.text for v in found)


def test_a_gang_placed_twice_in_one_plan_is_seen() -> None:
    stage = Stage([builders.node("n1", "2"), builders.node("n2", "2")], [builders.queue("team")])
    stage.submit("a", "1x2")
    world = stage.engine.world(stage.now_ms)
    (effect,) = decide(world).effects
    other = with_member(0, node="n2" if effect.placement.members[0].node == "n1" else "n1")(effect)
    found = violations(Plan(version=world.version, effects=(effect, other)), world)
    assert any("placed twice" in violation.text for violation in found)


@pytest.mark.parametrize(
    ("queues", "said"),
    [
        ({"team": "limit=1"}, "queue team would hold 2 GPUs, its limit is 1"),
        ({"team": "parent=org", "org": "limit=1"}, "queue org would hold 2 GPUs, its limit is 1"),
        ({"team": "ns=other"}, "may not use queue team"),
        ({}, "may not use queue team"),
    ],
)
def test_a_placement_without_the_right_is_seen(queues: dict[str, str], said: str) -> None:
    free = Stage([builders.node("n1", "2")], [builders.queue("team")])
    free.submit("a", "1x2")
    (effect,) = decide(free.engine.world(free.now_ms)).effects
    bound = Stage([builders.node("n1", "2")], [builders.queue(name, text) for name, text in queues.items()])
    bound.submit("a", "1x2")
    world = bound.engine.world(bound.now_ms)
    found = violations(Plan(version=world.version, effects=(effect,)), world)
    assert [violation.text.partition(": ")[2] for violation in found] == [said]


# --- taking ----------------------------------------------------------------------------------------------------


def a_taking(victim: str, taker: str, queues: dict[str, str]) -> tuple[World, list[Effect]]:
    """A full node, somebody who asks, and a plan that takes the node whatever anybody's rights are."""
    stage = Stage([builders.node("n1", "8")], [builders.queue(name, text) for name, text in queues.items()])
    stage.submit("victim", victim)
    (placed,) = stage.settle()
    stage.run("victim")
    spec = stage.submit("taker", taker)
    world = stage.engine.world(stage.now_ms)
    own = stage.specs["victim"].queue == spec.queue
    cause = refuse(Reason.PREEMPTED) if own else refuse(Reason.RECLAIMED, gpus=8)
    nominate = Nominate(
        gang=spec.id, placement=placed.placement, victims=((GangId("victim"), 1),), until_ms=stage.now_ms + 1
    )
    stop = Stop(gang=GangId("victim"), attempt=1, cause=cause, requeue=True, by=spec.id)
    return world, [nominate, stop]


def texts(world: World, effects: list[Effect]) -> list[str]:
    return [v.text for v in violations(Plan(version=world.version, effects=tuple(effects)), world)]


@pytest.mark.parametrize(
    ("victim", "taker", "queues", "said"),
    [
        pytest.param("1x8", "1x8 priority=1", {"team": ""}, "", id="priority in one queue is right"),
        pytest.param("1x8", "1x8", {"team": ""}, "no higher priority", id="equal priority"),
        pytest.param("1x8 fixed", "1x8 priority=1", {"team": ""}, "although it may not be", id="not preemptible"),
        pytest.param("1x8 queue=b", "1x8 queue=a", {"a": "guaranteed=8", "b": ""}, "", id="reclaim is right"),
        pytest.param(
            "1x8 queue=b",
            "1x8 queue=a",
            {"a": "guaranteed=8", "b": "guaranteed=1"},
            "below the guarantee of b",
            id="below a guarantee",
        ),
        pytest.param(
            "1x8 queue=b",
            "1x8 queue=a",
            {"a": "guaranteed=8", "b": "parent=org", "org": "guaranteed=8"},
            "below the guarantee of org",
            id="below a parent's guarantee",
        ),
        pytest.param(
            "1x8 queue=b", "1x8 queue=a priority=9", {"a": "", "b": ""}, "above its entitlement", id="above entitlement"
        ),
        pytest.param(
            "1x8 queue=b", "1x8 queue=a", {"a": "", "b": "guaranteed=8"}, "has borrowed nothing", id="nothing borrowed"
        ),
    ],
)
def test_who_may_take_from_whom(victim: str, taker: str, queues: dict[str, str], said: str) -> None:
    world, effects = a_taking(victim, taker, queues)
    found = texts(world, effects)
    assert any(said in text for text in found) if said else found == []


def test_priority_across_queues_is_seen_even_where_reclaim_would_be_right() -> None:
    world, (nominate, stop) = a_taking("1x8 queue=b", "1x8 queue=a priority=9", {"a": "guaranteed=8", "b": ""})
    found = texts(world, [nominate, replace(stop, cause=refuse(Reason.PREEMPTED))])
    assert found == ["b/victim: Preempted across queues"]


LAB = {"lab": "scope=subtree", "a": "parent=lab", "b": "parent=lab", "c": ""}


@pytest.mark.parametrize(
    ("victim", "taker", "queues", "reason", "said"),
    [
        pytest.param("1x8 queue=b", "1x8 queue=a priority=1", {}, Reason.PREEMPTED, "", id="priority is right"),
        pytest.param("1x8 queue=b", "1x8 queue=a", {}, Reason.PREEMPTED, "no higher priority", id="equal priority"),
        pytest.param(
            "1x8 queue=b", "1x8 queue=c priority=1", {}, Reason.PREEMPTED, "no scope of priority joins", id="outside"
        ),
        pytest.param(
            "1x8 queue=b",
            "1x8 queue=a priority=1",
            {"b": "parent=lab guaranteed=1"},
            Reason.PREEMPTED,
            "by priority below the guarantee of b",
            id="below a guarantee",
        ),
        pytest.param(
            "1x8 queue=b cpu=2",
            "1x8 queue=a priority=1",
            {"b": "parent=lab cpu.guaranteed=1"},
            Reason.PREEMPTED,
            "by priority below the guarantee of b",
            id="below a guarantee of CPUs",
        ),
        pytest.param("1x8 queue=b", "1x4 queue=a", {}, Reason.RECLAIMED, "borrowed nothing", id="no reclaim inside"),
        pytest.param(
            "1x8 queue=b", "1x4 queue=a", {"a": "parent=lab guaranteed=4"}, Reason.RECLAIMED, "", id="what is due"
        ),
        pytest.param("1x8 queue=b", "1x4 queue=c", {}, Reason.RECLAIMED, "", id="from outside by entitlement"),
    ],
)
def test_who_may_take_from_whom_in_a_scope(victim, taker, queues, reason, said) -> None:
    world, (nominate, stop) = a_taking(victim, taker, LAB | queues)
    placement = replace(nominate.placement, members=nominate.placement.members)
    if taker.startswith("1x4"):
        member = replace(placement.members[0], devices=placement.members[0].devices[:4])
        placement = replace(placement, members=(member,))
    effects = [replace(nominate, placement=placement), replace(stop, cause=refuse(reason, gpus=8))]
    found = texts(world, effects)
    assert any(said in text for text in found) if said else found == []


def test_reclaim_inside_a_queue_is_seen() -> None:
    world, (nominate, stop) = a_taking("1x8", "1x8 priority=9", {"team": ""})
    found = texts(world, [nominate, replace(stop, cause=refuse(Reason.RECLAIMED, gpus=8))])
    assert found == ["team/victim: Reclaimed inside one queue"]


def test_taking_for_nobody_is_seen() -> None:
    world, (nominate, stop) = a_taking("1x8", "1x8 priority=9", {"team": ""})
    assert texts(world, [stop]) == ["victim: taken for nobody"]
    assert texts(world, [nominate, replace(stop, by="ghost")]) == ["victim: taken for nobody"]
    assert texts(world, [nominate, replace(stop, by="")]) == ["victim: taken for nobody"]
    assert "victim: stopped twice in one plan" in texts(world, [nominate, stop, stop])
    assert texts(world, [nominate, replace(stop, attempt=9)]) == ["victim: stopped without running"]


def test_a_disguised_taking_is_still_judged() -> None:
    """A stop in favour of somebody is judged as one, whatever cause it claims."""
    world, (nominate, stop) = a_taking("1x8 queue=b", "1x8 queue=a", {"a": "", "b": "guaranteed=8"})
    assert texts(world, [nominate, replace(stop, cause=refuse(Reason.NODE_LOST, node="n1"))])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda n: replace(n, victims=()), "no victim frees n1/gpu-0"),
        (lambda n: replace(n, victims=((GangId("ghost"), 1),)), "ghost does not run"),
        (lambda n: replace(n, gang=GangId("ghost")), "does not wait"),
        (lambda n: replace(n, placement=replace(n.placement, members=())), "0 of 1 members placed"),
        (
            lambda n: replace(
                n,
                placement=replace(
                    n.placement,
                    members=(Member(role="worker", index=0, rank=0, node=NodeName("n9"), devices=gpus(*range(8))),),
                ),
            ),
            "which is not there",
        ),
    ],
)
def test_room_that_nobody_frees_is_seen(change: Callable[[Nominate], Nominate], said: str) -> None:
    world, (nominate, _) = a_taking("1x8", "1x8 priority=9", {"team": ""})
    assert texts(world, [nominate]) == []
    assert any(said in text for text in texts(world, [change(nominate)]))


def test_two_victims_of_one_queue_are_counted_together() -> None:
    stage = Stage(
        [builders.node("n1", "4"), builders.node("n2", "4")],
        [builders.queue("a", "guaranteed=4"), builders.queue("b", "guaranteed=4")],
    )
    stage.submit("b1", "1x4 queue=b")
    stage.submit("b2", "1x4 queue=b")
    stage.settle()
    stage.run("b1", "b2")
    stage.submit("taker", "1x4 queue=a")
    world = stage.engine.world(stage.now_ms)
    nominate, stop, *_ = decide(world).effects
    other = GangId({"b1": "b2", "b2": "b1"}[stop.gang])
    greedy = replace(nominate, victims=(*nominate.victims, (other, 1)))
    found = texts(world, [greedy, stop, replace(stop, gang=other)])
    assert any("below the guarantee of b" in text for text in found)


def test_what_is_stopping_already_is_not_there_to_be_taken_from() -> None:
    """Else a queue loses its guarantee to two takers in a row, while the first victim still stops."""
    stage = Stage(
        [builders.node("n1", "8"), builders.node("n2", "8")],
        [builders.queue("a", "guaranteed=4"), builders.queue("b", "guaranteed=8"), builders.queue("c", "guaranteed=4")],
    )
    for name in ("b1", "b2"):
        stage.submit(name, "1x8 queue=b")
    stage.settle()
    stage.run("b1", "b2")
    stage.submit("first", "1x4 queue=a")
    stage.settle()
    spec = stage.submit("second", "1x4 queue=c")
    world = stage.engine.world(stage.now_ms)
    placement = stage.attempt("b2").placement
    member = replace(placement.members[0], devices=placement.members[0].devices[:4])
    nominate = Nominate(
        gang=spec.id, placement=replace(placement, members=(member,)), victims=((GangId("b2"), 1),), until_ms=T0
    )
    stop = Stop(gang=GangId("b2"), attempt=1, cause=refuse(Reason.RECLAIMED, gpus=8), requeue=True, by=spec.id)
    assert any("below the guarantee of b" in text for text in texts(world, [nominate, stop]))


@pytest.mark.parametrize(
    ("budget", "gang", "wrong"),
    [
        ("budget=100", "1x2 queue=kid", True),
        ("budget=100", "1x0 cpu=1 queue=kid", False),
        ("budget=100 said-only", "1x2 queue=kid", False),
        ("", "1x2 queue=kid", False),
    ],
)
def test_who_starts_under_a_hard_budget_while_the_books_are_full_is_named(budget: str, gang: str, wrong: bool) -> None:
    stage = Stage([builders.node("n1", "8")], [builders.queue("org", budget), builders.queue("kid", "parent=org")])
    stage.submit("a", gang)
    plan = decide(stage.engine.world(stage.now_ms))
    assert [type(effect) for effect in plan.effects] == [Place]
    stage.take(ev.BooksFull(is_full=True, at_ms=stage.now_ms))
    world = stage.engine.world(stage.now_ms)
    told = [found.text for found in violations(replace(plan, version=world.version), world)]
    expected = "kid/a: started although nobody knows what is left of the budget of queue org"
    assert told == ([expected] if wrong else [])
