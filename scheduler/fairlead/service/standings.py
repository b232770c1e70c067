"""What `Standings` says, taken from a World by the same functions that decide."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fairlead.model.gang import GangId
from fairlead.model.reasons import Refusal
from fairlead.model.standings import ClassWaited, QueueStood, ResourceStood, Standings
from fairlead.ordering.queue_tree import QueueTree
from fairlead.planning.caps import Caps
from fairlead.planning.quota_places import standing_of
from fairlead.service.congestion import unplaced
from fairlead.service.fragmentation import Room
from fairlead.world.fleet import WHOLE, IntColumn
from fairlead.world.snapshot import World


def standings(world: World, now_ms: int, room: Room, refusal_of: Callable[[GangId], Refusal | None]) -> Standings:
    """Return how queues, waiting classes and resources stand; `room` is what is idle, and is taken from."""
    idle_milli = WHOLE * room.gpus + room.shared_milli
    tree = QueueTree(world.queues, world.policies)
    standing = standing_of(world, tree, Caps(world, tree.chains))
    asked: dict[str, int] = {}
    classes: dict[str, tuple[int, int]] = {}
    for (queue, _, _, service_class), ask in world.waiting.asked.items():
        asked[queue] = asked.get(queue, 0) + ask.gpu_milli
        gangs, milli = classes.get(service_class, (0, 0))
        classes[service_class] = (gangs + ask.gangs, milli + ask.gpu_milli)
    parents = {queue.parent for queue in world.queues.values()}
    found: list[QueueStood] = []
    for name in sorted(set(world.queues) - parents):
        held = world.queue_gpu_milli.get(name, 0)
        stood = QueueStood(
            queue=name,
            entitled_milli=standing.entitled.get(name, 0),
            demanded_milli=held + asked.get(name, 0),
            held_milli=held,
        )
        if stood.entitled_milli or stood.demanded_milli:
            found.append(stood)
    return Standings(
        queues=tuple(found),
        waiting=tuple(
            ClassWaited(service_class=name, gangs=gangs, gpu_milli=milli)
            for name, (gangs, milli) in sorted(classes.items())
            if gangs
        ),
        resources=_resources(world),
        at_ms=now_ms,
        unplaced=unplaced(world, room, refusal_of),
        idle_milli=idle_milli,
    )


def _resources(world: World) -> tuple[ResourceStood, ...]:
    nodes, free, usable = world.inventory.nodes, world.free, world.inventory.usable
    rows = np.flatnonzero(usable).tolist()
    offered = [nodes[row].allocatable for row in rows]

    def stood(resource: str, capacity: int, left: IntColumn) -> ResourceStood:
        unused = int(np.maximum(left[usable], 0).sum())
        return ResourceStood(resource=resource, capacity=capacity, taken=max(0, capacity - unused))

    held = sum(world.queue_gpu_milli.values())
    return (
        stood("cpu", sum(a.cpu_milli for a in offered), free.cpu_milli),
        ResourceStood(resource="gpu", capacity=world.capacity_milli, taken=held),
        stood("memory", sum(a.memory_bytes for a in offered), free.memory_bytes),
        stood("pods", sum(a.pods for a in offered), free.pods),
    )
