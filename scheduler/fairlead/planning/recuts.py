"""What a picture of the cluster says to cut anew: idle GPUs in MIG mode against the instances that wait. A proposal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from fairlead.model.gang import Gang
from fairlead.placement.mig_plan import Demand, PlanDevice, RecutPlan, plan_recuts
from fairlead.topology.mig_grid import Grid, grid_milli
from fairlead.world.fleet import Inventory
from fairlead.world.snapshot import World

UNKNOWN_DURATION_MS = 3_600_000
"""How long a job is taken to run that does not say."""


def recut_plan(world: World) -> RecutPlan:
    """Return which idle GPUs to cut anew for what waits, with cost and stranded capacity before and after.

    Looked at are GPUs of usable nodes that are in MIG mode and cut already: where the driver makes instances as they
    are allocated, nothing is to be planned. Demand is what waits; models that it asks for are not looked at.
    """
    devices = list(_devices(world))
    demand = waiting_instances((item.gang for item in world.waiting.everyone), world.inventory)
    return plan_recuts(devices, demand, _free(world, {(d.node, d.device) for d in devices if not d.used}, demand))


def waiting_instances(gangs: Iterable[Gang], inventory: Inventory) -> list[Demand]:
    """Return the instances that gangs ask for; each would use its part of a GPU for as long as its gang runs."""
    counts: Counter[tuple[str, int]] = Counter()
    for gang in gangs:
        duration = UNKNOWN_DURATION_MS if gang.duration_ms is None else gang.duration_ms
        for role in gang.roles:
            if role.mig and not gang.suspended:
                counts[role.mig, duration] += role.replicas
    milli = {name: max((grid_milli(grid, name) for grid in inventory.mig.grids), default=0) for name, _ in counts}
    return [
        Demand(profile=name, count=count, gpu_ms=(milli[name] or 1_000) * duration // 1_000)
        for (name, duration), count in sorted(counts.items())
    ]


def _cut(world: World) -> Iterator[tuple[int, int, Grid]]:
    """Yield (row, bit, grid) of the healthy devices of usable nodes that give instances."""
    inventory = world.inventory
    for row, node in enumerate(inventory.nodes):
        if inventory.usable[row] and inventory.mig_mask[row]:
            for bit in range(len(node.machine.gpus)):
                grid = inventory.mig.grid(row, bit) if int(inventory.mig_mask[row]) >> bit & 1 else None
                if grid is not None:
                    yield row, bit, grid


def _devices(world: World) -> Iterator[PlanDevice]:
    for row, bit, _ in _cut(world):
        node = world.inventory.nodes[row]
        gpu = node.machine.gpus[bit]
        if gpu.mig is None or gpu.mig.dynamic or gpu.whole:
            continue
        names = {profile.id: profile.name for profile in gpu.mig.profiles}
        yield PlanDevice(
            node=str(node.name),
            device=gpu.device,
            profiles=gpu.mig.profiles,
            layout=tuple((names[i.profile], i.start) for i in gpu.mig.instances if i.profile in names),
            used=int(world.free.mig_state[row, bit]) != 0,
        )


def _free(world: World, idle: set[tuple[str, str]], demand: Iterable[Demand]) -> dict[str, int]:
    """Return the instances that are free on other devices; of a dynamic one, what it could give of each profile."""
    free: Counter[str] = Counter()
    names = sorted({item.profile for item in demand})
    for row, bit, grid in _cut(world):
        node = world.inventory.nodes[row]
        if (str(node.name), node.machine.gpus[bit].device) not in idle and world.free.opens(row, bit):
            for name in names:
                free[name] += int(grid.room(name)[int(world.free.mig_state[row, bit])])
    return dict(free)
