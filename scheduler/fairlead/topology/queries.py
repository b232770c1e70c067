"""Questions that a person or the scheduler asks of an inventory: paths, weakest pairs, NICs, who shares what.

Devices are named by ``GPU0`` where there is one machine, by ``node/GPU0`` else; PCI addresses, UUIDs and device names
are taken too.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fairlead.errors import NotFound
from fairlead.model.fabric import Inventory, NamedMachine
from fairlead.model.hardware import Drive, Gpu, Link, Machine, Nic
from fairlead.topology.fabric_paths import FabricPaths
from fairlead.topology.graph import ROOT, below, device_graph, devices_of, parent
from fairlead.topology.islands import islands
from fairlead.topology.paths import (
    UNKNOWN_RANK,
    class_rank,
    effective,
    nvlinks,
    path_class,
    theoretical_pace,
    tree_class,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PathAnswer:
    """The best known path between two devices.

    `path` is in nvidia-smi's words inside a machine; between machines it is ``NV#`` inside one NVLink domain, else
    ``NET``. `via` are the vertices on the way. `bytes_per_s` is that of `bottleneck`, 0 where unknown; `theory` is
    what the weakest link would give without measurements. `hops` counts fabric switches.
    """

    a: str
    b: str
    path: str
    bytes_per_s: int
    theory_bytes_per_s: int
    bottleneck: str
    via: tuple[str, ...] = ()
    hops: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAnswer:
    """What a set of devices gives: its weakest pair, and how far it spreads."""

    devices: tuple[str, ...]
    weakest: PathAnswer | None
    islands: int
    numa_nodes: int
    nodes: int
    fabric_hops: int
    contention: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class NicChoice:
    """One NIC as a GPU sees it; `sharers` are the GPUs to which it is as near as to this one."""

    nic: str
    path: str
    bytes_per_s: int
    direct: str
    rail: int
    sharers: tuple[str, ...]


def nics_of(machine: Machine, gpu: str) -> tuple[NicChoice, ...]:
    """Return the NICs of a GPU, those with the best path first; of equal paths the faster one, then the given order."""
    return nic_choices(machine).get(gpu, ())


def nic_choices(machine: Machine) -> dict[str, tuple[NicChoice, ...]]:
    """Return `nics_of` for every GPU at once."""
    links = {frozenset((link.a, link.b)): link for link in machine.links}
    found: dict[tuple[str, str], tuple[str, Link | None]] = {}
    for gpu in machine.gpus:
        for nic in machine.nics:
            link = links.get(frozenset((gpu.id, nic.id)))
            found[gpu.id, nic.id] = (link.path if link is not None else tree_class(gpu, nic), link)
    rank = {pair: class_rank(path) for pair, (path, _) in found.items()}
    best = {g.id: min((rank[g.id, n.id] for n in machine.nics), default=UNKNOWN_RANK) for g in machine.gpus}
    answers: dict[str, tuple[NicChoice, ...]] = {}
    for gpu in machine.gpus:
        choices: list[tuple[int, int, int, NicChoice]] = []
        for at, nic in enumerate(machine.nics):
            path, link = found[gpu.id, nic.id]
            pace = effective(link) if link is not None else theoretical_pace(path)
            near = [g.id for g in machine.gpus if g is not gpu and rank[g.id, nic.id] == best[g.id] < UNKNOWN_RANK]
            choice = NicChoice(
                nic=nic.id,
                path=path,
                bytes_per_s=min(pace, nic.bytes_per_s or pace),
                direct=link.direct if link is not None else "",
                rail=nic.rail,
                sharers=tuple(near),
            )
            choices.append((rank[gpu.id, nic.id], -nic.bytes_per_s, at, choice))
        answers[gpu.id] = tuple(choice for *_, choice in sorted(choices, key=lambda entry: entry[:3]))
    return answers


class Questions:
    """Answers about one inventory. Everything that is looked up twice is kept."""

    def __init__(self, inventory: Inventory) -> None:
        """Index the devices of `inventory`."""
        self.inventory = inventory
        self.machines = {found.name: found for found in inventory.machines}
        self.fabric = FabricPaths(inventory.fabric)
        self._known: dict[str, list[tuple[str, str]]] = {}
        for found in inventory.machines:
            devices: list[Gpu | Nic | Drive] = [*found.machine.gpus, *found.machine.nics, *found.machine.drives]
            for device in devices:
                names = {device.id, device.pci, getattr(device, "uuid", ""), getattr(device, "device", "")} - {""}
                for name in sorted(names):
                    self._known.setdefault(name, []).append((found.name, device.id))

    def find(self, text: str) -> tuple[NamedMachine, str]:
        """Return (machine, device id) for a device as people name it, device "" for a whole machine.

        Raises
        ------
        NotFound
            Nothing is called so, or devices of several machines are.
        """
        if text in self.machines:
            return self.machines[text], ""
        hits = self._known.get(text, [])
        node, _, device = text.rpartition("/")
        if not hits and node in self.machines:
            hits = [(name, found) for name, found in self._known.get(device, []) if name == node]
        if len(hits) == 1:
            return self.machines[hits[0][0]], hits[0][1]
        if hits:
            some = ", ".join(f"{name}/{found}" for name, found in hits[:3])
            raise NotFound(f"{text!r} is on {len(hits)} machines; say which: {some} …")
        raise NotFound(f"no device or machine {text!r} in {self.inventory.source}; `topology show` lists them")

    def path(self, a: str, b: str) -> PathAnswer:
        """Return the best path between two devices or machines.

        Raises
        ------
        NotFound
            As `find`.
        """
        (one, x), (other, y) = self.find(a), self.find(b)
        if one.name == other.name:
            if x and y:
                return _inside(one, x, y)
            return PathAnswer(a=a, b=b, path="X", bytes_per_s=0, theory_bytes_per_s=0, bottleneck="")
        return self._between(one, x, other, y)

    def of_set(self, devices: list[str]) -> SetAnswer:
        """Return the weakest pair of a set (the pace of a collective over it), its span and its contention.

        Raises
        ------
        NotFound
            As `find`.
        """
        found = [self.find(device) for device in devices]
        answers = [self.path(a, b) for i, a in enumerate(devices) for b in devices[i + 1 :]]
        weakest = min(answers, key=lambda answer: (answer.bytes_per_s, answer.a, answer.b), default=None)
        by_node: dict[str, set[str]] = {}
        for machine, device in found:
            by_node.setdefault(machine.name, set()).add(device)
        inside = [_spread(self.machines[node].machine, ids) for node, ids in sorted(by_node.items())]
        hops = max((answer.hops for answer in answers), default=0)
        return SetAnswer(
            devices=tuple(devices),
            weakest=weakest,
            islands=sum(count for count, _ in inside),
            numa_nodes=sum(count for _, count in inside),
            nodes=len(by_node),
            fabric_hops=hops,
            contention=tuple(
                flag for node, ids in sorted(by_node.items()) for flag in contention(self.machines[node].machine, ids)
            ),
        )

    def shared_with(self, text: str) -> dict[str, tuple[str, ...]]:
        """Return what a device or machine shares, and with whom: its PCIe uplinks, and its groups and switches.

        Keys are ``switch:…`` and ``root:…`` of the machine, then vertices of the fabric, the closest first.
        """
        machine, device = self.find(text)
        found: dict[str, tuple[str, ...]] = {}
        if device:
            for vertex, inside in _above(machine.machine, device):
                if len(inside) > 1:
                    found[vertex] = tuple(inside)
        found |= {key: self.fabric.nodes_below(key) for key in self.fabric.above(f"node:{machine.name}")}
        return found

    def _between(self, one: NamedMachine, x: str, other: NamedMachine, y: str) -> PathAnswer:
        names = (f"{one.name}/{x}" if x else one.name, f"{other.name}/{y}" if y else other.name)
        common = self.fabric.common_group(one.name, other.name, "nvl-domain")
        speeds = [_nvlink(machine.machine, device) for machine, device in ((one, x), (other, y))]
        if common and all(speeds):
            path, pace = min(speeds, key=lambda speed: speed[1])
            return PathAnswer(a=names[0], b=names[1], path=path, bytes_per_s=pace, theory_bytes_per_s=pace,
                              bottleneck=common, via=(common,))  # fmt: skip
        if common and not x and not y:
            return PathAnswer(a=names[0], b=names[1], path="NVL", bytes_per_s=0, theory_bytes_per_s=0,
                              bottleneck=common, via=(common,))  # fmt: skip
        segments: list[tuple[int, str]] = []
        via: list[str] = []
        for machine, device in ((one, x), (other, y)):
            first = _exit(machine, device)
            segments += first
            via += [segment.partition(" to ")[2] for _, segment in first[:1]]
        route = self.fabric.route(one.name, other.name)
        via[1:1] = [vertex for vertex, _ in route]
        segments += [(rate, f"uplink to {vertex}") for vertex, rate in route if rate]
        known = [segment for segment in segments if segment[0]]
        rate, where = min(known, default=(0, ""))
        return PathAnswer(
            a=names[0],
            b=names[1],
            path="NET" if route else "",
            bytes_per_s=rate if route else 0,
            theory_bytes_per_s=rate if route else 0,
            bottleneck=where if route else "",
            via=tuple(via) if route else (),
            hops=len(route),
        )


def contention(machine: Machine, devices: set[str]) -> tuple[str, ...]:
    """Return the uplinks that several GPUs of a set would share below what they could move, as sentences."""
    graph = device_graph(machine)
    gpus = {gpu.id for gpu in machine.gpus} & devices
    found: list[str] = []
    for vertex in [str(at) for at in graph.nodes if graph.nodes[at]["kind"] == "switch"]:
        sharing = [gpu.id for gpu in machine.gpus if gpu.id in below(graph, vertex) & gpus]
        over = int(graph.edges[parent(graph, vertex), vertex, "tree"]["oversubscription"])
        if len(sharing) > 1:
            ratio = f", {over // 1_000_000}.{over % 1_000_000 // 100_000} times over" if over > 1_000_000 else ""
            found.append(f"{', '.join(sharing)} share the uplink of {vertex.removeprefix('switch:')}{ratio}")
    return tuple(found)


def _above(machine: Machine, device: str) -> list[tuple[str, list[str]]]:
    """Return (vertex, devices below it) for everything a device hangs on, the closest first, without the machine."""
    graph = device_graph(machine)
    order = [found.id for found in devices_of(machine)]
    found: list[tuple[str, list[str]]] = []
    at = parent(graph, device)
    while at and at != ROOT:
        inside = below(graph, at)
        found.append((at, [other for other in order if other in inside]))
        at = parent(graph, at)
    return found


def _link_of(machine: Machine, a: str, b: str) -> Link | None:
    return next((link for link in machine.links if {link.a, link.b} == {a, b}), None)


def _inside(named: NamedMachine, x: str, y: str) -> PathAnswer:
    machine = named.machine
    path, link = path_class(machine, x, y), _link_of(machine, x, y)
    theory = (link.bytes_per_s if link is not None else 0) or theoretical_pace(path)
    pace = effective(link) if link is not None else theory
    bottleneck, via = f"{x}-{y} ({path or 'unknown'})", tuple[str, ...]()
    for end in (x, y):  # a NIC gives no more than its port
        nic = next((nic for nic in machine.nics if nic.id == end), None)
        if nic is not None and 0 < nic.bytes_per_s < pace:
            pace = theory = nic.bytes_per_s
            bottleneck = f"port of {end}"
    if path in ("PIX", "PXB", "PHB"):
        above = [vertex for vertex, inside in _above(machine, x) if y in inside]
        via = tuple(above[:1])
    elif path == "NODE":
        via = tuple(vertex for vertex, inside in _above(machine, x) if y in inside)[:1]
    return PathAnswer(a=x, b=y, path=path, bytes_per_s=pace, theory_bytes_per_s=theory, bottleneck=bottleneck, via=via)


def _nvlink(machine: Machine, gpu: str) -> tuple[str, int]:
    """Return (class, bytes/s) of a GPU's best NVLink path, ("", 0) where it has none; falsy only as a whole."""
    found = [(link.path, effective(link)) for link in machine.links if gpu in (link.a, link.b) and nvlinks(link.path)]
    return max(found, key=lambda path: path[1], default=("", 0)) if gpu else ("", 0)


def _exit(named: NamedMachine, device: str) -> list[tuple[int, str]]:
    """Return (bytes/s, what) of the way from a device to the fabric: to its NIC, and through the NIC's port."""
    machine = named.machine
    nic = next((nic for nic in machine.nics if nic.id == device), None)
    if nic is not None or not device:
        rate = nic.bytes_per_s if nic is not None else sum(n.bytes_per_s for n in machine.nics)
        return [(rate, f"{named.name} to {named.name}/{nic.id if nic else 'its NICs'}")] if rate else []
    choices = nics_of(machine, device)
    if not choices:
        return []
    return [(choices[0].bytes_per_s, f"{named.name}/{device} to {named.name}/{choices[0].nic}")]


def _spread(machine: Machine, ids: set[str]) -> tuple[int, int]:
    """Return (islands of the fastest links that a set touches, NUMA nodes)."""
    numa = {gpu.numa for gpu in machine.gpus if gpu.id in ids}
    fastest: dict[str, str] = {}
    for island in islands(machine):
        for member in island.members:
            fastest.setdefault(member, island.name)
    return len({fastest.get(device, device) for device in ids}), len(numa)
