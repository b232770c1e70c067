"""How far a gang stretches: over how many islands, nodes, racks and so on its members lie."""

from __future__ import annotations

from collections.abc import Iterable

from fairlead.model.gang import Member
from fairlead.model.hardware import Machine
from fairlead.topology.likeness import ByKind
from fairlead.world.fleet import Inventory


def span_of(inventory: Inventory, members: Iterable[Member]) -> tuple[tuple[str, int], ...]:
    """Return (level, domains) for every level that all the members' nodes are in, by name; ``cluster`` is left out.

    Islands count GPUs that NVLink joins, across nodes or inside one; a GPU without NVLink is an island of its own, and
    members without GPUs are in none. Nodes that are gone are not counted. O(members + levels × nodes of the gang).
    """
    held: dict[int, set[str]] = {}
    for member in members:
        row = inventory.row.get(member.node)
        if row is not None:
            held.setdefault(row, set()).update(member.devices)
    found: dict[str, int] = {}
    for name, level in inventory.levels.items():
        domains = {int(level.domain_of[row]) for row in held}
        if name not in ("cluster", "island") and domains and -1 not in domains:
            found[name] = len(domains)
    if islands := _islands(inventory, held):
        found["island"] = islands
    return tuple(sorted(found.items()))


def _islands(inventory: Inventory, held: dict[int, set[str]]) -> int:
    """Count the islands of the GPUs in `held`, row -> devices."""
    level = inventory.levels.get("island")
    joined: set[int] = set()
    apart = 0
    for row, devices in held.items():
        domain = -1 if level is None else int(level.domain_of[row])
        if domain >= 0 and devices:
            joined.add(domain)
        elif devices:
            apart += _groups(inventory.nodes[row].machine, devices)
    return len(joined) + apart


def _groups(machine: Machine, devices: set[str]) -> int:
    """Count the groups of GPUs that `devices` lie in, of a machine whose NVLinks do not join all its GPUs."""
    groups = _LINKED.get(machine, _linked)
    return len({groups[at] for at, gpu in enumerate(machine.gpus) if gpu.device in devices})


_LINKED: ByKind[tuple[str, ...]] = ByKind()
"""Per kind of machine; what it remembers follows from the machine alone."""


def _linked(machine: Machine) -> tuple[str, ...]:
    """Return for each GPU the id of one that stands for all those NVLinks join it to."""
    group = {gpu.id: gpu.id for gpu in machine.gpus}

    def root(gpu: str) -> str:
        while group[gpu] != gpu:
            gpu = group[gpu]
        return gpu

    for link in machine.links:
        if link.path.startswith("NV") and link.a in group and link.b in group:
            group[root(link.a)] = root(link.b)
    return tuple(root(gpu.id) for gpu in machine.gpus)
