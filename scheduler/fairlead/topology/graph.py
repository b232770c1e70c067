"""A machine and a fleet as networkx graphs: what hangs on what, what is joined to what, and how well.

Tree edges lead from ``machine`` over packages, NUMA nodes, PCIe roots and switches down to devices; link edges join
two devices by their best path; wire edges are NVLinks and C2C with NVSwitches as vertices of their own. Every node has
``kind``. Every edge has ``kind`` and ``bytes_per_s`` (one direction, 0 unknown); see `device_graph` for the rest. A
pair of devices may have several kinds of edges, so the graph is a multigraph whose keys are the kinds.
"""

from __future__ import annotations

from itertools import pairwise

import networkx as nx

from fairlead.model.fabric import Inventory
from fairlead.model.hardware import NO_PCIE_LINK, Drive, Gpu, Link, Machine, Nic, NumaNode, NvSwitch, PcieLink
from fairlead.topology.contradictions import check
from fairlead.topology.paths import latency_class, path_class

__all__ = [
    "below",
    "check",
    "device_graph",
    "devices_of",
    "inventory_graph",
    "packages",
    "parent",
    "path_class",
    "uplink_load",
]

ROOT = "machine"
Device = Gpu | Nic | NvSwitch | Drive


def device_graph(machine: Machine) -> nx.MultiGraph[str]:
    """Return the graph of a machine; devices keep their ids, other nodes are ``package:0``, ``numa:1``, ``root:…`` …

    A device hangs on the closest thing that is known of it; where nothing is, on the machine itself. Links whose ends
    are no devices are left out; `check` names them.

    Tree edges have ``above`` (their upper end), ``generation``, ``lanes``, ``shared``, ``p2p`` and ``oversubscription``
    (what hangs below could move at once, in millionths of the edge's own rate; 0 unknown). Link and wire edges have
    ``path``, ``latency`` (see `latency_class`), ``p2p``, and ``measured_bytes_per_s`` where somebody measured.
    """
    graph: nx.MultiGraph[str] = nx.MultiGraph()
    graph.add_node(ROOT, kind="machine")
    functions = {function.id: function.link for function in machine.pcie}
    parent_of_numa = _packages_of(machine)
    for package in sorted(set(parent_of_numa.values())):
        _hang(graph, ROOT, package, NO_PCIE_LINK)
    for node in machine.numa_nodes:
        _hang(graph, parent_of_numa.get(node.id, ROOT), f"numa:{node.id}", NO_PCIE_LINK)
    for device in devices_of(machine):
        chain = _chain(device, parent_of_numa)
        for above, below in pairwise(chain):
            last = below.rpartition("/")[2].removeprefix("switch:")
            _hang(graph, above, below, functions.get(last, NO_PCIE_LINK))
        _hang(graph, chain[-1], device.id, device.pcie)
        graph.nodes[device.id]["kind"] = type(device).__name__.lower()
    for link in machine.links:
        if link.a in graph and link.b in graph:
            graph.add_edge(link.a, link.b, key="link", kind="link", **_link(link))
    for wire in machine.wires:
        for end in (wire.a, wire.b):
            if end not in graph:
                _hang(graph, ROOT, end, NO_PCIE_LINK)
        path = f"NV{wire.count}" if wire.kind == "nvlink" else wire.kind.upper()
        key = f"wire:{wire.a}:{wire.b}"
        latency = latency_class(path)
        graph.add_edge(wire.a, wire.b, key=key, kind="wire", path=path, bytes_per_s=wire.bytes_per_s, latency=latency)
    _subscribe(graph)
    return graph


def devices_of(machine: Machine) -> list[Device]:
    """Return GPUs, NICs, NVSwitches and drives, in this order."""
    return [*machine.gpus, *machine.nics, *machine.nvswitches, *machine.drives]


def _chain(device: Device, parent_of_numa: dict[int, str]) -> list[str]:
    chain = [ROOT]
    package = getattr(device, "package", -1)
    if device.numa in parent_of_numa:
        chain.append(parent_of_numa[device.numa])
    elif device.numa < 0 and package >= 0:
        chain.append(f"package:{package}")
    if device.numa >= 0:
        chain.append(f"numa:{device.numa}")
    if device.pcie_root:
        chain.append(f"root:{device.pcie_root}")
    switch = getattr(device, "pcie_switch", "")
    parts = switch.split("/") if switch else []
    return chain + ["switch:" + "/".join(parts[: i + 1]) for i in range(len(parts))]


def _packages_of(machine: Machine) -> dict[int, str]:
    """Return NUMA node -> package: as the source says, else as distances imply."""
    said = {node.id: f"package:{node.package}" for node in machine.numa_nodes if node.package >= 0}
    said |= {numa: f"package:{package.id}" for package in machine.packages for numa in package.numa_nodes}
    if said:
        return said
    return {numa: f"package:{i}" for i, group in enumerate(packages(machine.numa_nodes)) for numa in group}


def _hang(graph: nx.MultiGraph[str], above: str, below: str, link: PcieLink) -> None:
    if below in graph:
        return
    graph.add_node(below, kind=below.partition(":")[0])
    graph.add_edge(
        above,
        below,
        key="tree",
        kind="tree",
        above=above,
        bytes_per_s=link.bytes_per_s,
        generation=link.generation,
        lanes=link.lanes,
        shared=link.shared,
        p2p=link.p2p,
        oversubscription=0,
    )


def _link(link: Link) -> dict[str, object]:
    found: dict[str, object] = {
        "path": link.path,
        "bytes_per_s": link.bytes_per_s,
        "latency": latency_class(link.path),
        "p2p": link.p2p,
    }
    if link.measured is not None:
        found["measured_bytes_per_s"] = link.measured.bytes_per_s
    return found


def _subscribe(graph: nx.MultiGraph[str]) -> None:
    """Fill in how many times over the devices below a switch could fill its uplink."""
    for vertex in [str(at) for at in graph.nodes if graph.nodes[at]["kind"] == "switch"]:
        above, load = uplink_load(graph, vertex)
        rate = int(graph.edges[above, vertex, "tree"]["bytes_per_s"]) if above else 0
        if rate and load:
            graph.edges[above, vertex, "tree"]["oversubscription"] = load * 1_000_000 // rate
            graph.edges[above, vertex, "tree"]["shared"] = True


def parent(graph: nx.MultiGraph[str], vertex: str) -> str:
    """Return what a vertex hangs on, "" for the machine itself and for what is not there."""
    if vertex not in graph:
        return ""
    return next((at for at, edges in graph.adj[vertex].items() if edges.get("tree", {}).get("above") == at), "")


def below(graph: nx.MultiGraph[str], vertex: str) -> set[str]:
    """Return everything that hangs on a vertex, directly or not."""
    found: set[str] = set()
    todo = [vertex]
    while todo:
        at = todo.pop()
        for neighbour, edges in graph.adj[at].items():
            if edges.get("tree", {}).get("above") == at:
                found.add(neighbour)
                todo.append(neighbour)
    return found


def uplink_load(graph: nx.MultiGraph[str], vertex: str) -> tuple[str, int]:
    """Return (vertex above a switch, bytes/s that what hangs right below could send up together; 0 below two)."""
    above, rates = "", list[int]()
    for neighbour, edges in graph.adj[vertex].items():
        if "tree" in edges:
            if edges["tree"]["above"] != vertex:
                above = neighbour
            elif graph.nodes[neighbour]["kind"] != "nvswitch":
                rates.append(int(edges["tree"]["bytes_per_s"]))
    moving = [rate for rate in rates if rate]
    return above, sum(moving) if len(moving) > 1 else 0


def packages(nodes: tuple[NumaNode, ...]) -> tuple[tuple[int, ...], ...]:
    """Group NUMA nodes into packages by SLIT distance, in order of their ids; empty where distances do not tell.

    With two or more different distances between nodes, those at the smallest one share a package; with a single one
    every node is its own.
    """
    size = len(nodes)
    if size == 0 or any(len(node.distances) != size for node in nodes):
        return ()
    apart = sorted({node.distances[b] for a, node in enumerate(nodes) for b in range(size) if a != b})
    graph: nx.Graph[int] = nx.Graph()
    graph.add_nodes_from(range(size))
    if len(apart) > 1:
        near = [(a, b) for a in range(size) for b in range(a) if nodes[a].distances[b] == apart[0]]
        graph.add_edges_from(near)
    groups = [tuple(sorted(nodes[i].id for i in group)) for group in nx.connected_components(graph)]
    return tuple(sorted(groups))


def inventory_graph(inventory: Inventory) -> nx.MultiGraph[str]:
    """Return machines, fabric and groups as one graph.

    Vertices of a machine are ``node/id``, the machine itself is ``node:name``; switches and groups have their keys
    (``switch:leaf-1``, ``rack:r1``). Network edges lead from the NICs of a link's rail (all of them where it has none,
    the machine where it has no NIC) to the switch; member edges from a machine to its groups. Network edges have
    ``bytes_per_s``, ``latency_ns``, ``rdma``, ``congestion`` and ``lossless``.
    """
    graph: nx.MultiGraph[str] = nx.MultiGraph()
    ports: dict[str, list[Nic]] = {}
    for found in inventory.machines:
        machine = device_graph(found.machine)
        names = {vertex: f"{found.name}/{vertex}" for vertex in machine.nodes}
        names[ROOT] = f"node:{found.name}"
        for at in machine.nodes:
            graph.add_node(names[at], kind="node" if at == ROOT else machine.nodes[at]["kind"])
        for a, b, key, facts in machine.edges(keys=True, data=True):
            moved = {"above": names[facts["above"]]} if key == "tree" else {}
            graph.add_edge(names[a], names[b], key=key, **(facts | moved))
        ports[f"node:{found.name}"] = list(found.machine.nics)
    for group in inventory.fabric.vertices:
        graph.add_node(group.key, kind=group.kind, tier=group.tier)
    for link in inventory.fabric.links:
        if link.kind != "network":
            graph.add_edge(link.a, link.b, key="member", kind="member", bytes_per_s=0)
            continue
        nics = [nic for nic in ports.get(link.a, []) if link.rail < 0 or nic.rail == link.rail]
        name = link.a.partition(":")[2]
        ends = [(f"{name}/{nic.id}", nic.bytes_per_s) for nic in nics] or [(link.a, 0)]
        for end, rate in ends:
            graph.add_edge(
                end,
                link.b,
                key="network",
                kind="network",
                bytes_per_s=link.bytes_per_s or rate,
                latency_ns=link.latency_ns,
                rdma=link.rdma,
                congestion=link.congestion,
                lossless=link.lossless,
            )
    return graph
