"""Read hwloc's XML, versions 1 to 3: packages, NUMA nodes, the PCI tree, devices of the system, NVLink bandwidths.

A device hangs on the NUMA node of the innermost object around it that has just one. What hwloc filtered out when the
file was written (it keeps no bridges without devices below, mostly) is not in the machine either.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from fairlead.discovery.cpu_list import as_list, parse_list, parse_mask
from fairlead.discovery.hwloc_distances import read_distances, read_nvlinks
from fairlead.discovery.machine_tree import DeviceFacts, Facts, assemble
from fairlead.discovery.numa import Host
from fairlead.discovery.pci import normal_pci
from fairlead.discovery.pci_tree import MOST_FUNCTIONS, kind_of, tree_of
from fairlead.discovery.xml_tree import Element, read_xml
from fairlead.errors import UnreadableInput
from fairlead.model.hardware import NO_PCIE_LINK, Machine, NumaNode, Package, PcieLink, PciFunction

_BUSES = re.compile(r"([0-9a-f]{4,8}):\[([0-9a-f]{2})-([0-9a-f]{2})\]", re.IGNORECASE)
_TYPE = re.compile(r"([0-9a-f]{4})(?: \[([0-9a-f]{4}):([0-9a-f]{4})\])?.*", re.IGNORECASE | re.DOTALL)
_SIZE = re.compile(r"([0-9]{1,12})(?:\s*(?:KiB|kB))?")
_GPU_NAME = re.compile(r"(?:cuda|nvml|rsmi|opencl|ze)[0-9].*")
_IO = ("Bridge", "PCIDev", "OSDev", "Misc")
# Version 3 has a mask of types, older ones a number.
_NETWORK_BITS, _NETWORK_TYPES = 16 | 32, {"2": "net", "3": "rdma"}


@dataclass(slots=True)
class _Found:
    """What the walk has collected. `objects` maps ``type:gp_index`` (and bare gp_index) to the PCI address it is on."""

    name: str
    version: int
    functions: dict[str, PciFunction] = field(default_factory=dict[str, PciFunction])
    nodes: dict[int, NumaNode] = field(default_factory=dict[int, NumaNode])
    node_of_gp: dict[str, int] = field(default_factory=dict[str, int])
    packages: dict[int, Package] = field(default_factory=dict[int, Package])
    nodesets: list[tuple[int, frozenset[int]]] = field(default_factory=list[tuple[int, frozenset[int]]])
    gpu_memory: dict[int, str] = field(default_factory=dict[int, str])
    objects: dict[str, str] = field(default_factory=dict[str, str])
    facts: Facts = field(default_factory=lambda: Facts(source=""))

    def warn(self, element: Element, what: str) -> None:
        self.facts.warnings.append(f"{self.name}:{element.line}: {what}")


@dataclass(frozen=True, slots=True)
class _Around:
    """What stands around an object: package, NUMA node (-1 several or none), bridge and PCI function above it."""

    package: int = -1
    numa: int = -1
    bridge: str = ""
    pci: str = ""


def parse(data: bytes, *, name: str) -> tuple[Machine, tuple[str, ...]]:
    """Return (machine, warnings ``name:line: what``) for the bytes of one file.

    Raises
    ------
    UnreadableInput
        No well-formed hwloc topology, entities in it, or more devices than a machine has; the text names the line.
    """
    root = read_xml(data, name=name, root="topology")
    version = root.get("version").partition(".")[0]
    found = _Found(name, int(version) if version.isdecimal() and len(version) < 3 else 1, facts=Facts(source=name))
    machines = [child for child in root.all("object") if child.get("type") in ("Machine", "System")]
    if not machines:
        raise UnreadableInput(f"{name}:{root.line}: <topology> has no Machine in it; is it an export of hwloc?")
    if found.version > 3:
        found.warn(root, f"version {root.get('version')} is newer than what is known here; it is read as version 3")
    _gpu_memory(machines[0], found)
    _walk(machines[0], found)
    found.facts.product = _infos(machines[0]).get("DMIProductName", "")[:128]
    host = _host(found, root)
    known = {node.id for node in host.nodes}
    functions = {pci: replace(f, numa=f.numa if f.numa in known else -1) for pci, f in found.functions.items()}
    found.facts.nvlinks = read_nvlinks(root, found.objects, found.facts, name=name)
    machine = assemble(tree_of(functions, host), host, found.facts)
    return machine, tuple(
        warning if warning.startswith(f"{name}:") else f"{name}: {warning}"
        for warning in (*host.warnings, *found.facts.warnings)
    )


def _infos(element: Element) -> dict[str, str]:
    return {info.get("name"): info.get("value").strip() for info in element.all("info")}


def _number(element: Element, key: str, found: _Found) -> int:
    text = element.get(key)
    if re.fullmatch(r"[0-9]{1,9}", text):
        return int(text)
    found.warn(element, f"{element.get('type')}: {key} {text!r} is no number; the object is left out")
    return -1


def _walk(machine: Element, found: _Found) -> None:
    """Visit every object, outer ones first and in document order."""
    todo: list[tuple[Element, _Around]] = [(machine, _Around())]
    while todo:
        element, around = todo.pop()
        kind = element.get("type")
        inside = around
        if kind in ("Package", "Socket"):
            inside = _package(element, around, found)
        elif kind == "NUMANode":
            inside = _numa_node(element, around, found)
        elif kind in ("Bridge", "PCIDev"):
            inside = _pci(element, around, found)
        elif kind == "OSDev":
            _os_device(element, around, found)
        if kind not in _IO and kind != "NUMANode":
            nodes = parse_mask(element.get("nodeset")) or frozenset()
            hosts = [node for node in nodes if node not in found.gpu_memory]
            inside = replace(inside, numa=hosts[0] if len(hosts) == 1 else -1 if hosts else inside.numa)
        todo += [(child, inside) for child in reversed(list(element.all("object")))]


def _gpu_memory(machine: Element, found: _Found) -> None:
    """Note which NUMA nodes are GPU memory, which must be known before a device asks for its node."""
    todo = [machine]
    while todo:
        element = todo.pop()
        number = element.get("os_index")
        if element.get("subtype") == "GPUMemory" and number.isdecimal() and len(number) < 9:
            found.gpu_memory[int(number)] = normal_pci(_infos(element).get("PCIBusID", ""))
        todo += element.all("object")


def _package(element: Element, around: _Around, found: _Found) -> _Around:
    number = _number(element, "os_index", found)
    if number < 0 or number in found.packages:
        if number >= 0:
            found.warn(element, f"package {number} is there twice; the second is left out")
        return around
    infos = _infos(element)
    model = infos.get("CPUModel", "")
    cpus = parse_mask(element.get("cpuset")) or frozenset()
    found.packages[number] = Package(id=number, cpus=as_list(cpus), model=model)
    found.nodesets.append((number, cpus))
    return replace(around, package=number)


def _numa_node(element: Element, around: _Around, found: _Found) -> _Around:
    number = _number(element, "os_index", found)
    if number < 0:
        return around
    if number in found.nodes:
        found.warn(element, f"NUMA node {number} is there twice; the second is left out")
        return around
    memory = element.get("local_memory")
    cpus = parse_mask(element.get("cpuset")) or frozenset()
    if number in found.gpu_memory:
        cpus = frozenset()  # hwloc gives the CPUs near to it, which are those of another node
    found.nodes[number] = NumaNode(
        id=number,
        cpus=as_list(cpus),
        memory_bytes=int(memory) if memory.isdecimal() and len(memory) < 18 else 0,
        package=around.package,
    )
    if element.get("gp_index"):
        found.node_of_gp[element.get("gp_index")] = number
    return replace(around, numa=around.numa if number in found.gpu_memory else number)


def _pci(element: Element, around: _Around, found: _Found) -> _Around:
    """Take a bridge or function; a host bridge has no address but a range of buses."""
    buses = _BUSES.fullmatch(element.get("bridge_pci"))
    low, high = (buses[2].lower(), buses[3].lower()) if buses else ("", "")
    written = f"{low}-{high}" if "" < low <= high else ""
    if element.get("type") == "Bridge" and not element.get("pci_busid"):
        if buses is None:
            found.warn(element, f"host bridge with bridge_pci {element.get('bridge_pci')!r}; its bus is unknown")
            return around
        root = f"pci{buses[1].lower().lstrip('0').zfill(4)}:{low}"
        found.functions.setdefault(root, PciFunction(id=root, kind="root", numa=around.numa, buses=written))
        return replace(around, bridge=root)
    pci = normal_pci(element.get("pci_busid"))
    kind = _TYPE.fullmatch(element.get("pci_type"))
    if not pci or kind is None or pci in found.functions:
        what = "there twice" if pci in found.functions else "unreadable"
        said = f"{element.get('pci_busid')!r} of type {element.get('pci_type')!r}"
        found.warn(element, f"{element.get('type')} {said} is {what}; it is left out")
        return replace(around, pci="")
    if len(found.functions) >= MOST_FUNCTIONS:
        raise UnreadableInput(f"{found.name}:{element.line}: more than {MOST_FUNCTIONS} PCI functions")
    class_code, vendor, product = int(kind[1], 16) << 8, int(kind[2] or "0", 16), int(kind[3] or "0", 16)
    is_switch = element.get("subtype") == "NVSwitch"
    found.functions[pci] = PciFunction(
        id=pci,
        parent=around.bridge,
        kind="nvswitch" if is_switch else kind_of(class_code, vendor),
        class_code=class_code,
        vendor=vendor,
        product=product,
        name=_infos(element).get("PCIDevice", "")[:128],
        numa=around.numa,
        buses=written,
        link=_link(element.get("pci_link_speed")),
    )
    _remember(element, pci, found)
    return replace(around, bridge=pci, pci=pci)


def _link(speed: str) -> PcieLink:
    """Return the link of a bandwidth in GB/s. Generation and lanes stay unknown: 16 GB/s is 3 x16, 4 x8 and 5 x4."""
    if not re.fullmatch(r"[0-9]{1,4}(?:\.[0-9]{1,9})?", speed):
        return NO_PCIE_LINK
    return PcieLink(bytes_per_s=round(float(speed) * 1_000_000_000))


def _remember(element: Element, pci: str, found: _Found) -> None:
    if element.get("gp_index"):
        found.objects[element.get("gp_index")] = pci
        found.objects[f"{element.get('type')}:{element.get('gp_index')}"] = pci


def _os_device(element: Element, around: _Around, found: _Found) -> None:
    if not around.pci:
        return
    _remember(element, around.pci, found)
    name, kind = element.get("name")[:64], element.get("osdev_type")
    fact, infos = found.facts.of(around.pci), _infos(element)
    function = found.functions[around.pci]
    bits = int(kind) if kind.isdecimal() and len(kind) < 6 else 0
    network = "" if found.version < 3 else "rdma" if bits & 32 else "net" if bits & 16 else ""
    network = _NETWORK_TYPES.get(kind, "") if found.version < 3 else network
    if network:
        _network(network, name, infos, fact)
        if function.kind == "device":
            found.functions[around.pci] = replace(function, kind="nic")
    elif _GPU_NAME.fullmatch(name) and (function.kind == "gpu" or function.class_code >> 16 in (0x03, 0x12)):
        found.functions[around.pci] = replace(function, kind="gpu")
        _gpu(name, infos, fact)
    elif function.kind == "storage":
        fact.drive = fact.drive or name.partition("n1")[0] or name


def _network(kind: str, name: str, infos: dict[str, str], fact: DeviceFacts) -> None:
    if kind == "net":
        fact.netdevs.append(name)
        long_address = len(infos.get("Address", "")) > 17  # InfiniBand has addresses of 20 bytes, Ethernet of 6
        fact.kind = "infiniband" if long_address else fact.kind or "ethernet"
        return
    fact.rdma = fact.rdma or name
    fact.guid = infos.get("NodeGUID", "")[:32]
    states = [value for key, value in infos.items() if re.fullmatch(r"Port[0-9]+State", key)]
    if states:
        fact.state = "up" if "4" in states else "down"


def _gpu(name: str, infos: dict[str, str], fact: DeviceFacts) -> None:
    number = re.fullmatch(r"nvml([0-9]{1,4})", name)
    fact.index = int(number[1]) if number else fact.index
    fact.model = fact.model or infos.get("GPUModel", "")[:128]
    fact.uuid = fact.uuid or infos.get("NVIDIAUUID", infos.get("AMDUUID", ""))[:96]
    fact.serial = fact.serial or infos.get("NVIDIASerial", infos.get("AMDSerial", ""))[:64]
    size = _SIZE.fullmatch(infos.get("CUDAGlobalMemorySize", "") or infos.get("OpenCLGlobalMemorySize", ""))
    fact.memory_bytes = fact.memory_bytes or (int(size[1]) << 10 if size else 0)


def _host(found: _Found, root: Element) -> Host:
    host = Host()
    rows = read_distances(root, tuple(found.nodes), found.node_of_gp, host.warnings, name=found.name)
    kept = sorted(number for number in found.nodes if number not in found.gpu_memory)

    def node(number: int) -> NumaNode:
        row = tuple(rows[number, other] for other in kept) if all((number, o) in rows for o in kept) else ()
        cpus = _cpus(found.nodes[number].cpus)
        near = sorted(package for package, theirs in found.nodesets if cpus & theirs)
        package = found.nodes[number].package if len(near) != 1 else near[0]
        return replace(found.nodes[number], distances=row, package=package, gpu=found.gpu_memory.get(number, ""))

    host.nodes = tuple(node(number) for number in kept)
    host.memory_nodes = tuple(node(number) for number in sorted(found.gpu_memory) if number in found.nodes)
    if not host.nodes:
        host.warnings.append("no NUMA node among the objects; the machine counts as one")
        every = frozenset(cpu for _, cpus in found.nodesets for cpu in cpus)
        host.nodes = (NumaNode(id=0, cpus=as_list(every)),)
    host.cpus = frozenset(cpu for one in host.nodes for cpu in _cpus(one.cpus))
    host.packages = tuple(
        replace(package, numa_nodes=tuple(n.id for n in host.nodes if _cpus(n.cpus) & _cpus(package.cpus)))
        for _, package in sorted(found.packages.items())
    )
    return host


def _cpus(text: str) -> frozenset[int]:
    return parse_list(text) or frozenset()
