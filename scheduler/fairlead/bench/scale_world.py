"""The world of `bench scale`: fixed, so that the easiest is not what gets measured.

Nodes of eight GPUs in five shapes, a rack of eight nodes of one shape after the other, sixteen racks to a block. Gangs:
60 % one GPU, 15 % 1 x 8, 10 % 2 x 8, 10 % 4 x 8 in one rack, 5 % 16 x 8 in one block if possible; 20 queues of equal
weight, 3 priorities. Three tenths of the GPUs are held at the start by gangs of the same kinds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from fairlead.model import events as ev
from fairlead.model.gang import Gang, GangId, Member, Placement, PodShape, Role, Tier, TopologyRequest
from fairlead.model.hardware import Link, Machine, Node, NodeName, Resources
from fairlead.model.tenancy import Pool, Queue
from fairlead.topology import fleet_machines
from fairlead.topology.paths import theoretical_pace

T0 = 1_800_000_000_000
GIB = 1 << 30
GPUS_PER_NODE = 8
NODES_PER_RACK = 8
RACKS_PER_BLOCK = 16
NODES_PER_CLIQUE = 32
QUEUES = tuple(f"q{i:02}" for i in range(20))
PRIORITIES = (0, 1, 2)
URGENT = 3
"""The priority of gangs whose first answer is timed: above the backlog, so that each is the first of its queue."""
BUSY_PERCENT = 30
SINGLES_PERCENT = 3  # of the nodes: where the gangs of one GPU are that run at the start

KINDS: tuple[tuple[int, int, int, str, bool], ...] = (
    (60, 1, 1, "", False),
    (15, 1, 8, "", False),
    (10, 2, 8, "", False),
    (10, 4, 8, "rack", True),
    (5, 16, 8, "block", False),
)
"""(percent, replicas, GPUs, level, required)."""


def bridged_pairs() -> Machine:
    """PCIe cards in pairs, with a bridge of four NVLinks over each pair."""
    return _relinked(
        fleet_machines.pcie_l40s(), "NVIDIA A100 80GB PCIe", lambda a, b: "NV4" if a // 2 == b // 2 else ""
    )


def cube_mesh() -> Machine:
    """The hybrid cube mesh of the DGX-1: one or two NVLinks to four neighbours, none to the other three."""
    double = {(0, 3), (0, 4), (1, 2), (1, 5), (2, 3), (4, 7), (5, 6), (6, 7)}
    single = {(0, 1), (0, 2), (1, 3), (2, 6), (3, 7), (4, 5), (4, 6), (5, 7)}
    names = {**dict.fromkeys(double, "NV2"), **dict.fromkeys(single, "NV1")}
    return _relinked(fleet_machines.dgx_a100(), "Tesla V100-SXM2-32GB", lambda a, b: names.get((a, b), "NODE"))


def _relinked(machine: Machine, model: str, path_of: Callable[[int, int], str]) -> Machine:
    at = {gpu.id: i for i, gpu in enumerate(machine.gpus)}
    links: list[Link] = []
    for link in machine.links:
        path = path_of(*sorted((at[link.a], at[link.b]))) if link.a in at and link.b in at else ""
        links.append(replace(link, path=path, bytes_per_s=theoretical_pace(path)) if path else link)
    gpus = tuple(replace(gpu, model=model) for gpu in machine.gpus)
    return replace(machine, source=model, gpus=gpus, links=tuple(links))


def nodes(count: int) -> Iterator[Node]:
    """Yield the fleet, in rack order. The first shape has an NVLink domain across the nodes of four racks."""
    shapes = (
        fleet_machines.hgx_h100(),
        fleet_machines.dgx_a100(),
        fleet_machines.pcie_l40s(),
        bridged_pairs(),
        cube_mesh(),
    )
    for at in range(count):
        rack = at // NODES_PER_RACK
        shape = rack % len(shapes)
        name = f"n{at:05}"
        machine = fleet_machines.identified(shapes[shape], name)
        if shape == 0:
            machine = replace(machine, clique=f"nvl{at // (NODES_PER_CLIQUE * len(shapes))}")
        yield Node(
            name=NodeName(name),
            machine=machine,
            pool="fleet",
            device_pool=name,
            labels=(("kubernetes.io/hostname", name),),
            allocatable=Resources(cpu_milli=190_000, memory_bytes=2000 * GIB, ephemeral_bytes=7000 * GIB, pods=110),
            levels=(("block", f"b{rack // RACKS_PER_BLOCK:03}"), ("rack", f"r{rack:05}")),
        )


def tenants() -> list[ev.Event]:
    """Return the facts of the pool and the queues."""
    facts: list[ev.Event] = [ev.PoolSeen(pool=Pool(name="fleet", node_selector=()), at_ms=T0)]
    facts += [ev.QueueSeen(queue=Queue(name=name, namespaces=(name,)), at_ms=T0) for name in QUEUES]
    return facts


class Submitters:
    """Draws gangs, always the same ones for a seed."""

    def __init__(self, seed: int) -> None:
        """Start a stream."""
        self._random = random.Random(f"{seed}/gangs")
        self._count = 0

    def gang(self, at_ms: int, *, priority: int | None = None) -> Gang:
        """Return the next gang, as submitted at `at_ms`."""
        self._count += 1
        ((_, replicas, gpus, level, required),) = self._random.choices(KINDS, [kind[0] for kind in KINDS])
        queue = self._random.choice(QUEUES)
        drawn = self._random.choice(PRIORITIES)
        name = f"g{self._count:06}"
        pod = PodShape(requests=Resources(cpu_milli=4_000 * gpus, memory_bytes=32 * GIB * gpus, pods=1))
        return Gang(
            id=GangId(name),
            namespace=queue,
            name=name,
            queue=queue,
            roles=(Role(name="worker", replicas=replicas, gpus=gpus, pod=pod),),
            priority=drawn if priority is None else priority,
            topology=TopologyRequest(within=level, required=required) if level else None,
            submitted_ms=at_ms,
        )


def already_running(fleet: Sequence[Node], submitters: Submitters, seed: int) -> Iterator[ev.Event]:
    """Yield the facts of gangs that hold three tenths of all GPUs when the clock starts."""
    places = _Places(fleet, random.Random(f"{seed}/places"))
    wanted = len(fleet) * GPUS_PER_NODE * BUSY_PERCENT // 100
    while wanted > 0:
        gang = submitters.gang(T0)
        role = gang.roles[0]
        found = places.single() if role.gpus == 1 else places.whole(role.replicas, gang.topology)
        if found is None:
            continue
        wanted -= gang.gpus
        members = tuple(
            Member(role=role.name, index=rank, rank=rank, node=fleet[row].name, devices=devices)
            for rank, (row, devices) in enumerate(found)
        )
        ranks = tuple(range(len(members)))
        yield ev.GangSeen(gang=gang, at_ms=T0)
        yield ev.Recovered(
            gang=gang.id, attempt=1, placement=Placement(members=members), tier=Tier.BORROWED, since_ms=T0, bound=True,
            holding=ranks, running=ranks, at_ms=T0,
        )  # fmt: skip


class _Places:
    """Where gangs run at the start: single GPUs on a few nodes, everything else on whole ones."""

    def __init__(self, fleet: Sequence[Node], stream: random.Random) -> None:
        self._devices = [tuple(gpu.device for gpu in node.machine.gpus) for node in fleet]
        rows = list(range(len(fleet)))
        stream.shuffle(rows)
        some = max(1, len(fleet) * SINGLES_PERCENT // 100)
        self._singles = [(row, (device,)) for row in rows[:some] for device in self._devices[row]]
        stream.shuffle(self._singles)
        self._free = [row for row in rows[some:]]
        racks: dict[int, list[int]] = {}
        for row in sorted(self._free):
            racks.setdefault(row // NODES_PER_RACK, []).append(row)
        self._racks = [rows for _, rows in sorted(racks.items(), key=lambda _: stream.random())]
        self._taken: set[int] = set()

    def single(self) -> list[tuple[int, tuple[str, ...]]] | None:
        return [self._singles.pop()] if self._singles else None

    def whole(self, count: int, topology: TopologyRequest | None) -> list[tuple[int, tuple[str, ...]]] | None:
        if topology is not None and topology.required:
            rows = self._in_rack(count)
        else:
            rows = []
            while self._free and len(rows) < count:
                row = self._free.pop()
                if row not in self._taken:
                    rows.append(row)
        if len(rows) < count:
            return None
        self._taken.update(rows)
        return [(row, self._devices[row]) for row in rows]

    def _in_rack(self, count: int) -> list[int]:
        while self._racks:
            rows = [row for row in self._racks.pop() if row not in self._taken]
            if len(rows) >= count:
                return rows[:count]
        return []
