"""What ``lstopo --of console`` says of a machine, as far as a `Machine` has it too."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

GIB = 1 << 30


@dataclass
class Console:
    """Packages -> (model, CPUs), NUMA nodes -> (package, GiB), GPU memory nodes -> PCI address, functions -> class."""

    packages: dict[int, tuple[str, set[int]]] = field(default_factory=dict)
    nodes: dict[int, tuple[int, int]] = field(default_factory=dict)
    node_cpus: dict[int, set[int]] = field(default_factory=dict)
    gpu_memory: dict[int, str] = field(default_factory=dict)
    roots: dict[str, list[str]] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    package_of: dict[str, int] = field(default_factory=dict)
    distances: dict[int, list[int]] = field(default_factory=dict)


def read_console(text: str) -> Console:
    found = Console()
    package, root, logical, open_nodes = -1, "", [], []
    table: list[list[int]] = []
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        open_nodes = [(at, node) for at, node in open_nodes if at <= indent]
        if match := re.match(r"\s*Package L#\d+ \(P#(\d+).*?CPUModel=\"([^\"]*)\"", line):
            package = int(match[1])
            found.packages[package] = (match[2].strip(), set())
            open_nodes = []
        elif match := re.match(r"\s*Package L#\d+ \(P#(\d+)", line):
            package = int(match[1])
            found.packages[package] = ("", set())
            open_nodes = []
        elif match := re.match(r"\s*NUMANode(\(GPUMemory\))? L#\d+ \(P#(\d+) local=(\d+)(GiB|MiB)", line):
            node = int(match[2])
            logical.append(node)
            if match[1]:
                found.gpu_memory[node] = re.search(r"PCIBusID=([0-9a-f:.]+)", line)[1]
            else:
                found.nodes[node] = (package, int(match[3]) // (1024 if match[4] == "MiB" else 1))
                found.node_cpus[node] = set()
                open_nodes.append((indent, node))
        elif match := re.match(r"\s*PU L#\d+ \(P#(\d+)\)", line):
            found.packages[package][1].add(int(match[1]))
            if open_nodes:
                found.node_cpus[open_nodes[-1][1]].add(int(match[1]))
        elif match := re.match(r"\s*HostBridge L#\d+ \(buses=([0-9a-f]+):\[([0-9a-f]+)-([0-9a-f]+)\]\)", line):
            root = f"pci{match[1]}:{match[2]}"
            found.roots[root] = []
        elif match := re.match(r"\s*PCI L#\d+ \(busid=([0-9a-f:.]+) id=\S+ class=([0-9a-f]+)", line):
            found.roots[root].append(match[1])
            found.classes[match[1]] = int(match[2], 16)
            found.package_of[match[1]] = package
        elif re.fullmatch(r"\s+index(\s+\d+)+", line) or re.fullmatch(r"\s+\d+(\s+\d+)+", line):
            table.append([int(word) for word in line.split() if word.isdecimal()])
    if table:
        columns = [logical[at] for at in table[0]]
        for row in table[1:]:
            by_node = dict(zip(columns, row[1:], strict=True))
            found.distances[logical[row[0]]] = [by_node[node] for node in sorted(by_node)]
    return found
