"""How broken up the free GPUs are: what is stranded, and the largest gang that each level has room for. Pure.

Measures of the hardware as it is now, for people and for alerts; nothing is decided by them. Quotas, taints and what
pods ask of CPU, memory and NICs are left out, except that GPUs which no request of late could use are stranded.
"""

from __future__ import annotations

from collections.abc import Mapping
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
            self._last = (world.version, _measure(world, self._tables_of(world)))
        return self._last[1]

    def room(self, world: World) -> Room:
        """Return what is idle on usable nodes."""
        return _room(world, self._tables_of(world))

    def _tables_of(self, world: World) -> _Tables:
        tables = self._tables
        if tables is None or tables.devices is not world.inventory.all_mask or tables.mix != world.mix.version:
            tables = self._tables = _tables(world)
        return tables


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
    room = _room(world, tables)
    asked = filter(None, (wanted(waiting.gang) for waiting in world.waiting.everyone))
    states = NodeRows.of(world.free, tables.model, np.flatnonzero(usable))
    return Fragmentation(
        free_gpus=room.gpus,
        shared_free_milli=room.shared_milli,
        stranded_milli=int(tables.fragments.stranded_milli(states).sum()),
        largest=largest,
        pending_although_free=sum(map(room.holds, asked)),
    )


def _room(world: World, tables: _Tables) -> Room:
    free: IntColumn = np.where(world.inventory.usable, world.free.free_mask, 0)
    counts = {name: np.bitwise_count(free & mask) for name, mask in tables.masks}
    return Room(
        {name: int(count.sum()) for name, count in counts.items()},
        int(world.part_free_milli[world.inventory.usable].sum()),
        {name: int(count.max(initial=0)) for name, count in counts.items()},
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a gang asks for at least: (models as its roles write them, whole GPUs), and thousandths in shares.

    `pods` are (models, whole GPUs) of one pod of each role.
    """

    whole: tuple[tuple[str, int], ...]
    parts_milli: int
    pods: tuple[tuple[str, int], ...] = ()

    @property
    def gpu_milli(self) -> int:
        """All of it."""
        return WHOLE * sum(gpus for _, gpus in self.whole) + self.parts_milli


def wanted(gang: Gang) -> Wanted | None:
    """Return what a gang starts with at the fewest; None where that is no GPU, or MIG instances.

    Whether an instance fits takes more than a number.
    """
    whole: dict[str, int] = {}
    parts_milli = 0
    for role in gang.roles:
        if role.mig:
            return None
        if role.gpus:
            whole[role.gpu_model] = whole.get(role.gpu_model, 0) + role.fewest * role.gpus
        elif role.share is not None:
            parts_milli += role.fewest * role.share.milli
    pods = tuple((role.gpu_model, role.gpus) for role in gang.roles if role.gpus)
    found = Wanted(tuple(sorted(whole.items())), parts_milli, pods)
    return found if found.gpu_milli else None


class Room:
    """Idle GPUs by model, and thousandths that are left of GPUs which somebody has a part of; wherever they lie."""

    def __init__(self, by_model: Mapping[str, int], shared_milli: int, most: Mapping[str, int]) -> None:
        """Nothing is taken; `most` is how many of a model are idle on one node at best."""
        self.shared_milli = shared_milli
        self._most = most
        self._by_model = dict(by_model)
        self._named: dict[str, tuple[str, ...]] = {}

    @property
    def gpus(self) -> int:
        """Whole GPUs of all models."""
        return sum(self._by_model.values())

    def copy(self) -> Room:
        """Return the same room, to be taken from by itself."""
        return Room(self._by_model, self.shared_milli, self._most)

    def on_one_node(self, wanted: Wanted) -> bool:
        """Whether for one pod of each role some node had enough GPUs idle before anything was taken."""
        return all(max((self._most[name] for name in self._of(models)), default=0) >= n for models, n in wanted.pods)

    def holds(self, wanted: Wanted) -> bool:
        """Whether there is as much as is wanted, of models that will do."""
        there = WHOLE * self.gpus + (self.shared_milli if wanted.parts_milli else 0)
        return wanted.gpu_milli <= there and all(gpus <= self._free(models) for models, gpus in wanted.whole)

    def take(self, wanted: Wanted) -> None:
        """Take what is wanted: shares where somebody has a part already, whole GPUs by name of their model."""
        for models, gpus in wanted.whole:
            self._take(models, gpus)
        broken = -(-max(0, wanted.parts_milli - self.shared_milli) // WHOLE)
        self._take("", broken)
        self.shared_milli += WHOLE * broken - wanted.parts_milli

    def _take(self, models: str, gpus: int) -> None:
        for name in self._of(models):
            taken = min(gpus, self._by_model[name])
            self._by_model[name] -= taken
            gpus -= taken

    def _free(self, models: str) -> int:
        return sum(self._by_model[name] for name in self._of(models))

    def _of(self, models: str) -> tuple[str, ...]:
        if models not in self._named:
            asked = models_of(models)
            self._named[models] = tuple(name for name in sorted(self._by_model) if is_of(asked, name))
        return self._named[models]
