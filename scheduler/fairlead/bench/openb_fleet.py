"""The protocol's fleet as columns, for policies that keep their own: what is free, who fits, and what has changed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fairlead.bench.openb import Spot
from fairlead.bench.openb_files import GPU_MILLI, OpenbNode, OpenbPod
from fairlead.world.fleet import BoolColumn, IntColumn


class OpenbFleet:
    """Free resources in rank order. `cpu`, `memory`, `gpus` and `model` have shape (nodes,), `free` (nodes, devices).

    `changed` counts placements: `changed_at[row]` is the count at which a row last changed.
    """

    def __init__(self, nodes: Sequence[OpenbNode]) -> None:
        """All of it is free."""
        self.models = tuple(sorted({node.model for node in nodes if node.gpus}))
        wide = max(node.gpus for node in nodes)
        self.cpu: IntColumn = np.array([node.cpu_milli for node in nodes], dtype=np.int64)
        self.memory: IntColumn = np.array([node.memory_mib for node in nodes], dtype=np.int64)
        self.gpus: IntColumn = np.array([node.gpus for node in nodes], dtype=np.int64)
        self.model: IntColumn = np.array(
            [self.models.index(node.model) if node.gpus else -1 for node in nodes], dtype=np.int64
        )
        self.free: IntColumn = np.where(np.arange(wide) < self.gpus[:, None], GPU_MILLI, 0).astype(np.int64)
        self.free_milli: IntColumn = self.free.sum(axis=1)
        self.idle: IntColumn = self.gpus.copy()
        self.largest: IntColumn = self.free.max(axis=1)
        self.changed = 0
        self.changed_at: IntColumn = np.zeros(len(nodes), dtype=np.int64)
        self._accepting: dict[tuple[str, ...], BoolColumn] = {}

    def accepting(self, models: tuple[str, ...]) -> BoolColumn:
        """Return which nodes are of an acceptable model, by whole name. Shape (nodes,)."""
        known = self._accepting.get(models)
        if known is None:
            fitting = [index for index, name in enumerate(self.models) if not models or name.casefold() in models]
            known = self._accepting[models] = np.isin(self.model, fitting) if models else np.ones_like(self.cpu) > 0
        return known

    def fits(self, pod: OpenbPod) -> BoolColumn:
        """Return which nodes can take a pod now. Shape (nodes,)."""
        room: BoolColumn = (self.cpu >= pod.cpu_milli) & (self.memory >= pod.memory_mib)
        if not pod.gpus:
            return room
        room &= self.accepting(pod.models)
        room &= self.largest >= pod.gpu_milli if pod.gpu_milli < GPU_MILLI else self.idle >= pod.gpus
        return room

    def changed_since(self, count: int) -> NDArray[np.intp]:
        """Return the rows that changed after the given count, ascending."""
        return np.flatnonzero(self.changed_at > count)

    def lowest_idle(self, row: int, gpus: int) -> tuple[int, ...]:
        """Return the idle devices of the lowest index on a row."""
        return tuple(device for device, left in enumerate(self.free[row].tolist()) if left == GPU_MILLI)[:gpus]

    def tightest(self, row: int, milli: int) -> int:
        """Return the device with the least left that is enough, lowest index on ties."""
        return min((left, device) for device, left in enumerate(self.free[row].tolist()) if left >= milli)[1]

    def take(self, pod: OpenbPod, row: int, devices: tuple[int, ...]) -> Spot:
        """Subtract a pod from a row; returns the spot."""
        self.cpu[row] -= pod.cpu_milli
        self.memory[row] -= pod.memory_mib
        if devices:
            self.free[row, list(devices)] -= pod.gpu_milli
            left = self.free[row]
            self.free_milli[row] -= pod.milli
            self.idle[row] = int((left == GPU_MILLI).sum())
            self.largest[row] = int(left.max())
        self.changed += 1
        self.changed_at[row] = self.changed
        return row, devices
