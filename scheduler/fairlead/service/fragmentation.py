"""How broken up the free GPUs are: what is stranded, and the largest gang that each level has room for. Pure.

Measures of the hardware as it is now, for people and for alerts; nothing is decided by them. Quotas, taints and what
pods ask of CPU, memory and NICs are left out, except that GPUs which no request of late could use are stranded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fairlead.model.gang import Gang
from fairlead.placement.fragments import Fragments, NodeRows, build, largest_gang
from fairlead.placement.remainder import model_ids
from fairlead.world.demand import is_of, models_of
from fairlead.world.fleet import MAX_DEVICES, WHOLE, IntColumn
from fairlead.world.snapshot import World
from fairlead.world.views import Fragmentation, LevelRoom


@dataclass(frozen=True, slots=True, eq=False)
class _Tables:
    """What stays as long as the machines and the mix do.

    devices  `Inventory.all_mask`: inventories that are patched share it, and say the same of models
    model    shape (nodes,): number of each node's model
    masks    by model, shape (nodes,): bits of its devices
    """

    devices: IntColumn
    mix: int
    fragments: Fragments
    model: IntColumn
    masks: tuple[tuple[str, IntColumn], ...]


class FragmentationMeter:
    """Measures Worlds of one engine; asked again about the same world it only remembers."""

    def __init__(self) -> None:
        """Nothing is measured yet."""
        self._tables: _Tables | None = None
        self._last: tuple[int, Fragmentation] | None = None

    def measure(self, world: World) -> Fragmentation:
        """Return the measures of a world. O(nodes × models + waiting gangs)."""
        if self._last is None or self._last[0] != world.version:
            tables = self._tables
            if tables is None or tables.devices is not world.inventory.all_mask or tables.mix != world.mix.version:
                tables = self._tables = _tables(world)
            self._last = (world.version, _measure(world, tables))
        return self._last[1]


def fragmentation(world: World) -> Fragmentation:
    """Return the measures of one world."""
    return FragmentationMeter().measure(world)


def _tables(world: World) -> _Tables:
    inventory = world.inventory
    masks: dict[str, IntColumn] = {}
    for row, node in enumerate(inventory.nodes):
        for bit, gpu in enumerate(node.machine.gpus[:MAX_DEVICES]):
            if gpu.model not in masks:
                masks[gpu.model] = np.zeros(len(inventory.nodes), dtype=np.int64)
            masks[gpu.model][row] |= 1 << bit
    capacity = {name: WHOLE * int(np.bitwise_count(mask).sum()) for name, mask in masks.items()}
    fragments = build(world.mix, capacity)
    model = model_ids(inventory, fragments.models)
    return _Tables(inventory.all_mask, world.mix.version, fragments, model, tuple(sorted(masks.items())))


def _measure(world: World, tables: _Tables) -> Fragmentation:
    inventory, usable = world.inventory, world.inventory.usable
    free: IntColumn = np.where(usable, world.free.free_mask, 0)
    untouched = (free == inventory.all_mask) & (free != 0)
    counts = {name: np.bitwise_count(free & mask).astype(np.int64) for name, mask in tables.masks}
    alike = {name: (untouched & (mask == inventory.all_mask)).astype(np.int64) for name, mask in tables.masks}
    largest = tuple(
        LevelRoom(
            level=level.name,
            gpus=max((largest_gang(count, level.domain_of) for count in counts.values()), default=0),
            nodes=max((largest_gang(count, level.domain_of) for count in alike.values()), default=0),
        )
        for level in inventory.levels.values()
    )
    by_model = {name: int(count.sum()) for name, count in counts.items()}
    shared = int(world.part_free_milli[usable].sum())
    states = NodeRows.of(world.free, tables.model, np.flatnonzero(usable))
    return Fragmentation(
        free_gpus=sum(by_model.values()),
        shared_free_milli=shared,
        stranded_milli=int(tables.fragments.stranded_milli(states).sum()),
        largest=largest,
        pending_although_free=_pending_although_free((w.gang for w in world.waiting.everyone), by_model, shared),
    )


def _pending_although_free(gangs: Iterable[Gang], by_model: dict[str, int], shared_milli: int) -> int:
    """Count gangs of whole GPUs or shares for which enough is free somewhere; MIG instances need more than a number.

    A role counts with the fewest replicas that it starts with. Gangs that ask for no GPU do not count.
    """
    free_of: dict[str, int] = {"": sum(by_model.values())}

    def free(models: str) -> int:
        if models not in free_of:
            wanted = models_of(models)
            free_of[models] = sum(n for name, n in by_model.items() if is_of(wanted, name))
        return free_of[models]

    count = 0
    for gang in gangs:
        whole: dict[str, int] = {}
        parts_milli, mig = 0, False
        for role in gang.roles:
            mig = mig or bool(role.mig)
            if role.gpus:
                whole[role.gpu_model] = whole.get(role.gpu_model, 0) + role.fewest * role.gpus
            elif role.share is not None:
                parts_milli += role.fewest * role.share.milli
        if mig or not (sum(whole.values()) or parts_milli):
            continue
        there = WHOLE * free_of[""] + (shared_milli if parts_milli else 0)
        enough = WHOLE * sum(whole.values()) + parts_milli <= there
        count += enough and all(gpus <= free(models) for models, gpus in whole.items())
    return count
