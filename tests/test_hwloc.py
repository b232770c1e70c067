"""What hwloc found on machines, and what we find in the same files: equal for every fact that a machine has."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hwloc_console import GIB, read_console

from fairlead.discovery import hwloc_xml, sysfs
from fairlead.discovery.cpu_list import parse_list
from fairlead.errors import UnreadableInput
from fairlead.model.hardware import Machine
from fairlead.topology.graph import check, path_class

DATA = Path(os.environ.get("FAIRLEAD_DATA", Path(__file__).resolve().parents[1] / "../shared/data"))
WITH_XML = ("32em64t-2n8c+dax+nvme+mic+dimms", "40intel64-2g2n4c+pcilocality")
WITH_CONSOLE = ("16em64t-4s2c2t-offlines", "64amd64-4s2n4ca2co", "nvidiagpunumanodes")
XML = ("16intel64-manyVFs", "24em64t-2n6c2t-pci", "32em64t-2n8c2t-pci-wholeio", "96em64t-4n4d3ca2co-pci", "nvidiaDGX2")


def real_file(path: str) -> bytes:
    file = DATA / "hwloc" / path
    if not file.is_file():
        assert os.environ.get("CI") != "true", f"{path} is missing; set FAIRLEAD_DATA"
        pytest.skip(f"no {path}; set FAIRLEAD_DATA to the data folder")
    return file.read_bytes()


def snapshot(name: str) -> tuple[Machine, tuple[str, ...]]:
    return sysfs.parse_tarball(real_file(f"linux_sysfs/{name}.tar.bz2"), name=name)


def exported(name: str, folder: str = "xml") -> tuple[Machine, tuple[str, ...]]:
    return hwloc_xml.parse(real_file(f"{folder}/{name}.xml"), name=name)


def cpus(text: str) -> set[int]:
    found = parse_list(text)
    assert found is not None
    return set(found)


def differences(ours: Machine, expected: Machine) -> dict[str, list[str]]:
    """Return class of difference -> what differs, over packages, NUMA nodes, the PCI tree and the network devices."""
    found: dict[str, list[str]] = {}

    def note(what: str, where: str, a: object, b: object) -> None:
        if a != b:
            found.setdefault(what, []).append(where)

    note("packages", "", ours.packages, expected.packages)
    note("numa", "", ours.numa_nodes, expected.numa_nodes)
    note("product", "", ours.product, expected.product)
    a, b = {f.id: f for f in ours.pcie}, {f.id: f for f in expected.pcie}
    for pci in sorted(a.keys() ^ b.keys()):
        note(f"{a[pci].kind} not in the export" if pci in a else "function not found", pci, 1, 2)
    for pci in sorted(a.keys() & b.keys()):
        for name in ("parent", "kind", "vendor", "product", "numa", "buses"):
            note(name, pci, getattr(a[pci], name), getattr(b[pci], name))
        note("class", pci, a[pci].class_code >> 8, b[pci].class_code >> 8)
        if abs(a[pci].link.bytes_per_s - b[pci].link.bytes_per_s) > 1_000:
            note("link speed", pci, 1, 2)
    note("nics", "", [n.id for n in ours.nics], [n.id for n in expected.nics])
    for nic, other in zip(ours.nics, expected.nics, strict=False):
        for name in ("pci", "netdevs", "rdma", "guid", "kind", "pcie_root", "pcie_switch", "pcie_parent"):
            note(f"nic {name}", nic.id, getattr(nic, name), getattr(other, name))
    note("drives", "", [(d.id, d.pci) for d in ours.drives], [(d.id, d.pci) for d in expected.drives])
    return found


@pytest.mark.parametrize(
    ("name", "known"),
    [
        # hwloc drops a bridge whose configuration space says bus 0 is below it; the kernel lists it.
        (WITH_XML[0], {"root-port not in the export": ["0000:00:11.0"]}),
        # The export was made with locality forced by hand (HWLOC_PCI_LOCALITY); the kernel says node 2 for the HCA.
        (WITH_XML[1], {"numa": ["0000:43:00.0"]}),
    ],
)
def test_snapshots_equal_what_hwloc_exported(name: str, known: dict[str, list[str]]) -> None:
    ours, warnings = snapshot(name)
    assert differences(ours, exported(name, "linux_sysfs")[0]) == known
    assert check(ours) == []
    assert all(warning.startswith(f"{name}: ") for warning in warnings)


def test_the_comparison_sees_a_difference() -> None:
    machine, _ = exported(WITH_XML[1], "linux_sysfs")
    moved = tuple(replace(f, parent="pci0000:00") if f.id == "0000:43:00.0" else f for f in machine.pcie)
    assert differences(replace(machine, pcie=moved), machine) == {"parent": ["0000:43:00.0"]}
    assert differences(replace(machine, pcie=machine.pcie[:-1]), machine) == {
        "function not found": [machine.pcie[-1].id]
    }


@pytest.mark.parametrize("name", WITH_CONSOLE)
def test_snapshots_equal_what_hwloc_printed(name: str) -> None:
    ours, _ = snapshot(name)
    said = read_console(real_file(f"linux_sysfs/{name}.console").decode())
    assert {p.id: (p.model, cpus(p.cpus)) for p in ours.packages} == said.packages
    package_of = {node: (max(package, 0), gib) for node, (package, gib) in said.nodes.items()}
    spanning = {n.id for n in ours.numa_nodes if n.package < 0}
    assert spanning == ({0} if name == WITH_CONSOLE[0] else set()), "one NUMA node over four packages"
    assert {n.id: (max(n.package, 0), round(n.memory_bytes / GIB)) for n in ours.numa_nodes} == package_of
    if not spanning:
        assert {n.id: cpus(n.cpus) for n in ours.numa_nodes} == said.node_cpus
    assert {f.id: [g.id for g in ours.pcie if g.parent == f.id] for f in ours.pcie if f.kind == "root"} == said.roots
    assert {f.id: f.class_code >> 8 for f in ours.pcie if f.kind != "root"} == said.classes
    assert {g.pci: g.package for g in ours.gpus} == said.package_of
    if said.distances:
        assert {n.id: list(n.distances) for n in ours.numa_nodes} == said.distances


def test_offline_cpus_count_nowhere() -> None:
    machine, warnings = snapshot("16em64t-4s2c2t-offlines")
    assert machine.numa_nodes[0].cpus == "0-1,3-4,6-12,15"
    assert any("CPUs 2,5,13-14 are offline" in warning for warning in warnings)


def test_memory_of_gpus_hosts_no_pods() -> None:
    machine, _ = snapshot("nvidiagpunumanodes")
    said = read_console(real_file("linux_sysfs/nvidiagpunumanodes-kept.console").decode())
    assert {n.id for n in machine.numa_nodes} == {0, 8}
    assert {n.id: n.gpu for n in machine.memory_nodes} == said.gpu_memory
    assert all(n.cpus == "" and round(n.memory_bytes / GIB) == 15 for n in machine.memory_nodes)
    assert {n.id: list(n.distances) for n in machine.memory_nodes} == {
        node: [row[0], row[1]] for node, row in said.distances.items() if node in said.gpu_memory
    }
    assert {gpu.pci: gpu.memory_numa for gpu in machine.gpus} == {pci: n for n, pci in said.gpu_memory.items()}
    assert [gpu.numa for gpu in machine.gpus] == [0, 0, 0, 8, 8, 8]
    assert path_class(machine, "GPU0", "GPU2") == "NODE"
    assert path_class(machine, "GPU0", "GPU3") == "SYS"


def test_the_four_socket_machine_with_pci() -> None:
    machine, _ = snapshot("40intel64-2g2n4c+pcilocality")
    assert (len(machine.packages), len(machine.numa_nodes)) == (4, 4)
    assert sum(f.kind not in ("root", "root-port") for f in machine.pcie) == 23
    assert [nic.id for nic in machine.nics if nic.kind == "ethernet"] == ["eth0", "eth1", "eth2", "eth3"]
    assert [(nic.id, nic.netdevs, nic.bytes_per_s) for nic in machine.nics if nic.kind == "infiniband"] == [
        ("qib0", ("ib0",), 5_000_000_000)
    ]
    assert [nic.numa for nic in machine.nics] == [-1, -1, -1, -1, 2], "the kernel does not know for the first four"
    assert machine.nics[-1].pcie.bytes_per_s == 4 * 984_615_384


def test_the_machine_with_128_functions() -> None:
    machine, _ = snapshot("32em64t-2n8c+dax+nvme+mic+dimms")
    kinds = [f.kind for f in machine.pcie]
    assert kinds.count("device") + kinds.count("nic") + kinds.count("storage") == 128
    assert [(d.id, d.numa) for d in machine.drives] == [("nvme0", 0)]
    assert machine.gpus == (), "the graphics of the service processor computes nothing, and neither does a Xeon Phi"


# --- XML alone


def test_dgx_2() -> None:
    machine, warnings = exported("nvidiaDGX2")
    assert (len(machine.gpus), len(machine.nvswitches), len(machine.wires)) == (16, 12, 96)
    assert sum(f.class_code >> 8 == 0x0604 or f.kind == "root" for f in machine.pcie) == 60
    assert [gpu.numa for gpu in machine.gpus] == [0] * 8 + [1] * 8
    assert machine.gpus[2].uuid == "GPU-22344fb6-c824-994f-a244-d6cc78506ee9"
    assert machine.gpus[2].serial == "0321019030580"
    assert {gpu.model for gpu in machine.gpus} == {"Tesla V100-SXM3-32GB-H"}
    assert {(gpu.architecture, gpu.compute, gpu.partitions_max) for gpu in machine.gpus} == {("volta", "7.0", 1)}
    assert {path_class(machine, "GPU0", gpu.id) for gpu in machine.gpus[1:]} == {"NV6"}
    assert {link.bytes_per_s for link in machine.links} == {150_000_000_000}
    ends = [{wire.a, wire.b} for wire in machine.wires]
    assert all(len(end & {s.id for s in machine.nvswitches}) == 1 for end in ends)
    assert all(sum(gpu.id in end for end in ends) == 6 for gpu in machine.gpus)
    assert "taken as one fabric" in warnings[0]
    assert machine.gpus[0].pcie_switch == machine.gpus[1].pcie_switch != machine.gpus[2].pcie_switch
    assert machine.gpus[0].pcie_switch.split("/")[0] == machine.gpus[2].pcie_switch.split("/")[0]
    assert machine.nvswitches[0].pcie_root == "pci0000:4e"
    assert [n.distances for n in machine.numa_nodes] == [(10, 21), (21, 10)]
    assert check(machine) == []


@pytest.mark.parametrize("name", XML)
def test_every_export_reads_with_all_that_is_in_it(name: str) -> None:
    machine, warnings = exported(name)
    text = real_file(f"xml/{name}.xml").decode()
    twice = sum("there twice" in warning for warning in warnings)
    assert len(machine.packages) == text.count('type="Package"')
    assert len(machine.numa_nodes) == text.count('type="NUMANode" os_index')
    assert len(machine.pcie) == text.count('type="PCIDev"') + text.count('type="Bridge"') - twice
    assert all(f.parent in {g.id for g in machine.pcie} for f in machine.pcie if f.kind != "root")
    assert twice == (1 if name == "32em64t-2n8c2t-pci-wholeio" else 0)
    assert check(machine) == []
    assert exported(name) == (machine, warnings)


def test_two_boxes_with_gpus_and_infiniband() -> None:
    fermi, _ = exported("24em64t-2n6c2t-pci")
    assert [(gpu.pci, gpu.numa) for gpu in fermi.gpus] == [
        ("0000:06:00.0", 0),
        ("0000:11:00.0", 1),
        ("0000:14:00.0", 1),
    ]
    assert (fermi.nics[2].id, fermi.nics[2].netdevs, fermi.nics[2].kind) == ("mlx4_0", ("eth2", "ib0"), "infiniband")
    assert path_class(fermi, "GPU0", "mlx4_0") == "PHB"
    assert path_class(fermi, "GPU1", "mlx4_0") == "SYS"
    kepler, warnings = exported("32em64t-2n8c2t-pci-wholeio")
    assert [gpu.numa for gpu in kepler.gpus] == [0, 1, 1, 1]
    assert kepler.gpus[2].memory_bytes == 11_796_032 << 10
    assert warnings[0].startswith("32em64t-2n8c2t-pci-wholeio:247: PCIDev '0000:04:00.0'")


SMALL = b"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE topology SYSTEM "hwloc.dtd">
<topology%s>
 <object type="Machine" os_index="0" cpuset="0x0000000f" nodeset="0x00000003">
  <object type="NUMANode" os_index="0" cpuset="0x00000003" nodeset="0x00000001" local_memory="1024">
   <object type="%s" os_index="0" cpuset="0x00000003" nodeset="0x00000001"/>
   <object type="Bridge" bridge_type="0-1" depth="0" bridge_pci="0000:[00-01]">
    <object type="Bridge" bridge_type="1-1" depth="1" bridge_pci="0000:[01-01]" pci_busid="0000:00:01.0"
      pci_type="0604 [8086:3408] [0000:0000] 13" pci_link_speed="8.000000">
     <object type="PCIDev" pci_busid="0000:01:00.0" pci_type="0302 [10de:1094] [10de:0889] a1" pci_link_speed="8.0">
      <object type="OSDev" name="cuda0" osdev_type="5"><info name="GPUModel" value="Tesla M2075"/></object>
      <object type="OSDev" name="card0" osdev_type="1"/>
     </object>
    </object>
    <object type="PCIDev" pci_busid="10000:00:02.0" pci_type="0200 [15b3:1013] [0000:0000] 00" pci_link_speed="0">
     <object type="OSDev" name="ens1" osdev_type="2"/><object type="OSDev" name="mlx5_0" osdev_type="3"/>
    </object>
   </object>
  </object>
  <object type="NUMANode" os_index="1" cpuset="0x0000000c" nodeset="0x00000002" local_memory="2048">
   <object type="%s" os_index="1" cpuset="0x0000000c" nodeset="0x00000002"/>
  </object>
  <distances nbobjs="2" relative_depth="1" latency_base="10.000000">
   <latency value="1.000000"/><latency value="2.100000"/><latency value="2.100000"/><latency value="1.000000"/>
  </distances>
 </object>
</topology>
"""


@pytest.mark.parametrize(("version", "package"), [(b"", b"Socket"), (b' version="2.0"', b"Package")])
def test_older_versions(version: bytes, package: bytes) -> None:
    machine, _ = hwloc_xml.parse(SMALL % (version, package, package), name="old")
    assert [(p.id, p.cpus, p.numa_nodes) for p in machine.packages] == [(0, "0-1", (0,)), (1, "2-3", (1,))]
    assert [(n.id, n.package, n.memory_bytes) for n in machine.numa_nodes] == [(0, 0, 1024), (1, 1, 2048)]
    assert [n.distances for n in machine.numa_nodes] == [(10, 21), (21, 10)]
    assert [(g.id, g.model, g.numa, g.pcie_parent) for g in machine.gpus] == [
        ("GPU0", "Tesla M2075", 0, "0000:00:01.0")
    ]
    assert [(n.id, n.pci, n.netdevs) for n in machine.nics] == [("mlx5_0", "10000:00:02.0", ("ens1",))]
    assert machine.gpus[0].pcie.bytes_per_s == 8_000_000_000


def test_gpu_memory_in_an_export() -> None:
    text = SMALL.replace(b'type="NUMANode" os_index="1"', b'type="NUMANode" subtype="GPUMemory" os_index="1"')
    machine, _ = hwloc_xml.parse(text % (b' version="2.0"', b"Package", b"Package"), name="grace")
    assert [n.id for n in machine.numa_nodes] == [0]
    assert [(n.id, n.cpus, n.memory_bytes, n.distances) for n in machine.memory_nodes] == [(1, "", 2048, (21,))]


BROKEN = {
    "cut off": ((SMALL % (b"", b"Socket", b"Socket"))[:700], r"cut:10: not well-formed"),
    "no topology": (b"<system version='1'/>", r"cut:1: .*<system>"),
    "no machine": (b"<topology version='2.0'>\n</topology>", r"cut:1: .*no Machine"),
    "an entity": (
        b'<!DOCTYPE t [\n<!ENTITY a "b">\n<!ENTITY c "&a;&a;">]><topology><object type="&c;"/></topology>',
        r"cut:2: .*declares entities",
    ),
    "an outside entity": (
        b'<!DOCTYPE t [<!ENTITY a SYSTEM "file:///etc/passwd">]><topology>&a;</topology>',
        "declares",
    ),
    "too deep": (b"<topology>" + b"<object type='Group'>" * 300, r"cut:1: .*deeper than 256"),
    "text": (b"Machine (P#0 total=16GiB)", r"cut:1: not well-formed"),
    "an encoding": (b'<?xml version="1.0" encoding="none-such"?><topology/>', r"cut:1: "),
    "empty": (b"", r"cut:1: not well-formed"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_no_export_is_refused_by_line(what: str) -> None:
    data, message = BROKEN[what]
    with pytest.raises(UnreadableInput, match=message):
        hwloc_xml.parse(data, name="cut")


@pytest.mark.parametrize(
    ("old", "new", "warning"),
    [
        (b'os_index="1" cpuset="0x0000000c" nodeset="0x00000002" local', b'os_index="x" local',
          "small:20: NUMANode: os_index 'x'"),
        (b'pci_busid="0000:01:00.0"', b'pci_busid="0000:01"', "small:10: PCIDev '0000:01' of type"),
        (b'bridge_pci="0000:[00-01]"', b'bridge_pci="0000:[01"', "small:7: host bridge with bridge_pci '0000:[01'"),
        (b'<latency value="1.000000"/><latency', b"<latency", "3 latencies for 2 NUMA nodes"),
    ],
)  # fmt: skip
def test_damage_inside_is_named_and_the_rest_is_kept(old: bytes, new: bytes, warning: str) -> None:
    text = SMALL % (b' version="2.0"', b"Package", b"Package")
    assert old in text
    machine, warnings = hwloc_xml.parse(text.replace(old, new), name="small")
    assert any(warning in one for one in warnings), warnings
    assert len(machine.packages) == 2
    assert machine.nics


def test_a_matrix_of_the_wrong_size_is_left_out() -> None:
    text = real_file("xml/nvidiaDGX2.xml").replace(b"25000 25000 0 0 0 0", b"25000 0 0 0 0", 1)
    machine, warnings = hwloc_xml.parse(text, name="dgx2")
    assert any("783 values for 28 objects" in warning and warning.startswith("dgx2:346: ") for warning in warnings)
    assert machine.wires == ()
    assert path_class(machine, "GPU0", "GPU2") == "PXB", "the PCIe tree is still there"
