"""PodDisruptionBudgets on a real API server: a gang is taken whole or left alone whole, and nobody waits on a no."""

import time

import pytest

from cluster.api import path
from cluster.history import History
from cluster.operator_process import OperatorProcess
from cluster.world import ClusterWorld

OWNER, BORROWER = "budgets-owner", "budgets-borrower"


@pytest.fixture(scope="module")
def world(control_plane):
    """One rack of two nodes; the owner is guaranteed all of it, the borrower nothing."""
    with ClusterWorld(control_plane, "budgets", nodes=2, nodes_per_rack=2) as world:
        world.queue(OWNER, guaranteed=16)
        world.queue(BORROWER)
        yield world


@pytest.fixture
def operator(control_plane, world, tmp_path):
    operator = OperatorProcess(control_plane, tmp_path, policy_lag_ms=200)
    operator.start()
    operator.wait_ready()
    yield operator
    operator.stop()
    print(operator.tail(100))  # pytest shows it beside a failure
    for budget in world.api.list(path("poddisruptionbudgets", world.namespace)):
        world.api.delete(path("poddisruptionbudgets", world.namespace, budget["metadata"]["name"]))
    world.clear()


def protect(world, gang, pods):
    """Make a budget that lets none of a gang's pods go, and wait until the disruption controller has counted them."""
    spec = {"minAvailable": pods, "selector": {"matchLabels": {"fairlead.dev/gang": gang}}}
    where = path("poddisruptionbudgets", world.namespace)
    world.api.create(where, {"metadata": {"name": gang}, "spec": spec})

    def counted(budget):
        status = budget.get("status", {})
        return status.get("currentHealthy") == pods and status.get("disruptionsAllowed") == 0

    world.api.wait(path("poddisruptionbudgets", world.namespace, gang), counted, what=f"budget of {gang}")


def uids(world, gang):
    return sorted(pod["metadata"]["uid"] for pod in world.pods(gang))


def test_a_gang_with_a_budget_goes_on_and_goes_whole_once_the_budget_is_gone(world, operator):
    world.submit("borrower", replicas=2, gpus=8, queue=BORROWER)
    world.wait_phase("borrower", "Running")
    protect(world, "borrower", 2)
    before = uids(world, "borrower")
    with History(world.api) as history:
        world.submit("owner", replicas=2, gpus=8, queue=OWNER)
        world.until(lambda: not operator.said("event=eviction_refused"), "nobody asked the budget")
        world.wait_phase("borrower", "Running")
        job = world.wait_phase("owner", "Pending")
        time.sleep(2)
        assert uids(world, "borrower") == before
        assert all(not pod["metadata"].get("deletionTimestamp") for pod in world.pods("borrower"))
        status = world.gang("borrower")["status"]
        assert (status["phase"], status["attempt"], status["restarts"], status["lostGpuMs"]) == ("Running", 1, 0, 0)
        world.api.wait(
            path("gangjobs", world.namespace, "owner"),
            lambda job: not job["status"].get("nomination"),
            what="the nomination is dropped",
        )
        assert job["status"]["phase"] == "Pending"
    assert [e for e in history.events if e.kind == "pods" and e.object is None] == []
    asked = len(operator.said("event=eviction_refused"))
    assert asked < 10, "it is spared for a while, not asked all the time"
    assert operator.metrics()["fairlead_violations_total"] == 0

    # Its owner lets it go: it is asked again within the time for which it was spared, and goes whole.
    world.api.delete(path("poddisruptionbudgets", world.namespace, "borrower"))
    world.wait_phase("owner", "Running", seconds=150)
    assert world.wait_phase("borrower", "Pending")["status"]["restarts"] == 0
    assert not set(uids(world, "borrower")) & set(before)
    world.delete_gang("owner")
    world.wait_phase("borrower", "Running", seconds=60)
    assert operator.terminate() == 0
    done = operator.verify_books()
    assert done.returncode == 0, done.stdout + done.stderr


def test_one_member_that_may_not_go_keeps_all_of_them(world, operator):
    """A budget over one pod of two."""
    world.submit("half", replicas=2, gpus=8, queue=BORROWER)
    world.wait_phase("half", "Running")
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"fairlead.dev/gang": "half", "fairlead.dev/rank": "1"}}}
    where = path("poddisruptionbudgets", world.namespace)
    world.api.create(where, {"metadata": {"name": "half"}, "spec": spec})
    world.api.wait(f"{where}/half", lambda b: b.get("status", {}).get("currentHealthy") == 1, what="the budget counts")
    before = uids(world, "half")
    world.submit("owner", gpus=8, queue=OWNER)
    world.until(lambda: not operator.said("event=eviction_refused .* refused=1 "), "nobody asked the budget")
    world.wait_phase("half", "Running")
    time.sleep(2)
    assert uids(world, "half") == before
    assert all(not pod["metadata"].get("deletionTimestamp") for pod in world.pods("half"))
    assert world.phase("owner") == "Pending"
