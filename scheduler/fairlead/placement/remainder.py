"""What a placement leaves behind, over an overlay: columns of the fragmentation score, renewed where rows changed.

Costs depend on what a pod asks of CPU and GPUs and on nothing else of it, so that all kinds of request that ask alike
share one column.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from fairlead.model.gang import Role
from fairlead.model.hardware import Machine
from fairlead.placement.feasible import Fit
from fairlead.placement.fragments import NEVER, Fragments, NodeRows
from fairlead.placement.gang_fragments import GangSlots
from fairlead.placement.parts import shares_on
from fairlead.world.fleet import WHOLE, IntColumn, Inventory
from fairlead.world.overlay import Overlay

_FEW = 64  # rows up to which looking each of them up is faster than computing all of them
_STATES = 16_384  # states of nodes remembered per column


@dataclass(slots=True, eq=False)
class _Column:
    """Costs as of a tick: shape (nodes,), or (nodes, devices) for shares; `tick` -1 is before everything.

    `known` has costs by (model, idle devices, free CPU, False).
    """

    cost: IntColumn
    tick: int = -1
    known: dict[tuple[int, int, int, bool], int] = field(default_factory=dict[tuple[int, int, int, bool], int])


class FragmentScore:
    """The score of one mix over one overlay; made anew when the mix or the inventory is another."""

    def __init__(self, fragments: Fragments, overlay: Overlay, model: IntColumn | None = None) -> None:
        """Nothing is computed yet; `model` is what `model_ids` says of the inventory, where the caller has it."""
        self.fragments = fragments
        self.version = fragments.version
        self._overlay = overlay
        self._model = model_ids(overlay.inventory, fragments.models) if model is None else model
        self._columns: dict[tuple[int, int, int], _Column] = {}
        self._before = _Column(np.zeros(len(overlay.touched), dtype=np.int64))
        levels = overlay.inventory.levels
        self._gangs = [
            GangSlots.of(kind, weight, levels[kind.within], self._model, fragments.models)
            for kind, weight in fragments.gangs
            if kind.within in levels and kind.gpu_milli == WHOLE
        ]
        self._gangs_tick = -1
        self._idle = np.zeros(len(self._model), dtype=np.int64)  # devices, of use where gangs are asked for

    @property
    def spreads(self) -> bool:
        """Whether costs of a row change with those of its neighbours: where gangs want whole domains."""
        return bool(self._gangs)

    def neighbours(self, rows: IntColumn) -> IntColumn:
        """Return the rows in the domains of `rows` at the levels that gangs ask for, and `rows` themselves."""
        touched = np.zeros(len(self._model), dtype=np.bool_)
        touched[rows] = True
        for gang in self._gangs:
            domains = np.zeros(len(gang.level.names) + 1, dtype=np.bool_)  # the last stands for no domain
            domains[gang.level.domain_of[rows]] = True
            domains[-1] = False
            touched |= domains[gang.level.domain_of]
        return np.flatnonzero(touched)

    def costs(self, role: Role, fit: Fit, group: int, overlay: Overlay, rows: IntColumn) -> IntColumn:
        """Return the cost of one pod on each of `rows`; meaningless where it does not fit. Shape (rows,)."""
        cost = self._renewed(role)[rows]
        if role.share is None:
            return cost + self._from_gangs(role, rows, role.gpus) if self._gangs else cost
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
        cost = self._renewed(role)[row]
        if self._gangs:
            rows = np.array([row])
            idle = self.rows(rows).free_milli[0] >= WHOLE
            breaking, beside = self._from_gangs(role, rows, 1)[0], self._from_gangs(role, rows, 0)[0]
            cost = np.where(cost < NEVER, cost + np.where(idle, breaking, beside), NEVER)
        return int(np.where(room > 0, cost, NEVER).argmin())

    def _from_gangs(self, role: Role, rows: IntColumn, devices: int) -> IntColumn:
        """Return what one pod takes from gangs when it takes so many idle devices. Shape (rows,)."""
        if self._gangs_tick != self._overlay.tick:
            stale = np.arange(len(self._model)) if self._gangs_tick < 0 else self._touched_since(self._gangs_tick)
            columns = self._overlay.columns
            self._idle[stale] = np.bitwise_count(columns.free_mask[stale])
            for gang in self._gangs:
                gang.count(stale, self._idle[stale], np.maximum(columns.cpu_milli[stale], 0))
            self._gangs_tick = self._overlay.tick
        idle = self._idle[rows] - devices
        cpu = self._overlay.columns.cpu_milli[rows] - role.pod.requests.cpu_milli
        total = np.zeros(len(rows), dtype=np.int64)
        for gang in self._gangs:
            total += gang.cost(rows, idle, cpu)
        return total

    def rows(self, rows: IntColumn) -> NodeRows:
        """Return rows as the score sees them."""
        return NodeRows.of(self._overlay.columns, self._model, rows)

    def _renewed(self, role: Role) -> IntColumn:
        share = 0 if role.share is None else role.share.milli
        cpu = role.pod.requests.cpu_milli
        key = (cpu, role.gpus, share)
        column = self._columns.get(key)
        if column is None:
            shape = self._overlay.columns.milli.shape if share else (len(self._model),)
            column = self._columns[key] = _Column(np.full(shape, NEVER, dtype=np.int64))
        if column.tick == self._overlay.tick:
            return column.cost
        stale = self._stale(column)
        if len(stale) and not share and len(stale) <= _FEW:
            column.cost[stale] = self._remembered(stale, cpu, role.gpus, column)
        elif len(stale):
            column.cost[stale] = self._computed(stale, cpu, role.gpus, share)
        column.tick = self._overlay.tick
        return column.cost

    def _computed(self, rows: IntColumn, cpu: int, gpus: int, share: int) -> IntColumn:
        """Return costs of rows; shape (rows,), or (rows, devices) of a share."""
        states, before = self.rows(rows), self._fragments_before(rows)
        if share:
            return self.fragments.share_cost(states, cpu_milli=cpu, gpu_milli=share, before=before)
        return self.fragments.whole_cost(states, cpu_milli=cpu, gpus=gpus, before=before)

    def _remembered(self, rows: IntColumn, cpu: int, gpus: int, column: _Column) -> IntColumn:
        """Return costs of a few rows: nodes of one model, with as many idle devices and as much CPU, cost the same.

        Nodes with shared devices are of too many kinds to be remembered.
        """
        columns = self._overlay.columns
        states = list(
            zip(
                self._model[rows].tolist(),
                np.bitwise_count(columns.free_mask[rows]).tolist(),
                columns.cpu_milli[rows].tolist(),
                np.any(columns.group[rows] != 0, axis=1).tolist(),
                strict=True,
            )
        )
        missing = [at for at, state in enumerate(states) if state[3] or state not in column.known]
        costs = [column.known.get(state, 0) for state in states]
        if missing:
            found = self._computed(rows[missing], cpu, gpus, 0).tolist()
            if len(column.known) > _STATES:
                column.known.clear()
            for at, cost in zip(missing, found, strict=True):
                costs[at] = column.known[states[at]] = cost
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
