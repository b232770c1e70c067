"""What is chosen beside the GPUs: cores, memory, NICs, rails, uplinks, order, and the pace of a whole gang."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations, pairwise, permutations
from typing import Any

import builders
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_worlds import examples
from topology_files import data_file, data_files

from fairlead.discovery.sources import read_path
from fairlead.model.fabric import Fabric, FabricLink
from fairlead.model.hardware import Gpu, Link, Machine, Nic, NumaNode, PcieLink, PciFunction
from fairlead.placement.gang_pace import GangPace, GangPaces, level_rates
from fairlead.placement.local_shape import FAR, slowest_known
from fairlead.placement.locality import LocalTable, LocalTables, cpu_mask, cpu_text, nic_ids, nic_mask
from fairlead.placement.nic_matching import own_nic
from fairlead.placement.numa_shares import lowest, share
from fairlead.placement.rank_order import rank_order
from fairlead.placement.rings import fastest_ring, ring_pace
from fairlead.topology.fabric_paths import FabricPaths
from fairlead.topology.fleet_machines import dgx_a100, gb200_tray, hgx_h100, identified, pcie_l40s
from fairlead.topology.islands import islands
from fairlead.topology.paths import class_rank, effective, nvlinks, path_class
from fairlead.topology.tables import TableCache
from fairlead.world.fleet import build_inventory

GIB = 1 << 30
PLAIN = builders.plain_machine


def table(machine: Machine) -> LocalTable:
    return LocalTables().table(machine)


def bits(mask: int) -> list[int]:
    return [at for at in range(mask.bit_length()) if mask >> at & 1]


def mask(*positions: int) -> int:
    return sum(1 << at for at in set(positions))


# --- random machines --------------------------------------------------------------------------------------------------


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


# --- cores and memory -------------------------------------------------------------------------------------------------


def cores(machine: Machine, gpus: int, count: int, free: str = "0-1023") -> tuple[str, int]:
    chosen, spill = table(machine).cores_for(gpus, count, cpu_mask(free))
    return cpu_text(chosen), spill


@pytest.mark.parametrize(
    ("gpus", "count", "free", "chosen", "spill"),
    [
        ((0, 1), 8, "0-255", "48-51,176-179", 0),
        ((0, 1), 7, "0-255", "48-51,176-178", 0),
        ((0, 1), 8, "0-47,50-175,177-255", "50-53,178-181", 0),  # core 49 has one thread left, so it is not whole
        ((0, 1), 9, "0-47,49-175,177-255", "49-52,177-180,53", 0),
        ((0, 2), 8, "0-255", "16-17,48-49,144-145,176-177", 0),  # NUMA nodes 3 and 1
        ((0, 1, 2), 12, "0-255", "16-17,48-51,144-145,176-179", 0),  # two GPUs' worth near node 3, one near node 1
        ((0, 1), 36, "0-255", "0-1,48-63,128-129,176-191", 4),  # nodes 0, 1, 2 are as near: the lowest number
        ((0, 1), 6, "0-31,60-61", "0-1,60-61,128-129", 4),
        ((0, 1), 200, "0-99", "", 200),
        ((0, 1), 0, "0-255", "", 0),
        ((), 4, "0-255", "", 0),
    ],
)
def test_cores_come_from_the_numa_nodes_of_the_gpus(
    gpus: tuple[int, ...], count: int, free: str, chosen: str, spill: int
) -> None:
    expected = sorted(bits(cpu_mask(chosen)))
    got, far = table(dgx_a100()).cores_for(mask(*gpus), count, cpu_mask(free))
    if chosen == "0-1,60-61,128-129":
        expected = [0, 1, 2, 3, 60, 61]  # no second thread is free anywhere
    assert (bits(got), far) == (expected, spill)


def test_cores_go_by_number_where_the_lists_do_not_show_threads() -> None:
    assert cores(gb200_tray(), 0b11, 3) == ("0-2", 0)
    assert cores(hgx_h100(), 0b1, 4) == ("0-1,96-97", 0)
    assert cores(pcie_l40s(), 0b10001, 8) == ("0-1,32-33,64-65,96-97", 0)
    interleaved = replace(
        hgx_h100(), numa_nodes=(NumaNode(id=0, cpus="0,2,4,6,8,10"), NumaNode(id=1, cpus="1,3,5,7,9,11"))
    )
    assert cores(interleaved, 0b1, 4) == ("0,2,4,6", 0), "one even run says nothing about threads"
    odd = replace(hgx_h100(), numa_nodes=(NumaNode(id=0, cpus="0-3,8-10"), NumaNode(id=1, cpus="4-7,12-15")))
    assert cores(odd, 0b1, 4) == ("0-3", 0)


def test_nothing_is_chosen_where_the_machine_does_not_say_which_node_has_which_cpus() -> None:
    assert cores(PLAIN(8), 0b11, 4) == ("", 0)
    silent = replace(hgx_h100(), numa_nodes=(NumaNode(id=0), NumaNode(id=1)))
    assert cores(silent, 0b11, 4) == ("", 0)
    lost = replace(hgx_h100(), gpus=tuple(replace(gpu, numa=-1) for gpu in hgx_h100().gpus))
    assert cores(lost, 0b11, 4) == ("", 0)
    single = replace(lost, numa_nodes=(NumaNode(id=0, cpus="0-7"),))
    assert cores(single, 0b11, 4) == ("0-3", 0), "one NUMA node is near to every GPU"


@examples(200)
@given(machine=machines(), data=st.data())
def test_cores_are_free_near_and_as_many_as_asked_for(machine: Machine, data: st.DataObject) -> None:
    local = table(machine)
    gpus, count = sets_of(data.draw, machine), data.draw(st.integers(1, 12))
    free = data.draw(st.integers(0, (1 << 24) - 1))
    chosen, spill = local.cores_for(gpus, count, free)
    numa = {machine.gpus[at].numa for at in bits(gpus)}
    if len(machine.numa_nodes) == 1:
        numa = {0}
    near = sum(cpu_mask(node.cpus) for node in machine.numa_nodes if node.id in numa)
    every = sum(cpu_mask(node.cpus) for node in machine.numa_nodes)
    if not every or numa == {-1}:
        assert (chosen, spill) == (0, 0)
    elif (every & free).bit_count() < count:
        assert (chosen, spill) == (0, count)
    else:
        assert chosen & ~(every & free) == 0
        assert chosen.bit_count() == count
        assert spill == (chosen & ~near).bit_count() == max(0, count - (near & free).bit_count())
        if spill and local.shape.distance[0][0] != FAR:
            homes = [node.id for node in machine.numa_nodes if node.id in numa]
            apart = {n.id: min(abs(n.id - home) for home in homes) for n in machine.numa_nodes}
            used = [n for n in machine.numa_nodes if cpu_mask(n.cpus) & chosen and n.id not in numa]
            left = [n for n in machine.numa_nodes if cpu_mask(n.cpus) & free & ~chosen]
            assert max(apart[n.id] for n in used) <= min((apart[n.id] for n in left), default=99)


def test_memory_comes_from_the_numa_nodes_of_the_gpus_too() -> None:
    local = table(dgx_a100())
    free = [64 * GIB] * 8
    assert local.memory_for(0b11, 32 * GIB, free) == ((0, 0, 0, 32 * GIB, 0, 0, 0, 0), 0)
    assert local.memory_for(0b101, 32 * GIB, free) == ((0, 16 * GIB, 0, 16 * GIB, 0, 0, 0, 0), 0)
    assert local.memory_for(0b11, 100 * GIB, free) == ((36 * GIB, 0, 0, 64 * GIB, 0, 0, 0, 0), 36 * GIB)
    assert local.memory_for(0b11, 513 * GIB, free) == ((), 513 * GIB)
    assert local.memory_for(0, 1, free) == local.memory_for(0b11, 0, free) == ((), 0)
    with pytest.raises(AssertionError):
        local.memory_for(0b11, 1, free[:2])


@examples(200)
@given(
    amount=st.integers(1, 60),
    unit=st.sampled_from([1, 2]),
    room=st.lists(st.integers(0, 20), min_size=3, max_size=5),
    weights=st.lists(st.integers(1, 4), min_size=1, max_size=3),
)
def test_a_share_is_all_of_it_and_fair(amount: int, unit: int, room: list[int], weights: list[int]) -> None:
    homes = list(enumerate(weights))
    given_ = share(amount, unit, homes, range(len(weights), len(room)), room)
    if sum(room) < amount:
        assert given_ is None
        return
    assert given_ is not None
    assert sum(given_) == amount
    assert all(0 <= each <= most for each, most in zip(given_, room, strict=True))
    inside = sum(given_[node] for node, _ in homes)
    assert inside == min(amount, sum(room[node] for node, _ in homes))
    if all(room[node] >= amount for node, _ in homes):
        for node, weight in homes:
            assert abs(given_[node] - amount * weight / sum(weights)) <= 2 * unit


@given(st.integers(1, (1 << 70) - 1), st.data())
def test_the_lowest_bits_are_the_lowest(number: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, number.bit_count()))
    assert bits(lowest(number, count)) == bits(number)[:count]


# --- NICs and rails ---------------------------------------------------------------------------------------------------


def test_each_gpu_gets_the_nearest_nics_that_are_free() -> None:
    local = table(hgx_h100())
    assert local.nics_for(0b11, 1, local.nics) == 0b11
    assert local.nic_path(0b11, 1, local.nics) == "PIX"
    assert local.nics_for(0b11, 1, local.nics & ~0b1) == 0b110
    assert local.nic_path(0b11, 1, local.nics & ~0b1) == "NODE", "the penalty can be said"
    assert local.nics_for(0b11, 2, local.nics) == 0b1111
    assert local.nics_for(0xFF, 2, local.nics) is None
    assert local.nics_for(0b11, 0, local.nics) == 0
    down = replace(hgx_h100(), nics=tuple(replace(nic, state="down") for nic in hgx_h100().nics))
    assert table(down).nics_for(0b1, 1, 0xFF) is None
    assert nic_ids(hgx_h100(), 0b101) == ("NIC0", "NIC2")
    assert nic_mask(hgx_h100(), ["NIC2", "NIC0", "gone"]) == 0b101


@examples(150)
@given(machine=machines(most=4), data=st.data())
def test_no_other_assignment_has_more_pairs_at_a_better_class(machine: Machine, data: st.DataObject) -> None:
    local = table(machine)
    gpus, per_gpu = sets_of(data.draw, machine), data.draw(st.integers(1, 2))
    free = data.draw(st.integers(0, (1 << len(machine.nics)) - 1)) if machine.nics else 0
    slots = [gpu for gpu in bits(gpus) for _ in range(per_gpu)]
    usable = [at for at in bits(free) if machine.nics[at].state != "down"]
    best: tuple[tuple[int, ...], int, int] | None = None
    for chosen in permutations(usable, len(slots)) if len(usable) >= len(slots) else ():
        ranks = [class_rank(path_class(machine, f"GPU{g}", f"NIC{n}")) for g, n in zip(slots, chosen, strict=True)]
        worth = (tuple(-ranks.count(rank) for rank in range(6)), mask(*chosen), max(ranks, default=0))
        best = worth if best is None or worth[:2] < best[:2] else best
    assert local.nics_for(gpus, per_gpu, free) == (best[1] if best is not None else None)
    if best is not None and best[2] < 5:
        assert class_rank(local.nic_path(gpus, per_gpu, free)) == best[2]


def test_rails_are_those_of_the_nearest_nics() -> None:
    assert table(hgx_h100()).rails(0b10010) == 0b10010
    assert table(dgx_a100()).rails(0b11) == 0b11, "two NICs are as near, so each GPU has its own"
    assert table(pcie_l40s()).rails(0b0111) == 0b11, "two GPUs share each NIC"
    assert table(PLAIN(2)).rails(0b11) == 0
    swapped = replace(hgx_h100(), nics=tuple(replace(nic, rail=7 - nic.rail) for nic in hgx_h100().nics))
    assert table(swapped).rails(0b11) == 0b11000000
    unknown = replace(hgx_h100(), nics=tuple(replace(nic, rail=9 - 10 * at) for at, nic in enumerate(hgx_h100().nics)))
    assert table(unknown).rails(0b110) == 0b110, "one NIC without a rail: positions count"


@examples(150)
@given(machine=machines(most=5))
def test_a_gpu_talks_through_a_nearest_nic_and_shares_it_as_little_as_can_be(machine: Machine) -> None:
    local = table(machine)
    ranks = local.shape.paths.nic_rank
    usable = bits(local.nics)
    chosen = own_nic(ranks, local.nics)
    if not usable:
        assert set(chosen) == {-1}
        return
    nearest = [[nic for nic in usable if row[nic] == min(row[n] for n in usable)] for row in ranks]
    assert all(nic in near for nic, near in zip(chosen, nearest, strict=True))

    def crowd(assignment: tuple[int, ...]) -> list[int]:
        return sorted((assignment.count(nic) for nic in usable), reverse=True)

    every = [()]
    for near in nearest:
        every = [(*one, nic) for one in every for nic in near]
    assert crowd(chosen) == min(crowd(one) for one in every)


def test_a_set_follows_the_rails_of_the_gang() -> None:
    local = table(hgx_h100())
    assert local.aligned_best(0xFF, 2, 0) == 0b11
    assert local.aligned_best(0xFF, 2, 0b1100) == 0b1100
    assert local.aligned_best(0b11110011, 2, 0b1100) == 0b11, "none of those rails is free"
    assert local.aligned_best(0b11110101, 2, 0b1100) == 0b101, "one of them is; both sets are as fast"
    assert local.aligned_best(0xFF, 2, 0b1100, required=0b1) == 0b101
    assert local.aligned_best(0b1, 2, 0b1) == 0
    l40s = table(pcie_l40s())
    assert l40s.aligned_best(0xFF, 2, 0b1000) == 0b11000000
    assert l40s.aligned_best(0b11011111, 2, 0b100) == l40s.paths.best(0b11011111, 2)[0], "pace before rails"


@examples(150)
@given(machine=machines(), data=st.data())
def test_the_aligned_set_is_the_first_of_all_sets(machine: Machine, data: st.DataObject) -> None:
    local = table(machine)
    free, count = sets_of(data.draw, machine), data.draw(st.integers(1, 4))
    wanted, busy = data.draw(st.integers(0, 63)), data.draw(st.integers(0, 63)) & ~free
    got = local.aligned_best(free, count, wanted, busy=busy)
    best, pace = local.paths.best(free, count)
    if not best:
        assert got == 0
        return
    near = [min((r for r in row), default=0) for row in local.shape.paths.nic_rank]

    def nics(chosen: int) -> tuple[int, int]:
        own = 0  # the most GPUs with a nearest NIC of their own, by trying all
        members, columns = bits(chosen), range(len(machine.nics))
        wants = [[n for n in columns if local.shape.paths.nic_rank[g][n] == near[g] < 5] for g in members]
        stack: list[tuple[int, frozenset[int], int]] = [(0, frozenset(), 0)]
        while stack:
            at, taken, found = stack.pop()
            own = max(own, found)
            if at < len(members):
                stack.append((at + 1, taken, found))
                stack += [(at + 1, taken | {n}, found + 1) for n in wants[at] if n not in taken]
        return sum(near[g] for g in members), -own

    def stray(chosen: int) -> tuple[int, int]:
        rails = local.rails(chosen)
        return ((rails & ~wanted).bit_count(), (wanted & ~rails).bit_count()) if wanted else (0, 0)

    equals = [
        chosen
        for some in combinations(bits(free), count)
        if local.paths.pace(chosen := mask(*some)) == pace and nics(chosen) == nics(best)
    ]
    assert got in equals
    span = {c: (*stray(c), local.paths.numa_span(c)) for c in equals}
    assert span[got] == min(span.values())
    if wanted == 0 and not local.shape.uplinks:
        assert got == best


# --- uplinks ----------------------------------------------------------------------------------------------------------


def test_gpus_behind_one_uplink_are_told() -> None:
    l40s = table(pcie_l40s())
    assert l40s.uplink_load(0b11) == 2000
    assert l40s.uplink_load(0b101) == 0
    assert l40s.uplink_load(0b1, busy=0b10) == 2000, "the neighbour moves data too"
    assert l40s.uplink_load(0b1, busy=0b1100) == 0, "others among themselves are not this set's matter"
    assert l40s.shared_uplinks(0b1111) == (("switch0", 0b11, 2000), ("switch1", 0b1100, 2000))
    assert table(hgx_h100()).uplink_load(0xFF) == 0
    assert l40s.aligned_best(0xFE, 1, 0, busy=0b1) == 0b100, "away from the busy neighbour"


def test_an_uplink_counts_with_the_rates_of_its_machine() -> None:
    def machine(up: int, own: int) -> Machine:
        plain = pcie_l40s()
        gpus = tuple(replace(gpu, pcie=PcieLink(bytes_per_s=own)) for gpu in plain.gpus)
        switches = [PciFunction(id=f"switch{i}", link=PcieLink(bytes_per_s=up)) for i in range(4)]
        return replace(plain, gpus=gpus, pcie=tuple(switches))

    assert table(machine(64, 32)).uplink_load(0b11) == 1000
    assert table(machine(64, 32)).shared_uplinks(0b11) == (), "it carries both"
    assert table(machine(32, 64)).uplink_load(0b11) == 4000
    assert table(machine(0, 32)).uplink_load(0b11) == 2000
    assert table(machine(32, 0)).uplink_load(0b11) == 2000


@examples(150)
@given(machine=machines(), data=st.data())
def test_the_load_of_an_uplink_is_the_sum_of_those_who_share_it(machine: Machine, data: st.DataObject) -> None:
    local = table(machine)
    gpus, busy = sets_of(data.draw, machine), data.draw(st.integers(0, (1 << len(machine.gpus)) - 1))
    up = {function.id: function.link.bytes_per_s for function in machine.pcie}
    worst = 0
    for name in {"/".join(g.pcie_switch.split("/")[:n]) for g in machine.gpus if g.pcie_switch for n in (1, 2)}:
        below = [at for at, g in enumerate(machine.gpus) if f"{g.pcie_switch}/".startswith(f"{name}/")]
        moving = [at for at in below if (gpus | busy) >> at & 1]
        rate = up.get(name.split("/")[-1], 0) or max(machine.gpus[at].pcie.bytes_per_s for at in below) or 1
        if len(moving) > 1 and any(gpus >> at & 1 for at in below):
            total = sum((machine.gpus[at].pcie.bytes_per_s or rate) * 1_000_000 // rate for at in moving)
            worst = max(worst, total // 1000)
    assert local.uplink_load(gpus, busy) <= worst
    if len({g.pcie_switch for g in machine.gpus if "/" in g.pcie_switch}) == 0:  # no switch below a switch
        assert local.uplink_load(gpus, busy) == worst
    every = np.array([one for one in range(1 << len(machine.gpus))], dtype=np.int64)
    assert local._uplinks.loads(every, busy).tolist() == [local.uplink_load(one, busy) for one in every.tolist()]


# --- rings and rank order ---------------------------------------------------------------------------------------------


def test_the_ring_of_a_hybrid_mesh_stays_on_nvlink() -> None:
    machine = read_path(data_file("nvidia-smi-topo/dgx1-v100.txt")).machines[0].machine
    local = table(machine)
    ring = local.ring(0xFF)
    assert sorted(ring) == list(range(8))
    assert ring[0] == 0
    steps = [path_class(machine, f"GPU{ring[at - 1]}", f"GPU{ring[at]}") for at in range(8)]
    assert all(nvlinks(step) for step in steps), "in order of number, 3 to 4 and 7 to 0 would go over the CPUs"
    assert ring_pace(local.shape.paths.pace, ring) > ring_pace(local.shape.paths.pace, range(8))


@st.composite
def pace_matrices(draw: st.DrawFn, sizes: st.SearchStrategy[int]) -> list[list[int]]:
    size = draw(sizes)
    rows = [[0] * size for _ in range(size)]
    for a, b in combinations(range(size), 2):
        rows[a][b] = rows[b][a] = draw(st.integers(0, 4))
    return rows


@examples(100)
@given(pace_matrices(st.integers(1, 6)))
def test_no_ring_has_a_faster_slowest_step(pace: list[list[int]]) -> None:
    ring = fastest_ring(pace, range(len(pace)))
    every = [(0, *rest) for rest in permutations(range(1, len(pace)))]
    fastest = max(ring_pace(pace, one) for one in every)
    assert ring == min(one for one in every if ring_pace(pace, one) == fastest or len(pace) == 1)


@examples(50)
@given(pace_matrices(st.integers(9, 12)))
def test_a_large_ring_is_no_slower_than_the_order_of_numbers_needs(pace: list[list[int]]) -> None:
    ring = fastest_ring(pace, range(len(pace)))
    assert sorted(ring) == list(range(len(pace)))
    assert ring[0] == 0
    one = [[9] * len(pace) for _ in pace]
    assert fastest_ring(one, range(len(pace))) == tuple(range(len(pace)))


def columns(*levels: list[int]) -> list[Any]:
    return [np.array(level, dtype=np.int64) for level in levels]


def test_neighbours_in_rank_are_neighbours_in_the_tree() -> None:
    racks, blocks = [0, 1, 0, 1, 2, 2], [0, 0, 0, 0, 1, 1]
    seats = [(row, 0b1) for row in (5, 3, 0, 4, 1, 2)]
    order = rank_order(seats, columns(racks, blocks), lambda _: table(PLAIN(8)))
    assert [seats[at][0] for at in order] == [0, 2, 1, 3, 4, 5]
    assert rank_order([], [], lambda _: table(PLAIN(8))) == ()


def test_seats_of_one_node_follow_the_ring() -> None:
    local = table(read_path(data_file("nvidia-smi-topo/dgx1-v100.txt")).machines[0].machine)
    seats = [(0, 1 << gpu) for gpu in range(8)] + [(0, 0), (0, 0b1)]
    order = rank_order(seats, columns([0]), lambda _: local)
    ring = local.ring(0xFF)
    assert [seats[at][1].bit_length() - 1 for at in order] == [0, *ring, -1], (
        "shares of one GPU together, the rest last"
    )


@examples(150)
@given(st.data())
def test_rank_order_crosses_no_border_twice(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 12))
    racks = data.draw(st.lists(st.integers(-1, 5), min_size=rows, max_size=rows))
    block_of = data.draw(st.lists(st.integers(0, 2), min_size=7, max_size=7))
    blocks = [block_of[rack] for rack in racks]
    seats = data.draw(
        st.lists(st.tuples(st.integers(0, rows - 1), st.sampled_from([0, 1, 2, 4, 8, 0b11])), max_size=14)
    )
    order = rank_order(seats, columns(racks, blocks), lambda _: table(PLAIN(8)))
    assert sorted(order) == list(range(len(seats)))
    for domain_of in (blocks, racks, range(rows)):
        domains = [domain_of[seats[at][0]] for at in order]
        borders = sum(a != b for a, b in pairwise(domains))
        assert borders == max(0, len(set(domains)) - 1)


# --- pace of a gang ---------------------------------------------------------------------------------------------------


def paces(nodes: list[Any], rates: dict[str, int] | None = None) -> GangPaces:
    cache = TableCache()
    inventory = build_inventory({node.name: node for node in nodes}, 1, cache)
    return GangPaces(inventory, LocalTables(cache), rates)


def test_a_gang_over_two_nodes_runs_at_the_pace_of_its_nics() -> None:
    nodes = [builders.node(f"n{i}", f"hgx rack=r{i // 2}") for i in range(4)]
    of = paces(nodes).of
    nvlink, nic = 450_000_000_000, 50_000_000_000
    assert of([(0, 0b11), (0, 0b100)]) == GangPace(inside=nvlink, islands=1, nodes=1)
    assert of([(0, 0xFF), (1, 0xFF)]) == GangPace(inside=nvlink, between=nic, islands=2, nodes=2, levels=("rack",))
    assert of([(0, 0xFF), (1, 0xFF)]).bytes_per_s == nic
    assert of([(0, 0b1), (1, 0b1), (2, 0b1)]).levels == ("rack", "cluster")
    assert of([(0, 0b1), (2, 0b1)]) == GangPace(between=nic, islands=2, nodes=2, levels=("cluster",))
    assert of([]) == of([(0, 0)]) == GangPace()
    slow = paces(nodes, {"cluster": 10, "rack": 20}).of
    assert slow([(0, 0b1), (1, 0b1)]).between == 20
    assert slow([(0, 0b1), (1, 0b1), (3, 0b1)]).between == 10


def test_a_gang_inside_an_nvlink_domain_leaves_the_network_alone() -> None:
    nodes = [replace(n, machine=replace(gb200_tray(), clique=f"c{i // 2}")) for i, n in enumerate(
        builders.node(f"n{i}", "4 rack=r1") for i in range(4)
    )]  # fmt: skip
    of = paces(nodes, {"island": 1, "rack": 7}).of
    nvlink = 900_000_000_000
    assert of([(0, 0xF), (1, 0xF)]) == GangPace(
        inside=nvlink, between=nvlink, islands=1, nodes=2, levels=("island",)
    ), "the rate of the network does not count where NVLink joins the nodes"
    assert of([(0, 0xF), (1, 0xF), (2, 0xF)]).between == 7
    assert of([(0, 0xF), (1, 0xF), (2, 0xF)]).islands == 2


def test_what_nobody_knows_is_said() -> None:
    nodes = [builders.node(f"n{i}", "8") for i in range(2)]
    found = paces(nodes).of([(0, 0b11), (1, 0b11)])
    assert (found.bytes_per_s, found.known, found.nodes) == (0, False, 2)
    found = paces([builders.node("n0", "hgx"), builders.node("n1", "8")]).of([(0, 0b11), (1, 0b1)])
    assert (found.inside, found.between, found.known) == (450_000_000_000, 50_000_000_000, False)


@st.composite
def fleets(draw: st.DrawFn) -> list[Any]:
    kinds = draw(st.lists(machines(most=3), min_size=1, max_size=3))
    nodes = []
    for i in range(draw(st.integers(1, 5))):
        text = "".join(
            f" {level}={draw(st.sampled_from(['x', 'y']))}" for level in ("rack", "block") if draw(st.booleans())
        )
        machine = replace(draw(st.sampled_from(kinds)), clique=draw(st.sampled_from(["", "", "c1", "c2"])))
        nodes.append(replace(builders.node(f"n{i}", f"1{text}"), machine=machine))
    return nodes


@examples(300)
@given(nodes=fleets(), data=st.data())
def test_the_predicted_pace_is_that_of_the_slowest_of_all_pairs(nodes: list[Any], data: st.DataObject) -> None:
    rates = data.draw(st.dictionaries(st.sampled_from(["island", "rack", "block", "cluster"]), st.integers(0, 60)))
    asked = paces(nodes, rates)
    inventory = asked._inventory
    seats = data.draw(st.lists(st.tuples(st.integers(0, len(nodes) - 1), st.integers(0, 7)), max_size=7))
    seats = [(row, gpus & ((1 << len(nodes[row].machine.gpus)) - 1)) for row, gpus in seats]
    used: dict[int, set[int]] = {}
    for row, gpus in seats:
        used.setdefault(row, set()).update(bits(gpus))
    used = {row: gpus for row, gpus in used.items() if gpus}
    local = {row: asked.table(row) for row in used}

    def nvlink(row: int, gpu: int) -> int:
        ids = {g.id for g in nodes[row].machine.gpus}
        mine = f"GPU{gpu}"
        return max(
            (
                effective(link)
                for link in nodes[row].machine.links
                if mine in (link.a, link.b) and nvlinks(link.path) and (link.a in ids or link.b in ids)
            ),
            default=0,
        )

    linked = {row: all(nvlink(row, gpu) for gpu in gpus) for row, gpus in used.items()}
    inside, between, levels = [], [], set()
    known = True
    for (a, x), (b, y) in combinations([(row, gpu) for row, gpus in sorted(used.items()) for gpu in gpus], 2):
        if a == b:
            inside.append(local[a].shape.paths.pace[x][y])
            known &= inside[-1] > 0
            continue
        level = next(
            name
            for name, one in inventory.levels.items()
            if name != "node" and one.domain_of[a] == one.domain_of[b] >= 0
        )
        levels.add(level)
        island = inventory.levels["island"].domain_of if "island" in inventory.levels else [-1] * len(nodes)
        if island[a] == island[b] >= 0 and linked[a] and linked[b]:
            between += [nvlink(a, x), nvlink(b, y)]
            continue
        for row, gpu in ((a, x), (b, y)):
            nic = own_nic(local[row].shape.paths.nic_rank, local[row].nics)[gpu]
            way = local[row].shape.out[gpu][nic] if nic >= 0 else 0
            between.append(way)
            known &= way > 0
        between.append(rates.get(level, 0))
    got = asked.of(seats)
    assert got.inside == slowest_known(*inside)
    assert got.between == slowest_known(*between)
    assert got.bytes_per_s == slowest_known(*inside, *between)
    assert got.known == known
    assert got.nodes == len(used)
    assert got.levels == tuple(name for name in inventory.levels if name in levels)


@examples(100)
@given(machine=machines(), data=st.data())
def test_islands_are_counted_as_topology_does(machine: Machine, data: st.DataObject) -> None:
    gpus = sets_of(data.draw, machine)
    fastest: dict[str, object] = {}
    for island in islands(machine):
        for member in island.members:
            fastest.setdefault(member, (island.bytes_per_s, island.members))
    expected = {fastest.get(f"GPU{at}", at) for at in bits(gpus)}
    assert table(machine).reach(gpus).islands == len(expected)


@examples(60)
@given(st.data())
def test_level_rates_are_those_of_the_slowest_pair_of_a_tree(data: st.DataObject) -> None:
    leaves = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=8))
    rate = st.integers(0, 90)
    links = [
        FabricLink(a=f"node:n{i}", b=f"switch:l{leaf}", bytes_per_s=data.draw(rate)) for i, leaf in enumerate(leaves)
    ]
    links += [FabricLink(a=f"switch:l{leaf}", b="switch:s", bytes_per_s=data.draw(rate)) for leaf in range(4)]
    fabric = Fabric(links=tuple(links))
    nodes = [builders.node(f"n{i}", f"1 rack=l{leaf}") for i, leaf in enumerate(leaves)]
    inventory = build_inventory({node.name: node for node in nodes}, 1, TableCache())
    expected: dict[str, list[int]] = {}
    for a, b in combinations(range(len(leaves)), 2):
        way = FabricPaths(fabric).route(f"n{a}", f"n{b}")
        rates = [each for _, each in way if each]
        expected.setdefault("rack" if leaves[a] == leaves[b] else "cluster", []).extend(rates)
    assert level_rates(fabric, inventory) == {name: min(rates) for name, rates in expected.items() if rates}


# --- the cache --------------------------------------------------------------------------------------------------------


def test_machines_that_are_alike_share_one_table() -> None:
    tables = LocalTables()
    first = tables.table(identified(hgx_h100(), "n1"))
    assert tables.table(identified(hgx_h100(), "n2")) is first
    assert len(tables) == 1
    other = replace(hgx_h100(), nics=tuple(replace(nic, bytes_per_s=1) for nic in hgx_h100().nics))
    assert tables.table(other) is not first
    assert len(tables) == 2


@pytest.mark.parametrize("machine", [dgx_a100(), hgx_h100(), gb200_tray(), pcie_l40s()], ids=lambda m: m.source)
def test_every_fleet_machine_answers_every_question(machine: Machine) -> None:
    local = table(machine)
    whole = (1 << len(machine.gpus)) - 1
    near, spill = local.cores_for(whole, 16, local.cpus)
    assert (near.bit_count(), spill) == (16, 0)
    assert sorted(local.ring(whole)) == list(range(len(machine.gpus)))
    assert local.nics_for(0b11, 1, local.nics) is not None
    assert cpu_mask(cpu_text(near)) == near
    assert json.dumps(local.shared_uplinks(whole))


@pytest.mark.parametrize(
    "path", [path for path in data_files("nvidia-smi-topo") if path.suffix == ".txt"], ids=lambda path: path.stem
)
def test_machines_that_people_have_are_taken_as_they_are(path: Any) -> None:
    for named in read_path(path).machines:
        local = table(named.machine)
        for gpus in range(1, min(1 << len(named.machine.gpus), 256)):
            chosen, spill = local.cores_for(gpus, 4, local.cpus)
            assert chosen.bit_count() in (0, 4)
            assert spill in (0, 4) or chosen
            found = local.nics_for(gpus, 1, local.nics)
            assert found is None or found.bit_count() == gpus.bit_count()
            assert sorted(local.ring(gpus)) == bits(gpus)
