"""FGD, fragmentation gradient descent (Weng et al., USENIX ATC'23), as published: floats inside, an integer score.

It knows the list of pods in advance: the typical pods M are the list's most frequent kinds that cover 95 % of it. For a
node n and a kind m, F_n(m) is all of its free GPU where m asks for none or can't run there, else the free GPU of those
devices that are too small for m. The score is 100·sigmoid of how much the frequency-weighted F falls, in GPUs.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairlead.bench.openb import Spot
from fairlead.bench.openb_files import GPU_MILLI, OpenbNode, OpenbPod
from fairlead.bench.openb_fleet import OpenbFleet
from fairlead.world.demand import models_of
from fairlead.world.fleet import IntColumn

FloatColumn = NDArray[np.float64]
COVERED = 0.95
NO_FIT = -1


@dataclass(slots=True, eq=False)
class _ScoreColumn:
    """Score of one kind on every node, and the device that gives it."""

    seen: int
    score: IntColumn
    device: IntColumn


class FgdPolicy:
    """The node, and for a sharing pod the device, on which fragments fall the most or grow the least."""

    def __init__(self, nodes: Sequence[OpenbNode], pods: Sequence[OpenbPod], rng: random.Random) -> None:
        """Begin with an empty fleet; take the typical pods from the list."""
        self._fleet = OpenbFleet(nodes)
        kinds, frequency = typical_pods(pods)
        self._frequency: FloatColumn = np.array(frequency, dtype=np.float64)
        self._cpu: IntColumn = np.array([cpu for cpu, _, _, _ in kinds], dtype=np.int64)
        self._milli: IntColumn = np.array([milli for _, milli, _, _ in kinds], dtype=np.int64)
        self._gpus: IntColumn = np.array([gpus for _, _, gpus, _ in kinds], dtype=np.int64)
        accepted = [
            [gpus > 0 and (not spec or name.casefold() in models_of(spec)) for _, _, gpus, spec in kinds]
            for name in self._fleet.models
        ]
        self._accepts = np.array([*accepted, [False] * len(kinds)])  # the last row is for nodes without GPUs
        self._columns: dict[tuple[int, int, int], _ScoreColumn] = {}

    def place(self, pod: OpenbPod) -> Spot | None:
        """Take the feasible node of the highest score."""
        column = self._renewed(pod)
        score = np.where(self._fleet.fits(pod), column.score, NO_FIT)
        row = int(score.argmax())
        if score[row] == NO_FIT:
            return None
        if pod.gpu_milli == GPU_MILLI:
            devices = self._fleet.lowest_idle(row, pod.gpus)
        else:
            devices = (int(column.device[row]),) if pod.gpus else ()
        return self._fleet.take(pod, row, devices)

    def _renewed(self, pod: OpenbPod) -> _ScoreColumn:
        key = (pod.cpu_milli, pod.gpu_milli, pod.gpus)
        column = self._columns.get(key)
        if column is None:
            nothing = np.zeros_like(self._fleet.cpu)
            column = self._columns[key] = _ScoreColumn(-1, nothing - 1, nothing - 1)
        stale = self._fleet.changed_since(column.seen)
        if len(stale):
            column.score[stale], column.device[stale] = self._scored(pod, stale)
        column.seen = self._fleet.changed
        return column

    def _scored(self, pod: OpenbPod, rows: IntColumn) -> tuple[IntColumn, IntColumn]:
        """Return score and device of each row; a row or device that does not fit gets -1."""
        free = self._fleet.free[rows]
        model, cpu = self._fleet.model[rows], self._fleet.cpu[rows]
        before = self._fragment(model, cpu, free)
        if not pod.gpus or pod.gpu_milli == GPU_MILLI:
            idle = free == GPU_MILLI
            left = np.where(idle & (idle.cumsum(axis=1) <= pod.gpus), 0, free)
            return _score(before - self._fragment(model, cpu - pod.cpu_milli, left)), np.full(len(rows), -1)
        row_of, device_of = np.nonzero(free >= pod.gpu_milli)
        left = free[row_of]
        left[np.arange(len(row_of)), device_of] -= pod.gpu_milli
        after = self._fragment(model[row_of], cpu[row_of] - pod.cpu_milli, left)
        scores = np.full(free.shape, NO_FIT, dtype=np.int64)
        scores[row_of, device_of] = _score(before[row_of] - after)
        device = scores.argmax(axis=1)
        return scores[np.arange(len(rows)), device], device

    def _fragment(self, model: IntColumn, cpu: IntColumn, free: IntColumn) -> FloatColumn:
        """Return the weighted fragment F_n of each state, in thousandths of a GPU."""
        wide = free[:, :, None]
        fitting = wide >= self._milli
        runs = self._accepts[model] & (cpu[:, None] >= self._cpu) & (fitting.sum(axis=1) >= self._gpus)
        small = np.where(fitting, 0, wide).sum(axis=1)
        found: FloatColumn = np.where(runs, small, free.sum(axis=1)[:, None]) @ self._frequency
        return found


def typical_pods(pods: Sequence[OpenbPod]) -> tuple[list[tuple[int, int, int, str]], list[float]]:
    """Return the kinds (cpu_milli, gpu_milli, num_gpu, gpu_spec) that cover 95 % of the list, and their frequencies.

    Most frequent first, equal counts by the larger kind; the frequencies sum to 1.
    """
    counts = Counter((pod.cpu_milli, pod.gpu_milli, pod.gpus, pod.spec) for pod in pods)
    kinds: list[tuple[int, int, int, str]] = []
    covered = 0
    for kind, count in sorted(counts.items(), key=lambda item: (item[1], item[0]), reverse=True):
        if covered >= COVERED * len(pods):
            break
        kinds.append(kind)
        covered += count
    return kinds, [counts[kind] / covered for kind in kinds]


def _score(falls: FloatColumn) -> IntColumn:
    return np.floor(100 / (1 + np.exp(-falls / 1000))).astype(np.int64)
