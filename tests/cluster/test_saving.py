"""A stop in steps on a real API server: notice, checkpoint, committed, stop; and what a new attempt and leader know."""

import json
import time

import pytest

from cluster.api import path
from cluster.operator_process import OperatorProcess
from cluster.world import ClusterWorld
from fairlead.clock import now_ms

QUEUE = "saving-team"
ASKED, MARKER = "fairlead.dev/checkpoint-request", "fairlead.dev/checkpoint"
MANIFEST = {"shards": 1, "bytes": 9, "digest": "sha256:" + 64 * "a"}


@pytest.fixture(scope="module")
def world(control_plane):
    with ClusterWorld(control_plane, "saving", nodes=1, data=True) as world:
        world.queue(QUEUE, guaranteed=8)
        yield world


@pytest.fixture(scope="module")
def operator(control_plane, world, tmp_path_factory):
    with OperatorProcess(control_plane, tmp_path_factory.mktemp("saving")) as operator:
        operator.wait_ready()
        yield operator


def pod_of(world, name):
    (pod,) = [pod for pod in world.pods(name) if not pod["metadata"].get("deletionTimestamp")]
    return pod


def begin(world, name, **checkpoint):
    """A gang of one that has run for long enough to have something to save."""
    world.submit(name, gpus=8, queue=QUEUE, checkpoint={"pause": "1ms", "path": "s3://runs"} | checkpoint)
    world.wait_phase(name, "Running")
    time.sleep(1)
    return pod_of(world, name)


def condition(world, name, kind="CheckpointRequested"):
    found = {c["type"]: c["status"] for c in world.gang(name)["status"].get("conditions", [])}
    return found.get(kind)


def annotate(world, pod, text):
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    world.api.patch(path("pods", namespace, name), {"metadata": {"annotations": {MARKER: text}}})


def asked(world, name):
    return pod_of(world, name)["metadata"]["annotations"].get(ASKED)


def gone(world, name):
    world.delete_gang(name)
    world.until(lambda: [p["metadata"]["name"] for p in world.pods(name) + world.claims(name)], "objects are left")


def test_a_gang_is_asked_saves_is_stopped_and_resumes_where_it_left_off(world, operator):
    pod = begin(world, "honest", notify="file", grace="1h")
    annotate(world, pod, json.dumps({"state": "committed", "step": "1", "began": 1, "manifest": MANIFEST}))
    world.until(lambda: condition(world, "honest", "CheckpointMarkerRefused") != "True", "the false marker is believed")
    world.patch_gang("honest", {"suspend": True})
    world.until(lambda: not asked(world, "honest"), "nobody asked it to save")
    world.until(lambda: condition(world, "honest") != "True", "no condition says so")
    assert world.gang("honest")["status"]["phase"] == "Stopping"
    time.sleep(1)
    assert pod_of(world, "honest")["metadata"]["uid"] == pod["metadata"]["uid"], "it is stopped before it has saved"
    began = now_ms()
    said = {"state": "committed", "step": "7", "began": began, "answers": asked(world, "honest"), "manifest": MANIFEST}
    annotate(world, pod, json.dumps(said))
    world.wait_phase("honest", "Suspended")
    world.patch_gang("honest", {"suspend": False})
    world.wait_phase("honest", "Running")
    env = {e["name"]: e.get("value") for e in pod_of(world, "honest")["spec"]["containers"][0]["env"]}
    assert (env["FAIRLEAD_RESUME_STEP"], env["FAIRLEAD_CHECKPOINT_PATH"]) == ("7", "s3://runs")
    assert condition(world, "honest") == "False"
    gone(world, "honest")


def test_a_gang_that_never_answers_is_stopped_when_its_grace_is_over(world, operator):
    begin(world, "silent", notify="file", grace="3s")
    world.patch_gang("silent", {"suspend": True})
    world.until(lambda: not asked(world, "silent"), "nobody asked it to save")
    world.wait_phase("silent", "Suspended", seconds=20)
    gone(world, "silent")


def test_a_new_leader_goes_on_with_a_notice_and_ends_it_in_time(world, operator):
    begin(world, "kept", notify="file", grace="30s")
    world.patch_gang("kept", {"suspend": True})
    world.until(lambda: not asked(world, "kept"), "nobody asked it to save")
    until_ms = world.gang("kept")["status"]["notice"]["untilMs"]
    operator.kill()
    operator.start()
    operator.wait_ready()
    world.until(lambda: condition(world, "kept") != "True", "the new leader has forgotten the notice")
    assert world.phase("kept") == "Stopping"
    world.wait_phase("kept", "Suspended", seconds=60)
    assert now_ms() >= until_ms - 1_000
    gone(world, "kept")


def test_a_signal_ends_the_pods_with_the_whole_grace(world, operator):
    pod = begin(world, "signal", signal="SIGTERM", grace="2m")
    assert pod["spec"]["terminationGracePeriodSeconds"] == 120
    world.patch_gang("signal", {"suspend": True})
    world.wait_phase("signal", "Suspended", seconds=60)
    gone(world, "signal")


def test_a_finished_gangjob_is_deleted_when_its_time_is_over(world, operator):
    run = {"fairlead.dev/test-run-seconds": "1"}
    world.submit("brief", gpus=8, queue=QUEUE, annotations=run, ttl="2s")

    world.until(lambda: world.api.exists(path("gangjobs", world.namespace, "brief")), "it is not deleted", seconds=60)
