"""Machines from ``/sys`` and ``/proc``: path classes as nvidia-smi gives them, odd machines, hostile tarballs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from sysfs_machines import BRIDGE, NVME, SysfsTree, dgx_a100, gb200_tray, hgx_h100, switch
from test_discovery import matrix

from fairlead.discovery import sysfs
from fairlead.topology.graph import check, path_class

# --- path classes as nvidia-smi has them


def test_dgx_a100_classes_are_those_of_nvidia_smi(tmp_path: Path) -> None:
    dgx_a100(tmp_path)
    machine, warnings = sysfs.read(tmp_path, name="dgx")
    real, _ = matrix("dgx-a100-12hca")
    nics = [nic.id for nic in machine.nics]
    assert nics == [nic.id for nic in real.nics]
    pairs = [(gpu.id, nic) for gpu in real.gpus for nic in nics] + [(a, b) for a in nics for b in nics]
    assert {pair: path_class(machine, *pair) for pair in pairs} == {pair: path_class(real, *pair) for pair in pairs}
    assert [gpu.numa for gpu in machine.gpus] == [gpu.numa for gpu in real.gpus] == [3, 3, 1, 1, 7, 7, 5, 5]
    assert [gpu.package for gpu in machine.gpus] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert {n.id: n.cpus for n in real.numa_nodes}.items() <= {n.id: n.cpus for n in machine.numa_nodes}.items()
    assert check(machine) == []
    assert len(machine.nvswitches) == 6
    assert [w for w in warnings if "NVLinks" in w], "classes between GPUs are those of PCIe, and that is said"
    assert path_class(machine, "GPU0", "GPU1") == "PXB"


def test_hgx_h100_classes_are_those_of_nvidia_smi(tmp_path: Path) -> None:
    hgx_h100(tmp_path)
    machine, _ = sysfs.read(tmp_path)
    real, _ = matrix("hgx-h100-8nic")
    named = {f"mlx5_{at + 1}": f"NIC{at}" for at in range(8)}
    for gpu in machine.gpus:
        assert {n.id: path_class(machine, gpu.id, n.id) for n in machine.nics} == {
            mlx: path_class(real, gpu.id, nic) for mlx, nic in named.items()
        }
    for a in machine.nics:
        assert all(path_class(machine, a.id, b.id) == path_class(real, named[a.id], named[b.id]) for b in machine.nics)
    assert [gpu.numa for gpu in machine.gpus] == [gpu.numa for gpu in real.gpus]
    assert {n.id: n.cpus for n in machine.numa_nodes} == {n.id: n.cpus for n in real.numa_nodes}
    assert {n.bytes_per_s for n in machine.nics} == {50_000_000_000}
    assert [(d.pci, d.pcie_switch) for d in machine.drives] == [("0000:1a:00.0", machine.gpus[0].pcie_switch)]
    assert Counter(link.path for link in machine.storage_links) == {"PIX": 1, "NODE": 3, "SYS": 4}


def test_what_is_known_of_a_gpu(tmp_path: Path) -> None:
    dgx_a100(tmp_path)
    gpu = sysfs.read(tmp_path)[0].gpus[3]
    assert (gpu.id, gpu.device, gpu.minor) == ("GPU3", "gpu-3", 3)
    assert gpu.uuid == "GPU-00000000-0000-0000-0000-000000000003"
    assert (gpu.model, gpu.vbios, gpu.architecture, gpu.compute) == (
        "NVIDIA A100-SXM4-80GB", "92.00.19.00.10", "ampere", "8.0")  # fmt: skip
    assert {"bf16", "tf32", "fp64"} <= set(gpu.formats)
    assert gpu.partitions_max == 7
    assert (gpu.pcie.generation, gpu.pcie.max_generation, gpu.pcie.lanes) == (1, 4, 16), "idle: generation 1 just now"
    assert gpu.pcie.bytes_per_s == 4_000_000_000
    assert gpu.pcie_root == "pci0000:40"
    assert gpu.pcie_switch == "0000:41:00.0/0000:47:00.0"
    machine = sysfs.read(tmp_path)[0]
    link = next(x for x in machine.links if (x.a, x.b) == ("GPU3", "mlx5_2"))
    assert link.bytes_per_s == 24_000_000_000, "an idle link gives its full pace when it is busy"


def test_shared_uplinks_and_kinds_of_ports(tmp_path: Path) -> None:
    dgx_a100(tmp_path)
    tree = {f.id: f for f in sysfs.read(tmp_path)[0].pcie}
    chain = ["0000:00:01.1", "0000:01:00.0", "0000:02:00.0", "0000:03:00.0", "0000:04:00.0", "0000:05:00.0"]
    kinds = ["root-port", "switch-upstream", "switch-downstream", "switch-upstream", "switch-downstream", "gpu"]
    assert [tree[pci].kind for pci in chain] == kinds
    assert [tree[pci].parent for pci in chain] == ["pci0000:00", *chain[:-1]]
    assert [tree[pci].link.shared for pci in chain] == [True, True, False, False, False, False]
    assert tree["0000:01:00.0"].link.bytes_per_s == 16 * 1_969_230_769
    assert tree["pci0000:00"].buses == "00-11"


# --- odd machines


def two_nodes(root: Path) -> SysfsTree:
    tree = SysfsTree(root)
    tree.cpus(8, packages=2)
    tree.node(0, "0-3", distances="10 21")
    tree.node(1, "4-7", distances="21 10")
    return tree


def test_unknown_numa_nodes_stay_unknown(tmp_path: Path) -> None:
    tree = two_nodes(tmp_path)
    tree.gpu("pci0000:00/0000:00:01.0/0000:01:00.0", numa=-1)
    tree.gpu("pci0000:40/0000:40:01.0/0000:41:00.0", numa=-1)
    tree.gpu("pci0000:80/0000:80:01.0/0000:81:00.0", numa=-1)
    tree.write("sys/devices/pci0000:80/0000:80:01.0/0000:81:00.0/local_cpulist", "4-7")
    for bus in ("00", "40", "80"):
        tree.pci(f"pci0000:{bus}/0000:{bus}:01.0", BRIDGE)
    machine, warnings = sysfs.read(tmp_path)
    assert [gpu.numa for gpu in machine.gpus] == [-1, -1, 1], "the third says which CPUs are near"
    assert path_class(machine, "GPU0", "GPU1") == "", "neither NODE nor SYS is certain"
    assert machine.links == ()
    assert sum("NUMA node unknown (-1) on a machine of 2" in warning for warning in warnings) == 2


def test_numa_switched_off_puts_everything_on_the_only_node(tmp_path: Path) -> None:
    tree = SysfsTree(tmp_path)
    tree.cpus(8, packages=2)
    tree.node(0, "0-7")
    tree.gpu("pci0000:00/0000:01:00.0", numa=-1)
    tree.gpu("pci0000:40/0000:41:00.0", numa=-1)
    machine, _ = sysfs.read(tmp_path)
    assert [(gpu.numa, gpu.package) for gpu in machine.gpus] == [(0, -1), (0, -1)], "which socket is not certain"
    assert path_class(machine, "GPU0", "GPU1") == "NODE"


def test_long_pci_domains_and_virtual_buses(tmp_path: Path) -> None:
    tree = two_nodes(tmp_path)
    vmbus = "LNXSYSTM:00/LNXSYBUS:00/VMBUS:00"
    tree.gpu(f"{vmbus}/47505500-0001-0000-3130-444531303244/pci0001:00/0001:00:00.0", numa=0)
    tree.gpu(f"{vmbus}/47505500-0002-0000-3130-444531303244/pci10002:00/10002:00:00.0", numa=0)
    tree.pci("pci0000:16/0000:16:00.5/pci10000:00/10000:00:02.0", BRIDGE, numa=0)
    tree.pci("pci0000:16/0000:16:00.5/pci10000:00/10000:00:02.0/10000:01:00.0", NVME, numa=0)
    machine, warnings = sysfs.read(tmp_path)
    assert [(gpu.pci, gpu.pcie_root) for gpu in machine.gpus] == [
        ("0001:00:00.0", "pci0001:00"),
        ("10002:00:00.0", "pci10002:00"),
    ]
    assert [(drive.pci, drive.pcie_root, drive.pcie_parent) for drive in machine.drives] == [
        ("10000:01:00.0", "pci10000:00", "10000:00:02.0")
    ]
    assert warnings == ()


def test_sixteen_gpus_and_twelve_nvswitches(tmp_path: Path) -> None:
    tree = two_nodes(tmp_path)
    for at in range(16):
        tree.gpu(f"pci0000:{16 * at:02x}/0000:{16 * at + 1:02x}:00.0", numa=at // 8)
    for at in range(12):
        tree.pci(f"pci0000:0f/0000:0f:{at:02x}.0", "0x068000", vendor="0x10de", numa=0)
    machine, _ = sysfs.read(tmp_path)
    assert (len(machine.gpus), len(machine.nvswitches), len(machine.links)) == (16, 12, 120)


def test_a_gb200_tray(tmp_path: Path) -> None:
    gb200_tray(tmp_path)
    machine, warnings = sysfs.read(tmp_path)
    assert [(n.id, n.distances) for n in machine.numa_nodes] == [(0, (10, 40)), (1, (40, 10))]
    assert [(n.id, n.gpu) for n in machine.memory_nodes] == [(g.memory_numa, g.pci) for g in machine.gpus]
    assert {path_class(machine, gpu.id, nic.id) for gpu in machine.gpus for nic in machine.nics} == {"SYS"}
    assert [(w.a, w.b, w.kind) for w in machine.wires] == [
        ("GPU0", "numa:0", "c2c"), ("GPU1", "numa:0", "c2c"), ("GPU2", "numa:1", "c2c"), ("GPU3", "numa:1", "c2c")
    ]  # fmt: skip
    assert "node3: it has neither CPUs nor memory" in warnings[0]


def test_virtual_functions_belong_to_their_device(tmp_path: Path) -> None:
    tree = two_nodes(tmp_path)
    tree.hca("pci0000:00/0000:01:00.0", "mlx5_0", numa=0)
    tree.hca("pci0000:00/0000:01:00.1", "mlx5_1", numa=0)
    tree.link("sys/devices/pci0000:00/0000:01:00.1/physfn", "sys/devices/pci0000:00/0000:01:00.0")
    machine, _ = sysfs.read(tmp_path)
    assert [nic.id for nic in machine.nics] == ["mlx5_0"]
    assert {f.id: f.physical for f in machine.pcie}["0000:01:00.1"] == "0000:01:00.0"


def test_a_bond_is_named_with_its_members(tmp_path: Path) -> None:
    tree = two_nodes(tmp_path)
    for at in (0, 1):
        tree.hca(f"pci0000:00/0000:01:00.{at}", f"mlx5_{at}", numa=0, netdev=f"ens1f{at}")
        tree.link(f"sys/devices/pci0000:00/0000:01:00.{at}/net/ens1f{at}/master", "sys/devices/virtual/net/bond0")
    tree.write("sys/devices/virtual/net/bond0/speed", "200000")
    machine, _ = sysfs.read(tmp_path)
    assert [(nic.id, nic.netdevs, nic.kind) for nic in machine.nics] == [
        ("mlx5_0", ("ens1f0", "bond0"), "ethernet"),
        ("mlx5_1", ("ens1f1", "bond0"), "ethernet"),
    ]


@pytest.mark.parametrize(
    ("setup", "posture", "direct"),
    [
        ({"sys/kernel/iommu_groups": None}, "off", {"PIX": "available", "SYS": "partial"}),
        ({"type": "identity"}, "passthrough", {"PIX": "available", "SYS": "partial"}),
        ({"type": "DMA-FQ"}, "translated", {"PIX": "absent", "SYS": "absent"}),
        ({}, "", {"PIX": "", "SYS": ""}),
    ],
)
def test_the_posture_of_the_iommu_decides_on_direct_paths(
    tmp_path: Path, setup: dict[str, str | None], posture: str, direct: dict[str, str]
) -> None:
    tree = two_nodes(tmp_path)
    port = "pci0000:00/0000:00:01.0"
    tree.pci(port, BRIDGE, numa=0)
    gpu, nic = switch(tree, port, up="0000:01:00.0", downs=("0000:02:00.0", "0000:02:01.0"))
    tree.gpu(f"{gpu}/0000:03:00.0", numa=0)
    tree.hca(f"{nic}/0000:04:00.0", "mlx5_0", numa=0)
    tree.hca("pci0000:80/0000:81:00.0", "mlx5_1", numa=1)
    if "type" in setup:
        tree.write("sys/kernel/iommu_groups/7/type", setup["type"] or "")
        tree.link(f"sys/devices/{gpu}/0000:03:00.0/iommu_group", "sys/kernel/iommu_groups/7")
    elif setup:
        (tmp_path / "sys/kernel/iommu_groups").mkdir(parents=True)
    machine, _ = sysfs.read(tmp_path)
    assert machine.iommu == posture
    assert {link.path: link.direct for link in machine.links if link.a == "GPU0"} == direct


def config_space(*, port_type: int = 6, redirect: bool = False) -> bytes:
    """4 KiB with the PCI Express capability and access control services in it."""
    space = bytearray(4096)
    space[0x19:0x1B] = bytes((3, 3))
    space[0x34], space[0x40], space[0x42] = 0x40, 0x10, port_type << 4
    space[0x100:0x104] = (0x000D | 1 << 16).to_bytes(4, "little")
    space[0x106] = 0b1100 if redirect else 0
    return bytes(space)


@pytest.mark.parametrize("redirect", [False, True])
def test_access_control_sends_peers_through_the_host(tmp_path: Path, redirect: bool) -> None:
    tree = two_nodes(tmp_path)
    (tmp_path / "sys/kernel/iommu_groups").mkdir(parents=True)
    root = "pci0000:00/0000:00:01.0"
    tree.pci(root, BRIDGE, config=config_space(port_type=4))
    tree.pci(f"{root}/0000:01:00.0", BRIDGE, config=config_space(port_type=5))
    for at in (0, 1):
        down = f"{root}/0000:01:00.0/0000:02:0{at}.0"
        tree.pci(down, BRIDGE, config=config_space(redirect=redirect))
        if at:
            tree.hca(f"{down}/0000:04:00.0", "mlx5_0", numa=0)
        else:
            tree.gpu(f"{down}/0000:03:00.0", numa=0, config=config_space(port_type=0))
    machine, _ = sysfs.read(tmp_path)
    [link] = machine.links
    assert link.path == "PIX"
    kinds = {f.id: f.kind for f in machine.pcie}
    assert (kinds["0000:01:00.0"], kinds["0000:02:01.0"]) == ("switch-upstream", "switch-downstream")
    assert link.direct == ("partial" if redirect else "available")
    assert {f.id: f.link.p2p for f in machine.pcie}["0000:02:00.0"] == ("redirected" if redirect else "yes")


def test_no_numa_and_no_gpu(tmp_path: Path) -> None:
    tree = SysfsTree(tmp_path)
    tree.cpus(4, offline=(3,))
    tree.write("proc/meminfo", "MemTotal:       2048 kB")
    machine, warnings = sysfs.read(tmp_path, name="small")
    assert [(n.id, n.cpus, n.memory_bytes) for n in machine.numa_nodes] == [(0, "0-2", 2048 << 10)]
    assert machine.gpus == ()
    assert [w.split(": ", 1)[1] for w in warnings] == [
        "sys/devices/system/cpu: CPUs 3 are offline; they do not count",
        "sys/devices/system/node: no NUMA nodes; the machine counts as one",
        "pci: no GPU among the functions",
    ]


def test_old_kernels_have_packages_in_cpuinfo_alone(tmp_path: Path) -> None:
    tree = SysfsTree(tmp_path)
    tree.node(0, "0-1")
    said = "\n\n".join(f"processor\t: {cpu}\nmodel name\t: Old\nphysical id\t: {3 * cpu}" for cpu in (0, 1))
    tree.write("proc/cpuinfo", said)
    machine, _ = sysfs.read(tmp_path)
    assert [(p.id, p.cpus, p.model) for p in machine.packages] == [(0, "0", "Old"), (3, "1", "Old")]


def test_an_empty_node_is_left_out_and_distances_follow(tmp_path: Path) -> None:
    tree = two_nodes(tmp_path)
    tree.node(0, "0-3", distances="10 40 21")
    tree.node(1, "4-7", distances="21 40 10")
    tree.node(1, "", memory_kb=0, distances="40 10 40")
    tree.node(2, "4-7", distances="21 40 10")
    machine, warnings = sysfs.read(tmp_path)
    assert [(n.id, n.distances) for n in machine.numa_nodes] == [(0, (10, 21)), (2, (21, 10))]
    assert "node1: it has neither CPUs nor memory" in warnings[0]


def test_damaged_files_are_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    tree = two_nodes(tmp_path)
    tree.node(1, "4-", distances="21 ten")
    tree.gpu("pci0000:00/0000:01:00.0", numa=0)
    tree.write("sys/devices/pci0000:00/0000:01:00.0/numa_node", "zero")
    tree.pci("pci0000:00/0000:02:00.0", "0x03", vendor="nobody")
    tree.write("sys/devices/pci0000:00/0000:02:00.0/class", "")
    tree.write("sys/bus/pci/devices/nonsense/class", "0x030200")
    machine, warnings = sysfs.read(tmp_path)
    assert [gpu.numa for gpu in machine.gpus] == [-1]
    assert [n.distances for n in machine.numa_nodes] == [(10, 21), ()]
    for said in (
        "node1/cpumap",
        "node1/distance",
        "0000:02:00.0/class",
        "'zero' is no NUMA node",
        "devices/nonsense",
        "GPU0: NUMA node unknown",
    ):
        assert any(said in warning for warning in warnings), said
