"""What discovery found: machines, their devices and links, and the nodes that carry them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NewType

from fairlead.model.partitions import MigGeometry

NodeName = NewType("NodeName", str)
DeviceId = tuple[str, str]
"""(node, device name in its ResourceSlice): one exclusive device of the fleet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PcieLink:
    """The PCIe link from a device or bridge up to what it is plugged into; 0 and "" where nobody knows.

    `bytes_per_s` is what the wire gives in one direction as negotiated (encoding taken off, protocol not). `shared`
    says that several devices move data over it. `p2p` is ``yes`` where peers reach each other below it, ``redirected``
    where access control sends them through the host bridge.
    """

    generation: int = 0
    lanes: int = 0
    max_generation: int = 0
    max_lanes: int = 0
    bytes_per_s: int = 0
    shared: bool = False
    p2p: str = ""


NO_PCIE_LINK = PcieLink()
"""What is known of the link of a device that nobody asked: nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PciFunction:
    """One vertex of the PCI tree: a root complex (``pci0000:64``), a bridge, or a function of a device.

    `parent` is the id of the vertex above, "" for a root complex. `kind` is ``root``, ``root-port``,
    ``switch-upstream``, ``switch-downstream``, ``bridge`` (what is neither), ``gpu``, ``nvswitch``, ``nic``,
    ``storage`` or ``device``. `class_code` has 24 bits, of which sources may leave the lowest eight 0. `buses` of a
    bridge is the range below it (``01-03``), `physical` of a virtual function the address of its device.
    """

    id: str
    parent: str = ""
    kind: str = "device"
    class_code: int = 0
    vendor: int = 0
    product: int = 0
    name: str = ""
    numa: int = -1
    buses: str = ""
    physical: str = ""
    iommu_group: int = -1
    link: PcieLink = NO_PCIE_LINK


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU of a machine. `id` is the source's own (``GPU0``), `device` its DRA name (``gpu-0``).

    `package` is the socket it hangs on, `memory_numa` the NUMA node that its memory is (Grace, POWER9), `pcie_parent`
    the bridge right above it in `Machine.pcie`. `compute` is the compute capability (``9.0``), `formats` the numeric
    formats with tensor throughput (``fp8``), `partitions_max` how many parts it can be cut into (1: it cannot).
    `mig` is how it is cut, None where it is not or nobody can say; `whole` False means that an allocation may name its
    MIG instances and not the GPU itself.
    """

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
    package: int = -1
    memory_numa: int = -1
    pcie_parent: str = ""
    pcie: PcieLink = NO_PCIE_LINK
    minor: int = -1
    architecture: str = ""
    compute: str = ""
    formats: tuple[str, ...] = ()
    partitions_max: int = 0
    mig_enabled: bool = False
    mig_profiles: tuple[str, ...] = ()
    serial: str = ""
    vbios: str = ""
    mig: MigGeometry | None = None
    whole: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """One network device that GPUs reach the fabric through.

    `kind` is ``ethernet`` or ``infiniband`` (what the port speaks), "" unknown. `netdevs` and `rdma` are the kernel's
    names for it. `state` is ``up``, ``down`` or "".
    """

    id: str
    pci: str = ""
    numa: int = -1
    pcie_root: str = ""
    pcie_switch: str = ""
    bytes_per_s: int = 0
    rail: int = -1
    kind: str = ""
    netdevs: tuple[str, ...] = ()
    rdma: str = ""
    guid: str = ""
    state: str = ""
    package: int = -1
    pcie_parent: str = ""
    pcie: PcieLink = NO_PCIE_LINK


@dataclass(frozen=True, slots=True, kw_only=True)
class NvSwitch:
    """One NVSwitch of a machine: a vertex of the NVLink fabric that hangs on PCIe only to be managed."""

    id: str
    pci: str = ""
    uuid: str = ""
    numa: int = -1
    pcie_root: str = ""
    pcie_parent: str = ""
    pcie: PcieLink = NO_PCIE_LINK
    healthy: bool = True
    health_reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """One NVMe controller, because GPUs may read from it directly."""

    id: str
    pci: str = ""
    numa: int = -1
    pcie_root: str = ""
    pcie_switch: str = ""
    package: int = -1
    pcie_parent: str = ""
    pcie: PcieLink = NO_PCIE_LINK


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One CPU package (socket): its CPU list and the NUMA nodes that lie in it."""

    id: int
    cpus: str = ""
    numa_nodes: tuple[int, ...] = ()
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NumaNode:
    """One NUMA node: its CPU list (``0-47``), memory, and SLIT distances to all NUMA nodes.

    `package` is -1 where unknown or where the node spans several. `gpu` is the PCI address of the GPU whose memory the
    node is, for those of `Machine.memory_nodes`.
    """

    id: int
    cpus: str = ""
    memory_bytes: int = 0
    distances: tuple[int, ...] = ()
    package: int = -1
    gpu: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """What joins GPUs outside PCIe: NVLinks to a GPU or an NVSwitch, or C2C to a NUMA node of CPUs.

    Ends are ids of GPUs or NVSwitches, or ``numa:0``; NVLinks to a switch that the source cannot name end in
    ``nvswitch``. `bytes_per_s` is the sum of `count` links in one direction, 0 unknown.
    """

    a: str
    b: str
    kind: str = "nvlink"
    count: int = 0
    version: str = ""
    bytes_per_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a path gave when somebody tried it; 0 for what was not tried. `at_ms` is UTC milliseconds."""

    bytes_per_s: int = 0
    latency_ns: int = 0
    at_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A pair of devices and the best path between them; `path` in nvidia-smi's words (NV18, PIX, SYS).

    `bytes_per_s` is theory; what was measured stands beside it, None where nobody did. `p2p` is ``yes`` or why not;
    `direct` (GPU with NIC or drive) is ``available``, ``partial`` (through the host bridge) or ``absent``. Both are ""
    where nobody knows.
    """

    a: str
    b: str
    path: str
    bytes_per_s: int
    measured: Measured | None = None
    p2p: str = ""
    direct: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FactSource:
    """Where one fact of a machine is from, for facts that are not from `Machine.source`.

    `subject` is the id of a vertex or ``a|b`` of a link, `fact` the field's name.
    """

    subject: str
    fact: str
    source: str
    at_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """How the devices of one node hang together. `links` join GPUs and NICs, `storage_links` a GPU and a drive.

    `memory_nodes` are NUMA nodes that are GPU memory, so no pod can run on them; `numa_nodes` has none of these.
    `iommu` is the DMA posture: ``off``, ``passthrough``, ``translated`` or "". `observed_at_ms` is 0 for what was read
    from files without a time.
    """

    source: str = ""
    gpus: tuple[Gpu, ...] = ()
    nics: tuple[Nic, ...] = ()
    numa_nodes: tuple[NumaNode, ...] = ()
    links: tuple[Link, ...] = ()
    clique: str = ""
    packages: tuple[Package, ...] = ()
    memory_nodes: tuple[NumaNode, ...] = ()
    pcie: tuple[PciFunction, ...] = ()
    nvswitches: tuple[NvSwitch, ...] = ()
    wires: tuple[Wire, ...] = ()
    drives: tuple[Drive, ...] = ()
    storage_links: tuple[Link, ...] = ()
    iommu: str = ""
    driver_version: str = ""
    product: str = ""
    observed_at_ms: int = 0
    facts: tuple[FactSource, ...] = ()


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
