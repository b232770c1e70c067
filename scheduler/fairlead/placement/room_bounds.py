"""How many pods each node would take if everybody were gone whom a gang has a right to: never too few.

A gang for which even that is not enough is refused at the cost of a few column operations on the rows that changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fairlead.model.gang import Gang, Role
from fairlead.placement.amounts import FIXED, fixed_asked, fixed_columns
from fairlead.placement.columns import PodClass
from fairlead.placement.feasible import MANY
from fairlead.placement.parts import instances_on, shares_on
from fairlead.placement.placer import Placer
from fairlead.placement.victims import Victims, Yield
from fairlead.world.fleet import WHOLE, IntColumn, Level

BOUNDS_KEPT = 256
"""Kinds of request and rights remembered at once: about 0.1 MB each at 10,000 nodes."""


@dataclass(slots=True, eq=False)
class Bound:
    """The most pods of one kind: `room` by row, shape (nodes,); `sums` by level name, shape (domains,) each."""

    kind: PodClass
    room: IntColumn
    tick: int = -1
    yield_tick: int = -1
    sums: dict[str, IntColumn] = field(default_factory=dict[str, IntColumn])

    def sums_of(self, level: Level) -> IntColumn:
        """Return the room of each domain of a level. Shape (domains,). Not to be modified."""
        known = self.sums.get(level.name)
        if known is None:
            known = self.sums[level.name] = domain_sums(self.room, level)
        return known


def domain_sums(column: IntColumn, level: Level) -> IntColumn:
    """Sum a column over the domains of a level. Shape (domains,)."""
    inside = level.domain_of >= 0
    sums = np.zeros(len(level.names), dtype=np.int64)
    np.add.at(sums, level.domain_of[inside], column[inside])
    return sums


class Bounds:
    """All bounds over one placer's overlay; none is older than the last change when it is handed out."""

    def __init__(self, placer: Placer, victims: Victims) -> None:
        """Nothing is computed yet."""
        self._placer = placer
        self._victims = victims
        self._bounds: dict[tuple[object, ...], Bound] = {}

    def of(self, gang: Gang, role: Role, yields: Sequence[Yield], model: str = "") -> Bound:
        """Return the bound for pods of a role, if everybody in `yields` were gone; `model` narrows its devices."""
        kind = self._placer.classes.of(gang, role, model)
        key = (kind, *[group.serial for group in yields])
        known = self._bounds.pop(key, None)
        if known is None:
            if len(self._bounds) >= BOUNDS_KEPT:
                del self._bounds[next(iter(self._bounds))]
            known = Bound(kind, np.zeros(len(kind.room), dtype=np.int64))
        self._bounds[key] = known
        self._refresh(known, yields)
        return known

    def _refresh(self, bound: Bound, yields: Sequence[Yield]) -> None:
        overlay = self._placer.overlay
        newest = max(group.tick for group in yields)
        if bound.tick == overlay.tick and bound.yield_tick >= newest:
            return
        if bound.tick < 0:
            rows: IntColumn = np.arange(len(bound.room))
        else:
            changed = overlay.touched > bound.tick
            for group in yields:
                if group.tick > bound.yield_tick:
                    changed |= group.stamp > bound.yield_tick
            rows = np.flatnonzero(changed)
        bound.tick, bound.yield_tick = overlay.tick, newest
        if not len(rows):
            return
        room = self._room(bound.kind, yields, rows)
        change = room - bound.room[rows]
        bound.room[rows] = room
        for name, sums in bound.sums.items():
            domains = overlay.inventory.levels[name].domain_of[rows]
            inside = domains >= 0
            np.add.at(sums, domains[inside], change[inside])

    def _room(self, kind: PodClass, yields: Sequence[Yield], rows: IntColumn) -> IntColumn:
        """Count like `slots_on`, and in favour of the pod where victims hold parts, ports or amounts above nodes."""
        overlay, role, asked = self._placer.overlay, kind.role, kind.role.pod.requests
        columns, fit = overlay.columns, kind.fit
        room = np.where(fit.allowed[rows], MANY, 0).astype(np.int64)
        if role.gpus or role.share is not None or role.mig:
            freed = np.zeros_like(rows)
            for group in yields:
                freed |= group.mask[rows] | group.parts[rows]
            devices = fit.devices[rows]
            if role.gpus:
                free = (columns.free_mask[rows] | freed & overlay.inventory.healthy_mask[rows]) & devices
                room = np.minimum(room, np.bitwise_count(free).astype(np.int64) // role.gpus)
            elif role.share is not None:
                healthy = overlay.inventory.healthy_mask[rows]
                now = shares_on(role.share, kind.group, columns, rows, devices & healthy).sum(axis=1)
                more = np.bitwise_count(freed & devices & healthy).astype(np.int64) * (WHOLE // role.share.milli)
                room = np.minimum(room, now + more)
            else:
                devices = devices & overlay.inventory.mig_mask[rows]
                now = instances_on(role.mig, 0, columns, rows, devices)
                gone = ((freed[:, None] & devices[:, None]) >> np.arange(now.shape[1]) & 1).astype(np.bool_)
                empty = columns.mig.room(role.mig, rows, columns.mig.empty()[rows])
                room = np.minimum(room, np.where(gone, empty, now).sum(axis=1))
        for at, (amount, column) in enumerate(zip(fixed_asked(role.pod), fixed_columns(columns), strict=True)):
            if amount > 0:
                room = np.minimum(room, _with(column[rows], yields, at, rows) // amount)
        names = self._victims.extended
        for name, amount in asked.extended:
            if amount > 0 and name in columns.extended:
                left = _with(columns.extended[name][rows], yields, len(FIXED) + names.index(name), rows)
                room = np.minimum(room, left // amount)
            elif amount > 0:
                room = np.zeros_like(room)
        if role.pod.host_ports:
            room = np.minimum(room, 1)
        return np.maximum(room, 0)


def _with(left: IntColumn, yields: Sequence[Yield], at: int, rows: IntColumn) -> IntColumn:
    for group in yields:
        left = left + group.amounts[at, rows]
    return left
