"""Random machines, as odd as discovery may hand them over, and the words in which tests of locality speak of them."""

from __future__ import annotations

from itertools import combinations

from hypothesis import strategies as st

from fairlead.model.hardware import Gpu, Link, Machine, Nic, NumaNode, PcieLink, PciFunction
from fairlead.placement.locality import LocalTable, LocalTables


def table(machine: Machine) -> LocalTable:
    return LocalTables().table(machine)


def bits(mask: int) -> list[int]:
    return [at for at in range(mask.bit_length()) if mask >> at & 1]


def mask(*positions: int) -> int:
    return sum(1 << at for at in set(positions))


@st.composite
def machines(draw: st.DrawFn, *, most: int = 6) -> Machine:
    """Anything that discovery may hand over: gaps in paths, NUMA nodes, rails and rates included."""
    count, nodes = draw(st.integers(1, most)), draw(st.integers(1, 3))
    place = st.tuples(st.integers(-1, nodes - 1), st.sampled_from(["", "s0", "s0/a", "s0/b", "s1"]))
    rate = st.sampled_from([0, 8, 16, 25])
    gpus = tuple(
        Gpu(id=f"GPU{i}", index=i, device=f"gpu-{i}", numa=numa, pcie_switch=at, pcie=PcieLink(bytes_per_s=each))
        for i, ((numa, at), each) in enumerate(draw(st.tuples(*[st.tuples(place, rate)] * count)))
    )
    nics = tuple(
        Nic(id=f"NIC{i}", numa=numa, pcie_switch=at, rail=rail, bytes_per_s=each, state=state)
        for i, ((numa, at), rail, each, state) in enumerate(
            draw(st.lists(st.tuples(place, st.integers(-1, 4), rate, st.sampled_from(["", "up", "down"])), max_size=5))
        )
    )
    path = st.sampled_from(["NV1", "NV2", "PIX", "PXB", "NODE", "SYS", ""])
    pairs = [*combinations([g.id for g in gpus], 2), *((g.id, n.id) for g in gpus for n in nics)]
    links = tuple(
        Link(a=a, b=b, path=draw(path), bytes_per_s=draw(st.sampled_from([0, 10, 25, 50])))
        for a, b in pairs
        if draw(st.booleans())
    )
    slit = draw(st.sampled_from(["none", "near", "far"]))
    numa_nodes = tuple(
        NumaNode(
            id=n,
            cpus=draw(
                st.sampled_from([f"{4 * n}-{4 * n + 3},{4 * nodes + 4 * n}-{4 * nodes + 4 * n + 3}", f"{4 * n}", ""])
            ),
            distances=() if slit == "none" else tuple(10 if n == m else 12 + abs(n - m) for m in range(nodes)),
        )
        for n in range(nodes)
    )
    pcie = tuple(
        PciFunction(id=name, kind="switch-upstream", link=PcieLink(bytes_per_s=draw(rate)))
        for name in ("s0", "a", "s1")
    )
    return Machine(gpus=gpus, nics=nics, numa_nodes=numa_nodes, links=links, pcie=pcie)


def sets_of(draw: st.DrawFn, machine: Machine) -> int:
    return draw(st.integers(1, (1 << len(machine.gpus)) - 1))
