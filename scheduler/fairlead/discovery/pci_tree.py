"""The PCI tree of a machine from ``/sys/bus/pci/devices``: root complexes, bridges, functions and their links.

The tree is in where each entry's symbolic link leads: ``…/pci0000:64/0000:64:01.0/0000:65:00.0``. Snapshots without
links fall back on the bus numbers that bridges have in their configuration space.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from fairlead.discovery.cpu_list import parse_list, parse_mask
from fairlead.discovery.numa import Host
from fairlead.discovery.pci import normal_pci
from fairlead.discovery.snapshot import Snapshot
from fairlead.model.hardware import PcieLink, PciFunction

DEVICES = "sys/bus/pci/devices"
MOST_FUNCTIONS = 8_192
"""How many functions of one machine are read; a machine with thousands of virtual functions stays below."""

NVIDIA, AMD, INTEL = 0x10DE, 0x1002, 0x8086
_ROOT = re.compile(r"pci([0-9a-f]{4,8}):([0-9a-f]{2})", re.IGNORECASE)
_SPEED = re.compile(r"([0-9]{1,3}(?:\.[0-9])?)\s*GT/s.*")
_GENERATIONS = {25: 1, 50: 2, 80: 3, 160: 4, 320: 5, 640: 6}
# One lane, one direction, in bytes/s: 8b/10b up to generation 2, 128b/130b up to 5, 242 of 256 bytes in a flit of 6.
_LANE_BYTES_PER_S = {
    1: 250_000_000,
    2: 500_000_000,
    3: 984_615_384,
    4: 1_969_230_769,
    5: 3_938_461_538,
    6: 7_562_500_000,
}
_PORTS = {4: "root-port", 5: "switch-upstream", 6: "switch-downstream", 7: "bridge", 8: "bridge"}
HEAVY = ("gpu", "nic", "storage")
"""Kinds of functions that move much data."""


@dataclass(frozen=True, slots=True)
class PciTree:
    """Functions by id, parents before children."""

    functions: dict[str, PciFunction]

    def bridges(self, pci: str) -> list[str]:
        """Return the ids of the bridges above a function, the one at the root first; without the root complex."""
        chain: list[str] = []
        at = self.functions[pci].parent if pci in self.functions else ""
        while at in self.functions and self.functions[at].kind != "root":
            chain.append(at)
            at = self.functions[at].parent
        return chain[::-1]

    def root(self, pci: str) -> str:
        """Return the id of the root complex that a function hangs on, "" where unknown."""
        at = pci
        while at in self.functions:
            if self.functions[at].kind == "root":
                return at
            at = self.functions[at].parent
        return ""

    def switches(self, pci: str) -> str:
        """Return the switches above a function as ``upstream port/upstream port``, the one at the root first."""
        return "/".join(at for at in self.bridges(pci) if self.functions[at].kind == "switch-upstream")

    def path(self, a: str, b: str) -> str:
        """Return the class of the path between two functions, "" where it is unknown (NUMA nodes, mostly)."""
        above_a, above_b = self.bridges(a), self.bridges(b)
        common = 0
        while common < min(len(above_a), len(above_b)) and above_a[common] == above_b[common]:
            common += 1
        kinds = [self.functions[at].kind for at in (*above_a[common:], *above_b[common:])]
        if common:
            crossed = kinds.count("switch-upstream")
            crossed += self.functions[above_a[common - 1]].kind == "switch-upstream"
            return "PIX" if crossed <= 1 else "PXB"
        root_a, root_b = self.root(a), self.root(b)
        if root_a and root_a == root_b:
            return "PHB"
        numa_a, numa_b = self.functions[a].numa, self.functions[b].numa
        if numa_a < 0 or numa_b < 0:
            return ""
        return "NODE" if numa_a == numa_b else "SYS"

    def redirected(self, a: str, b: str) -> str:
        """Return whether peer traffic below a common bridge goes straight: ``yes``, ``redirected`` or ""."""
        above_a, above_b = self.bridges(a), self.bridges(b)
        common = {at for at in above_a if at in above_b}
        if not common:
            return ""
        says = {self.functions[at].link.p2p for at in {*above_a, *above_b} - common}
        if "redirected" in says:
            return "redirected"
        return "yes" if says == {"yes"} else ""


def read_pci(files: Snapshot, host: Host, warnings: list[str]) -> PciTree:
    """Return the PCI tree of a snapshot; empty where it has none."""
    found: dict[str, PciFunction] = {}
    chains: dict[str, list[str]] = {}
    names = files.names(DEVICES)
    if len(names) > MOST_FUNCTIONS:
        warnings.append(f"{DEVICES}: {len(names)} functions; those after the first {MOST_FUNCTIONS} are left out")
    for name in names[:MOST_FUNCTIONS]:
        pci = normal_pci(name)
        if not pci or pci in found:
            warnings.append(f"{DEVICES}/{name}: no PCI address, or one that is there twice; it is left out")
            continue
        found[pci] = _function(files, f"{DEVICES}/{name}", pci, host, warnings)
        chains[pci] = _chain(files.resolve(f"{DEVICES}/{name}"))
    placed = {pci: replace(f, parent=_parent(pci, chains[pci], found)) for pci, f in found.items()}
    return tree_of(placed, host)


def tree_of(functions: dict[str, PciFunction], host: Host) -> PciTree:
    """Return the tree of functions that name their parents: missing roots added, kinds of bridges and links filled in.

    A function whose NUMA node is unknown is on the machine's only node, if it has just one. Parents that are missing or
    lead in a circle count as the root complex of the function's own bus.
    """
    ordered: dict[str, PciFunction] = {}
    only = host.nodes[0].id if len(host.nodes) == 1 else -1

    def add(pci: str) -> None:
        chain: list[str] = []
        while pci in functions and pci not in ordered and pci not in chain:
            chain.append(pci)
            pci = functions[pci].parent
        for at in reversed(chain):
            function = functions[at]
            parent = function.parent
            if function.kind == "root":
                ordered[at] = function
                continue
            if parent not in ordered:
                parent = parent if _ROOT.fullmatch(parent) else f"pci{at.rsplit(':', 1)[0]}"
                ordered.setdefault(parent, PciFunction(id=parent, kind="root", numa=function.numa))
            if ordered[parent].kind == "root" and ordered[parent].numa != function.numa:
                ordered[parent] = replace(ordered[parent], numa=max(ordered[parent].numa, function.numa))
            numa = only if function.numa < 0 else function.numa
            ordered[at] = replace(function, parent=parent, numa=numa, kind=_bridge_kind(function, ordered[parent]))

    for pci in functions:
        add(pci)
    roots = {at: replace(f, numa=only if f.numa < 0 else f.numa) for at, f in ordered.items() if f.kind == "root"}
    return PciTree(_linked(ordered | roots))


def _linked(functions: dict[str, PciFunction]) -> dict[str, PciFunction]:
    """Fill in which links are shared, and the bus ranges of root complexes and bridges that do not say theirs."""
    heavy: dict[str, int] = {}
    buses: dict[str, tuple[int, int]] = {}
    for function in reversed(functions.values()):
        at = function.id
        if function.kind in HEAVY and not function.physical:
            heavy[at] = 1
        low, high = buses.get(at, (256, -1))
        if function.buses:
            first, last = (int(part, 16) for part in function.buses.split("-"))
            low, high = min(low, first), max(high, last)
            buses[at] = (first, last)
        if function.kind != "root":
            bus = int(at.rsplit(":", 2)[-2], 16)
            above = buses.get(function.parent, (256, -1))
            buses[function.parent] = (min(low, bus, above[0]), max(high, bus, above[1]))
            heavy[function.parent] = heavy.get(function.parent, 0) + heavy.get(at, 0)
    done: dict[str, PciFunction] = {}
    for at, function in functions.items():
        link = replace(function.link, shared=heavy.get(at, 0) > 1)
        parent = done.get(function.parent)
        if not link.bytes_per_s and parent is not None and parent.kind in ("root-port", "switch-downstream"):
            slot = parent.link
            link = replace(link, generation=slot.generation, lanes=slot.lanes, bytes_per_s=slot.bytes_per_s)
        low, high = buses.get(at, (256, -1))
        is_bridge = function.kind == "root" or function.class_code >> 8 == 0x0604
        ranges = function.buses or (f"{low:02x}-{high:02x}" if is_bridge and 0 <= low <= high else "")
        done[at] = replace(function, link=link, buses=ranges)
    return done


def _bridge_kind(function: PciFunction, parent: PciFunction) -> str:
    """Name a bridge that does not say what it is by its place: ports of a switch stand one below the other."""
    if function.class_code >> 8 != 0x0604 or function.kind in _PORTS.values():
        return function.kind
    below = {"root": "root-port", "root-port": "switch-upstream", "switch-upstream": "switch-downstream"}
    return below.get(parent.kind, "switch-upstream" if parent.kind == "switch-downstream" else "bridge")


def pcie_link(generation: int, lanes: int, *, max_generation: int = 0, max_lanes: int = 0, p2p: str = "") -> PcieLink:
    """Return a link with the bytes/s that its generation and lanes give."""
    return PcieLink(
        generation=generation,
        lanes=lanes,
        max_generation=max_generation,
        max_lanes=max_lanes,
        bytes_per_s=_LANE_BYTES_PER_S.get(generation, 0) * lanes,
        p2p=p2p,
    )


def kind_of(class_code: int, vendor: int) -> str:
    """Return the kind of a function as its class (24 bits) and vendor say; ``device`` for what is none of ours.

    A display controller is a GPU when it is made for computing or by NVIDIA; the VGA of a board's service processor is
    none. AMD's accelerators have the classes 0x0380 and 0x1200.
    """
    kind, above = class_code >> 8, class_code >> 16
    if kind == 0x0302 or (kind == 0x0300 and vendor == NVIDIA):
        return "gpu"
    if (kind == 0x0380 and vendor in (AMD, INTEL)) or (kind == 0x1200 and vendor == AMD):
        return "gpu"
    if kind == 0x0680 and vendor == NVIDIA:
        return "nvswitch"
    if kind in (0x0200, 0x0207) or (above == 0x0C and kind == 0x0C06):
        return "nic"
    return "storage" if kind == 0x0108 else "device"


def _function(files: Snapshot, folder: str, pci: str, host: Host, warnings: list[str]) -> PciFunction:
    class_code = _hexadecimal(files.text(f"{folder}/class"))
    vendor, product = _hexadecimal(files.text(f"{folder}/vendor")), _hexadecimal(files.text(f"{folder}/device"))
    if class_code < 0:
        warnings.append(f"{folder}/class: unreadable; nobody knows what {pci} is")
    config = files.data(f"{folder}/config")
    kind = kind_of(max(class_code, 0), max(vendor, 0))
    has_port = kind == "device" and any(files.names(f"{folder}/{below}") for below in ("infiniband", "net"))
    if files.exists(f"proc/driver/nvidia/gpus/{pci}"):
        kind = "gpu"
    elif has_port:
        kind = "nic"
    elif class_code >> 8 == 0x0604:
        kind = _PORTS.get(_port_type(config), "device")
    group = files.target(f"{folder}/iommu_group")
    return PciFunction(
        id=pci,
        kind=kind,
        class_code=max(class_code, 0),
        vendor=max(vendor, 0),
        product=max(product, 0),
        name=files.text(f"{folder}/label")[:128],
        numa=_numa(files, folder, host, warnings),
        buses=_buses(config) if class_code >> 8 == 0x0604 else "",
        physical=normal_pci(files.target(f"{folder}/physfn")),
        iommu_group=int(group) if group.isdecimal() and len(group) < 8 else -1,
        link=pcie_link(
            _generation(files.text(f"{folder}/current_link_speed")),
            _lanes(files.text(f"{folder}/current_link_width")),
            max_generation=_generation(files.text(f"{folder}/max_link_speed")),
            max_lanes=_lanes(files.text(f"{folder}/max_link_width")),
            p2p=_access_control(config),
        ),
    )


def _buses(config: bytes) -> str:
    """Return the range of buses below a bridge, "" where its configuration space does not have a sound one."""
    first, last = (config[0x19], config[0x1A]) if len(config) > 0x1A else (0, 0)
    return f"{first:02x}-{last:02x}" if 0 < first <= last else ""


def _hexadecimal(text: str) -> int:
    return int(text, 16) if re.fullmatch(r"(?:0x)?[0-9a-fA-F]{1,6}", text) else -1


def _generation(text: str) -> int:
    match = _SPEED.fullmatch(text)
    return _GENERATIONS.get(round(float(match[1]) * 10), 0) if match else 0


def _lanes(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 3 and int(text) in (1, 2, 4, 8, 12, 16, 32) else 0


def _numa(files: Snapshot, folder: str, host: Host, warnings: list[str]) -> int:
    """Return the NUMA node as the kernel says it, else the one whose CPUs are the nearest ones."""
    text = files.text(f"{folder}/numa_node")
    known = {node.id for node in host.nodes}
    if text.isdecimal() and len(text) < 6 and int(text) in known:
        return int(text)
    if text not in ("", "-1"):
        warnings.append(f"{folder}/numa_node: {text[:16]!r} is no NUMA node of this machine; it is unknown now")
    near = parse_list(files.text(f"{folder}/local_cpulist")) or parse_mask(files.text(f"{folder}/local_cpus"))
    return host.numa_of((near or frozenset()) & host.cpus)


def _chain(path: tuple[str, ...]) -> list[str]:
    """Return the part of a resolved path below the innermost root complex, that included."""
    roots = [at for at, name in enumerate(path) if _ROOT.fullmatch(name)]
    return list(path[roots[-1] :]) if roots else []


def _parent(pci: str, chain: list[str], found: dict[str, PciFunction]) -> str:
    if len(chain) > 1:
        above = chain[-2]
        return above.lower() if _ROOT.fullmatch(above) else normal_pci(above)
    domain, bus, _ = pci.split(":")
    over = [
        (int(last, 16) - int(first, 16), at)
        for at, bridge in found.items()
        if bridge.buses and at != pci and at.startswith(f"{domain}:")
        for first, last in [bridge.buses.split("-")]
        if int(first, 16) <= int(bus, 16) <= int(last, 16)
    ]
    return min(over)[1] if over else f"pci{domain}:{bus}"


def _port_type(config: bytes) -> int:
    """Return the port type that the PCI Express capability names, -1 where it cannot be read."""
    at, hops = config[0x34] if len(config) > 0x34 else 0, 0
    while 0x40 <= at < len(config) - 3 and hops < 48:
        if config[at] == 0x10:
            return config[at + 2] >> 4
        at, hops = config[at + 1], hops + 1
    return -1


def _access_control(config: bytes) -> str:
    """Return what access control services do with peer requests: ``redirected``, ``yes``, "" where unreadable."""
    if len(config) < 0x1000:
        return ""
    at, hops = 0x100, 0
    while 0x100 <= at < len(config) - 8 and hops < 128:
        header = int.from_bytes(config[at : at + 4], "little")
        if header & 0xFFFF == 0x000D:
            return "redirected" if config[at + 6] & 0b1100 else "yes"
        at, hops = header >> 20, hops + 1
    return "yes"
