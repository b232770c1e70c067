"""Who may submit to a queue and who sees what: RBAC, the admission policy, and the scheduler behind both (P8)."""

from __future__ import annotations

import json
import re
import threading
import time

import pytest

from cluster.api import ApiError, path
from cluster.chart import gangjob, install_chart
from cluster.operator_process import OperatorProcess
from cluster.world import ClusterWorld

RBAC = "rbac.authorization.k8s.io"
LOTUS, ZEBRA = "lotus-team", "zebra-team"  # alice's namespace and bob's; every name of theirs starts alike
LOTUS_GUARANTEED, LOTUS_LIMIT, ZEBRA_GUARANTEED, ZEBRA_LIMIT = 17, 47, 3, 29


@pytest.fixture(scope="module")
def world(control_plane):
    with ClusterWorld(control_plane, "rights", nodes=4) as world:
        for namespace, person in ((LOTUS, "alice"), (ZEBRA, "bob")):
            world.add_namespace(namespace)
            bind(world, f"{person}-tenant", person, "fairlead-tenant", namespace)
        world.queue("lotus-queue", LOTUS_GUARANTEED, LOTUS_LIMIT, namespaces=[LOTUS])
        world.queue("zebra-queue", ZEBRA_GUARANTEED, ZEBRA_LIMIT, namespaces=[ZEBRA])
        world.queue("rights-both", 0, namespaces=[LOTUS, ZEBRA])
        for queue, people in (("lotus-queue", ["alice"]), ("zebra-queue", ["bob"]), ("rights-both", ["alice", "bob"])):
            rule = {"apiGroups": ["fairlead.dev"], "resources": ["queues"], "verbs": ["use"], "resourceNames": [queue]}
            world.create("clusterroles", {"metadata": {"name": f"use-{queue}"}, "rules": [rule]})
            for person in people:
                bind(world, f"use-{queue}-{person}", person, f"use-{queue}")
        yield world


@pytest.fixture(scope="module")
def operator(control_plane, world, tmp_path_factory):
    with OperatorProcess(control_plane, tmp_path_factory.mktemp("rights"), policy_lag_ms=200) as operator:
        operator.wait_ready()
        yield operator


@pytest.fixture
def alice(control_plane):
    return control_plane.person("alice")


@pytest.fixture
def bob(control_plane):
    return control_plane.person("bob")


@pytest.fixture(autouse=True)
def emptied(world):
    yield
    for namespace in (LOTUS, ZEBRA):
        for kind in ("gangjobs", "events"):
            world.api.delete(path(kind, namespace))
        world.until(lambda namespace=namespace: world.pods(namespace=namespace), "pods of an earlier test remain")


def bind(world, name, person, role, namespace=None):
    body = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": RBAC, "kind": "User", "name": person}],
    }
    if namespace is None:
        world.create("clusterrolebindings", body)
    else:
        world.api.create(path("rolebindings", namespace), body)


class Recorder:
    """Every version of some collections, as their reader saw them."""

    def __init__(self, api, *collections):
        self.seen = {collection: [] for collection in collections}
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(api, c), daemon=True) for c in collections]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error):
        self._ended.set()
        for thread in self._threads:
            thread.join(20)

    def _run(self, api, collection):
        whole = api.list_whole(collection)
        self.seen[collection] += whole["items"]
        version = whole["metadata"]["resourceVersion"]
        while not self._ended.is_set():
            for event in api.watch(collection, version, seconds=2):
                version = event["object"]["metadata"]["resourceVersion"]
                self.seen[collection].append(event["object"])

    def everything(self):
        return [thing for things in self.seen.values() for thing in things]


def test_alice_may_use_a_queue_and_bob_may_not(world, operator, alice, bob):
    world.submit("lotus-1", gpus=8, namespace=LOTUS, queue="lotus-queue", client=alice)
    world.wait_phase("lotus-1", "Running", namespace=LOTUS)
    with pytest.raises(ApiError) as refused:
        world.submit("zebra-1", gpus=8, namespace=ZEBRA, queue="lotus-queue", client=bob)
    assert refused.value.status == 403
    assert "spec.queue: you may not use queue 'lotus-queue'" in refused.value.message
    assert "RBAC verb 'use'" in refused.value.message
    with pytest.raises(ApiError) as elsewhere:
        world.submit("zebra-1", gpus=8, namespace=LOTUS, queue="lotus-queue", client=bob)
    assert elsewhere.value.status == 403  # he has no rights in her namespace at all
    # What he may use he may not turn into something else afterwards.
    world.submit("zebra-2", gpus=1, namespace=ZEBRA, queue="rights-both", client=bob)
    with pytest.raises(ApiError, match=r"spec\.queue"):
        bob.patch(path("gangjobs", ZEBRA, "zebra-2"), {"spec": {"queue": "lotus-queue"}})


def test_without_the_policy_the_scheduler_itself_refuses_bobs_namespace(world, operator, control_plane, bob):
    where = path("validatingadmissionpolicybindings", name="fairlead-queue-use")
    world.api.delete(where)
    try:
        body = gangjob("zebra-probe", ZEBRA, "lotus-queue")
        deadline = time.monotonic() + 20
        while bob.request("POST", path("gangjobs", ZEBRA) + "?dryRun=All", body)[0] == 403:
            assert time.monotonic() < deadline, "the policy is still enforced"
            time.sleep(0.1)
        world.submit("zebra-3", gpus=8, namespace=ZEBRA, queue="lotus-queue", client=bob)
        where = path("gangjobs", ZEBRA, "zebra-3")
        job = bob.wait(where, lambda job: condition(job, "Accepted").get("status") == "False", what="a refusal")
        refusal = condition(job, "Accepted")
        assert refusal["reason"] == "NamespaceNotAllowed"
        assert "spec.queue: queue lotus-queue does not list namespace zebra-team" in refusal["message"]
        assert "spec.namespaces" in refusal["message"]  # the mend
        time.sleep(1)
        assert world.pods("zebra-3", ZEBRA) == []
        assert bob.get(where)["status"].get("allocation") is None
        # Its owner may change his mind, and nobody has to submit anything again.
        both = {"spec": {"namespaces": {"names": [LOTUS, ZEBRA]}}}
        world.api.patch(path("queues", name="lotus-queue"), both)
        world.wait_phase("zebra-3", "Running", namespace=ZEBRA)
    finally:
        world.api.patch(path("queues", name="lotus-queue"), {"spec": {"namespaces": {"names": [LOTUS]}}})
        install_chart(world.api, control_plane.programs["helm"])


def test_p8_a_tenant_never_sees_another_tenants_names_or_numbers(world, operator, alice, bob):
    """Bob borrows the whole fleet, Alice's guarantee takes half of it back; each sees only what is theirs."""
    kinds = ("gangjobs", "queueviews")
    admin = world.api
    more = [path("pods", LOTUS), path("events", LOTUS), path("pods", ZEBRA), path("events", ZEBRA)]
    with (
        Recorder(alice, *(path(kind, LOTUS) for kind in kinds)) as hers,
        Recorder(bob, *(path(kind, ZEBRA) for kind in kinds)) as his,
        Recorder(admin, *more) as others,
    ):
        zebras = [f"zebra-{n}" for n in range(4)]
        for name in zebras:
            if name == "zebra-3":
                world.submit(name, gpus=8, namespace=ZEBRA, queue="rights-both", client=bob)
            else:
                world.submit(name, gpus=8, namespace=ZEBRA, queue="zebra-queue", client=bob)
        world.wait_phases(zebras, "Running", namespace=ZEBRA)
        world.submit("lotus-1", replicas=2, gpus=8, namespace=LOTUS, queue="lotus-queue", client=alice)
        world.submit("lotus-2", replicas=2, gpus=8, namespace=LOTUS, queue="rights-both", client=alice)
        world.submit("lotus-3", replicas=2, gpus=8, namespace=LOTUS, queue="rights-both", client=alice)
        world.wait_phase("lotus-1", "Running", namespace=LOTUS)
        place = path("queueviews", LOTUS, "rights-both")
        alice.wait(place, lambda view: view and len(view.get("status", {}).get("positions", [])) == 2, what="positions")
        view = alice.wait(
            path("queueviews", LOTUS, "lotus-queue"),
            lambda view: view and view.get("status", {}).get("used") == 16,
            what="her queue holds 16",
        )["status"]
        assert (view["guaranteed"], view["limit"]) == (LOTUS_GUARANTEED, LOTUS_LIMIT)
        world.until(lambda: len(waiting(world, ZEBRA)) < 2, "no two gangs of bob's wait")
        time.sleep(1)
    assert any("nomination" in job.get("status", {}) for job in hers.seen[path("gangjobs", LOTUS)]), "nothing was taken"
    assert len(his.seen[path("gangjobs", ZEBRA)]) > 12
    hers_all = hers.everything() + others.seen[path("pods", LOTUS)] + others.seen[path("events", LOTUS)]
    his_all = his.everything() + others.seen[path("pods", ZEBRA)] + others.seen[path("events", ZEBRA)]
    for thing, marker, numbers in (
        *((thing, "zebra", {ZEBRA_GUARANTEED, ZEBRA_LIMIT}) for thing in hers_all),
        *((thing, "lotus", {LOTUS_GUARANTEED, LOTUS_LIMIT}) for thing in his_all),
    ):
        thing["metadata"].pop("managedFields", None)
        assert marker not in json.dumps(thing), json.dumps(thing, indent=1)
        if thing.get("kind") in ("GangJob", "QueueView"):
            status = thing.get("status", {})
            quota = {status.get(name) for name in ("guaranteed", "limit")}
            said = {int(number) for number in re.findall(r"\b\d+\b", status.get("message") or "")}
            big = {number for number in numbers if number > 10}  # a 3 may be anything
            assert not (quota & numbers) | (said & big), json.dumps(thing, indent=1)


def test_a_tenant_cannot_read_what_is_the_platforms(world, operator, alice):
    for kind, name in (("queues", "lotus-queue"), ("pools", "rights"), ("nodetopologies", "rights-r0-n0")):
        for where in (path(kind), path(kind, name=name)):
            status, answer = alice.request("GET", where)
            assert (status, answer["reason"]) == (403, "Forbidden"), where
    for where in (path("gangjobs", ZEBRA), path("queueviews", ZEBRA), path("gangjobs"), path("queueviews")):
        assert alice.request("GET", where)[0] == 403, where
    for kind in ("gangjobs", "queueviews"):
        assert alice.request("GET", path(kind, LOTUS))[0] == 200
    view = path("queueviews", LOTUS, "lotus-queue")
    assert alice.request("PATCH", view, {"status": {"used": 0}}, content_type="application/merge-patch+json")[0] == 403


def condition(job, kind):
    found = (job or {}).get("status", {}).get("conditions", [])
    return next((c for c in found if c["type"] == kind), {})


def waiting(world, namespace):
    return [n for n, job in world.gangs(namespace).items() if job.get("status", {}).get("phase") == "Pending"]
