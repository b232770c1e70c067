"""What contradicts itself in the facts of one machine."""

from __future__ import annotations

from collections import Counter

from fairlead.model.hardware import Drive, Gpu, Link, Machine, Nic
from fairlead.topology.paths import class_rank, nvlinks, tree_class

_Device = Gpu | Nic | Drive


def check(machine: Machine) -> list[str]:
    """Return every way in which the facts of a machine disagree, as sentences; empty when they fit together."""
    found = _twice(machine)
    devices: dict[str, _Device] = {device.id: device for device in _devices(machine)}
    numa_ids = {node.id for node in (*machine.numa_nodes, *machine.memory_nodes)}
    sizes = {len(machine.numa_nodes), len(numa_ids)}  # distances may count the nodes that are GPU memory
    for device in _devices(machine):
        if numa_ids and device.numa >= 0 and device.numa not in numa_ids:
            found.append(f"{device.id} is on NUMA node {device.numa}, which is not among the machine's")
    for node in machine.numa_nodes:
        if node.distances and len(node.distances) not in sizes:
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


def _devices(machine: Machine) -> list[_Device]:
    return [*machine.gpus, *machine.nics, *machine.drives]


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


def _contradiction(a: _Device, b: _Device, link: Link) -> list[str]:
    """Compare a link with the PCIe tree; only what it surely says counts (SYS may hide C2C or a quirk of NUMA)."""
    if link.bytes_per_s < 0:
        return [f"the link {link.a}-{link.b} has {link.bytes_per_s} bytes/s"]
    if nvlinks(link.path):
        return []
    if isinstance(a, Drive) or isinstance(b, Drive):
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
