"""CPU packages and NUMA nodes from ``/sys/devices/system`` and ``/proc``.

Only CPUs that are online count. A NUMA node that the NVIDIA driver says is a GPU's memory (Grace, POWER9) hosts no pods
and is told apart from the others; a node with neither CPUs nor memory is left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from fairlead.discovery.cpu_list import as_list, parse_list, parse_mask
from fairlead.discovery.pci import normal_pci
from fairlead.discovery.snapshot import Snapshot
from fairlead.model.hardware import NumaNode, Package

_NODES = "sys/devices/system/node"
_CPUS = "sys/devices/system/cpu"
_NUMBERED = re.compile(r"(?:cpu|node)([0-9]{1,5})")
_MEMORY = re.compile(r"(?:Node [0-9]+ )?MemTotal:\s*([0-9]{1,15})\s*kB")


@dataclass(slots=True)
class Host:
    """What hosts the devices. `cpus` are online; rows of distances are those of `nodes` in order of id."""

    packages: tuple[Package, ...] = ()
    nodes: tuple[NumaNode, ...] = ()
    memory_nodes: tuple[NumaNode, ...] = ()
    cpus: frozenset[int] = frozenset()
    warnings: list[str] = field(default_factory=list[str])

    def numa_of(self, cpus: frozenset[int]) -> int:
        """Return the NUMA node that has all of these CPUs, -1 where none or several do."""
        if not cpus:
            return -1
        having = [node.id for node in self.nodes if cpus <= (parse_list(node.cpus) or frozenset())]
        return having[0] if len(having) == 1 else -1

    def package_of(self, numa: int) -> int:
        """Return the package of a NUMA node, -1 where unknown."""
        return next((node.package for node in self.nodes if node.id == numa), -1)


def read_host(files: Snapshot) -> Host:
    """Return packages and NUMA nodes; what is missing or unreadable is in `warnings`. Never fails."""
    host = Host()
    package_of = _cpus(files, host)
    nodes = _nodes(files, host)
    gpu_memory = _gpu_memory(files)
    kept = [node for node in nodes if node.id not in gpu_memory]
    for node in list(kept):
        if not node.cpus and not node.memory_bytes and len(kept) > 1:
            kept.remove(node)
            host.warnings.append(f"{_NODES}/node{node.id}: it has neither CPUs nor memory; it is left out")
    columns = [at for at, node in enumerate(nodes) if node in kept]
    placed: list[NumaNode] = []
    for node in nodes:
        near = {package_of[cpu] for cpu in parse_list(node.cpus) or () if cpu in package_of}
        row = tuple(node.distances[at] for at in columns) if len(node.distances) == len(nodes) else ()
        placed.append(replace(node, distances=row, package=near.pop() if len(near) == 1 else -1))
    host.nodes = tuple(node for node in placed if node.id in {one.id for one in kept})
    host.memory_nodes = tuple(replace(n, gpu=gpu_memory[n.id]) for n in placed if n.id in gpu_memory)
    if not host.nodes:
        host.warnings.append(f"{_NODES}: no NUMA nodes; the machine counts as one")
        host.nodes = (NumaNode(id=0, cpus=as_list(host.cpus), memory_bytes=_memory(files.text("proc/meminfo"))),)
    host.packages = _packages(files, package_of, host.nodes)
    return host


def _numbers(files: Snapshot, folder: str, prefix: str) -> list[int]:
    matches = [_NUMBERED.fullmatch(name) for name in files.names(folder) if name.startswith(prefix)]
    return sorted({int(match[1]) for match in matches if match})


def _cpus(files: Snapshot, host: Host) -> dict[int, int]:
    """Return package by online CPU (those whose package is unknown left out) and set `host.cpus`.

    Kernels without a topology of CPUs in sysfs have it in ``/proc/cpuinfo``, which lists only those online.
    """
    there = _numbers(files, _CPUS, "cpu")
    told = {cpu for cpu in there if files.exists(f"{_CPUS}/cpu{cpu}/topology")}
    if told:
        online = {cpu for cpu in told if files.text(f"{_CPUS}/cpu{cpu}/online") != "0"}
        said = {cpu: files.text(f"{_CPUS}/cpu{cpu}/topology/physical_package_id") for cpu in online}
        if set(there) - online:
            host.warnings.append(f"{_CPUS}: CPUs {as_list(set(there) - online)} are offline; they do not count")
    else:
        listed = _cpuinfo(files, "physical id")
        online = set(listed) or {cpu for cpu in there if files.text(f"{_CPUS}/cpu{cpu}/online") != "0"}
        online = online or set(parse_list(files.text(f"{_CPUS}/online")) or ())
        said = listed
        host.warnings.append(f"{_CPUS}: no CPU has a topology; what /proc/cpuinfo says of them is taken")
    package_of = {cpu: int(text) for cpu, text in said.items() if text.isdecimal() and len(text) < 8}
    if online and not package_of:
        host.warnings.append(f"{_CPUS}: no CPU says its package; packages are unknown")
    host.cpus = frozenset(online)
    return package_of


def _cpuinfo(files: Snapshot, *keys: str) -> dict[int, str]:
    """Return by CPU the first value of the keys, "" for a CPU that has none of them."""
    found: dict[int, str] = {}
    cpu = -1
    for line in files.text("proc/cpuinfo").splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "processor" and value.isdecimal() and len(value) < 6:
            cpu = int(value)
            found[cpu] = ""
        elif key in keys and cpu >= 0 and not found[cpu]:
            found[cpu] = value
    return found


def _nodes(files: Snapshot, host: Host) -> list[NumaNode]:
    found: list[NumaNode] = []
    ids = _numbers(files, _NODES, "node")
    for number in ids:
        folder = f"{_NODES}/node{number}"
        listed = parse_list(files.text(f"{folder}/cpulist")) if files.exists(f"{folder}/cpulist") else None
        cpus = listed if listed is not None else parse_mask(files.text(f"{folder}/cpumap"))
        if cpus is None:
            host.warnings.append(f"{folder}/cpumap: unreadable; its CPUs are taken from its cpu* entries")
            cpus = frozenset(_numbers(files, folder, "cpu"))
        gone = cpus - host.cpus if host.cpus else frozenset[int]()
        if gone and any(cpu not in host.cpus and not files.exists(f"{_CPUS}/cpu{cpu}") for cpu in gone):
            host.warnings.append(f"{folder}: CPUs {as_list(gone)} are not in {_CPUS} or offline; they do not count")
        words = files.text(f"{folder}/distance").split()
        distances = tuple(int(word) for word in words) if all(w.isdecimal() and len(w) < 5 for w in words) else ()
        if len(distances) != len(ids):
            host.warnings.append(f"{folder}/distance: {len(words)} distances for {len(ids)} nodes; they are unknown")
            distances = ()
        memory = _memory(files.text(f"{folder}/meminfo"))
        found.append(NumaNode(id=number, cpus=as_list(cpus - gone), memory_bytes=memory, distances=distances))
    return found


def _memory(text: str) -> int:
    """Return the total of a meminfo in bytes, 0 unknown."""
    match = _MEMORY.search(text)
    return int(match[1]) << 10 if match else 0


def _gpu_memory(files: Snapshot) -> dict[int, str]:
    """Return PCI address by NUMA node, for nodes that the driver made of a GPU's memory."""
    found: dict[int, str] = {}
    for name in files.names("proc/driver/nvidia/gpus"):
        match = re.search(r"^Node:\s*([0-9]{1,5})\s*$", files.text(f"proc/driver/nvidia/gpus/{name}/numa_status"), re.M)
        if match and normal_pci(name):
            found[int(match[1])] = normal_pci(name)
    return found


def _packages(files: Snapshot, package_of: dict[int, int], nodes: tuple[NumaNode, ...]) -> tuple[Package, ...]:
    models = _cpuinfo(files, "model name", "cpu", "cpu model", "CPU part")
    members: dict[int, list[int]] = {}
    for cpu, package in package_of.items():
        members.setdefault(package, []).append(cpu)
    return tuple(
        Package(
            id=package,
            cpus=as_list(cpus),
            numa_nodes=tuple(n.id for n in nodes if not (parse_list(n.cpus) or frozenset()).isdisjoint(cpus)),
            model=next((models[cpu] for cpu in sorted(cpus) if models.get(cpu)), ""),
        )
        for package, cpus in sorted(members.items())
    )
