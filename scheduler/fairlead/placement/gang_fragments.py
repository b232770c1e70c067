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
    domain_slots shape (domains + 1,): the same summed over domains of `level`; the last is of nodes in none
    changed      shape (domains + 1,): the tick at which `spare` was seen to be another; `latest` is the last of them
    """

    kind: Kind
    weight: int
    level: Level
    suits: IntColumn
    slots: IntColumn
    domain_slots: IntColumn
    changed: IntColumn
    latest: int = -1

    @classmethod
    def of(cls, kind: Kind, weight: int, level: Level, model: IntColumn, models: tuple[str, ...]) -> GangSlots:
        """Return a kind with nothing counted yet; `model` has the number of each node's model in `models`."""
        suits = np.array([*(int(is_of(kind.models, name)) for name in models), int(not kind.models)], dtype=np.int64)
        slots, held, changed = (np.zeros(size, dtype=np.int64) for size in (len(model), *2 * (len(level.names) + 1,)))
        return cls(kind, weight, level, suits[model], slots, held, changed)

    def count(self, rows: IntColumn, idle: IntColumn, cpu_milli: IntColumn, tick: int) -> None:
        """Count some nodes anew, that have so many idle devices and so much CPU now. Shape (rows,) each."""
        slots = self._room(rows, idle, cpu_milli)
        change = slots - self.slots[rows]
        if not change.any():
            return
        self.slots[rows] = slots
        moved = np.flatnonzero(change)
        domains = self.level.domain_of[rows[moved]]
        before = self.domain_slots[domains]
        np.add.at(self.domain_slots, domains, change[moved])
        matters = (self.domain_slots[domains] - before) % self.kind.replicas != 0  # costs go by what whole gangs leave
        if matters.any():
            self.changed[domains[matters]] = self.latest = tick

    def changed_since(self, tick: int) -> IntColumn:
        """Return the nodes that have a part in domains where `spare` was seen to change after a tick."""
        level = self.level
        domains = np.flatnonzero(self.changed[:-1] > tick).tolist() if self.latest > tick else []
        runs = [level.order[level.starts[at] : level.starts[at + 1]] for at in domains]
        rows: IntColumn = np.concatenate([level.order[:0], *runs])
        return rows[self.slots[rows] > 0]

    def spare(self, rows: IntColumn) -> IntColumn:
        """Return how many members the domain of each row holds beyond whole gangs; 0 where the row has no part in it.

        All that costs of a row depend on beside the row itself. Shape (rows,).
        """
        domains = self.level.domain_of[rows]
        inside = (domains >= 0) & (self.slots[rows] > 0)
        return np.where(inside, self.domain_slots[domains] % self.kind.replicas, 0)

    def cost(self, rows: IntColumn, idle: IntColumn, cpu_milli: IntColumn) -> IntColumn:
        """Return what is lost when each of `rows` is left with so many idle devices and CPU. Shape (rows,)."""
        after = self._room(rows, np.maximum(idle, 0), np.maximum(cpu_milli, 0))
        domains = self.level.domain_of[rows]
        lost = domain_cost(
            self.slots[rows],
            np.minimum(after, self.slots[rows]),
            np.where(domains >= 0, self.domain_slots[domains], 0),
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
