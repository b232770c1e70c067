"""Join what several sources say of the same machines and fabric into one inventory. Pure.

The most trusted source that knows a fact gives it; what it does not know is filled in from the next, and remembered
with its source. Where two sources know different things, both are said and the more trusted one is taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from fairlead.discovery.machine_match import matched_gpus, matched_nics, paths_agree, same_model
from fairlead.model.fabric import Fabric, FabricLink, FabricVertex, Inventory, NamedMachine, Warned
from fairlead.model.hardware import FactSource, Gpu, Link, Nic, NumaNode
from fairlead.topology.paths import nvlinks

PRECEDENCE = (
    "node-topology",
    "sysfs",
    "hwloc-xml",
    "nvidia-smi-topo",
    "nccl-xml",
    "resource-slices",
    "fleet",
    "node-labels",
    "topograph",
)
"""Kinds of sources, the most trusted one first."""

_FABRIC_PRECEDENCE = ("node-topology", "node-labels", "topograph")
_NAMES = frozenset({"id", "index", "device", "healthy", "health_reason", "pcie_root", "pcie_switch", "pcie_parent"})
_OWN = frozenset({*_NAMES, "package", "netdevs", "rail", "minor"})  # numbered by each source in its own way
_UNKNOWN = ("", 0, ())
_Device = TypeVar("_Device", Gpu, Nic)


def merge(inventories: Iterable[Inventory], *, source: str) -> Inventory:
    """Return one inventory of all; machines with one name are one machine, in order of first appearance."""
    read = list(inventories)
    warnings = [warning for inventory in read for warning in inventory.warnings]
    by_name: dict[str, list[NamedMachine]] = {}
    for inventory in read:
        for machine in inventory.machines:
            by_name.setdefault(machine.name, []).append(machine)
    machines: list[NamedMachine] = []
    for same in by_name.values():
        same.sort(key=lambda machine: _rank(machine.sources[0][0] if machine.sources else ""))
        joined = same[0]
        for other in same[1:]:
            joined = _Join(joined, other, warnings).result()
        machines.append(joined)
    fabric = _with_cliques(_fabric(read, warnings), machines, warnings)
    return Inventory(source=source, machines=tuple(machines), fabric=fabric, warnings=tuple(warnings))


def _rank(kind: str, order: tuple[str, ...] = PRECEDENCE) -> int:
    return order.index(kind) if kind in order else len(order)


@dataclass(slots=True)
class _Join:
    """Fill `base` with what `other` knows besides; `facts` remembers what came from it."""

    base: NamedMachine
    other: NamedMachine
    warnings: list[Warned]
    facts: list[FactSource] = field(default_factory=list[FactSource])

    def result(self) -> NamedMachine:
        base, other = self.base.machine, self.other.machine
        names = (_shown(self.base), _shown(self.other))
        gpu_of, doubts = matched_gpus(base, other, *names)
        nic_of, more = matched_nics(base, other, *names)
        for doubt in (*doubts, *more):
            self._warn(doubt)
        renamed = gpu_of | nic_of
        gpus = base.gpus or other.gpus
        if base.gpus:
            found = {gpu_of[gpu.id]: gpu for gpu in other.gpus if gpu.id in gpu_of}
            gpus = tuple(self._device(gpu, found[gpu.id]) if gpu.id in found else gpu for gpu in base.gpus)
        else:
            self._adopted("gpus", other.gpus)
            renamed |= {gpu.id: gpu.id for gpu in other.gpus}
        nics = base.nics or other.nics
        if base.nics:
            known = {nic_of[nic.id]: nic for nic in other.nics if nic.id in nic_of}
            nics = tuple(self._device(nic, known[nic.id]) if nic.id in known else nic for nic in base.nics)
        else:
            self._adopted("nics", other.nics)
            renamed |= {nic.id: nic.id for nic in other.nics}
        whole: dict[str, Any] = {
            name: getattr(base, name) or self._adopted(name, getattr(other, name))
            for name in ("packages", "memory_nodes", "pcie", "nvswitches", "drives")
        }
        for name in ("clique", "iommu", "driver_version", "product"):
            whole[name] = self._value("machine", name, getattr(base, name), getattr(other, name))
        machine = replace(
            base,
            gpus=gpus,
            nics=nics,
            numa_nodes=self._numa(base.numa_nodes, other.numa_nodes),
            links=self._links(renamed),
            wires=base.wires or self._wires(renamed),
            observed_at_ms=base.observed_at_ms or other.observed_at_ms,
            **whole,
        )
        machine = replace(machine, facts=(*base.facts, *other.facts, *self.facts))
        labels = tuple(sorted((dict(self.other.labels) | dict(self.base.labels)).items()))
        return replace(self.base, machine=machine, sources=(*self.base.sources, *self.other.sources), labels=labels)

    def _warn(self, what: str) -> None:
        self.warnings.append(Warned(where=self.base.name, what=what))

    def _adopted(self, name: str, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if value:
            self._fact("machine", name)
        return value

    def _fact(self, subject: str, name: str) -> None:
        machine = self.other.machine
        self.facts.append(FactSource(subject=subject, fact=name, source=machine.source, at_ms=machine.observed_at_ms))

    def _value(self, subject: str, name: str, ours: Any, theirs: Any, unknown: tuple[Any, ...] = _UNKNOWN) -> Any:
        if theirs in unknown or ours == theirs:
            return ours
        if ours in unknown:
            self._fact(subject, name)
            return theirs
        if not _alike(name, ours, theirs):
            self._warn(
                f"{subject} {name}: {ours} by {_shown(self.base)}, {theirs} by {_shown(self.other)}; the first is taken"
            )
        return ours

    def _device(self, ours: _Device, theirs: _Device) -> _Device:
        changed: dict[str, Any] = {}
        for name, unknown in ((f.name, (f.default,)) for f in fields(ours)):  # what nobody knows has its default
            mine, yours = getattr(ours, name), getattr(theirs, name)
            if name == "pcie":
                if not mine.generation and not mine.lanes and (yours.generation or yours.lanes):
                    changed[name] = yours
                    self._fact(ours.id, name)
            elif name in _OWN:
                if mine in unknown and yours not in unknown and name not in _NAMES:
                    changed[name] = yours
                    self._fact(ours.id, name)
            else:
                value = self._value(ours.id, name, mine, yours, unknown)
                if value != mine:
                    changed[name] = value
        if isinstance(ours, Gpu) and isinstance(theirs, Gpu) and ours.healthy and not theirs.healthy:
            changed |= {"healthy": False, "health_reason": theirs.health_reason}
        return replace(ours, **changed)

    def _numa(self, ours: tuple[NumaNode, ...], theirs: tuple[NumaNode, ...]) -> tuple[NumaNode, ...]:
        if not ours or not theirs:
            return ours or self._adopted("numa_nodes", theirs)
        other = {node.id: node for node in theirs}
        found: list[NumaNode] = []
        for node in ours:
            yours = other.get(node.id, node)
            subject = f"NUMA node {node.id}"
            found.append(
                replace(
                    node,
                    cpus=self._value(subject, "cpus", node.cpus, yours.cpus),
                    memory_bytes=self._value(subject, "memory_bytes", node.memory_bytes, yours.memory_bytes),
                    distances=self._value(subject, "distances", node.distances, yours.distances),
                    package=node.package if node.package >= 0 else yours.package,
                )
            )
        return tuple(found)

    def _links(self, renamed: dict[str, str]) -> tuple[Link, ...]:
        kinds = (self.base.sources[0][0], self.other.sources[0][0])
        mine = {_pair(link.a, link.b): link for link in self.base.machine.links}
        for theirs in self.other.machine.links:
            if theirs.a not in renamed or theirs.b not in renamed:
                continue
            pair = _pair(renamed[theirs.a], renamed[theirs.b])
            link = mine.get(pair)
            if link is None:
                mine[pair] = replace(theirs, a=renamed[theirs.a], b=renamed[theirs.b])
                self._fact("|".join(pair), "path")
                continue
            if nvlinks(theirs.path) and not nvlinks(link.path):  # a source that sees PCIe alone contradicts nothing
                mine[pair] = replace(link, path=theirs.path, bytes_per_s=theirs.bytes_per_s)
                self._fact("|".join(pair), "path")
            elif not paths_agree(link.path, kinds[0], theirs.path, kinds[1]):
                self._warn(
                    f"{link.a} and {link.b}: {link.path} by {_shown(self.base)}, "
                    f"{theirs.path} by {_shown(self.other)}; the first is taken"
                )
            if link.measured is None and theirs.measured is not None:
                mine[pair] = replace(mine[pair], measured=theirs.measured)
        return tuple(mine.values())

    def _wires(self, renamed: dict[str, str]) -> tuple[Any, ...]:
        switches = {switch.id for switch in self.other.machine.nvswitches}

        def end(name: str) -> str:
            return renamed.get(name, name if name in switches or name == "nvswitch" or name[:5] == "numa:" else "")

        wires = tuple(replace(w, a=end(w.a), b=end(w.b)) for w in self.other.machine.wires if end(w.a) and end(w.b))
        return self._adopted("wires", wires)


def _shown(machine: NamedMachine) -> str:
    kind, name = machine.sources[0]
    return f"{kind} ({name})"


def _pair(a: str, b: str) -> tuple[str, str]:
    return (a, b) if a <= b else (b, a)


def _alike(name: str, ours: Any, theirs: Any) -> bool:
    """Whether two known values say the same: sizes within a tenth, models and versions by their beginnings."""
    if name == "memory_bytes":
        return bool(10 * abs(ours - theirs) <= max(ours, theirs))
    if name in ("model", "product", "architecture"):
        return same_model(str(ours), str(theirs))
    if name == "uuid":
        return str(ours).lower() == str(theirs).lower()
    return name in ("mig", "mig_profiles", "formats", "partitions_max", "bytes_per_s", "guid")


def _fabric(inventories: list[Inventory], warnings: list[Warned]) -> Fabric:
    """Join the fabrics; a node is in one group of a kind, and on other switches only as its first source says so."""

    def rank(inventory: Inventory) -> int:
        kind = inventory.machines[0].sources[0][0] if inventory.machines else ""
        return _rank(kind, _FABRIC_PRECEDENCE)

    vertices: dict[str, FabricVertex] = {}
    links: dict[tuple[str, str], FabricLink] = {}
    owner: dict[tuple[str, str], tuple[int, str]] = {}
    for at, inventory in enumerate(sorted(inventories, key=rank)):
        for vertex in inventory.fabric.vertices:
            known = vertices.get(vertex.key)
            vertices[vertex.key] = vertex if known is None else _same_vertex(known, vertex, warnings)
        for link in inventory.fabric.links:
            slot = (link.a, link.b.partition(":")[0])
            first, where = owner.setdefault(slot, (at, link.b))
            if first != at and (link.a, link.b) not in links:
                what = f"{link.a} is in {where}, by {inventory.source} in {link.b}; the first is taken"
                warnings.append(Warned(where=link.a.partition(":")[2], what=what))
            elif (link.a, link.b) not in links:
                links[link.a, link.b] = link
    return Fabric(vertices=tuple(vertices.values()), links=tuple(links.values()))


def _same_vertex(known: FabricVertex, other: FabricVertex, warnings: list[Warned]) -> FabricVertex:
    if known.tier and other.tier and known.tier != other.tier:
        what = f"tier {known.tier} by {known.source}, {other.tier} by {other.source}; the first is taken"
        warnings.append(Warned(where=known.key, what=what))
    labels = tuple(sorted((dict(other.labels) | dict(known.labels)).items()))
    return replace(known, tier=known.tier or other.tier, labels=labels)


def _with_cliques(fabric: Fabric, machines: list[NamedMachine], warnings: list[Warned]) -> Fabric:
    """Add the NVLink domain of every machine that knows its own."""
    vertices = {vertex.key: vertex for vertex in fabric.vertices}
    domain = {link.a: link.b for link in fabric.links if link.b.startswith("nvl-domain:")}
    links = list(fabric.links)
    for found in machines:
        if not found.machine.clique:
            continue
        vertex = FabricVertex(id=found.machine.clique, kind="nvl-domain", source=found.machine.source)
        known = domain.get(f"node:{found.name}")
        if known is None:
            vertices.setdefault(vertex.key, vertex)
            links.append(FabricLink(a=f"node:{found.name}", b=vertex.key, kind="member", source=vertex.source))
        elif known != vertex.key:
            what = f"its devices say NVLink domain {vertex.id}, the fabric says {known.partition(':')[2]}"
            warnings.append(Warned(where=found.name, what=what))
    return Fabric(vertices=tuple(vertices.values()), links=tuple(links))
