"""Gangs that grow: planted bugs are named, the books take the members that join, and it comes to rest."""

from __future__ import annotations

from dataclasses import replace

import builders
import pytest
from builders import Stage

from fairlead.ledger.meter import Meter
from fairlead.ledger.sweep import Sweep
from fairlead.model import codec
from fairlead.model import events as ev
from fairlead.model.effects import Grow, Shrink
from fairlead.model.gang import GangId, Member, Placement, Tier
from fairlead.model.reasons import Reason, refuse
from fairlead.planning.decide import decide
from fairlead.planning.verify import violations

MINUTE = 60_000


def story(spec: str = "6x1 min=4 elastic", nodes: int = 3, queues: str = "") -> Stage:
    """`wide` runs with four members on n2; what was on n1 ended ten minutes ago, and it is about to grow."""
    names = [builders.node(f"n{at}", "4") for at in range(1, nodes + 1)]
    stage = Stage(names, [builders.queue("team", queues), builders.queue("rest")])
    stage.submit("wide", "4x1 min=4 elastic")
    stage.submit("other", "1x4 queue=rest")
    for at in range(3, nodes + 1):
        stage.submit(f"more{at}", "1x4 queue=rest")
    stage.settle()
    stage.run("wide", "other", *(f"more{at}" for at in range(3, nodes + 1)))
    stage.seen(builders.gang("wide", spec, stage.specs["wide"].submitted_ms))
    stage.end("other", 0)
    stage.settle()
    stage.release("other")
    assert stage.settle() == []
    stage.now_ms += 10 * MINUTE
    return stage


def plan_of(stage: Stage):
    world = stage.engine.world(stage.now_ms)
    return decide(world), world


def complaints(stage: Stage, plant) -> list[str]:
    plan, world = plan_of(stage)
    assert [type(effect) for effect in plan.effects] == [Grow]
    assert violations(plan, world) == []
    return [found.text for found in violations(replace(plan, effects=tuple(map(plant, plan.effects))), world)]


def moved(effect: Grow, **more) -> Grow:
    """The last member is another one."""
    members = effect.placement.members
    placement = replace(effect.placement, members=(*members[:-1], replace(members[-1], **more)))
    return replace(effect, placement=placement)


def one_less(effect: Grow) -> Grow:
    return replace(effect, placement=replace(effect.placement, members=effect.placement.members[:-1]))


@pytest.mark.parametrize(
    ("plant", "says"),
    [
        (lambda e: moved(e, devices=("gpu-0",), node="n2"), "n2/gpu-0 is not free"),
        (lambda e: moved(e, node="n3", devices=("gpu-0",)), "n3/gpu-0 is not free"),
        (lambda e: moved(e, node="n9"), "no such node or role"),
        (lambda e: moved(e, role="boss"), "no such node or role"),
        (lambda e: moved(e, rank=7), "who joins has not the next ranks"),
        (lambda e: moved(e, index=0), "two members of worker have one number"),
        (lambda e: moved(e, devices=()), "has not the devices that it asked for"),
        (lambda e: replace(e, attempt=2), "grows although it does not run"),
        (one_less, "those who are there are not as they were, or nobody joins them"),
    ],
)
def test_a_growth_that_is_not_as_it_should_be_is_named(plant, says) -> None:
    assert any(says in text for text in complaints(story(), plant)), complaints(story(), plant)


def more_than_asked(effect: Grow) -> Grow:
    members = effect.placement.members
    last = members[-1]
    extra = replace(last, rank=last.rank + 1, index=last.index + 1, devices=("gpu-3",))
    return replace(effect, joining=effect.joining + 1, placement=replace(effect.placement, members=(*members, extra)))


def test_more_members_than_were_asked_for_are_named() -> None:
    assert any("7 members of worker, which asked for 6" in text for text in complaints(story(), more_than_asked))


def test_a_growth_over_a_limit_is_named() -> None:
    stage = story(queues="limit=6")
    assert any("limit" in text for text in complaints(stage, more_than_asked))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda s: s.change("wide", resizable=False), "although it may not be resized"),
        (lambda s: s.state.freed_ms.update(n1=s.now_ms - 10 * MINUTE + 1), "where something has just come free"),
        (lambda s: s.submit("big", "2x4 queue=rest"), "which rest/big waits for"),
    ],
)
def test_a_growth_at_the_wrong_time_or_at_somebodys_cost_is_named(spoil, says) -> None:
    """The same growth, in a world in which it must not come."""
    stage = story()
    plan, _ = plan_of(stage)
    spoil(stage)
    if says == "which rest/big waits for":
        stage.settle()
    world = stage.engine.world(stage.now_ms)
    found = [v.text for v in violations(replace(plan, version=world.version), world)]
    assert any(says in text for text in found), found


def test_a_gang_grows_only_after_it_has_left_its_size_alone() -> None:
    stage = story()
    plan, _ = plan_of(stage)
    attempt = stage.attempt("wide")
    attempt.resized_ms = stage.now_ms - 10 * MINUTE + 1
    stage.engine.state.changed[GangId("wide")] = None
    world = stage.engine.world(stage.now_ms)
    found = [v.text for v in violations(replace(plan, version=world.version), world)]
    assert found == ["team/wide: grows too soon after it changed its size"]
    assert decide(world).effects == ()
    assert decide(world).wake_at_ms == stage.now_ms + 1


def test_nobody_who_belongs_to_a_gang_goes_for_nobody() -> None:
    stage = story()
    plan, world = plan_of(stage)
    cause = refuse(Reason.MEMBER_FAILED, member="worker-3", detail="")
    shrink = Shrink(gang=GangId("wide"), attempt=1, ranks=(3,), cause=cause, by="")
    found = [v.text for v in violations(replace(plan, effects=(shrink,)), world)]
    assert found == ["wide: members go for nobody that belong to it"]


def test_a_growth_is_no_fact_from_outside_and_comes_to_rest() -> None:
    """After it nothing follows: no gang grows twice, and no right changes for those who were given room."""
    stage = story()
    state = stage.engine.state
    state.takings.settle(GangId("somebody"))
    assert [builders.tell(effect) for effect in stage.settle()] == ["grow wide on n1 n1"]
    assert state.takings.picture(stage.now_ms).settled == {"somebody"}
    assert stage.settle() == []


def test_switched_off_placement_lets_nobody_grow() -> None:
    stage = story()
    stage.engine.state.rules = stage.engine.state.plain_rules = replace(stage.engine.state.rules, placement_on=False)
    assert stage.settle() == []


def test_a_device_that_is_lost_between_is_not_given() -> None:
    stage = story()
    machine = stage.state.nodes["n1"].machine
    gpus = tuple(replace(gpu, healthy=gpu.index == 0) for gpu in machine.gpus)
    stage.change_node("n1", machine=replace(machine, gpus=gpus))
    stage.settle()
    stage.now_ms += 10 * MINUTE
    (grow,) = stage.settle()
    assert isinstance(grow, Grow)
    assert [member.devices for member in grow.placement.members[4:]] == [("gpu-0",)]


# --- what is charged and booked -------------------------------------------------------------------------------------


def facts(at_ms: int):
    """A node with four GPUs; one member holds a GPU from the start, a second joins an hour later and a third fails."""
    node = builders.node("n1", "4")
    gang = builders.gang("wide", "3x1 min=1 elastic")
    first = [builders.gang("wide").id]
    members = [member(rank) for rank in range(3)]
    return [
        ev.NodeSeen(node=node, at_ms=at_ms),
        ev.QueueSeen(queue=builders.queue("team"), at_ms=at_ms),
        ev.GangSeen(gang=gang, at_ms=at_ms),
        ev.Intended(
            gang=first[0],
            attempt=1,
            placement=Placement(members=tuple(members[:1])),
            tier=Tier.IN_QUOTA,
            at_ms=at_ms,
            deadline_ms=at_ms,
        ),
        ev.GrowIntended(
            gang=first[0],
            attempt=1,
            placement=Placement(members=tuple(members)),
            joining=2,
            tier=Tier.BORROWED,
            at_ms=at_ms + 60 * MINUTE,
            deadline_ms=at_ms,
        ),
        ev.GrowFailed(
            gang=first[0],
            attempt=1,
            ranks=(2,),
            cause=refuse(Reason.PLACE_CONFLICT, detail="409"),
            released=(2,),
            at_ms=at_ms + 61 * MINUTE,
        ),
        codec.Cut(at_ms=at_ms + 120 * MINUTE),
    ]


def member(rank: int):
    return Member(role="worker", index=rank, rank=rank, node="n1", devices=(f"gpu-{rank}",))


def test_the_books_hold_members_from_when_they_join_and_both_ways_of_reading_the_journal_agree() -> None:
    start = builders.T0
    meter, sweep, held = Meter("test"), Sweep(), {}
    for number, record in enumerate(facts(start)):
        for entry in meter.apply(record, f"id-{number}").entries:
            for posting in entry.postings:
                if posting.account.startswith("held:"):
                    held[posting.account] = held.get(posting.account, 0) + posting.amount
        sweep.read(record)
    hour = 60 * MINUTE * 840
    assert held == {"held:team:team:in-quota": 2 * hour, "held:team:team:borrowed": hour + hour // 60}
    assert meter.open_holds() == (("wide", 1, 0), ("wide", 1, 1))
    spans = {device: found for _, device, found, _ in sweep.spans()}
    assert len(spans["gpu-2"]) == 3, spans["gpu-2"]


def test_the_facts_of_a_growth_are_read_back_as_they_were_written() -> None:
    for fact in facts(builders.T0):
        assert codec.decode(codec.encode(fact)) == fact


def test_a_gang_is_charged_for_each_member_from_when_it_joined() -> None:
    stage = story()
    stage.settle()
    stage.now_ms += 60 * MINUTE
    view = stage.view("wide")
    assert stage.state.queue_gpu_milli["team"] == 6_000
    attempt = stage.attempt("wide")
    ran_ms = stage.now_ms - attempt.since_ms
    assert view.gpu_ms == 4 * ran_ms + 2 * 60 * MINUTE
    stage.fail_grow("wide", 4, 5)
    assert stage.state.queue_gpu_milli["team"] == 4_000
    assert stage.view("wide").gpu_ms == view.gpu_ms


def test_what_if_copies_know_who_has_left_and_who_is_on_the_way() -> None:
    from fairlead.service.engine import Engine
    from fairlead.world.retell import facts_of

    stage = story()
    stage.settle()
    copy = Engine()
    copy.take(facts_of(stage.state, stage.now_ms))
    there = copy.state.gangs[GangId("wide")]
    assert there.current is not None
    assert there.phase.value == "Running"
    assert sorted(there.current.joining) == [4, 5]
    assert copy.state.queue_gpu_milli["team"] == 6_000


def test_a_new_leader_does_not_book_members_that_joined_from_when_the_attempt_began() -> None:
    """Somebody else had the device until then."""
    start = builders.T0
    told = facts(start)
    grown = told[4]
    found = ev.Recovered(
        gang=grown.gang,
        attempt=1,
        placement=grown.placement,
        tier=Tier.IN_QUOTA,
        since_ms=start,
        bound=True,
        holding=(0, 1),
        running=(0, 1),
        left=(2,),
        at_ms=start + 90 * MINUTE,
    )
    meter, sweep, held = Meter("test"), Sweep(), 0
    for number, record in enumerate([*told[:-1], found, told[-1]]):
        for entry in meter.apply(record, f"id-{number}").entries:
            held += sum(posting.amount for posting in entry.postings if posting.account.startswith("held:"))
        sweep.read(record)
    assert held == (120 + 60 + 1) * MINUTE * 840
    spans = {device: found for _, device, found, *_ in sweep.spans()}
    begins = [span[0] for span in spans["gpu-1"]]
    assert start + 60 * MINUTE in begins, spans["gpu-1"]
    assert len(begins) == len(spans["gpu-3"]) + 1
