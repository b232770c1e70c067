"""An uninstall blocks nothing: the hook's own command, with the hook's own rights, while an operator runs."""

import os
import subprocess
import sys
import time

import pytest

from cluster.api import path
from cluster.chart import LEASE, NAMESPACE, install_chart
from cluster.operator_process import OperatorProcess
from cluster.world import OURS, ClusterWorld

BOOKED = "fairlead.dev/booked"
TAINT = "fairlead.dev/pool"


@pytest.fixture
def world(control_plane):
    with ClusterWorld(control_plane, "uninstall", nodes=4) as world:
        install_chart(control_plane.api, control_plane.programs["helm"], hooks=True)
        world.queue("uninstall-q")
        yield world
        world.free_lease()
    where = path("namespaces", name=world.namespace)
    control_plane.api.wait(where, lambda found: found is None, seconds=60, what="the namespace ends")


def release(plane, folder):
    """Run what the pre-delete Job runs, as its ServiceAccount."""
    token = plane.pod_bound_token(NAMESPACE, "fairlead-release", "release-0")
    config = plane.kubeconfig(folder / "release.kubeconfig", token, NAMESPACE)
    return subprocess.run(
        [sys.executable, "-m", "fairlead_operator", "release-finalizers"],
        env={
            "PATH": os.environ.get("PATH", ""),
            "PYTHONSAFEPATH": "1",
            "POD_NAMESPACE": NAMESPACE,
            "FAIRLEAD_KUBECONFIG": str(config),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )


def held_back(world):
    """Our objects that a finalizer of ours keeps."""
    return [
        found["metadata"]["name"]
        for found in world.pods() + world.claims()
        if BOOKED in found["metadata"].get("finalizers", [])
    ]


def answers(operator):
    """Whether the process serves its page."""
    try:
        return bool(operator.metrics())
    except OSError:
        return False


def tainted(world):
    nodes = world.api.list(path("nodes"), labels=f"{OURS}={world.prefix}")
    return [n["metadata"]["name"] for n in nodes if any(t["key"] == TAINT for t in n["spec"].get("taints", []))]


def test_an_uninstall_with_running_gangs_and_a_running_operator(control_plane, world, tmp_path):
    with OperatorProcess(control_plane, tmp_path, policy_lag_ms=200) as operator:
        operator.wait_ready()
        for name in ("one", "two", "three"):
            world.submit(name, replicas=2, gpus=4, queue="uninstall-q")
        world.wait_phases(["one", "two", "three"], "Running")
        world.submit("waits", replicas=8, gpus=8, queue="uninstall-q")
        world.until(lambda: set(world.nodes) - set(tainted(world)), "nodes without the pool's taint")
        assert len(held_back(world)) == 12

        done = release(control_plane, tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "released 12 pods and claims and 4 nodes" in done.stderr

        # The operator has ended, and the one that its restart policy brings back does not lead.
        world.until(lambda: operator.running, "the operator goes on", seconds=20)
        assert operator.said("event=lease_lost")
        operator.start()
        world.submit("late", gpus=1, queue="uninstall-q")
        world.until(lambda: not answers(operator), "the operator does not answer")
        time.sleep(3)
        assert operator.metrics()["fairlead_leader"] == 0
        assert held_back(world) == []
        assert tainted(world) == []
        assert all(pod["status"]["phase"] == "Running" for pod in world.pods())  # what runs goes on
        assert len(world.pods()) == 6
        assert world.phase("late") == ""
        assert world.api.get(LEASE)["spec"]["holderIdentity"] == "fairlead-release"
        assert operator.terminate() == 0

    # No operator any more: everything goes by Kubernetes' own means.
    world.api.delete(path("namespaces", name=world.namespace))
    world.api.wait(path("namespaces", name=world.namespace), lambda n: n is None, seconds=60, what="the namespace ends")


def test_gangs_on_their_way_out_are_not_held_up_either(control_plane, world, tmp_path):
    """The operator is killed with gangs being deleted; then the namespace goes."""
    operator = OperatorProcess(control_plane, tmp_path, policy_lag_ms=200)
    operator.start()
    operator.wait_ready()
    for name in ("first", "second"):
        world.submit(name, replicas=2, gpus=4, queue="uninstall-q")
    world.wait_phases(["first", "second"], "Running")
    operator.kill()
    world.delete_gang("first")
    world.api.delete(path("namespaces", name=world.namespace))
    world.until(lambda: len(held_back(world)) < 8, "finalizers went by themselves", seconds=5)
    assert held_back(world)
    done = release(control_plane, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    world.api.wait(path("namespaces", name=world.namespace), lambda n: n is None, seconds=60, what="the namespace ends")
    operator.stop()
