"""A gang that shrinks and grows on a real API server, and what a new leader makes of it."""

import pytest

from cluster.api import path
from cluster.history import History
from cluster.mixes import is_staying
from cluster.operator_process import OperatorProcess
from cluster.world import PULL, ClusterWorld

QUEUE = "elastic"
GROW_AFTER_MS = 3_000


@pytest.fixture(scope="module")
def world(control_plane):
    """Two nodes of eight GPUs."""
    with ClusterWorld(control_plane, "elastic", nodes=2, nodes_per_rack=2, data=True) as world:
        world.queue(QUEUE, guaranteed=16)
        world.priority_class("elastic-high", 1000)
        yield world


@pytest.fixture(scope="module")
def operator(control_plane, world, tmp_path_factory):
    with OperatorProcess(control_plane, tmp_path_factory.mktemp("elastic"), grow_after_ms=GROW_AFTER_MS) as operator:
        operator.wait_ready()
        yield operator


def here(world, name="wide"):
    """name -> uid of the gang's pods that stay and are bound."""
    pods = [pod for pod in world.pods(name) if is_staying(pod) and pod["spec"].get("nodeName")]
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in pods}


def left(world):
    return world.gang("wide")["status"]["allocation"]["left"]


def test_a_gang_gives_members_up_takes_others_back_and_outlives_its_scheduler(world, operator):
    with History(world.api) as history:
        pod = {"spec": {"containers": [{"name": "main", "image": "example", **PULL}]}}
        role = {"name": "worker", "replicas": 8, "minReplicas": 2, "devices": {"count": 2}, "template": pod}
        world.submit("wide", queue=QUEUE, resize="WhileRunning", roles=[role])
        world.wait_phase("wide", "Running")
        before = here(world)
        assert len(before) == 8

        world.submit("high", gpus=4, queue=QUEUE, priorityClassName="elastic-high")
        world.wait_phase("high", "Running")
        assert left(world) == [6, 7]
        stayed = here(world)
        assert stayed == {name: uid for name, uid in before.items() if name in stayed}
        assert len(stayed) == 6
        assert world.phase("wide") == "Running"

        operator.kill()
        operator.start()
        operator.wait_ready()
        assert here(world) == stayed
        assert world.phase("wide") == "Running"

        world.delete_gang("high")
        world.api.wait(
            path("gangjobs", world.namespace, "wide"),
            lambda job: len(here(world)) == 8 and job["status"]["allocation"]["left"] == [6, 7],
            what="two members have joined",
        )
        grown = here(world)
        assert stayed.items() <= grown.items()
        assert sorted(grown.keys() - stayed.keys()) == ["wide-worker-8-1", "wide-worker-9-1"]
        assert world.gang("wide")["status"]["attempt"] == 1

        operator.kill()
        operator.start()
        operator.wait_ready()
        assert here(world) == grown
        world.delete_gang("wide")
        world.until(lambda: [p["metadata"]["name"] for p in world.pods() + world.claims()], "objects are left")
    assert history.devices_in_two_claims() == []
    assert history.bound_too_early() == []
