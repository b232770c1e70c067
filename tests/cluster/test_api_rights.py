"""Who may use a queue, read what, and do what: RBAC and the admission policy on a real server."""

import pytest

from cluster.api_objects import FAIRLEAD, TEAM_A, TEAM_B, bind, cluster_object, job, may, named
from cluster.chart import NAMESPACE, OPERATOR, apply, wait_until

pytestmark = pytest.mark.cluster


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
        ("delete", "gangjobs", own),  # finished ones whose ttl is over
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
