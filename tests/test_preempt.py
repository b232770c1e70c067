"""Whose room it becomes: shape, price and right of victims, seen at `look_for_room` itself."""

from __future__ import annotations

import builders
import numpy as np
import pytest
from builders import Stage, tell

from fairlead.ordering.standing import Standing
from fairlead.placement.feasible import Feasibility, slots, slots_on
from fairlead.placement.lost_work import RESTART_COST_MS, lost_work
from fairlead.placement.placer import Placer
from fairlead.placement.preempt import Room, look_for_room
from fairlead.placement.score import Score
from fairlead.world.overlay import Overlay

MIN = 60_000


def full(nodes: dict[str, str], queues: dict[str, str], gangs: dict[str, tuple[str, int]]) -> Stage:
    """Nodes filled with gangs that have been running for so many minutes."""
    stage = Stage(
        [builders.node(name, text) for name, text in nodes.items()],
        [builders.queue(name, text) for name, text in queues.items()],
    )
    for name, (text, _) in gangs.items():
        stage.submit(name, text)
        stage.settle()
    start = stage.now_ms
    for name, (_, minutes) in sorted(gangs.items(), key=lambda item: -item[1][1]):
        stage.now_ms = start + (1_000 - minutes) * MIN
        stage.run(name)
    stage.now_ms = start + 1_000 * MIN
    return stage


def room_for(stage: Stage, text: str, spared: frozenset[str] = frozenset()) -> Room | None:
    spec = stage.submit("asker", text)
    world = stage.engine.world(stage.now_ms)
    placer = Placer(Overlay(world), Feasibility(world.inventory, world.pools), Score())
    overlay = placer.overlay
    before = overlay.columns.free_mask.copy()
    waiting = [(w.gang.queue, w.gang.gpu_milli) for w in world.waiting]
    capacity = sum(view.gpus for view in stage.engine.node_views())
    standing = Standing(1000 * capacity, world.queues, world.queue_gpu_milli, waiting)
    used = dict(standing.used)
    room = look_for_room(spec, world, placer, standing, spared).room
    assert (overlay.columns.free_mask == before).all(), "the search must leave no trace"
    assert standing.used == used
    return room


def victims(room: Room | None) -> list[str]:
    return [] if room is None else sorted(str(victim.gang) for victim in room.victims)


def test_lost_work_counts_devices_time_and_the_restart() -> None:
    stage = full({"n1": "8"}, {"team": ""}, {"a": ("1x4", 10), "b": ("1x4", 0)})
    world = stage.engine.world(stage.now_ms)
    lost = {attempt.gang: lost_work(attempt, world.now_ms) for attempt in world.running}
    assert lost == {"a": 4 * (10 * MIN + RESTART_COST_MS), "b": 4 * RESTART_COST_MS}


@pytest.mark.parametrize(
    ("asks", "expected"),
    [
        pytest.param("1x2 priority=1", ["y2"], id="the youngest that frees enough"),
        pytest.param("1x4 priority=1", ["y1", "y2"], id="two young ones before an old one"),
        pytest.param("1x8 priority=1", ["old"], id="one old one where only its node frees the shape"),
        pytest.param("2x2 priority=1", ["y1", "y2"], id="members may share a node"),
    ],
)
def test_victims_free_the_shape_at_the_least_lost_work(asks: str, expected: list[str]) -> None:
    stage = full(
        {"n1": "8", "n2": "4"},
        {"team": ""},
        {"old": ("1x8", 90), "y1": ("1x2", 10), "y2": ("1x2", 1)},
    )
    assert victims(room_for(stage, asks)) == expected


def test_a_gang_over_two_nodes_is_one_victim_and_priced_whole() -> None:
    stage = full({"n1": "4", "n2": "4", "n3": "4"}, {"team": ""}, {"wide": ("2x4", 5), "small": ("1x4", 6)})
    assert victims(room_for(stage, "1x4 priority=1")) == ["small"]


def test_a_set_inside_one_rack_is_freed_there() -> None:
    stage = full(
        {"n1": "4 rack=r1", "n2": "4 rack=r1", "n3": "4 rack=r2", "n4": "4 rack=r2"},
        {"team": ""},
        {"a": ("1x4", 1), "b": ("1x4", 90), "c": ("1x4", 30), "d": ("1x4", 30)},
    )
    room = room_for(stage, "2x4 within=rack priority=1")
    assert victims(room) == ["c", "d"]
    assert room is not None
    assert {member.node for member in room.placement.members} == {"n3", "n4"}


def test_room_inside_an_island_is_not_looked_for_on_a_node_without_one() -> None:
    stage = full(
        {"n1": "8 rack=r1", "n2": "4 rack=r1 clique=c1", "n3": "4 rack=r2 clique=c1"},
        {"team": ""},
        {"cheap": ("1x8", 0), "x": ("1x4", 60), "y": ("1x4", 60)},
    )
    assert victims(room_for(stage, "2x4 within=island priority=1")) == ["x", "y"]


def test_what_is_free_already_is_used_before_anybody_goes() -> None:
    stage = full({"n1": "8"}, {"team": ""}, {"a": ("1x2", 1), "b": ("1x2", 1), "c": ("1x2", 1)})
    assert len(victims(room_for(stage, "1x4 priority=1"))) == 1


def test_cpu_is_made_room_for_too() -> None:
    stage = full({"n1": "8 cpu=8"}, {"team": ""}, {"a": ("1x1 cpu=5", 1), "b": ("1x1 cpu=3", 1)})
    assert victims(room_for(stage, "1x1 cpu=4 priority=1")) == ["a"]


def test_a_host_port_is_made_room_for_too() -> None:
    stage = full({"n1": "8"}, {"team": ""}, {"a": ("1x1 port=80", 50), "b": ("1x1", 1)})
    assert victims(room_for(stage, "1x1 port=80 priority=1")) == ["a"]


def test_who_was_taken_in_this_cycle_is_spared() -> None:
    stage = full({"n1": "8"}, {"team": ""}, {"a": ("1x4", 1), "b": ("1x4", 2)})
    assert victims(room_for(stage, "1x4 priority=1", frozenset({"a"}))) == ["b"]


def test_rights_are_checked_as_usage_falls() -> None:
    """Each of the three may be taken alone; of all three only as many as leave the guarantee."""
    stage = full(
        {"n1": "6"}, {"a": "guaranteed=4", "b": "guaranteed=2"}, {f"b{i}": ("1x2 queue=b", i) for i in range(3)}
    )
    assert len(victims(room_for(stage, "1x4 queue=a"))) == 2
    stage = full(
        {"n1": "6"}, {"a": "guaranteed=4", "b": "guaranteed=3"}, {f"b{i}": ("1x2 queue=b", i) for i in range(3)}
    )
    assert victims(room_for(stage, "1x4 queue=a")) == []


def test_minimum_run_time_protects_the_young() -> None:
    stage = full({"n1": "8"}, {"team": ""}, {"a": ("1x4", 1), "b": ("1x4", 30)})
    stage.state.rules = builders.Rules(min_run_ms=10 * MIN)
    assert victims(room_for(stage, "1x4 priority=1")) == ["b"]


def test_the_end_of_a_minimum_run_time_is_waited_for() -> None:
    stage = full({"n1": "8"}, {"team": ""}, {"a": ("1x8", 1)})
    stage.state.rules = builders.Rules(min_run_ms=10 * MIN)
    stage.submit("asker", "1x8 priority=1")
    assert stage.settle() == []
    wake_at_ms = stage.cycles[-1].wake_at_ms
    assert wake_at_ms is not None
    stage.now_ms = wake_at_ms
    assert [tell(effect) for effect in stage.settle()] == ["make room for asker: a", "stop a: Preempted"]


def test_counting_some_rows_agrees_with_counting_the_column() -> None:
    stage = full(
        {"n1": "8 cpu=8", "n2": "4 pods=2", "n3": "8 cordoned", "n4": "8 ext=x:3 unhealthy=0"},
        {"team": ""},
        {"a": ("1x2 cpu=3 port=80", 1)},
    )
    world = stage.engine.world(stage.now_ms)
    overlay, feasibility = Overlay(world), Feasibility(world.inventory, world.pools)
    for text in ("1x1", "1x2 cpu=2", "1x0 cpu=3", "1x1 port=80", "1x1 port=81", "1x1 ext=x:2", "1x3 model=h100"):
        role = builders.gang("g", text).roles[0]
        fit = feasibility.fit(role, builders.gang("g", text).service_class)
        column = slots(role, fit, overlay.columns, overlay.ports).tolist()
        alone = [slots_on(role, fit, 0, overlay, np.array([row])).tolist() for row in range(4)]
        assert [[room] for room in column] == alone, text
