"""The predicted pace of a whole gang (R8): the slowest edge between two of its GPUs; and its span (R11)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fairlead.model.fabric import Fabric
from fairlead.placement.local_shape import slowest_known
from fairlead.placement.locality import LocalTable, LocalTables, Reach
from fairlead.topology.fabric_paths import FabricPaths
from fairlead.world.fleet import IntColumn, Inventory


@dataclass(frozen=True, slots=True)
class GangPace:
    """What a gang's collective runs at, bytes/s in one direction, and what it spans.

    `inside` is the slowest known pair of GPUs on one node, `between` the slowest known edge between two nodes; 0 where
    there is none or nobody knows. `known` is False where the rate of some edge is unknown, so that the true pace may be
    lower. `islands` counts NVLink islands (else the GPUs joined at their fastest pace), `nodes` the nodes with GPUs of
    the gang, `levels` names the levels at which some two of these nodes meet, tightest first.
    """

    inside: int = 0
    between: int = 0
    known: bool = True
    islands: int = 0
    nodes: int = 0
    levels: tuple[str, ...] = ()

    @property
    def bytes_per_s(self) -> int:
        """The slowest known edge, 0 for none."""
        return slowest_known(self.inside, self.between)


@dataclass(frozen=True, slots=True)
class _Seat:
    """The GPUs of a gang on one node. `island` is the row's domain of that level, -1 for none."""

    row: int
    mask: int
    island: int
    reach: Reach


class GangPaces:
    """Paces of gangs on one inventory.

    Two GPUs of one node meet at the pace of their pair. Two of different nodes meet over NVLink where both nodes are in
    one island and all of the gang's GPUs on either have NVLink; else each goes through the NIC nearest to it, and no
    faster than `rates` says of the tightest level that both nodes are in.
    """

    __slots__ = ("_by_kind", "_inventory", "_levels", "_of_row", "_rates", "_tables")

    def __init__(self, inventory: Inventory, tables: LocalTables, rates: Mapping[str, int] | None = None) -> None:
        """Index the levels; `rates` is bytes/s by level as `level_rates` returns it, None where no fabric is known."""
        self._inventory, self._tables, self._rates = inventory, tables, dict(rates or {})
        self._by_kind: dict[int, LocalTable] = {}
        self._of_row: dict[int, tuple[str, ...]] = {}
        self._levels = [level for level in inventory.levels.values() if level.name != "node"]

    def patch(self, inventory: Inventory) -> None:
        """Take over an inventory in which only some rows say something else; levels are the same."""
        self._inventory, self._by_kind = inventory, {}

    def table(self, row: int) -> LocalTable:
        """Return the local table of the node in `row`."""
        kind = self._inventory.kinds[row]  # the inventory keeps it alive, so its id stays its own
        table = self._by_kind.get(id(kind))
        if table is None:
            table = self._by_kind[id(kind)] = self._tables.table(
                self._inventory.nodes[row].machine, self._inventory.tables[row]
            )
        return table

    def span_alone(self, row: int, mask: int) -> tuple[tuple[str, int], ...]:
        """Return what `span_of` says of one pod with the devices of `mask`: it is in one domain of each level."""
        levels = self._inventory.levels
        if row not in self._of_row:
            named = (name for name in levels if name not in ("cluster", "island"))
            self._of_row[row] = tuple(name for name in named if int(levels[name].domain_of[row]) >= 0)
        found = dict.fromkeys(self._of_row[row], 1)
        if mask:
            island = levels.get("island")
            linked = self.table(row).shape.linked
            joined = island is not None and int(island.domain_of[row]) >= 0
            found["island"] = 1 if joined else len({linked[at] for at in range(len(linked)) if mask >> at & 1})
        return tuple(sorted(found.items()))

    def pace_alone(self, row: int, mask: int) -> int:
        """Return what `of` says of the pace of one pod with the devices of `mask`, bytes/s; 0 of fewer than two."""
        return self.table(row).reach(mask).inside if mask & mask - 1 else 0

    def of(self, seats: Sequence[tuple[int, int]], *, levels: bool = True) -> GangPace:
        """Return pace and span of a gang's seats (row, device mask); those without devices do not count.

        Without `levels` those that are crossed are not named, unless the pace needs them.
        O(seats + racks²): what lies between two nodes depends on their domains alone.
        """
        masks: dict[int, int] = {}
        for row, mask in seats:
            if mask:
                masks[row] = masks.get(row, 0) | mask
        if not masks:
            return GangPace()
        island = self._inventory.levels.get("island")
        nodes = [
            _Seat(row, mask, int(island.domain_of[row]) if island is not None else -1, self.table(row).reach(mask))
            for row, mask in sorted(masks.items())
        ]
        inside = slowest_known(*(node.reach.inside for node in nodes))
        known = all(node.reach.inside_known for node in nodes)
        joined = {node.island for node in nodes if node.island >= 0}
        islands = len(joined) + sum(node.reach.islands for node in nodes if node.island < 0)
        if len(nodes) == 1:
            return GangPace(inside=inside, known=known, islands=islands, nodes=1)
        crossed, by_network = self._crossed(nodes) if levels or self._rates else ((), ())
        between, ways_known = _between(nodes)
        return GangPace(
            inside=inside,
            between=slowest_known(between, *(self._rates.get(name, 0) for name in by_network)),
            known=known and ways_known,
            islands=islands,
            nodes=len(nodes),
            levels=crossed,
        )

    def _crossed(self, nodes: Sequence[_Seat]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the levels that are the tightest common one of some two nodes, and those of two without NVLink."""
        rows = np.array([node.row for node in nodes], dtype=np.int64)
        columns: list[list[int]] = [level.domain_of[rows].tolist() for level in self._levels]
        linked = [2 * node.island if node.reach.nvlink and node.island >= 0 else 2 * node.row + 1 for node in nodes]
        met = _meeting(list(range(len(nodes))), columns)
        by_network = _meeting(linked, columns)
        names = [level.name for level in self._levels]
        return (
            tuple(name for name, hit in zip(names, met, strict=True) if hit),
            tuple(name for name, hit in zip(names, by_network, strict=True) if hit),
        )


def _meeting(together: list[int], columns: Sequence[list[int]]) -> list[bool]:
    """Return for each level, tightest first, whether it is the tightest common one of two nodes of different groups.

    `together` is the group of each node, `columns` its domain at each level, -1 for none. O(nodes × levels) where
    levels nest; where they do not, O(nodes²) unless every level that can be met soon is.
    """
    labels, met = together, list[bool]()
    for column in columns:
        first: dict[int, int] = {}
        wider: dict[int, int] = {}
        hit, following = False, list[int]()
        for label, domain in zip(labels, column, strict=True):
            target = 2 * domain + 1 if domain >= 0 else 2 * label  # in none: with whom it was before
            if wider.setdefault(label, target) != target:
                return _meeting_pairwise(together, columns)
            hit = hit or (domain >= 0 and first.setdefault(domain, label) != label)
            following.append(target)
        met.append(hit)
        labels = following
    return met


def _meeting_pairwise(together: list[int], columns: Sequence[list[int]]) -> list[bool]:
    """Answer `_meeting` by looking at pairs, for levels that do not nest."""
    domains, groups = np.array(columns, dtype=np.int64).T, np.array(together, dtype=np.int64)
    shared = [any(n > 1 for domain, n in Counter(column).items() if domain >= 0) for column in columns]
    met = np.zeros(len(columns), dtype=np.bool_)
    for at in range(len(groups)):
        same = (domains[at + 1 :] == domains[at]) & (domains[at] >= 0)
        tightest = same.argmax(axis=1)  # all are in the cluster, so there is one
        met[tightest[groups[at + 1 :] != groups[at]]] = True
        if int(met.sum()) == sum(shared):
            break
    return [bool(one) for one in met.tolist()]


def _between(nodes: Sequence[_Seat]) -> tuple[int, bool]:
    """Return (slowest known rate at which two of the nodes meet, whether all are known), the fabric left out."""
    by_island: dict[tuple[int, int], list[_Seat]] = {}
    for node in nodes:
        alone = node.island < 0
        by_island.setdefault((-1, node.row) if alone else (node.island, 0), []).append(node)
    rates: list[int] = []
    known = True
    for together in by_island.values():
        linked = [node.reach.nvlink for node in together if node.reach.nvlink]
        if len(linked) > 1:
            rates += linked
        # All go through their NICs where one node is outside the island, or has no NVLink to the others inside it.
        if len(by_island) > 1 or (len(together) > 1 and len(linked) < len(together)):
            rates += [node.reach.exit for node in together]
            known = known and all(node.reach.exit_known for node in together)
    return slowest_known(*rates), known


def level_rates(fabric: Fabric, inventory: Inventory) -> dict[str, int]:
    """Return for each level bytes/s of the slowest known way between two nodes that have no tighter level in common.

    Levels between whose domains no way is known are left out. It follows two ways a node and level, each against a node
    of another tighter domain, which sees every link of a fabric that is a tree.
    """
    paths = FabricPaths(fabric)
    found: dict[str, int] = {}
    inner: IntColumn = np.arange(len(inventory.nodes), dtype=np.int64)
    for level in inventory.levels.values():
        if level.name == "node":
            continue
        rates: list[int] = []
        for domain in range(len(level.names)):
            rows = np.flatnonzero(level.domain_of == domain)
            against = _two_apart(rows, inner)
            for row in rows.tolist():
                other = next((one for one in against if inner[one] != inner[row]), -1)
                if other >= 0:
                    way = paths.route(str(inventory.nodes[row].name), str(inventory.nodes[other].name))
                    rates += [rate for _, rate in way if rate]
        if rates:
            found[level.name] = min(rates)
        inner = np.where(level.domain_of >= 0, level.domain_of, len(level.names) + inner)  # in none: as tight as before
    return found


def _two_apart(rows: IntColumn, inner: IntColumn) -> list[int]:
    """Return the first row and the first one of another tighter domain than it."""
    if not len(rows):
        return []
    others = rows[inner[rows] != inner[rows[0]]]
    return [int(rows[0]), *([int(others[0])] if len(others) else [])]
