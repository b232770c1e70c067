"""A machine as a networkx graph, and what contradicts itself in it.

Tree edges lead from ``machine`` over packages, NUMA nodes, PCIe roots and switches down to devices; link edges join two
devices. Every node has ``kind``; every edge has ``kind`` (``tree`` or ``link``), link edges also ``path`` (nvidia-smi's
words) and ``bytes_per_s`` (0 unknown). A pair of devices may have both kinds, so the graph is a multigraph whose keys
are the kinds.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import networkx as nx

from fairlead.model.hardware import Gpu, Link, Machine, Nic, NumaNode
from fairlead.topology.paths import class_rank, nvlinks, path_class, tree_class

__all__ = ["check", "device_graph", "packages", "path_class"]

ROOT = "machine"


def device_graph(machine: Machine) -> nx.MultiGraph[str]:
    """Return the graph of a machine; devices keep their ids, other nodes are ``package:0``, ``numa:1``, ``root:…`` …

    A device hangs on the closest thing that is known of it; where nothing is, on the machine itself. Links whose ends
    are no devices are left out; `check` names them.
    """
    graph: nx.MultiGraph[str] = nx.MultiGraph()
    graph.add_node(ROOT, kind="machine")
    parent_of_numa = {numa: f"package:{i}" for i, group in enumerate(packages(machine.numa_nodes)) for numa in group}
    for package in sorted(set(parent_of_numa.values())):
        _hang(graph, ROOT, package, "package")
    for device in _devices(machine):
        chain = [ROOT]
        if device.numa in parent_of_numa:
            chain.append(parent_of_numa[device.numa])
        if device.numa >= 0:
            chain.append(f"numa:{device.numa}")
        if device.pcie_root:
            chain.append(f"root:{device.pcie_root}")
        parts = device.pcie_switch.split("/") if device.pcie_switch else []
        chain += ["switch:" + "/".join(parts[: i + 1]) for i in range(len(parts))]
        for above, below in pairwise(chain):
            _hang(graph, above, below, below.partition(":")[0])
        _hang(graph, chain[-1], device.id, "gpu" if isinstance(device, Gpu) else "nic")
    for node in machine.numa_nodes:
        _hang(graph, parent_of_numa.get(node.id, ROOT), f"numa:{node.id}", "numa")
    devices = {device.id for device in _devices(machine)}
    for link in machine.links:
        if link.a in devices and link.b in devices:
            graph.add_edge(link.a, link.b, key="link", kind="link", path=link.path, bytes_per_s=link.bytes_per_s)
    return graph


def _devices(machine: Machine) -> list[Gpu | Nic]:
    return [*machine.gpus, *machine.nics]


def _hang(graph: nx.MultiGraph[str], above: str, below: str, kind: str) -> None:
    if below not in graph:
        graph.add_node(below, kind=kind)
        graph.add_edge(above, below, key="tree", kind="tree")


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


def check(machine: Machine) -> list[str]:
    """Return every way in which the facts of a machine disagree, as sentences; empty when they fit together."""
    found = _twice(machine)
    devices = {device.id: device for device in _devices(machine)}
    numa_ids = {node.id for node in machine.numa_nodes}
    for device in _devices(machine):
        if numa_ids and device.numa >= 0 and device.numa not in numa_ids:
            found.append(f"{device.id} is on NUMA node {device.numa}, which is not among the machine's")
    for node in machine.numa_nodes:
        if node.distances and len(node.distances) != len(machine.numa_nodes):
            found.append(f"NUMA node {node.id} has {len(node.distances)} distances for {len(machine.numa_nodes)} nodes")
    paths: dict[tuple[str, str], str] = {}
    for link in machine.links:
        a, b = sorted((link.a, link.b))
        known = paths.setdefault((a, b), link.path)
        if known != link.path:
            found.append(f"{a} and {b} are linked twice, as {known} and as {link.path}")
        missing = [end for end in (a, b) if end not in devices]
        if missing:
            found.append(f"a link names {missing[0]!r}, which is no device of the machine")
        elif a == b:
            found.append(f"{a} is linked to itself")
        else:
            found += _contradiction(devices[a], devices[b], link)
    return found


def _twice(machine: Machine) -> list[str]:
    found: list[str] = []
    columns = {
        "id": [d.id for d in _devices(machine)],
        "device name": [g.device for g in machine.gpus],
        "UUID": [g.uuid for g in machine.gpus if g.uuid],
        "PCI address": [d.pci for d in _devices(machine) if d.pci],
        "GPU index": [str(g.index) for g in machine.gpus],
        "NUMA node": [str(n.id) for n in machine.numa_nodes],
    }
    for what, values in columns.items():
        found += [f"{what} {value!r} is there {times} times" for value, times in Counter(values).items() if times > 1]
    return found


def _contradiction(a: Gpu | Nic, b: Gpu | Nic, link: Link) -> list[str]:
    """Compare a link with the PCIe tree; only what it surely says counts (SYS may hide C2C or a quirk of NUMA)."""
    if link.bytes_per_s < 0:
        return [f"the link {link.a}-{link.b} has {link.bytes_per_s} bytes/s"]
    if nvlinks(link.path):
        return []
    if class_rank(link.path) > 4:
        return [f"the link {link.a}-{link.b} has the unknown path class {link.path!r}"]
    says = tree_class(a, b)
    same_switch, same_root = says in ("PIX", "PXB"), bool(a.pcie_root) and a.pcie_root == b.pcie_root
    wrong = (
        (same_switch and link.path not in ("PIX", "PXB"))
        or (same_root and link.path in ("NODE", "SYS"))
        or (says == "SYS" and link.path == "NODE")
        or (bool(a.pcie_root and b.pcie_root) and not same_root and link.path in ("PIX", "PXB", "PHB"))
    )
    return [f"the link {link.a}-{link.b} says {link.path}, the PCIe tree says {says or 'otherwise'}"] if wrong else []
