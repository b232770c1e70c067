"""The chart as Helm renders it."""

import pytest

from cluster.chart import render_chart

pytestmark = pytest.mark.cluster


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
    off = dict.fromkeys(("queueUse", "leaderFence", "agentNode", "submitter"), False)
    documents = render_chart(helm, {"admission": off})
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
