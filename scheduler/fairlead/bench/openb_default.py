"""The default policy in the packing protocol: the fragmentation score, learned from the arrivals of the run."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fairlead.bench.openb import Spot
from fairlead.bench.openb_files import GPU_MILLI, OpenbNode, OpenbPod
from fairlead.bench.openb_fleet import OpenbFleet
from fairlead.placement.fragments import NEVER, NodeRows, build
from fairlead.world.demand import Arrivals, Kind
from fairlead.world.fleet import IntColumn


@dataclass(slots=True, eq=False)
class _ClassColumn:
    """Cost of one kind of pod on every node, and the device that costs least (-1: not one device)."""

    table: int
    seen: int
    cost: IntColumn
    device: IntColumn


class DefaultPolicy:
    """One pod at a time at the lowest cost. Nothing is known of the list but what has arrived."""

    def __init__(self, nodes: Sequence[OpenbNode], pods: Sequence[OpenbPod], rng: random.Random) -> None:
        """Begin with an empty fleet and no arrivals; neither the list nor the random stream is looked at."""
        self._fleet = OpenbFleet(nodes)
        self._capacity = dict.fromkeys(self._fleet.models, 0)
        for node in nodes:
            if node.gpus:
                self._capacity[node.model] += GPU_MILLI * node.gpus
        self._arrivals = Arrivals()
        self._fragments = build(self._arrivals.mix, self._capacity)
        self._columns: dict[tuple[int, int, int], _ClassColumn] = {}
        self._before = _ClassColumn(-1, 0, np.zeros_like(self._fleet.cpu), np.zeros_like(self._fleet.cpu))

    def place(self, pod: OpenbPod) -> Spot | None:
        """Count the arrival, then take the cheapest node and device."""
        kind = Kind(pod.cpu_milli, pod.gpu_milli, pod.gpus, pod.models)
        if self._arrivals.count(kind):
            self._fragments = build(self._arrivals.mix, self._capacity)
        column = self._renewed(pod)
        cost = np.where(self._fleet.fits(pod), column.cost, NEVER)
        row = int(cost.argmin())
        if cost[row] >= NEVER:
            return None
        if pod.gpu_milli == GPU_MILLI:
            devices = self._fleet.lowest_idle(row, pod.gpus)
        else:
            devices = (int(column.device[row]),) if pod.gpus else ()
        return self._fleet.take(pod, row, devices)

    def _renewed(self, pod: OpenbPod) -> _ClassColumn:
        """Return the class's column after computing anew the rows that changed since it was last used."""
        key = (pod.cpu_milli, pod.gpu_milli, pod.gpus)
        column = self._columns.get(key)
        if column is None:
            nothing = np.zeros_like(self._fleet.cpu)
            column = self._columns[key] = _ClassColumn(-1, 0, nothing, nothing - 1)
        stale = self._stale(column)
        if len(stale):
            rows = self._rows(stale)
            known = self._fragment_before(stale)
            if pod.gpu_milli in (0, GPU_MILLI):
                column.cost[stale] = self._fragments.whole_cost(
                    rows, cpu_milli=pod.cpu_milli, gpus=pod.gpus, before=known
                )
            else:
                costs = self._fragments.share_cost(rows, cpu_milli=pod.cpu_milli, gpu_milli=pod.gpu_milli, before=known)
                best = costs.argmin(axis=1)
                column.cost[stale] = costs[np.arange(len(stale)), best]
                column.device[stale] = best
        column.table, column.seen = self._fragments.version, self._fleet.changed
        return column

    def _fragment_before(self, rows: IntColumn) -> IntColumn:
        """Return what the rows have as fragments now, which all classes share."""
        stale = self._stale(self._before)
        if len(stale):
            self._before.cost[stale] = self._fragments.fragment(self._rows(stale))
        self._before.table, self._before.seen = self._fragments.version, self._fleet.changed
        return self._before.cost[rows]

    def _stale(self, column: _ClassColumn) -> IntColumn:
        if column.table != self._fragments.version:
            return np.arange(len(self._fleet.cpu))
        return self._fleet.changed_since(column.seen)

    def _rows(self, rows: IntColumn) -> NodeRows:
        return NodeRows(self._fleet.model[rows], self._fleet.cpu[rows], self._fleet.free[rows])
