"""Only the pod that holds the Lease writes (P10): the admission policy on a real server."""

import time
from urllib.parse import quote

import pytest

from cluster.api_objects import CLAIMS, FAIRLEAD, PODS, TEAM_A, TEMPLATE, cluster_object, named, queue
from cluster.chart import LEASE, NAMESPACE, OPERATOR, apply, path_of, render_chart, wait_until

pytestmark = pytest.mark.cluster


def hold(api, holder):
    """Write the Lease's holder; None lets it go."""
    body = {"spec": {"holderIdentity": holder}}
    assert api.request("PATCH", LEASE, body, content_type="application/merge-patch+json")[0] == 200


@pytest.fixture(scope="module")
def tokens(api, control_plane):
    """Pod-bound tokens of two operator pods, as the kubelet would project them: name of the pod to its header."""
    names = ("operator-a", "operator-b")
    found = {name: control_plane.pod_bound_token(NAMESPACE, OPERATOR, name) for name in names}
    yield {name: {"Authorization": f"Bearer {token}"} for name, token in found.items()}
    hold(api, None)
    for name in names:
        api.delete(f"/api/v1/namespaces/{NAMESPACE}/pods/{name}", grace_seconds=0)


@pytest.fixture(scope="module")
def writes(api):
    """One dry run of everything the operator writes: name to (method, path, body, content type)."""
    json_type, merge = "application/json", "application/merge-patch+json"
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "member", "namespace": TEAM_A}, **TEMPLATE}
    pod["spec"] = {**TEMPLATE["spec"], "schedulerName": "fairlead"}
    apply(api, pod)
    request = {"name": "gpus", "exactly": {"deviceClassName": "gpu.nvidia.com", "count": 1}}
    claim = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "member-gpus"}}
    claim["spec"] = {"devices": {"requests": [request]}}
    assert api.request("POST", CLAIMS, claim)[0] in (201, 409)
    _, stored = api.request("GET", f"{CLAIMS}/member-gpus")
    device = {"request": "gpus", "driver": "gpu.nvidia.com", "pool": "n1", "device": "gpu-0"}
    allocated = {**stored, "status": {"allocation": {"devices": {"results": [device]}}}}
    apply(api, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "rules-n1"}})
    volume = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": TEAM_A}}
    volume["spec"] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    apply(api, volume)
    assert api.request("POST", f"{FAIRLEAD}/namespaces/{TEAM_A}/gangjobs", named("fenced"))[0] in (201, 409)
    assert api.request("POST", f"{FAIRLEAD}/queues", queue("fenced"))[0] in (201, 409)
    note = {"metadata": {"annotations": {"example": "1"}}}
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "member"}}
    binding["target"] = {"apiVersion": "v1", "kind": "Node", "name": "rules-n1"}
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "member", "namespace": TEAM_A}}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "gang"}, "spec": {"clusterIP": "None"}}
    chain = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "fairlead-chain-head"}}
    api.request("DELETE", f"/api/v1/namespaces/{NAMESPACE}/configmaps/fairlead-chain-head")  # of an earlier operator
    view = cluster_object("QueueView", "research", {"queue": "research"})
    gangs = f"{FAIRLEAD}/namespaces/{TEAM_A}/gangjobs"
    return {
        "a pod": ("POST", PODS, {**pod, "metadata": {"name": "new"}}, json_type),
        "a pod's finalizers": ("PATCH", f"{PODS}/member", {"metadata": {"finalizers": []}}, merge),
        "a pod's end": ("DELETE", f"{PODS}/member", None, json_type),
        "a binding": ("POST", f"{PODS}/member/binding", binding, json_type),
        "an eviction": ("POST", f"{PODS}/member/eviction", eviction, json_type),
        "a claim": ("POST", CLAIMS, {**claim, "metadata": {"name": "new"}}, json_type),
        "a claim's status": ("PUT", f"{CLAIMS}/member-gpus/status", allocated, json_type),
        "a claim's end": ("DELETE", f"{CLAIMS}/member-gpus", None, json_type),
        "a service": ("POST", f"/api/v1/namespaces/{TEAM_A}/services", service, json_type),
        "a node": ("PATCH", "/api/v1/nodes/rules-n1", note, merge),
        "a volume": ("PATCH", f"/api/v1/namespaces/{TEAM_A}/persistentvolumeclaims/data", note, merge),
        "the chain's head": ("POST", f"/api/v1/namespaces/{NAMESPACE}/configmaps", chain, json_type),
        "a GangJob": ("PATCH", f"{gangs}/fenced", note, merge),
        "a GangJob's status": ("PATCH", f"{gangs}/fenced/status", {"status": {"phase": "Pending"}}, merge),
        "a queue's status": ("PATCH", f"{FAIRLEAD}/queues/fenced/status", {"status": {"used": 1}}, merge),
        "a queue view": ("POST", f"{FAIRLEAD}/namespaces/{TEAM_A}/queueviews", view, json_type),
    }


def attempt(api, write, headers):
    method, path, body, content_type = write
    return api.request(method, f"{path}?dryRun=All", body, content_type=content_type, headers=headers)


def refusals(api, writes, headers):
    """Which of the writes the fence refuses, with its words; anything but success or the fence is an error."""
    found = {}
    for name, write in writes.items():
        status, answer = attempt(api, write, headers)
        if status not in (200, 201, 202):
            assert status == 403, (name, answer)
            assert "fairlead-leader-fence" in answer["message"], (name, answer)
            found[name] = answer["message"]
    return found


def wait_for_leader(api, writes, headers):
    wait_until(lambda: attempt(api, writes["a service"], headers)[0] == 201, "the fence has not seen the Lease", 5)


def test_p10_only_the_pod_that_holds_the_lease_writes_and_a_patch_of_the_lease_flips_it(api, tokens, writes):
    for leader, other in (("operator-a", "operator-b"), ("operator-b", "operator-a")):
        hold(api, leader)
        wait_for_leader(api, writes, tokens[leader])
        assert refusals(api, writes, tokens[leader]) == {}
        refused = refusals(api, writes, tokens[other])
        assert sorted(refused) == sorted(writes)
        assert f"pod '{other}' may not write" in refused["a binding"]
        assert f"is held by '{leader}'" in refused["a binding"]


def test_p10_a_lease_that_nobody_holds_lets_nobody_write(api, tokens, writes):
    hold(api, "operator-a")
    wait_for_leader(api, writes, tokens["operator-a"])
    hold(api, None)
    wait_until(
        lambda: attempt(api, writes["a service"], tokens["operator-a"])[0] == 403, "nobody's Lease is ignored", 5
    )
    assert sorted(refusals(api, writes, tokens["operator-a"])) == sorted(writes)


def test_p10_a_token_without_a_pod_does_not_lead(api, writes):
    """Somebody who may mint tokens of the ServiceAccount gains nothing by a holder with an empty name."""
    hold(api, "")
    user = {"Impersonate-User": f"system:serviceaccount:{NAMESPACE}:{OPERATOR}"}
    assert sorted(refusals(api, writes, user)) == sorted(writes)
    key = quote("authentication.kubernetes.io/pod-name", safe="")
    hold(api, "operator-a")
    wait_for_leader(api, writes, {**user, f"Impersonate-Extra-{key}": "operator-a"})


def test_p10_a_standby_may_take_the_lease_and_write_events(api, tokens):
    hold(api, "operator-a")
    body, merge = {"spec": {"holderIdentity": "operator-b"}}, "application/merge-patch+json"
    status, answer = api.request("PATCH", LEASE, body, content_type=merge, headers=tokens["operator-b"])
    assert status == 200, answer
    event = {"apiVersion": "v1", "kind": "Event", "metadata": {"generateName": "e"}, "type": "Normal", "reason": "Led"}
    event["involvedObject"] = {"kind": "Pod", "namespace": NAMESPACE, "name": "operator-a"}
    path = f"/api/v1/namespaces/{NAMESPACE}/events"
    assert api.request("POST", path, event, headers=tokens["operator-a"])[0] == 201


def test_the_fence_holds_nobody_else_up(api, writes):
    """Controllers write pods and claims' statuses, whoever leads; so does the uninstall hook."""
    hold(api, "operator-a")
    controller = {"Impersonate-User": "system:kube-controller-manager", "Impersonate-Group": "system:masters"}
    assert refusals(api, writes, controller) == {}
    hook = {"Impersonate-User": f"system:serviceaccount:{NAMESPACE}:fairlead-release"}
    released = {"metadata": {"finalizers": []}}
    for path in (f"{PODS}/member", f"{CLAIMS}/member-gpus"):
        write = ("PATCH", path, released, "application/merge-patch+json")
        wait_until(lambda write=write: attempt(api, write, hook)[0] == 200, "the hook may not write")


def test_a_missing_lease_stops_nobody_from_starting_pods(api, tokens, writes, helm):
    """The server looks the Lease up before it asks who writes: Deny there would stop the whole cluster."""
    hold(api, "operator-a")
    wait_for_leader(api, writes, tokens["operator-a"])
    assert api.request("DELETE", LEASE)[0] == 200
    wait_until(lambda: attempt(api, writes["a service"], tokens["operator-b"])[0] == 201, "the Lease is still seen", 5)
    controller = {"Impersonate-User": "system:kube-controller-manager", "Impersonate-Group": "system:masters"}
    assert refusals(api, writes, controller) == {}
    (lease,) = [document for document in render_chart(helm) if document["kind"] == "Lease"]
    apply(api, lease)
    wait_until(
        lambda: attempt(api, writes["a service"], tokens["operator-b"])[0] == 403, "the new Lease is not seen", 5
    )


def test_the_fence_that_was_removed_and_put_back_sees_the_lease(api, tokens, writes, helm):
    """The API server would go on with the Lease it saw last, were it not for the anchor (kubernetes#130887)."""
    hold(api, "operator-a")
    wait_for_leader(api, writes, tokens["operator-a"])
    fence = [d for d in render_chart(helm) if d["metadata"]["name"] == "fairlead-leader-fence"]
    for document in reversed(fence):
        assert api.request("DELETE", path_of(document))[0] == 200
    wait_until(lambda: attempt(api, writes["a service"], tokens["operator-b"])[0] == 201, "the fence still stands")
    time.sleep(2.5)  # the server tidies up once a second
    for document in fence:
        apply(api, document)
    wait_until(lambda: attempt(api, writes["a service"], tokens["operator-b"])[0] == 403, "the fence is not back")
    hold(api, "operator-b")
    wait_for_leader(api, writes, tokens["operator-b"])
    assert sorted(refusals(api, writes, tokens["operator-a"])) == sorted(writes)
