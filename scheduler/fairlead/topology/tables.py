"""Shape tables: which devices of a node to take, answered from columns that nodes of one shape share.

A shape is a machine without what tells its copies apart (uuid, PCI address, names, health). Bit i of a device mask is
`machine.gpus[i]`.

Up to `COLUMNS_UP_TO` GPUs every subset is a row of NumPy columns made once per shape, so a query filters and takes a
minimum: exhaustive and exact. Beyond that the rows would not fit, and `best` grows sets greedily from every free GPU
(at most n² steps for each start) and keeps the best of them by the same order; its pace may then be below the optimum,
never above the truth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairlead.model.hardware import Link, Machine
from fairlead.topology.likeness import ByKind
from fairlead.topology.paths import UNKNOWN_RANK, class_rank, effective, theoretical_pace, tree_class

COLUMNS_UP_TO = 16
"""GPUs of one machine up to which every subset has a row: 65,536 rows, about 1 MB."""

_NICS_UP_TO = 62  # NICs are bits of an int64 in the matching; more of them change nothing for 16 GPUs

_ANSWERS_UP_TO = 65_536  # remembered per shape: about 10 MB; 8 GPUs have 2,048 questions in all

_Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Shape:
    """A machine's topology alone: hashable, equal for machines that placement need not tell apart.

    Rows and columns are GPUs in `machine.gpus` order. `pace` in bytes/s (0 unknown), `nic_rank` per GPU the class rank
    to each NIC, `numa`/`switch` group numbers by first appearance, -1 unknown, `distance` SLIT distances or 0.
    """

    pace: tuple[tuple[int, ...], ...]
    nic_rank: tuple[tuple[int, ...], ...]
    numa: tuple[int, ...]
    switch: tuple[int, ...]
    distance: tuple[tuple[int, ...], ...]


def shape_key(machine: Machine) -> Shape:
    """Return the shape of a machine; machines with equal shapes share one table."""
    pairs: dict[tuple[str, str], Link] = {}
    for link in machine.links:
        pairs[link.a, link.b] = pairs[link.b, link.a] = link
    gpus = machine.gpus
    pace: list[tuple[int, ...]] = []
    nics: list[tuple[int, ...]] = []
    for gpu in gpus:
        row: list[int] = []
        for peer in gpus:
            link_to = pairs.get((gpu.id, peer.id))
            if peer is gpu:
                row.append(0)
            elif link_to is None:
                row.append(theoretical_pace(tree_class(gpu, peer)))
            else:
                row.append(effective(link_to))
        pace.append(tuple(row))
        ranks: list[int] = []
        for nic in machine.nics:
            to_nic = pairs.get((gpu.id, nic.id))
            ranks.append(class_rank(to_nic.path if to_nic is not None else tree_class(gpu, nic)))
        nics.append(tuple(ranks))
    slit = {node.id: node.distances for node in machine.numa_nodes}
    place = {node.id: i for i, node in enumerate(machine.numa_nodes)}

    def distance(a: int, b: int) -> int:
        row = slit.get(a, ())
        at = place.get(b, len(row))
        return row[at] if a != b and at < len(row) else 0

    return Shape(
        pace=tuple(pace),
        nic_rank=tuple(nics),
        numa=_numbered(tuple(gpu.numa if gpu.numa >= 0 else None for gpu in gpus)),
        switch=_numbered(tuple(gpu.pcie_switch.split("/")[0] or None for gpu in gpus)),
        distance=tuple(tuple(distance(a.numa, b.numa) for b in gpus) for a in gpus),
    )


def _numbered(groups: tuple[object, ...]) -> tuple[int, ...]:
    """Replace group names by numbers in order of first appearance; None stays unknown (-1)."""
    numbers: dict[object, int] = {}
    return tuple(-1 if g is None else numbers.setdefault(g, len(numbers)) for g in groups)


class ShapeTable:
    """Best device sets of one shape. Answers are remembered, so a repeated question costs one dictionary look-up."""

    __slots__ = ("_best", "_columns", "gpus", "shape")

    def __init__(self, shape: Shape) -> None:
        """Build the columns (milliseconds up to 8 GPUs, some tens of them for 16)."""
        self.shape = shape
        self.gpus = len(shape.pace)
        self._best: dict[tuple[int, int, int], tuple[int, int]] = {}
        self._columns = _Columns(shape) if self.gpus <= COLUMNS_UP_TO else None

    def best(self, mask: int, count: int, required: int = 0) -> tuple[int, int]:
        """Return (mask of the best `count` devices out of `mask`, pace of their slowest pair in bytes/s).

        Only sets that hold all of `required` count.
        Best is the highest pace; then the lowest sum of path classes to a nearest NIC and the most NICs of their own;
        then the fewest NUMA nodes and the nearest of them; then what stays behind: the largest sets that keep each
        pace, whole pace islands, NUMA nodes and switches; then the fewest switches; then the
        lowest mask. (0, 0) when `mask` has too few or lacks a required one. The pace of one device is 0.
        """
        found = self._best.get((mask, count, required))
        if found is None:
            free = mask & ((1 << self.gpus) - 1)
            if count <= 0 or free.bit_count() < count or required & ~free or required.bit_count() > count:
                found = (0, 0)
            elif self._columns is not None:
                chosen = self._columns.choose(free, count, required)
                found = (chosen, self.pace(chosen))
            else:
                found = self._grow(free, count, required)
            if len(self._best) >= _ANSWERS_UP_TO:
                self._best.clear()
            self._best[mask, count, required] = found
        return found

    def alike(self, mask: int, count: int, required: int = 0) -> tuple[_Ints, _Ints]:
        """Return the sets that tie with `best` in pace and NICs, best first, and their NUMA ranks (equal is as near).

        Beyond `COLUMNS_UP_TO` GPUs it is the best one alone; nothing where `best` finds nothing. Not remembered.
        """
        best, _ = self.best(mask, count, required)
        if self._columns is None or not best:
            return np.array([best] if best else [], dtype=np.int64), np.zeros(1 if best else 0, dtype=np.int64)
        return self._columns.alike(mask & ((1 << self.gpus) - 1), count, required)

    def pace(self, mask: int) -> int:
        """Return bytes/s of the slowest pair inside `mask`, 0 below two devices or where a pair is unknown."""
        if self._columns is not None:
            return self._columns.pace(mask & ((1 << self.gpus) - 1))
        chosen = self._bits(mask)
        rows = self.shape.pace
        return min((rows[a][b] for i, a in enumerate(chosen) for b in chosen[i + 1 :]), default=0)

    def numa_span(self, mask: int) -> int:
        """Return how many NUMA nodes the devices of `mask` hang on; all unknown ones count as one more."""
        return len({self.shape.numa[i] for i in self._bits(mask)})

    def _bits(self, mask: int) -> list[int]:
        return [i for i in range(self.gpus) if mask >> i & 1]

    def _grow(self, free: int, count: int, required: int) -> tuple[int, int]:
        """Grow a set from every free device, always by the one that costs least (bounded; for large machines)."""
        shape, candidates = self.shape, self._bits(free)
        near = [min(row, default=0) for row in shape.nic_rank]
        best_cost: tuple[int, ...] | None = None
        chosen = 0
        for first in [self._bits(required)[0]] if required else candidates:
            mask, slowest = required or 1 << first, dict.fromkeys(candidates, 1 << 62)
            fresh = self._bits(mask)
            for _ in range(count - mask.bit_count()):
                for other in candidates:
                    slowest[other] = min(slowest[other], *(shape.pace[last][other] for last in fresh))
                nodes = {shape.numa[i] for i in self._bits(mask)}
                last = min(
                    (i for i in candidates if not mask >> i & 1),
                    key=lambda i: (-slowest[i], near[i], shape.numa[i] not in nodes, shape.switch[i], i),
                )
                mask |= 1 << last
                fresh = [last]
            nic_cost = sum(near[i] for i in self._bits(mask))
            kept, switches = _kept_together(free & ~mask, shape), len({shape.switch[i] for i in self._bits(mask)})
            cost = (-self.pace(mask), nic_cost, self.numa_span(mask), -kept, switches, mask)
            if best_cost is None or cost < best_cost:
                best_cost, chosen = cost, mask
        return chosen, self.pace(chosen)


def _kept_together(mask: int, shape: Shape) -> int:
    """Sum of squares of how many devices of `mask` each NUMA node and switch still has: more means more whole."""
    total = 0
    for groups in (shape.numa, shape.switch):
        sizes: dict[int, int] = {}
        for i, group in enumerate(groups):
            if mask >> i & 1 and group >= 0:
                sizes[group] = sizes.get(group, 0) + 1
        total += sum(size * size for size in sizes.values())
    return total


class TableCache:
    """One table per distinct shape. Not shared between threads."""

    __slots__ = ("_by_kind", "_by_shape")

    def __init__(self) -> None:
        """Start empty."""
        self._by_shape: dict[Shape, ShapeTable] = {}
        self._by_kind: ByKind[tuple[ShapeTable, object]] = ByKind()

    def table(self, machine: Machine) -> ShapeTable:
        """Return the table of the machine's shape, made at the first call for that shape."""
        return self._by_kind.get(machine, self._of_kind)[0]

    def kind(self, machine: Machine) -> object:
        """Return what machines of one kind have in common: the same object for all of them."""
        return self._by_kind.get(machine, self._of_kind)[1]

    def _of_kind(self, machine: Machine) -> tuple[ShapeTable, object]:
        shape = shape_key(machine)
        return self._by_shape.setdefault(shape, self._by_shape.get(shape) or ShapeTable(shape)), object()

    def __len__(self) -> int:
        """Return how many distinct shapes there are."""
        return len(self._by_shape)


class _Columns:
    """One row per subset: its rank as a choice, and its rank as what stays behind (both smaller is better)."""

    __slots__ = ("_left", "_pace", "_subsets", "_switches")

    def __init__(self, shape: Shape) -> None:
        n = len(shape.pace)
        size = _sums([1] * n)
        pace = _pairwise(shape.pace, np.minimum, start=np.iinfo(np.int64).max)
        # Costs must sort alike, not look alike: pace becomes its level, 0 the fastest; below two devices all are equal.
        values, level = np.unique(-pace, return_inverse=True)
        level = np.where(size < 2, 0, level.astype(np.int64))
        near = [min(row, default=0) for row in shape.nic_rank]
        rank = _Key()
        rank.add(level)
        rank.add(_sums(near))
        rank.add(_sharing(shape.nic_rank, near, size))
        paths = rank.dense()
        rank.add(_span(shape.numa))
        rank.add(_pairwise(shape.distance, np.maximum, start=0))
        self._pace = np.where(size < 2, 0, pace)
        ranks = rank.dense()
        self._switches = _span(shape.switch)  # 0 to n, so a remainder's rank times n + 1 weighs more
        self._left = _left_behind(shape, size, level, len(values)) * (n + 1)
        self._subsets: list[tuple[_Ints, _Ints, _Ints]] = []
        for count in range(n + 1):
            subsets = np.flatnonzero(size == count).astype(np.int64)
            subsets = subsets[np.argsort(ranks[subsets], kind="stable")]
            self._subsets.append((subsets, ranks[subsets], paths[subsets]))

    def pace(self, mask: int) -> int:
        """Return bytes/s of the slowest pair of a subset."""
        return int(self._pace[mask])

    def choose(self, free: int, count: int, required: int) -> int:
        """Return the best subset of `free` with `count` bits, `required` among them; there is one."""
        masks, ranks, _ = self._inside(free, count, required)
        # Sorted by rank, then mask: the equals of the first stand side by side.
        equals = masks[: np.searchsorted(ranks, ranks[0], side="right")]
        return int(equals[np.argmin(self._left[free ^ equals] + self._switches[equals])])

    def alike(self, free: int, count: int, required: int) -> tuple[_Ints, _Ints]:
        """Return (subsets, ranks) that `choose` weighs beyond pace and NICs, in its order."""
        masks, ranks, paths = self._inside(free, count, required)
        end = np.searchsorted(paths, paths[0], side="right")  # ranks begin with what paths are made of
        masks, ranks = masks[:end], ranks[:end]
        order = np.lexsort((masks, self._left[free ^ masks] + self._switches[masks], ranks))
        return masks[order], ranks[order]

    def _inside(self, free: int, count: int, required: int) -> tuple[_Ints, _Ints, _Ints]:
        subsets, ranks, paths = self._subsets[count]
        inside = np.flatnonzero(((subsets & free) == subsets) & ((subsets & required) == required))
        return subsets[inside], ranks[inside], paths[inside]


def _left_behind(shape: Shape, size: _Ints, level: _Ints, levels: int) -> _Ints:
    """Rank every subset by how useful it is as a remainder, best first."""
    n = len(shape.pace)
    key = _Key()
    islands: list[tuple[int, ...]] = []
    for at in range(levels):
        largest = np.where(level <= at, size, 0)
        for bit in range(n):
            halves = largest.reshape(-1, 2, 1 << bit)
            np.maximum(halves[:, 1], halves[:, 0], out=halves[:, 1])
        key.add(n - largest)
    for threshold in sorted({p for row in shape.pace for p in row if p}, reverse=True):
        islands.append(_islands(shape.pace, threshold))
    for groups in dict.fromkeys([*islands, shape.numa, shape.switch]):
        key.add(n * n - _squares(groups))
    return key.dense()


class _Key:
    """A lexicographic sort key packed into int64, densified before it overflows."""

    __slots__ = ("_radix", "_values")

    def __init__(self) -> None:
        self._values: _Ints = np.zeros(1, dtype=np.int64)
        self._radix = 1

    def add(self, column: _Ints) -> None:
        """Append a column of non-negative costs; earlier columns weigh more."""
        top = int(column.max()) + 1
        if self._radix * top >= 1 << 62:
            self._values = self.dense()
            self._radix = int(self._values.max()) + 1
        self._values = self._values * top + column
        self._radix *= top

    def dense(self) -> _Ints:
        """Return the key as ranks 0, 1, 2 … that sort alike."""
        return np.unique(self._values, return_inverse=True)[1].astype(np.int64)


def _sums(weights: list[int]) -> _Ints:
    """Per subset the sum of its members' weights."""
    out = np.zeros(1 << len(weights), dtype=np.int64)
    for bit, weight in enumerate(weights):
        out[1 << bit : 2 << bit] = out[: 1 << bit] + weight
    return out


def _pairwise(matrix: tuple[tuple[int, ...], ...], fold: Callable[[_Ints, _Ints], _Ints], *, start: int) -> _Ints:
    """Per subset the fold of the matrix over its pairs; `start` where there is none."""
    n = len(matrix)
    out = np.full(1 << n, start, dtype=np.int64)
    for bit in range(n):
        to_new = np.full(1 << bit, start, dtype=np.int64)
        for other in range(bit):
            to_new[1 << other : 2 << other] = fold(to_new[: 1 << other], np.asarray(matrix[bit][other], dtype=np.int64))
        out[1 << bit : 2 << bit] = fold(out[: 1 << bit], to_new)
    return out


def _members(groups: tuple[int, ...]) -> list[int]:
    """Masks of the groups, unknown ones (-1) left out."""
    masks: dict[int, int] = {}
    for i, group in enumerate(groups):
        if group >= 0:
            masks[group] = masks.get(group, 0) | 1 << i
    return list(masks.values())


def _span(groups: tuple[int, ...]) -> _Ints:
    """Per subset the number of groups it touches; all unknown members count as one group."""
    rows = np.arange(1 << len(groups), dtype=np.int64)
    unknown = sum(1 << i for i, group in enumerate(groups) if group < 0)
    out = np.zeros_like(rows)
    for mask in [*_members(groups), *([unknown] if unknown else [])]:
        out += (rows & mask) != 0
    return out


def _squares(groups: tuple[int, ...]) -> _Ints:
    """Per subset the sum of squares of its group sizes."""
    out = np.zeros(1 << len(groups), dtype=np.int64)
    for mask in _members(groups):
        inside = _sums([mask >> i & 1 for i in range(len(groups))])
        out += inside * inside
    return out


def _islands(pace: tuple[tuple[int, ...], ...], threshold: int) -> tuple[int, ...]:
    """Group devices that reach each other over pairs of at least `threshold` bytes/s."""
    group = list(range(len(pace)))
    for a, row in enumerate(pace):
        for b, value in enumerate(row):
            if value >= threshold and group[a] != group[b]:
                low, high = sorted((group[a], group[b]))
                group = [low if g == high else g for g in group]
    return _numbered(tuple(group))


def _sharing(nic_rank: tuple[tuple[int, ...], ...], near: list[int], size: _Ints) -> _Ints:
    """Per subset how many devices get no nearest NIC of their own, by Hall's theorem over all subsets at once."""
    n = len(nic_rank)
    if not nic_rank or not nic_rank[0]:
        return np.zeros(1 << n, dtype=np.int64)
    users: dict[int, int] = {}
    for nic in range(len(nic_rank[0])):
        mask = sum(1 << gpu for gpu in range(n) if nic_rank[gpu][nic] == near[gpu] < UNKNOWN_RANK)
        if mask and users.get(mask, 0) < mask.bit_count():  # more equal NICs than users change nothing
            users[mask] = users.get(mask, 0) + 1
    nics = [mask for mask, copies in users.items() for _ in range(copies)][:_NICS_UP_TO]
    reached = np.zeros(1 << n, dtype=np.int64)
    for gpu in range(n):
        own = sum(1 << i for i, mask in enumerate(nics) if mask >> gpu & 1)
        reached[1 << gpu : 2 << gpu] = reached[: 1 << gpu] | own
    without = np.maximum(size - np.bitwise_count(reached).astype(np.int64), 0)
    for bit in range(n):
        halves = without.reshape(-1, 2, 1 << bit)
        np.maximum(halves[:, 1], halves[:, 0], out=halves[:, 1])
    return without
