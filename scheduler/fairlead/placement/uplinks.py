"""Shared PCIe uplinks (R4): how far the GPUs of a set could overfill the link above the switch that they hang on."""

from __future__ import annotations

import numpy as np

from fairlead.placement.local_shape import LocalShape
from fairlead.world.fleet import IntColumn

ALONE = 1_000
"""The load of an uplink, in thousandths of what it carries, that one GPU of its own rate makes."""


class Uplinks:
    """Answers for one machine shape. What counts is what GPUs exchange with the host, not with a NIC beside them."""

    __slots__ = ("_answers", "_loads", "_shape")

    def __init__(self, shape: LocalShape) -> None:
        """Work out what each GPU adds to each uplink."""
        self._shape = shape
        self._answers: dict[tuple[int, int], int] = {}
        self._loads: list[list[tuple[int, int]]] = []  # per uplink: (GPU, load in millionths)
        for uplink in shape.uplinks:
            gpus = [gpu for gpu in range(uplink.gpus.bit_length()) if uplink.gpus >> gpu & 1]
            shares = [rate * 1_000_000 // uplink.bytes_per_s for rate in uplink.rates]
            self._loads.append(list(zip(gpus, shares, strict=True)))

    def load(self, gpus: int, busy: int) -> int:
        """See `LocalTable.uplink_load`."""
        known = self._answers.get((gpus, busy))
        if known is None:
            shared = [load for _, load in self.shared(gpus, busy)]
            known = self._answers[gpus, busy] = max(shared, default=0)
        return known

    def shared(self, gpus: int, busy: int) -> list[tuple[int, int]]:
        """Return (position of an uplink, load in thousandths) for those that a GPU of the set shares."""
        found: list[tuple[int, int]] = []
        for at, uplink in enumerate(self._shape.uplinks):
            moving = (gpus | busy) & uplink.gpus
            if gpus & uplink.gpus and moving.bit_count() > 1:
                found.append((at, sum(load for gpu, load in self._loads[at] if moving >> gpu & 1) // 1_000))
        return found

    def loads(self, masks: IntColumn, busy: int) -> IntColumn:
        """Return `load` for many sets at once; shape as `masks`."""
        worst = np.zeros_like(masks)
        for at, uplink in enumerate(self._shape.uplinks):
            load, moving = np.zeros_like(masks), np.zeros_like(masks)
            for gpu, own in self._loads[at]:
                moves = (masks | busy) >> gpu & 1
                load += moves * own
                moving += moves
            shared = ((masks & uplink.gpus) != 0) & (moving > 1)
            np.maximum(worst, np.where(shared, load // 1_000, 0), out=worst)
        return worst
