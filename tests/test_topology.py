"""Paths, graphs and device sets: what a person would choose on paper is what the tables choose."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.model.hardware import Gpu, Link, Machine, Nic, NumaNode
from fairlead.topology.fleets import build
from fairlead.topology.graph import check, device_graph, packages, path_class
from fairlead.topology.paths import CLASSES, class_rank, theoretical_pace
from fairlead.topology.tables import ShapeTable, TableCache, shape_key

FAST = theoretical_pace("NV12")


def gpu(i: int, **facts: object) -> Gpu:
    return Gpu(id=f"GPU{i}", index=i, device=f"gpu-{i}", **facts)


def table_of(machine: Machine) -> ShapeTable:
    return TableCache().table(machine)


def bits(*positions: int) -> int:
    return sum(1 << i for i in positions)


def chosen(table: ShapeTable, count: int, *, free: int | None = None) -> list[int]:
    mask, _ = table.best((1 << table.gpus) - 1 if free is None else free, count)
    return [i for i in range(table.gpus) if mask >> i & 1]


def machine_named(fleet: str) -> Machine:
    return build(fleet, 1)[0].machine


def test_path_classes_follow_switch_root_and_numa_when_no_link_says_them() -> None:
    machine = Machine(
        gpus=(
            gpu(0, numa=0, pcie_root="r0", pcie_switch="s0/a"),
            gpu(1, numa=0, pcie_root="r0", pcie_switch="s0/a"),
            gpu(2, numa=0, pcie_root="r0", pcie_switch="s0/b"),
            gpu(3, numa=0, pcie_root="r0", pcie_switch="s1"),
            gpu(4, numa=0, pcie_root="r1"),
            gpu(5, numa=1, pcie_root="r2"),
            gpu(6),
        ),
        links=(Link(a="GPU5", b="GPU4", path="NV4", bytes_per_s=1),),
    )
    assert [path_class(machine, "GPU0", f"GPU{i}") for i in range(7)] == ["X", "PIX", "PXB", "PHB", "NODE", "SYS", ""]
    assert path_class(machine, "GPU4", "GPU5") == "NV4"
    assert path_class(machine, "GPU0", "NIC9") == ""


def test_every_class_costs_more_and_gives_less_than_the_one_before() -> None:
    paces = [theoretical_pace(path) for path in ("NV4", *CLASSES, "")]
    assert paces == sorted(paces, reverse=True)
    assert len(set(paces)) == len(paces)
    assert paces[-1] == 0
    assert [class_rank(path) for path in ("NV18", *CLASSES, "what")] == [0, 0, 1, 2, 3, 4, 5]
    assert theoretical_pace("PIX", pcie_generation=5) == 2 * theoretical_pace("PIX")
    assert theoretical_pace("PIX", pcie_generation=3) == theoretical_pace("PIX") // 2


def test_two_gpus_of_an_l40s_box_share_a_switch_and_three_share_a_socket() -> None:
    table = table_of(machine_named("pcie-l40s"))
    assert table.best(0xFF, 2) == (bits(0, 1), theoretical_pace("PIX"))
    assert table.best(0xFF, 3) == (bits(0, 1, 2), theoretical_pace("NODE"))
    assert table.best(bits(1, 2, 4, 5), 2)[0] == bits(4, 5)
    assert table.best(bits(1, 3, 6), 2) == (bits(1, 3), theoretical_pace("NODE"))


def test_where_nvlink_makes_all_equal_numa_and_switch_decide() -> None:
    a100 = table_of(machine_named("dgx-a100"))
    assert chosen(a100, 2) == [0, 1]
    assert chosen(a100, 2, free=bits(1, 2, 4, 6, 7)) == [6, 7]
    h100 = table_of(machine_named("hgx-h100"))
    assert chosen(h100, 4, free=bits(0, 2, 4, 5, 6, 7)) == [4, 5, 6, 7]
    assert h100.numa_span(0b1111) == 1
    assert h100.numa_span(bits(3, 4)) == 2


def test_four_gpus_of_a_dgx_a100_stay_in_one_package() -> None:
    """NUMA nodes 3 and 1 belong to one EPYC, 7 and 5 to the other: 2 + 2 across costs the socket interconnect."""
    table = table_of(machine_named("dgx-a100"))
    assert chosen(table, 4) == [0, 1, 2, 3]
    assert chosen(table, 4, free=bits(0, 1, 4, 5, 6, 7)) == [4, 5, 6, 7]


def test_a_single_gpu_comes_from_the_group_that_is_broken_already() -> None:
    table = table_of(machine_named("pcie-l40s"))
    assert chosen(table, 1, free=0xFF & ~bits(5)) == [4]
    assert chosen(table, 1, free=bits(0, 1, 2, 3, 6, 7)) == [6]
    assert chosen(table_of(machine_named("hgx-h100")), 1, free=bits(0, 1, 2, 3, 5)) == [5]


def test_paired_switches_keep_a_pair_together_on_nvlink_machines() -> None:
    h100 = machine_named("hgx-h100")
    paired = replace(h100, gpus=tuple(replace(g, pcie_switch=f"s{g.index // 2}") for g in h100.gpus))
    assert chosen(table_of(paired), 2) == [0, 1]
    assert chosen(table_of(paired), 2, free=bits(1, 2, 3)) == [2, 3]
    assert chosen(table_of(paired), 1, free=bits(0, 1, 2)) == [2]


def test_gpus_with_a_nic_of_their_own_are_preferred() -> None:
    gpus = tuple(gpu(i, numa=0, pcie_root=f"r{i // 2}", pcie_switch=f"s{i // 2}") for i in range(4))
    nvlink = tuple(Link(a=f"GPU{i}", b=f"GPU{j}", path="NV12", bytes_per_s=FAST) for i, j in combinations(range(4), 2))
    near_1 = Nic(id="NIC0", numa=0, pcie_root="r1", pcie_switch="s1")
    one = table_of(Machine(gpus=gpus, nics=(near_1,), links=nvlink))
    assert chosen(one, 1) == [2]
    near_0 = Nic(id="NIC1", numa=0, pcie_root="r0", pcie_switch="s0")
    each = table_of(Machine(gpus=gpus, nics=(near_1, near_0), links=nvlink))
    assert chosen(each, 2) == [0, 2], "one NIC a switch: two GPUs behind one switch would share it"
    both = table_of(Machine(gpus=gpus, nics=(near_1, near_0, replace(near_0, id="NIC2")), links=nvlink))
    assert chosen(both, 2) == [0, 1], "two NICs at the first switch: the pair may stay together"


def test_nvlink_islands_smaller_than_the_machine_are_not_crossed() -> None:
    """Two NVL4 bridges: NV18 inside, SYS between."""
    gpus = tuple(gpu(i, numa=i // 4) for i in range(8))
    links = tuple(
        Link(a=f"GPU{i}", b=f"GPU{j}", path="NV18", bytes_per_s=FAST)
        for i, j in combinations(range(8), 2)
        if i // 4 == j // 4
    )
    table = table_of(Machine(gpus=gpus, links=links))
    assert table.best(0xFF & ~bits(0), 4) == (bits(4, 5, 6, 7), FAST)
    assert chosen(table, 2, free=bits(0, 1, 4, 5, 6, 7)) == [0, 1]
    assert table.best(bits(0, 1, 2, 4, 5, 6), 4)[1] == theoretical_pace("SYS")


def test_unknown_paths_have_no_pace_and_lose_to_known_ones() -> None:
    gpus = (gpu(0), gpu(1), gpu(2, numa=0), gpu(3, numa=1))
    table = table_of(Machine(gpus=gpus))
    assert table.best(0b1111, 2) == (bits(2, 3), theoretical_pace("SYS"))
    assert table.pace(bits(0, 1)) == 0
    assert table.best(0b0011, 2) == (0b0011, 0)


@pytest.mark.parametrize(("mask", "count"), [(0, 1), (0b1, 2), (0xFF, 9), (0xFF, 0), (0xFF, -1), (0xF00, 1)])
def test_what_cannot_be_taken_is_nothing(mask: int, count: int) -> None:
    assert table_of(machine_named("hgx-h100")).best(mask, count) == (0, 0)


def test_a_machine_without_gpus_has_an_empty_table() -> None:
    table = table_of(Machine())
    assert (table.gpus, table.best(1, 1), table.pace(1), table.numa_span(1)) == (0, (0, 0), 0, 0)


def test_copies_of_a_machine_share_one_table_and_other_shapes_do_not() -> None:
    cache = TableCache()
    nodes = build("mixed", 16)
    tables = {id(cache.table(node.machine)) for node in nodes}
    assert len(tables) == len(cache) == 4
    machine = nodes[0].machine
    ill = replace(machine, gpus=tuple(replace(g, healthy=False, uuid="other", pci="") for g in machine.gpus))
    assert cache.table(ill) is cache.table(machine)
    moved = replace(machine, gpus=(replace(machine.gpus[0], numa=1), *machine.gpus[1:]))
    assert cache.table(moved) is not cache.table(machine)


def test_a_sixteen_gpu_box_is_searched_whole() -> None:
    """Two baseboards of eight: NV6 inside, PCIe between; the odd GPUs of the first are busy."""
    gpus = tuple(gpu(i, numa=i // 8, pcie_root=f"r{i}") for i in range(16))
    links = tuple(
        Link(a=f"GPU{i}", b=f"GPU{j}", path="NV6", bytes_per_s=FAST)
        for i, j in combinations(range(16), 2)
        if i // 8 == j // 8
    )
    table = table_of(Machine(gpus=gpus, links=links))
    assert table.best(0xFF55, 8) == (0xFF00, FAST)
    assert table.best(0xFF55, 4) == (0x0055, FAST), "the broken board gives, the whole one stays whole"


def test_more_gpus_than_columns_are_grown_inside_their_group() -> None:
    gpus = tuple(gpu(i, numa=i // 10, pcie_root=f"r{i // 5}", pcie_switch=f"s{i // 5}") for i in range(20))
    table = table_of(Machine(gpus=gpus))
    everything = (1 << 20) - 1
    assert table.best(everything, 5) == (0b11111, theoretical_pace("PIX"))
    assert table.best(everything & ~0b1, 5) == (0b11111 << 5, theoretical_pace("PIX"))
    assert table.best(everything & ~0b1, 4) == (0b11110, theoretical_pace("PIX"))
    assert table.best(everything, 20) == (everything, theoretical_pace("SYS"))


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    """Up to seven GPUs anywhere, with some links of a few paces and some NICs."""
    n = draw(st.integers(1, 7))
    place = st.tuples(
        st.integers(-1, 2), st.sampled_from(["", "r0", "r1"]), st.sampled_from(["", "s0", "s1/a", "s1/b"])
    )
    gpus = tuple(
        gpu(i, numa=numa, pcie_root=root, pcie_switch=switch)
        for i, (numa, root, switch) in enumerate(draw(st.tuples(*[place] * n)))
    )
    nics = tuple(
        Nic(id=f"NIC{i}", numa=numa, pcie_root=root, pcie_switch=switch)
        for i, (numa, root, switch) in enumerate(draw(st.lists(place, max_size=3)))
    )
    links = tuple(
        Link(a=f"GPU{a}", b=f"GPU{b}", path="NV1", bytes_per_s=draw(st.sampled_from([1, 25, 50, 10**12])))
        for a, b in combinations(range(n), 2)
        if draw(st.booleans())
    )
    return Machine(gpus=gpus, nics=nics, links=links)


@settings(max_examples=150, deadline=None)
@given(machine=machines(), data=st.data())
def test_no_set_is_faster_than_the_best_one(machine: Machine, data: st.DataObject) -> None:
    table = table_of(machine)
    free = data.draw(st.integers(0, (1 << table.gpus) - 1))
    count = data.draw(st.integers(1, table.gpus))
    members = [i for i in range(table.gpus) if free >> i & 1]

    def pace(group: tuple[int, ...]) -> int:
        rows = table.shape.pace
        return min((rows[a][b] for a, b in combinations(group, 2)), default=0)

    mask, found = table.best(free, count)
    if len(members) < count:
        assert (mask, found) == (0, 0)
        return
    assert mask & ~free == 0
    assert mask.bit_count() == count
    assert found == table.pace(mask) == max(pace(group) for group in combinations(members, count))
    assert type(mask) is int
    assert type(found) is int
    assert table.best(free, count) == (mask, found)


@settings(max_examples=60, deadline=None)
@given(machine=machines(), data=st.data())
def test_the_order_in_which_devices_are_listed_does_not_change_the_pace(machine: Machine, data: st.DataObject) -> None:
    shuffled = replace(machine, gpus=tuple(data.draw(st.permutations(machine.gpus))))
    one, other = table_of(machine), table_of(shuffled)
    for count in range(1, one.gpus + 1):
        everything = (1 << one.gpus) - 1
        first, second = one.best(everything, count), other.best(everything, count)
        assert first[1] == second[1]
        assert one.numa_span(first[0]) == other.numa_span(second[0])


@settings(max_examples=40, deadline=None)
@given(machine=machines())
def test_the_search_for_large_machines_claims_no_pace_it_does_not_have(machine: Machine) -> None:
    copies = tuple(
        replace(g, id=f"{g.id}.{copy}", index=at * 17 + copy, device=f"gpu-{at * 17 + copy}")
        for at, g in enumerate(machine.gpus)
        for copy in range(17)
    )
    table = ShapeTable(shape_key(replace(machine, gpus=copies[:20], links=())))
    mask, pace = table.best((1 << table.gpus) - 1, 3)
    assert mask.bit_count() == 3
    assert pace == table.pace(mask)


def test_the_graph_hangs_every_device_once_and_keeps_its_links() -> None:
    machine = machine_named("dgx-a100")
    graph = device_graph(machine)
    tree = [(a, b) for a, b, kind in graph.edges(keys=True) if kind == "tree"]
    assert len(tree) == len(graph) - 1, "the tree edges are a tree"
    assert graph.nodes["package:0"]["kind"] == "package"
    assert set(graph.neighbors("switch:switch0/gpus")) == {"switch:switch0", "GPU0", "GPU1"}
    link = graph.edges["GPU0", "GPU7", "link"]
    assert (link["path"], link["bytes_per_s"], link["latency"]) == ("NV12", 300_000_000_000, "nvlink")
    assert sum(kind == "link" for *_, kind in graph.edges(keys=True)) == len(machine.links)


def test_packages_follow_numa_distances() -> None:
    assert packages(machine_named("dgx-a100").numa_nodes) == ((0, 1, 2, 3), (4, 5, 6, 7))
    assert packages(machine_named("hgx-h100").numa_nodes) == ((0,), (1,))
    assert packages((NumaNode(id=0), NumaNode(id=1))) == ()


def test_check_names_each_contradiction() -> None:
    machine = Machine(
        gpus=(
            gpu(0, numa=0, pcie_switch="s0", uuid="GPU-a", pci="0000:01:00.0"),
            gpu(1, numa=0, pcie_switch="s0", uuid="GPU-a"),
            gpu(2, numa=4),
            gpu(3, numa=0, pcie_root="r0"),
            gpu(4, numa=0, pcie_root="r1"),
        ),
        numa_nodes=(NumaNode(id=0, distances=(10, 20)),),
        links=(
            Link(a="GPU0", b="GPU1", path="SYS", bytes_per_s=1),
            Link(a="GPU1", b="GPU0", path="PIX", bytes_per_s=1),
            Link(a="GPU0", b="GPU2", path="NODE", bytes_per_s=1),
            Link(a="GPU0", b="NIC7", path="PIX", bytes_per_s=1),
            Link(a="GPU3", b="GPU3", path="PIX", bytes_per_s=1),
            Link(a="GPU3", b="GPU4", path="PHB", bytes_per_s=1),
            Link(a="GPU0", b="GPU4", path="QPI", bytes_per_s=1),
            Link(a="GPU0", b="GPU3", path="NV2", bytes_per_s=-5),
        ),
    )
    found = "\n".join(check(machine))
    for part in (
        "UUID 'GPU-a' is there 2 times",
        "GPU2 is on NUMA node 4",
        "NUMA node 0 has 2 distances for 1 nodes",
        "GPU0 and GPU1 are linked twice, as SYS and as PIX",
        "GPU0-GPU1 says SYS, the PCIe tree says PIX",
        "GPU0-GPU2 says NODE, the PCIe tree says SYS",
        "a link names 'NIC7'",
        "GPU3 is linked to itself",
        "GPU3-GPU4 says PHB, the PCIe tree says NODE",
        "unknown path class 'QPI'",
        "has -5 bytes/s",
    ):
        assert part in found
    assert len(check(machine)) == 11
