"""One column per kind of request: how many pods of it each node takes, and what one there costs.

Only what changed is computed again. A kind (`PodClass`) is what makes two pods equal to the scheduler. Its `room` and
`cost` are kept from cycle to cycle; the overlay stamps rows as they change, and a class looks again at the rows stamped
since it looked last. Sums over the domains of a level follow the rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fairlead.model.gang import Gang, Role, ServiceClass
from fairlead.placement.feasible import Feasibility, Fit, slots_on
from fairlead.placement.parts import nics_room
from fairlead.placement.score import NEVER, Score
from fairlead.placement.wishes import takes_devices
from fairlead.world.fleet import IntColumn, Level
from fairlead.world.overlay import Overlay
from fairlead.world.use import share_group


@dataclass(slots=True, eq=False)
class PodClass:
    """The columns of one kind of request.

    room   shape (nodes,): pods that fit on top of what is there
    cost   shape (nodes,): the score of one more pod, lower is better; NEVER where there is no room
    sums   level name -> shape (domains,): room summed over each domain; `total` over all, `most` on one node
    model  the one GPU model that is allowed, "" for any that the role accepts
    wants  whether its pods get devices: then only nodes with acceptable ones are ever looked at
    """

    role: Role
    fit: Fit
    group: int
    model: str
    room: IntColumn
    cost: IntColumn
    wants: bool
    total: int = 0
    most: int = 0
    tick: int = -1
    score_version: int = -1
    sums: dict[str, IntColumn] = field(default_factory=dict[str, IntColumn])


class ClassColumns:
    """All classes over one overlay; none is older than the last change of it when it is handed out."""

    def __init__(self, overlay: Overlay, feasibility: Feasibility, score: Score) -> None:
        """Nothing is computed yet."""
        self.overlay = overlay
        self.feasibility = feasibility
        self.score = score
        self._classes: dict[tuple[object, ...], PodClass] = {}
        self._changed: tuple[tuple[int, int, int], IntColumn] = (-1, -1, -1), np.zeros(0, dtype=np.int64)

    def of(self, gang: Gang, role: Role, model: str = "") -> PodClass:
        """Return the fresh columns of a role's pods; `model` narrows them to one GPU model."""
        kind = self.known(gang, role, model)
        self.refresh(kind)
        return kind

    def known(self, gang: Gang, role: Role, model: str = "") -> PodClass:
        """Return a role's class, its columns as old as they are."""
        group = share_group(gang, role)
        key = (_asked(role), gang.service_class, group, model)
        known = self._classes.get(key)
        if known is None:
            if len(self._classes) >= CLASSES_KEPT:
                self._classes.clear()
            known = self._classes[key] = self._new(gang.service_class, role, group, model)
        return known

    def sums(self, kind: PodClass, level: Level) -> IntColumn:
        """Return the room of a class summed over the domains of a level. Shape (domains,). Not to be modified."""
        known = kind.sums.get(level.name)
        if known is None:
            inside = level.domain_of >= 0
            known = np.zeros(len(level.names), dtype=np.int64)
            np.add.at(known, level.domain_of[inside], kind.room[inside])
            kind.sums[level.name] = known
        return known

    def _new(self, service: ServiceClass, role: Role, group: str, model: str) -> PodClass:
        nodes = len(self.overlay.inventory.nodes)
        return PodClass(
            role=role,
            fit=self.feasibility.fit(role, service, model=model),
            group=self.overlay.columns.group_number(group),
            model=model,
            room=np.zeros(nodes, dtype=np.int64),
            cost=np.full(nodes, NEVER, dtype=np.int64),
            wants=takes_devices(role),
        )

    def refresh(self, kind: PodClass) -> None:
        """Bring the columns of a class up to the last change of the overlay."""
        overlay = self.overlay
        if kind.tick == overlay.tick and kind.score_version == self.score.version:
            return
        if kind.tick < 0 or kind.score_version != self.score.version:
            rows: IntColumn = np.arange(len(kind.room))
        else:
            above = not self.feasibility.budgets.keys().isdisjoint(name for name, _ in kind.role.pod.requests.extended)
            rows = np.arange(len(kind.room)) if above else self._changed_since(kind.tick)
        kind.tick, kind.score_version = overlay.tick, self.score.version
        if kind.wants and len(rows):
            rows = rows[kind.fit.devices[rows] != 0]
        if not len(rows):
            return
        room = slots_on(kind.role, kind.fit, kind.group, overlay, rows)
        if kind.role.nics_per_gpu and kind.role.gpus:
            room = np.minimum(room, nics_room(kind.role, self.feasibility.nics, overlay.columns.nics, rows))
        for name, caps in self.feasibility.caps_above(kind.role, overlay.columns).items():
            domains = overlay.inventory.levels[name].domain_of[rows]
            room = np.where(domains >= 0, np.minimum(room, caps[domains]), room)
        change = room - kind.room[rows]
        kind.room[rows] = room
        kind.cost[rows] = self.score.costs(kind.role, kind.fit, kind.group, room, overlay, rows)
        if not change.any():
            return
        kind.total += int(change.sum())
        kind.most = int(kind.room.max())
        if kind.sums:
            for name, sums in kind.sums.items():
                domains = overlay.inventory.levels[name].domain_of[rows]
                inside = domains >= 0
                np.add.at(sums, domains[inside], change[inside])

    def _changed_since(self, tick: int) -> IntColumn:
        """Return the rows whose room or cost may be another since a tick; classes of one age share the answer."""
        key = (tick, self.overlay.tick, self.score.version)
        if self._changed[0] != key:
            rows = self.overlay.changed_since(tick)
            if self.score.spreads and len(rows):
                rows = self.score.neighbours(rows)
            self._changed = key, rows
        return self._changed[1]


CLASSES_KEPT = 512
"""Kinds of request remembered at once: about 0.3 MB each at 10,000 nodes."""


def _asked(role: Role) -> tuple[object, ...]:
    return (role.gpus, role.gpu_model, role.gpu_memory_bytes, role.share, role.mig, role.nics_per_gpu, role.pod)
