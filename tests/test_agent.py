"""The node agent on a fake driver and a fake API server: what is published follows the node, whatever happens to it."""

from __future__ import annotations

import importlib.util
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from agent_rig import KEY, NODE, Rig, slices_of
from fake_kube import api_error
from fake_machines import dgx_a100, gb200_tray, hgx_h100

from fairlead.errors import Unreachable

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def rig():
    return Rig(hgx_h100()).turn()


def test_a_healthy_node_is_published_whole(rig):
    spec = rig.object["spec"]
    assert rig.object["metadata"]["ownerReferences"][0]["uid"] == "node-uid"
    assert [g["id"] for g in spec["gpus"]] == [f"GPU{n}" for n in range(8)]
    assert (spec["driverVersion"], spec["bootID"], spec["source"]) == ("580.126.20", "boot-1", "nvml")
    assert rig.gpu(0)["healthy"] is True
    assert rig.gpu(0)["mig"] == {"enabled": False, "pending": False, "units": 8, "instances": []}
    assert {p["name"] for p in spec["migProfiles"]} >= {"1g.10gb", "7g.80gb"}
    assert rig.verdicts() == ["healthy"] * 8
    assert {x["class"] for x in spec["links"]} == {"NV18"}
    assert (rig.condition("Joined")["status"], rig.condition("Mismatch")["status"]) == ("True", "False")
    node, mask = rig.scheduled()
    assert (mask, node.conflicts, len(node.machine.links)) == (0xFF, (), 28)


@pytest.mark.parametrize("make", [dgx_a100, hgx_h100, gb200_tray])
def test_what_is_published_is_what_the_schema_allows(make):
    """Every field is known to the CRD and has its type, so that the server drops and refuses nothing."""
    fake = make()
    fake.cut(1, (9, 0), (19, 4))
    rig = Rig(fake).turn()
    rig.xid(0, 13)
    rig.turn()
    fake.lose(2)
    rig.turn()
    spec = importlib.util.spec_from_file_location("api_docs", ROOT / "tools/api_docs.py")
    api_docs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(api_docs)
    schema = api_docs.schema_of(yaml.safe_load((ROOT / "crds/nodetopologies.yaml").read_text(encoding="utf-8")))

    def check(value, field, path):
        kinds = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
        assert isinstance(value, kinds[field["type"]]), (path, value)
        if field["type"] == "object":
            for name, inner in value.items():
                assert name in field["properties"], f"{path}.{name}"
                check(inner, field["properties"][name], f"{path}.{name}")
            assert set(field.get("required", ())) <= set(value), path
        elif field["type"] == "array":
            assert len(value) <= field["maxItems"], path
            for inner in value:
                check(inner, field["items"], f"{path}[]")
        elif field["type"] == "string":
            assert field.get("minLength", 0) <= len(value) <= field.get("maxLength", 10_000), (path, value)
            assert value in field.get("enum", [value]), (path, value)
        elif field["type"] == "integer":
            assert value >= field.get("minimum", value), (path, value)

    check(rig.object["spec"], schema["properties"]["spec"], "spec")
    check(rig.object["status"], schema["properties"]["status"], "status")


def test_nothing_changed_is_nothing_written(rig):
    before = len(rig.writes())
    rig.turn(11)
    assert len(rig.writes()) == before
    rig.turn()  # two minutes: a sign of life
    assert rig.writes()[before:] == [("PATCH", f"/apis/fairlead.dev/v1alpha1/nodetopologies/{NODE}/status")]
    assert rig.object["status"]["heartbeatMs"] == rig.now


def test_a_lost_gpu_is_out_within_one_interval_and_back_after_its_reset(rig):
    rig.fake.lose(3)
    rig.turn()
    assert rig.gpu(3)["verdict"] == "bad"
    assert (rig.gpu(3)["healthy"], rig.gpu(3)["pci"]) == (False, "0000:5d:00.0")
    assert rig.gpu(3)["healthReasons"] == ["GpuLost"]
    node, mask = rig.scheduled()
    assert mask == 0xFF & ~(1 << 3)
    assert "does not answer" in node.machine.gpus[3].health_reason
    assert rig.condition("Joined")["status"] == "True"  # it is known, only not well
    assert rig.fake.sessions == 0  # nobody holds the driver while a GPU waits for its reset
    rig.fake.reset(3)
    rig.turn()
    assert (rig.gpu(3)["verdict"], rig.gpu(3)["healthReasons"]) == ("suspect", ["Probation"])
    rig.turn(3)
    assert rig.verdicts() == ["healthy"] * 8
    assert rig.scheduled()[1] == 0xFF
    assert [(e["gpu"], e["what"]) for e in rig.object["status"]["events"]] == [
        ("GPU3", "GpuLost"),
        ("GPU3", "Probation"),
        ("GPU3", "Recovered"),
    ]


def test_a_gpu_that_vanishes_renames_no_other(rig):
    rig.fake.remove(2)
    rig.turn()
    assert [(g["id"], g["uuid"] == rig.fake.gpus[n].uuid) for n, g in enumerate(rig.object["spec"]["gpus"])] == [
        (f"GPU{n}", True) for n in range(8)
    ]
    assert rig.gpu(2)["healthReasons"] == ["GpuMissing"]
    assert rig.scheduled()[1] == 0xFF & ~(1 << 2)
    ends = {frozenset((x["a"], x["b"])) for x in rig.object["spec"]["links"]}
    assert len(ends) == 28  # its links are kept, so that its place is known


def test_another_card_in_the_slot_takes_its_place(rig):
    old = rig.fake.gpus[2].uuid
    rig.fake.remove(2)
    rig.turn()
    rig.fake.gpus[2] = replace(rig.fake.gpus[2], uuid="GPU-new", present=True)
    rig.turn()
    uuids = [g["uuid"] for g in rig.object["spec"]["gpus"]]
    assert (old in uuids, "GPU-new" in uuids, len(uuids)) == (False, True, 8)
    assert rig.verdicts() == ["healthy"] * 8
    assert rig.condition("Mismatch")["status"] == "True"  # the slice still has the old one


@pytest.mark.parametrize(
    ("number", "verdict", "hard"),
    [(79, "bad", True), (48, "bad", True), (94, "suspect", False), (63, "healthy", False)],
)
def test_error_numbers(rig, number, verdict, hard):
    rig.xid(5, number)
    rig.turn()
    assert rig.gpu(5)["verdict"] == verdict
    assert rig.gpu(5)["healthReasons"] == [f"Xid{number}"]
    assert rig.scheduled()[1] == (0xFF if verdict == "healthy" else 0xFF & ~(1 << 5))
    rig.turn(5)
    assert rig.gpu(5)["verdict"] == verdict
    rig.fake.reset(5)
    rig.turn(4)
    assert (rig.gpu(5)["verdict"] == "healthy") is (hard or verdict == "healthy")
    rig.now += 3_600_000
    rig.turn(3)
    assert rig.verdicts() == ["healthy"] * 8


def test_a_row_waits_until_it_is_remapped(rig):
    rig.fake.gpus[1].remapped = [0, 1, 1, 0]
    rig.xid(1, 63)
    rig.turn()
    assert (rig.gpu(1)["verdict"], rig.gpu(1)["healthReasons"]) == ("suspect", ["RowRemapPending", "Xid63"])
    rig.fake.reset(1)
    rig.turn()
    assert rig.gpu(1)["healthReasons"][0] == "Probation"
    rig.turn(3)
    assert rig.gpu(1)["verdict"] == "healthy"


def test_throttling_counts_when_it_lasts(rig):
    rig.fake.gpus[6].throttle = 0x40
    rig.turn(2)
    assert rig.gpu(6)["verdict"] == "healthy"
    rig.turn()
    assert (rig.gpu(6)["verdict"], rig.gpu(6)["healthReason"]) == (
        "suspect",
        "HwThermalSlowdown: the GPU is slowed down by heat",
    )
    rig.fake.gpus[6].throttle = 0
    rig.turn(3)
    assert rig.verdicts() == ["healthy"] * 8


def test_the_recovery_action_is_obeyed(rig):
    rig.fake.gpus[0].recovery = 4
    rig.turn()
    assert (rig.gpu(0)["verdict"], rig.gpu(0)["healthReasons"]) == ("bad", ["RecoverDrainAndReset"])
    assert rig.fake.sessions == 0


def test_a_cut_gpu_is_published_and_so_is_every_change_of_the_cut(rig):
    rig.fake.cut(4, (9, 0), (9, 4))
    rig.turn()
    assert [(i["profile"], i["start"]) for i in rig.gpu(4)["mig"]["instances"]] == [(9, 0), (9, 4)]
    rig.fake.cut(4, (14, 0), (14, 2))
    rig.turn()
    assert [(i["profile"], i["start"]) for i in rig.gpu(4)["mig"]["instances"]] == [(14, 0), (14, 2)]
    rig.fake.cut(4, (14, 2), (14, 4))  # as many, elsewhere
    rig.turn()
    assert [i["start"] for i in rig.gpu(4)["mig"]["instances"]] == [2, 4]
    rig.fake.gpus[4].mig_mode, rig.fake.gpus[4].instances = [0, 0], {}
    rig.turn()
    assert rig.gpu(4)["mig"] == {"enabled": False, "pending": False, "units": 8, "instances": []}


def test_links_that_go_down_are_out_of_the_graph_at_once(rig):
    rig.fake.gpus[0].down = {3}
    rig.turn()
    paths = {(x["a"], x["b"]): x["class"] for x in rig.object["spec"]["links"]}
    assert (paths["GPU0", "GPU1"], paths["GPU1", "GPU2"]) == ("NV17", "NV18")
    rig.turn()
    assert rig.gpu(0)["healthReasons"] == ["NvlinkDown"]


def test_a_driver_that_hangs_is_a_verdict_and_never_a_hung_agent():
    rig = Rig(hgx_h100(), deadline_s=0.1).turn()
    rig.fake.hang.set()
    try:
        began = time.monotonic()
        rig.turn()
        assert time.monotonic() - began < 2
        assert rig.verdicts() == ["suspect"] * 8
        assert rig.scheduled()[1] == 0
        rig.turn(2)
        assert rig.verdicts() == ["bad"] * 8
        assert set(rig.gpu(0)["healthReasons"]) == {"NvmlHung", "NvmlHungLong"}
    finally:
        rig.fake.hang.clear()
    time.sleep(0.3)
    rig.turn(3)
    assert rig.verdicts() == ["healthy"] * 8


def test_a_driver_that_is_unloaded_and_comes_back(rig):
    rig.fake.errors["nvmlDeviceGetCount"] = 9
    rig.fake.errors["nvmlInit"] = 9
    rig.turn(2)
    assert rig.verdicts() == ["suspect"] * 8
    assert rig.gpu(0)["healthReasons"] == ["NvmlFailed"]
    rig.fake.errors.clear()
    rig.turn(3)
    assert rig.verdicts() == ["healthy"] * 8


def test_the_newest_state_and_the_events_survive_the_servers_absence(rig):
    rig.kube.fault = lambda *_: Unreachable("away")
    rig.fake.lose(3)
    rig.turn(2)
    rig.fake.reset(3)
    rig.turn(4)
    rig.fake.gpus[5].recovery = 1
    rig.turn()
    assert rig.publisher.behind_since_ms is not None
    assert rig.verdicts() == ["healthy"] * 8  # what the server still believes
    rig.kube.fault = lambda *_: None
    rig.turn()
    assert rig.publisher.behind_since_ms is None
    assert rig.verdicts() == [*["healthy"] * 5, "bad", "healthy", "healthy"]
    whats = [(e["gpu"], e["what"]) for e in rig.object["status"]["events"]]
    assert whats == [("GPU3", "GpuLost"), ("GPU3", "Probation"), ("GPU3", "Recovered"), ("GPU5", "RecoverGpuReset")]


def test_the_ring_of_events_is_bounded(rig):
    rig.kube.fault = lambda *_: Unreachable("away")
    for _ in range(300):
        rig.ward._note(rig.now, "GPU0", "u", "Xid13", rig.ward.health[rig.fake.gpus[0].uuid].verdict)
    rig.kube.fault = lambda *_: None
    rig.turn()
    assert (len(rig.ward.events), len(rig.object["status"]["events"])) == (256, 32)


def test_a_new_agent_remembers_what_a_restart_of_it_does_not_mend(rig):
    rig.xid(0, 48)
    rig.fake.remove(7)
    rig.turn()
    again = Rig(rig.fake, kube=rig.kube, now=rig.now).turn(5)
    assert again.gpu(0)["verdict"] == "bad"
    assert (again.gpu(7)["verdict"], again.gpu(7)["healthReasons"]) == ("bad", ["GpuMissing"])
    rebooted = Rig(rig.fake, kube=rig.kube, now=again.now, boot_id="boot-2").turn(5)
    assert rebooted.gpu(0)["verdict"] == "healthy"  # a restart of the node resets every GPU
    assert rebooted.gpu(7)["verdict"] == "bad"
    rebooted.now += 86_400_000
    rebooted.kube.objects["resourceslices", "", "slice-a"] = slices_of(rig.fake, without=(7,))
    rebooted.turn(2)
    assert len(rebooted.verdicts()) == 7  # gone since a restart a day ago: taken out for good


def test_disagreement_with_the_slices_is_a_condition(rig):
    rig.kube.objects["resourceslices", "", "slice-a"]["spec"]["devices"][2]["attributes"]["uuid"] = {"string": "GPU-x"}
    rig.turn(4)
    mismatch = rig.condition("Mismatch")
    assert (mismatch["status"], mismatch["reason"]) == ("True", "Disagreement")
    assert "gpu-2 at 0000:3a:00.0 has UUID GPU-x in the ResourceSlice" in mismatch["message"]
    assert rig.condition("Joined")["status"] == "False"
    since = mismatch["lastTransitionTime"]
    rig.turn(4)
    assert rig.condition("Mismatch")["lastTransitionTime"] == since


def test_a_gpu_of_the_slices_that_nvml_never_showed_is_down():
    fake = hgx_h100()
    fake.remove(6)
    rig = Rig(fake).turn(2)
    assert [g["uuid"] for g in rig.object["spec"]["gpus"] if g["verdict"] == "bad"] == [fake.gpus[6].uuid]
    assert rig.scheduled()[1] == 0xFF & ~(1 << 6)


def test_without_slices_or_the_right_to_read_them_all_else_is_published():
    bare = Rig(hgx_h100(), slices=False).turn()
    assert (bare.condition("Joined")["reason"], len(bare.verdicts())) == ("NoSlices", 8)
    refused = Rig(hgx_h100())
    refused.kube.fault = lambda method, path, body: api_error(403, "Forbidden") if "slices" in path else None
    refused.turn()
    assert (refused.condition("Joined")["status"], refused.condition("Mismatch")["status"]) == ("Unknown", "Unknown")


def test_an_object_that_somebody_deleted_is_made_anew(rig):
    del rig.kube.objects[KEY]
    rig.fake.lose(1)
    rig.turn(2)
    assert rig.gpu(1)["verdict"] == "bad"
