"""The order of devices and members, and the pace and span of a whole gang, against brute force."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from itertools import combinations, pairwise, permutations
from typing import Any

import builders
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from random_machines import bits, machines, sets_of, table
from random_worlds import examples
from topology_files import data_file

from fairlead.bench.scale_world import cube_mesh
from fairlead.cli import render
from fairlead.discovery.cpu_list import cpu_mask
from fairlead.discovery.sources import read_path
from fairlead.model.events import ForeignDevices
from fairlead.model.fabric import Fabric, FabricLink
from fairlead.model.hardware import Machine
from fairlead.model.ranges import fold, unfold
from fairlead.placement.gang_pace import GangPace, GangPaces, level_rates
from fairlead.placement.local_shape import slowest_known
from fairlead.placement.locality import LocalTables, cpu_text, penalties
from fairlead.placement.nic_matching import own_nic
from fairlead.placement.rank_order import rank_order
from fairlead.placement.rings import fastest_ring, ring_pace
from fairlead.service.view_json import gang_doc
from fairlead.topology.fabric_paths import FabricPaths
from fairlead.topology.fleet_machines import dgx_a100, gb200_tray
from fairlead.topology.islands import islands
from fairlead.topology.paths import effective, nvlinks, path_class
from fairlead.topology.tables import TableCache
from fairlead.world.inventory import build_inventory

PLAIN = builders.plain_machine


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


def test_the_worked_example_of_the_documentation() -> None:
    """Every number of the example in docs/explanation/locality.md."""
    machine = dgx_a100()
    local = table(machine)
    first = local.aligned_best(0xFF, 4, 0)
    assert first == local.rails(first) == local.nics_for(first, 1, local.nics) == 0b1111
    assert local.nic_path(first, 1, local.nics) == "PXB"
    near, spill = local.cores_for(first, 40, local.cpus)
    assert (cpu_text(near), spill) == ("16-25,48-57,144-153,176-185", 0)
    assert local.memory_for(first, 256 << 30, [200 << 30] * 8) == ((0, 128 << 30, 0, 128 << 30, 0, 0, 0, 0), 0)
    assert local.aligned_best(0b11111100, 4, 0) == 0b11110000
    second = local.aligned_best(0b11111100, 4, local.rails(first))
    assert second == 0b111100
    assert penalties(machine, local, first)[0] == "GPU0, GPU1 share the uplink of switch0, 2.0 times over"
    of = paces([builders.node(f"n{i}", "a100 rack=r1") for i in range(2)]).of
    assert of([(0, first), (1, second)]) == GangPace(
        inside=300_000_000_000, between=24_000_000_000, islands=2, nodes=2, levels=("rack",)
    )
    chosen, spill = local.cores_for(0b1100, 16, local.cpus & ~cpu_mask("16-25,144-153"))
    assert (cpu_text(chosen), spill) == ("0-1,26-31,128-129,154-159", 4)
    assert penalties(machine, local, 0, far_cores=spill) == ("4 CPUs are not on the NUMA nodes of the GPUs",)


def test_the_scheduler_decides_the_worked_example_and_says_what_is_worse() -> None:
    stage = builders.Stage([builders.node(f"n{i}", "a100 rack=r1") for i in range(2)], [builders.queue("team")])
    stage.take(ForeignDevices(name="n1", devices=("gpu-0", "gpu-1"), at_ms=builders.T0))
    gang = builders.gang("two", "2x4 cpu=40 port=80")
    stage.seen(replace(gang, roles=(replace(gang.roles[0], nics_per_gpu=1),)))
    stage.settle()
    found = stage.attempt("two").placement
    assert [(m.node, fold(m.devices), fold(m.nics), m.cpus) for m in found.members] == [
        ("n0", "gpu-[0-3]", "NIC[0-3]", "16-25,48-57,144-153,176-185"),
        ("n1", "gpu-[2-5]", "NIC[2-5]", "16-25,112-121,144-153,240-249"),
    ]
    assert (found.pace_bytes_per_s, found.level, found.span) == (
        24_000_000_000, "rack", (("island", 2), ("node", 2), ("rack", 1)),
    )  # fmt: skip
    out = io.StringIO()
    render.explain(gang_doc(stage.view("two")), stage.now_ms, out=out)
    said = out.getvalue()
    assert "pace       24.0 GB/s predicted between any two GPUs of the gang" in said
    assert re.findall(r"worse +(.*)", said) == [
        "GPU0, GPU1 share the uplink of switch0, 2.0 times over",
        "GPU2, GPU3 share the uplink of switch1, 2.0 times over (2 members)",
        "GPU4, GPU5 share the uplink of switch2, 2.0 times over",
    ]


def test_a_pace_that_nobody_knows_is_not_passed_over() -> None:
    stage = builders.Stage([builders.node("n0")], [builders.queue("team")])
    for name, text, said in (("two", "2x1", ", slowest link unknown\n"), ("one", "1x1", ", borrowed\n")):
        stage.submit(name, text)
        stage.settle()
        out = io.StringIO()
        render.explain(gang_doc(stage.view(name)), stage.now_ms, out=out)
        assert said in out.getvalue()


def test_ring_order_is_what_a_status_says() -> None:
    """A hybrid mesh has rings on NVLink alone; statuses and documents list devices along the one that was chosen."""
    machine = cube_mesh()
    node = replace(builders.node("n0"), machine=machine)
    stage = builders.Stage([node], [builders.queue("team")])
    stage.submit("ring", "1x8")
    stage.settle()
    found = stage.attempt("ring").placement
    ring = table(machine).ring(0xFF)
    assert ring != tuple(range(8))
    assert found.members[0].devices == tuple(f"gpu-{at}" for at in ring)
    doc = gang_doc(stage.view("ring"))["allocation"]
    assert doc is not None
    assert unfold(doc["members"][0]["devices"]) == found.members[0].devices


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
