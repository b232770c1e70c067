"""The fleet as columns: what never changes between facts is shared, what placements change is copied per cycle.

A row is a node. Device sets are bit masks in `machine.gpus` order (bit 0 is the first device), so a node has at most
63.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fairlead.model.hardware import Node, NodeName, Resources
from fairlead.topology.tables import ShapeTable, TableCache

IntColumn = NDArray[np.int64]
BoolColumn = NDArray[np.bool_]
MAX_DEVICES = 63
KNOWN_LEVELS = ("node", "island", "rack", "block")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Level:
    """One level of the tree. `domain_of`: shape (nodes,), row in `names`, -1 where a node is in no such domain."""

    name: str
    names: tuple[str, ...]
    domain_of: IntColumn


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Inventory:
    """What changes only with a node's own facts; shared by every World until then.

    nodes       in row order (sorted by name)
    tables      shape table of each node, in row order
    device_bits per node: device name -> bit
    all_mask    shape (nodes,): every device, healthy or not
    levels      tightest first; ``node`` and ``cluster`` are always there
    """

    version: int
    nodes: tuple[Node, ...]
    row: Mapping[NodeName, int]
    tables: tuple[ShapeTable, ...]
    table_of: IntColumn
    device_bits: tuple[Mapping[str, int], ...]
    all_mask: IntColumn
    healthy_mask: IntColumn
    usable: BoolColumn
    levels: Mapping[str, Level]

    def mask(self, row: int, devices: Sequence[str]) -> int:
        """Return the bits of `devices` on the node in `row`; a device that is no longer there has none."""
        bits = self.device_bits[row]
        return sum(1 << bits[name] for name in devices if name in bits)

    def devices(self, row: int, mask: int) -> tuple[str, ...]:
        """Return the names of the bits in `mask`, in device order."""
        return tuple(gpu.device for bit, gpu in enumerate(self.nodes[row].machine.gpus) if mask >> bit & 1)


@dataclass(slots=True, eq=False, kw_only=True)
class Columns:
    """What is free now, shape (nodes,) each; extended resources by name. A World's columns are read-only."""

    free_mask: IntColumn
    cpu_milli: IntColumn
    memory_bytes: IntColumn
    ephemeral_bytes: IntColumn
    pods: IntColumn
    extended: dict[str, IntColumn] = field(default_factory=dict[str, IntColumn])

    def copy(self) -> Columns:
        """Return writable copies of all columns."""
        return Columns(
            free_mask=self.free_mask.copy(),
            cpu_milli=self.cpu_milli.copy(),
            memory_bytes=self.memory_bytes.copy(),
            ephemeral_bytes=self.ephemeral_bytes.copy(),
            pods=self.pods.copy(),
            extended={name: column.copy() for name, column in self.extended.items()},
        )

    def freeze(self) -> Columns:
        """Make every column read-only; an edit then raises ValueError."""
        for column in (self.free_mask, self.cpu_milli, self.memory_bytes, self.ephemeral_bytes, self.pods):
            column.flags.writeable = False
        for column in self.extended.values():
            column.flags.writeable = False
        return self

    def take(self, row: int, amount: Resources, times: int = 1) -> None:
        """Subtract times × amount on one row; a negative `times` gives back."""
        self.cpu_milli[row] -= times * amount.cpu_milli
        self.memory_bytes[row] -= times * amount.memory_bytes
        self.ephemeral_bytes[row] -= times * amount.ephemeral_bytes
        self.pods[row] -= times * amount.pods
        for name, count in amount.extended:
            if name in self.extended:
                self.extended[name][row] -= times * count


def build_inventory(nodes: Mapping[NodeName, Node], version: int, cache: TableCache) -> Inventory:
    """Compile nodes into rows; O(nodes × devices)."""
    ordered = tuple(nodes[name] for name in sorted(nodes))
    tables: list[ShapeTable] = []
    table_ids: dict[int, int] = {}
    table_of: list[int] = []
    for node in ordered:
        table = cache.table(node.machine)
        tables.append(table)
        table_of.append(table_ids.setdefault(id(table), len(table_ids)))
    bits = tuple({gpu.device: bit for bit, gpu in enumerate(node.machine.gpus[:MAX_DEVICES])} for node in ordered)
    return Inventory(
        version=version,
        nodes=ordered,
        row={node.name: row for row, node in enumerate(ordered)},
        tables=tuple(tables),
        table_of=_column(table_of),
        device_bits=bits,
        all_mask=_column([(1 << len(b)) - 1 for b in bits]),
        healthy_mask=_column([_healthy(node) for node in ordered]),
        usable=_readonly(np.array([_usable(node) for node in ordered], dtype=np.bool_)),
        levels=_levels(ordered),
    )


def free_columns(inventory: Inventory) -> Columns:
    """Return what every node offers with nothing on it; devices that are unhealthy are not offered."""
    offered = [node.allocatable for node in inventory.nodes]
    names = sorted({name for amount in offered for name, _ in amount.extended})
    return Columns(
        free_mask=inventory.healthy_mask.copy(),
        cpu_milli=np.array([a.cpu_milli for a in offered], dtype=np.int64),
        memory_bytes=np.array([a.memory_bytes for a in offered], dtype=np.int64),
        ephemeral_bytes=np.array([a.ephemeral_bytes for a in offered], dtype=np.int64),
        pods=np.array([a.pods for a in offered], dtype=np.int64),
        extended={name: np.array([dict(a.extended).get(name, 0) for a in offered], dtype=np.int64) for name in names},
    )


def _healthy(node: Node) -> int:
    return sum(1 << bit for bit, gpu in enumerate(node.machine.gpus[:MAX_DEVICES]) if gpu.healthy and gpu.whole)


def _usable(node: Node) -> bool:
    return bool(node.pool) and node.ready and not node.unschedulable


def _island_of(node: Node, joined: dict[tuple[int, int], bool]) -> str | None:
    """A clique across nodes, or the node itself where NVLink joins all its GPUs; else no island at node grain.

    `joined` remembers the answer per tuple of links: machines of one kind may share it.
    """
    machine = node.machine
    if machine.clique or not machine.gpus:
        return machine.clique or None
    key = (id(machine.links), len(machine.gpus))
    if key not in joined:
        ids = {gpu.id for gpu in machine.gpus}
        pairs = {
            (min(link.a, link.b), max(link.a, link.b))
            for link in machine.links
            if link.path.startswith("NV") and link.a in ids and link.b in ids
        }
        joined[key] = len(pairs) == len(ids) * (len(ids) - 1) // 2
    return node.name if joined[key] else None


def _levels(nodes: Sequence[Node]) -> dict[str, Level]:
    """Return all levels, tightest first: more domains is tighter, ties in the usual order."""
    joined: dict[tuple[int, int], bool] = {}
    found: dict[str, list[str | None]] = {
        "node": [str(node.name) for node in nodes],
        "island": [_island_of(node, joined) for node in nodes],
    }
    for name in sorted({name for node in nodes for name, _ in node.levels}):
        found[name] = [dict(node.levels).get(name) for node in nodes]
    found["cluster"] = ["cluster"] * len(nodes)
    levels: list[Level] = []
    for name, domains in found.items():
        names = tuple(sorted({d for d in domains if d is not None}))
        at = {d: i for i, d in enumerate(names)}
        rows = [-1 if d is None else at[d] for d in domains]
        if names or name == "cluster":
            levels.append(Level(name=name, names=names, domain_of=_column(rows)))
    usual = {name: i for i, name in enumerate(KNOWN_LEVELS)}
    levels.sort(key=lambda level: (level.name == "cluster", -len(level.names), usual.get(level.name, 9), level.name))
    by_name = {level.name: level for level in levels}
    tightest = by_name.pop("node", None)
    return {**({"node": tightest} if tightest else {}), **by_name}


def _column(values: Sequence[int]) -> IntColumn:
    column = np.array(values, dtype=np.int64)
    column.flags.writeable = False
    return column


def _readonly(column: BoolColumn) -> BoolColumn:
    column.flags.writeable = False
    return column
