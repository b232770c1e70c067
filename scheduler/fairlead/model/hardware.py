"""What discovery found: machines, their devices and links, and the nodes that carry them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NewType

NodeName = NewType("NodeName", str)
DeviceId = tuple[str, str]
"""(node, device name in its ResourceSlice): one exclusive device of the fleet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU of a machine. `id` is the source's own (``GPU0``), `device` its DRA name (``gpu-0``)."""

    id: str
    index: int
    device: str
    uuid: str = ""
    pci: str = ""
    model: str = ""
    memory_bytes: int = 0
    numa: int = -1
    pcie_root: str = ""
    pcie_switch: str = ""
    healthy: bool = True
    health_reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """One network device that GPUs reach the fabric through."""

    id: str
    pci: str = ""
    numa: int = -1
    pcie_root: str = ""
    pcie_switch: str = ""
    bytes_per_s: int = 0
    rail: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class NumaNode:
    """One NUMA node: its CPU list (``0-47``), memory, and SLIT distances to all NUMA nodes."""

    id: int
    cpus: str = ""
    memory_bytes: int = 0
    distances: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A pair of devices and the best path between them; `path` in nvidia-smi's words (NV18, PIX, SYS)."""

    a: str
    b: str
    path: str
    bytes_per_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """How the devices of one node hang together. Link ends are ids of GPUs or NICs."""

    source: str = ""
    gpus: tuple[Gpu, ...] = ()
    nics: tuple[Nic, ...] = ()
    numa_nodes: tuple[NumaNode, ...] = ()
    links: tuple[Link, ...] = ()
    clique: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taint:
    """A node taint; effect is NoSchedule, PreferNoSchedule or NoExecute."""

    key: str
    value: str = ""
    effect: str = "NoSchedule"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """An amount of what nodes give and pods take. CPU in thousandths of a core, memory in bytes.

    `extended` is sorted by name, so equal amounts compare and hash alike.
    """

    cpu_milli: int = 0
    memory_bytes: int = 0
    ephemeral_bytes: int = 0
    pods: int = 0
    extended: tuple[tuple[str, int], ...] = ()

    def plus(self, other: Resources, times: int = 1) -> Resources:
        """Return self + times × other; `times` may be negative."""
        extended = dict(self.extended)
        for name, amount in other.extended:
            extended[name] = extended.get(name, 0) + times * amount
        return Resources(
            cpu_milli=self.cpu_milli + times * other.cpu_milli,
            memory_bytes=self.memory_bytes + times * other.memory_bytes,
            ephemeral_bytes=self.ephemeral_bytes + times * other.ephemeral_bytes,
            pods=self.pods + times * other.pods,
            extended=tuple(sorted((n, a) for n, a in extended.items() if a)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node as the scheduler may use it: already joined from Node, ResourceSlices and NodeTopology.

    `machine.gpus` holds exactly the devices that an allocation may name: those in the slices (or those of the
    embedded fleet). `levels` maps a level's name (rack, block …) to the domain this node is in. `not_ready_since_ms`
    is the last time the node was known to be Ready, or None while it is. `lost` says that its pods will not come
    back by themselves (out-of-service taint or deletion); until then devices of a dead node stay down.
    """

    name: NodeName
    machine: Machine = field(default_factory=Machine)
    pool: str = ""
    driver: str = "gpu.nvidia.com"
    device_pool: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    taints: tuple[Taint, ...] = ()
    allocatable: Resources = field(default_factory=Resources)
    levels: tuple[tuple[str, str], ...] = ()
    unschedulable: bool = False
    not_ready_since_ms: int | None = None
    conflicts: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether the node's kubelet reports Ready."""
        return self.not_ready_since_ms is None
