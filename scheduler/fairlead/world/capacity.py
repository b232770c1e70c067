"""How much of a resource there is for queues to hold: what is free on usable nodes, and what they hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from fairlead.model.hardware import Machine
from fairlead.model.quota import CPU, MEMORY, OF_MODEL, STORAGE
from fairlead.model.tenancy import Pool
from fairlead.world.charges import resources_of
from fairlead.world.fleet import WHOLE, Columns, IntColumn, Inventory
from fairlead.world.gangs import Hold

_COLUMN = {CPU: "cpu_milli", MEMORY: "memory_bytes", STORAGE: "ephemeral_bytes"}


def free_of(resource: str, free: Columns, part_free_milli: IntColumn, inventory: Inventory) -> int:
    """Return what of a resource is free on usable nodes, as it is counted.

    Of GPUs that somebody has a part of, the rest counts where all GPUs of the node are of the model.
    """
    usable = inventory.usable
    if resource.startswith(OF_MODEL):
        of_model = np.array(inventory.of_kinds(lambda machine: _of_model(machine, resource)), dtype=np.int64)
        whole = int(np.bitwise_count(free.free_mask & of_model)[usable].sum())
        alike = usable & (of_model == inventory.all_mask) & (of_model != 0)
        return 1000 * whole + int(part_free_milli[alike].sum())
    column = free.extended.get(resource) if resource not in _COLUMN else getattr(free, _COLUMN[resource])
    return 0 if column is None else int(np.maximum(column[usable], 0).sum())


def above_nodes(resource: str, pools: Iterable[Pool], levels: Mapping[str, int]) -> int | None:
    """Return how much there is of a resource that lives above the nodes, None where it does not.

    `levels` is name of level -> its domains. A resource with amounts at several levels has the least of their sums.
    """
    sums = [
        budget.amount * levels.get(budget.level, 0)
        for pool in pools
        for budget in pool.budgets
        if budget.resource == resource
    ]
    return min(sums, default=None)


def _of_model(machine: Machine, resource: str) -> int:
    return sum(1 << bit for bit, gpu in enumerate(machine.gpus[:63]) if resources_of(gpu.model, (resource,)))


def amounts_above(pools: Mapping[str, Pool]) -> dict[str, int]:
    """Return resource -> what one domain of its tightest level has at most, of resources that live above nodes."""
    found: dict[str, int] = {}
    for name in sorted(pools):
        for budget in pools[name].budgets:
            found[budget.resource] = min(found.get(budget.resource, budget.amount), budget.amount)
    return found


def left_of_parts(holds: list[Hold]) -> int:
    """Return what is left, in thousandths, of the devices that are held in part, as these holds are."""
    taken: dict[str, int] = {}
    for hold in holds:
        if not hold.use.mig:
            for device in hold.use.devices:
                taken[device] = taken.get(device, 0) + hold.use.gpu_milli
    return sum(max(0, WHOLE - milli) for milli in taken.values())


def left_of_instances(inventory: Inventory, row: int, free: Columns) -> int:
    """Return what is left, in thousandths, of healthy devices that give instances and are not free whole."""
    if not inventory.mig.grids:
        return 0
    left = inventory.mig.left(np.array([row]), free.mig_state[[row]])[0].tolist()
    may = int(inventory.mig_mask[row]) & ~int(free.free_mask[row])
    return sum(milli for bit, milli in enumerate(left) if may >> bit & 1 and free.opens(row, bit))
