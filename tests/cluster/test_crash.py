"""The operator is killed, or told to end, while it places gangs: nothing is half, double or lost."""

import time

import pytest

from cluster.history import History
from cluster.mixes import bound, check_mix, half_there, held, submit_mix
from cluster.operator_process import OperatorProcess
from cluster.world import ClusterWorld

QUEUE = "crash-research"
# Few effects at a time, so that forty gangs take long enough to be interrupted.
SLOW = {"effects_in_flight": 2, "requests_in_flight": 4}


@pytest.fixture(scope="module")
def world(control_plane):
    with ClusterWorld(control_plane, "crash", nodes=64, nodes_per_rack=8, data=True) as world:
        world.queue(QUEUE, guaranteed=512)
        yield world


@pytest.fixture
def operator(control_plane, world, tmp_path):
    world.free_lease()
    with OperatorProcess(control_plane, tmp_path, **SLOW) as operator:
        operator.wait_ready()
        yield operator
    world.clear()


def wait_for_bound(world, operator, count, out_of):
    """Return as soon as so many pods are bound; the others must not be yet."""
    deadline = time.monotonic() + 30
    while (seen := bound(world)) < count:
        assert time.monotonic() < deadline, f"{seen} of {count} pods are bound\n{operator.tail()}"
    assert seen < out_of, f"all {seen} pods were bound before the operator could be interrupted"
    return seen


def test_killed_twice_while_it_places_forty_gangs(world, operator):
    """kill -9 after the first bindings and again later: the same end as without, and clean books."""
    away = []
    with History(world.api) as history:
        gangs = submit_mix(world, QUEUE)
        pods = sum(gang.roles[0].replicas for gang in gangs.values())
        for count in (2, pods // 2):
            wait_for_bound(world, operator, count, pods)
            operator.kill()
            began = time.monotonic()
            operator.start()
            operator.wait_ready()
            away.append((began, time.monotonic()))
        world.wait_phases(gangs, "Running", seconds=90)
        check_mix(world, gangs)
        world.until(lambda: half_there(world, gangs), "half gangs are there")
    assert history.devices_in_two_claims() == []
    assert history.bound_too_early() == []
    assert history.partly_bound(30, away) == []
    rebuilt = operator.said("event=rebuilt")
    assert len(rebuilt) == 3
    assert any("attempts=0" not in line for line in rebuilt[1:]), "a restart found gangs that were there"
    assert operator.terminate() == 0
    done = operator.verify_books()
    assert done.returncode == 0, done.stdout + done.stderr


def test_killed_while_gangs_leave(world, operator):
    """Deletions that a killed operator had begun go on; their devices come free and the books close."""
    gangs = submit_mix(world, QUEUE, count=12)
    world.wait_phases(gangs, "Running")
    for name in gangs:
        world.delete_gang(name)
    world.until(lambda: "all stay" if bound(world) == len(held(world)) > 0 else "", "nothing begins to go")
    operator.kill()
    operator.start()
    operator.wait_ready()
    world.until(lambda: held(world), "devices of deleted gangs are held")
    world.until(lambda: [p["metadata"]["name"] for p in world.pods() + world.claims()], "their objects are there")
    assert operator.terminate() == 0
    done = operator.verify_books()
    assert done.returncode == 0, done.stdout + done.stderr


def test_sigterm_finishes_or_undoes_what_is_in_flight_and_gives_the_lease_back(world, operator):
    with History(world.api) as history:
        gangs = submit_mix(world, QUEUE)
        pods = sum(gang.roles[0].replicas for gang in gangs.values())
        wait_for_bound(world, operator, 5, pods)
        began = time.monotonic()
        assert operator.terminate() == 0
        assert time.monotonic() - began < 45
        assert operator.lease_holder() == ""
        assert half_there(world, gangs) == []
        assert bound(world) < pods, "SIGTERM came too late to interrupt anything"
        done = operator.verify_books()
        assert done.returncode == 0, done.stdout + done.stderr
        operator.start()
        operator.wait_ready()
        world.wait_phases(gangs, "Running", seconds=90)
        check_mix(world, gangs)
    assert {job["status"]["restarts"] for job in world.gangs().values()} == {0}, "an ordered end costs nobody a restart"
    assert history.devices_in_two_claims() == []
    assert history.bound_too_early() == []
    assert history.partly_bound(30) == []
