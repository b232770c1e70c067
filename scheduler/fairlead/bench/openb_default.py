"""The default policy in the packing protocol: the product's own search and score, one gang of one pod at a time.

The nodes become a World of the production engine, and the pods go through the same `Placer` that decides in a cycle,
with class columns, overlay and the mix learned from the arrivals of the run.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from fairlead.bench.openb import Spot
from fairlead.bench.openb_files import GPU_MILLI, OpenbNode, OpenbPod
from fairlead.model.events import NodeSeen, PoolSeen
from fairlead.model.gang import Gang, GangId, PodShape, Role, Share
from fairlead.model.hardware import Gpu, Machine, Node, NodeName, Resources
from fairlead.model.tenancy import SHARING_MODES, Pool
from fairlead.placement.feasible import Feasibility
from fairlead.placement.placer import Placer
from fairlead.service.engine import Engine
from fairlead.world.demand import Arrivals, kinds_of
from fairlead.world.overlay import Overlay

MIB = 1 << 20
_PODS_A_NODE = 1 << 20  # the protocol knows no limit on pods
_GPU_BYTES = 1 << 40  # nor memory of a GPU


class DefaultPolicy:
    """One pod at a time at the lowest cost. Nothing is known of the list but what has arrived."""

    def __init__(self, nodes: Sequence[OpenbNode], pods: Sequence[OpenbPod], rng: random.Random) -> None:
        """Begin with an empty fleet and no arrivals; neither the list nor the random stream is looked at."""
        engine = Engine()
        engine.take([PoolSeen(pool=Pool(name="openb", node_selector=(), sharing=SHARING_MODES), at_ms=0)])
        engine.take(NodeSeen(node=_node(rank, node), at_ms=0) for rank, node in enumerate(nodes))
        world = engine.world(0)
        self._placer = Placer(Overlay(world), Feasibility(world.inventory, world.pools))
        self._arrivals = Arrivals()
        self._roles: dict[tuple[int, int, int, int, str], Role] = {}

    def place(self, pod: OpenbPod) -> Spot | None:
        """Count the arrival, then take the cheapest node and device."""
        gang = Gang(id=GangId(pod.name), namespace="openb", name=pod.name, queue="openb", roles=(self._role(pod),))
        for kind in kinds_of(gang):
            self._arrivals.count(kind)
        self._placer.learn(self._arrivals.mix)
        placement = self._placer.place(gang).placement
        if placement is None:
            return None
        member = placement.members[0]
        return int(member.node), tuple(int(name) for name in member.devices)

    def _role(self, pod: OpenbPod) -> Role:
        key = (pod.cpu_milli, pod.memory_mib, pod.gpus, pod.gpu_milli, pod.spec)
        role = self._roles.get(key)
        if role is None:
            shared = pod.gpus == 1 and pod.gpu_milli < GPU_MILLI
            requests = Resources(cpu_milli=pod.cpu_milli, memory_bytes=pod.memory_mib * MIB, pods=1)
            role = self._roles[key] = Role(
                name="pod",
                replicas=1,
                gpus=0 if shared else pod.gpus,
                gpu_model=pod.spec,
                share=Share(milli=pod.gpu_milli) if shared else None,
                pod=PodShape(requests=requests),
            )
        return role


def _node(rank: int, node: OpenbNode) -> Node:
    gpus = tuple(
        Gpu(id=str(at), index=at, device=str(at), model=node.model, memory_bytes=_GPU_BYTES) for at in range(node.gpus)
    )
    return Node(
        name=NodeName(f"{rank:06d}"),  # rows are in order of names, and ties go to the lower row
        machine=Machine(gpus=gpus),
        pool="openb",
        allocatable=Resources(cpu_milli=node.cpu_milli, memory_bytes=node.memory_mib * MIB, pods=_PODS_A_NODE),
    )
