"""What a placement loses against an idle fleet: in thousandths of its running time, said in words and in the fact."""

from __future__ import annotations

import builders
from builders import Stage

from fairlead.model import events as ev
from fairlead.model.gang import GangId, Placement
from fairlead.planning.idle_fleet import TALK_PERMILLE, IdleFleet, slowed_permille


def placed(stage: Stage, name: str = "a") -> Placement:
    (fact,) = [f for f in stage.facts if isinstance(f, ev.Intended) and f.gang == GangId(name)]
    return fact.placement


def started(nodes: dict[str, str], text: str, **foreign: tuple[int, ...]) -> Stage:
    stage = Stage([builders.node(name, shape) for name, shape in nodes.items()], [builders.queue("team")])
    for name, taken in foreign.items():
        devices = tuple(f"gpu-{at}" for at in taken)
        stage.take(ev.ForeignDevices(name=name, devices=devices, at_ms=stage.now_ms))
    stage.submit("a", text)
    stage.settle()
    return stage


def test_a_part_of_the_time_is_lost_in_proportion_to_the_pace_that_was_possible() -> None:
    assert [slowed_permille(pace, 100) for pace in (100, 120, 50, 1, 0)] == [0, 0, TALK_PERMILLE // 2, 247, 0]
    assert slowed_permille(100, 0) == 0, "nobody knows a better one"


def test_a_gang_on_an_idle_fleet_loses_nothing() -> None:
    assert placed(started({"n1": "hgx", "n2": "hgx"}, "1x8")).slowed_permille == 0


def test_a_gang_that_others_tear_apart_loses_what_its_slowest_edge_is_slower() -> None:
    torn = placed(started({"n1": "hgx", "n2": "hgx"}, "2x4", n1=(0, 1, 2, 3), n2=(4, 5, 6, 7)))
    whole = placed(started({"n1": "hgx", "n2": "hgx"}, "2x4"))
    assert torn.pace_bytes_per_s < whole.pace_bytes_per_s
    best = whole.pace_bytes_per_s
    assert torn.slowed_permille == TALK_PERMILLE * (best - torn.pace_bytes_per_s) // best > 100
    (said,) = [text for text in torn.penalties if text.startswith("its slowest link")]
    assert said.endswith(f"about {torn.slowed_permille // 10}.{torn.slowed_permille % 10} % of its time")


def test_what_a_gang_demands_for_itself_costs_the_platform_nothing() -> None:
    apart = placed(started({"n1": "hgx", "n2": "hgx"}, "2x4 spread=node"))
    assert len({member.node for member in apart.members}) == 2
    assert (apart.slowed_permille, apart.penalties) == (0, ())


def test_another_model_is_no_slower_placement_of_the_same() -> None:
    other = placed(started({"n1": "hgx", "n2": "l40s"}, "1x2", n1=tuple(range(8))))
    assert other.slowed_permille == 0, "all that its own model could give"


def test_no_more_than_nodes_that_can_be_used_is_possible() -> None:
    nodes = {"n1": "hgx", "n2": "hgx unhealthy=0,1,2,3", "n3": "hgx unhealthy=4,5,6,7"}
    with_a_whole_node = placed(started(nodes, "2x4", n1=tuple(range(8))))
    without = placed(started({**nodes, "n1": "hgx cordoned"}, "2x4"))
    assert with_a_whole_node.slowed_permille > 0 == without.slowed_permille


def test_what_is_remembered_is_what_a_fresh_look_finds() -> None:
    stage = started({"n1": "hgx", "n2": "hgx"}, "2x4", n1=(0, 1, 2, 3), n2=(4, 5, 6, 7))
    remembered = IdleFleet()
    gang, where = stage.specs["a"], placed(stage)
    for change in ("hgx", "hgx cordoned", "hgx unhealthy=0", "hgx"):
        stage.take(ev.NodeSeen(node=builders.node("n1", change), at_ms=stage.now_ms))
        world = stage.engine.world(stage.now_ms)
        assert remembered.judged(gang, where, world) == IdleFleet().judged(gang, where, world), change


def test_a_gang_that_grows_is_judged_as_a_whole_and_is_told_once() -> None:
    stage = started({"n1": "hgx", "n2": "hgx"}, "2x4", n1=(0, 1, 2, 3), n2=(4, 5, 6, 7))
    gang, world, before = stage.specs["a"], stage.engine.world(stage.now_ms), placed(stage)
    again = IdleFleet().judged(gang, before, world)
    assert again == before
    alone = IdleFleet().judged(gang, before, world, left=(1,))
    assert alone.slowed_permille > 0, "one pod of four is as fast as the two were on one node"
