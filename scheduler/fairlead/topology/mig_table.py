"""The grids of a fleet by device: what a column of states means, over all grids at once.

A column of states has one number a device. Grids are few, and their columns lie one behind the other, so that a
question about the whole fleet is one look-up a device.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from fairlead.model.hardware import Gpu
from fairlead.topology.mig_devices import grid_of_gpu, part_of
from fairlead.topology.mig_grid import Grid, Mix, grid_milli
from fairlead.topology.mig_states import IntColumn, readonly

CLOSED = -1
"""The state of a device that gives no instances: it has no grid, or what is known to be on it contradicts its grid."""
_REMEMBERED = 256
_LEFT = ""  # no profile has this name


@dataclass(frozen=True, slots=True, eq=False)
class MigTable:
    """Which grid each device has; read-only.

    grids       the distinct ones
    grid_of     shape (nodes, devices): position in `grids`, -1 for a device that gives no instances
    parts_only  shape (nodes,): devices with a grid that are never given whole, as bits
    """

    grids: tuple[Grid, ...]
    grid_of: IntColumn
    parts_only: IntColumn
    _first: IntColumn
    _rooms: dict[str, IntColumn] = field(default_factory=dict[str, IntColumn])
    _ranks: dict[tuple[str, Mix], IntColumn] = field(default_factory=dict[tuple[str, Mix], IntColumn])

    def grid(self, row: int, bit: int) -> Grid | None:
        """Return the grid of one device, None where it gives no instances."""
        at = int(self.grid_of[row, bit])
        return None if at < 0 else self.grids[at]

    def empty(self) -> IntColumn:
        """Return the states of devices with nothing on them. Shape (nodes, devices)."""
        return np.where(self.grid_of >= 0, 0, CLOSED).astype(np.int64)

    def put(self, row: int, bit: int, state: int, profile: str, start: int) -> int:
        """Return a device's state with one more instance, `CLOSED` where that cannot be."""
        grid = self.grid(row, bit)
        if grid is None or state < 0 or start not in grid.starts(state, profile):
            return CLOSED
        return grid.put(state, profile, start)

    def take_out(self, row: int, bit: int, state: int, profile: str, start: int) -> int:
        """Return a device's state with one instance less, `CLOSED` where it is not there."""
        grid = self.grid(row, bit)
        if grid is None or state < 0 or (profile, start) not in grid.layout(state):
            return CLOSED
        return grid.take_out(state, profile, start)

    def room(self, profile: str, rows: IntColumn, states: IntColumn) -> IntColumn:
        """Return how many more instances fit on devices in these states. Shape (rows, devices), like `states`."""
        found = self._rooms.get(profile)
        if found is None:
            found = self._rooms[profile] = self._joined([grid.room(profile) for grid in self.grids])
        return self._look_up(found, rows, states)

    def rank(self, profile: str, mix: Mix, rows: IntColumn, states: IntColumn) -> IntColumn:
        """Return what an instance would cost on devices in these states: a rank, lower is better.

        What counts is the part of a device's worth to future shapes that is lost; equal parts have one rank.
        """
        found = self._ranks.get((profile, mix))
        if found is None:
            if len(self._ranks) >= _REMEMBERED:
                self._ranks.clear()
            found = self._ranks[profile, mix] = self._ranked(profile, mix)
        return self._look_up(found, rows, states)

    def left(self, rows: IntColumn, states: IntColumn) -> IntColumn:
        """Return the thousandths of a GPU that can still be given out of devices in these states."""
        found = self._rooms.get(_LEFT)
        if found is None:
            found = self._rooms[_LEFT] = self._joined([_left(grid) for grid in self.grids])
        return self._look_up(found, rows, states)

    def milli_most(self, profile: str, devices: IntColumn) -> int:
        """Return the most thousandths of a GPU that an instance takes on any of these devices (bits, by row)."""
        bits = np.arange(self.grid_of.shape[1])
        used = np.unique(self.grid_of[((devices[:, None] >> bits) & 1).astype(np.bool_)])
        return max((grid_milli(self.grids[at], profile) for at in used.tolist() if at >= 0), default=0)

    def _look_up(self, column: IntColumn, rows: IntColumn, states: IntColumn) -> IntColumn:
        grid_of = self.grid_of[rows]
        known = (grid_of >= 0) & (states >= 0)
        found = np.zeros(states.shape, dtype=np.int64)
        found[known] = column[self._first[grid_of[known]] + states[known]]
        return found

    def _ranked(self, profile: str, mix: Mix) -> IntColumn:
        losses = [grid.choices(profile, mix).loss for grid in self.grids]
        worths = [max(1, int(grid.score(mix)[0])) for grid in self.grids]
        parts = {
            (loss, worth)
            for column, worth in zip(losses, worths, strict=True)
            for loss in np.unique(column).tolist()
        }  # fmt: skip
        exact = {part: Fraction(*part) for part in parts}
        place = {value: at for at, value in enumerate(sorted(set(exact.values())))}
        ranks: list[IntColumn] = []
        for column, worth in zip(losses, worths, strict=True):
            values, inverse = np.unique(column, return_inverse=True)
            rank = np.array([place[exact[loss, worth]] for loss in values.tolist()], dtype=np.int64)
            ranks.append(rank[inverse])
        return self._joined(ranks)

    def _joined(self, columns: Sequence[IntColumn]) -> IntColumn:
        return readonly(np.concatenate(columns) if columns else np.zeros(0, dtype=np.int64))


def _left(grid: Grid) -> IntColumn:
    """Return by state what is left: of the whole GPU where instances are made, of those that exist where not."""
    each = [grid_milli(grid, grid.profiles[row].name) for row, _ in grid.slots]
    whole = 1000 if grid.dynamic else sum(each)
    taken = [sum(milli for at, milli in enumerate(each) if mask >> at & 1) for mask in grid.layouts]
    return whole - np.array(taken, dtype=np.int64)


def mig_table(machines: Sequence[Sequence[Gpu]], width: int) -> MigTable:
    """Return the table of a fleet, by row the GPUs of a node; `width` is how many devices columns have."""
    grid_of = np.full((len(machines), width), -1, dtype=np.int64)
    parts_only = np.zeros(len(machines), dtype=np.int64)
    grids: dict[int, int] = {}
    found: list[Grid] = []
    seen: dict[int, Grid | None] = {}
    for row, gpus in enumerate(machines):
        for bit, gpu in enumerate(gpus[:width]):
            if gpu.mig is None:
                continue
            if id(gpu.mig) not in seen:
                seen[id(gpu.mig)] = grid_of_gpu(gpu)
            grid = seen[id(gpu.mig)]
            if grid is None:
                continue
            if id(grid) not in grids:
                grids[id(grid)] = len(found)
                found.append(grid)
            grid_of[row, bit] = grids[id(grid)]
            if not gpu.whole:
                parts_only[row] |= 1 << bit
    first = np.cumsum([0, *(grid.states for grid in found)])[:-1].astype(np.int64)
    return MigTable(tuple(found), readonly(grid_of), readonly(parts_only), readonly(first))


def parts_of(gpus: Sequence[Gpu], devices: Iterable[str]) -> list[tuple[int, str, int]]:
    """Return (bit, profile, start) of the MIG devices among these names; names of others are left out."""
    found: list[tuple[int, str, int]] = []
    for name in devices:
        part = part_of(gpus, name)
        if part is not None:
            gpu, profile, start = part
            found.append((next(bit for bit, other in enumerate(gpus) if other is gpu), profile, start))
    return found
