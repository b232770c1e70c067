"""What a placement leaves behind, over an overlay: columns of the fragmentation score, renewed where rows changed.

Costs depend on what a pod asks of CPU and GPUs and on nothing else of it, so that all kinds of request that ask alike
share one column.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from fairlead.model.gang import Role, Share
from fairlead.model.hardware import Machine
from fairlead.placement.feasible import Fit
from fairlead.placement.fragments import NEVER, Fragments, NodeRows
from fairlead.placement.gang_fragments import GangSlots
from fairlead.placement.parts import shares_on
from fairlead.world.fleet import WHOLE, IntColumn, Inventory
from fairlead.world.overlay import Overlay

_FEW = 64  # rows up to which looking each of them up is faster than computing all of them
_STATES = 16_384  # states of nodes remembered for each kind of request


@dataclass(slots=True, eq=False)
class _Column:
    """Numbers as of a tick: shape (nodes,), or (nodes, devices) for shares; `tick` -1 is before everything."""

    cost: IntColumn
    tick: int = -1


class FragmentScore:
    """The score of one mix over one overlay; made anew when the mix or the inventory is another."""

    def __init__(self, fragments: Fragments, overlay: Overlay, model: IntColumn | None = None) -> None:
        """Nothing is computed yet; `model` is what `model_ids` says of the inventory, where the caller has it."""
        self.fragments = fragments
        self.version = fragments.version
        self._overlay = overlay
        self._model = model_ids(overlay.inventory, fragments.models) if model is None else model
        self._columns: dict[tuple[int, int], _Column] = {}
        self._known: dict[tuple[int, int], dict[tuple[int, int, int, bool], int]] = {}
        self._before = _Column(np.zeros(len(overlay.touched), dtype=np.int64))
        levels = overlay.inventory.levels
        self._gangs = [
            GangSlots.of(kind, weight, levels[kind.within], self._model, fragments.models)
            for kind, weight in fragments.gangs
            if kind.within in levels and kind.gpu_milli == WHOLE
        ]
        self._gangs_tick = -1

    def beside(self, rows: IntColumn, tick: int) -> IntColumn:
        """Return `rows`, which changed since a tick, and those whose domains have other room for gangs now.

        Lowest first.
        """
        self._count_gangs()
        more = [found for gang in self._gangs if len(found := gang.changed_since(tick))]
        if not more:
            return rows
        return np.array(sorted({*rows.tolist(), *(row for found in more for row in found.tolist())}), dtype=np.int64)

    def states(self, overlay: Overlay, rows: IntColumn) -> list[list[int]] | None:
        """Return what tells costs of whole devices apart on rows that are alike to Kubernetes, a list a fact.

        None where shares lie on some row: they leave too many states.
        """
        if overlay.columns.groups and overlay.columns.group[rows].any():
            return None
        self._count_gangs()
        return [self._model[rows].tolist(), *(gang.spare(rows).tolist() for gang in self._gangs)]

    def costs(self, role: Role, fit: Fit, group: int, overlay: Overlay, rows: IntColumn) -> IntColumn:
        """Return the cost of one pod on each of `rows`; meaningless where it does not fit. Shape (rows,)."""
        if role.share is None:
            cost = self._of_whole(role, rows)
            return cost + self._from_gangs(role, rows, role.gpus) if self._gangs else cost
        cost = self._renewed(role, role.share)[rows]
        devices = fit.devices[rows] & overlay.inventory.healthy_mask[rows]
        room = shares_on(role.share, group, overlay.columns, rows, devices)
        if self._gangs:
            idle = self.rows(rows).free_milli >= WHOLE
            breaking, beside = self._from_gangs(role, rows, 1), self._from_gangs(role, rows, 0)
            cost = np.where(cost < NEVER, cost + np.where(idle, breaking[:, None], beside[:, None]), NEVER)
        least: IntColumn = np.where(room > 0, cost, NEVER).min(axis=1, initial=NEVER)
        return least

    def device(self, role: Role, fit: Fit, group: int, overlay: Overlay, row: int, room: IntColumn) -> int:
        """Return the device of a row that a share goes to, of those where `room`, shape (devices,), is not 0."""
        assert role.share is not None, role
        cost = self._renewed(role, role.share)[row]
        if self._gangs:
            rows = np.array([row])
            idle = self.rows(rows).free_milli[0] >= WHOLE
            breaking, beside = self._from_gangs(role, rows, 1)[0], self._from_gangs(role, rows, 0)[0]
            cost = np.where(cost < NEVER, cost + np.where(idle, breaking, beside), NEVER)
        return int(np.where(room > 0, cost, NEVER).argmin())

    def _from_gangs(self, role: Role, rows: IntColumn, devices: int) -> IntColumn:
        """Return what one pod takes from gangs when it takes so many idle devices. Shape (rows,)."""
        self._count_gangs()
        columns = self._overlay.columns
        idle = np.bitwise_count(columns.free_mask[rows]).astype(np.int64) - devices
        cpu = columns.cpu_milli[rows] - role.pod.requests.cpu_milli
        total = np.zeros(len(rows), dtype=np.int64)
        for gang in self._gangs:
            total += gang.cost(rows, idle, cpu)
        return total

    def _count_gangs(self) -> None:
        """Bring what domains hold of gangs up to the last change."""
        tick = self._overlay.tick
        if not self._gangs or self._gangs_tick == tick:
            return
        stale = np.arange(len(self._model)) if self._gangs_tick < 0 else self._touched_since(self._gangs_tick)
        columns = self._overlay.columns
        idle, cpu = np.bitwise_count(columns.free_mask[stale]), np.maximum(columns.cpu_milli[stale], 0)
        for gang in self._gangs:
            gang.count(stale, idle, cpu, tick)
        self._gangs_tick = tick

    def rows(self, rows: IntColumn) -> NodeRows:
        """Return rows as the score sees them."""
        return NodeRows.of(self._overlay.columns, self._model, rows)

    def _renewed(self, role: Role, share: Share) -> IntColumn:
        """Return the costs of a share on every device. Shape (nodes, devices)."""
        cpu = role.pod.requests.cpu_milli
        column = self._columns.get((cpu, share.milli))
        if column is None:
            cost = np.full(self._overlay.columns.milli.shape, NEVER, dtype=np.int64)
            column = self._columns[cpu, share.milli] = _Column(cost)
        stale = self._stale(column)
        if len(stale):
            states, before = self.rows(stale), self._fragments_before(stale)
            column.cost[stale] = self.fragments.share_cost(states, cpu_milli=cpu, gpu_milli=share.milli, before=before)
        column.tick = self._overlay.tick
        return column.cost

    def _of_whole(self, role: Role, rows: IntColumn) -> IntColumn:
        """Return the costs of a pod that takes whole devices, or none. Shape (rows,)."""
        cpu, gpus = role.pod.requests.cpu_milli, role.gpus
        if len(rows) <= _FEW:
            return self._remembered(rows, cpu, gpus)
        return self._computed(rows, cpu, gpus)

    def _computed(self, rows: IntColumn, cpu: int, gpus: int) -> IntColumn:
        return self.fragments.whole_cost(self.rows(rows), cpu_milli=cpu, gpus=gpus, before=self._fragments_before(rows))

    def _remembered(self, rows: IntColumn, cpu: int, gpus: int) -> IntColumn:
        """Return costs of a few rows: nodes of one model, with as many idle devices and as much CPU, cost the same.

        Nodes with shared devices are of too many kinds to be remembered.
        """
        columns, known = self._overlay.columns, self._known.setdefault((cpu, gpus), {})
        states = list(
            zip(
                self._model[rows].tolist(),
                np.bitwise_count(columns.free_mask[rows]).tolist(),
                columns.cpu_milli[rows].tolist(),
                np.any(columns.group[rows] != 0, axis=1).tolist(),
                strict=True,
            )
        )
        missing = [at for at, state in enumerate(states) if state[3] or state not in known]
        costs = [known.get(state, 0) for state in states]
        if missing:
            found = self._computed(rows[missing], cpu, gpus).tolist()
            if len(known) > _STATES:
                known.clear()
            for at, cost in zip(missing, found, strict=True):
                costs[at] = known[states[at]] = cost
        return np.array(costs, dtype=np.int64)

    def _fragments_before(self, rows: IntColumn) -> IntColumn:
        """Return what the rows have as fragments now, which all columns share."""
        stale = self._stale(self._before)
        if len(stale):
            self._before.cost[stale] = self.fragments.fragment(self.rows(stale))
        self._before.tick = self._overlay.tick
        return self._before.cost[rows]

    def _stale(self, column: _Column) -> IntColumn:
        return np.arange(len(self._model)) if column.tick < 0 else self._touched_since(column.tick)

    def _touched_since(self, tick: int) -> IntColumn:
        return self._overlay.changed_since(tick)


def model_ids(inventory: Inventory, models: tuple[str, ...]) -> IntColumn:
    """Return the number of each node's GPU model, -1 where its GPUs are none or of several. Shape (nodes,)."""
    number = {name: at for at, name in enumerate(models)}

    def model_of(machine: Machine) -> int:
        kinds = {gpu.model for gpu in machine.gpus}
        return number.get(next(iter(kinds)), -1) if len(kinds) == 1 else -1

    return np.array(inventory.of_kinds(model_of), dtype=np.int64)


def capacity_by_model(inventory: Inventory) -> dict[str, int]:
    """Return the thousandths of GPUs of each model that the nodes of all pools have, well or not."""
    capacity: dict[str, int] = {}
    counts = inventory.of_kinds(lambda machine: Counter(gpu.model for gpu in machine.gpus))
    for node, models in zip(inventory.nodes, counts, strict=True):
        if node.pool:
            for model, count in models.items():
                capacity[model] = capacity.get(model, 0) + WHOLE * count
    return capacity
