"""Built-in fleets: the same every time, and true to the machines they are named after."""

from __future__ import annotations

from collections import Counter

import pytest

from fairlead.model.hardware import Machine, Node
from fairlead.topology.fleets import FLEETS, build
from fairlead.topology.graph import check, path_class


def classes(machine: Machine, device: str, others: str) -> list[str]:
    ids = [g.id for g in machine.gpus] if others == "GPU" else [n.id for n in machine.nics]
    return [path_class(machine, device, other) for other in ids]


@pytest.fixture(params=sorted(FLEETS))
def nodes(request: pytest.FixtureRequest) -> tuple[Node, ...]:
    return FLEETS[request.param].nodes


def test_the_fleets_are_the_documented_ones() -> None:
    sizes = {name: len(fleet.nodes) for name, fleet in FLEETS.items()}
    assert sizes == {
        "dgx-a100": 16,
        "hgx-h100": 16,
        "gb200-nvl72": 36,
        "pcie-l40s": 16,
        "a100-mig": 16,
        "h100-mig": 16,
        "mixed": 16,
    }
    assert all(fleet.name == name and fleet.description for name, fleet in FLEETS.items())


def test_no_machine_contradicts_itself(nodes: tuple[Node, ...]) -> None:
    assert [check(node.machine) for node in nodes] == [[]] * len(nodes)


def test_devices_are_named_as_the_driver_names_them_and_are_unique(nodes: tuple[Node, ...]) -> None:
    assert max(Counter(node.name for node in nodes).values()) == 1
    assert max(Counter(gpu.uuid for node in nodes for gpu in node.machine.gpus).values()) == 1
    for node in nodes:
        assert [gpu.device for gpu in node.machine.gpus] == [f"gpu-{i}" for i in range(len(node.machine.gpus))]
        assert (node.driver, node.device_pool, node.pool) == ("gpu.nvidia.com", node.name, "")
        assert node.allocatable.pods == 110
        assert node.allocatable.cpu_milli > 100_000
        assert [level for level, _ in node.levels] == ["block", "rack"]


def test_a_fleet_is_the_same_every_time_and_grows_without_changing() -> None:
    assert build("mixed", 64) == build("mixed", 64)
    assert build("dgx-a100", 100)[:16] == build("dgx-a100")
    assert build("hgx-h100", 1)[0].machine.gpus[0].uuid == "GPU-1b6c38a4-69d0-5d80-7e22-5d11a0f37f1b"


def test_racks_and_blocks_nest() -> None:
    nodes = build("dgx-a100", 40, nodes_per_rack=8, racks_per_block=2, pool="train")
    assert {node.pool for node in nodes} == {"train"}
    racks = Counter(dict(node.levels)["rack"] for node in nodes)
    assert racks == {f"a100-r{i}": 8 for i in range(1, 6)}
    assert Counter(dict(node.levels)["block"] for node in nodes) == {
        "dgx-a100-b1": 16, "dgx-a100-b2": 16, "dgx-a100-b3": 8,
    }  # fmt: skip
    assert nodes[10].name == "a100-r2-n3"


def test_a_mixed_fleet_has_a_rack_of_each_kind() -> None:
    racks = dict.fromkeys((dict(n.levels)["rack"], n.machine.gpus[0].model) for n in build("mixed"))
    assert [rack for rack, _ in racks] == ["h100-r1", "a100-r2", "l40s-r3", "gb200-r4"]


def test_impossible_sizes_and_unknown_names_are_refused() -> None:
    with pytest.raises(KeyError, match="dgx-z9"):
        build("dgx-z9")
    with pytest.raises(ValueError, match="-1 nodes"):
        build("mixed", -1)
    assert build("mixed", 0) == ()


def test_dgx_a100_is_as_its_matrix_says() -> None:
    machine = build("dgx-a100", 1)[0].machine
    assert [gpu.numa for gpu in machine.gpus] == [3, 3, 1, 1, 7, 7, 5, 5]
    assert classes(machine, "GPU2", "GPU") == ["NV12", "NV12", "X", *["NV12"] * 5]
    assert classes(machine, "GPU0", "NIC") == ["PXB", "PXB", *["SYS"] * 6]
    assert classes(machine, "GPU7", "NIC") == [*["SYS"] * 6, "PXB", "PXB"]
    assert machine.links[0].bytes_per_s == 300_000_000_000


def test_hgx_h100_is_as_its_matrix_says() -> None:
    machine = build("hgx-h100", 1)[0].machine
    assert classes(machine, "GPU1", "NIC") == ["NODE", "PIX", "NODE", "NODE", *["SYS"] * 4]
    assert classes(machine, "GPU5", "GPU") == [*["NV18"] * 5, "X", "NV18", "NV18"]
    assert [node.cpus for node in machine.numa_nodes] == ["0-47,96-143", "48-95,144-191"]


def test_nvl72_is_one_clique_of_eighteen_trays() -> None:
    nodes = build("gb200-nvl72")
    cliques = Counter(node.machine.clique for node in nodes)
    assert sorted(cliques.values()) == [18, 18]
    assert sum(len(node.machine.gpus) for node in nodes[:18]) == 72
    for node in nodes:
        assert dict(node.labels)["nvidia.com/gpu.clique"] == node.machine.clique
    tray = nodes[0].machine
    assert classes(tray, "GPU0", "NIC") == ["SYS"] * 4
    assert [gpu.numa for gpu in tray.gpus] == [0, 0, 1, 1]
    assert {link.bytes_per_s for link in tray.links if link.path == "NV18"} == {900_000_000_000}


def test_l40s_has_no_nvlink_and_pairs_below_switches() -> None:
    machine = build("pcie-l40s", 1)[0].machine
    assert classes(machine, "GPU0", "GPU") == ["X", "PIX", "NODE", "NODE", *["SYS"] * 4]
    assert classes(machine, "GPU3", "NIC") == ["NODE", "PIX", "SYS", "SYS"]
    assert not any(node.machine.clique for node in build("pcie-l40s"))
