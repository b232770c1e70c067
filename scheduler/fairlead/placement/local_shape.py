"""What is near to what inside a machine, as numbers: CPUs and memory of NUMA nodes, NICs, PCIe uplinks, ways out.

Machines with equal `LocalShape` share one table. GPUs and NICs are positions in `machine.gpus` and `machine.nics`, NUMA
nodes positions in `machine.numa_nodes`; rates are bytes/s in one direction, 0 unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from fairlead.discovery.cpu_list import parse_list
from fairlead.model.hardware import Link, Machine, NumaNode
from fairlead.topology.paths import effective, nvlinks, theoretical_pace, tree_class
from fairlead.topology.tables import Shape
from fairlead.world.span import linked_gpus

FAR = 1 << 20
"""The distance of NUMA nodes of which nobody says how far apart they are: beyond every SLIT distance."""

_RAILS_UP_TO = 1 << 10  # a rail is a bit of an integer; a number beyond is a misreading


@dataclass(frozen=True, slots=True)
class Uplink:
    """The link above one PCIe switch: the GPUs below it, what each can send, and what the link carries.

    `rates` has a rate for every GPU of `gpus`, in order of position; `name` is the switch.
    """

    name: str
    gpus: int
    rates: tuple[int, ...]
    bytes_per_s: int


@dataclass(frozen=True, slots=True)
class LocalShape:
    """All that locality inside a machine is decided from; hashable.

    `numa` is the NUMA node of each GPU (-1 unknown), `cpus` the CPU mask of each NUMA node, `threads` how far apart the
    two hardware threads of a core are numbered (0 unknown), `distance` SLIT or `FAR`. `nics_up` are the NICs that can
    be used, `rail` their rails, `out` per GPU the rate to each NIC and through its port, `nvlink` the best NVLink of
    each GPU, `linked` the id of a GPU that stands for all those NVLinks join it to.
    """

    paths: Shape
    numa: tuple[int, ...]
    cpus: tuple[int, ...]
    threads: int
    distance: tuple[tuple[int, ...], ...]
    nics_up: int
    rail: tuple[int, ...]
    out: tuple[tuple[int, ...], ...]
    nvlink: tuple[int, ...]
    uplinks: tuple[Uplink, ...]
    linked: tuple[str, ...] = ()


def local_shape(machine: Machine, paths: Shape) -> LocalShape:
    """Return the numbers of a machine whose paths are `paths`; O(links)."""
    pairs: dict[tuple[str, str], Link] = {}
    for link in machine.links:
        pairs[link.a, link.b] = pairs[link.b, link.a] = link
    place = {node.id: at for at, node in enumerate(machine.numa_nodes)}
    only = 0 if len(place) == 1 else -1
    cpus, threads, distance = _numa(machine.numa_nodes)
    return LocalShape(
        paths=paths,
        numa=tuple(place.get(gpu.numa, only) for gpu in machine.gpus),
        cpus=cpus,
        threads=threads,
        distance=distance,
        nics_up=sum(1 << at for at, nic in enumerate(machine.nics) if nic.state != "down"),
        rail=_rails(machine),
        out=_ways_out(machine, pairs),
        nvlink=_nvlinks(machine, pairs),
        uplinks=_uplinks(machine),
        linked=linked_gpus(machine),
    )


@lru_cache(maxsize=1024)
def _numa(nodes: tuple[NumaNode, ...]) -> tuple[tuple[int, ...], int, tuple[tuple[int, ...], ...]]:
    """Return CPU masks, how far apart threads are numbered, and distances; remembered, as many machines have them."""
    lists: list[frozenset[int]] = []
    for node in nodes:  # a CPU that two nodes claim is the first one's, so that nobody gets it twice
        lists.append((parse_list(node.cpus) or frozenset()).difference(*lists))
    return (
        tuple(sum(1 << cpu for cpu in cpus) for cpus in lists),
        _threads([sorted(cpus) for cpus in lists if cpus]),
        _distances(nodes),
    )


def _threads(lists: list[list[int]]) -> int:
    """Return how far apart the threads of a core are numbered, 0 where the lists do not tell.

    Linux numbers the first threads of all cores before the second ones, so a NUMA node's list has two equal halves
    (``0-15,128-143``) that are as far apart on every node. One even run of numbers tells nothing.
    """
    apart: set[int] = set()
    for cpus in lists:
        half = len(cpus) // 2
        if len(cpus) < 2 or len(cpus) % 2:
            return 0
        step = cpus[half] - cpus[0]
        even = len({b - a for a, b in pairwise(cpus)}) == 1
        if even or cpus[half - 1] >= step or any(cpus[at + half] - cpus[at] != step for at in range(half)):
            return 0
        apart.add(step)
    return apart.pop() if len(apart) == 1 else 0


def _distances(nodes: tuple[NumaNode, ...]) -> tuple[tuple[int, ...], ...]:
    size = len(nodes)
    return tuple(
        tuple(node.distances[at] or FAR for at in range(size)) if len(node.distances) == size else (FAR,) * size
        for node in nodes
    )


def _rails(machine: Machine) -> tuple[int, ...]:
    """Return the rails of the NICs; where one of them has none, their positions."""
    rails = tuple(nic.rail for nic in machine.nics)
    return rails if all(0 <= rail < _RAILS_UP_TO for rail in rails) else tuple(range(len(rails)))


def _ways_out(machine: Machine, pairs: dict[tuple[str, str], Link]) -> tuple[tuple[int, ...], ...]:
    rows: list[tuple[int, ...]] = []
    for gpu in machine.gpus:
        row: list[int] = []
        for nic in machine.nics:
            link = pairs.get((gpu.id, nic.id))
            path = effective(link) if link is not None else theoretical_pace(tree_class(gpu, nic))
            row.append(min(path, nic.bytes_per_s) or path or nic.bytes_per_s)
        rows.append(tuple(row))
    return tuple(rows)


def slowest_known(*rates: int) -> int:
    """Return the lowest of rates that are known, 0 for none."""
    return min((rate for rate in rates if rate > 0), default=0)


def _nvlinks(machine: Machine, pairs: dict[tuple[str, str], Link]) -> tuple[int, ...]:
    best = dict.fromkeys((gpu.id for gpu in machine.gpus), 0)
    for (a, _), link in pairs.items():
        if a in best and link.path[:2] == "NV" and nvlinks(link.path):
            best[a] = max(best[a], effective(link))
    return tuple(best.values())


def _uplinks(machine: Machine) -> tuple[Uplink, ...]:
    """Return the uplinks that two GPUs or more share; of switches above the same GPUs the slowest."""
    rates = {function.id: function.link.bytes_per_s for function in machine.pcie}
    below: dict[str, int] = {}
    for at, gpu in enumerate(machine.gpus):
        parts = gpu.pcie_switch.split("/") if gpu.pcie_switch else []
        for depth in range(len(parts)):
            name = "/".join(parts[: depth + 1])
            below[name] = below.get(name, 0) | 1 << at
    found: dict[int, Uplink] = {}
    for name, mask in below.items():
        if mask.bit_count() < 2:
            continue
        own = [gpu.pcie.bytes_per_s for at, gpu in enumerate(machine.gpus) if mask >> at & 1]
        # Where nobody knows a rate, the uplink carries what one GPU can send, and a GPU can fill the uplink.
        rate = rates.get(name.rpartition("/")[2], 0) or max(own) or 1
        uplink = Uplink(name=name, gpus=mask, rates=tuple(each or rate for each in own), bytes_per_s=rate)
        known = found.get(mask)
        if known is None or sum(uplink.rates) * known.bytes_per_s > sum(known.rates) * uplink.bytes_per_s:
            found[mask] = uplink
    return tuple(found.values())
