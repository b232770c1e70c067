"""A real API server enforces the API: schemas, rules, who may use a queue, and that only the leader writes (P10)."""

import copy
import importlib.util
import time
from urllib.parse import quote

import pytest

from cluster.chart import (
    LEASE,
    NAMESPACE,
    OPERATOR,
    ROOT,
    apply,
    gangjob,
    install_chart,
    path_of,
    render_chart,
    wait_until,
)
from cluster.controlplane.build import locate

pytestmark = pytest.mark.cluster

FAIRLEAD = "/apis/fairlead.dev/v1alpha1"
TEAM_A, TEAM_B = "rules-team-a", "rules-team-b"
TEMPLATE = {"spec": {"containers": [{"name": "main", "image": "example"}]}}
CLAIMS = f"/apis/resource.k8s.io/v1/namespaces/{TEAM_A}/resourceclaims"
PODS = f"/api/v1/namespaces/{TEAM_A}/pods"


def role(name="worker", replicas=1, **more):
    return {"name": name, "replicas": replicas, "template": TEMPLATE, **more}


def named(name, **spec):
    return gangjob(name=name, namespace=TEAM_A, **spec)


def job(**spec):
    return named("job", **spec)


def cluster_object(kind, name, spec):
    return {"apiVersion": "fairlead.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def queue(name="research", **spec):
    return cluster_object("Queue", name, {"resources": [{"name": "gpu", "guaranteed": 8, "limit": 16}], **spec})


def quota(**resource):
    return queue(resources=[{"name": "gpu", **resource}])


def pool(name="gpus", **spec):
    return cluster_object("Pool", name, {"nodeSelector": {"gpu": "yes"}, **spec})


# What is refused at creation, and the start of the sentence that says so.
REFUSED = {
    "dots in the name": (named("a.b"), "metadata.name names the gang's Service"),
    "a digit first": (named("1st"), "metadata.name names the gang's Service"),
    "too long together": (named("a" * 50, roles=[role("b" * 8)]), "metadata.name and spec.roles[].name make the pods'"),
    "10,000 replicas": (job(roles=[role(replicas=10_000)]), "spec.roles[].replicas may be at most 4096"),
    "4,097 in two roles": (job(roles=[role(replicas=4096), role("b")]), "spec.roles[].replicas may add up to 4096"),
    "min over max": (job(roles=[role(replicas=2, minReplicas=3, maxReplicas=2)]), "spec.roles[].minReplicas is larger"),
    "fewer will do": (job(roles=[role(replicas=4, minReplicas=2)]), "spec.roles[].minReplicas differs from replicas"),
    "more are welcome": (job(roles=[role(replicas=4, maxReplicas=8)]), "spec.roles[].maxReplicas differs from"),
    "a NIC each": (job(roles=[role(nicPerGpu=True)]), "spec.roles[].nicPerGpu is not supported yet"),
    "mig": (job(roles=[role(devices={"count": 1, "mig": "1g.10gb"})]), "spec.roles[].devices.mig is not supported yet"),
    "share": (
        job(roles=[role(devices={"share": {"memory": "1Gi"}})]),
        "spec.roles[].devices.share is not supported yet",
    ),
    "model of nothing": (
        job(roles=[role(devices={"model": "H100"})]),
        "spec.roles[].devices.model and memory describe",
    ),
    "33 GPUs": (job(roles=[role(devices={"count": 33})]), "spec.roles[].devices.count is GPUs per member on one node"),
    "spread": (job(topology={"within": "rack", "spread": "rack"}), "spec.topology.spread is not supported yet"),
    "no duration": (job(duration="0h0m"), "spec.duration is zero"),
    "no time to start": (job(startDeadline="0s"), "spec.startDeadline is zero"),
    "a stranger succeeds": (job(successPolicy={"roles": ["boss"]}), "spec.successPolicy.roles names a role that"),
    "checkpoint": (job(checkpoint={"interval": "10m"}), "spec.checkpoint is not supported yet"),
    "dependsOn": (job(dependsOn=["other"]), "spec.dependsOn is not supported yet"),
    "deadline": (job(deadline="2030-01-01T00:00:00Z"), "spec.deadline is not supported yet"),
    "isolation": (job(isolation="strict"), "spec.isolation is not supported yet"),
    "ttl": (job(ttl="1h"), "spec.ttl is not supported yet"),
    "queue with dots": (queue("a.b"), "metadata.name is used as a label value"),
    "own parent": (queue("a", parent="a"), "spec.parent names the queue itself"),
    "limit below": (quota(guaranteed=8, limit=4), "spec.resources[].limit is below guaranteed"),
    "lendLimit": (quota(lendLimit=4), "spec.resources[].lendLimit is not supported yet"),
    "borrowLimit": (quota(borrowLimit=4), "spec.resources[].borrowLimit is not supported yet"),
    "fairnessPolicy": (queue(fairnessPolicy="slo"), "spec.fairnessPolicy is not supported yet"),
    "budget": (queue(budget={"amount": 1}), "spec.budget is not supported yet"),
    "maxJobs": (queue(maxJobs=1), "spec.maxJobs is not supported yet"),
    "maxPending": (queue(maxPending=1), "spec.maxPending is not supported yet"),
    "promise": (queue(promise={"wait": "1h"}), "spec.promise is not supported yet"),
    "pool with dots": (pool("a.b"), "metadata.name is the value of the nodes' taint"),
    "visible-devices": (pool(mode="visible-devices"), "spec.mode visible-devices is not supported yet"),
    "count": (pool(mode="count"), "spec.mode count is not supported yet"),
}
# What is refused as a change of an accepted GangJob.
CHANGES_REFUSED = {
    "another queue": ({"queue": "other"}, "spec.queue is immutable"),
    "another size": ({"roles": [role(replicas=2), role("side")]}, "spec.roles[].replicas is immutable"),
    "more GPUs": ({"roles": [role(devices={"count": 4}), role("side")]}, "spec.roles[].devices.count is immutable"),
    "a role less": ({"roles": [role()]}, "spec.roles may not gain or lose a role"),
    "another role": ({"roles": [role(), role("other")]}, "spec.roles may not gain or lose a role"),
}
# What the schema itself refuses.
MALFORMED = {
    "no roles": job(roles=[]),
    "17 roles": job(roles=[role(f"r{number}") for number in range(17)]),
    "a role twice": job(roles=[role(), role()]),
    "no template": job(roles=[{"name": "worker", "replicas": 1}]),
    "nobody": job(roles=[role(replicas=0)]),
    "not a time": job(duration="soon"),
    "not a class": job(serviceClass="best"),
    "not a quantity": job(roles=[role(devices={"count": 1, "memory": "much"})]),
    "a queue like a path": job(queue="a/b"),
    "another resource": queue(resources=[{"name": "cpu"}]),
    "no weight": quota(weight=0),
    "every node": pool(nodeSelector={}),
}


def collection(document):
    plural = {"GangJob": f"namespaces/{TEAM_A}/gangjobs", "Queue": "queues", "Pool": "pools"}
    return f"{FAIRLEAD}/{plural[document['kind']]}"


@pytest.fixture(scope="module")
def helm(control_plane):
    """The helm that was built beside the control plane, whose absence skips the test."""
    return locate()["helm"]


@pytest.fixture(scope="module")
def api(control_plane, helm):
    """An administrator on a server with the whole chart, the uninstall hook's objects included."""
    admin = control_plane.api
    install_chart(admin, helm, workloads=True, hooks=True)
    for name in (TEAM_A, TEAM_B):
        apply(admin, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return admin


def bind(api, user, cluster_role, namespace=None):
    rbac = "rbac.authorization.k8s.io"
    metadata = {"name": f"{cluster_role}-{user}"} | ({"namespace": namespace} if namespace else {})
    apply(
        api,
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": cluster_role},
            "subjects": [{"apiGroup": rbac, "kind": "User", "name": user}],
        },
    )


@pytest.mark.parametrize("case", REFUSED)
def test_a_rule_refuses_with_its_sentence(api, case):
    document, sentence = REFUSED[case]
    status, answer = api.request("POST", f"{collection(document)}?dryRun=All&fieldValidation=Strict", document)
    assert status == 422, answer
    assert sentence in answer["message"]


@pytest.mark.parametrize("case", MALFORMED)
def test_the_schema_refuses_what_is_malformed(api, case):
    document = MALFORMED[case]
    status, answer = api.request("POST", f"{collection(document)}?dryRun=All&fieldValidation=Strict", document)
    assert status == 422, answer


@pytest.mark.parametrize("case", CHANGES_REFUSED)
def test_a_change_is_refused_with_its_sentence(api, case):
    change, sentence = CHANGES_REFUSED[case]
    old = named("changing", roles=[role(), role("side")])
    status, stored = api.request("POST", collection(old), old)
    assert status in (201, 409), stored
    _, stored = api.request("GET", f"{collection(old)}/changing")
    new = copy.deepcopy(stored)
    new["spec"].update(change)
    status, answer = api.request("PUT", f"{collection(old)}/changing?dryRun=All", new)
    assert status == 422, answer
    assert sentence in answer["message"]
    new["spec"] = {**stored["spec"], "suspend": True, "priorityClassName": "high"}
    assert api.request("PUT", f"{collection(old)}/changing?dryRun=All", new)[0] == 200


def test_every_rule_has_its_case():
    spec = importlib.util.spec_from_file_location("api_docs", ROOT / "tools" / "api_docs.py")
    api_docs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(api_docs)
    sentences = {message for crd in api_docs.load() for message in api_docs.rules(api_docs.schema_of(crd))}
    tried = [sentence for _, sentence in [*REFUSED.values(), *CHANGES_REFUSED.values()]]
    assert [s for s in sorted(sentences) if not any(s.startswith(start) for start in tried)] == []


def test_the_largest_gang_is_accepted(api):
    large = job(
        roles=[role(replicas=4000, minReplicas=4000, maxReplicas=4000, devices={"count": 32}), role("side", 96)],
        topology={"within": "block", "mode": "preferred"},
        duration="1h30m",
        successPolicy={"operator": "Any", "roles": ["side"]},
        failurePolicy={"maxRestarts": 0, "onMemberFailure": "fail"},
        preemption={"policy": "Never"},
    )
    status, answer = api.request("POST", f"{collection(large)}?dryRun=All&fieldValidation=Strict", large)
    assert status == 201, answer
    assert answer["spec"]["startDeadline"] == "10m"
    assert answer["spec"]["roles"][1]["devices"] == {"count": 0}
    assert "policy" not in named("x")["spec"].get("preemption", {})


def test_a_full_status_is_kept_whole(api):
    """Nothing that the operator writes is pruned, and a status write leaves the spec alone."""
    path = f"{FAIRLEAD}/namespaces/{TEAM_A}/gangjobs"
    assert api.request("POST", path, named("full"))[0] in (201, 409)
    now = "2026-01-02T03:04:05Z"
    status = {
        "observedGeneration": 1,
        "phase": "Running",
        "gpus": 16,
        "conditions": [
            {
                "type": "Running",
                "status": "True",
                "reason": "AllMembersRun",
                "message": "all members run",
                "lastTransitionTime": now,
                "observedGeneration": 1,
            }
        ],
        "attempt": 2,
        "restarts": 1,
        "reason": "Running",
        "message": "runs",
        "position": 0,
        "startEstimate": {"p50": now, "p90": now, "basis": "unknown"},
        "asOf": now,
        "nomination": {"domain": "rack/r1", "victims": ["a/b#1"], "until": now},
        "allocation": {
            "attempt": 2,
            "placedAtMs": 1_700_000_000_000,
            "domain": "rack/r1",
            "level": "rack",
            "pace": 450_000_000_000,
            "members": [{"node": "n1", "pods": ["worker-0=gpu-[0-7]"]}],
        },
        "usage": {"gpuMs": 5_000_000_000_000, "asOf": now},
        "lostGpuMs": 7,
        "startedAtMs": 1_700_000_000_000,
        "finishedAtMs": 1_700_000_000_001,
    }
    body = {"status": status, "spec": {"suspend": True}}
    merge = "application/merge-patch+json"
    code, answer = api.request("PATCH", f"{path}/full/status?fieldValidation=Strict", body, content_type=merge)
    assert code == 200, answer
    assert answer["status"] == status
    assert answer["spec"]["suspend"] is False


def test_who_may_use_a_queue_may_submit_to_it_and_others_may_not(api):
    for name in ("alice", "bob"):
        bind(api, name, "fairlead-tenant", TEAM_A)
    use = {"apiGroups": ["fairlead.dev"], "resources": ["queues"], "verbs": ["use"], "resourceNames": ["research"]}
    rbac = "rbac.authorization.k8s.io/v1"
    apply(api, {"apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": "use-research"}, "rules": [use]})
    bind(api, "alice", "use-research")
    path = f"{FAIRLEAD}/namespaces/{TEAM_A}/gangjobs"

    def submit(user, **spec):
        return api.request("POST", f"{path}?dryRun=All", job(**spec), headers={"Impersonate-User": user})

    wait_until(lambda: submit("alice")[0] == 201, "alice may not submit")
    wait_until(lambda: "fairlead-queue-use" in submit("bob")[1]["message"], "bob is not refused by the policy")
    status, answer = submit("bob")
    assert status == 403
    assert "spec.queue: you may not use queue 'research'" in answer["message"]
    assert "RBAC verb 'use' on queues.fairlead.dev/research" in answer["message"]
    status, answer = submit("alice", queue="other")
    assert status == 403
    assert "spec.queue: you may not use queue 'other'" in answer["message"]


def test_whoever_leaves_the_queue_alone_needs_no_use(api):
    """Bob may suspend a job of his team though he could not have submitted it."""
    bind(api, "bob", "fairlead-tenant", TEAM_A)
    path = f"{FAIRLEAD}/namespaces/{TEAM_A}/gangjobs"
    assert api.request("POST", path, named("shared"))[0] in (201, 409)

    def suspend():
        body, merge = {"spec": {"suspend": True}}, "application/merge-patch+json"
        return api.request("PATCH", f"{path}/shared", body, content_type=merge, headers={"Impersonate-User": "bob"})

    wait_until(lambda: suspend()[0] == 200, "bob may not suspend")


def test_a_tenant_reads_queue_views_and_nothing_of_the_fleet(api):
    bind(api, "carol", "fairlead-tenant", TEAM_A)
    carol = {"headers": {"Impersonate-User": "carol"}}
    views = f"{FAIRLEAD}/namespaces/{TEAM_A}/queueviews"
    wait_until(lambda: api.request("GET", views, **carol)[0] == 200, "carol may not list queueviews")
    assert api.request("GET", f"{FAIRLEAD}/namespaces/{TEAM_A}/gangjobs", **carol)[0] == 200
    for hidden in ("queues", "pools", "nodetopologies", "gangjobs", f"namespaces/{TEAM_B}/gangjobs"):
        assert api.request("GET", f"{FAIRLEAD}/{hidden}", **carol)[0] == 403, hidden
    view = cluster_object("QueueView", "research", {"queue": "research"})
    assert api.request("POST", f"{views}?dryRun=All", view, **carol)[0] == 403
    status = {"status": {"phase": "Running"}}
    gang = f"{FAIRLEAD}/namespaces/{TEAM_A}/gangjobs/full/status"
    assert api.request("PATCH", gang, status, content_type="application/merge-patch+json", **carol)[0] == 403


def may(api, user, verb, resource, *, group="", name="", namespace="", subresource=""):
    """Ask the server whether RBAC lets the user do it."""
    asked = {"verb": verb, "resource": resource, "group": group, "name": name}
    asked |= {"namespace": namespace, "subresource": subresource}
    review = {"kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1"}
    review["spec"] = {"user": user, "resourceAttributes": {key: value for key, value in asked.items() if value}}
    _, answer = api.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return answer["status"]["allowed"]


def test_the_operator_has_what_it_needs_and_no_more(api):
    user = f"system:serviceaccount:{NAMESPACE}:{OPERATOR}"
    dra = {"group": "resource.k8s.io"}
    own = {"group": "fairlead.dev"}
    needed = [
        *[
            ("list", kind, {})
            for kind in ("nodes", "pods", "namespaces", "persistentvolumes", "persistentvolumeclaims")
        ],
        *[("watch", kind, dra) for kind in ("resourceslices", "deviceclasses", "resourceclaims")],
        *[("watch", kind, own) for kind in ("gangjobs", "queues", "pools", "nodetopologies", "queueviews")],
        ("list", "priorityclasses", {"group": "scheduling.k8s.io"}),
        ("list", "storageclasses", {"group": "storage.k8s.io"}),
        ("create", "pods", {"subresource": "binding"}),
        ("create", "pods", {"subresource": "eviction"}),
        ("update", "resourceclaims", {**dra, "subresource": "status"}),
        ("update", "resourceclaims", {**dra, "subresource": "binding"}),
        ("create", "resourceclaims", dra),
        ("patch", "gangjobs", {**own, "subresource": "status"}),
        ("delete", "queueviews", own),
        ("create", "subjectaccessreviews", {"group": "authorization.k8s.io"}),
        ("update", "leases", {"group": "coordination.k8s.io", "namespace": NAMESPACE, "name": OPERATOR}),
    ]
    wait_until(lambda: may(api, user, needed[0][0], needed[0][1]), "the operator's role is not in force")
    assert [ask for ask in needed if not may(api, user, ask[0], ask[1], **ask[2])] == []
    too_much = [
        ("get", "secrets", {}),
        ("create", "pods", {"subresource": "exec"}),
        ("create", "serviceaccounts", {"subresource": "token"}),
        ("delete", "nodes", {}),
        ("delete", "gangjobs", own),
        ("update", "queues", own),
        ("use", "queues", own),
        ("update", "pools", own),
        ("update", "resourceslices", dra),
        ("deletecollection", "pods", {}),
        ("create", "clusterrolebindings", {"group": "rbac.authorization.k8s.io"}),
        ("patch", "validatingadmissionpolicies", {"group": "admissionregistration.k8s.io"}),
        ("update", "leases", {"group": "coordination.k8s.io", "namespace": "kube-system", "name": OPERATOR}),
        ("delete", "leases", {"group": "coordination.k8s.io", "namespace": NAMESPACE, "name": OPERATOR}),
        ("get", "configmaps", {"namespace": "kube-system"}),
    ]
    assert [ask for ask in too_much if may(api, user, ask[0], ask[1], **ask[2])] == []


@pytest.mark.parametrize(
    ("cluster_role", "verb", "resource", "expected"),
    [
        ("fairlead-queue-admin", "update", "queues", True),
        ("fairlead-queue-admin", "use", "queues", True),
        ("fairlead-queue-admin", "list", "pools", False),
        ("fairlead-queue-admin", "delete", "gangjobs", False),
        ("fairlead-platform", "update", "pools", True),
        ("fairlead-platform", "update", "nodetopologies", True),
        ("fairlead-platform", "delete", "gangjobs", True),
        ("fairlead-platform", "update", "queueviews", False),
    ],
)
def test_what_the_other_roles_may_do(api, cluster_role, verb, resource, expected):
    user = f"someone-{cluster_role}"
    bind(api, user, cluster_role)
    wait_until(lambda: may(api, user, "list", "queues", group="fairlead.dev"), "the role is not in force")
    assert may(api, user, verb, resource, group="fairlead.dev") is expected


# The leader fence (P10).


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


# The chart itself.


def only(documents, kind, name=None):
    (found,) = [d for d in documents if d["kind"] == kind and name in (None, d["metadata"]["name"])]
    return found


def test_the_operator_runs_locked_down_and_alone(helm):
    documents = render_chart(helm)
    deployment = only(documents, "Deployment")["spec"]
    assert deployment["strategy"] == {"type": "Recreate"}
    assert deployment["replicas"] == 1
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    env = {entry["name"]: entry for entry in container["env"]}
    assert env["PYTHONSAFEPATH"]["value"] == "1"
    assert env["POD_NAME"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    service = only(documents, "Service")["spec"]
    assert service["selector"].items() <= deployment["template"]["metadata"]["labels"].items()


def test_the_uninstall_hook_has_a_service_account_of_its_own(helm):
    hook = only(render_chart(helm), "Job")
    assert hook["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete"
    pod = hook["spec"]["template"]["spec"]
    assert pod["containers"][0]["command"] == ["fairlead-operator", "release-finalizers"]
    assert pod["serviceAccountName"] == "fairlead-release"
    kinds = [document["kind"] for document in render_chart(helm, {"releaseHook": {"enabled": False}})]
    assert "Job" not in kinds


def test_two_replicas_need_a_database(helm):
    with pytest.raises(RuntimeError, match=r"set books\.databaseUrlSecret\.name, or operator\.replicas to 1"):
        render_chart(helm, {"operator": {"replicas": 2}})
    values = {"operator": {"replicas": 2}, "books": {"databaseUrlSecret": {"name": "books"}}}
    documents = render_chart(helm, values)
    assert only(documents, "Deployment")["spec"]["replicas"] == 2
    assert not [document for document in documents if document["kind"] == "PersistentVolumeClaim"]


def test_a_policy_that_is_switched_off_is_not_rendered(helm):
    documents = render_chart(helm, {"admission": {"queueUse": False, "leaderFence": False}})
    assert not [document for document in documents if document["kind"].startswith("ValidatingAdmission")]
    assert only(documents, "Lease")


@pytest.mark.parametrize(
    ("values", "named_in_message"),
    [
        ({"operator": {"replica": 1}}, "replica"),
        ({"operator": {"replicas": 3}}, "/operator/replicas"),
        ({"books": {"sqlite": {"size": "big"}}}, "/books/sqlite/size"),
        ({"admision": {}}, "admision"),
    ],
)
def test_a_wrong_value_is_refused_by_name(helm, values, named_in_message):
    with pytest.raises(RuntimeError, match=named_in_message):
        render_chart(helm, values)
