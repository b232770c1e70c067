"""The fleet of the studies: nodes of one shape, HGX H100 with 8 GPUs."""

from __future__ import annotations

from collections.abc import Iterator

from fairlead.bench.scale_world import GIB
from fairlead.model.hardware import Node, NodeName, Resources
from fairlead.topology import fleet_machines


def hgx_nodes(count: int, *, digits: int = 0, nodes_per_rack: int = 0) -> Iterator[Node]:
    """Yield nodes n0, n1 … of pool ``fleet``, numbers padded to `digits`; racks r0, r1 … unless there are none."""
    shape = fleet_machines.hgx_h100()
    for at in range(count):
        name = f"n{at:0{digits}}"
        yield Node(
            name=NodeName(name),
            machine=fleet_machines.identified(shape, name),
            pool="fleet",
            device_pool=name,
            allocatable=Resources(cpu_milli=190_000, memory_bytes=2000 * GIB, ephemeral_bytes=7000 * GIB, pods=110),
            levels=(("rack", f"r{at // nodes_per_rack:0{digits}}"),) if nodes_per_rack else (),
        )
