"""Two inventories compared, and one compared with itself less a device: what changed, what would be lost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

from fairlead.errors import NotFound
from fairlead.model.fabric import Fabric, Inventory, NamedMachine
from fairlead.model.hardware import Drive, Gpu, Machine, Nic, NvSwitch
from fairlead.topology.fabric_paths import FabricPaths
from fairlead.topology.graph import below, device_graph, devices_of
from fairlead.topology.islands import islands
from fairlead.topology.queries import Questions, nic_choices
from fairlead.topology.tables import ShapeTable, shape_key

_Device = Gpu | Nic | NvSwitch | Drive
_NOT_COMPARED = frozenset({"device", "facts"})
_MACHINE_FACTS = ("clique", "iommu", "driver_version", "product")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference. `what` is ``added``, ``removed`` or ``changed``; values are "" where there is none."""

    where: str
    what: str
    field: str = ""
    before: str = ""
    after: str = ""


def differences(before: Inventory, after: Inventory) -> tuple[Change, ...]:
    """Return everything that is not the same in two inventories; devices are the same by UUID, PCI address or id.

    Two inventories of one machine each are compared even if the machine's names differ, as those of files do.
    """
    changes: list[Change] = []
    old = {found.name: found.machine for found in before.machines}
    new = {found.name: found.machine for found in after.machines}
    if len(old) == len(new) == 1 and old.keys() != new.keys():
        new = {next(iter(old)): next(iter(new.values()))}
    for name in [*old, *(name for name in new if name not in old)]:
        if name not in new:
            changes.append(Change(where=name, what="removed"))
        elif name not in old:
            changes.append(Change(where=name, what="added"))
        else:
            changes += _machines(name, old[name], new[name])
    return (*changes, *_fabrics(before.fabric, after.fabric))


def _machines(name: str, old: Machine, new: Machine) -> list[Change]:
    changes = [
        Change(where=name, what="changed", field=field, before=str(getattr(old, field)), after=str(getattr(new, field)))
        for field in _MACHINE_FACTS
        if getattr(old, field) != getattr(new, field)
    ]
    renamed: dict[str, str] = {}
    for ours, theirs in ((old.gpus, new.gpus), (old.nics, new.nics), (old.nvswitches, new.nvswitches),
                         (old.drives, new.drives)):  # fmt: skip
        same = _same(ours, theirs)
        renamed |= {there.id: here.id for here, there in same}
        kept = {here.id for here, _ in same}
        found = {there.id for _, there in same}
        changes += [Change(where=f"{name}/{gone.id}", what="removed") for gone in ours if gone.id not in kept]
        changes += [Change(where=f"{name}/{came.id}", what="added") for came in theirs if came.id not in found]
        for here, there in same:
            changes += _fields(f"{name}/{here.id}", here, there)
    nodes = {node.id: node for node in new.numa_nodes}
    for node in old.numa_nodes:
        if node.id not in nodes:
            changes.append(Change(where=f"{name}/numa:{node.id}", what="removed"))
        else:
            changes += _fields(f"{name}/numa:{node.id}", node, nodes[node.id])
    known = {node.id for node in old.numa_nodes}
    changes += [Change(where=f"{name}/numa:{n}", what="added") for n in nodes if n not in known]
    return changes + _links(name, old, new, renamed)


def _same(ours: Iterable[_Device], theirs: Iterable[_Device]) -> list[tuple[_Device, _Device]]:
    left = list(theirs)
    pairs: list[tuple[_Device, _Device]] = []
    for device in ours:
        for key in ("uuid", "pci", "id"):
            value = getattr(device, key, "")
            hit = next((other for other in left if value and getattr(other, key, "") == value), None)
            if hit is not None and not (key == "id" and device.pci and hit.pci):
                pairs.append((device, hit))
                left.remove(hit)
                break
    return pairs


def _fields(where: str, old: object, new: object) -> list[Change]:
    return [
        Change(where=where, what="changed", field=f.name, before=str(getattr(old, f.name)),
               after=str(getattr(new, f.name)))
        for f in fields(old)  # type: ignore[arg-type]
        if f.name not in _NOT_COMPARED and getattr(old, f.name) != getattr(new, f.name)
    ]  # fmt: skip


def _links(name: str, old: Machine, new: Machine, renamed: dict[str, str]) -> list[Change]:
    changes: list[Change] = []
    before = {frozenset((link.a, link.b)): link for link in old.links}
    after = {frozenset((renamed.get(link.a, link.a), renamed.get(link.b, link.b))): link for link in new.links}
    there = {device.id for device in devices_of(old)} & set(renamed.values())
    for pair, link in before.items():
        if not pair <= there:
            continue
        where = f"{name}/{link.a}-{link.b}"
        if pair not in after:
            changes.append(Change(where=where, what="removed", field="path", before=link.path))
            continue
        for field in ("path", "bytes_per_s", "p2p", "direct"):
            ours, theirs = getattr(link, field), getattr(after[pair], field)
            if ours != theirs:
                changes.append(Change(where=where, what="changed", field=field, before=str(ours), after=str(theirs)))
    for pair, link in after.items():
        if pair not in before and pair <= there:
            changes.append(Change(where=f"{name}/{link.a}-{link.b}", what="added", field="path", after=link.path))
    return changes


def _fabrics(old: Fabric, new: Fabric) -> list[Change]:
    ours, theirs = {v.key for v in old.vertices}, {v.key for v in new.vertices}
    changes = [Change(where=key, what="removed") for key in sorted(ours - theirs)]
    changes += [Change(where=key, what="added") for key in sorted(theirs - ours)]
    before, after = {(k.a, k.b): k for k in old.links}, {(k.a, k.b): k for k in new.links}
    changes += [Change(where=f"{a}-{b}", what="removed") for a, b in sorted(before.keys() - after.keys())]
    changes += [Change(where=f"{a}-{b}", what="added") for a, b in sorted(after.keys() - before.keys())]
    for a, b in sorted(before.keys() & after.keys()):
        ours_rate, rate = before[a, b].bytes_per_s, after[a, b].bytes_per_s
        if ours_rate != rate:
            changes.append(Change(where=f"{a}-{b}", what="changed", field="bytes_per_s", before=str(ours_rate),
                                  after=str(rate)))  # fmt: skip
    return changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What goes with a device, switch or group: devices and nodes, and what the rest can no longer do, as sentences."""

    gone: tuple[str, ...]
    nodes: tuple[str, ...] = ()
    consequences: tuple[str, ...] = ()


def loss(inventory: Inventory, what: str) -> Loss:
    """Return what goes with a device, a vertex of a machine (``node/switch:…``) or of the fabric (``rack:r1``).

    Raises
    ------
    NotFound
        There is no such thing.
    """
    fabric = FabricPaths(inventory.fabric)
    if any(vertex.key == what for vertex in inventory.fabric.vertices):
        nodes = fabric.nodes_below(what)
        if what.startswith("switch:"):
            cut = fabric.cut_off(what)
            said = f"{len(cut)} of {len(nodes)} nodes below lose their only way to other nodes"
            return Loss(gone=(what,), nodes=nodes, consequences=(said,))
        gpus = sum(len(found.machine.gpus) for found in inventory.machines if found.name in nodes)
        return Loss(gone=(what,), nodes=nodes, consequences=(f"{len(nodes)} nodes with {gpus} GPUs are in it",))
    named, gone = _vertex(inventory, what)
    rest = _without(named.machine, set(gone))
    return Loss(gone=tuple(gone), nodes=(named.name,) if not rest.gpus else (),
                consequences=tuple(_consequences(named.machine, rest)))  # fmt: skip


def _vertex(inventory: Inventory, what: str) -> tuple[NamedMachine, list[str]]:
    questions = Questions(inventory)
    try:
        named, device = questions.find(what)
        return named, [device] if device else [found.id for found in devices_of(named.machine)]
    except NotFound:
        node, _, vertex = what.partition("/")
        candidates = [(node, vertex)] if node in questions.machines else [(n, what) for n in questions.machines]
        for name, at in candidates:
            machine = questions.machines[name].machine
            graph = device_graph(machine)
            if at in graph:
                inside = below(graph, at)
                return questions.machines[name], [found.id for found in devices_of(machine) if found.id in inside]
        raise


def _without(machine: Machine, gone: set[str]) -> Machine:
    return replace(
        machine,
        gpus=tuple(gpu for gpu in machine.gpus if gpu.id not in gone),
        nics=tuple(nic for nic in machine.nics if nic.id not in gone),
        nvswitches=tuple(switch for switch in machine.nvswitches if switch.id not in gone),
        drives=tuple(drive for drive in machine.drives if drive.id not in gone),
        links=tuple(link for link in machine.links if link.a not in gone and link.b not in gone),
        wires=tuple(wire for wire in machine.wires if wire.a not in gone and wire.b not in gone),
    )


def _consequences(before: Machine, after: Machine) -> list[str]:
    said: list[str] = []
    if len(after.gpus) < len(before.gpus):
        said.append(f"{len(after.gpus)} of {len(before.gpus)} GPUs remain")
    old, new = ShapeTable(shape_key(before)), ShapeTable(shape_key(after))
    for count in range(2, len(before.gpus) + 1):
        pace = old.best((1 << old.gpus) - 1, count)[1]
        left = new.best((1 << new.gpus) - 1, count)[1] if count <= new.gpus else None
        if left is None:
            said.append(f"no set of {count} GPUs is left")
        elif left < pace:
            said.append(f"the best set of {count} GPUs falls from {pace} to {left} bytes/s")
    kept = {island.members for island in islands(after)}
    for island in islands(before):
        if island.members not in kept:
            rest = [member for member in island.members if any(gpu.id == member for gpu in after.gpus)]
            said.append(f"island {island.name} keeps {len(rest)} of {len(island.members)} GPUs")
    was, now = nic_choices(before), nic_choices(after)
    for gpu in after.gpus:
        first, then = was[gpu.id][:1], now[gpu.id][:1]
        if first and not then:
            said.append(f"{gpu.id} has no NIC left")
        elif first and then and first[0].nic != then[0].nic and first[0].path != then[0].path:
            said.append(f"{gpu.id} falls from {first[0].nic} ({first[0].path}) to {then[0].nic} ({then[0].path})")
    return said
