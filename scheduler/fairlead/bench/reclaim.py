"""`bench reclaim`: how long it takes to decide who makes room for a gang that wants half of a full fleet.

Every GPU is held by a job of one GPU, of a queue to which nothing is guaranteed. Then comes one gang of N/2 pods of 8
GPUs, of a queue to which all of the fleet is. The clock runs from the moment at which the engine hears of it until
it has decided which N × 4 jobs must go, and the plan has been verified: nobody is stopped, nothing is placed. The blast
radius is off. Before, the engine has placed something on these nodes once, and has looked for room in vain once, as any
engine has that has been up for a while; `first_seconds` is the same with an engine that has only taken up the facts.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from fairlead.bench.hgx_fleet import hgx_nodes
from fairlead.bench.scale_world import GIB, T0
from fairlead.model import events as ev
from fairlead.model.effects import Nominate, Place, Stop
from fairlead.model.gang import Gang, GangId, Member, Placement, PodShape, Role, Tier
from fairlead.model.hardware import Node, Resources
from fairlead.model.reasons import Reason, refuse
from fairlead.model.rules import Rules
from fairlead.model.tenancy import Pool, Queue
from fairlead.service.engine import Engine

GPUS_PER_NODE = 8
NODES_PER_RACK = 8
NO_CAP = 1 << 40
"""Stops a cycle, and pods on their way: more than any fleet has."""
PODS_AT_ONCE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One size's figures. `seconds` is the median over `runs`; `first_seconds` that of engines just started."""

    nodes: int
    gang_pods: int
    victims: int
    runs: int
    seconds: float
    seconds_max: float
    first_seconds: float


def run(nodes: int, *, runs: int = 3) -> Row:
    """Decide `runs` times, each time with an engine of its own.

    Raises
    ------
    AssertionError
        Where the plan is not the one that there must be: too many or too few go, or `verify` objects.
    """
    warm = [_once(nodes, started=False) for _ in range(runs)]
    cold = [_once(nodes, started=True) for _ in range(runs)]
    seconds = [took for took, _ in warm]
    return Row(
        nodes=nodes,
        gang_pods=nodes // 2,
        victims=warm[0][1],
        runs=runs,
        seconds=round(median(seconds), 4),
        seconds_max=round(max(seconds), 4),
        first_seconds=round(median(took for took, _ in cold), 4),
    )


def _once(nodes: int, *, started: bool) -> tuple[float, int]:
    """Return how long one decision took, and how many must go; `started` says that the engine has just been."""
    engine = Engine(Rules(stops_per_cycle=NO_CAP, placing_pods=NO_CAP))
    fleet = list(hgx_nodes(nodes, digits=5, nodes_per_rack=NODES_PER_RACK))
    engine.take(_tenants(GPUS_PER_NODE * nodes))
    engine.take(ev.NodeSeen(node=node, at_ms=T0) for node in fleet)
    if not started:
        _place_everywhere(engine, nodes)
    engine.take(_jobs(fleet))
    engine.cycle(T0)
    if not started:
        engine.take([ev.GangSeen(gang=_gang("owner", "vain", 1, 2 * GPUS_PER_NODE), at_ms=T0)])
        assert not engine.cycle(T0).effects, "a pod larger than any node has no room anywhere"
        engine.take([ev.GangGone(gang=GangId("vain"), at_ms=T0)])
    gang = _gang("owner", "asker", nodes // 2, GPUS_PER_NODE)
    gc.collect()
    gc.freeze()
    try:
        began = time.perf_counter()
        engine.take([ev.GangSeen(gang=gang, at_ms=T0 + 60_000)])
        cycle = engine.cycle(T0 + 60_000)
        seconds = time.perf_counter() - began
    finally:
        gc.unfreeze()
    assert cycle.violations == (), cycle.violations[:3]
    rooms = [effect for effect in cycle.effects if isinstance(effect, Nominate)]
    stops = sum(isinstance(effect, Stop) for effect in cycle.effects)
    assert len(rooms) == 1, cycle.plan.effects[:3]
    assert len(rooms[0].victims) == stops == nodes // 2 * GPUS_PER_NODE, (stops, nodes)
    return seconds, stops


def _place_everywhere(engine: Engine, nodes: int) -> None:
    """Let the engine place gangs on all of the empty fleet, and fail to bind them."""
    sizes = [min(PODS_AT_ONCE, nodes - first) for first in range(0, nodes, PODS_AT_ONCE)]
    gangs = [_gang("owner", f"first{at}", size, GPUS_PER_NODE) for at, size in enumerate(sizes)]
    engine.take(ev.GangSeen(gang=gang, at_ms=T0) for gang in gangs)
    effects = [effect for _ in gangs for effect in engine.cycle(T0).effects]  # a gang so large is a slice of its own
    placed = sum(isinstance(effect, Place) for effect in effects)
    assert placed == len(effects) == len(gangs), (placed, len(effects), len(gangs))
    for gang in gangs:
        failed = ev.PlaceFailed(
            gang=gang.id,
            attempt=1,
            cause=refuse(Reason.PLACEMENT_DISABLED),
            released=tuple(range(gang.members)),
            at_ms=T0,
        )
        engine.take([failed, ev.GangGone(gang=gang.id, at_ms=T0)])


def _tenants(gpus: int) -> list[ev.Event]:
    queues = (
        Queue(name="guest", namespaces=("guest",)),
        Queue(name="owner", namespaces=("owner",), guaranteed_gpus=gpus),
    )
    facts: list[ev.Event] = [ev.PoolSeen(pool=Pool(name="fleet", node_selector=()), at_ms=T0)]
    return facts + [ev.QueueSeen(queue=queue, at_ms=T0) for queue in queues]


def _gang(queue: str, name: str, replicas: int, gpus: int) -> Gang:
    pod = PodShape(requests=Resources(cpu_milli=4_000 * gpus, memory_bytes=32 * GIB * gpus, pods=1))
    role = Role(name="worker", replicas=replicas, gpus=gpus, pod=pod)
    return Gang(id=GangId(name), namespace=queue, name=name, queue=queue, roles=(role,), submitted_ms=T0)


def _jobs(fleet: Sequence[Node]) -> Iterator[ev.Event]:
    """Yield the facts of one running job for every GPU; they started at different moments."""
    count = 0
    for node in fleet:
        for gpu in node.machine.gpus:
            count += 1
            at_ms = T0 - 1_000 * (count * 7919 % 3_600)
            gang = _gang("guest", f"j{count:06}", 1, 1)
            member = Member(role="worker", index=0, rank=0, node=node.name, devices=(gpu.device,))
            yield ev.GangSeen(gang=gang, at_ms=at_ms)
            yield ev.Recovered(
                gang=gang.id, attempt=1, placement=Placement(members=(member,)), tier=Tier.BORROWED, since_ms=at_ms,
                bound=True, holding=(0,), running=(0,), at_ms=at_ms,
            )  # fmt: skip
