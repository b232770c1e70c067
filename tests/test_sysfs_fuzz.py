"""No bytes break the readers of sysfs snapshots and hwloc's XML: a machine that fits together, or a refusal."""

from __future__ import annotations

import bz2
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sysfs_machines import BRIDGE, NVME, switch
from test_hwloc import SMALL, real_file
from test_snapshot import tarball
from test_sysfs import two_nodes

from fairlead.discovery import hwloc_xml, sysfs
from fairlead.discovery.cpu_list import as_list, parse_list, parse_mask
from fairlead.errors import UnreadableInput
from fairlead.model.hardware import Machine
from fairlead.topology.graph import check

Outcome = tuple[Machine, tuple[str, ...]]


def test_sets_of_cpus() -> None:
    assert parse_mask("0xfc000000,,0x1") == frozenset({0, *range(90, 96)})
    assert parse_mask("00000000,0000ffff") == frozenset(range(16))
    assert parse_list("") == frozenset()
    for bad in ("3-1", "a", "1,,2", "99999999"):
        assert parse_list(bad) is None
    for bad in ("", "0xf...f", "g", "123456789", "1," * 3000):
        assert parse_mask(bad) is None


@given(st.frozensets(st.integers(0, 4000)))
def test_lists_round_trip(numbers: frozenset[int]) -> None:
    assert parse_list(as_list(numbers)) == numbers


def fits_together(machine: Machine) -> None:
    """What holds for every machine, from whatever it was read."""
    ids = {f.id for f in machine.pcie}
    assert all(f.parent in ids for f in machine.pcie if f.kind != "root")
    assert all(device.pci in ids for device in (*machine.gpus, *machine.nics, *machine.drives))
    assert {n.id for n in machine.numa_nodes}.isdisjoint(n.id for n in machine.memory_nodes)
    known = {n.id for n in machine.numa_nodes}
    assert all(device.numa in known | {-1} for device in (*machine.gpus, *machine.nics))
    assert not [said for said in check(machine) if "distances" not in said]


def read_or_refused(read: Callable[[], Outcome]) -> None:
    """Let anything but the declared refusal through, and judge what was read."""
    said: list[str] = []
    try:
        machine, warnings = read()
    except UnreadableInput as refused:
        said.append(str(refused))
    else:
        fits_together(machine)
        said += warnings
    assert all(one.startswith("fuzz:") for one in said)


def mutated(data: bytes, edits: list[tuple[int, bytes]]) -> bytes:
    out = bytearray(data)
    for at, piece in edits:
        place = at % (len(out) + 1)
        out[place : place + len(piece)] = piece
    return bytes(out)


EDITS = st.lists(st.tuples(st.integers(0, 1 << 20), st.binary(max_size=12)), min_size=1, max_size=8)
SLOW = settings(max_examples=40, deadline=None)
FUZZ = settings(max_examples=150, deadline=None)


@SLOW
@given(edits=EDITS, end=st.integers(0, 60_000))
def test_no_damage_to_an_export_breaks_anything_else(edits: list[tuple[int, bytes]], end: int) -> None:
    for data in (real_file("xml/nvidiaDGX2.xml"), SMALL % (b"", b"Socket", b"Socket")):
        for damaged in (mutated(data, edits), data[: end % len(data)]):
            read_or_refused(lambda data=damaged: hwloc_xml.parse(data, name="fuzz"))


WORDS = st.sampled_from(["0x0000000f", "-1", "99999999999999999999", "", "0000:01:00.0", "0x", "NUMANode", "Package",
                         "PCIDev", "Bridge", "OSDev", "Machine", "0000:[01-00]", "nvml0", "16"])  # fmt: skip


@FUZZ
@given(
    keys=st.lists(st.tuples(st.integers(0, 60), WORDS), min_size=1, max_size=6),
)
def test_no_attribute_breaks_anything_else(keys: list[tuple[int, str]]) -> None:
    text = (SMALL % (b' version="3.0"', b"Package", b"Package")).decode()
    parts = text.split('"')
    for at, word in keys:
        parts[(2 * at + 1) % (len(parts) - len(parts) % 2)] = word
    read_or_refused(lambda: hwloc_xml.parse('"'.join(parts).encode(), name="fuzz"))


@SLOW
@given(edits=EDITS)
def test_no_damage_to_a_tarball_breaks_anything_else(edits: list[tuple[int, bytes]]) -> None:
    data = bz2.decompress(real_file("linux_sysfs/16em64t-4s2c2t-offlines.tar.bz2"))
    for damaged in (mutated(data, edits), mutated(bz2.compress(data[:60_000]), edits)):
        read_or_refused(lambda data=damaged: sysfs.parse_tarball(data, name="fuzz"))


FILES = st.sampled_from(["class", "vendor", "device", "numa_node", "config", "current_link_speed", "local_cpulist",
                         "current_link_width", "local_cpus", "physfn", "iommu_group", "net/eth0/speed"])  # fmt: skip
CONTENT = st.one_of(st.binary(max_size=80), st.sampled_from([b"0x060400", b"0x030200", b"-1", b"0", b"16", b"8.0 GT/s",
                    b"\xff" * 4096, bytes(range(256)) * 16, b"0-99999", b"0x020000"]))  # fmt: skip


@SLOW
@given(changes=st.lists(st.tuples(st.integers(0, 7), FILES, CONTENT), max_size=10))
def test_no_content_of_a_file_breaks_anything_else(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, str, bytes]]
) -> None:
    root = tmp_path_factory.mktemp("machine")
    tree = two_nodes(root)
    port = "pci0000:00/0000:00:01.0"
    tree.pci(port, BRIDGE)
    places = [port, *switch(tree, port, up="0000:01:00.0", downs=("0000:02:00.0", "0000:02:01.0")),
              "pci0000:00/0000:00:02.0", "pci10000:00/10000:00:02.0"]  # fmt: skip
    tree.gpu(f"{places[1]}/0000:03:00.0", numa=0, minor=0)
    tree.hca(f"{places[2]}/0000:04:00.0", "mlx5_0", numa=1, netdev="ens1")
    tree.pci(places[3], NVME)
    tree.pci(places[4], BRIDGE)
    for at, file, data in changes:
        tree.write(f"sys/devices/{places[at % len(places)]}/{file}", data)
    machine, _ = sysfs.read(root)
    fits_together(machine)
    assert sysfs.parse_tarball(tarball(root, mode="w"), name=str(root))[0] == replace(machine, source=str(root))


def test_a_gpu_that_the_driver_does_not_number_takes_nobodys_name(tmp_path) -> None:
    tree = two_nodes(tmp_path)
    tree.gpu("pci0000:00/0000:00:04.0", numa=0)
    tree.gpu("pci0000:00/0000:00:05.0", numa=0, minor=0)
    machine, _ = sysfs.read(tmp_path)
    assert sorted(gpu.device for gpu in machine.gpus) == ["gpu-0", "gpu-1"]
