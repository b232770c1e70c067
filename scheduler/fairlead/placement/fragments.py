"""What a placement takes away from the requests that are really made: the fragmentation score, in integers.

For each kind of request in the mix, a node has some GPU that this kind could still use; what it has beyond that is a
fragment. The score of a placement is how much the weighted fragment grows, plus three terms: what a share takes from
the worth of its device, GPUs of a model that others need are dear, and nodes with less left are taken first. The
formula and where it comes from stand in docs/adr/0006-fragmentation-score.md.

Units: GPU thousandths (milli). A cost is int64 in 10^-7 milli: class weights sum to 10^6 and usable GPU is in tenths of
a milli. The largest cost of one node with 63 devices is below 10^13. The lowest cost wins, ties go to the lower row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from fairlead.placement.device_prices import GRID, WHOLE_MILLI, device_worth
from fairlead.world.demand import Kind, Mix, is_of
from fairlead.world.fleet import WHOLE, BoolColumn, Columns, IntColumn

WEIGHTS_SUM = 1_000_000
COVERED_PERCENT = 95  # kinds beyond these are so rare that a table of them would be noise
TENTHS = 10
CPU_TENTHS = 4  # of 10: how far usable GPU is capped by the CPU that is left to feed it
WORTH = 4  # of the device price beside the fragment; on the public lists 2 and 8 give nearly the same, 1 a little less
TIGHT = 100_000  # 0.010 milli of cost per milli left on the node: between equals the fuller node
SCARCE_MICRO_MAX = 4_000_000  # square of 2, the largest scarcity of a model
PRIOR_MILLI = 30_000  # 30 GPUs of demand, spread evenly over the models, believed before anything was seen
NEVER = 1 << 62
"""Cost where the request does not fit."""
_ANY = 1 << 40
_DEDUPE_ROWS = 48  # below, finding equal rows costs more than it saves
_BLOCK_ROWS = 512


@dataclass(frozen=True, slots=True, eq=False)
class NodeRows:
    """Nodes as the score sees them, in any order. Arrays are not modified.

    `model`       shape (R,), id of the GPU model (`Fragments.models`), -1 where it is none of them
    `cpu_milli`   shape (R,), free CPU
    `free_milli`  shape (R, D), free thousandths of each device; 0 where there is none, or it may not be used
    """

    model: IntColumn
    cpu_milli: IntColumn
    free_milli: IntColumn

    @classmethod
    def of(cls, columns: Columns, model: IntColumn, rows: IntColumn) -> NodeRows:
        """Return rows with what is free in columns; `model` has shape (nodes,)."""
        idle = ((columns.free_mask[rows, None] >> np.arange(columns.milli.shape[1])) & 1).astype(np.bool_)
        shared = np.where(columns.group[rows] > 0, columns.milli[rows], 0)
        return cls(
            model=model[rows],
            cpu_milli=np.maximum(columns.cpu_milli[rows], 0),
            free_milli=np.where(idle, WHOLE, shared),
        )

    def take(self, rows: IntColumn | slice) -> NodeRows:
        """Return some rows."""
        return NodeRows(self.model[rows], self.cpu_milli[rows], self.free_milli[rows])


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Fragments:
    """Tables of one mix over one fleet; read-only, to be built anew when either changes.

    `models`     names in id order
    `classes`    kinds that cover most arrivals and ask for GPU, replicas and levels left out; M of them
    `weights`    shape (M,), of each class, in 10^-6; their sum is 10^6
    `gangs`      kinds with several replicas, with the weight of each in 10^-6
    `worth`      shape (1001,), price in 10^-7 milli of a device with so many thousandths left
    `scarcity`   shape (K + 1,), squared scarcity of each model in 10^-6; the last row is for an unknown model
    """

    version: int
    models: tuple[str, ...]
    classes: tuple[Kind, ...]
    gangs: tuple[tuple[Kind, int], ...]
    weights: IntColumn
    worth: IntColumn
    scarcity: IntColumn
    _weight_open: IntColumn  # (K + 1, M), 0 where the class does not accept the model
    _cpu: IntColumn  # (M,), at least 1
    _cpu_asked: IntColumn  # (M,)
    _work: IntColumn  # (M,), milli of one pod
    _free_of_cpu: BoolColumn  # (M,)
    _shape_of: NDArray[np.intp]  # (M,), ascending
    _shape_starts: NDArray[np.intp]  # (S,)
    _shape_milli: IntColumn  # (S,)
    _shape_least: IntColumn  # (S,), milli below which nothing is usable

    def fragment(self, rows: NodeRows) -> IntColumn:
        """Return the weighted fragment of each node as it is. Shape (R,), 10^-7 milli."""
        return _few_at_a_time(rows, None, lambda some, _: self._fragment(some))

    def _fragment(self, rows: NodeRows) -> IntColumn:
        caps, opened = self._cpu_side(rows.model, rows.cpu_milli)
        free: IntColumn = rows.free_milli.sum(axis=1)
        usable = self._usable(self._reach(rows.free_milli), np.arange(len(rows.model)), caps, opened)
        return self._total * free - usable

    def share_cost(
        self, rows: NodeRows, *, cpu_milli: int, gpu_milli: int, before: IntColumn | None = None
    ) -> IntColumn:
        """Return the cost of a pod that shares one device. Shape (R, D); NEVER where the device has too little left.

        `before` is `fragment(rows)` where the caller has it. CPU and model are not checked.
        """
        return _few_at_a_time(rows, before, lambda some, known: self._share_cost(some, cpu_milli, gpu_milli, known))

    def _share_cost(self, rows: NodeRows, cpu_milli: int, gpu_milli: int, before: IntColumn | None) -> IntColumn:
        free = rows.free_milli
        first = (free[:, :, None] == free[:, None, :]).argmax(axis=2)  # equal devices cost the same: try one of them
        pair_row, pair_device = np.nonzero((free >= gpu_milli) & (first == np.arange(free.shape[1])))
        had = free[pair_row, pair_device]
        left = had - gpu_milli
        reach = self._reach(free)[pair_row]
        reach -= np.where(had[:, None] >= self._shape_milli, had[:, None], 0)
        reach += np.where(left[:, None] >= self._shape_milli, left[:, None], 0)
        caps, opened = self._cpu_side(rows.model, rows.cpu_milli - cpu_milli)
        total: IntColumn = free.sum(axis=1)
        after = self._total * (total[pair_row] - gpu_milli) - self._usable(reach, pair_row, caps, opened)
        constant = self._constant(rows, total, gpu_milli, before)
        cost = np.full(free.shape, NEVER, dtype=np.int64)
        cost[pair_row, pair_device] = after + constant[pair_row] + self.worth[had] - self.worth[left]
        spread: IntColumn = np.take_along_axis(cost, first, axis=1)
        return spread

    def whole_cost(
        self,
        rows: NodeRows,
        *,
        cpu_milli: int,
        gpus: int,
        devices: IntColumn | None = None,
        before: IntColumn | None = None,
    ) -> IntColumn:
        """Return the cost of a pod with `gpus` whole GPUs (0: CPU only). Shape (R,); NEVER where too few are idle.

        `devices` has the bits that will be taken on each row (shape (R,), all of them idle); without it the idle ones
        of the lowest index are meant, which are as good as any because equal devices of one model cost the same.
        """
        if devices is not None:
            return self._whole_cost(rows, cpu_milli, gpus, devices, before)
        return _few_at_a_time(rows, before, lambda some, known: self._whole_cost(some, cpu_milli, gpus, None, known))

    def _whole_cost(
        self, rows: NodeRows, cpu_milli: int, gpus: int, devices: IntColumn | None, before: IntColumn | None
    ) -> IntColumn:
        free = rows.free_milli
        idle = free >= 1000
        if devices is None:
            taken = idle & (idle.cumsum(axis=1) <= gpus)
        else:
            taken = idle & ((devices[:, None] >> np.arange(free.shape[1])) & 1 > 0)
        reach = self._reach(np.where(taken, 0, free))
        caps, opened = self._cpu_side(rows.model, rows.cpu_milli - cpu_milli)
        total: IntColumn = free.sum(axis=1)
        usable = self._usable(reach, np.arange(len(rows.model)), caps, opened)
        cost = self._total * (total - 1000 * gpus) - usable + self._constant(rows, total, 1000 * gpus, before)
        return np.where(taken.sum(axis=1) == gpus, cost, NEVER)

    def stranded_milli(self, rows: NodeRows) -> IntColumn:
        """Return the free thousandths of each node on devices that no learned class could use now. Shape (R,).

        A measure, not the ledger's state of that name: a class that nobody has asked for lately is not looked at.
        Nothing is stranded before anything was learned.
        """
        if not self.classes:
            return np.zeros(len(rows.model), dtype=np.int64)
        reach = self._reach(rows.free_milli)
        _, opened = self._cpu_side(rows.model, rows.cpu_milli)
        open_shapes = (np.add.reduceat(opened, self._shape_starts, axis=1) > 0) & (reach >= self._shape_least)
        wide = rows.free_milli[:, :, None]
        useful = ((wide >= self._shape_milli) & open_shapes[:, None, :]).any(axis=2)
        left: IntColumn = np.where(useful, 0, rows.free_milli).sum(axis=1)
        return left

    @property
    def _total(self) -> int:
        return TENTHS * WEIGHTS_SUM if self.classes else 0

    def _constant(self, rows: NodeRows, total: IntColumn, milli: int, before: IntColumn | None) -> IntColumn:
        """What is the same for all devices of a node: its fragment before, its model's scarcity, what it has left."""
        known = self._fragment(rows) if before is None else before
        return TENTHS * milli * self.scarcity[rows.model] + TIGHT * total - known

    def _reach(self, free: IntColumn) -> IntColumn:
        """Milli on devices that are large enough for each shape. Shape (R, S)."""
        wide = free[:, :, None]
        found: IntColumn = np.where(wide >= self._shape_milli, wide, 0).sum(axis=1)
        return found

    def _cpu_side(self, model: IntColumn, cpu: IntColumn) -> tuple[IntColumn, IntColumn]:
        """Milli that the free CPU can feed, and the weight where CPU and model allow one pod at all. Shape (R, M)."""
        wide = cpu[:, None]
        opened = self._weight_open[model] * (wide >= self._cpu_asked)
        caps: IntColumn = np.where(self._free_of_cpu, _ANY, wide * self._work // self._cpu)
        return np.where(opened > 0, caps, 0), opened

    def _usable(self, reach: IntColumn, row_of: NDArray[np.intp], caps: IntColumn, opened: IntColumn) -> IntColumn:
        """Weighted usable GPU in 10^-7 milli of states (P, S), each of a row of `caps` and `opened`. Shape (P,)."""
        if not self.classes:
            return np.zeros(len(reach), dtype=np.int64)
        room = np.where(reach >= self._shape_least, reach, 0)
        by_shape = np.add.reduceat(opened, self._shape_starts, axis=1)
        fed = np.minimum(room[:, self._shape_of], caps[row_of])
        flat: IntColumn = (TENTHS - CPU_TENTHS) * (room * by_shape[row_of]).sum(axis=1)
        capped: IntColumn = CPU_TENTHS * (fed @ self.weights)
        return flat + capped


def build(mix: Mix, capacity_milli: Mapping[str, int]) -> Fragments:
    """Return the tables of a mix over a fleet that has so many thousandths of each GPU model."""
    names = tuple(sorted(capacity_milli))
    pods, gangs = _covering(mix)
    classes = sorted(pods, key=lambda kind: (kind.gpu_milli, kind.gpus, kind))
    raw = [pods[kind] * _damping(kind.pod_milli) for kind in classes]
    shapes = [(kind.gpu_milli, kind.gpus) for kind in classes]
    known = sorted(set(shapes))
    weight = np.array(_scaled(raw), dtype=np.int64)
    accepted = [[is_of(kind.models, name) for kind in classes] for name in names] + [
        [not kind.models for kind in classes]
    ]
    asked = np.array([kind.cpu_milli for kind in classes], dtype=np.int64)
    whole = sum(raw)
    return Fragments(
        version=mix.version,
        models=names,
        classes=tuple(classes),
        gangs=tuple(
            (kind, count * _damping(kind.replicas * kind.pod_milli) * WEIGHTS_SUM // whole)
            for kind, count in gangs.items()
        ),
        worth=_read_only(_worth(mix)),
        scarcity=_read_only(_scarcity(mix, names, capacity_milli)),
        weights=_read_only(weight),
        _weight_open=weight * np.array(accepted, dtype=np.int64).reshape(len(names) + 1, len(classes)),
        _cpu=np.maximum(asked, 1),
        _cpu_asked=asked,
        _work=np.array([kind.pod_milli for kind in classes], dtype=np.int64),
        _free_of_cpu=asked == 0,
        _shape_of=np.array([known.index(shape) for shape in shapes], dtype=np.intp),
        _shape_starts=np.array([shapes.index(shape) for shape in known], dtype=np.intp),
        _shape_milli=np.array([milli for milli, _ in known], dtype=np.int64),
        _shape_least=np.array([milli * gpus if milli == 1000 else 0 for milli, gpus in known], dtype=np.int64),
    )


def domain_cost(
    slots_before: IntColumn, slots_after: IntColumn, domain_slots: IntColumn, *, replicas: int, milli: int, weight: int
) -> IntColumn:
    """Return what a placement on each node takes from gangs of one kind in the node's domain. Shape (R,), 10^-7 milli.

    `slots_*` are the members that the node has room for before and after, `domain_slots` those of its whole domain
    before; `milli` is what one member takes, `weight` that of `Fragments.gangs`. A domain that already could not hold
    one more gang loses nothing: what it has is a fragment anyway.
    """
    lost: IntColumn = domain_slots // replicas - (domain_slots - (slots_before - slots_after)) // replicas
    return lost * (TENTHS * weight * replicas * milli)


def largest_gang(slots: IntColumn, domain_of: IntColumn) -> int:
    """Return the members of the largest gang that one domain has room for.

    `slots` are the members that each node has room for, `domain_of` its domain at the level asked about, -1 for none;
    shape (R,) each.
    """
    inside = domain_of >= 0
    if not inside.any():
        return 0
    room = np.zeros(int(domain_of.max()) + 1, dtype=np.int64)
    np.add.at(room, domain_of[inside], slots[inside])
    return int(room.max())


def _covering(mix: Mix) -> tuple[dict[Kind, int], dict[Kind, int]]:
    """Pods per class that asks for GPU, and per gang kind, of the kinds that cover most arrivals."""
    left = (sum(mix.pods) * COVERED_PERCENT + 99) // 100
    pods: dict[Kind, int] = {}
    gangs: dict[Kind, int] = {}
    for kind, count in zip(mix.kinds, mix.pods, strict=True):
        if left <= 0:
            break
        left -= count
        if kind.pod_milli > 0:
            single = Kind(kind.cpu_milli, kind.gpu_milli, kind.gpus, kind.models)
            pods[single] = pods.get(single, 0) + count
            if kind.replicas > 1 and kind.within:
                gangs[kind] = count
    return pods, gangs


def _damping(milli: int) -> int:
    """10^6 / sqrt(GPUs): between one vote a pod and one vote a GPU, so that large requests keep a margin."""
    return isqrt(1000 * 10**12 // milli)


def _scaled(raw: list[int]) -> list[int]:
    """Scale to integers that sum to WEIGHTS_SUM exactly; each is off by less than one."""
    whole, run, weights = sum(raw), 0, list[int]()
    for value in raw:
        weights.append((run + value) * WEIGHTS_SUM // whole - run * WEIGHTS_SUM // whole)
        run += value
    return weights


def _worth(mix: Mix) -> IntColumn:
    """Prices of what may be left on a device. Whole GPUs all cost one device, so only shares are charged by them."""
    pods: dict[int, int] = {}
    for kind, count in zip(mix.kinds, mix.pods, strict=True):
        if kind.gpus:
            pods[kind.gpu_milli] = pods.get(kind.gpu_milli, 0) + count * kind.gpus
    steps = np.arange(WHOLE_MILLI + 1, dtype=np.int64) * GRID // WHOLE_MILLI
    milli: IntColumn = np.array(device_worth(pods), dtype=np.int64)[steps]
    return milli * (WORTH * TENTHS * WHOLE_MILLI)


def _scarcity(mix: Mix, names: tuple[str, ...], capacity: Mapping[str, int]) -> IntColumn:
    """Squared scarcity: demand that insists on a model, as a part of all demand, over the model's part of the fleet."""
    bound = dict.fromkeys(names, 0)
    seen = 0
    for kind, count in zip(mix.kinds, mix.pods, strict=True):
        milli = count * kind.pod_milli
        seen += milli
        fitting = [name for name in names if is_of(kind.models, name)] if kind.models and milli else []
        room = sum(capacity[name] for name in fitting)
        for name in fitting:
            bound[name] += milli * capacity[name] // max(room, 1)
    whole = sum(capacity.values())
    squares: list[int] = []
    for name in names:
        above = (len(names) * bound[name] + PRIOR_MILLI) * whole
        below = len(names) * (seen + PRIOR_MILLI) * capacity[name]
        squares.append(min(SCARCE_MICRO_MAX, above * above * 1_000_000 // max(below * below, 1)))
    return np.array([*squares, 1_000_000], dtype=np.int64)


def _read_only(column: IntColumn) -> IntColumn:
    column.flags.writeable = False
    return column


def _few_at_a_time(
    rows: NodeRows, before: IntColumn | None, cost: Callable[[NodeRows, IntColumn | None], IntColumn]
) -> IntColumn:
    """Compute costs of each distinct state once, in blocks that stay in the processor's caches."""
    if len(rows.model) <= _DEDUPE_ROWS:
        return cost(rows, before)
    few, inverse, known = _distinct(rows, before)
    blocks = [slice(start, start + _BLOCK_ROWS) for start in range(0, len(few.model), _BLOCK_ROWS)]
    found = np.concatenate([cost(few.take(block), None if known is None else known[block]) for block in blocks])
    spread: IntColumn = found[inverse]
    return spread


def _distinct(rows: NodeRows, before: IntColumn | None) -> tuple[NodeRows, IntColumn, IntColumn | None]:
    """Return each node state once, where to find it for every row, and `before` of those rows.

    States are told apart by a 64-bit mix of their numbers; where two of one mix differ, nothing is merged.
    """
    mixed = rows.model * 0x2545F491 + rows.cpu_milli * 0x9E3779B1
    for device in range(rows.free_milli.shape[1]):
        mixed = (mixed ^ (mixed >> 29)) * 0x5851F42D4C957F2D + rows.free_milli[:, device]
    _, first, inverse = np.unique(mixed, return_index=True, return_inverse=True)
    few = rows.take(first)
    same = few.take(inverse)
    if not (
        np.array_equal(same.model, rows.model)
        and np.array_equal(same.cpu_milli, rows.cpu_milli)
        and np.array_equal(same.free_milli, rows.free_milli)
    ):
        return rows, np.arange(len(rows.model)), before
    return few, inverse, None if before is None else before[first]
