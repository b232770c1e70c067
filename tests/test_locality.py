"""What is chosen beside the GPUs: cores, memory, NICs, rails and uplinks, against brute force."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations, permutations
from typing import Any

import builders
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_machines import bits, machines, mask, sets_of, table
from random_worlds import examples
from topology_files import data_files

from fairlead.discovery.cpu_list import cpu_mask
from fairlead.discovery.sources import read_path
from fairlead.model.hardware import Machine, NumaNode, PcieLink, PciFunction
from fairlead.placement.local_shape import FAR
from fairlead.placement.locality import LocalTables, cpu_text, nic_ids, nic_mask, penalties
from fairlead.placement.nic_matching import match, own_nic
from fairlead.placement.numa_shares import lowest, share
from fairlead.topology.fleet_machines import dgx_a100, gb200_tray, hgx_h100, identified, pcie_l40s
from fairlead.topology.paths import class_rank, path_class

GIB = 1 << 30
PLAIN = builders.plain_machine


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
        ((4, 5), 36, "0-255", "64-65,112-127,192-193,240-255", 4),  # node 4 is of this socket, node 0 is not
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


@examples(150)
@given(
    ranks=st.lists(st.lists(st.sampled_from([0, 0, 1, 2, 5]), min_size=5, max_size=5), min_size=1, max_size=4),
    per_gpu=st.integers(1, 2),
    free=st.integers(0, 31),
)
def test_two_middling_paths_do_not_outweigh_a_good_one(ranks: list[list[int]], per_gpu: int, free: int) -> None:
    slots = [row for row in ranks for _ in range(per_gpu)]
    best: tuple[tuple[int, ...], int] | None = None
    for chosen in permutations(bits(free), len(slots)) if free.bit_count() >= len(slots) else ():
        used = [row[nic] for row, nic in zip(slots, chosen, strict=True)]
        worth = (tuple(-used.count(rank) for rank in range(6)), mask(*chosen))
        best = worth if best is None or worth < best else best
    assert match([[0, 2], [2, 5]], 0b11, 1, 0b11) == (0b11, 5)  # 2 and 2 would be less in sum
    found = match(ranks, (1 << len(ranks)) - 1, per_gpu, free)
    assert (found[0] if found is not None else None) == (best[1] if best is not None else None)


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


def test_what_is_worse_than_it_could_be_is_said() -> None:
    machine = pcie_l40s()
    local = table(machine)
    assert penalties(machine, local, 0b101, nic_path="PXB") == ()
    assert penalties(machine, local, 0b11, far_cores=4, far_bytes=GIB, nic_path="SYS") == (
        "4 CPUs are not on the NUMA nodes of the GPUs",
        "1073741824 bytes of memory are not on the NUMA nodes of the GPUs",
        "a NIC is reached over SYS",
        "GPU0, GPU1 share the uplink of switch0, 2.0 times over",
    )


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
