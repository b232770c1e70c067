"""Render the Helm chart and put it onto a control plane: cluster tests run under the chart's own RBAC and policies.

`api` is always an administrator's `cluster.api.Api`.
"""

import subprocess
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
CHART = ROOT / "helm" / "fairlead"
NAMESPACE = "fairlead-system"
OPERATOR = "fairlead-operator"  # the ServiceAccount, and the Lease
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{OPERATOR}"
# Nothing in a test's control plane runs these.
WORKLOADS = {"DaemonSet", "Deployment", "PersistentVolumeClaim", "Job"}
SECONDS_MAX = 30
PROBE = "policy-probe"
# What others need comes first; a kind that is not named comes last.
ORDER = ["CustomResourceDefinition", "ServiceAccount", "Lease", "ClusterRole", "Role"]
PLURALS = {"ValidatingAdmissionPolicy": "validatingadmissionpolicies"}


def render_chart(helm_binary, values=None, *, namespace=NAMESPACE, release="fairlead"):
    """Run `helm template` with the CRDs; return the objects. Raises RuntimeError with Helm's own words."""
    command = [str(helm_binary), "template", release, str(CHART), "--namespace", namespace, "--include-crds"]
    done = subprocess.run(
        [*command, "--kube-version", "1.36.3", "--values", "-"],
        input=yaml.safe_dump(values or {}),
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def is_hook(document):
    """Say whether Helm would apply the object only around an uninstall."""
    return "helm.sh/hook" in (document["metadata"].get("annotations") or {})


def path_of(document):
    """The API server's path of an object."""
    version, kind, metadata = document["apiVersion"], document["kind"], document["metadata"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    scope = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    return f"{root}{scope}/{PLURALS.get(kind, kind.lower() + 's')}/{metadata['name']}"


def apply(api, document):
    """Apply on the server, strictly: a field that the server does not know is an error."""
    path = f"{path_of(document)}?fieldManager=chart&force=true&fieldValidation=Strict"
    status, answer = api.request("PATCH", path, document, content_type="application/apply-patch+yaml")
    assert status in (200, 201), (document["kind"], document["metadata"]["name"], answer)
    return answer


def install_chart(api, helm_binary, values=None, *, workloads=False, hooks=False):
    """Apply the rendered chart and wait until its CRDs are served and its policies are enforced.

    Returns the objects that were applied. Deployment, claim and Job are left out unless `workloads`, the uninstall
    hook's objects unless `hooks`. Installing twice is the same as once.
    """
    documents = [
        document
        for document in render_chart(helm_binary, values)
        if (workloads or document["kind"] not in WORKLOADS) and (hooks or not is_hook(document))
    ]
    place = {kind: number for number, kind in enumerate(ORDER)}
    documents.sort(key=lambda document: place.get(document["kind"], len(ORDER)))
    apply(api, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    for document in documents:
        apply(api, document)
    names = {(document["kind"], document["metadata"]["name"]) for document in documents}
    for kind, name in sorted(names):
        if kind == "CustomResourceDefinition":
            wait_until(lambda name=name: _is_served(api, name), f"{name} is not served")
    if ("ValidatingAdmissionPolicy", "fairlead-queue-use") in names:
        _wait_for_queue_use(api)
    if ("ValidatingAdmissionPolicy", "fairlead-leader-fence") in names:
        wait_until(lambda: _leader_fence_answers(api), "fairlead-leader-fence is not enforced")
    return documents


def wait_until(done, complaint, seconds_max=SECONDS_MAX):
    """Poll `done` until it is true; AssertionError with the complaint once the deadline is over."""
    deadline = time.monotonic() + seconds_max
    while not done():
        assert time.monotonic() < deadline, f"{complaint} after {seconds_max} s"
        time.sleep(0.05)


def gangjob(name="job", namespace=NAMESPACE, queue="research", **spec):
    """The smallest GangJob; keywords replace fields of its spec."""
    template = {"spec": {"containers": [{"name": "main", "image": "example"}]}}
    whole = {"queue": queue, "roles": [{"name": "worker", "replicas": 1, "template": template}], **spec}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "fairlead.dev/v1alpha1", "kind": "GangJob", "metadata": metadata, "spec": whole}


def _is_served(api, crd_name):
    """Established, and listed by the server: the two do not come at once."""
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd_name}"
    conditions = api.request("GET", path)[1]["status"].get("conditions", [])
    plural, group = crd_name.split(".", 1)
    established = any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
    return established and api.request("GET", f"/apis/{group}/v1alpha1/{plural}?limit=1")[0] == 200


def _wait_for_queue_use(api):
    """A user who may create GangJobs but use no queue is refused by the policy, in a dry run."""
    rbac = "rbac.authorization.k8s.io"
    binding = {
        "apiVersion": f"{rbac}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": PROBE, "namespace": NAMESPACE},
        "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "fairlead-tenant"},
        "subjects": [{"apiGroup": rbac, "kind": "User", "name": PROBE}],
    }
    apply(api, binding)
    path = f"/apis/fairlead.dev/v1alpha1/namespaces/{NAMESPACE}/gangjobs?dryRun=All"

    def refused():
        answer = api.request("POST", path, gangjob(PROBE), headers={"Impersonate-User": PROBE})[1]
        return "fairlead-queue-use" in answer.get("message", "")

    wait_until(refused, "fairlead-queue-use is not enforced")
    api.request("DELETE", path_of(binding))


def _leader_fence_answers(api):
    """The operator's ServiceAccount without a pod is refused by the fence, in a dry run."""
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": PROBE}, "spec": {"clusterIP": "None"}}
    user = {"Impersonate-User": f"system:serviceaccount:{NAMESPACE}:{OPERATOR}"}
    path = f"/api/v1/namespaces/{NAMESPACE}/services?dryRun=All"
    return "fairlead-leader-fence" in api.request("POST", path, service, headers=user)[1].get("message", "")
