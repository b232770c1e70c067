"""A HiveD configuration in words of ours: physical cells are nodes with levels, virtual clusters are queues.

A node-level cell is a node, cells above it are levels, a leaf is a GPU, its type the model. A virtual cluster
is guaranteed as many GPUs as its cells have. A pinned cell is a label of its nodes: who names it goes there, guaranteed
jobs that do not name it stay away. Opportunistic jobs are those of a queue beside it that is guaranteed nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from builders import GIB, T0

from fairlead.model.gang import Gang, GangId, PodShape, Requirement, Role
from fairlead.model.hardware import Gpu, Machine, Node, NodeName, Resources
from fairlead.model.tenancy import Queue

PINNED = "cell"
OPPORTUNISTIC = -1


@dataclass
class Found:
    """A node while its cells are read."""

    gpus: list[str] = field(default_factory=list)
    levels: dict[str, str] = field(default_factory=dict)
    pinned: str = ""


class Cells:
    """A configuration, read."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        physical = config["physicalCluster"]
        self.types: Mapping[str, Mapping[str, Any]] = physical["cellTypes"]
        self.clusters: Mapping[str, Mapping[str, Any]] = config["virtualClusters"]
        self._found: dict[str, Found] = {}
        self._pinned_gpus: dict[str, int] = {}
        for at, cell in enumerate(physical["physicalCells"]):
            self._read(cell, cell["cellType"], f"{at}", {}, "")
        self.nodes = [self._node(name, found) for name, found in sorted(self._found.items())]
        self.pinned = {name: found.pinned for name, found in self._found.items()}

    def leaves(self, kind: str) -> int:
        """GPUs of a cell of some type."""
        known = self.types.get(kind)
        return 1 if known is None else int(known["childCellNumber"]) * self.leaves(known["childCellType"])

    def leaf(self, kind: str) -> str:
        """The type of a cell's GPUs."""
        known = self.types.get(kind)
        return kind if known is None else self.leaf(known["childCellType"])

    def own(self, cluster: str) -> list[tuple[str, int]]:
        """(type, how many) of a cluster's cells that are not pinned."""
        cells = self.clusters[cluster].get("virtualCells") or ()
        return [(one["cellType"].rpartition(".")[2], int(one["cellNumber"])) for one in cells]

    def pins(self, cluster: str) -> list[tuple[str, int]]:
        """(pinned cell, its GPUs) of a cluster."""
        names = [one["pinnedCellId"] for one in self.clusters[cluster].get("pinnedCells") or ()]
        return [(name, self._pinned_gpus[name]) for name in names]

    def kinds(self, cluster: str) -> list[str]:
        """Types of GPUs that a cluster has cells of."""
        return sorted({self.leaf(kind) for kind, _ in self.own(cluster)})

    def queues(self) -> list[Queue]:
        """A queue for the guaranteed jobs of each cluster, and one for its opportunistic jobs."""
        found: list[Queue] = []
        for name in self.clusters:
            gpus = sum(self.leaves(kind) * number for kind, number in self.own(name))
            gpus += sum(number for _, number in self.pins(name))
            found.append(Queue(name=name, guaranteed_gpus=gpus, namespaces=(name,)))
            found.append(Queue(name=spare(name), namespaces=(spare(name),)))
        return found

    def gang(self, name: str, pods: list[tuple[int, int]], at: int, **words: Any) -> Gang:
        """A gang of (pods, GPUs each). `cluster`, `priority`, `kind` ("" for any that it has), `pin` ("" for none)."""
        cluster, priority, pin = str(words["cluster"]), int(words.get("priority", 0)), str(words.get("pin", ""))
        kinds = [words["kind"]] if words.get("kind") else self.kinds(cluster) if cluster in self.clusters else []
        away = ((Requirement(key=PINNED, operator="DoesNotExist"),),)
        shape = PodShape(
            node_selector=((PINNED, pin),) if pin else (),
            affinity=None if pin or priority == OPPORTUNISTIC else away,
        )
        belongs = spare(cluster) if priority == OPPORTUNISTIC else cluster
        return Gang(
            id=GangId(name),
            namespace=belongs,
            name=name,
            queue=belongs,
            priority=max(0, priority),
            submitted_ms=T0 + at,
            topology=words.get("topology"),
            roles=tuple(
                Role(name=f"r{n}", replicas=count, gpus=gpus, gpu_model="|".join(map(model, kinds)), pod=shape)
                for n, (count, gpus) in enumerate(pods)
            ),
        )

    def _read(self, cell: Mapping[str, Any], kind: str, path: str, above: dict[str, str], pinned: str) -> None:
        pinned = cell.get("pinnedCellId") or pinned
        if cell.get("pinnedCellId"):
            self._pinned_gpus[pinned] = self.leaves(kind)
        known = self.types[kind]
        if known.get("isNodeLevel"):
            node = self._found.setdefault(str(cell["cellAddress"]), Found())
            node.gpus += [self.leaf(kind)] * self.leaves(kind)
            node.levels |= above
            node.pinned = node.pinned or pinned
            for child in cell.get("cellChildren") or ():  # a GPU that is pinned is counted, not kept apart
                if child.get("pinnedCellId"):
                    self._pinned_gpus[child["pinnedCellId"]] = self.leaves(known["childCellType"])
            return
        children = cell.get("cellChildren") or [{}] * int(known["childCellNumber"])
        for at, child in enumerate(children):
            self._read(child, known["childCellType"], f"{path}/{at}", {**above, kind: path}, pinned)

    def _node(self, name: str, found: Found) -> Node:
        gpus = tuple(
            Gpu(id=f"{name}/{at}", index=at, device=f"gpu-{at}", model=model(kind), memory_bytes=32 * GIB)
            for at, kind in enumerate(found.gpus)
        )
        return Node(
            name=NodeName(name),
            machine=Machine(gpus=gpus),
            pool="fleet",
            allocatable=Resources(cpu_milli=999_000, memory_bytes=999 * GIB, ephemeral_bytes=999 * GIB, pods=999),
            labels=((PINNED, found.pinned),) if found.pinned else (),
            levels=tuple(sorted(found.levels.items())),
        )


def spare(cluster: str) -> str:
    """The queue of a cluster's opportunistic jobs."""
    return f"{cluster}-opportunistic"


def model(kind: str) -> str:
    """A name that no other type's name contains, as models are compared by parts."""
    return f"<{kind}>"
