"""How much of a resource there is for queues to hold: what is free on usable nodes, and what they hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from fairlead.model.hardware import Machine
from fairlead.model.quota import CPU, MEMORY, OF_MODEL, STORAGE
from fairlead.model.tenancy import Pool
from fairlead.world.charges import resources_of
from fairlead.world.fleet import Columns, IntColumn, Inventory

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
