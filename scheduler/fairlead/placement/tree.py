"""How many pods every domain holds, and a number of them shared out over domains: few domains, wide levels first.

The nodes of a base domain lie in tree order, so that every domain below it is a run of neighbours. Capacities go up the
tree (a slice level rounds down to whole slices, a level that must hold all of a role gives its best domain, an amount
that lives at a level caps it); the number to place goes down it: into the one child that just holds it, else into the
largest children first and the rest into the one that just holds that. Where a gang only prefers to be together, what
does not fit into one child is shared out evenly over as few of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fairlead.world.fleet import IntColumn, Inventory, Level


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """Levels that nest, widest first, the last one the node; and all rows in tree order.

    `domain_of` per level: shape (nodes,); a row in no domain of a level counts as one of its own beside the others in
    its parent, with a number from `len(level.names)` up.
    """

    levels: tuple[Level, ...]
    domain_of: tuple[IntColumn, ...]
    order: IntColumn
    runs: dict[str, tuple[IntColumn, IntColumn]] = field(default_factory=dict[str, tuple[IntColumn, IntColumn]])

    def rows(self, level: Level, domain: int) -> IntColumn:
        """Return the rows of one domain of any level, in tree order."""
        if level.name == "cluster":
            return self.order
        run = self.runs.get(level.name)
        if run is None:
            domains = level.domain_of[self.order]
            inside = self.order[domains >= 0]
            sorted_rows = inside[np.argsort(level.domain_of[inside], kind="stable")]
            starts = np.searchsorted(level.domain_of[sorted_rows], np.arange(len(level.names) + 1))
            run = self.runs[level.name] = (sorted_rows, starts)
        return run[0][run[1][domain] : run[1][domain + 1]]


class Chains:
    """The chains of one inventory, by the levels that must be in them."""

    def __init__(self, inventory: Inventory) -> None:
        """Nothing is computed yet."""
        self._inventory = inventory
        self._known: dict[frozenset[str], Chain | None] = {}

    def through(self, names: frozenset[str]) -> Chain | None:
        """Return a chain that has all of `names` and whatever else nests; None where they do not nest."""
        if names not in self._known:
            self._known[names] = self._build(names)
        return self._known[names]

    def _build(self, names: frozenset[str]) -> Chain | None:
        levels = [lv for name, lv in self._inventory.levels.items() if name not in ("cluster", "node")]
        levels.sort(key=lambda lv: (len(lv.names), lv.name not in names))
        chosen: list[Level] = []
        for level in sorted(levels, key=lambda lv: lv.name not in names):
            if all(_nests(level, other) or _nests(other, level) for other in chosen):
                chosen.append(level)
            elif level.name in names:
                return None
        wide_first: list[Level] = []
        for level in chosen:
            at = sum(1 for other in wide_first if _nests(level, other))
            wide_first.insert(at, level)
        domains: list[IntColumn] = []
        parent = np.zeros(len(self._inventory.nodes), dtype=np.int64)
        for level in wide_first:
            column = np.where(level.domain_of >= 0, level.domain_of, len(level.names) + parent)
            domains.append(column)
            parent = column
        rows = np.arange(len(self._inventory.nodes))
        order = np.lexsort((rows, *reversed(domains)))
        node = self._inventory.levels.get("node")
        if node is not None:
            wide_first.append(node)
            domains.append(rows)
        return Chain(tuple(wide_first), tuple(domains), order)


def _nests(inner: Level, outer: Level) -> bool:
    """Whether every domain of `inner` lies whole in one domain of `outer`."""
    inside = inner.domain_of >= 0
    outside = outer.domain_of[inside]
    low = np.full(len(inner.names), np.iinfo(np.int64).max)
    high = np.full(len(inner.names), -1, dtype=np.int64)
    np.minimum.at(low, inner.domain_of[inside], outside)
    np.maximum.at(high, inner.domain_of[inside], outside)
    return bool((low == high).all() and (low >= 0).all())


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How pods of one role may lie below a base domain.

    `slices` are level name -> size. `whole` is a level one domain of which must hold all of them, "" for none.
    `spread` is a level over whose domains they are spread as evenly as can be, over all that hold any: replicas that
    must not fail together. `balanced` is a level that should hold all of them: where it does not, they are shared out
    evenly over as few of its domains as hold them, and over as few nodes, because the node with the fewest members has
    the fewest links to the others; "" packs. An even share never costs a domain of any level. `caps` are amounts that
    live at a level: level name -> shape (domains,) of pods that are left there.
    """

    slices: Mapping[str, int]
    whole: str = ""
    spread: str = ""
    balanced: str = ""
    caps: Mapping[str, IntColumn]


class Tree:
    """The rows of one base domain with what each takes, ready to be asked how many fit and where."""

    def __init__(self, chain: Chain, rows: IntColumn, room: IntColumn, cost: IntColumn, wish: Wish) -> None:
        """`rows` in tree order; `room` and `cost` have shape (nodes,)."""
        self._chain = chain
        self._rows = rows
        self._cost = cost[rows]
        self._wish = wish
        self._whole_at = next((at for at, level in enumerate(chain.levels) if level.name == wish.whole), -1)
        self._spread_at = next((at for at, level in enumerate(chain.levels) if level.name == wish.spread), -1)
        self._starts: list[IntColumn] = []
        self._caps: list[IntColumn] = []
        self._climb(room[rows])

    def _climb(self, caps: IntColumn) -> None:
        """Compute where the domains of each level start in `rows`, and what each holds, from the nodes up."""
        chain, wish = self._chain, self._wish
        starts = np.arange(len(self._rows))
        for at in range(len(chain.levels) - 1, -1, -1):
            level = chain.levels[at]
            if at < len(chain.levels) - 1 and len(starts) != 1:  # one domain is in one of each wider level
                column = chain.domain_of[at][self._rows]
                edge = np.flatnonzero(np.concatenate(([True], column[1:] != column[:-1]))) if len(column) else column
                child = np.searchsorted(starts, edge)
                caps = (np.maximum if at < self._whole_at else np.add).reduceat(caps, child) if len(child) else caps
                starts = edge
            if level.name in wish.caps and len(starts):
                domains = chain.domain_of[at][self._rows[starts]]
                left = wish.caps[level.name]
                known = domains < len(left)
                caps = np.where(known, np.minimum(caps, left[np.where(known, domains, 0)]), caps)
            size = wish.slices.get(level.name, 1)
            if level.name in wish.slices or level.name in (wish.whole, wish.spread):
                domains = chain.domain_of[at][self._rows[starts]]
                caps = np.where(domains < len(level.names), caps // size * size, 0)
            self._starts.insert(0, starts)
            self._caps.insert(0, caps)

    @property
    def capacity(self) -> int:
        """Return how many pods the base domain holds."""
        if not self._caps or not len(self._rows):
            return 0
        top = self._caps[0]
        total = int(top.max()) if self._whole_at >= 0 else int(top.sum())
        cluster = self._wish.caps.get("cluster")
        total = total if cluster is None else min(total, int(cluster[0]))
        unit = self._unit(0)
        return total // unit * unit

    def caps_of(self, level: Level) -> IntColumn | None:
        """Return what each domain of a level holds of those in the base, None where the chain does not have it."""
        at = next((at for at, known in enumerate(self._chain.levels) if known.name == level.name), -1)
        if at < 0:
            return None
        held = np.zeros(len(level.names), dtype=np.int64)
        domains = self._chain.domain_of[at][self._rows[self._starts[at]]]
        known = domains < len(level.names)
        unit = self._unit(at)
        held[domains[known]] = self._caps[at][known] // unit * unit
        return held

    def _unit(self, at: int) -> int:
        """Return of what number the pods that go into one domain of the level `at` are a multiple."""
        return max((self._wish.slices.get(level.name, 1) for level in self._chain.levels[at:]), default=1)

    def place(self, count: int) -> list[tuple[int, int]] | None:
        """Return (row, pods) for `count` pods in tree order, None where they do not fit."""
        if count > self.capacity or count % self._unit(0):
            return None
        packed = self._share_out(count, frozenset())
        if not self._wish.balanced or len(packed) < 2:
            return packed
        balanced = self._share_out(count, frozenset({self._wish.balanced, "node"}))
        used, at_least = self._domains(balanced), self._domains(packed)
        if all(mine <= least for mine, least in zip(used, at_least, strict=True)):
            return balanced
        return self._share_out(count, frozenset({"node"}))  # over as few nodes of each domain, so that costs none

    def _share_out(self, count: int, even_at: frozenset[str]) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        self._down(0, (0, len(self._caps[0])), count, even_at, found)
        return found

    def _domains(self, spots: list[tuple[int, int]]) -> list[int]:
        """Count the domains of every level that hold some of `spots`."""
        rows = np.array([row for row, _ in spots], dtype=np.int64)
        return [len(set(column[rows].tolist())) for column in self._chain.domain_of]

    def _down(
        self, at: int, run: tuple[int, int], count: int, even_at: frozenset[str], found: list[tuple[int, int]]
    ) -> None:
        """Share `count` out over the children `run` (first, one past the last) at level `at`."""
        at, (first, last) = self._past_packing(at, run)
        levels, starts, caps = self._chain.levels, self._starts[at], self._caps[at]
        mine = caps[first:last]
        name = levels[at].name
        end = int(starts[last]) if last < len(starts) else len(self._rows)
        alone = end - int(starts[first]) == last - first  # each child is one node, whatever its level is called
        cost = self._cost[starts[first:last]] if alone else None
        if last - first == 1:
            parts = [(0, count)]
        elif name == self._wish.spread:
            parts = even(mine, count, self._unit(at), cost, over_all=True)
        elif name in even_at or (alone and "node" in even_at):
            parts = even(mine, count, self._unit(at), cost, over_all=False)
        else:
            parts = few(mine, count, cost)
        for child, number in parts:
            child += first
            if at == len(levels) - 1:
                found.append((int(self._rows[child]), number))
                continue
            below = self._starts[at + 1]
            begin = int(np.searchsorted(below, starts[child]))
            end = int(np.searchsorted(below, starts[child + 1])) if child + 1 < len(starts) else len(below)
            self._down(at + 1, (begin, end), number, even_at, found)

    def _past_packing(self, at: int, run: tuple[int, int]) -> tuple[int, tuple[int, int]]:
        """Go from domains above the level of a spread, where these ask for nothing, to all of that level in them.

        Else the pods would be packed into the one block that just holds them before they are spread over its racks.
        """
        wish, between = self._wish, {level.name for level in self._chain.levels[at : max(at, self._spread_at)]}
        if not between or not between.isdisjoint({wish.whole, *wish.slices, *wish.caps}):
            return at, run
        starts, below = self._starts[at], self._starts[self._spread_at]
        begin = int(np.searchsorted(below, starts[run[0]]))
        end = int(np.searchsorted(below, starts[run[1]])) if run[1] < len(starts) else len(below)
        return self._spread_at, (begin, end)


def within_caps(spots: Sequence[tuple[int, int]], caps: Mapping[str, IntColumn], inventory: Inventory) -> bool:
    """Whether amounts that live above the nodes allow (row, pods); a level across a chain's did not cap them there."""
    placed = np.array(spots, dtype=np.int64).reshape(-1, 2)
    for name, left in caps.items():
        domains = inventory.levels[name].domain_of[placed[:, 0]]
        held = np.zeros(len(left), dtype=np.int64)
        np.add.at(held, domains[domains >= 0], placed[domains >= 0, 1])
        if (held > left).any():
            return False
    return True


def few(caps: IntColumn, count: int, cost: IntColumn | None) -> list[tuple[int, int]]:
    """Return (child, pods): the one child that just holds them, else the largest first and the rest where it just fits.

    Of children that hold equally many the one of lower `cost` comes first, then the lower number. That is the fewest
    children there can be, since whatever is taken from a child is all that it holds.
    """
    if count == int(caps.sum()):
        return everything(caps)
    parts: list[tuple[int, int]] = []
    left = count
    order = _largest_first(caps, cost)
    falling = -caps[order]
    at = 0
    while left > 0:
        holds = int(np.searchsorted(falling, -left, side="right"))  # the first that is too small
        if holds > at:
            tightest = max(at, int(np.searchsorted(falling, falling[holds - 1], side="left")))
            parts.append((int(order[tightest]), left))
            return sorted(parts)
        parts.append((int(order[at]), -int(falling[at])))
        left += int(falling[at])
        at += 1
    return sorted(parts)


def everything(caps: IntColumn) -> list[tuple[int, int]]:
    """Return (child, pods) where each child gives all that it holds."""
    some = np.flatnonzero(caps)
    return list(zip(some.tolist(), caps[some].tolist(), strict=True))


def even(caps: IntColumn, count: int, unit: int, cost: IntColumn | None, *, over_all: bool) -> list[tuple[int, int]]:
    """Return (child, pods) with the fullest child as empty as can be, in multiples of `unit`.

    Over all children that hold any; or over as few as `few` uses, of those the set with the least room that can share
    the pods evenly.
    """
    if count == int(caps.sum()):
        return everything(caps)
    order = _largest_first(caps, cost)
    order = order[: int(np.searchsorted(-caps[order], -unit, side="right"))]
    usable = (order if over_all else _fewest(caps[order] // unit, order, count // unit)).tolist()
    share = dict.fromkeys(usable, 0)
    left = count // unit
    room = {child: int(caps[child]) // unit for child in usable}
    while left > 0:
        open_ones = [child for child in usable if share[child] < room[child]]
        lowest = min(share[child] for child in open_ones)
        level = [child for child in open_ones if share[child] == lowest]
        above = min([share[c] for c in open_ones if share[c] > lowest] + [room[c] for c in level])
        step = min(above - lowest, left // len(level))
        for child in level if step else level[:left]:
            share[child] += step or 1
            left -= step or 1
    return sorted((child, number * unit) for child, number in share.items() if number)


def _largest_first(caps: IntColumn, cost: IntColumn | None) -> IntColumn:
    """Return the children that hold most first; among equals the one of lower cost, then the lower number."""
    keys = (np.arange(len(caps)), -caps) if cost is None else (np.arange(len(caps)), cost, -caps)
    return np.lexsort(keys)


def _fewest(falling: IntColumn, children: IntColumn, count: int) -> IntColumn:
    """Return as few of `children` as hold `count`, of those that can share it evenly the ones with the least room.

    `falling` is what they hold, the most first; so neighbours are taken, and what a run of them holds falls too.
    """
    number = int(np.searchsorted(np.cumsum(falling), count)) + 1
    low, high = -(-count // number), int(falling[0])
    while low < high:  # the least that the fullest of any so many children has: that of the largest
        middle = (low + high) // 2
        enough = int(np.minimum(falling[:number], middle).sum()) >= count
        low, high = (low, middle) if enough else (middle + 1, high)
    level = _runs(np.minimum(falling, low), number)  # what runs hold with nobody above that
    last = int(np.searchsorted(-level, -count, side="right")) - 1
    room = _runs(falling, number)
    first = int(np.searchsorted(-room, -room[last]))
    return children[first : first + number]


def _runs(falling: IntColumn, number: int) -> IntColumn:
    """Return the sums of all runs of `number` neighbours."""
    sums = np.concatenate(([0], np.cumsum(falling)))
    return sums[number:] - sums[:-number]
