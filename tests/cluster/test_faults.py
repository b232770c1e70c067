"""An API server that answers 409, 429 and 500, loses answers and drops watches; objects and nodes that go under us: P1.

The faults come from `cluster.faulty_proxy` between the operator and the server, by a seed. The checkers of `History`
read the server itself, past the proxy.
"""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from cluster.api import ApiError, path
from cluster.faulty_proxy import CALM, ROUGH, FaultyProxy, ProxiedOperator
from cluster.history import History
from cluster.operator_process import OperatorProcess
from cluster.world import ClusterWorld, claimed

GANGS = {"one": (1, 1), "node": (1, 8), "two": (2, 8), "rack": (3, 8), "small": (3, 2), "none": (3, 0)}


@pytest.fixture(scope="module")
def world(control_plane):
    with ClusterWorld(control_plane, "faults", nodes=16) as world:
        world.queue("faults-q")
        yield world


@pytest.fixture(autouse=True)
def emptied(world):
    yield
    world.clear()


def promises_hold(history):
    assert history.devices_in_two_claims() == []
    assert history.bound_too_early() == []
    assert history.partly_bound(30) == []


def books_hold(operator):
    assert operator.terminate() == 0
    assert not operator.said("Traceback|background_failed"), operator.tail(150)
    verified = operator.verify_books()
    assert verified.returncode == 0, verified.stdout + verified.stderr


def all_is_as_it_says(world, names):
    """Every claim names exactly the devices of its gang's status, and nobody else's."""
    held = [device for claim in world.claims() for device in claimed(claim)]
    assert len(held) == len(set(held))
    for name in names:
        replicas, gpus = GANGS[name.split("-")[0]]
        pods, claims = world.pods(name), world.claims(name)
        live = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
        assert len(live) == replicas, name
        assert all(pod["spec"].get("nodeName") and pod["status"]["phase"] == "Running" for pod in live)
        assert sum(len(claimed(claim)) for claim in claims) == replicas * gpus, name


def submit_all(world, mark):
    names = {f"{kind}-{mark}": shape for kind, shape in GANGS.items()}
    for name, (replicas, gpus) in names.items():
        within = {"within": "rack"} if name.startswith("rack") else {}
        spec = {"failurePolicy": {"maxRestarts": 0}}  # whatever the server does is no failure of the job
        world.submit(name, replicas=replicas, gpus=gpus, queue="faults-q", **within, **spec)
    return list(names)


@pytest.mark.parametrize("seed", [1, 2])
def test_p1_holds_while_the_server_fails_and_everything_runs_afterwards(world, tmp_path, seed):
    with FaultyProxy(world.plane, seed) as proxy, ProxiedOperator(proxy, tmp_path, policy_lag_ms=200) as operator:
        operator.wait_ready()
        with History(world.api) as history:
            proxy.faults = ROUGH
            first = submit_all(world, "a")
            time.sleep(6)
            for name in first[:3]:  # the way out fails as well as the way in
                world.delete_gang(name)
            second = submit_all(world, "b")
            time.sleep(8)
            proxy.faults = CALM
            names = [*first[3:], *second]
            world.wait_phases(names, "Running", seconds=90)
            world.until(lambda: any_of(world, first[:3]), "what was deleted is still there", seconds=60)
        assert all(proxy.seen[fault] for fault in ("conflict", "throttle", "broken", "lost", "cut", "expired")), (
            proxy.seen
        )
        promises_hold(history)
        all_is_as_it_says(world, names)
        books_hold(operator)


def any_of(world, names):
    return [thing["metadata"]["name"] for name in names for thing in world.pods(name) + world.claims(name)]


def test_p1_after_an_outage_the_gang_in_flight_is_settled(world, tmp_path):
    """The server stands still for some seconds in the middle of bindings."""
    stuck = threading.Event()
    bindings = []

    def hold(method, where, body):
        if where.endswith("/binding"):
            bindings.append(where)
            return stuck if len(bindings) > 1 else None
        return None

    with FaultyProxy(world.plane, 1) as proxy, ProxiedOperator(proxy, tmp_path, policy_lag_ms=200) as operator:
        operator.wait_ready()
        proxy.hold = hold
        with History(world.api) as history:
            world.submit("rack-o", replicas=3, gpus=8, within="rack", queue="faults-q")
            world.until(lambda: len(bindings) < 3, "it is not being bound")
            world.plane.signal("kube-apiserver", 19)  # SIGSTOP
            began = time.monotonic()
            time.sleep(5)
            world.plane.signal("kube-apiserver", 18)  # SIGCONT
            stuck.set()
            world.wait_phase("rack-o", "Running", seconds=60)
            away = (began, began + 5)
        assert history.bound_too_early() == []
        assert history.devices_in_two_claims() == []
        assert history.partly_bound(30, [away]) == []
        all_is_as_it_says(world, ["rack-o"])
        books_hold(operator)


def test_claims_and_pods_deleted_under_us_in_mid_placement(world, tmp_path):
    """A vandal deletes every third pod and claim that appears; once it is tired, all gangs run."""
    tired, deleted = threading.Event(), []

    def vandal(plural):
        version, seen = world.api.list_whole(path(plural, world.namespace))["metadata"]["resourceVersion"], 0
        while not tired.is_set():
            for event in world.api.watch(path(plural, world.namespace), version, seconds=1):
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] == "ADDED":
                    seen += 1
                    if seen % 3 == 0 and not tired.is_set():
                        name = event["object"]["metadata"]["name"]
                        with contextlib.suppress(ApiError):
                            world.api.delete(path(plural, world.namespace, name), grace_seconds=0)
                            deleted.append(name)

    with OperatorProcess(world.plane, tmp_path, policy_lag_ms=200) as operator:
        operator.wait_ready()
        vandals = [threading.Thread(target=vandal, args=(plural,)) for plural in ("pods", "resourceclaims")]
        with History(world.api) as history:
            for thread in vandals:
                thread.start()
            names = [f"{kind}-v" for kind in GANGS]
            for name in names:
                replicas, gpus = GANGS[name.split("-")[0]]
                # A pod that somebody deletes after it was bound counts as a failure of its member.
                policy = {"failurePolicy": {"maxRestarts": 100}}
                world.submit(name, replicas=replicas, gpus=gpus, queue="faults-q", **policy)
            time.sleep(5)
            tired.set()
            for thread in vandals:
                thread.join(20)
            world.wait_phases(names, "Running", seconds=90)
        assert len(deleted) >= 4
        promises_hold(history)
        all_is_as_it_says(world, names)
        books_hold(operator)


def test_a_lost_node_keeps_its_devices_down_while_its_gang_runs_elsewhere(world, tmp_path):
    with OperatorProcess(world.plane, tmp_path, policy_lag_ms=200, node_lost_after_ms=2_000) as operator:
        operator.wait_ready()
        with History(world.api) as history:
            lost = {"fairlead.dev/test-kubelet-lost": "yes"}
            world.submit("two-n", replicas=2, gpus=8, queue="faults-q")
            job = world.wait_phase("two-n", "Running")
            node = world.pods("two-n")[0]["spec"]["nodeName"]
            for pod in world.pods("two-n"):
                if pod["spec"]["nodeName"] == node:  # nobody acts for it any more
                    where = path("pods", world.namespace, pod["metadata"]["name"])
                    world.api.patch(where, {"metadata": {"annotations": lost}})
            world.set_ready(node, False)
            where = path("gangjobs", world.namespace, "two-n")
            job = world.api.wait(
                where,
                lambda job: job["status"]["phase"] == "Running" and job["status"]["attempt"] == 2,
                seconds=40,
                what="the second attempt runs",
            )
            assert node not in {group["node"] for group in job["status"]["allocation"]["members"]}
            assert job["status"]["restarts"] == 0  # a lost node is no failure of the job
            old = [pod for pod in world.pods("two-n") if pod["spec"]["nodeName"] == node]
            assert old, "the pod on the dead node is gone although nobody can know that it ended"
            kept = [d for claim in world.claims("two-n") for d in claimed(claim) if d[0] == node]
            assert len(kept) == 8
            # Nothing is placed there: fifteen nodes are left, two of them taken.
            for number in range(13):
                world.submit(f"node-{number}", gpus=8, queue="faults-q")
            world.wait_phases([f"node-{n}" for n in range(13)], "Running")
            world.submit("node-x", gpus=8, queue="faults-q")
            time.sleep(1)
            assert world.phase("node-x") == "Pending"
            pool = world.api.wait(
                path("pools", name="faults"), lambda pool: pool["status"].get("down") == 8, seconds=15, what="down"
            )
            assert pool["status"]["free"] == 0
            # An administrator says that nothing runs there any more: the node goes, and comes back empty.
            world.api.patch(
                path("nodes", name=node),
                {
                    "spec": {
                        "taints": [{"key": "node.kubernetes.io/out-of-service", "value": "x", "effect": "NoExecute"}]
                    }
                },
            )
            world.until(
                lambda: [c["metadata"]["name"] for c in world.claims("two-n") for d in claimed(c) if d[0] == node],
                "its claim is not emptied",
                seconds=40,
            )
            world.api.patch(path("nodes", name=node), {"spec": {"taints": None}})
            world.set_ready(node, True)
            world.wait_phase("node-x", "Running", seconds=30)
            assert world.pods("node-x")[0]["spec"]["nodeName"] == node
        promises_hold(history)
        books_hold(operator)


def test_a_deleted_node_takes_its_gang_elsewhere(world, tmp_path):
    with OperatorProcess(world.plane, tmp_path, policy_lag_ms=200) as operator:
        operator.wait_ready()
        with History(world.api) as history:
            world.add_node("faults-extra", world.nodes["faults-r0-n0"], rack="faults-x", block="faults-bx")
            world.until(lambda: not ready(world, "faults-extra"), "the new node is not Ready")
            selector = {"nodeSelector": {"fairlead.dev/rack": "faults-x"}}
            soft = {"containers": [{"name": "main", "image": "x"}]}
            world.submit("node-d", gpus=8, queue="faults-q", pod={**soft, **selector})
            world.wait_phase("node-d", "Running")
            world.submit("two-d", replicas=2, gpus=8, queue="faults-q")
            world.wait_phase("two-d", "Running")
            world.api.delete(path("nodes", name="faults-extra"))
            world.api.delete(path("nodetopologies", name="faults-extra"))
            world.api.delete(path("resourceslices", name="faults-extra-gpu.nvidia.com"))
            where = path("gangjobs", world.namespace, "node-d")
            job = world.api.wait(
                where,
                lambda job: (job["status"]["phase"], job["status"].get("reason")) == ("Pending", "NoNodeMatches"),
                seconds=30,
                what="it is back in its queue, and the only node that it may have is gone",
            )
            assert job["status"]["restarts"] == 0
            assert world.phase("two-d") == "Running"
        assert history.devices_in_two_claims() == []
        # Whatever was on that node has ended with it, though its pod object has still to be collected.
        assert [text for text in history.bound_too_early() if "node-d#1" not in text] == []
        books_hold(operator)


def ready(world, node):
    conditions = world.api.get(path("nodes", name=node)).get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
