"""The search against every way there is, in small worlds; and what must never depend on order or luck."""

from __future__ import annotations

from dataclasses import replace

import builders
from builders import T0, Stage
from exact_search import broken_wishes, can_be_placed
from hypothesis import assume, given
from hypothesis import strategies as st
from random_worlds import examples

from fairlead.model import events as ev
from fairlead.model.gang import GangId, Role, Slices, TopologyRequest
from fairlead.model.hardware import NodeName, Resources
from fairlead.placement.feasible import Feasibility
from fairlead.placement.refusals import unknown_level, why_never
from fairlead.placement.score import Score
from fairlead.placement.search import Placer
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
        levels = dict(node.levels)
        nodes.append(replace(node, levels=(("block", racks[levels["rack"]]), ("rack", levels["rack"]))))
    return nodes


@st.composite
def small_gangs(draw, roles_most: int = 2):
    roles = []
    for name in ["leader", "worker"][: draw(st.integers(1, roles_most))]:
        size = draw(st.sampled_from([1, 1, 1, 2]))
        replicas = size * draw(st.integers(1, 3))
        within = draw(st.sampled_from(["", "", "rack"]))
        slices = (Slices(within=draw(st.sampled_from(["rack", "node"])), size=size),) if size > 1 else ()
        roles.append(
            Role(
                name=name,
                replicas=replicas,
                gpus=draw(st.integers(0, 2)),
                gpu_model=draw(st.sampled_from(["", "", "H100", "A100", "A100|H100"])),
                pod=replace(builders.gang("x").roles[0].pod, requests=Resources(cpu_milli=1000 * draw(st.integers(1, 3)), pods=1)),
                topology=TopologyRequest(within=within or "cluster", required=bool(within), slices=slices)
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
