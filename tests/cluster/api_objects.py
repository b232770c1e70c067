"""What the tests of the API on a real server share: the chart's administrator, small objects, and asking RBAC."""

from cluster.chart import apply, gangjob

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


def may(api, user, verb, resource, *, group="", name="", namespace="", subresource=""):
    """Ask the server whether RBAC lets the user do it."""
    asked = {"verb": verb, "resource": resource, "group": group, "name": name}
    asked |= {"namespace": namespace, "subresource": subresource}
    review = {"kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1"}
    review["spec"] = {"user": user, "resourceAttributes": {key: value for key, value in asked.items() if value}}
    _, answer = api.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return answer["status"]["allowed"]


def thing(sort, name="a", **spec):
    return {
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": sort,
        "metadata": {"name": name},
        "spec": {word: value for word, value in spec.items() if value is not None},
    }
