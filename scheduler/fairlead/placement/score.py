"""What a pod on a node costs: the pace its devices would have first, then what the placement leaves behind."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from fairlead.model.gang import Role
from fairlead.placement.feasible import Fit
from fairlead.placement.parts import instances_on
from fairlead.topology.mig_grid import Mix
from fairlead.world.fleet import WHOLE, IntColumn
from fairlead.world.overlay import Overlay

NEVER = int(np.iinfo(np.int64).max)
"""The cost where there is no room."""
_PACE_UNIT = 27  # paces are compared in units of 2^27 bytes/s (128 MiB/s), so that cost has 44 bits
_PACE_MOST = (1 << 17) - 1
_OPENED_SHIFT = 40  # ranks of losses are far below 2^40
PACE_SHIFT = 45
"""Bits of a cost below those of the pace."""


class Remainder(Protocol):
    """A score of what a placement leaves behind."""

    version: int

    def beside(self, rows: IntColumn, tick: int) -> IntColumn:
        """Return `rows`, which changed since a tick, and all others whose costs did with them, lowest first."""
        ...

    def states(self, overlay: Overlay, rows: IntColumn) -> list[list[int]] | None:
        """Return what tells costs of whole devices apart on rows that are alike to Kubernetes, a list a fact.

        None where that is not worth remembering.
        """
        ...

    def costs(self, role: Role, fit: Fit, group: int, overlay: Overlay, rows: IntColumn) -> IntColumn:
        """Return the cost of one pod on each of `rows`, |cost| < 2^44, lower is better. Shape (rows,)."""
        ...

    def device(self, role: Role, fit: Fit, group: int, overlay: Overlay, row: int, room: IntColumn) -> int:
        """Return the device of a row that a share goes to, of those where `room`, shape (devices,), is not 0."""
        ...


class Score:
    """Costs of rows for one kind of pod. `version` changes when all costs do."""

    def __init__(self, remainder: Remainder | None = None) -> None:
        """Score by `remainder`; without one, by how little of a node a placement leaves free."""
        self._remainder = remainder
        self.profiles: Mix = ()

    def use(self, remainder: Remainder, profiles: Mix = ()) -> None:
        """Score by another remainder from now on; its version must be another too.

        `profiles` are the MIG profiles that are asked for lately, with how often.
        """
        self._remainder, self.profiles = remainder, profiles

    @property
    def version(self) -> int:
        """A number that is another whenever costs of rows that did not change are."""
        return -1 if self._remainder is None else self._remainder.version

    def beside(self, rows: IntColumn, tick: int) -> IntColumn:
        """Return `rows`, which changed since a tick, and all others whose costs did with them, lowest first."""
        return rows if self._remainder is None else self._remainder.beside(rows, tick)

    def states(self, role: Role, overlay: Overlay, rows: IntColumn) -> list[list[int]] | None:
        """Return what tells the costs of a plain role apart on rows that are alike in table, devices and amounts.

        None where that is not worth remembering.
        """
        return [] if self._remainder is None else self._remainder.states(overlay, rows)

    def costs(self, role: Role, fit: Fit, group: int, room: IntColumn, overlay: Overlay, rows: IntColumn) -> IntColumn:
        """Return one pod's cost on each of `rows`, NEVER where `room` is 0. Shape (rows,)."""
        if role.mig:
            return np.where(room > 0, self.instance_costs(role, fit, group, overlay, rows).min(axis=1), NEVER)
        cost = (
            tightness(role, overlay, rows)
            if self._remainder is None
            else self._remainder.costs(role, fit, group, overlay, rows)
        )
        if not role.gpus and role.share is None:
            cost = cost + np.minimum(room, WHOLE - 1)  # of nodes that are equal to GPUs the one with the least room
        if role.gpus > 1:
            cost = cost + ((_PACE_MOST - paces(role.gpus, fit, overlay, rows, room)) << PACE_SHIFT)
        return np.where(room > 0, cost, NEVER)

    def device(self, role: Role, fit: Fit, group: int, overlay: Overlay, row: int, room: IntColumn) -> int:
        """Return the device of a row that a share goes to; `room`, shape (devices,), says how many each still takes.

        The fullest that takes it: shared devices before idle ones. Ties end at the lower number.
        """
        if self._remainder is not None:
            return self._remainder.device(role, fit, group, overlay, row, room)
        left = np.where(room > 0, overlay.columns.milli[row], NEVER)
        return int(left.argmin())

    def instance_costs(self, role: Role, fit: Fit, group: int, overlay: Overlay, rows: IntColumn) -> IntColumn:
        """Return what one MIG instance costs on each device, NEVER where there is no room. Shape (rows, devices).

        A device that is cut already before one that would have to be, then the part of its worth to future shapes that
        is lost. A whole GPU is cut last.
        """
        columns = overlay.columns
        states = columns.mig_state[rows]
        devices = fit.devices[rows] & overlay.inventory.mig_mask[rows]
        room = instances_on(role.mig, group, columns, rows, devices)
        whole = ((columns.free_mask[rows, None] >> np.arange(states.shape[1])) & 1).astype(np.int64)
        cost = columns.mig.rank(role.mig, self.profiles, rows, states)
        return np.where(room > 0, cost + ((states == 0) + whole << _OPENED_SHIFT), NEVER)


def tightness(role: Role, overlay: Overlay, rows: IntColumn) -> IntColumn:
    """Return how many thousandths of GPUs a node has left. Shape (rows,)."""
    columns = overlay.columns
    idle = WHOLE * np.bitwise_count(columns.free_mask[rows]).astype(np.int64)
    if role.share is not None:
        shared = columns.group[rows] > 0
        idle = idle * 4 + np.where(shared, columns.milli[rows], 0).sum(axis=1)  # rather a device that is shared already
    return idle


def paces(count: int, fit: Fit, overlay: Overlay, rows: IntColumn, room: IntColumn) -> IntColumn:
    """Return the pace that the best `count` devices of each row would have, in units of 2^27 bytes/s. Shape (rows,)."""
    inventory = overlay.inventory
    free = overlay.columns.free_mask[rows] & fit.devices[rows]
    pace = np.zeros(len(rows), dtype=np.int64)
    open_rows = np.flatnonzero(room)
    if not len(open_rows):
        return pace
    table_of = inventory.table_of[rows]
    seen: dict[tuple[int, int], int] = {}
    found: list[int] = []
    for at, kind, mask in zip(open_rows.tolist(), table_of[open_rows].tolist(), free[open_rows].tolist(), strict=True):
        known = seen.get((kind, mask))
        if known is None:
            best = inventory.tables[int(rows[at])].best(mask, count)[1]
            known = seen[kind, mask] = min(_PACE_MOST, best >> _PACE_UNIT)
        found.append(known)
    pace[open_rows] = found
    return pace
