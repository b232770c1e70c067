"""How GPUs can be and are cut: tables, drivers, slices, fleets, and the names of MIG devices."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import pytest
from agent_rig import Rig
from fake_machines import A100_40_MIG, H100_80_MIG, RTX6000_MIG, dgx_a100, hgx_h100
from hypothesis import given
from hypothesis import strategies as st
from mig_grids import A100_40, RTX, plain_gpu
from topology_files import as_bytes, gpu_device, resource_slice

from fairlead.discovery.inventory import SliceDevice, join
from fairlead.discovery.mig_slices import slice_part
from fairlead.discovery.mig_tables import assumed, completed, profiles_of
from fairlead.discovery.nvml import Library
from fairlead.discovery.nvml_node import read_node
from fairlead.discovery.sources import read_bytes
from fairlead.model import codec
from fairlead.model import events as ev
from fairlead.model.hardware import Gpu, Machine, Node, NodeName
from fairlead.model.partitions import MigGeometry, MigInstance, parse_device
from fairlead.topology import fleets
from fairlead.topology.mig_devices import device_name, grid_of_gpu, part_of
from fairlead.topology.mig_grid import full_grid, grid_of
from fairlead_operator.custom_objects import NodeTopology
from fairlead_operator.decode_nodes import decode_topology, slice_devices
from fairlead_operator.device_objects import Slice


def read(data):
    return read_bytes(data, name="slices", machine="n1")


def whats(inventory):
    return "\n".join(warning.what for warning in inventory.warnings)


# --- tables, and where GPUs are read from


@pytest.mark.parametrize(
    ("model", "rows"),
    [(A100_40, A100_40_MIG), ("NVIDIA H100 80GB HBM3", H100_80_MIG), (RTX, RTX6000_MIG)],
)
def test_the_tables_say_what_drivers_say(model, rows) -> None:
    table = {p.id: p for p in profiles_of(model)}
    for _, number, name, size, starts, most, multiprocessors, memory_mib in rows:
        found = table[number]
        assert (f"MIG {found.name}", found.size, found.starts, found.most) == (name, size, starts, most)
        assert found.multiprocessors == multiprocessors
        assert abs(found.memory_bytes - (memory_mib << 20)) < 16 << 20


def test_products_of_one_name_are_told_apart_by_memory_and_others_have_none() -> None:
    def largest(model, gib=0):
        return next((p.name for p in profiles_of(model, gib << 30)), "")

    assert largest("NVIDIA A100 80GB PCIe") == "7g.80gb"
    assert (largest("NVIDIA H100", 80), largest("NVIDIA H100", 94), largest("NVIDIA H100", 96)) == (
        "7g.80gb", "7g.94gb", "7g.96gb",
    )  # fmt: skip
    assert largest("NVIDIA H100") == "", "in doubt nothing is assumed"
    assert largest("NVIDIA GH200 480GB", 95) == "7g.96gb"
    assert largest("NVIDIA H200") == "7g.141gb"
    assert (largest("NVIDIA B200"), largest("NVIDIA GB200"), largest("NVIDIA B300")) == (
        "7g.180gb",
        "7g.186gb",
        "7g.269gb",
    )
    assert [largest(model) for model in ("NVIDIA L40S", "Tesla V100-SXM2-32GB", "NVIDIA A10", "")] == [""] * 4
    assert assumed(Gpu(id="a", index=0, device="gpu-0", model="NVIDIA L4"), enabled=True) is None


def test_the_driver_is_right_and_the_tables_fill_in_what_it_did_not_say() -> None:
    fake = hgx_h100()
    fake.cut(2, (9, 4), (19, 0))
    library = Library(fake)
    library.open()
    gpu = read_node(library).machine.gpus[2]
    assert gpu.mig is not None
    known = completed(gpu.mig, gpu)
    assert {p.id for p in known.profiles} == {p.id for p in gpu.mig.profiles}, "no profile is made up"
    seventh = known.profile(0)
    assert seventh is not None
    assert (seventh.decoders, seventh.ofas, seventh.multiprocessors) == (7, 1, 132)
    odd = replace(gpu.mig, profiles=(replace(gpu.mig.profiles[0], starts=(1,), multiprocessors=5),))
    assert completed(odd, gpu).profiles == odd.profiles, "what the driver places otherwise is another thing"
    grid_as_read = grid_of(replace(known, dynamic=True))
    assert grid_as_read is not None
    assert grid_as_read.states == 723


def test_an_a100_read_through_nvml_has_the_grid_of_its_table() -> None:
    library = Library(dgx_a100())
    library.open()
    gpu = read_node(library).machine.gpus[0]
    assert gpu.mig is not None
    found = full_grid(completed(gpu.mig, gpu).profiles)
    assert found is not None
    assert (found.states, found.futures[0]) == (2319, 128)


def static_part(index, name, start, number, units, **more):
    return {
        "name": f"gpu-{index}-mig-{name.replace('.', '')}-{number}-{start}",
        "attributes": {
            "type": {"string": "mig"},
            "profile": {"string": name},
            "uuid": {"string": f"MIG-{index}-{start}"},
            "parentUUID": {"string": f"GPU-{index:08x}-0000-0000-0000-000000000000"},
            "productName": {"string": "NVIDIA H100 80GB HBM3"},
            "resource.kubernetes.io/pciBusID": {"string": f"0000:{0x65 + index:02x}:00.0"},
        },
        "capacity": {f"memorySlice{unit}": {"value": "1"} for unit in range(start, start + units)},
        **more,
    }


def test_slices_of_static_mig_name_the_instances_and_their_gpu_is_not_whole() -> None:
    devices = [gpu_device(0), static_part(1, "1g.10gb", 2, 19, 1), static_part(1, "3g.40gb", 4, 9, 4)]
    inventory = read(as_bytes(resource_slice("n1", devices)))
    plain, cut = inventory.machines[0].machine.gpus
    assert inventory.warnings == ()
    assert (plain.mig, plain.whole, cut.whole, cut.mig_enabled) == (None, True, False, True)
    assert (cut.device, cut.pci) == ("gpu-1", "0000:66:00.0")
    assert cut.mig is not None
    assert [(i.profile, i.start, i.size, i.device) for i in cut.mig.instances] == [
        (19, 2, 1, "gpu-1-mig-1g10gb-19-2"), (9, 4, 4, "gpu-1-mig-3g40gb-9-4"),
    ]  # fmt: skip
    found = grid_of_gpu(cut)
    assert found is not None
    assert found.states == 4
    assert device_name(cut, "3g.40gb", 4) == "gpu-1-mig-3g40gb-9-4"
    assert part_of([plain, cut], "gpu-1-mig-1g10gb-19-2") == (cut, "1g.10gb", 2)
    assert part_of([plain, cut], "gpu-1-mig-1g10gb-19-3") is None
    with pytest.raises(KeyError, match=r"gpu-1 has no 1g\.10gb at 3"):
        device_name(cut, "1g.10gb", 3)
    with pytest.raises(KeyError):
        device_name(plain, "1g.10gb", 0)
    assert grid_of_gpu(plain) is None


def test_slices_of_dynamic_mig_name_placements_and_only_those_are_given() -> None:
    names = [f"gpu-0-mig-1g10gb-19-{start}" for start in range(7)] + ["gpu-0-mig-3g40gb-9-4", "gpu-0-mig-2g20gb-14-0"]
    parts = [
        {"name": name, "attributes": {"type": {"string": "mig"}}}
        for name in (*names, "gpu-0-mig-odd-9-0", "gpu-0-mig-x")
    ]
    inventory = read(as_bytes(resource_slice("n1", [gpu_device(0), *parts])))
    (gpu,) = inventory.machines[0].machine.gpus
    assert gpu.mig is not None
    assert (gpu.mig.dynamic, gpu.whole, gpu.mig.enabled) == (True, True, True)
    assert {p.name: p.starts for p in gpu.mig.profiles if p.starts} == {
        "1g.10gb": tuple(range(7)), "3g.40gb": (4,), "2g.20gb": (0,),
    }  # fmt: skip
    assert gpu.mig_profiles == ("1g.10gb", "2g.20gb", "3g.40gb")
    found = grid_of_gpu(gpu)
    assert found is not None
    assert found.state_of([("2g.20gb", 0), ("1g.10gb", 2), ("3g.40gb", 4)]) is not None
    assert whats(inventory).count("is no part that gpu-0 is known to have") == 2
    assert device_name(gpu, "3g.40gb", 4) == "gpu-0-mig-3g40gb-9-4"
    with pytest.raises(KeyError):
        device_name(gpu, "3g.40gb", 0)
    assert part_of([gpu], "gpu-0-mig-3g40gb-9-4") == (gpu, "3g.40gb", 4)


def test_what_the_agent_saw_and_the_slices_do_not_name_is_not_given_out() -> None:
    profiles = profiles_of("NVIDIA H100 80GB HBM3")
    seen = MigGeometry(
        enabled=True,
        pending=True,
        profiles=profiles,
        instances=(
            MigInstance(id=3, profile=19, start=0, size=1),
            MigInstance(id=5, profile=9, start=4, size=4),
        ),
    )
    topology = Machine(
        gpus=(Gpu(id="GPU0", index=0, device="gpu-0", uuid="GPU-a", model="NVIDIA H100 80GB HBM3", mig=seen),)
    )
    name = "gpu-0-mig-1g10gb-19-0"
    part = slice_part(name, profile="1g.10gb", parent="GPU-a", uuid="MIG-1", memory_slices=(0,))
    device = SliceDevice(name="gpu-0", uuid="GPU-a", parts=(part,), whole=False)
    machine, conflicts = join(topology, (device,))
    assert machine.gpus[0].mig is not None
    assert machine.gpus[0].mig.instances == (MigInstance(id=3, profile=19, start=0, size=1, device=name),)
    assert conflicts == ("device gpu-0 has 1 MIG instances that no ResourceSlice names; they are not given out",)
    _, conflicts = join(topology, (SliceDevice(name="gpu-0", uuid="GPU-a"),))
    assert "is in MIG mode by its driver, and whole in the ResourceSlices" in conflicts[0]
    unknown = replace(device, parts=(replace(part, number=77),))
    machine, conflicts = join(topology, (unknown,))
    assert f"device {name} is no part that gpu-0 is known to have; it is left out" in conflicts
    nameless, conflicts = join(None, (replace(device, name="gpu-0", model="", parts=(part,)),))
    assert (nameless.gpus[0].mig, nameless.gpus[0].whole) == (None, False)
    assert "nobody knows how its model is cut" in conflicts[0]


def test_names_of_mig_devices() -> None:
    assert parse_device("gpu-12-mig-1g24gb-me-67-9") == parse_device("gpu-12-mig-1g24gb-me-67-9")
    for name in ("gpu-0", "gpu-0-mig-1", "gpu-x-mig-1g-1-1", "mig-1g-1-1", ""):
        assert parse_device(name) is None
    gpu = Gpu(
        id="GPU0", index=0, device="gpu-2", model=RTX, mig=replace(assumed(plain_gpu(RTX), enabled=True), dynamic=True)
    )
    both = {device_name(gpu, "1g.24gb+me", 3), device_name(gpu, "1g.24gb-me", 3), device_name(gpu, "1g.24gb+me.all", 3)}
    assert both == {"gpu-2-mig-1g24gb-me-21-3", "gpu-2-mig-1g24gb-me-67-3", "gpu-2-mig-1g24gb-meall-65-3"}
    assert {part_of([gpu], name) for name in both} == {
        (gpu, "1g.24gb+me", 3), (gpu, "1g.24gb-me", 3), (gpu, "1g.24gb+me.all", 3),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["a100-mig", "h100-mig"])
def test_fleets_with_mig_are_cut_and_their_nodes_survive_the_journal(name) -> None:
    node = fleets.build(name, 1)[0]
    fact = ev.NodeSeen(node=node, at_ms=1)
    assert codec.decode(codec.encode(fact)) == fact
    grids = [grid_of_gpu(gpu) for gpu in node.machine.gpus]
    if name == "h100-mig":
        assert all(found is grids[0] and found.states == 2319 for found in grids)
        assert all(gpu.whole for gpu in node.machine.gpus)
    else:
        assert [found is not None for found in grids] == [False] * 4 + [True] * 4
        assert [gpu.whole for gpu in node.machine.gpus] == [True] * 4 + [False] * 4
        assert [int(found.room("1g.10gb")[0]) for found in grids[4:]] == [7, 7, 0, 0]
        for gpu in node.machine.gpus[4:]:
            for instance in gpu.mig.instances:
                assert part_of(node.machine.gpus, instance.device)[0] is gpu


def test_a_journal_of_an_older_version_has_whole_gpus() -> None:
    fact = ev.NodeSeen(node=Node(name=NodeName("n"), machine=Machine(gpus=(plain_gpu("H100"),))), at_ms=1)
    old = codec.encode(fact).replace(b'"mig":null,', b"").replace(b',"whole":true', b"")
    assert old != codec.encode(fact)
    assert codec.decode(old) == fact


# --- from the agent to the scheduler


def test_what_the_agent_publishes_of_a_cut_gpu_reaches_the_node() -> None:
    fake = dgx_a100()
    fake.cut(4, (9, 0), (9, 4))
    fake.cut(5, (19, 0))
    rig = Rig(fake).turn()
    topology = msgspec.json.decode(json.dumps(rig.object), type=NodeTopology)
    assert decode_topology(topology).gpus[4].mig == rig.ward.facts["GPU4"].mig, "nothing is lost on the way"
    (from_file,) = read(as_bytes(json.loads(json.dumps(rig.object)) | {"kind": "NodeTopology"})).machines
    assert from_file.machine.gpus[4].mig == rig.ward.facts["GPU4"].mig

    def part(minor, name, start, number, units):
        found = static_part(minor, name, start, number, units)
        card = fake.gpus[minor]
        found["attributes"] |= {
            "parentUUID": {"string": card.uuid},
            "productName": {"string": card.model},
            "resource.kubernetes.io/pciBusID": {"string": card.pci},
        }
        return found

    cut = [part(4, "3g.20gb", 0, 9, 4), part(4, "3g.20gb", 4, 9, 4), part(5, "1g.5gb", 0, 19, 1)]
    taint = {"key": "gpu.nvidia.com/xid", "value": "48", "effect": "NoExecute"}
    for each, odd in ((False, ()), (True, (taint,))):
        cut[2]["taints"] = list(odd)
        slices = msgspec.json.decode(json.dumps([resource_slice("n1", cut)]), type=list[Slice])
        pool, devices, conflicts = slice_devices(slices, "gpu.nvidia.com")
        machine, mismatches = join(decode_topology(topology), devices)
        assert [(g.device, g.uuid) for g in machine.gpus] == [(f"gpu-{n}", fake.gpus[n].uuid) for n in (4, 5)]
        assert [grid_of_gpu(gpu).states for gpu in machine.gpus] == [4, 2]
        assert [gpu.memory_bytes >> 30 for gpu in machine.gpus] == [40, 40], "which no MIG device says"
        assert not any(gpu.whole for gpu in machine.gpus)
        assert (machine.gpus[0].healthy, machine.gpus[1].healthy) == (True, not each)
        assert (pool, conflicts) == ("n1", ())
        assert len(mismatches) == 6, "the six GPUs that no slice offers"


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(-3, 99), st.integers(-1, 70), st.booleans()), max_size=8))
def test_odd_slices_never_break_the_reading(drawn) -> None:
    gpu = Gpu(id="GPU0", index=0, device="gpu-0", uuid="GPU-a", model="NVIDIA H100 80GB HBM3")
    parts = tuple(
        slice_part(
            f"gpu-0-mig-{at}g-{number}-{start}" if number >= 0 <= start else f"odd-{at}",
            profile=f"{number}g.10gb",
            parent="GPU-a",
            uuid="MIG" if exists else "",
            memory_slices=(start,) if exists else (),
        )
        for at, (_, number, start, exists) in enumerate(drawn)
    )
    device = SliceDevice(name="gpu-0", uuid="GPU-a", parts=parts, whole=False)
    machine, _ = join(Machine(gpus=(gpu,)), (device,))
    found = grid_of_gpu(machine.gpus[0])
    if found is not None:
        for name, start in {found.layout(state)[0] for state in range(1, found.states)}:
            assert part_of(machine.gpus, device_name(machine.gpus[0], name, start)) == (machine.gpus[0], name, start)
