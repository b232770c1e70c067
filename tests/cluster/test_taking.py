"""Who may take from whom on a real API server: guarantees come back; priority rules inside one queue only."""

import time

import pytest

from cluster.api import path
from cluster.history import History
from cluster.mixes import check_gang, held
from cluster.operator_process import OperatorProcess
from cluster.world import ClusterWorld, allocated

OWNER, SAFE, BORROWER = "taking-owner", "taking-safe", "taking-borrower"
RACK_GPUS = 32


@pytest.fixture(scope="module")
def world(control_plane):
    """Three racks of four nodes; each queue is guaranteed one rack's worth of GPUs, no more."""
    with ClusterWorld(control_plane, "taking", nodes=12, nodes_per_rack=4, data=True) as world:
        for queue in (OWNER, SAFE, BORROWER):
            world.queue(queue, guaranteed=RACK_GPUS)
        world.priority_class("taking-high", 1000)
        yield world


@pytest.fixture(scope="module")
def operator(control_plane, world, tmp_path_factory):
    with OperatorProcess(control_plane, tmp_path_factory.mktemp("taking")) as operator:
        operator.wait_ready()
        yield operator


@pytest.fixture
def history(world, operator):
    """A recorder for one test; the fleet is empty before and after it."""
    with History(world.api) as history:
        yield history
        world.api.delete(path("gangjobs", world.namespace))
        world.until(lambda: [p["metadata"]["name"] for p in world.pods() + world.claims()], "objects are left")
    assert history.devices_in_two_claims() == []
    assert history.bound_too_early() == []
    assert history.partly_bound(30) == []


def fill(world, queue, count, prefix, **spec):
    """Submit 1x8 gangs and wait until they run: name -> uid of the pod."""
    names = [f"{prefix}-{number}" for number in range(count)]
    for name in names:
        world.submit(name, gpus=8, queue=queue, **spec)
    world.wait_phases(names, "Running")
    return uids(world, names)


def uids(world, names):
    """name -> uids of its pods."""
    return {name: sorted(pod["metadata"]["uid"] for pod in world.pods(name)) for name in names}


def rack_of(world, name):
    racks = {world.rack_of[node] for node, _ in allocated(world.gang(name)).values()}
    assert len(racks) == 1
    return racks.pop()


def nominated_victims(history, name):
    """Everyone whom the gang's status ever named as a victim."""
    jobs = [e.object for e in history.events if e.kind == "gangjobs" and e.object and e.key[1] == name]
    nominations = [job.get("status", {}).get("nomination") or {} for job in jobs]
    return {text.split("/")[1].split("#")[0] for n in nominations for text in n.get("victims", [])}


def test_a_queue_below_its_guarantee_gets_its_rack_back(world, operator, history):
    """One queue holds its guarantee, one has borrowed; of the borrowers exactly those in the way go."""
    world.submit("safe", replicas=4, gpus=8, within="rack", queue=SAFE)
    world.wait_phase("safe", "Running")
    before = {**fill(world, BORROWER, 8, "borrower"), **uids(world, ["safe"])}
    places = {name: rack_of(world, name) for name in before}
    assert len(held(world)) == 3 * RACK_GPUS, "the fleet is full"
    world.submit("owner", replicas=4, gpus=8, within="rack", queue=OWNER)
    world.wait_phase("owner", "Running")
    nodes = check_gang(world, "owner", 4, 8)
    rack = world.rack_of[nodes[0]]
    assert {world.rack_of[node] for node in nodes} == {rack}
    expected = {name for name, place in places.items() if place == rack}
    assert expected <= {name for name in before if name.startswith("borrower")}, "a guarantee was broken"
    assert len(expected) == 4
    assert nominated_victims(history, "owner") == expected
    world.wait_phases(expected, "Pending")
    after = uids(world, before)
    assert {name for name in before if after[name] != before[name]} == expected
    assert all(not after[name] for name in expected), "those that went have no pods"
    for name in expected:
        status = world.gang(name)["status"]
        assert status["restarts"] == 0, "being taken is nobody's failure"
        assert status["message"]
        assert status["lostGpuMs"] > 0
    world.delete_gang("owner")
    world.wait_phases(expected, "Running")
    for name in expected:
        check_gang(world, name, 1, 8)
        assert world.gang(name)["status"]["attempt"] == 2
    assert uids(world, set(before) - expected) == {n: u for n, u in before.items() if n not in expected}


def test_a_higher_priority_takes_inside_its_own_queue(world, operator, history):
    before = fill(world, BORROWER, 12, "low")
    places = {name: rack_of(world, name) for name in before}
    world.submit("high", replicas=2, gpus=8, within="rack", queue=BORROWER, priorityClassName="taking-high")
    world.wait_phase("high", "Running")
    rack = {world.rack_of[node] for node in check_gang(world, "high", 2, 8)}
    assert len(rack) == 1
    victims = nominated_victims(history, "high")
    assert len(victims) == 2
    assert {places[name] for name in victims} == rack
    world.wait_phases(victims, "Pending")
    assert {name for name, uid in uids(world, before).items() if uid != before[name]} == victims
    world.delete_gang("high")
    world.wait_phases(victims, "Running")


def test_across_queues_priority_takes_nothing(world, operator, history):
    """Every queue holds its guarantee; the highest priority of one of them moves nobody in another."""
    high = {"priorityClassName": "taking-high"}
    before = {
        **fill(world, SAFE, 4, "safe"),
        **fill(world, BORROWER, 4, "borrower"),
        **fill(world, OWNER, 4, "owner", **high),
    }
    world.submit("greedy", gpus=8, queue=OWNER, **high)
    job = world.api.wait(
        path("gangjobs", world.namespace, "greedy"),
        lambda job: (job.get("status", {}).get("reason") or "AwaitingDecision") != "AwaitingDecision",
        what="greedy has a reason",
    )
    assert job["status"]["phase"] == "Pending"
    assert "free GPUs" in job["status"]["message"]
    time.sleep(3)
    assert world.phase("greedy") == "Pending"
    assert nominated_victims(history, "greedy") == set()
    assert uids(world, before) == before
    world.delete_gang("borrower-0")
    world.wait_phase("greedy", "Running")


def test_the_books_of_all_this_verify(operator):
    assert operator.metrics()["fairlead_violations_total"] == 0
    assert operator.terminate() == 0
    done = operator.verify_books()
    assert done.returncode == 0, done.stdout + done.stderr
