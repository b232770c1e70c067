"""The search against every way there is, in small worlds; and what must never depend on order or luck."""

from __future__ import annotations

from dataclasses import replace

import builders
import numpy as np
from builders import T0, Stage
from exact_search import broken_wishes, can_be_placed
from hypothesis import assume, given
from hypothesis import strategies as st
from random_worlds import examples

from fairlead.model import events as ev
from fairlead.model.gang import GangId, PodShape, Role, Slices, TopologyRequest
from fairlead.model.hardware import NodeName, Resources
from fairlead.placement.feasible import Feasibility
from fairlead.placement.placer import Placer
from fairlead.placement.refusals import unknown_level, why_never
from fairlead.placement.score import Score
from fairlead.world.demand import Arrivals, kinds_of
from fairlead.world.overlay import Overlay

MODELS = ("H100", "A100")


@st.composite
def small_nodes(draw, most: int = 6):
    nodes = []
    for at in range(draw(st.integers(2, most))):
        text = (
            f"{draw(st.integers(0, 4))} model={draw(st.sampled_from(MODELS))} rack=r{draw(st.integers(0, 2))} "
            f"cpu={draw(st.integers(2, 6))} pods={draw(st.sampled_from([2, 4, 8]))}"
        )
        node = builders.node(f"n{at}", text)
        racks = {rack: f"b{rack[1:]}"[:2] if rack != "r2" else "b0" for rack in ("r0", "r1", "r2")}
        rack = dict(node.levels)["rack"]
        levels = (("block", racks[rack]), ("rack", rack)) if draw(st.integers(0, 5)) else ()
        nodes.append(replace(node, levels=levels))
    return nodes


@st.composite
def small_gangs(draw, roles_most: int = 2):
    roles = []
    for name in ["leader", "worker"][: draw(st.integers(1, roles_most))]:
        size = draw(st.sampled_from([1, 1, 1, 2]))
        replicas = size * draw(st.integers(1, 3))
        within = draw(st.sampled_from(["", "", "rack"]))
        sliced = size > 1 or not draw(st.integers(0, 5))
        slices = (Slices(within=draw(st.sampled_from(["rack", "node"])), size=size),) if sliced else ()
        roles.append(
            Role(
                name=name,
                replicas=replicas,
                gpus=draw(st.integers(0, 2)),
                gpu_model=draw(st.sampled_from(["", "", "H100", "A100", "A100|H100"])),
                pod=replace(
                    builders.gang("x").roles[0].pod,
                    requests=Resources(cpu_milli=1000 * draw(st.integers(1, 3)), pods=1),
                ),
                topology=TopologyRequest(
                    within=within or "cluster", required=bool(within) and draw(st.booleans()), slices=slices
                )
                if within or slices
                else None,
            )
        )
    level = draw(st.sampled_from(["", "node", "rack", "block"]))
    return replace(
        builders.gang("asked"),
        id=GangId("asked"),
        roles=tuple(roles),
        topology=TopologyRequest(within=level, required=draw(st.booleans())) if level else None,
        mixed_models=draw(st.booleans()),
    )


def asked(nodes, gang, busy=None, *, steps: int | None = None):
    stage = Stage(nodes)
    for name, devices in (busy or {}).items():
        stage.engine.take([ev.ForeignDevices(name=NodeName(name), devices=tuple(sorted(devices)), at_ms=T0)])
    world = stage.engine.world(T0)
    feasibility = Feasibility(world.inventory, world.pools)
    if unknown_level(gang, world.inventory) is not None:
        return None, None, world
    never = why_never(gang, world.offered, world.inventory, feasibility)
    placer = Placer(Overlay(world), feasibility, Score())
    return placer.place(gang, steps=steps), never, world


@st.composite
def busy_devices(draw, nodes):
    return {
        str(node.name): {gpu.device for gpu in node.machine.gpus if draw(st.booleans())}
        for node in nodes
        if draw(st.booleans())
    }


@given(st.data())
@examples(800)
def test_the_search_finds_a_place_wherever_there_is_one(data) -> None:
    nodes = data.draw(small_nodes())
    gang = data.draw(small_gangs())
    busy = data.draw(busy_devices(nodes))
    answer, never, _ = asked(nodes, gang, busy)
    assume(answer is not None)
    possible = can_be_placed(gang, nodes, busy)
    if answer.placement is not None:
        assert broken_wishes(gang, answer.placement, nodes, busy) == []
        assert possible
    else:
        assert not answer.ended_early, "a search without a bound is certain"
        assert not possible, "said no, and there is a way"
    if never is not None:
        assert not can_be_placed(gang, nodes), f"said never: {never.message}"


@given(st.data())
@examples(200)
def test_replicas_that_are_spread_are_even_over_the_racks_that_had_room(data) -> None:
    """A rack with one pod less than the fullest, or fewer, had no room for another one."""
    nodes = data.draw(small_nodes())
    busy = data.draw(busy_devices(nodes))
    gang = builders.gang("asked", f"{data.draw(st.integers(2, 6))}x{data.draw(st.integers(1, 2))} spread=rack mixed")
    within = data.draw(st.sampled_from(["", "block"]))
    gang = replace(gang, topology=TopologyRequest(within=within, required=data.draw(st.booleans())) if within else None)
    answer, _, _ = asked(nodes, gang, busy)
    assume(answer is not None and answer.placement is not None)
    rack_of = {str(node.name): dict(node.levels).get("rack", "") for node in nodes}
    block_of = {str(node.name): dict(node.levels).get("block", "") for node in nodes}
    used = {block_of[str(member.node)] for member in answer.placement.members}
    room: dict[str, int] = {}
    for node in nodes:
        free = len(node.machine.gpus) - len(busy.get(str(node.name), ()))
        pods = min(free // gang.roles[0].gpus, node.allocatable.cpu_milli // 1000, node.allocatable.pods)
        rack = rack_of[str(node.name)]
        if answer.placement.level != "block" or block_of[str(node.name)] in used:
            room[rack] = room.get(rack, 0) + pods
    room.pop("", None)
    held = dict.fromkeys(room, 0)
    for member in answer.placement.members:
        held[rack_of[str(member.node)]] += 1
    fullest = max(held.values())
    assert all(fullest - number <= 1 or number == room[rack] for rack, number in held.items()), (held, room)


@given(st.data())
@examples(300)
def test_roles_that_fill_every_node_to_the_brim_are_seated(data) -> None:
    """Nodes are exactly as large as a way that was drawn first, so nearly every other way fails."""
    sizes = [(data.draw(st.integers(1, 3)), data.draw(st.integers(0, 2))) for _ in range(data.draw(st.integers(2, 3)))]
    ways = [[data.draw(st.integers(0, 2)) for _ in sizes] for _ in range(data.draw(st.integers(2, 4)))]
    assume(all(sum(way[at] for way in ways) for at in range(len(sizes))))
    nodes = [
        builders.node(
            f"n{number}",
            f"{sum(n * gpus for n, (_, gpus) in zip(way, sizes, strict=True))} "
            f"cpu={sum(n * cpu for n, (cpu, _) in zip(way, sizes, strict=True))}",
        )
        for number, way in enumerate(ways)
    ]
    roles = tuple(
        Role(
            name=f"role{at}",
            replicas=sum(way[at] for way in ways),
            gpus=gpus,
            pod=PodShape(requests=Resources(cpu_milli=1000 * cpu, pods=1)),
        )
        for at, (cpu, gpus) in enumerate(sizes)
    )
    answer, _, _ = asked(nodes, replace(builders.gang("asked"), roles=roles))
    assert answer.placement is not None
    assert broken_wishes(replace(builders.gang("asked"), roles=roles), answer.placement, nodes, {}) == []


@given(st.data())
@examples(200)
def test_more_free_gpus_never_turn_a_yes_into_a_no(data) -> None:
    nodes = data.draw(small_nodes())
    gang = data.draw(small_gangs())
    busy = data.draw(busy_devices(nodes))
    freed = {name: {d for d in devices if data.draw(st.booleans())} for name, devices in busy.items()}
    before, _, _ = asked(nodes, gang, busy)
    assume(before is not None and before.placement is not None)
    exact, _, _ = asked(nodes, gang, freed)
    assert exact.placement is not None
    bounded, _, _ = asked(nodes, gang, freed, steps=3)
    assert bounded.placement is not None or bounded.ended_early, "a bounded search may not know; it may not say no"


@given(st.data())
@examples(150)
def test_equal_nodes_in_another_order_change_no_answer(data) -> None:
    nodes = data.draw(small_nodes())
    gang = data.draw(small_gangs())
    renamed = [replace(node, name=NodeName(f"m{9 - at}")) for at, node in enumerate(nodes)]
    first, never, _ = asked(nodes, gang)
    second, never_too, _ = asked(renamed, gang)
    assume(first is not None)
    assert (first.placement is None) == (second.placement is None)
    assert (never is None) == (never_too is None)


@given(st.data())
@examples(150)
def test_columns_that_follow_changes_equal_columns_made_anew(data) -> None:
    nodes = data.draw(small_nodes())
    world = Stage(nodes).engine.world(T0)
    feasibility = Feasibility(world.inventory, world.pools)
    placer = Placer(Overlay(world), feasibility)
    gangs = [data.draw(small_gangs()) for _ in range(4)]
    arrivals = Arrivals()
    for gang in gangs * data.draw(st.integers(0, 4)):
        for kind in kinds_of(gang):
            arrivals.count(kind)
    placer.learn(arrivals.mix)
    marks = []
    for gang in [*gangs, *gangs]:
        if marks and data.draw(st.booleans()):
            placer.overlay.roll_back(marks.pop())
        marks.append(placer.overlay.checkpoint())
        if unknown_level(gang, world.inventory) is None:
            placer.place(gang)
        for tick in range(max(0, placer.overlay.tick - 5), placer.overlay.tick + 1):
            stamped = np.flatnonzero(placer.overlay.touched > tick)
            assert np.array_equal(placer.overlay.changed_since(tick), stamped)
        fresh = Placer(Overlay(replace(world, free=placer.overlay.columns)), feasibility)
        fresh.learn(arrivals.mix)
        for other in gangs:
            for role in other.roles:
                kept, made = placer.classes.of(other, role), fresh.classes.of(other, role)
                assert np.array_equal(kept.room, made.room)
                assert np.array_equal(kept.cost, made.cost)
                for level in world.inventory.levels.values():
                    assert np.array_equal(placer.classes.sums(kept, level), fresh.classes.sums(made, level))
                assert (kept.total, kept.most) == (made.total, made.most)
