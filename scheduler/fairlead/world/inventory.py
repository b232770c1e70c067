"""The inventory from what nodes say: all of it anew, or only the rows of nodes that say something else than before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from fairlead.model.hardware import Gpu, Node, NodeName
from fairlead.topology.mig_table import mig_table
from fairlead.topology.tables import TableCache
from fairlead.world.fleet import KNOWN_LEVELS, MAX_DEVICES, WHOLE, BoolColumn, Columns, IntColumn, Inventory, Level

SELDOM = 64
"""Changed nodes up to which rows are patched one by one; of more of them everything is built anew."""


def build_inventory(nodes: Mapping[NodeName, Node], version: int, cache: TableCache) -> Inventory:
    """Compile nodes into rows; O(nodes × devices)."""
    ordered = tuple(nodes[name] for name in sorted(nodes))
    tables = tuple(cache.table(node.machine) for node in ordered)
    table_ids: dict[int, int] = {}
    bits = tuple(_bits(node) for node in ordered)
    mig = mig_table([node.machine.gpus for node in ordered], max((len(b) for b in bits), default=0))
    return Inventory(
        version=version,
        nodes=ordered,
        row={node.name: row for row, node in enumerate(ordered)},
        tables=tables,
        kinds=tuple(cache.kind(node.machine) for node in ordered),
        table_of=_column([table_ids.setdefault(id(table), len(table_ids)) for table in tables]),
        device_bits=bits,
        all_mask=_column([(1 << len(b)) - 1 for b in bits]),
        healthy_mask=_column([_healthy(node) for node in ordered]),
        mig_mask=_column([_well_in_parts(node, mig.grid_of[row] >= 0) for row, node in enumerate(ordered)]),
        mig=mig,
        usable=_readonly(np.array([_usable(node) for node in ordered], dtype=np.bool_)),
        levels=_levels(ordered),
    )


def patch_inventory(
    before: Inventory, nodes: Mapping[NodeName, Node], changed: Iterable[NodeName], version: int, cache: TableCache
) -> Inventory | None:
    """Return `before` with other rows for the changed nodes, None where more than rows must change.

    Nodes that came or went, and nodes whose devices, their shape or their domains are others, need all of it anew.
    """
    names = sorted(changed)
    if len(names) > SELDOM:
        return None
    rows: list[int] = []
    for name in names:
        node, row = nodes.get(name), before.row.get(name)
        if node is None or row is None or not _alike(before.nodes[row], node):
            return None
        if cache.table(node.machine) is not before.tables[row]:
            return None
        rows.append(row)
    ordered, kinds = list(before.nodes), list(before.kinds)
    healthy, usable, parts = before.healthy_mask.copy(), before.usable.copy(), before.mig_mask.copy()
    for row in rows:
        node = ordered[row] = nodes[before.nodes[row].name]
        healthy[row], usable[row], kinds[row] = _healthy(node), _usable(node), cache.kind(node.machine)
        parts[row] = _well_in_parts(node, before.mig.grid_of[row] >= 0)
    healthy.flags.writeable = parts.flags.writeable = False
    return replace(
        before,
        version=version,
        nodes=tuple(ordered),
        kinds=tuple(kinds),
        healthy_mask=healthy,
        mig_mask=parts,
        usable=_readonly(usable),
        patched=before.version,
        patched_rows=tuple(rows),
    )


def free_columns(inventory: Inventory, above: Mapping[str, int] | None = None) -> Columns:
    """Return what every node offers with nothing on it; devices that are unhealthy are not offered.

    `above` are the amounts that live above nodes, by resource: every node may give all that its domain has.
    """
    offered = [node.allocatable for node in inventory.nodes]
    extended = [{**dict(amount.extended), **(above or {})} for amount in offered]
    names = sorted({name for amounts in extended for name in amounts})
    width = max((len(bits) for bits in inventory.device_bits), default=0)
    vram = np.zeros((len(offered), width), dtype=np.int64)
    for row, node in enumerate(inventory.nodes):
        memory = [gpu.memory_bytes for gpu in node.machine.gpus[:MAX_DEVICES]]
        vram[row, : len(memory)] = memory
    there = (inventory.all_mask[:, None] >> np.arange(width)) & 1
    return Columns(
        free_mask=inventory.healthy_mask.copy(),
        cpu_milli=np.array([a.cpu_milli for a in offered], dtype=np.int64),
        memory_bytes=np.array([a.memory_bytes for a in offered], dtype=np.int64),
        ephemeral_bytes=np.array([a.ephemeral_bytes for a in offered], dtype=np.int64),
        pods=np.array([a.pods for a in offered], dtype=np.int64),
        milli=WHOLE * there,
        vram=vram,
        group=np.zeros_like(vram),
        mig_state=inventory.mig.empty(),
        mig=inventory.mig,
        extended={name: np.array([e.get(name, 0) for e in extended], dtype=np.int64) for name in names},
    )


def _alike(before: Node, after: Node) -> bool:
    """Whether two facts of one node differ in its own row only."""
    old, new = before.machine, after.machine
    return (
        before.levels == after.levels
        and old.clique == new.clique
        and (old.links is new.links or old.links == new.links)
        and [_lasting(gpu) for gpu in old.gpus] == [_lasting(gpu) for gpu in new.gpus]
        and {name for name, _ in before.allocatable.extended} == {name for name, _ in after.allocatable.extended}
    )


def _lasting(gpu: Gpu) -> tuple[object, ...]:
    return gpu.id, gpu.device, gpu.model, gpu.memory_bytes, gpu.mig, gpu.whole


def _bits(node: Node) -> Mapping[str, int]:
    return {gpu.device: bit for bit, gpu in enumerate(node.machine.gpus[:MAX_DEVICES])}


def _healthy(node: Node) -> int:
    return sum(1 << bit for bit, gpu in enumerate(node.machine.gpus[:MAX_DEVICES]) if gpu.healthy and gpu.whole)


def _well_in_parts(node: Node, has_grid: BoolColumn) -> int:
    if not has_grid.any():
        return 0
    return sum(1 << bit for bit, gpu in enumerate(node.machine.gpus[:MAX_DEVICES]) if gpu.healthy and has_grid[bit])


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
            levels.append(_level(name, names, _column(rows)))
    usual = {name: i for i, name in enumerate(KNOWN_LEVELS)}
    levels.sort(key=lambda level: (level.name == "cluster", -len(level.names), usual.get(level.name, 9), level.name))
    by_name = {level.name: level for level in levels}
    tightest = by_name.pop("node", None)
    return {**({"node": tightest} if tightest else {}), **by_name}


def _level(name: str, names: tuple[str, ...], domain_of: IntColumn) -> Level:
    """Return a level with its rows sorted by domain, and inside a domain by row."""
    order = np.argsort(domain_of, kind="stable").astype(np.int64)
    order = order[np.searchsorted(domain_of[order], 0) :]
    starts = np.searchsorted(domain_of[order], np.arange(len(names) + 1)).astype(np.int64)
    for column in (order, starts):
        column.flags.writeable = False
    return Level(name=name, names=names, domain_of=domain_of, order=order, starts=starts)


def _column(values: Sequence[int]) -> IntColumn:
    column = np.array(values, dtype=np.int64)
    column.flags.writeable = False
    return column


def _readonly(column: BoolColumn) -> BoolColumn:
    column.flags.writeable = False
    return column
