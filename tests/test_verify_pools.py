"""The second opinion on pools: plans that break each of its rules are refused, though `decide` never makes them."""

from dataclasses import replace

import builders
import pytest
from builders import Stage

from fairlead.model.effects import Place, Stop
from fairlead.model.gang import GangId, Member, Placement, Tier
from fairlead.model.hardware import NodeName
from fairlead.model.reasons import Reason, refuse
from fairlead.planning.plan import Plan
from fairlead.planning.verify import violations

WINDOW = "windows=10:00-20:00 lead=30m"


def stage(pool: str, nodes: int = 2) -> Stage:
    return Stage(
        [builders.node(f"n{i + 1}") for i in range(nodes)], [builders.queue("team")], None, builders.pool(pool)
    )


def place(stage: Stage, name: str, node: str, gpus: int) -> list[str]:
    """Ask what verify says of putting one pod on the first GPUs of a node."""
    world = stage.engine.world(stage.now_ms)
    member = Member(role="worker", index=0, rank=0, node=NodeName(node), devices=tuple(f"gpu-{i}" for i in range(gpus)))
    placement = Placement(members=(member,), level="node", domain=node)
    effect = Place(gang=GangId(name), attempt=1, placement=placement, tier=Tier.BORROWED, deadline_ms=world.now_ms + 1)
    return [found.text for found in violations(Plan(version=world.version, effects=(effect,)), world)]


@pytest.mark.parametrize(
    ("pool", "job", "says"),
    [
        ("protect=16", "1x8 class=batch", "takes what pool fleet holds for serving"),
        ("protect=9", "1x8 class=batch", "takes what pool fleet holds for serving"),
        ("protect=8", "1x8 class=batch", ""),
        ("protect=16", "1x8 class=serving", ""),
        (f"protect=16 {WINDOW}", "1x8 class=batch", ""),
        (f"protect=16 {WINDOW}", "1x8 class=batch fixed", "takes what pool fleet holds for serving"),
        (f"protect=16 {WINDOW}", "1x8", "takes what pool fleet holds for serving"),
        (f"protect=16 {WINDOW}", "1x8 duration=100m", ""),
        (f"protect=16 {WINDOW}", "1x8 duration=110m", "takes what pool fleet holds for serving"),
        ("protect=16 lend=8", "1x8 class=batch", ""),
        ("protect=16 lend=7", "1x8 class=batch", "takes what pool fleet holds for serving"),
        ("protect=16 lend=8 return=30s", "1x8 class=batch", "takes what pool fleet holds for serving"),
        ("warm=9", "1x8 class=batch", "takes a warm spare of pool fleet"),
        ("warm=8", "1x8 class=batch", ""),
        ("warm=16", "1x8 class=serving", ""),
        ("ceiling=49", "1x8 class=batch", "goes above the ceiling of pool fleet"),
        ("ceiling=50", "1x8 class=batch", ""),
        ("hot=2", "1x8 class=serving", "takes a hot spare of pool fleet"),
        ("hot=1", "1x8 class=serving", ""),
    ],
)
def test_what_a_pool_keeps_is_not_given_away(pool, job, says):
    world = stage(pool)
    world.submit("a", job)
    found = place(world, "a", "n1", 8)
    assert found == ([f"team/a: {says}"] if says else [])


def told(stage: Stage, name: str, **changes: object) -> list[str]:
    world = stage.engine.world(stage.now_ms)
    cause = refuse(Reason.LENT_RETURNED, pool="fleet", service_class="serving")
    effect = replace(Stop(gang=GangId(name), attempt=1, cause=cause, requeue=True), **changes)
    return [found.text for found in violations(Plan(version=world.version, effects=(effect,)), world)]


def test_only_who_was_lent_something_is_told_to_go_and_only_when_it_is_needed():
    world = stage(f"protect=16 {WINDOW}")
    world.submit("b", "1x8 class=batch")
    world.settle()
    world.run("b")
    assert told(world, "b") == ["team/b: told to go although pool fleet is short of nothing"]
    world.now_ms += 90 * 60_000
    assert told(world, "b") == []
    cause = refuse(Reason.LENT_RETURNED, pool="fleet", service_class="training")
    assert told(world, "b", cause=cause) == ["team/b: told to go although pool fleet is short of nothing"]
    other = refuse(Reason.LENT_RETURNED, pool="elsewhere", service_class="serving")
    assert told(world, "b", cause=other) == ["b: told to give back what no pool lent, or what it may keep"]


def test_a_job_that_may_not_be_stopped_keeps_what_it_has():
    world = stage("")
    world.submit("b", "1x8 class=batch fixed")
    world.settle()
    world.run("b")
    world.take(builders.ev.PoolSeen(pool=builders.pool("protect=16"), at_ms=world.now_ms))
    assert told(world, "b") == ["b: told to give back what no pool lent, or what it may keep"]
    assert world.settle() == []
