"""NodeTopology (`fairlead.dev/v1alpha1`) as the operator reads it; what an old agent did not write has its default."""

# ruff: noqa: RUF012  # msgspec makes a new list or dict of an empty default
from __future__ import annotations

import msgspec

from fairlead_operator.objects import Meta, Record


class PcieSpec(Record, frozen=True, kw_only=True):
    """The PCIe link up from a device or bridge, when it is busy; 0 is unknown, `max_lanes` 0 the same as `lanes`."""

    generation: int = 0
    lanes: int = 0
    max_lanes: int = 0
    bytes_per_second: int = 0
    p2p: str = ""


class MigInstanceSpec(Record, frozen=True, kw_only=True):
    """A GPU instance that exists."""

    id: int
    profile: int
    start: int
    size: int


class MigSpec(Record, frozen=True, kw_only=True):
    """How a GPU is cut."""

    enabled: bool
    pending: bool = False
    instances: list[MigInstanceSpec] = []


class MigProfileSpec(Record, frozen=True, kw_only=True):
    """One size of instance of one model; an agent of an older version says nothing of engines."""

    model: str
    id: int
    name: str
    size: int
    starts: list[int]
    most: int
    memory_bytes: int = 0
    multiprocessors: int = 0
    compute_slices: int = 0
    copy_engines: int = 0
    decoders: int = 0
    encoders: int = 0
    jpegs: int = 0
    ofas: int = 0


class GpuSpec(Record, frozen=True, kw_only=True):
    """A GPU as the agent found it."""

    id: str
    index: int = 0
    device: str = ""
    uuid: str = ""
    pci: str = ""
    model: str = ""
    memory_bytes: int = 0
    numa: int = -1
    pcie_root: str = ""
    pcie_switch: str = ""
    pcie_parent: str = ""
    pcie: PcieSpec = PcieSpec()
    healthy: bool = True
    health_reason: str = ""
    mig: MigSpec | None = None


class NicSpec(Record, frozen=True, kw_only=True):
    """A NIC as the agent found it."""

    id: str
    pci: str = ""
    numa: int = -1
    pcie_root: str = ""
    pcie_switch: str = ""
    pcie_parent: str = ""
    pcie: PcieSpec = PcieSpec()
    bytes_per_second: int = 0
    rail: int = -1


class NumaSpec(Record, frozen=True, kw_only=True):
    """A NUMA node as the agent found it."""

    id: int
    cpus: str = ""
    memory_bytes: int = 0
    distances: list[int] = []


class LinkSpec(Record, frozen=True, kw_only=True):
    """A link between two devices."""

    a: str
    b: str
    class_: str = msgspec.field(name="class")
    bytes_per_second: int = 0
    p2p: str = ""


class FunctionSpec(Record, frozen=True, kw_only=True):
    """A PCIe root, port or switch above a device."""

    id: str
    parent: str = ""
    kind: str = "bridge"
    pcie: PcieSpec = PcieSpec()


class WireSpec(Record, frozen=True, kw_only=True):
    """NVLinks between two GPUs, or of a GPU to its switches."""

    a: str
    b: str
    kind: str = "nvlink"
    count: int = 0
    bytes_per_second: int = 0


class NodeTopologySpec(Record, frozen=True, kw_only=True):
    """What the agent found on one node."""

    source: str = ""
    observed_at_ms: int = 0
    gpus: list[GpuSpec] = []
    nics: list[NicSpec] = []
    numa_nodes: list[NumaSpec] = []
    links: list[LinkSpec] = []
    pcie: list[FunctionSpec] = []
    wires: list[WireSpec] = []
    clique: str = ""
    mig_profiles: list[MigProfileSpec] = []


class BusyGpu(Record, frozen=True, kw_only=True):
    """In how many thousandths of a window something computed on a GPU."""

    uuid: str
    busy: int


class CountedStatus(Record, frozen=True, kw_only=True):
    """How busy GPUs were in a window, UTC milliseconds."""

    from_ms: int
    to_ms: int
    gpus: list[BusyGpu] = []


class NodeTopologyStatus(Record, frozen=True, kw_only=True):
    """When the agent last gave a sign of life, in UTC milliseconds; 0 where no agent writes the object."""

    heartbeat_ms: int = 0
    counted: CountedStatus | None = None


class NodeTopology(Record, frozen=True, kw_only=True):
    """A NodeTopology; its name is the node's."""

    metadata: Meta
    spec: NodeTopologySpec = NodeTopologySpec()
    status: NodeTopologyStatus = NodeTopologyStatus()
