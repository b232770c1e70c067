"""Read ResourceSlices, as the API server gives them, into machines: whole GPUs of gpu.nvidia.com, NICs of dranet.

A slice says which PCIe root and NUMA node a device hangs on, and nothing of switches or NVLink; so paths between its
devices are those that root and NUMA node imply. Parts of GPUs (MIG) say how their GPU is cut.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from fairlead.discovery.documents import Mapping, integer, listing, mapping, text
from fairlead.discovery.inventory import natural
from fairlead.discovery.mig_slices import SlicePart, cut, slice_part
from fairlead.discovery.pci import normal_pci
from fairlead.errors import UnreadableInput
from fairlead.model.fabric import Inventory, NamedMachine, Warned
from fairlead.model.hardware import Gpu, Link, Machine, Nic
from fairlead.topology.paths import theoretical_pace, tree_class
from fairlead.units import quantity

GPU_DRIVER, NIC_DRIVERS = "gpu.nvidia.com", ("dra.net", "dranet")
_STANDARD = "resource.kubernetes.io"
_SILENT = ("compute-domain.nvidia.com", "dra.cpu", "dra.memory")  # devices that are no hardware of ours
_KEEPING_AWAY = ("NoSchedule", "NoExecute")
_MOST_DEVICES = 1_024


@dataclass(slots=True)
class _Slice:
    name: str
    driver: str
    node: str
    pool: str
    generation: int
    count: int
    devices: list[object]


@dataclass(slots=True)
class _Node:
    gpus: dict[str, Gpu] = field(default_factory=dict[str, Gpu])
    nics: dict[str, Nic] = field(default_factory=dict[str, Nic])
    parts: dict[str, list[SlicePart]] = field(default_factory=dict[str, list[SlicePart]])
    parents: dict[str, Gpu] = field(default_factory=dict[str, Gpu])
    driver_version: str = ""
    source: str = "resource-slices"


def parse(documents: list[Mapping], *, name: str) -> Inventory:
    """Return a machine a node from ResourceSlice documents.

    Only the highest generation of a pool counts; a pool that is not complete, a driver that is not known and a device
    without what identifies it are warnings.

    Raises
    ------
    UnreadableInput
        A field has the wrong kind; the message names it.
    """
    warnings: list[Warned] = []
    nodes: dict[str, _Node] = {}
    for members in _newest([_slice(document, f"{name}: ResourceSlice[{at}]") for at, document in enumerate(documents)]):
        first = members[0]
        where = f"{name}: {first.name}"
        if not first.node:
            warnings.append(Warned(where=where, what="its devices belong to no single node; they are left out"))
            continue
        node = nodes.setdefault(first.node, _Node())
        if first.driver in _SILENT:
            continue
        if first.driver != GPU_DRIVER and first.driver not in NIC_DRIVERS:
            warnings.append(Warned(where=where, what=f"driver {first.driver!r} is not read here"))
            continue
        if len(members) != first.count:
            what = f"pool {first.pool} has {len(members)} of {first.count} slices; devices may be missing"
            warnings.append(Warned(where=where, what=what))
        for found in members:
            for at, device in enumerate(found.devices):
                here = f"{name}: {found.name}.spec.devices[{at}]"
                _device(mapping(device, here), found.driver, node, here, warnings)
    machines: list[NamedMachine] = []
    for node_name, found_node in sorted(nodes.items()):
        conflicts: list[str] = []
        machine = _machine(found_node, name, conflicts)
        machines.append(NamedMachine(name=node_name, machine=machine, sources=(("resource-slices", name),)))
        warnings += [Warned(where=f"{name}: {node_name}", what=what) for what in conflicts]
    return Inventory(source=name, machines=tuple(machines), warnings=tuple(warnings))


def _slice(document: Mapping, where: str) -> _Slice:
    meta, spec = mapping(document.get("metadata"), f"{where}.metadata"), mapping(document.get("spec"), f"{where}.spec")
    name = text(meta.get("name"), f"{where}.metadata.name") or where
    pool = mapping(spec.get("pool"), f"{where}.spec.pool")
    return _Slice(
        name=name,
        driver=text(spec.get("driver"), f"{where}.spec.driver"),
        node=text(spec.get("nodeName"), f"{where}.spec.nodeName"),
        pool=text(pool.get("name"), f"{where}.spec.pool.name"),
        generation=integer(pool.get("generation"), f"{where}.spec.pool.generation"),
        count=integer(pool.get("resourceSliceCount"), f"{where}.spec.pool.resourceSliceCount", 1),
        devices=listing(spec.get("devices"), f"{where}.spec.devices"),
    )


def _newest(slices: list[_Slice]) -> list[list[_Slice]]:
    pools: dict[tuple[str, str, str], list[_Slice]] = {}
    for found in slices:
        pools.setdefault((found.node, found.driver, found.pool), []).append(found)
    groups: list[list[_Slice]] = []
    for key in sorted(pools):
        newest = max(found.generation for found in pools[key])
        groups.append(sorted((s for s in pools[key] if s.generation == newest), key=lambda s: s.name))
    return groups


@dataclass(slots=True)
class _Attributes:
    """Attributes by their name without the domain, the standard domain before the driver's."""

    values: dict[str, object]
    where: str

    def text(self, *names: str) -> str:
        return next((found for name in names if (found := text(self.values.get(name), f"{self.where}.{name}"))), "")

    def integer(self, *names: str) -> int:
        for name in names:
            value = self.values.get(name)
            if isinstance(value, list):  # a NUMA node with those near it: the first is the device's own
                value = listing(value, self.where)[0] if value else None
            if value is not None:
                return integer(value, f"{self.where}.{name}", -1)
        return -1


def _attributes(device: Mapping, where: str) -> _Attributes:
    found: dict[str, object] = {}
    inner = mapping(device.get("basic"), f"{where}.basic") or device  # v1beta1 nests them
    attributes = mapping(inner.get("attributes"), f"{where}.attributes")
    for key in sorted(attributes, key=lambda key: (not key.startswith(_STANDARD), key)):
        value = mapping(attributes[key], f"{where}.attributes.{key}")
        first = next((value[k] for k in ("string", "int", "version", "bool", "ints", "strings") if k in value), None)
        found.setdefault(key.rsplit("/", 1)[-1], first)
    return _Attributes(found, f"{where}.attributes")


def _device(device: Mapping, driver: str, node: _Node, where: str, warnings: list[Warned]) -> None:
    name = text(device.get("name"), f"{where}.name")
    if not name:
        raise UnreadableInput(f"{where}.name: a device needs a name")
    if len(node.gpus) + len(node.nics) >= _MOST_DEVICES:
        raise UnreadableInput(f"{where}: more than {_MOST_DEVICES} devices on one node")
    attributes = _attributes(device, where)
    written = attributes.text("pciBusID", "pciAddress")
    pci = normal_pci(written) or _pci_of_parts(attributes)
    if written and not pci:
        warnings.append(Warned(where=where, what=f"pciBusID {written!r} is no PCI address; it is unknown now"))
    if driver in NIC_DRIVERS:
        _nic(name, pci, attributes, node)
        return
    kind = attributes.text("type") or "gpu"
    if kind == "mig":
        _part(name, pci, attributes, device, node, where)
        return
    if kind != "gpu":
        return
    if name in node.gpus:
        warnings.append(Warned(where=where, what=f"device {name} is there twice; the first counts"))
        return
    node.driver_version = node.driver_version or attributes.text("driverVersion")
    node.gpus[name] = _gpu(name, pci, attributes, device, where)


def _part(name: str, pci: str, attributes: _Attributes, device: Mapping, node: _Node, where: str) -> None:
    """Keep a MIG device by its GPU's UUID, or by the GPU's name where it gives none; the GPU may be in no slice."""
    inner = mapping(device.get("basic"), f"{where}.basic") or device
    names = [key.rpartition("/")[2] for key in mapping(inner.get("capacity"), f"{where}.capacity")]
    units = [int(key[11:]) for key in names if key.startswith("memorySlice") and key[11:].isdecimal() and len(key) < 16]
    parent = attributes.text("parentUUID")
    part = slice_part(
        name,
        profile=attributes.text("profile"),
        parent=parent,
        uuid=attributes.text("uuid"),
        memory_slices=units,
    )
    owner = f"gpu-{part.minor}" if part.minor >= 0 else name.partition("-mig-")[0]
    node.parts.setdefault(parent or owner, []).append(part)
    if len(node.parts) > _MOST_DEVICES or len(node.parts[parent or owner]) > _MOST_DEVICES:
        raise UnreadableInput(f"{where}: more than {_MOST_DEVICES} MIG devices on one node")
    bare = _gpu(owner, pci, attributes, {}, where)
    node.parents.setdefault(parent or owner, replace(bare, uuid=parent, whole=False))


def _pci_of_parts(attributes: _Attributes) -> str:
    parts = [attributes.text(f"pciAddress{part}") for part in ("Domain", "Bus", "Device", "Function")]
    return normal_pci(f"{parts[0] or '0'}:{parts[1]}:{parts[2]}.{parts[3] or '0'}") if parts[1] and parts[2] else ""


def _gpu(name: str, pci: str, attributes: _Attributes, device: Mapping, where: str) -> Gpu:
    inner = mapping(device.get("basic"), f"{where}.basic") or device
    capacity = mapping(inner.get("capacity"), f"{where}.capacity")
    memory = capacity.get("memory", capacity.get(f"{GPU_DRIVER}/memory"))
    amount = text(memory if not isinstance(memory, dict) else mapping(memory, where).get("value"), f"{where}.memory")
    taints = [mapping(taint, f"{where}.taints") for taint in listing(inner.get("taints"), f"{where}.taints")]
    away = next((t for t in taints if t.get("effect") in _KEEPING_AWAY), None)
    last = name.rsplit("-", 1)[-1]
    return Gpu(
        id=name,
        index=int(last) if last.isdecimal() and len(last) < 5 else 0,
        device=name,
        uuid=attributes.text("uuid"),
        pci=pci,
        model=attributes.text("productName"),
        memory_bytes=quantity(amount, field=f"{where}.capacity.memory") if amount else 0,
        numa=attributes.integer("numaNode"),
        pcie_root=attributes.text("pcieRoot"),
        architecture=attributes.text("architecture"),
        compute=".".join(attributes.text("cudaComputeCapability").split(".")[:2]),
        healthy=away is None,
        health_reason="" if away is None else f"{text(away.get('key'), where)}={text(away.get('value'), where)}",
    )


def _nic(name: str, pci: str, attributes: _Attributes, node: _Node) -> None:
    if attributes.text("virtual") == "true" or name in node.nics:
        return
    netdev = attributes.text("ifName", "name")
    link = attributes.text("linkType", "encapsulation").lower()
    node.nics[name] = Nic(
        id=name,
        pci=pci,
        numa=attributes.integer("numaNode"),
        pcie_root=attributes.text("pcieRoot"),
        rdma=attributes.text("rdmaDevice", "rdmaDevName"),
        netdevs=(netdev,) if netdev else (),
        kind="infiniband" if "infiniband" in link else "ethernet" if "ether" in link else "",
        state={"up": "up", "down": "down"}.get(attributes.text("state").lower(), ""),
        guid=attributes.text("mac"),
    )


def _machine(node: _Node, name: str, conflicts: list[str]) -> Machine:
    named = {gpu.uuid or gpu.id for gpu in node.gpus.values()} | set(node.gpus)
    found = [*node.gpus.values(), *(gpu for key, gpu in node.parents.items() if key not in named)]
    gpus: list[Gpu] = []
    taken = Counter(gpu.index for gpu in found)
    for at, gpu in enumerate(sorted(found, key=lambda gpu: natural(gpu.id))):
        parts = [*node.parts.get(gpu.uuid, ()), *node.parts.get(gpu.id, ())]
        index = gpu.index if taken[gpu.index] == 1 else at
        gpus.append(cut(replace(gpu, index=index), parts, whole=gpu.whole, conflicts=conflicts))
    nics = tuple(sorted(node.nics.values(), key=lambda nic: natural(nic.id)))
    links: list[Link] = []
    for at, a in enumerate(gpus):
        others: list[Gpu | Nic] = [*gpus[at + 1 :], *nics]
        for b in others:
            path = tree_class(a, b)
            if path:
                links.append(Link(a=a.id, b=b.id, path=path, bytes_per_s=theoretical_pace(path)))
    return Machine(source=name, gpus=tuple(gpus), nics=nics, links=tuple(links), driver_version=node.driver_version)
