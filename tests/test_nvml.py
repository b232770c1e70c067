"""What is read of a node through NVML, on a fake of the library: paths, NUMA, MIG, fabric, and what can go wrong."""

from __future__ import annotations

import builtins
import inspect

import pynvml
import pytest
from fake_machines import RTX6000_MIG, dgx_a100, gb200_tray, hgx_h100, nvl4_pair
from fake_nvml import FakeGpu, FakeNvml

from fairlead.discovery import nvml
from fairlead.discovery.nvml import Library
from fairlead.discovery.nvml_node import read_node
from fairlead.discovery.nvml_samples import read_sample
from fairlead.errors import MissingExtra, Unreachable


def opened(fake):
    library = Library(fake)
    library.open()
    return library


def test_the_fake_has_only_functions_of_the_real_binding_with_its_parameters():
    for name, function in inspect.getmembers(FakeNvml, inspect.isfunction):
        if name.startswith("nvml"):
            real = inspect.signature(getattr(pynvml, name))
            ours = [p for p in inspect.signature(function).parameters if p != "self"]
            required = [p for p in real.parameters.values() if p.default is p.empty]
            assert len(required) <= len(ours) <= len(real.parameters), name


def test_an_hgx_h100():
    library = opened(hgx_h100())
    reading = read_node(library)
    machine = reading.machine
    assert [g.id for g in machine.gpus] == [f"GPU{n}" for n in range(8)]
    first = machine.gpus[0]
    assert (first.pci, first.device, first.numa) == ("0000:18:00.0", "gpu-0", 0)
    assert (first.model, first.memory_bytes) == ("NVIDIA H100 80GB HBM3", 81_559 << 20)
    assert [g.numa for g in machine.gpus] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert {(x.path, x.bytes_per_s) for x in machine.links} == {("NV18", 18 * 26_562_000_000)}
    assert len(machine.links) == 28
    facts = reading.facts["GPU0"]
    assert (first.compute, first.minor, facts.pcie_generation, facts.pcie_width) == ("9.0", 0, 5, 16)
    assert (machine.driver_version, machine.clique, library.take_warnings()) == ("580.126.20", "", ())


def test_a_dgx_a100_whose_driver_knows_no_recovery_action():
    library = opened(dgx_a100())
    reading = read_node(library)
    assert {x.path for x in reading.machine.links} == {"NV12"}
    assert [g.numa for g in reading.machine.gpus] == [3, 3, 1, 1, 7, 7, 5, 5]
    handle = library.ask("", "DeviceGetHandleByIndex", 0)
    sample, links = read_sample(library, "GPU0", handle, 7)
    assert (sample.at_ms, sample.recovery_action, sample.nvlinks_up, len(links)) == (7, None, 12, 12)
    assert library.take_warnings() == ()


def test_without_nvlink_paths_are_the_common_ancestors():
    fake = dgx_a100()
    for gpu in fake.gpus:
        gpu.links = []
    levels = {(0, 1): 10, (0, 2): 20, (0, 3): 30, (0, 4): 40, (0, 5): 50, (0, 6): 0}
    fake.ancestors = lambda a, b: levels.get((a, b), 50)
    paths = {(x.a, x.b): x.path for x in read_node(opened(fake)).machine.links}
    assert [paths["GPU0", f"GPU{n}"] for n in range(1, 8)] == ["PIX", "PXB", "PHB", "NODE", "SYS", "PIX", "SYS"]


def test_islands_of_direct_links():
    links = {(x.a, x.b): x.path for x in read_node(opened(nvl4_pair())).machine.links}
    assert links["GPU0", "GPU3"] == links["GPU4", "GPU7"] == "NV6"
    assert links["GPU3", "GPU4"] == "SYS"


def test_a_gb200_tray_and_its_clique():
    reading = read_node(opened(gb200_tray()))
    assert reading.machine.clique == "01020304-0506-0708-090a-0b0c0d0e0f10.32766"
    assert [g.pci for g in reading.machine.gpus] == [f"{d}:01:00.0" for d in ("0008", "0009", "0018", "0019")]
    assert {x.bytes_per_s for x in reading.machine.links} == {18 * 53_125_000_000}


def test_gpus_of_two_cliques_make_none():
    fake = gb200_tray()
    fake.gpus[3].fabric = (bytes(range(2, 18)), 1)
    library = opened(fake)
    assert read_node(library).machine.clique == ""
    assert any("different cliques" in w for w in library.take_warnings())


def test_nvlink_access_that_is_off_is_no_nvlink():
    fake = hgx_h100()
    fake.p2p[frozenset((0, 1))] = 4
    library = opened(fake)
    reading = read_node(library)
    paths = {(x.a, x.b): x.path for x in reading.machine.links}
    assert (paths["GPU0", "GPU1"], paths["GPU0", "GPU2"]) == ("NODE", "NV18")
    assert reading.no_p2p == (("GPU0", "GPU1"),)
    assert "GPU0-GPU1: both have NVLinks to switches, but NVLink access is off (P2P status 4)" in (
        library.take_warnings()
    )


def test_mig_geometry_comes_from_the_driver_on_whatever_grid():
    fake = hgx_h100()
    fake.cut(2, (9, 4), (19, 0), (14, 2))
    fake.gpus[3].mig = RTX6000_MIG
    facts = read_node(opened(fake)).facts
    geometry = facts["GPU2"].mig
    assert (geometry.enabled, geometry.pending, geometry.units) == (True, True, 8)
    assert [(i.profile, i.start, i.size) for i in geometry.instances] == [(19, 0, 1), (14, 2, 2), (9, 4, 4)]
    by_name = {p.name: p for p in geometry.profiles}
    assert (by_name["3g.40gb"].starts, by_name["3g.40gb"].size, by_name["3g.40gb"].most) == ((0, 4), 4, 2)
    assert by_name["1g.20gb"].starts == (0, 2, 4, 6)
    assert by_name["1g.10gb"].memory_bytes == 9984 << 20
    assert facts["GPU0"].mig.instances == ()
    assert facts["GPU3"].mig.units == 12


def test_a_gpu_that_is_lost_is_left_out_and_named():
    fake = hgx_h100()
    fake.lose(3)
    library = opened(fake)
    assert [g.id for g in read_node(library).machine.gpus] == [f"GPU{n}" for n in range(8) if n != 3]
    assert any(w.startswith("GPU3: left out") for w in library.take_warnings())


def test_a_gpu_that_is_lost_while_it_is_read():
    fake = hgx_h100()
    fake.gpus[5].links = []
    fake.ancestors = lambda a, b: (fake.lose(5), 50)[1]
    machine = read_node(opened(fake)).machine
    assert len(machine.gpus) == 8
    assert not any("GPU5" in (x.a, x.b) for x in machine.links)
    assert len(machine.links) == 21


ASKED = sorted(
    name
    for name in dir(FakeNvml)
    if name.startswith("nvmlDevice") or name in ("nvmlSystemGetDriverVersion", "nvmlGpuInstanceGetInfo")
)


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("code", [2, 3, 4, 13, 16, 999, "absent", TypeError("wrong arguments"), "text"])
def test_no_function_is_needed(name, code):
    """NVML's refusals and errors, a function the binding lacks, one it has wrongly, and answers of another type."""
    fake = hgx_h100()
    fake.cut(0, (9, 0))
    if code == "absent":
        fake._without.add(name)
    elif code == "text":
        fake.answers[name] = "nonsense"
    else:
        fake.errors[name] = code
    library = opened(fake)
    reading = read_node(library)
    for at in range(8):
        read_sample(library, f"GPU{at}", fake.gpus[at], 1)
    warnings = library.take_warnings()
    if code in (2, 3, 13, 16, "absent") and name not in ("nvmlDeviceGetUUID", "nvmlDeviceGetPciInfo"):
        assert not [w for w in warnings if name.removeprefix("nvml") in w], warnings
    if code == 4:
        assert any("Insufficient Permissions" in w for w in warnings) or name in UNTOUCHED
    essential = ("nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID")
    assert len(reading.machine.gpus) in ((0, 8) if name in essential else (8,))


UNTOUCHED = {
    "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetSupportedEventTypes",  # events are another test's
    "nvmlDeviceRegisterEvents",
    "nvmlDeviceGetRetiredPagesPendingStatus",  # only where rows cannot be remapped
    "nvmlDeviceGetTopologyCommonAncestor",  # only between GPUs without NVLink
    "nvmlDeviceGetNvLinkRemotePciInfo",  # only where no switch is at the other end
}


def test_a_driver_that_is_unloaded_is_said_once_and_plainly():
    fake = hgx_h100()
    library = opened(fake)
    fake.errors["nvmlDeviceGetCount"] = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    with pytest.raises(Unreachable, match="DeviceGetCount: Driver Not Loaded"):
        read_node(library)
    assert not library.is_open
    fake.errors = {"nvmlInit": pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH}
    with pytest.raises(Unreachable, match=r"does not start: .*is the NVIDIA driver loaded"):
        library.open()


def test_a_missing_binding_says_how_to_get_it(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name == "pynvml":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match="pip install nvidia-ml-py"):
        nvml.load()


def test_the_real_library_is_wrapped_and_says_that_there_is_no_driver():
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        with pytest.raises(Unreachable, match="NVML does not start"):
            nvml.load().open()
    else:
        pynvml.nvmlShutdown()
        pytest.skip("this machine has an NVIDIA driver")


def test_events_name_their_gpu():
    fake = hgx_h100()
    library = opened(fake)
    events = library.listen(fake.gpus)
    assert library.wait_event(events, 1) is None
    fake.xid(4, 63)
    event = library.wait_event(events, 1000)
    assert (event.uuid, event.xid, event.instance) == (fake.gpus[4].uuid, 63, -1)
    fake.lose(4)
    fake.xid(4, 79)
    assert library.wait_event(events, 1000).uuid == ""


def test_a_card_without_nvlink_mig_or_fabric():
    fake = FakeNvml([FakeGpu("0000:01:00.0", "GPU-1", "NVIDIA L4", 24 << 30, -1, [])])
    library = opened(fake)
    reading = read_node(library)
    assert reading.facts["GPU0"].mig is None
    assert reading.machine.gpus[0].numa == -1
    sample, links = read_sample(library, "GPU0", fake.gpus[0], 1)
    assert (links, sample.nvlinks_up, sample.nvlink_errors, sample.fabric_health) == (None, None, None, None)
    assert library.take_warnings() == ()
