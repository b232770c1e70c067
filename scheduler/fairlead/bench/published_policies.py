"""The policies that the packing protocol was published with, with their own integer scores of 0 to 100.

They are here to show that the protocol is the published one: their results must be the published results. All but
random take the highest score, ties to the lowest rank.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fairlead.bench.openb import PlacerFactory, Spot
from fairlead.bench.openb_default import DefaultPolicy
from fairlead.bench.openb_files import GPU_MILLI, OpenbNode, OpenbPod
from fairlead.bench.openb_fleet import OpenbFleet
from fairlead.bench.published_fgd import FgdPolicy
from fairlead.world.fleet import IntColumn

CPU_MOST = 128_000  # the published simulator scales by its largest node, whatever the fleet
GPU_MOST = 8_000


class RandomPolicy:
    """Any node that fits, and any device that fits, all equally likely."""

    def __init__(self, nodes: Sequence[OpenbNode], pods: Sequence[OpenbPod], rng: random.Random) -> None:
        """Begin with an empty fleet."""
        self._fleet = OpenbFleet(nodes)
        self._rng = rng

    def place(self, pod: OpenbPod) -> Spot | None:
        """Draw one of the feasible nodes."""
        rows = np.flatnonzero(self._fleet.fits(pod))
        if not len(rows):
            return None
        row = int(rows[self._rng.randrange(len(rows))])
        devices: tuple[int, ...] = ()
        if pod.gpu_milli == GPU_MILLI:
            devices = self._fleet.lowest_idle(row, pod.gpus)
        elif pod.gpus:
            fitting = np.flatnonzero(self._fleet.free[row] >= pod.gpu_milli)
            devices = (int(fitting[self._rng.randrange(len(fitting))]),)
        return self._fleet.take(pod, row, devices)


class _ScoredPolicy(ABC):
    """The feasible node of the highest score, and on it the tightest device or the idle ones of the lowest index."""

    def __init__(self, nodes: Sequence[OpenbNode], pods: Sequence[OpenbPod], rng: random.Random) -> None:
        """Begin with an empty fleet."""
        self._fleet = OpenbFleet(nodes)

    def place(self, pod: OpenbPod) -> Spot | None:
        """Take the best of the feasible nodes."""
        fleet = self._fleet
        rows = np.flatnonzero(fleet.fits(pod))
        if not len(rows):
            return None
        row = int(rows[int(self._scores(pod, rows).argmax())])
        devices: tuple[int, ...] = ()
        if pod.gpu_milli == GPU_MILLI:
            devices = fleet.lowest_idle(row, pod.gpus)
        elif pod.gpus:
            devices = (fleet.tightest(row, pod.gpu_milli),)
        self._remember(pod, row)
        return fleet.take(pod, row, devices)

    @abstractmethod
    def _scores(self, pod: OpenbPod, rows: NDArray[np.intp]) -> IntColumn:
        """Return the score of each of the feasible `rows`, which are ascending."""

    def _remember(self, pod: OpenbPod, row: int) -> None:
        return


class DotProdPolicy(_ScoredPolicy):
    """Least product of what is asked for and what is free."""

    def _scores(self, pod: OpenbPod, rows: NDArray[np.intp]) -> IntColumn:
        ratio = CPU_MOST // GPU_MOST
        product = self._fleet.cpu[rows] * pod.cpu_milli + ratio**2 * self._fleet.free_milli[rows] * pod.milli
        return (100 * CPU_MOST**2 - 50 * product) // CPU_MOST**2


class BestFitPolicy(_ScoredPolicy):
    """Least left over afterwards, then scaled so that the feasible nodes span 0 to 100."""

    def _scores(self, pod: OpenbPod, rows: NDArray[np.intp]) -> IntColumn:
        ratio = CPU_MOST // GPU_MOST
        left = self._fleet.cpu[rows] - pod.cpu_milli + ratio * (self._fleet.free_milli[rows] - pod.milli)
        score = (100 * CPU_MOST - 50 * left) // CPU_MOST
        low, high = int(score.min()), int(score.max())
        return 100 * (score - low) // max(high - low, 1)


class PackingPolicy(_ScoredPolicy):
    """Devices in use first, then idle devices of nodes in use, then idle nodes, the smallest first."""

    def _scores(self, pod: OpenbPod, rows: NDArray[np.intp]) -> IntColumn:
        fleet = self._fleet
        if not pod.gpus:
            return np.zeros(len(rows), dtype=np.int64)
        if pod.gpu_milli == GPU_MILLI:
            busy = np.full(len(rows), max(50 - pod.gpus, 33), dtype=np.int64)
        else:
            free = fleet.free[rows]
            left = np.where(free >= pod.gpu_milli, free, GPU_MILLI).min(axis=1)
            busy = np.where(left == GPU_MILLI, max(50 - 1, 33), np.maximum(100 - left // 10 // 10, 50))
        gpus = fleet.gpus[rows]
        return np.where(fleet.idle[rows] == gpus, np.maximum(33 - gpus, gpus), busy)


class ClusteringPolicy(_ScoredPolicy):
    """Nodes that run only pods of the same size first, then those that run some, then empty ones."""

    def __init__(self, nodes: Sequence[OpenbNode], pods: Sequence[OpenbPod], rng: random.Random) -> None:
        """Begin with an empty fleet on which no class runs."""
        super().__init__(nodes, pods, rng)
        self._classes: IntColumn = np.zeros(len(nodes), dtype=np.int64)

    def _scores(self, pod: OpenbPod, rows: NDArray[np.intp]) -> IntColumn:
        if not pod.gpus:
            return np.zeros(len(rows), dtype=np.int64)
        running = self._classes[rows]
        own = running & _class_bit(pod)
        base = np.where(running == 0, 25, np.where(own == 0, 0, np.where(running == own, 75, 50)))
        return base + 25 * (GPU_MOST - self._fleet.free_milli[rows]) // GPU_MOST

    def _remember(self, pod: OpenbPod, row: int) -> None:
        if pod.gpus:
            self._classes[row] |= _class_bit(pod)


def _class_bit(pod: OpenbPod) -> int:
    return 1 << (pod.gpus - 1 if pod.gpu_milli == GPU_MILLI else 62)


POLICIES: Mapping[str, PlacerFactory] = {
    "default": DefaultPolicy,
    "fgd": FgdPolicy,
    "bestfit": BestFitPolicy,
    "random": RandomPolicy,
    "packing": PackingPolicy,
    "dotprod": DotProdPolicy,
    "clustering": ClusteringPolicy,
}
"""Name -> policy. `default` is the product's own."""
