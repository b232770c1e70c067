"""Rails: which ones a set of GPUs talks over, and sets on the same rails as the rest of a gang."""

from __future__ import annotations

import numpy as np

from fairlead.placement.local_shape import LocalShape
from fairlead.placement.nic_matching import own_nic
from fairlead.placement.uplinks import Uplinks
from fairlead.topology.tables import ShapeTable

_ANSWERS_UP_TO = 16_384  # 2 MB for each shape


class Rails:
    """Answers for one machine shape. Rails are bits of an integer."""

    __slots__ = ("_aligned", "_rail_of", "_sets", "_table", "_uplinks", "nic_of")

    def __init__(self, shape: LocalShape, table: ShapeTable, uplinks: Uplinks) -> None:
        """Give every GPU the NIC that it talks through; milliseconds."""
        self.nic_of = own_nic(shape.paths.nic_rank, shape.nics_up)
        self._rail_of = [shape.rail[nic] if nic >= 0 else -1 for nic in self.nic_of]
        self._table, self._uplinks = table, uplinks
        self._sets: dict[int, int] = {}
        self._aligned: dict[tuple[int, int, int, int, int], int] = {}

    def of(self, gpus: int) -> int:
        """See `LocalTable.rails`."""
        known = self._sets.get(gpus)
        if known is None:
            known = 0
            for gpu, rail in enumerate(self._rail_of):
                if gpus >> gpu & 1 and rail >= 0:
                    known |= 1 << rail
            self._sets[gpus] = known
        return known

    def aligned(self, free: int, count: int, wanted: int, required: int, busy: int) -> int:
        """See `LocalTable.aligned_best`."""
        key = (free, count, wanted, required, busy)
        known = self._aligned.get(key)
        if known is None:
            if len(self._aligned) >= _ANSWERS_UP_TO:
                self._aligned.clear()
            known = self._aligned[key] = self._choose(free, count, wanted, required, busy)
        return known

    def _choose(self, free: int, count: int, wanted: int, required: int, busy: int) -> int:
        masks, nearness = self._table.alike(free, count, required)
        if len(masks) < 2:
            return int(masks[0]) if len(masks) else 0
        keys = [np.arange(len(masks), dtype=np.int64), self._uplinks.loads(masks, busy), nearness]
        if wanted:
            used = [self.of(mask) for mask in masks.tolist()]
            stray = [(rails & ~wanted).bit_count() for rails in used]
            missing = [(wanted & ~rails).bit_count() for rails in used]
            keys += [np.array(missing, dtype=np.int64), np.array(stray, dtype=np.int64)]
        return int(masks[np.lexsort(keys)[0]])
