"""Devices that somebody else allocates: before we start, in mid-run, and in a race with us. We never bind onto them."""

from __future__ import annotations

import random
import sqlite3
import threading
import time

import pytest

from cluster.api import ApiError, path
from cluster.history import History
from cluster.machines import DRIVER
from cluster.operator_process import OperatorProcess
from cluster.world import ClusterWorld, claimed

NODES, GPUS = 8, 8
STRANGERS = "foreign-strangers"


@pytest.fixture(scope="module")
def world(control_plane):
    with ClusterWorld(control_plane, "foreign", nodes=NODES) as world:
        world.add_namespace(STRANGERS)
        world.queue("foreign-q")
        yield world


@pytest.fixture
def operator(control_plane, world, tmp_path):
    operator = OperatorProcess(control_plane, tmp_path, policy_lag_ms=200)
    yield operator
    operator.stop()
    print(operator.tail(100))  # pytest shows it beside a failure
    world.clear()
    for claim in world.api.list(path("resourceclaims", STRANGERS)):
        world.api.delete(path("resourceclaims", STRANGERS, claim["metadata"]["name"]))


def allocate(world, name, node, devices):
    """Do what another scheduler would: a claim of its own, with devices of our pool in its status."""
    wanted = {
        "name": "gpu",
        "exactly": {"deviceClassName": DRIVER, "allocationMode": "ExactCount", "count": len(devices)},
    }
    body = {"metadata": {"name": name}, "spec": {"devices": {"requests": [wanted]}}}
    claim = world.api.create(path("resourceclaims", STRANGERS), body)
    results = [{"request": "gpu", "driver": DRIVER, "pool": node, "device": device} for device in devices]
    fields = {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]}
    claim["status"] = {"allocation": {"devices": {"results": results}, "nodeSelector": fields}}
    return world.api.replace(path("resourceclaims", STRANGERS, name, "status"), claim)


def release(world, name):
    """Give devices back, as their holder would."""
    world.api.delete(path("resourceclaims", STRANGERS, name))


def pool(world, **expected):
    """Wait until the Pool's status says so."""

    def says(found):
        status = (found or {}).get("status", {})
        return all(status.get(name) == value for name, value in expected.items())

    return world.api.wait(path("pools", name="foreign"), says, seconds=20, what=f"pool {expected}")


def foreign_condition(found):
    return next(c for c in found["status"]["conditions"] if c["type"] == "ForeignAllocation")


def ours(world, node=""):
    """Devices in claims of ours."""
    held = [device for claim in world.claims() for device in claimed(claim)]
    return sorted(device for where, device in held if not node or where == node)


def test_before_the_start_in_mid_run_and_back_again(world, operator):
    """(a) and (b): out at once, said by the Pool, booked to unmanaged; and back when the claim goes."""
    nodes = list(world.nodes)
    allocate(world, "early", nodes[0], ["gpu-0", "gpu-1", "gpu-2"])
    operator.start()
    operator.wait_ready()
    found = pool(world, nodes=NODES, gpus=NODES * GPUS, unmanaged=3, free=NODES * GPUS - 3)
    condition = foreign_condition(found)
    assert (condition["status"], condition["reason"]) == ("True", "AllocatedByOthers")
    assert "3 GPUs are allocated by somebody else" in condition["message"]
    assert "unmanaged" in condition["message"]

    names = [f"whole-{n}" for n in range(NODES)]
    for name in names:
        world.submit(name, gpus=GPUS, queue="foreign-q")
    running(world, names, NODES - 1)
    waits = next(name for name, job in world.gangs().items() if job["status"]["phase"] != "Running")
    assert ours(world, nodes[0]) == []
    said = world.gang(waits)["status"]
    assert said["reason"] in ("NotEnoughFree", "NodesFiltered"), said
    assert "early" not in said["message"]  # whose devices they are is not theirs to know
    world.submit("rest", gpus=5, queue="foreign-q")
    world.wait_phase("rest", "Running")
    assert ours(world, nodes[0]) == ["gpu-3", "gpu-4", "gpu-5", "gpu-6", "gpu-7"]

    # In mid-run a gang goes, and its devices are somebody else's before anybody of ours can have them.
    victim = next(name for name in names if name != waits)
    where = next(pod["spec"]["nodeName"] for pod in world.pods(victim))
    world.patch_gang(waits, {"suspend": True})
    world.wait_phase(waits, "Suspended")
    world.delete_gang(victim)
    world.until(lambda: ours(world, where), "its devices stay held")
    allocate(world, "middle", where, ["gpu-7"])
    pool(world, unmanaged=4)
    world.patch_gang(waits, {"suspend": False})
    time.sleep(2)
    assert world.phase(waits) == "Pending"
    assert ours(world, where) == []
    world.submit("seven", gpus=7, queue="foreign-q")
    world.wait_phase("seven", "Running")
    assert ours(world, where) == [f"gpu-{n}" for n in range(7)]

    world.delete_gang("seven")
    release(world, "middle")
    pool(world, unmanaged=3)
    world.wait_phase(waits, "Running")
    assert ours(world, where) == [f"gpu-{n}" for n in range(GPUS)]
    world.delete_gang("rest")
    release(world, "early")
    found = pool(world, unmanaged=0)
    assert foreign_condition(found)["status"] == "False"
    world.submit("last", gpus=GPUS, queue="foreign-q")
    world.wait_phase("last", "Running")
    assert ours(world, nodes[0]) == [f"gpu-{n}" for n in range(GPUS)]

    operator.terminate()
    assert booked_to(operator.books, "unmanaged") > 0
    verified = operator.verify_books()
    assert verified.returncode == 0, verified.stdout + verified.stderr


def running(world, names, count):
    """Wait until that many of the gangs run; return them."""

    def found():
        return [name for name in names if world.gangs().get(name, {}).get("status", {}).get("phase") == "Running"]

    world.until(lambda: max(0, count - len(found())), f"not {count} gangs run")
    return found()


def booked_to(books, part):
    """Number of the ledger's postings to accounts whose name has `part`."""
    database = sqlite3.connect(books)
    try:
        tables = [row[0] for row in database.execute("select name from sqlite_master where type = 'table'")]
        count = 0
        for table in tables:
            for row in database.execute(f'select * from "{table}"'):
                count += any(isinstance(value, str) and part in value for value in row)
        return count
    finally:
        database.close()


@pytest.mark.parametrize("seed", [1, 2])
def test_in_a_race_nobodys_pod_lands_on_a_device_of_somebody_else(world, operator, seed):
    """(c): a stranger takes devices by chance while thirty gangs are being placed."""
    operator.start()
    operator.wait_ready()
    pool(world, unmanaged=0, free=NODES * GPUS)
    rng = random.Random(seed)
    gangs = {f"race-{n}": rng.choice([(1, 1), (1, 2), (2, 1), (1, 4)]) for n in range(30)}
    taken = []
    devices = [(node, f"gpu-{n}") for node in world.nodes for n in range(GPUS)]
    rng.shuffle(devices)

    def stranger():
        # It looks first, as a scheduler with a cache does; what it does not see yet it runs into.
        for number, (node, device) in enumerate(devices[:20]):
            busy = {d for claim in world.api.list(path("resourceclaims")) for d in claimed(claim)}
            if (node, device) not in busy:
                allocate(world, f"taken-{number}", node, [device])
                taken.append((node, device))
            time.sleep(rng.uniform(0, 0.05))

    thread = threading.Thread(target=stranger)
    with History(world.api) as history:
        thread.start()
        for name, (replicas, gpus) in gangs.items():
            world.submit(name, replicas=replicas, gpus=gpus, queue="foreign-q")
        thread.join(60)
        settle(world)
    assert taken
    assert bound_onto_foreign(history.events) == []
    assert history.bound_too_early() == []
    assert history.partly_bound(30) == []
    held = [device for claim in world.claims() for device in claimed(claim)]
    assert len(held) == len(set(held))
    # Where the stranger was later than we, both claims name the device: a gang that runs is not stopped for that.
    pool(world, unmanaged=len(set(taken) - set(held)))
    assert all(job["status"]["restarts"] == 0 for job in world.gangs().values())


def settle(world):
    """Wait until nothing moves any more: no gang between Pending and Running."""
    moving = ("Placing", "Starting", "Stopping", "")
    world.until(
        lambda: [n for n, job in world.gangs().items() if job.get("status", {}).get("phase", "") in moving],
        "gangs still move",
        seconds=60,
    )


def bound_onto_foreign(events):
    """Go through all writes: no pod of ours is bound onto a device that an older claim of a stranger's has."""
    found, claims, since = [], {}, {}
    for event in events:
        if event.kind == "resourceclaims":
            if event.object is None:
                claims.pop(event.key, None)
                since.pop(event.key, None)
                continue
            had = claims.get(event.key, ())
            claims[event.key] = claimed(event.object)
            if claims[event.key] and not had:
                since[event.key] = event.version
        elif event.kind == "pods" and event.object is not None and event.object["spec"].get("nodeName"):
            if event.object["metadata"].get("deletionTimestamp"):
                continue
            names = [c.get("resourceClaimName") for c in event.object["spec"].get("resourceClaims", [])]
            for name in names:
                mine = (event.key[0], name)
                for other, devices in claims.items():
                    # Older than our allocation: we must have seen it. Younger: the stranger ran into us.
                    older = other[0] == STRANGERS and since.get(other, event.version) < since.get(mine, 0)
                    if older and set(devices) & set(claims.get(mine, ())):
                        found.append(f"at {event.version} {event.key[1]} is bound with {name} onto {other[1]}")
    return found


def test_what_foreign_pods_take_of_a_node_is_counted(world, operator):
    """CPU and memory of pods that are not ours are taken from their node, and come back when they go."""
    operator.start()
    operator.wait_ready()
    for number, node in enumerate(world.nodes):
        if number:
            allocate(world, f"all-{number}", node, [f"gpu-{n}" for n in range(GPUS)])
    (node, *_) = world.nodes
    pool(world, unmanaged=(NODES - 1) * GPUS)
    containers = [{"name": "main", "image": "x", "resources": {"requests": {"cpu": "150", "memory": "1500Gi"}}}]
    toleration = {"operator": "Exists"}
    spec = {"nodeName": node, "containers": containers, "tolerations": [toleration]}
    world.api.create(path("pods", STRANGERS), {"metadata": {"name": "hungry"}, "spec": spec})
    world.api.wait(path("pods", STRANGERS, "hungry"), lambda pod: pod["status"].get("phase") == "Running")
    time.sleep(0.5)
    for name, request in (("cpu", {"cpu": "50"}), ("memory", {"memory": "600Gi"}), ("small", {"cpu": "30"})):
        pod = {"containers": [{"name": "main", "image": "x", "resources": {"requests": request}}]}
        world.submit(name, gpus=1, queue="foreign-q", pod=pod)
    world.wait_phase("small", "Running")
    for name in ("cpu", "memory"):
        status = world.wait_phase(name, "Pending")["status"]
        assert status["reason"] == "NodesFiltered", status
        assert name in status["message"].lower(), status
    world.api.delete(path("pods", STRANGERS, "hungry"), grace_seconds=0)
    world.wait_phases(["cpu", "memory"], "Running")
    with pytest.raises(ApiError):
        world.api.get(path("pods", STRANGERS, "hungry"))
