"""Questions asked of machines and fabrics: paths, islands, sets, contention, differences, losses, measurements."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from topology_files import MODEL, data_file

from fairlead.discovery.sources import read_bytes, read_path
from fairlead.errors import NotFound
from fairlead.model.fabric import Fabric, FabricLink, FabricVertex, Inventory, NamedMachine
from fairlead.model.hardware import Gpu, Link, Machine, Nic, PcieLink
from fairlead.topology.differences import differences, loss
from fairlead.topology.findings import findings
from fairlead.topology.fleet_inventory import fleet_inventory
from fairlead.topology.fleets import build
from fairlead.topology.graph import inventory_graph
from fairlead.topology.islands import islands
from fairlead.topology.measured import Measurement, with_measurements
from fairlead.topology.queries import Questions, nics_of
from fairlead.topology.sets import best_set, mask_of
from fairlead.topology.tables import ShapeTable, shape_key

NVLINK = 25_000_000_000


def fleet(name: str, nodes: int = 1) -> Inventory:
    return fleet_inventory(build(name, nodes), source=f"fleet:{name}")


def dgx1() -> Machine:
    return read_path(data_file("nvidia-smi-topo/dgx1-v100.txt")).machines[0].machine


# --- paths and pairs


def test_paths_inside_a_machine_name_class_and_bottleneck() -> None:
    questions = Questions(fleet("hgx-h100"))
    near = questions.path("GPU0", "NIC0")
    assert (near.path, near.bytes_per_s, near.bottleneck) == ("PIX", 50_000_000_000, "port of NIC0")
    assert questions.path("GPU0", "GPU7").bytes_per_s == 18 * NVLINK
    assert questions.path("GPU0", "0000:9a:00.0").path == "SYS", "a PCI address is a name too"
    with pytest.raises(NotFound, match="no device or machine 'GPU9'"):
        questions.path("GPU0", "GPU9")


def test_paths_between_machines_take_nvlink_inside_a_domain_and_the_fabric_outside() -> None:
    nvl = Questions(fleet("gb200-nvl72", 20))
    inside = nvl.path("gb200-r1-n1/GPU0", "gb200-r1-n2/GPU3")
    assert (inside.path, inside.bytes_per_s, inside.bottleneck) == ("NV18", 900_000_000_000, "nvl-domain:gb200-r1.0")
    apart = nvl.path("gb200-r1-n1/GPU0", "gb200-r2-n1/GPU0")
    assert (apart.path, apart.bytes_per_s) == ("", 0), "nobody knows a fabric between these racks"
    with pytest.raises(NotFound, match="'GPU0' is on 20 machines; say which"):
        nvl.path("GPU0", "GPU1")


def h100_fabric(*, rate: int = 0) -> Inventory:
    """Three H100 machines below two leaves and a spine; `rate` is that of every uplink of a leaf."""
    inventory = fleet("hgx-h100", 3)
    names = [found.name for found in inventory.machines]
    leaves = dict(zip(names, ("l1", "l1", "l2"), strict=True))
    switches = tuple(FabricVertex(id=i, kind="switch", tier=t) for i, t in (("l1", 1), ("l2", 1), ("s", 2)))
    links = tuple(FabricLink(a=f"node:{n}", b=f"switch:{leaf}", rdma="roce") for n, leaf in leaves.items())
    links += tuple(FabricLink(a=f"switch:{x}", b="switch:s", bytes_per_s=rate, latency_ns=500) for x in ("l1", "l2"))
    fabric = Fabric(vertices=(*inventory.fabric.vertices, *switches), links=(*inventory.fabric.links, *links))
    return replace(inventory, fabric=fabric)


def test_the_fabric_path_counts_switches_and_finds_the_slowest_part() -> None:
    questions = Questions(h100_fabric(rate=40_000_000_000))
    one, two, three = (found.name for found in questions.inventory.machines)
    near = questions.path(f"{one}/GPU0", f"{two}/GPU0")
    assert (near.path, near.hops, near.bytes_per_s) == ("NET", 1, 50_000_000_000)
    far = questions.path(f"{one}/GPU0", f"{three}/GPU0")
    assert (far.hops, far.bytes_per_s, far.bottleneck) == (3, 40_000_000_000, "uplink to switch:s")
    assert far.via[1:4] == ("switch:l1", "switch:s", "switch:l2")
    spread = questions.of_set([f"{one}/GPU0", f"{one}/GPU1", f"{three}/GPU0"])
    assert spread.weakest is not None
    assert (spread.weakest.bytes_per_s, spread.nodes, spread.fabric_hops) == (40_000_000_000, 2, 3)
    assert (spread.islands, spread.numa_nodes) == (2, 2)


def test_the_weakest_pair_of_a_set_is_its_pace() -> None:
    machine = dgx1()
    inventory = Inventory(source="x", machines=(NamedMachine(name="m", machine=machine),))
    answer = Questions(inventory).of_set(["GPU0", "GPU3", "GPU4"])
    assert answer.weakest is not None
    assert (answer.weakest.path, answer.weakest.a, answer.weakest.b) == ("SYS", "GPU3", "GPU4")
    table = ShapeTable(shape_key(machine))
    assert answer.weakest.bytes_per_s == table.pace(mask_of(machine, ["GPU0", "GPU3", "GPU4"]))


# --- NICs, islands, sharing


def test_nics_of_a_gpu_come_by_path_and_those_near_nobody_last() -> None:
    machine = read_path(data_file("nvidia-smi-topo/dgx-a100-12hca.txt")).machines[0].machine
    assert [(c.nic, c.path) for c in nics_of(machine, "GPU2")][:3] == [
        ("mlx5_2", "PXB"), ("mlx5_3", "PXB"), ("mlx5_0", "SYS")]  # fmt: skip
    sharers = {choice.nic: choice.sharers for choice in nics_of(machine, "GPU2")}
    assert sharers["mlx5_2"] == ("GPU3",)
    for nic in ("mlx5_4", "mlx5_5", "mlx5_10", "mlx5_11"):
        assert all(c.path == "SYS" for g in machine.gpus for c in nics_of(machine, g.id) if c.nic == nic)


def test_islands_follow_the_threshold_and_their_names_do_not_follow_the_order() -> None:
    machine = read_path(data_file("nvidia-smi-topo/a100-pcie-2x-nvlink-bridge.txt")).machines[0].machine
    fast = islands(machine, 100_000_000_000)
    assert [(i.name, i.members, i.complete) for i in fast] == [
        ("NV12@GPU0", ("GPU0", "GPU1"), True), ("NV12@GPU2", ("GPU2", "GPU3"), True)]  # fmt: skip
    turned = replace(machine, gpus=machine.gpus[::-1])
    assert {i.name for i in islands(turned, 100_000_000_000)} == {i.name for i in fast}
    everything = islands(machine)
    assert [i.path for i in everything] == ["NV12", "NV12", "SYS"]
    assert (everything[-1].complete, everything[-1].pace) == (True, 10_000_000_000)
    assert islands(dgx1())[0].complete is False


def test_what_is_shared_with_whom() -> None:
    shared = Questions(h100_fabric()).shared_with("h100-r1-n1/GPU0")
    assert shared["switch:switch0"] == ("GPU0", "NIC0")
    assert shared["rack:h100-r1"] == ("h100-r1-n1", "h100-r1-n2", "h100-r1-n3")
    assert shared["switch:l1"] == ("h100-r1-n1", "h100-r1-n2")
    assert list(shared)[-1] == "switch:s"


def test_several_gpus_behind_one_uplink_are_flagged_with_their_ratio() -> None:
    inventory = read_path(data_file("nccl-topo/aws/p4d-24xl-topo.xml"))
    flagged = Questions(inventory).of_set(["GPU0", "GPU1", "GPU2"]).contention
    assert flagged == ("GPU0, GPU1 share the uplink of ffff:ff:01.0, 3.0 times over",)
    assert Questions(inventory).of_set(["GPU0", "GPU2", "GPU4", "GPU6"]).contention == ()
    graph = inventory_graph(inventory)
    edge = graph.edges["p4d-24xl-topo/root:cpu0", "p4d-24xl-topo/switch:ffff:ff:01.0", "tree"]
    assert (edge["generation"], edge["lanes"], edge["shared"], edge["oversubscription"]) == (3, 16, True, 3_000_000)


def test_machines_and_fabric_are_one_graph() -> None:
    graph = inventory_graph(h100_fabric(rate=7))
    assert graph.edges["h100-r1-n1/NIC3", "switch:l1", "network"]["bytes_per_s"] == 50_000_000_000
    assert graph.edges["h100-r1-n1/NIC3", "switch:l1", "network"]["rdma"] == "roce"
    assert graph.edges["switch:l1", "switch:s", "network"]["latency_ns"] == 500
    assert graph.has_edge("node:h100-r1-n2", "rack:h100-r1")
    rail = replace(h100_fabric(), fabric=Fabric(
        vertices=(FabricVertex(id="rail3", kind="switch", tier=1),),
        links=(FabricLink(a="node:h100-r1-n1", b="switch:rail3", rail=3),)))  # fmt: skip
    assert list(inventory_graph(rail).neighbors("switch:rail3")) == ["h100-r1-n1/NIC3"]


# --- sets, against what a known allocator chooses

POLICY = Path("go-gpuallocator/testcases_dev.json")
P2P = {"P2PLinkCrossCPU": "SYS", "P2PLinkHostBridge": "PHB", "P2PLinkSingleSwitch": "PIX"}
SCORE = {"SYS": 10, "PHB": 30, "PIX": 50}


def allocator_machine(node: dict[str, Any]) -> tuple[Machine, dict[tuple[int, int], int]]:
    """The node as a machine, and the allocator's own score of each pair (its links' worth added up)."""
    tree: dict[tuple[int, int], str] = {}
    lanes: dict[tuple[int, int], int] = {}
    for a, b, kind in node["links"]:
        pair = (min(a, b), max(a, b))
        if kind in P2P:
            tree[pair] = P2P[kind]
        else:
            lanes[pair] = {"SingleNVLINKLink": 1, "TwoNVLINKLinks": 2}[kind]
    count = node["gpus"]
    gpus = tuple(
        Gpu(id=f"GPU{i}", index=i, device=f"gpu-{i}", numa=i // 4, pcie_root=f"r{i // 4}", pcie_switch=f"s{i // 2}")
        for i in range(count)
    )
    links = tuple(
        Link(a=f"GPU{a}", b=f"GPU{b}", path=f"NV{lanes[a, b]}" if (a, b) in lanes else tree[a, b], bytes_per_s=0)
        for a, b in combinations(range(count), 2)
    )
    score = {pair: SCORE[tree[pair]] + 100 * lanes.get(pair, 0) for pair in tree}
    return Machine(gpus=gpus, links=links), score


def of_bits(mask: int) -> list[int]:
    return [i for i in range(mask.bit_length()) if mask >> i & 1]


def to_bits(devices: list[int]) -> int:
    return sum(1 << i for i in devices)


def test_sets_are_those_of_the_allocator_or_faster() -> None:
    cases = json.loads(data_file(str(POLICY)).read_text())
    machine, score = allocator_machine(cases["nodes"]["DGX1Volta"])
    table = ShapeTable(shape_key(machine))
    worth = lambda devices: sum(score[pair] for pair in combinations(sorted(devices), 2))  # noqa: E731
    faster: list[str] = []
    for test in cases["tests"]:
        for call in test["policy_calls"]:
            mask, pace = table.best(to_bits(call["available"]), call["size"], to_bits(call["required"]))
            if of_bits(mask) != call["result"]:
                faster.append(call["description"])
                assert pace > table.pace(to_bits(call["result"])), "another set only where its slowest pair is faster"
                assert worth(of_bits(mask)) > worth(call["result"]), "and by the allocator's own score"
        free, ours, theirs = 255, 0, 0
        for size, result in test["sequential_allocations_without_free"]:
            mask, pace = table.best(free, size)
            free &= ~mask
            assert mask.bit_count() == len(result)
            assert pace >= table.pace(to_bits(result))
            ours, theirs = ours + worth(of_bits(mask)), theirs + worth(result)
            assert ours >= theirs, "no step of the sequence is behind in the allocator's own score"
    assert faster == ["Single NVLINK, prefer same switch"], "there NV2 across sockets beats NV1 inside one"


def test_a_set_tells_its_nics_and_what_it_leaves() -> None:
    machine = build("hgx-h100", 1)[0].machine
    found = best_set(machine, ShapeTable(shape_key(machine)), 2, free=0xFF, required=mask_of(machine, ["GPU5"]))
    assert found is not None
    assert "GPU5" in found.devices
    assert all(choice.path == "PIX" for _, choice in found.nics)
    assert len({choice.nic for _, choice in found.nics}) == 2
    assert found.leaves[-1] == (6, 18 * NVLINK)
    with pytest.raises(NotFound, match="no GPU 'GPU9'"):
        mask_of(machine, ["GPU9"])
    assert best_set(machine, ShapeTable(shape_key(machine)), 9, free=0xFF) is None


# --- measured beside theory


def test_a_slow_link_is_flagged_and_weighs_less() -> None:
    inventory = fleet("hgx-h100")
    slow = with_measurements(
        inventory, [Measurement(a="GPU0", b="GPU1", bytes_per_s=100_000_000_000, latency_ns=900, at_ms=7)]
    )
    answer = Questions(slow).path("GPU0", "GPU1")
    assert (answer.bytes_per_s, answer.theory_bytes_per_s) == (100_000_000_000, 18 * NVLINK)
    flagged = [f for f in findings(slow) if "measured" in f.what]
    assert [(f.where, f.what) for f in flagged] == [
        ("h100-r1-n1: GPU0-GPU1 (NV18)", "measured 100000000000 bytes/s, 22 % of 450000000000")]  # fmt: skip
    machine = slow.machines[0].machine
    mask, pace = ShapeTable(shape_key(machine)).best(0b111, 2)
    assert pace == 18 * NVLINK
    assert mask != 0b11, "the pair that was measured slow is not taken first"
    assert [f for f in findings(with_measurements(inventory, [Measurement(a="GPU0", b="GPU1",
            bytes_per_s=400_000_000_000)])) if "measured" in f.what] == []  # fmt: skip


def test_measurements_that_fit_nowhere_are_said() -> None:
    found = with_measurements(fleet("hgx-h100", 2), [Measurement(a="GPU0", b="GPU1", bytes_per_s=1),
                              Measurement(a="GPU0", b="GPU77", machine="h100-r1-n1", bytes_per_s=1)])  # fmt: skip
    assert ["no machine ''" in w.what or "no such link" in w.what for w in found.warnings] == [True, True]


# --- differences and losses


def test_differences_are_by_identity_not_by_name() -> None:
    before = fleet("hgx-h100")
    assert differences(before, before) == ()
    machine = before.machines[0].machine
    renamed = tuple(replace(gpu, id=f"gpu{gpu.index}") for gpu in machine.gpus)
    names = {old.id: new.id for old, new in zip(machine.gpus, renamed, strict=True)}
    links = tuple(replace(k, a=names.get(k.a, k.a), b=names.get(k.b, k.b)) for k in machine.links)
    same = replace(before, machines=(NamedMachine(name="h100-r1-n1", machine=replace(machine, gpus=renamed,
                                                                                     links=links)),))  # fmt: skip
    assert {(c.what, c.field) for c in differences(before, same)} == {("changed", "id")}
    lost = replace(machine, gpus=machine.gpus[1:], links=tuple(
        replace(k, path="NV9", bytes_per_s=1) if (k.a, k.b) == ("GPU1", "GPU2") else k
        for k in machine.links if "GPU0" not in (k.a, k.b)))  # fmt: skip
    after = replace(before, machines=(NamedMachine(name="other", machine=lost),))
    assert [(c.where, c.what, c.field, c.after) for c in differences(before, after)] == [
        ("h100-r1-n1/GPU0", "removed", "", ""),
        ("h100-r1-n1/GPU1-GPU2", "changed", "path", "NV9"),
        ("h100-r1-n1/GPU1-GPU2", "changed", "bytes_per_s", "1"),
    ]


def test_differences_of_fabrics() -> None:
    before = read_bytes(MODEL, name="a", machine="x")
    after = read_bytes(MODEL.replace(b"l3: ", b"l4: ").replace(b"switch: l3", b"switch: l4").replace(b"[l3]", b"[l4]"),
                       name="a", machine="x")  # fmt: skip
    assert [(c.where, c.what) for c in differences(before, after)] == [
        ("switch:l3", "removed"), ("switch:l4", "added"),
        ("node:n12-switch:l3", "removed"), ("switch:l3-switch:s2", "removed"),
        ("node:n12-switch:l4", "added"), ("switch:l4-switch:s2", "added")]  # fmt: skip


def test_what_goes_with_a_device_a_switch_and_a_rack() -> None:
    inventory = h100_fabric()
    one = loss(inventory, "h100-r1-n1/GPU3")
    assert "7 of 8 GPUs remain" in one.consequences
    assert "no set of 8 GPUs is left" in one.consequences
    nic = loss(inventory, "h100-r1-n1/NIC3")
    assert "GPU3 falls from NIC3 (PIX) to NIC0 (NODE)" in nic.consequences
    assert loss(inventory, "h100-r1-n1/switch:switch2").gone == ("GPU2", "NIC2")
    assert loss(inventory, "switch:l1").consequences == ("2 of 2 nodes below lose their only way to other nodes",)
    assert loss(inventory, "rack:h100-r1").consequences == ("3 nodes with 24 GPUs are in it",)
    with pytest.raises(NotFound):
        loss(inventory, "h100-r1-n1/switch:none")


def test_narrow_links_and_sick_devices_are_findings() -> None:
    machine = Machine(
        source="x",
        gpus=(Gpu(id="GPU0", index=0, device="gpu-0", pcie=PcieLink(generation=5, lanes=8, max_lanes=16),
                  healthy=False, health_reason="Xid79"),),
        nics=(Nic(id="NIC0"),),
    )  # fmt: skip
    found = findings(Inventory(source="x", machines=(NamedMachine(name="m", machine=machine),)))
    assert [(f.where, f.what) for f in found] == [
        ("m/GPU0", "PCIe link runs on 8 of 16 lanes"), ("m/GPU0", "not healthy: Xid79")]  # fmt: skip
