"""The worlds in which other schedulers are slowest, decided here: full fleets of single GPUs, and one large request."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from fairlead.bench import scale_world
from fairlead.bench.scale import quantile, stopwatch
from fairlead.bench.scale_world import GPUS_PER_NODE, QUEUES, T0
from fairlead.model import events as ev
from fairlead.model.effects import Place
from fairlead.model.gang import Gang, GangId, Member, Placement, PodShape, Role, Tier, TopologyRequest
from fairlead.model.hardware import Node, Resources
from fairlead.service.engine import Engine

FULL_NODES = 500
SEARCHED_NODES, BLOCK_NODES, SEARCHES = 2_500, 288, 5
ALLOCATIONS, ALLOCATED_ON = 10_000, (2_000, 5_000)
"""Pods of one GPU, and fleets that have room for all of them."""


def run() -> dict[str, float]:
    """Return seconds of a full cycle and of a refusal, ms of a topology search, and allocations per second."""
    return {**full_cycle(), **refusal(), **topology_search(), **allocations()}


def full_cycle() -> dict[str, float]:
    """4,000 single-GPU gangs run on 4,000 GPUs and as many wait: seconds until each has its answer."""
    engine = _full(preemptible=True)
    jobs = FULL_NODES * GPUS_PER_NODE
    waiting = [_single(f"w{i}", QUEUES[i % len(QUEUES)], preemptible=True) for i in range(jobs)]
    engine.take(ev.GangSeen(gang=gang, at_ms=T0) for gang in waiting)
    began = time.perf_counter()
    _settle(engine)
    took = time.perf_counter() - began
    silent = [gang.id for gang in waiting if engine.state.gangs[gang.id].refusal is None]
    assert not silent, f"{len(silent)} gangs have no answer"
    return {"full_cycle_s": round(took, 4)}


def refusal() -> dict[str, float]:
    """A gang of 10 x 8 GPUs comes to a full fleet on which nobody may be stopped: seconds until it is told why not."""
    engine = _full(preemptible=False)
    _settle(engine)
    role = Role(name="worker", replicas=10, gpus=GPUS_PER_NODE)
    gang = replace(_single("impossible", QUEUES[0], preemptible=True), roles=(role,))
    engine.take([ev.GangSeen(gang=gang, at_ms=T0)])
    began = time.perf_counter()
    _settle(engine)
    took = time.perf_counter() - began
    assert engine.state.gangs[gang.id].refusal is not None
    return {"refusal_s": round(took, 4)}


def topology_search() -> dict[str, float]:
    """2,304 pods of one GPU each in one block of a tree of 2,500 nodes: ms of the search, devices chosen, and of all.

    The block is filled to its last device; half of the other blocks' racks have a device less.
    """
    engine = Engine()
    engine.take(scale_world.tenants())
    engine.take(ev.NodeSeen(node=node, at_ms=T0) for node in _in_blocks())
    searches: list[float] = []
    cycles: list[float] = []
    pods = BLOCK_NODES * GPUS_PER_NODE
    for attempt in range(SEARCHES):
        role = Role(name="worker", replicas=pods, gpus=1)
        gang = replace(
            _single(f"wide{attempt}", QUEUES[0], preemptible=True),
            roles=(role,),
            topology=TopologyRequest(within="block"),
        )
        engine.take([ev.GangSeen(gang=gang, at_ms=T0)])
        spent: dict[str, float] = {}
        began = time.perf_counter()
        with stopwatch(spent):
            _settle(engine)
        cycles.append(1_000 * (time.perf_counter() - began))
        searches.append(1_000 * spent["place"])
        held = engine.state.gangs[gang.id].current
        assert held is not None, "the request has room"
        assert len(held.holding) == pods
        engine.take([ev.GangGone(gang=gang.id, at_ms=T0)])
        _settle(engine)
        engine.take(ev.MemberReleased(gang=gang.id, attempt=1, rank=rank, at_ms=T0) for rank in sorted(held.holding))
    return {"topology_search_ms": quantile(searches, 50), "topology_cycle_ms": quantile(cycles, 50)}


def allocations() -> dict[str, float]:
    """10,000 pods of one GPU, each a gang of its own, on fleets that are empty: placed, written down and running.

    As YuniKorn counts its in-process figure: pods that have got a node, per second.
    """
    small, large = (_allocations_per_s(nodes) for nodes in ALLOCATED_ON)
    return {
        "allocations_per_s": round(large, 1),
        "allocations_per_s_small": round(small, 1),
        "allocations_flat": round(large / small, 3),
    }


def _allocations_per_s(nodes: int) -> float:
    engine = Engine()
    engine.take(scale_world.tenants())
    engine.take(ev.NodeSeen(node=node, at_ms=T0) for node in scale_world.nodes(nodes))
    engine.world(T0)
    queues = len(QUEUES)
    engine.take(
        ev.GangSeen(gang=_single(f"p{at:05}", QUEUES[at % queues], preemptible=True), at_ms=T0)
        for at in range(ALLOCATIONS)
    )
    placed, more = 0, True
    gc.collect()
    gc.freeze()
    began = time.perf_counter()
    while more or placed < ALLOCATIONS:
        cycle = engine.cycle(T0)
        places = [effect for effect in cycle.effects if isinstance(effect, Place)]
        assert places or cycle.more, "there is room for all of them"
        placed, more = placed + len(places), cycle.more
        for effect in places:
            name, attempt = effect.gang, effect.attempt
            engine.take([ev.Bound(gang=name, attempt=attempt, at_ms=T0)])
            engine.take([ev.MemberRunning(gang=name, attempt=attempt, rank=0, at_ms=T0)])
    took = time.perf_counter() - began
    gc.unfreeze()
    return ALLOCATIONS / took


def _full(*, preemptible: bool) -> Engine:
    """Return an engine whose every GPU is held by a gang of one."""
    engine = Engine()
    fleet = list(scale_world.nodes(FULL_NODES))
    engine.take(scale_world.tenants())
    engine.take(ev.NodeSeen(node=node, at_ms=T0) for node in fleet)
    engine.take(_held(fleet, preemptible))
    engine.world(T0)
    return engine


def _held(fleet: Sequence[Node], preemptible: bool) -> Iterator[ev.Event]:
    number = 0
    for node in fleet:
        for gpu in node.machine.gpus:
            gang = _single(f"r{number}", QUEUES[number % len(QUEUES)], preemptible=preemptible)
            member = Member(role="worker", index=0, rank=0, node=node.name, devices=(gpu.device,))
            number += 1
            yield ev.GangSeen(gang=gang, at_ms=T0)
            yield ev.Recovered(
                gang=gang.id, attempt=1, placement=Placement(members=(member,)), tier=Tier.BORROWED, since_ms=T0,
                bound=True, holding=(0,), running=(0,), at_ms=T0,
            )  # fmt: skip


def _in_blocks() -> Iterator[Node]:
    for at, node in enumerate(scale_world.nodes(SEARCHED_NODES)):
        block = at // BLOCK_NODES
        machine = node.machine
        if block % 2 and at % 16 < scale_world.NODES_PER_RACK:
            machine = replace(machine, gpus=(replace(machine.gpus[0], healthy=False), *machine.gpus[1:]))
        yield replace(node, machine=machine, levels=(("block", f"b{block}"), *node.levels[1:]))


def _single(name: str, queue: str, *, preemptible: bool) -> Gang:
    return Gang(
        id=GangId(name),
        namespace=queue,
        name=name,
        queue=queue,
        roles=(Role(name="worker", replicas=1, gpus=1, pod=PodShape(requests=Resources(cpu_milli=1_000, pods=1))),),
        submitted_ms=T0,
        preemptible=preemptible,
        mixed_models=True,
    )


def _settle(engine: Engine) -> None:
    """Decide until nothing is left; nobody answers the effects meanwhile."""
    while engine.cycle(T0).more:
        pass
