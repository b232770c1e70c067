"""Who holds how much on each node, by service class: kept from cycle to cycle, brought up to date by what changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fairlead.model.gang import GangId, ServiceClass
from fairlead.world.attempts import AttemptLog
from fairlead.world.fleet import IntColumn, Inventory
from fairlead.world.snapshot import Running, World


@dataclass(frozen=True, slots=True)
class _Held:
    service_class: ServiceClass
    on_row: Mapping[int, int]


class ClassUse:
    """Thousandths of GPUs by class and row, and which gangs are on a row. A job of unknown class counts as training."""

    def __init__(self) -> None:
        """Nobody holds anything."""
        self._inventory: Inventory | None = None
        self._log: AttemptLog | None = None
        self._revision = -1
        self._held: dict[GangId, _Held] = {}
        self._milli: dict[ServiceClass, IntColumn] = {}
        self._on_row: list[dict[GangId, int]] = []

    def follow(self, world: World) -> None:
        """Become what a fresh one over `world` would be. O(changes)."""
        inventory, before = world.inventory, self._inventory
        changed = world.running.changed_since(self._log, self._revision)
        if before is None or (inventory is not before and inventory.patched != before.version) or changed is None:
            self._held, self._on_row = {}, [{} for _ in inventory.nodes]
            self._milli = {kind: np.zeros(len(inventory.nodes), dtype=np.int64) for kind in ServiceClass}
            changed = {attempt.gang for attempt in world.running}
        self._inventory, self._log, self._revision = inventory, world.running.log, world.running.revision
        for gang in changed:
            self._forget(gang)
            attempt = world.running.everyone.get(gang)
            if attempt is not None:
                self._file(attempt, inventory)

    def milli(self, service_class: ServiceClass) -> IntColumn:
        """Return what a class holds on each row. Shape (nodes,), thousandths of a GPU. Not to be modified."""
        return self._milli[service_class]

    def on_row(self, row: int) -> Mapping[GangId, int]:
        """Return who holds GPUs on a row, and how many thousandths."""
        return self._on_row[row]

    def _file(self, attempt: Running, inventory: Inventory) -> None:
        service_class = attempt.spec.service_class if attempt.spec is not None else ServiceClass.TRAINING
        on_row: dict[int, int] = {}
        for rank in sorted(attempt.holding):
            member = attempt.placement.members[rank]
            row = inventory.row.get(member.node)
            if row is not None and member.gpu_milli:
                on_row[row] = on_row.get(row, 0) + member.gpu_milli
        self._held[attempt.gang] = _Held(service_class, on_row)
        for row, milli in on_row.items():
            self._milli[service_class][row] += milli
            self._on_row[row][attempt.gang] = milli

    def _forget(self, gang: GangId) -> None:
        held = self._held.pop(gang, None)
        if held is not None:
            for row, milli in held.on_row.items():
                self._milli[held.service_class][row] -= milli
                del self._on_row[row][gang]
