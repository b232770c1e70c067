"""What others were promised is kept out of a gang's sight, unless it will be gone by then.

A hole is a device that is free now and promised to somebody from a later moment on. For each gang that is looked at,
the shield stands before the holes that it may not enter and is down before the others; it changes the overlay only when
the next gang may enter other holes than the last one. Beside devices it keeps of each node's CPU, memory and the like
what the promised will need and nobody who ends before will give back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fairlead.model.gang import Gang, GangId, Placement
from fairlead.placement.amounts import FIXED, amounts_asked
from fairlead.planning.end_calendar import Calendar
from fairlead.world.fleet import IntColumn
from fairlead.world.overlay import Lot, Overlay, taking_of
from fairlead.world.use import use_of


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """Devices that `holder` will have from `start_ms` on; `reserved` where that is nobody's promise.

    `rows` are (row, devices as bits, amounts of `FIXED` and extended resources).
    """

    holder: GangId
    start_ms: int
    rows: tuple[tuple[int, int, tuple[int, ...]], ...]
    reserved: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """What some holes keep, row by row: devices, and the least of other amounts. Shape (rows,) each."""

    rows: IntColumn
    masks: IntColumn
    least: Mapping[str, IntColumn]


def kept_for(gang: Gang, placement: Placement, start_ms: int, overlay: Overlay) -> Kept:
    """Return what a placement keeps, row by row."""
    extended = tuple(sorted(overlay.columns.extended))
    found: dict[int, tuple[int, list[int]]] = {}
    for member in placement.members:
        row = overlay.inventory.row.get(member.node)
        if row is None:
            continue
        taking = taking_of(overlay.inventory, row, use_of(gang, member))
        mask, amounts = found.get(row, (0, [0] * (len(FIXED) + len(extended))))
        more = amounts_asked(taking.pod, extended)
        found[row] = mask | taking.mask, [a + b for a, b in zip(amounts, more, strict=True)]
    return Kept(gang.id, start_ms, tuple((row, mask, tuple(amounts)) for row, (mask, amounts) in found.items()))


class Shield:
    """Stands in one overlay, before one set of holes at a time."""

    def __init__(self, overlay: Overlay, calendar: Calendar) -> None:
        """Stand before nothing."""
        self._overlay = overlay
        self._calendar = calendar
        self._names = (*FIXED, *sorted(overlay.columns.extended))
        self._kept: list[Kept] = []
        self._before: tuple[Kept, ...] = ()
        self._lot: Lot | None = None
        self._hidden: dict[int, int] = {}
        self._sums: dict[tuple[Kept, ...], _Sums] = {}

    def keep(self, kept: Kept) -> None:
        """Keep devices for somebody from now on; the shield stands before them from the next `stand_before` on."""
        self._kept = sorted([*self._kept, kept], key=lambda one: (one.start_ms, one.holder))

    def drop(self, holder: GangId) -> None:
        """Keep nothing for somebody any more."""
        self.lower()
        self._kept = [one for one in self._kept if one.holder != holder]

    def __bool__(self) -> bool:
        """Whether anything is kept."""
        return bool(self._kept)

    @property
    def before(self) -> tuple[Kept, ...]:
        """What it stands before now."""
        return self._before

    def kept_until(self, moment_ms: int, but: GangId | None = None) -> tuple[Kept, ...]:
        """Return what is kept from before `moment_ms` on, the earliest first.

        What is kept for `but` is left out if any of it is free: else the same holes do for everybody.
        """
        holes = tuple(one for one in self._kept if one.start_ms < moment_ms)
        if but is None or not any(one.holder == but and self._is_open(one) for one in holes):
            return holes
        return tuple(one for one in holes if one.holder != but)

    def _is_open(self, kept: Kept) -> bool:
        """Whether any device that is kept is free, also where the shield itself keeps it."""
        free = self._overlay.columns.free_mask
        return any((int(free[row]) | self._hidden.get(row, 0)) & mask for row, mask, _ in kept.rows)

    @property
    def hides(self) -> bool:
        """Whether any free device is out of sight now."""
        return bool(self._hidden)

    @property
    def hides_anything(self) -> bool:
        """Whether anything that is free is out of sight now: devices, or CPUs, memory and the like."""
        return self._lot is not None and (self.hides or bool(self._lot.amounts))

    def stand_before(self, holes: tuple[Kept, ...]) -> None:
        """Let what is free of these holes be taken in the overlay, and nothing else of all that is kept."""
        if holes == self._before:
            return
        self.lower()
        self._before = holes
        if holes:
            self._lot = self._lot_of(holes)
            if self._lot is not None:
                self._overlay.take_lot(self._lot)
                hidden = zip(self._lot.rows.tolist(), self._lot.masks.tolist(), strict=True)
                self._hidden = {row: mask for row, mask in hidden if mask}

    def lower(self) -> None:
        """Stand before nothing."""
        if self._lot is not None:
            self._overlay.give_lot(self._lot)
        self._before, self._lot, self._hidden = (), None, {}

    def _lot_of(self, holes: tuple[Kept, ...]) -> Lot | None:
        sums = self._sums.get(holes)
        if sums is None:
            sums = self._sums[holes] = self._sum_up(holes)
        if not len(sums.rows):
            return None
        return Lot(sums.rows, sums.masks & self._overlay.columns.free_mask[sums.rows], sums.least)

    def _sum_up(self, holes: Sequence[Kept]) -> _Sums:
        masks: dict[int, int] = {}
        wanted: dict[int, IntColumn] = {}
        most: dict[int, IntColumn] = {}
        for hole in holes:  # the earliest first: by each start, what is promised until then less what ends until then
            for row, mask, amounts in hole.rows:
                masks[row] = masks.get(row, 0) | mask
                wanted[row] = wanted.get(row, 0) + np.array(amounts, dtype=np.int64)
                short = wanted[row] - (0 if hole.reserved else self._ended(row, hole.start_ms))
                most[row] = np.maximum(most.get(row, 0), short)
        rows = np.array(sorted(masks), dtype=np.int64)
        bits = np.array([masks[row] for row in rows.tolist()], dtype=np.int64)
        least = np.maximum(np.array([most[row] for row in rows.tolist()], dtype=np.int64), 0)
        used = {name: least[:, at] for at, name in enumerate(self._names) if least.size and least[:, at].any()}
        return _Sums(rows, bits, used)

    def _ended(self, row: int, by_ms: int) -> IntColumn:
        """Return what is given back on a row by a moment."""
        total = np.zeros(len(self._names), dtype=np.int64)
        for gang in self._calendar.on_row.get(row, ()):
            entry = self._calendar.entries[gang]
            if entry.end_ms <= by_ms:
                for taking in entry.takings:
                    if taking.row == row:
                        total += taking.pods * np.array(amounts_asked(taking.pod, self._names[4:]), dtype=np.int64)
        return total
