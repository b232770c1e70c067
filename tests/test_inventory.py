"""The join of ResourceSlices with a topology: exactly the slice devices, placed where both sides agree."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fairlead.discovery.inventory import SliceDevice, join, natural
from fairlead.discovery.pci import normal_pci
from fairlead.model.hardware import Gpu, Link, Machine, Nic
from fairlead.topology.fleets import build
from fairlead.topology.graph import check, path_class
from fairlead.topology.tables import ShapeTable, shape_key


def slices_of(machine: Machine) -> tuple[SliceDevice, ...]:
    return tuple(
        SliceDevice(name=g.device, uuid=g.uuid, pci=g.pci, model=g.model, memory_bytes=g.memory_bytes)
        for g in machine.gpus
    )


H100 = build("hgx-h100", 1)[0].machine


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("00000000:3B:00.0", "0000:3b:00.0"), ("0000:3b:00.0", "0000:3b:00.0"), ("3B:00.0", "0000:3b:00.0"),
        ("00010000:E1:00.1", "10000:e1:00.1"), ("gpu-0", ""), ("", ""), ("0000:3b:00.9", ""),
    ],
)  # fmt: skip
def test_pci_addresses_of_all_sources_become_equal(text: str, normal: str) -> None:
    assert normal_pci(text) == normal


def test_slices_that_agree_keep_the_whole_topology() -> None:
    nvml_style = tuple(replace(d, pci="0000" + d.pci.upper(), uuid=d.uuid.upper()) for d in reversed(slices_of(H100)))
    machine, conflicts = join(H100, nvml_style)
    assert conflicts == ()
    assert [gpu.device for gpu in machine.gpus] == [gpu.id for gpu in machine.gpus] == [f"gpu-{i}" for i in range(8)]
    assert shape_key(machine) == shape_key(H100)
    assert check(machine) == []


def test_device_names_follow_the_slices_and_links_follow_the_names() -> None:
    """The driver's numbering differs from NVML's: gpu-0 is the topology's GPU7 and so on."""
    turned = tuple(replace(d, name=f"gpu-{7 - i}") for i, d in enumerate(slices_of(H100)))
    machine, conflicts = join(H100, turned)
    assert conflicts == ()
    assert [gpu.uuid for gpu in machine.gpus] == [gpu.uuid for gpu in reversed(H100.gpus)]
    assert [gpu.index for gpu in machine.gpus] == list(range(8))
    assert path_class(machine, "gpu-0", "NIC7") == "PIX"
    assert check(machine) == []


def test_only_the_uuid_or_only_the_address_is_enough() -> None:
    for bare in ({"pci": ""}, {"uuid": ""}):
        machine, conflicts = join(H100, tuple(replace(d, **bare) for d in slices_of(H100)))
        assert conflicts == ()
        assert [gpu.pci for gpu in machine.gpus] == [gpu.pci for gpu in H100.gpus]
        assert [gpu.uuid for gpu in machine.gpus] == [gpu.uuid for gpu in H100.gpus]


def test_a_device_of_one_side_only_is_reported_and_stays_without_place() -> None:
    devices = (*slices_of(H100)[:7], SliceDevice(name="gpu-10", uuid="GPU-new", pci="0000:f0:00.0"))
    machine, conflicts = join(H100, devices)
    assert [gpu.device for gpu in machine.gpus][-2:] == ["gpu-6", "gpu-10"]
    assert (machine.gpus[7].numa, machine.gpus[7].pcie_root) == (-1, "")
    assert all("GPU7" not in (link.a, link.b) and "gpu-10" not in (link.a, link.b) for link in machine.links)
    assert ShapeTable(shape_key(machine)).pace(0b1100_0000) == 0
    assert conflicts == (
        "device gpu-10 (0000:f0:00.0, GPU-new) is not in the topology",
        f"GPU7 ({H100.gpus[7].pci}, {H100.gpus[7].uuid}) of the topology is joined with no slice device",
    )


def test_a_swapped_board_is_not_taken_for_the_old_one() -> None:
    devices = slices_of(H100)
    machine, conflicts = join(H100, (replace(devices[0], uuid="GPU-other"), *devices[1:]))
    assert machine.gpus[0].numa == -1
    assert "has UUID GPU-other in the ResourceSlice" in conflicts[0]


def test_a_gpu_that_moved_to_another_slot_is_not_guessed() -> None:
    devices = slices_of(H100)
    swapped = (replace(devices[0], pci=devices[1].pci), replace(devices[1], pci=devices[0].pci), *devices[2:])
    machine, conflicts = join(H100, swapped)
    assert [gpu.numa for gpu in machine.gpus[:3]] == [-1, -1, 0]
    assert f"device gpu-0 is GPU1 by PCI address {devices[1].pci} and GPU0 by UUID" in conflicts[0]
    moved = (replace(devices[0], pci="0000:f0:00.0"), *devices[1:])
    assert "is at 0000:f0:00.0 in the ResourceSlice" in join(H100, moved)[1][0]


def test_two_devices_that_claim_one_gpu_get_neither() -> None:
    devices = slices_of(H100)
    twin = SliceDevice(name="gpu-8", pci=devices[0].pci)
    machine, conflicts = join(H100, (*devices, twin))
    assert machine.gpus[0].numa == machine.gpus[8].numa == -1
    assert "devices gpu-0, gpu-8 are all GPU0 of the topology; none of them is joined" in conflicts


def test_health_is_bad_if_either_side_says_so_and_models_are_compared() -> None:
    devices = slices_of(H100)
    ill = replace(H100, gpus=(replace(H100.gpus[0], healthy=False, health_reason="XID 79"), *H100.gpus[1:]))
    tainted = (devices[0], replace(devices[1], tainted=True, taint="gpu.nvidia.com/xid"), *devices[2:])
    machine, conflicts = join(ill, tainted)
    assert [(g.healthy, g.health_reason) for g in machine.gpus[:3]] == [
        (False, "XID 79"), (False, "gpu.nvidia.com/xid"), (True, ""),
    ]  # fmt: skip
    assert conflicts == ()
    machine, conflicts = join(H100, (replace(devices[0], model="NVIDIA H200"), *devices[1:]))
    assert machine.gpus[0].model == "NVIDIA H200", "an allocation is of the slice's device"
    assert len(conflicts) == 1


def test_a_node_without_topology_is_no_conflict() -> None:
    machine, conflicts = join(None, (SliceDevice(name="gpu-10"), SliceDevice(name="gpu-9", tainted=True)))
    assert [gpu.device for gpu in machine.gpus] == ["gpu-9", "gpu-10"]
    assert (machine.links, conflicts, machine.gpus[0].healthy) == ((), (), False)
    assert join(None, ()) == (Machine(source="resourceslices"), ())


def test_a_nic_that_is_called_like_a_device_is_renamed() -> None:
    machine = Machine(
        gpus=(Gpu(id="GPU0", index=0, device="", uuid="u"),),
        nics=(Nic(id="gpu-0"),),
        links=(Link(a="GPU0", b="gpu-0", path="PIX", bytes_per_s=5),),
    )
    joined, _ = join(machine, (SliceDevice(name="gpu-0", uuid="u"),))
    assert joined.links == (Link(a="gpu-0", b="nic:gpu-0", path="PIX", bytes_per_s=5),)


def test_natural_order() -> None:
    names = ["gpu-10", "gpu-2", "gpu-2-mig-1g", "a", "gpu-1"]
    assert sorted(names, key=natural) == ["a", "gpu-1", "gpu-2", "gpu-2-mig-1g", "gpu-10"]
