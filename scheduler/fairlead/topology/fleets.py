"""Built-in fleets: whole clusters by name, the same every time, for `fairlead up`, tests and benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from fairlead.model.hardware import Machine, Node, NodeName, Resources
from fairlead.topology import fleet_machines
from fairlead.topology.fleet_machines import GIB, identified

KUBELET_PODS = 110


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of node: `prefix` starts its names, `cpus` are logical, `nodes_per_rack` as such racks are sold."""

    prefix: str
    machine: Callable[[], Machine]
    cpus: int
    memory_bytes: int
    ephemeral_bytes: int
    nodes_per_rack: int = 4
    spans_rack: bool = False  # one NVLink domain for all nodes of a rack

    @property
    def allocatable(self) -> Resources:
        """What a kubelet leaves for pods: all but two cores and 16 GiB that the system keeps."""
        return Resources(
            cpu_milli=(self.cpus - 2) * 1_000,
            memory_bytes=self.memory_bytes - 16 * GIB,
            ephemeral_bytes=self.ephemeral_bytes,
            pods=KUBELET_PODS,
        )


A100 = Kind("a100", fleet_machines.dgx_a100, 256, 2048 * GIB, 14_000 * GIB)
H100 = Kind("h100", fleet_machines.hgx_h100, 192, 2048 * GIB, 14_000 * GIB)
GB200 = Kind("gb200", fleet_machines.gb200_tray, 144, 960 * GIB, 3_500 * GIB, nodes_per_rack=18, spans_rack=True)
A100_MIG = Kind("a100m", fleet_machines.a100_cut, 256, 2048 * GIB, 14_000 * GIB)
H100_MIG = Kind("h100m", fleet_machines.h100_dynamic, 192, 2048 * GIB, 14_000 * GIB)
L40S = Kind("l40s", fleet_machines.pcie_l40s, 128, 1024 * GIB, 3_500 * GIB)


@dataclass(frozen=True, slots=True)
class Fleet:
    """A fleet by name. Racks take `kinds` in turn; `size` is how many nodes it has unless the caller says otherwise."""

    name: str
    description: str
    kinds: tuple[Kind, ...]
    size: int = 16
    nodes_per_rack: int = 4
    racks_per_block: int = 4

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The fleet's nodes at its own size, in rack order."""
        return build(self.name)


FLEETS: dict[str, Fleet] = {
    fleet.name: fleet
    for fleet in (
        Fleet("dgx-a100", "DGX A100: 8 GPUs over NVLink 3, 8 NUMA nodes, 4 PCIe switch groups", (A100,)),
        Fleet("hgx-h100", "HGX H100: 8 GPUs over NVLink 4, 2 NUMA nodes, a 400 Gb/s NIC beside each GPU", (H100,)),
        Fleet(
            "gb200-nvl72",
            "GB200 NVL72: trays of 4 GPUs and 2 Grace, 18 trays in one NVLink domain",
            (GB200,),
            size=36,
            nodes_per_rack=18,
        ),
        Fleet("pcie-l40s", "L40S: 8 GPUs on PCIe alone, 2 below each switch", (L40S,)),
        Fleet("a100-mig", "DGX A100 with four GPUs whole and four cut into MIG instances for good", (A100_MIG,)),
        Fleet("h100-mig", "HGX H100 whose driver makes MIG instances as they are allocated", (H100_MIG,)),
        Fleet("mixed", "A rack each of H100, A100, L40S and GB200, in turn", (H100, A100, L40S, GB200)),
    )
}


def build(
    name: str,
    nodes: int | None = None,
    *,
    nodes_per_rack: int | None = None,
    racks_per_block: int | None = None,
    pool: str = "",
) -> tuple[Node, ...]:
    """Return the nodes of a built-in fleet, `nodes` of them; the last rack may be part full.

    Names are ``<kind>-r<rack>-n<place>`` from 1. Levels are block and rack; a rack of NVL72 trays is one NVLink domain,
    named in `machine.clique`. The machines of one kind share their links, so a fleet of thousands stays small.

    Raises
    ------
    KeyError
        There is no fleet `name`; `FLEETS` has them all.
    """
    fleet = FLEETS[name]
    total = fleet.size if nodes is None else nodes
    per_rack = nodes_per_rack or fleet.nodes_per_rack
    per_block = racks_per_block or fleet.racks_per_block
    if total < 0 or per_rack < 1 or per_block < 1:
        raise ValueError(f"a fleet has no {total} nodes in racks of {per_rack} and blocks of {per_block} racks")
    return tuple(_node(fleet, at, per_rack, per_block, pool) for at in range(total))


@lru_cache(maxsize=16)
def _machine(kind: Kind) -> Machine:
    return kind.machine()


def _node(fleet: Fleet, at: int, per_rack: int, per_block: int, pool: str) -> Node:
    rack_at, place = divmod(at, per_rack)
    kind = fleet.kinds[rack_at % len(fleet.kinds)]
    rack = f"{kind.prefix}-r{rack_at + 1}"
    block = f"{fleet.name}-b{rack_at // per_block + 1}"
    name = f"{rack}-n{place + 1}"
    machine = identified(_machine(kind), name)
    labels = {
        "kubernetes.io/hostname": name,
        "nvidia.com/gpu.count": str(len(machine.gpus)),
        "nvidia.com/gpu.product": machine.gpus[0].model.replace(" ", "-"),
    }
    if kind.spans_rack:
        machine = replace(machine, clique=f"{rack}.0")
        labels["nvidia.com/gpu.clique"] = machine.clique
    return Node(
        name=NodeName(name),
        machine=machine,
        pool=pool,
        device_pool=name,
        labels=tuple(sorted(labels.items())),
        allocatable=kind.allocatable,
        levels=(("block", block), ("rack", rack)),
    )
