"""What people read on a real server: columns, conditions, usage, QueueViews, the published head of the chain."""

import contextlib
import time

import pytest

from cluster.api import ApiError, path
from cluster.chart import NAMESPACE
from cluster.machines import topology_spec
from cluster.operator_process import OperatorProcess
from cluster.world import ClusterWorld
from fairlead.topology import fleet_machines
from fairlead.topology.fleet_machines import identified

HEAD = path("configmaps", NAMESPACE, "fairlead-chain-head")


@pytest.fixture(scope="module")
def world(control_plane):
    with ClusterWorld(control_plane, "overview", nodes=4, nodes_per_rack=2) as world:
        world.add_namespace("overview-other")
        world.queue("overview-q", guaranteed=8, limit=24, namespaces=[world.namespace, "overview-other"])
        world.queue("overview-idle", namespaces=["overview-other", "overview-nowhere"])
        yield world


@pytest.fixture(scope="module")
def operator(control_plane, world, tmp_path_factory):
    with contextlib.suppress(ApiError):
        world.api.delete(HEAD)  # that of other tests' books
    with OperatorProcess(control_plane, tmp_path_factory.mktemp("overview"), policy_lag_ms=200) as operator:
        operator.wait_ready()
        world.submit("runs", replicas=2, gpus=8, queue="overview-q")
        world.wait_phase("runs", "Running")
        world.submit("waits", replicas=2, gpus=8, queue="overview-q")
        world.wait_phase("waits", "Pending")
        yield operator


def table(world, where):
    """What kubectl prints with -o wide: name -> {column: cell}."""
    status, body = world.api.request("GET", where, headers={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"})
    assert status == 200, body
    columns = [column["name"] for column in body["columnDefinitions"]]
    return {row["cells"][0]: dict(zip(columns, row["cells"], strict=True)) for row in body["rows"]}


def condition(found, kind):
    return next((c for c in found.get("status", {}).get("conditions", []) if c["type"] == kind), {})


def wait_condition(world, where, kind, status, seconds=20):
    found = world.api.wait(
        where,
        lambda found: condition(found or {}, kind).get("status") == status,
        seconds=seconds,
        what=f"{kind} {status}",
    )
    return condition(found, kind)


def shows(world, where, name, **expected):
    """Wait until an object's printed row says so; return the row."""
    rows = {}

    def wrong():
        rows.update(table(world, where))
        row = rows.get(name, {})
        return {column: row.get(column) for column, value in expected.items() if row.get(column) != value}

    world.until(wrong, f"{name} shows other values", seconds=20)
    return rows[name]


def test_every_printed_column_says_something(world, operator):
    gangs = path("gangjobs", world.namespace)
    runs = shows(world, gangs, "runs", Queue="overview-q", Phase="Running", GPUs=16)
    assert runs["Age"]
    waits = shows(world, gangs, "waits", Phase="Pending", Reason="QueueAtLimit", GPUs=16, Position=1)
    assert "limit of 24" in waits["Message"]
    numbers = {"Guaranteed": 8, "Limit": 24, "Used": 16, "Borrowed": 8, "Pending": 1}
    shows(world, path("queues"), "overview-q", **numbers)
    shows(world, path("queues"), "overview-idle", Guaranteed=0, Used=0, Borrowed=0, Pending=0)
    shows(world, path("pools"), "overview", Mode="dra", Nodes=4, GPUs=32, Free=16, Unmanaged=0, Down=0)
    assert shows(world, path("queueviews", world.namespace), "overview-q", **numbers)["AsOf"]


def test_queues_and_pools_say_whether_they_are_taken_as_written(world, operator):
    accepted = wait_condition(world, path("queues", name="overview-q"), "Accepted", "True")
    assert accepted["observedGeneration"] == 1
    assert wait_condition(world, path("queues", name="overview-q"), "OverLimit", "False")["reason"] == "WithinLimit"
    world.api.patch(
        path("queues", name="overview-q"), {"spec": {"resources": [{"name": "gpu", "guaranteed": 8, "limit": 12}]}}
    )
    over = wait_condition(world, path("queues", name="overview-q"), "OverLimit", "True")
    assert "holds 16 GPUs; the limit is 12" in over["message"]
    assert over["observedGeneration"] == 2
    world.api.patch(
        path("queues", name="overview-q"), {"spec": {"resources": [{"name": "gpu", "guaranteed": 8, "limit": 24}]}}
    )
    back = wait_condition(world, path("queues", name="overview-q"), "OverLimit", "False")
    assert back["lastTransitionTime"] >= over["lastTransitionTime"]
    world.queue("overview-child", parent="overview-missing")
    orphan = wait_condition(world, path("queues", name="overview-child"), "Accepted", "False")
    assert "there is no queue 'overview-missing'" in orphan["message"]
    for kind in ("ForeignAllocation", "TopologyMismatch", "Overlap"):
        assert wait_condition(world, path("pools", name="overview"), kind, "False")
    assert wait_condition(world, path("pools", name="overview"), "Accepted", "True")


def test_policies_say_whether_they_are_in_force(world, operator):
    more = {"queue": "overview-q", "owner": "ops", "reason": "a launch", "expires": "2999-01-01T00:00:00Z"}
    world.make("FairnessPolicy", "overview-even", {"kind": "equal", "version": 3})
    world.make("QuotaException", "overview-more", {**more, "change": {"resources": [{"name": "cpu", "limit": 8}]}})
    world.make("QuotaException", "overview-lost", {**more, "queue": "overview-none", "change": {"limit": 1}})
    world.make(
        "PriceBook", "overview-eur", {"currency": "EUR", "prices": [{"model": "H100", "perHour": {"inQuota": "2"}}]}
    )
    world.queue("overview-parent", fairnessPolicy="overview-even")
    shows(world, path("fairnesspolicies"), "overview-even", **{"In-Force": 3, "State": "InForce"})
    policy = world.api.wait(
        path("fairnesspolicies", name="overview-even"),
        lambda found: (found or {}).get("status", {}).get("names") == ["overview-parent"],
        seconds=20,
        what="the queue that names it",
    )
    assert policy["status"]["observedGeneration"] == 1
    shows(world, path("quotaexceptions"), "overview-more", State="Active")
    shows(world, path("quotaexceptions"), "overview-lost", State="Refused")
    shows(world, path("pricebooks"), "overview-eur", State="InForce")
    for plural, name in (
        ("quotaexceptions", "overview-more"),
        ("quotaexceptions", "overview-lost"),
        ("pricebooks", "overview-eur"),
    ):
        world.api.delete(path(plural, name=name))


def test_two_pools_that_select_one_node_both_say_so(world, operator):
    (node, *_) = world.nodes
    world.make("Pool", "overview-second", {"nodeSelector": {"kubernetes.io/hostname": node}})
    for pool, other in (("overview", "overview-second"), ("overview-second", "overview")):
        told = wait_condition(world, path("pools", name=pool), "Overlap", "True")
        assert f"such as {node} by {other}" in told["message"]
    world.api.delete(path("pools", name="overview-second"))
    wait_condition(world, path("pools", name="overview"), "Overlap", "False")


def test_a_topology_that_contradicts_the_driver_is_said_by_the_pool(world, operator):
    (node, *_) = world.nodes
    machine = identified(fleet_machines.dgx_a100(), node)
    spec = topology_spec(machine)
    spec["gpus"] = [
        {**gpu, "pci": "0000:ff:00.0", "uuid": "GPU-other"} if n == 0 else gpu for n, gpu in enumerate(spec["gpus"])
    ]
    world.api.patch(path("nodetopologies", name=node), {"spec": {"gpus": spec["gpus"]}})
    told = wait_condition(world, path("pools", name="overview"), "TopologyMismatch", "True")
    assert node in told["message"]
    world.api.patch(path("nodetopologies", name=node), {"spec": {"gpus": topology_spec(machine)["gpus"]}})
    wait_condition(world, path("pools", name="overview"), "TopologyMismatch", "False")
    assert world.phase("runs") == "Running"


def test_usage_is_that_of_the_queue_and_grows(world, operator):
    month = time.strftime("%Y-%m-01T00:00:00Z", time.gmtime())

    def used(found):
        return found.get("status", {}).get("usageGpuMs", 0)

    first = world.api.wait(
        path("queues", name="overview-q"), lambda q: used(q) > 0, seconds=50, what="usage of the queue"
    )
    view = path("queueviews", world.namespace, "overview-q")
    shown = world.api.wait(view, lambda v: v["status"].get("usage", {}).get("gpuMs", 0) > 0, seconds=10)["status"][
        "usage"
    ]
    assert shown["periodStart"] == month
    assert shown["asOf"]
    job = world.gang("runs")["status"]
    held_ms = time.time_ns() // 1_000_000 - job["allocation"]["placedAtMs"]
    assert shown["gpuMs"] <= 16 * held_ms
    other = world.api.get(path("queueviews", "overview-other", "overview-idle"))["status"]
    assert other["usage"]["gpuMs"] == 0, "not that of another queue"
    later = world.api.wait(
        path("queues", name="overview-q"), lambda q: used(q) > used(first), seconds=60, what="growth"
    )
    assert used(later) - used(first) >= 16 * 10_000
    assert job["usage"]["asOf"]


def test_a_queue_view_goes_when_its_namespace_is_no_longer_listed(world, operator):
    where = path("queueviews", "overview-other", "overview-q")
    world.api.wait(where, lambda v: v is not None, what="the view")
    world.api.patch(path("queues", name="overview-q"), {"spec": {"namespaces": {"names": [world.namespace]}}})
    world.api.wait(where, lambda v: v is None, what="the view is gone")
    assert world.api.exists(path("queueviews", world.namespace, "overview-q"))


def test_a_queue_made_anew_has_a_status_again(world, operator):
    world.api.delete(path("queues", name="overview-idle"))
    world.api.wait(path("queueviews", "overview-other", "overview-idle"), lambda v: v is None, what="the view is gone")
    body = {"resources": [{"name": "gpu"}], "namespaces": {"names": ["overview-other"]}}
    world.make("Queue", "overview-idle", body)
    wait_condition(world, path("queues", name="overview-idle"), "Accepted", "True")


def test_the_head_of_the_chain_is_published_and_nothing_drifts(world, operator):
    first = world.api.get(HEAD)["data"]
    journal = ["journalHash", "journalNumber"]
    assert sorted(first) == ["at", "hash", *journal, "number", "period", "periodHash", "periodNumber"]
    metrics = operator.metrics()
    assert metrics["fairlead_ledger_head_number"] >= int(first["number"])
    world.patch_gang("waits", {"suspend": True})
    world.delete_gang("runs")  # something to book
    found = world.api.wait(
        HEAD, lambda m: int(m["data"]["number"]) > int(first["number"]), seconds=80, what="a new head"
    )
    assert len(found["data"]["hash"]) == 64
    assert operator.metrics()["fairlead_drift_holds"] == 0
    assert operator.said("event=drift ") == []
    assert operator.terminate() == 0
    done = operator.verify_books()
    assert done.returncode == 0, done.stdout + done.stderr
