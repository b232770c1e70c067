"""What is closed to the gang in hand, because it is kept free for somebody else; put up and taken down on one overlay.

A row that is closed whole looks as if its pods were all there already; of one that is closed in part, so many free GPUs
are out of sight. So whatever counts rows, seats gangs or makes room goes round it. Putting up and taking down only adds
and subtracts, so both may happen between changes that are rolled back later.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fairlead.model.gang import PodShape
from fairlead.model.hardware import Resources
from fairlead.world.fleet import IntColumn
from fairlead.world.overlay import Batch, Overlay

_PODS = 1 << 20
"""More pods than any node takes."""
_POD = PodShape(requests=Resources(pods=1))
_NO_POD = PodShape(requests=Resources())

Closed = Mapping[int, int]
"""Row -> GPUs that are closed there; `WHOLE_ROW` closes all of it."""
WHOLE_ROW = 1 << 10
NOTHING: Closed = {}


class Fence:
    """Closes rows of an overlay, one set at a time. A new World takes every fence down."""

    def __init__(self, overlay: Overlay) -> None:
        """Close nothing."""
        self._overlay = overlay
        self.closed: Closed = NOTHING
        self._hidden: dict[int, int] = {}

    def around(self, closed: Closed) -> None:
        """Close exactly this; what was closed before and is not among it is open again."""
        if closed == self.closed:
            return
        opened = [row for row, gpus in sorted(self.closed.items()) if closed.get(row) != gpus]
        shut = [row for row, gpus in sorted(closed.items()) if self.closed.get(row) != gpus]
        self._count([row for row in opened if row not in self._hidden], -_PODS)
        self._show([row for row in opened if row in self._hidden])
        self._count([row for row in shut if closed[row] >= WHOLE_ROW], _PODS)
        self._hide({row: closed[row] for row in shut if closed[row] < WHOLE_ROW})
        self.closed = dict(closed)

    def free_mask(self, rows: IntColumn) -> IntColumn:
        """Return the devices that are free on some rows, those out of sight included. Shape (rows,)."""
        free = self._overlay.columns.free_mask[rows]
        if self._hidden:
            free = free | np.array([self._hidden.get(row, 0) for row in rows.tolist()], dtype=np.int64)
        return free

    def _count(self, rows: list[int], pods: int) -> None:
        if rows:
            nothing = np.zeros(len(rows), dtype=np.int64)
            counts = np.full(len(rows), pods, dtype=np.int64)
            self._overlay.take_batch(Batch(rows=np.array(rows), masks=nothing, counts=counts, pod=_POD))

    def _hide(self, gpus: Mapping[int, int]) -> None:
        masks = {row: highest_bits(int(self._overlay.columns.free_mask[row]), count) for row, count in gpus.items()}
        self._flip(masks)
        self._hidden |= masks

    def _show(self, rows: list[int]) -> None:
        self._flip({row: self._hidden.pop(row) for row in rows})

    def _flip(self, masks: Mapping[int, int]) -> None:
        if masks:
            rows, bits = np.array(list(masks), dtype=np.int64), np.array(list(masks.values()), dtype=np.int64)
            nobody = np.zeros(len(rows), dtype=np.int64)
            self._overlay.take_batch(Batch(rows=rows, masks=bits, counts=nobody, pod=_NO_POD))


def highest_bits(mask: int, count: int) -> int:
    """Return the highest `count` bits of a mask, all where it has fewer."""
    found = 0
    for _ in range(min(count, mask.bit_count())):
        bit = 1 << (mask.bit_length() - 1)
        found |= bit
        mask ^= bit
    return found
