"""What a pod takes from gangs: places of whole gangs that its domain could still hold, counted as nodes change.

The mix knows gangs of several pods inside one domain of a level. A domain with room for S members of such a gang holds
S // replicas of them; a placement costs what that number falls by. So single pods go where racks are broken already.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fairlead.placement.fragments import domain_cost
from fairlead.world.demand import Kind, is_of
from fairlead.world.fleet import IntColumn, Level


@dataclass(slots=True, eq=False)
class GangSlots:
    """One kind of gang over all nodes.

    weight       of the kind in the mix, in 10^-6
    suits        shape (nodes,): 1 where the node's model is accepted, else 0
    slots        shape (nodes,): members that each node has room for
    domain_slots shape (domains,): the same summed over domains of `level`
    """

    kind: Kind
    weight: int
    level: Level
    suits: IntColumn
    slots: IntColumn
    domain_slots: IntColumn

    @classmethod
    def of(cls, kind: Kind, weight: int, level: Level, model: IntColumn, models: tuple[str, ...]) -> GangSlots:
        """Return a kind with nothing counted yet; `model` has the number of each node's model in `models`."""
        suits = np.array([*(int(is_of(kind.models, name)) for name in models), int(not kind.models)], dtype=np.int64)
        nothing = np.zeros(len(model), dtype=np.int64)
        return cls(kind, weight, level, suits[model], nothing, np.zeros(len(level.names), dtype=np.int64))

    def count(self, rows: IntColumn, idle: IntColumn, cpu_milli: IntColumn) -> None:
        """Count some nodes anew, that have so many idle devices and so much CPU. Shape (rows,) each."""
        slots = self._room(rows, idle, cpu_milli)
        domains = self.level.domain_of[rows]
        inside = domains >= 0
        np.add.at(self.domain_slots, domains[inside], (slots - self.slots[rows])[inside])
        self.slots[rows] = slots

    def cost(self, rows: IntColumn, idle: IntColumn, cpu_milli: IntColumn) -> IntColumn:
        """Return what is lost when each of `rows` is left with so many idle devices and CPU. Shape (rows,)."""
        after = self._room(rows, np.maximum(idle, 0), np.maximum(cpu_milli, 0))
        domains = self.level.domain_of[rows]
        held = np.where(domains >= 0, self.domain_slots[domains], 0)
        lost = domain_cost(
            self.slots[rows],
            np.minimum(after, self.slots[rows]),
            held,
            replicas=self.kind.replicas,
            milli=self.kind.pod_milli,
            weight=self.weight,
        )
        return np.where(domains >= 0, lost, 0)

    def _room(self, rows: IntColumn, idle: IntColumn, cpu_milli: IntColumn) -> IntColumn:
        room = idle // self.kind.gpus
        if self.kind.cpu_milli:
            room = np.minimum(room, cpu_milli // self.kind.cpu_milli)
        return room * self.suits[rows]
