"""Files become machines: what is certain is kept, what is dropped is named, nothing is shifted or guessed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.discovery import nccl_xml, nvidia_smi_topo
from fairlead.discovery.cpu_list import parse_list
from fairlead.errors import UnreadableInput
from fairlead.model.hardware import Gpu, Machine, Nic
from fairlead.topology.fleets import build
from fairlead.topology.graph import check, path_class
from fairlead.topology.tables import ShapeTable, shape_key

DATA = Path(os.environ.get("FAIRLEAD_DATA", Path(__file__).resolve().parents[1] / "../shared/data"))
MATRIX_NAMES = (
    "a100-pcie-2x-nvlink-bridge", "delta-4xa100", "dgx-a100-12hca", "dgx1-v100", "hgx-h100-8nic",
    "hgx-h200-12nic-numa-off", "p4d-24xl", "pcie-8gpu-node-sys", "rtx3090-2gpu-nv4", "stas00-2",
    "tkestack-6gpu-soc", "vm-4xh100-phb-spaces", "vm-8xa100-phb-corrupt",
)  # fmt: skip
XML_NAMES = ("aws/g5.48xl", "aws/p4d-24xl", "azure/ndv2", "azure/ndv4")


def real_file(path: str) -> bytes:
    file = DATA / path
    if not file.is_file():
        assert os.environ.get("CI") != "true", f"{path} is missing; set FAIRLEAD_DATA"
        pytest.skip(f"no {path}; set FAIRLEAD_DATA to the data folder")
    return file.read_bytes()


def matrix(name: str) -> tuple[Machine, tuple[str, ...]]:
    return nvidia_smi_topo.parse(real_file(f"nvidia-smi-topo/{name}.txt").decode(), name=name)


def nccl(name: str) -> tuple[Machine, tuple[str, ...]]:
    return nccl_xml.parse(real_file(f"nccl-topo/{name}-topo.xml"), name=name)


def paths(machine: Machine, device: str, to: tuple[Gpu, ...] | tuple[Nic, ...]) -> list[str]:
    return [path_class(machine, device, other.id) for other in to]


SMALL = (
    "\tGPU0\tGPU1\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\n"
    "GPU0\t X \tNV4\tPIX\t0-7\t0\t\tN/A\n"
    "GPU1\tNV4\t X \tSYS\t8-15\t1\t\tN/A\n"
    "NIC0\tPIX\tSYS\t X \t\t\t\n"
)


# --- nvidia-smi topo -m


@pytest.mark.parametrize("name", MATRIX_NAMES)
def test_every_real_matrix_is_read_and_fits_together(name: str) -> None:
    machine, _ = matrix(name)
    devices = len(machine.gpus) + len(machine.nics)
    assert len(machine.links) == devices * (devices - 1) // 2, "every pair has a path"
    assert check(machine) == []


def test_the_dgx_a100_matrix() -> None:
    machine, warnings = matrix("dgx-a100-12hca")
    assert warnings == ()
    assert [gpu.numa for gpu in machine.gpus] == [3, 3, 1, 1, 7, 7, 5, 5]
    assert paths(machine, "GPU2", machine.nics) == ["SYS", "SYS", "PXB", "PXB", *["SYS"] * 8]
    assert {path for gpu in machine.gpus for path in paths(machine, gpu.id, machine.gpus)} == {"X", "NV12"}
    assert path_class(machine, "mlx5_4", "mlx5_5") == "PIX"
    assert [nic.numa for nic in machine.nics] == [3, 3, 1, 1, -1, -1, 7, 7, 5, 5, -1, -1]
    assert [(n.id, n.cpus) for n in machine.numa_nodes][1] == (3, "48-63,176-191")
    for cpu, nearest in ((48, ["GPU0", "GPU1"]), (222, ["GPU6", "GPU7"])):  # as `topo -c CPU` answers there
        (numa,) = (n.id for n in machine.numa_nodes if cpu in (parse_list(n.cpus) or ()))
        assert [gpu.id for gpu in machine.gpus if gpu.numa == numa] == nearest


@pytest.mark.parametrize(("file", "fleet"), [("dgx-a100-12hca", "dgx-a100"), ("hgx-h100-8nic", "hgx-h100")])
def test_built_in_machines_choose_the_devices_that_the_real_matrix_chooses(file: str, fleet: str) -> None:
    real = ShapeTable(shape_key(matrix(file)[0]))
    own_machine = build(fleet, 1)[0].machine  # without NUMA distances, which a matrix does not have
    own = ShapeTable(shape_key(replace(own_machine, numa_nodes=())))
    assert real.shape.pace == own.shape.pace
    assert real.shape.numa == own.shape.numa
    for mask in range(256):
        for count in range(1, 9):
            assert real.best(mask, count) == own.best(mask, count)


def test_the_hgx_h100_matrix() -> None:
    machine, warnings = matrix("hgx-h100-8nic")
    assert warnings == ()
    assert paths(machine, "GPU6", machine.nics) == [*["SYS"] * 4, "NODE", "NODE", "PIX", "NODE"]
    assert [gpu.numa for gpu in machine.gpus] == [nic.numa for nic in machine.nics] == [0] * 4 + [1] * 4
    assert [gpu.pcie_switch for gpu in machine.gpus] == [nic.pcie_switch for nic in machine.nics]
    assert len({gpu.pcie_root for gpu in machine.gpus}) == 8
    assert [gpu.device for gpu in machine.gpus] == [f"gpu-{i}" for i in range(8)]
    assert machine.source == "hgx-h100-8nic"


def test_the_damaged_matrix_keeps_what_the_other_rows_prove() -> None:
    machine, warnings = matrix("vm-8xa100-phb-corrupt")
    assert path_class(machine, "GPU0", "NIC7") == "PHB", "from NIC7's row: GPU0's has lost a tab there"
    assert [gpu.numa for gpu in machine.gpus] == [-1] * 8, "what follows the damage is not believed"
    assert len(warnings) == 8
    assert warnings[0].startswith("vm-8xa100-phb-corrupt:2: GPU0, column NIC7: 'PH0-115'")


def test_old_and_partial_matrices() -> None:
    v100, _ = matrix("dgx1-v100")
    assert paths(v100, "GPU0", v100.gpus) == ["X", "NV1", "NV1", "NV2", "NV2", "SYS", "SYS", "SYS"]
    assert [nic.id for nic in v100.nics] == ["mlx5_0", "mlx5_2", "mlx5_1", "mlx5_3"], "in the header's order"
    six, _ = matrix("tkestack-6gpu-soc")
    assert paths(six, "GPU0", six.gpus) == ["X", "PIX", "PHB", "PHB", "SYS", "SYS"]
    delta, warnings = matrix("delta-4xa100")
    assert delta.nics[0].numa == 0
    assert "mlx5_0: no readable row" in warnings[0]
    assert [gpu.numa for gpu in matrix("vm-4xh100-phb-spaces")[0].gpus] == [0] * 4


def test_terminal_colours_and_windows_line_ends_do_not_matter() -> None:
    dressed = "\x1b[4m" + SMALL.split("\n", 1)[0] + "\x1b[0m\r\n" + SMALL.split("\n", 1)[1].replace("\n", "\r\n")
    assert nvidia_smi_topo.parse(dressed, name="m") == nvidia_smi_topo.parse(SMALL, name="m")


def test_a_lost_cell_never_shifts_a_row() -> None:
    """GPU0 has lost its NV4 cell: read by counting, NIC0 would be 0-7 and GPU1 would be PIX."""
    machine, warnings = nvidia_smi_topo.parse(SMALL.replace("GPU0\t X \tNV4\t", "GPU0\t X \t"), name="m")
    assert path_class(machine, "GPU0", "GPU1") == "NV4"
    assert path_class(machine, "GPU0", "NIC0") == "PIX"
    assert machine.gpus[0].numa == -1
    assert warnings[0] == "m:2: GPU0, column NIC0: '0-7' is no path class; the row is dropped"


def test_a_row_whose_x_is_elsewhere_is_dropped() -> None:
    machine, warnings = nvidia_smi_topo.parse(SMALL.replace("GPU1\tNV4\t X \tSYS", "GPU1\t X \tNV4\tSYS"), name="m")
    assert "m:3: GPU1: X is in column 1, expected in column 2; the row is dropped" in warnings
    assert path_class(machine, "GPU0", "GPU1") == "NV4"


def test_two_rows_that_disagree_leave_the_pair_unknown() -> None:
    machine, warnings = nvidia_smi_topo.parse(SMALL.replace("GPU1\tNV4", "GPU1\tNV2"), name="m")
    assert "GPU0 and GPU1 are NV4 in one row and NV2 in the other; the pair is dropped" in warnings[0]
    assert not any({link.a, link.b} == {"GPU0", "GPU1"} for link in machine.links)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no line with GPU columns"),
        ("<html>GPU0</html>", "no line with GPU columns"),
        ("\tGPU0\tGPU0\nGPU0\tX\tX\n", "m:1: column GPU0 is there twice"),
        ("\tGPU0\tGPU1\n", "m:2: no readable row"),
        ("\tGPU0\tGPU1\nGPU0\tNV1\t X\n", "m:2: no readable row"),
        ("\t" + "\t".join(f"GPU{i}" for i in range(300)), "300 columns"),
    ],
)
def test_what_is_no_matrix_is_refused_with_its_place(text: str, says: str) -> None:
    with pytest.raises(UnreadableInput, match=says):
        nvidia_smi_topo.parse(text, name="m")


# --- NCCL XML


@pytest.mark.parametrize("name", XML_NAMES)
def test_every_real_nccl_file_is_read_and_fits_together(name: str) -> None:
    machine, _ = nccl(name)
    assert check(machine) == []


def test_azure_ndv4_numbers_gpus_by_pci_address() -> None:
    machine, warnings = nccl("azure/ndv4")
    assert [gpu.pci[:4] for gpu in machine.gpus] == ["0001", "0002", "0003", "0004", "000b", "000c", "000d", "000e"]
    assert [gpu.numa for gpu in machine.gpus] == [1, 1, 0, 0, 3, 3, 2, 2]
    assert paths(machine, "GPU0", machine.gpus) == ["X", "PIX", *["SYS"] * 6]
    assert [nic.pci[:4] for nic in machine.nics if path_class(machine, "GPU0", nic.id) == "PIX"] == ["0101", "0102"]
    assert machine.numa_nodes[1].cpus == "24-47"
    assert warnings == ("azure/ndv4: system: no <nvlink> below any GPU; paths between GPUs are those of PCIe alone",)


def test_aws_p4d_has_two_switches_a_socket() -> None:
    machine, _ = nccl("aws/p4d-24xl")
    assert paths(machine, "GPU0", machine.gpus) == ["X", "PIX", "PHB", "PHB", *["SYS"] * 4]
    assert machine.numa_nodes[0].cpus == "0-23,48-71"
    slow = next(link for link in machine.links if {link.a, link.b} == {"GPU0", "GPU1"})
    assert slow.bytes_per_s == 13_000_000_000, "8 GT/s slots have half of PCIe 4"


def test_a_file_without_classes_has_no_devices_but_says_so() -> None:
    machine, warnings = nccl("aws/g5.48xl")
    assert machine.gpus == ()
    assert "g5.48xl: cpu[0]/pci[0]: 0000:00:16.0: no class, so nobody knows what it is; it is dropped" in warnings[0]
    assert "no device has the class of a GPU" in warnings[-1]


DUMP = b"""<system version="1"><cpu numaid="0" affinity="0000ffff">
<pci busid="0000:10:00.0" class="0x060400" link_speed="32.0 GT/s PCIe" link_width="16">
 <pci busid="0000:11:00.0" class="0x060400">
  <pci busid="0000:12:00.0" class="0x030200" link_speed="32.0 GT/s PCIe" link_width="16"><gpu dev="1" sm="90">
    <nvlink target="0000:05:00.0" count="9" tclass="0x068000"/>
    <nvlink target="0000:06:00.0" count="9" tclass="0x068000"/>
  </gpu></pci>
 </pci>
 <pci busid="0000:13:00.0" class="0x020700"><nic><net name="mlx5_0" speed="400000"/></nic></pci>
</pci></cpu><cpu numaid="1"><pci busid="0000:92:00.0" class="0x030200"><gpu dev="0">
    <nvlink target="0000:05:00.0" count="18" tclass="0x068000"/></gpu></pci></cpu></system>"""


def test_a_dump_of_nccl_brings_nvlinks_indexes_and_names() -> None:
    machine, warnings = nccl_xml.parse(DUMP, name="dump")
    assert warnings == ()
    assert [(gpu.id, gpu.pci) for gpu in machine.gpus] == [("GPU0", "0000:92:00.0"), ("GPU1", "0000:12:00.0")]
    assert path_class(machine, "GPU0", "GPU1") == "NV18"
    assert path_class(machine, "GPU1", "mlx5_0") == "PXB"
    assert machine.nics[0].bytes_per_s == 50_000_000_000
    assert next(link.bytes_per_s for link in machine.links if link.b == "mlx5_0" and link.a == "GPU1") == 48_000_000_000


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not well-formed"),
        (DUMP[:-60], "not well-formed"),
        (b"<topology/>", "expected NCCL's <system>"),
        (b'<!DOCTYPE s [<!ENTITY a "aa">]><system>&a;</system>', "DOCTYPE"),
        ('<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE s><system/>'.encode("utf-16"), "DOCTYPE"),
        (b'<system><cpu numaid="0"><pci class="0x030200"/></cpu></system>', r"cpu\[0\]/pci\[0\]: busid None"),
        (b'<?xml version="1.0" encoding="klingon"?><system/>', "not well-formed"),
        (
            b'<system><cpu numaid="0">' + b'<pci busid="0:1:0.0" class="0x060400">' * 20_000 + b"</pci>" * 20_000
            + b"</cpu></system>",
            "switches in a chain",
        ),
    ],
)  # fmt: skip
def test_what_is_no_nccl_file_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(UnreadableInput, match=says):
        nccl_xml.parse(data, name="f")


# --- damage of any kind


DIRT = ["", "\t", "  ", "X", "NV", "\n", "9", "GPU1", '"', ">", "é"]


def _damaged(data: st.DataObject, text: str) -> str:
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        until = min(len(text), at + data.draw(st.integers(0, 12)))
        text = text[:at] + data.draw(st.sampled_from(DIRT)) + text[until:]
    return text


@settings(max_examples=200, deadline=2_000)
@given(data=st.data())
def test_no_damage_to_a_matrix_invents_a_path(data: st.DataObject) -> None:
    """Of NVLink in particular: a pair that was not joined by NVLink must not become so by one shifted cell."""
    text = data.draw(st.sampled_from([SMALL, SMALL.replace("\t", "   ")]))
    at = data.draw(st.integers(text.index("\n") + 1, len(text)))
    cut = text[:at] + text[at + data.draw(st.integers(1, 6)) :]
    try:
        machine, _ = nvidia_smi_topo.parse(cut, name="m")
    except UnreadableInput:
        return
    whole, _ = nvidia_smi_topo.parse(SMALL, name="m")
    for link in machine.links:
        if link.path.startswith("NV"):
            assert path_class(whole, link.a, link.b).startswith("NV")


@settings(max_examples=200, deadline=2_000)
@given(data=st.data())
def test_damaged_input_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    try:
        machine, _ = nvidia_smi_topo.parse(_damaged(data, SMALL), name="m")
        ShapeTable(shape_key(machine))
    except UnreadableInput:
        pass
    try:
        machine, _ = nccl_xml.parse(_damaged(data, DUMP.decode()).encode(), name="m")
        ShapeTable(shape_key(machine))
    except UnreadableInput:
        pass
