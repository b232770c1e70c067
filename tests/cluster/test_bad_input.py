"""Input that cannot be right: refused by the server or marked by a condition, in words; and the loop goes on."""

from __future__ import annotations

import time

import pytest

from cluster.api import ApiError, path
from cluster.operator_process import OperatorProcess
from cluster.world import ClusterWorld

RESTRICTED, POOR = "bad-restricted", "bad-poor"


@pytest.fixture(scope="module")
def world(control_plane):
    with ClusterWorld(control_plane, "bad", nodes=4) as world:
        world.add_namespace(RESTRICTED, {"pod-security.kubernetes.io/enforce": "restricted"})
        world.add_namespace(POOR)
        world.add_namespace("bad-nobody")
        world.queue("bad-q", namespaces=[world.namespace, RESTRICTED, POOR])
        world.queue("bad-small", 0, 8)
        yield world


@pytest.fixture(scope="module", autouse=True)
def operator(control_plane, world, tmp_path_factory):
    with OperatorProcess(control_plane, tmp_path_factory.mktemp("bad"), policy_lag_ms=200) as operator:
        operator.wait_ready()
        yield operator
        assert not operator.said("Traceback|level=ERROR"), operator.tail(100)
        metrics = operator.metrics()
        assert sum(value for name, value in metrics.items() if "violations_total" in name) == 0
        assert operator.terminate() == 0


@pytest.fixture(autouse=True)
def the_loop_goes_on(world, operator, request):
    """After each bad job a good one still runs, and ends."""
    yield
    name = f"good-{abs(hash(request.node.name)) % 10**8}"
    world.submit(name, gpus=8, queue="bad-q")
    world.wait_phase(name, "Running", seconds=15)
    world.delete_gang(name)


def refusal(world, name, namespace=""):
    """Wait for the condition that marks a bad job; return its reason and sentence."""

    def marked(job):
        conditions = (job or {}).get("status", {}).get("conditions", [])
        return any(c["type"] == "Accepted" and c["status"] == "False" for c in conditions)

    where = path("gangjobs", namespace or world.namespace, name)
    job = world.api.wait(where, marked, seconds=15, what=f"{name} marked")
    accepted = next(c for c in job["status"]["conditions"] if c["type"] == "Accepted")
    assert accepted["reason"] == job["status"]["reason"]
    assert accepted["message"] == job["status"]["message"]
    assert world.pods(name, namespace) == []
    return accepted["reason"], accepted["message"]


def test_a_queue_that_does_not_exist(world):
    world.submit("no-queue", queue="nowhere")
    reason, message = refusal(world, "no-queue")
    assert reason == "UnknownQueue"
    assert message.startswith("spec.queue: there is no queue 'nowhere'")
    assert "bad-team" in message  # what a queue must list
    world.queue("nowhere")
    world.wait_phase("no-queue", "Running")  # what was missing came: nobody has to submit it again


def test_a_queue_that_does_not_list_the_namespace(world):
    world.submit("stranger", queue="bad-q", namespace="bad-nobody")
    reason, message = refusal(world, "stranger", "bad-nobody")
    assert reason == "NamespaceNotAllowed"
    assert "spec.queue: queue bad-q does not list namespace bad-nobody" in message
    assert "spec.namespaces" in message


@pytest.mark.parametrize(
    ("name", "reason", "words", "spec"),
    [
        ("level", "UnknownTopologyLevel", ["spec.topology.within", "galaxy", "rack"], {"within": "galaxy"}),
        ("nine", "NoSuchGpu", ["role worker", "9 GPUs", "largest has 8", "devices.count"], {"gpus": 9}),
        ("wide", "NeverFits", ["rack", "spec.topology.within"], {"replicas": 5, "gpus": 8, "within": "rack"}),
        ("all", "NeverFits", ["fewer replicas"], {"replicas": 400, "gpus": 8}),
        ("limit", "AboveQueueLimit", ["16 GPUs", "limited to 8"], {"replicas": 2, "gpus": 8, "queue": "bad-small"}),
        (
            "selector", "NoNodeMatches", ["role worker", "selector"],
            {"pod": {"containers": [{"name": "main", "image": "x"}], "nodeSelector": {"no": "where"}}},
        ),
        (
            "cpus", "NoNodeMatches", ["role worker", "CPU"],
            {"pod": {"containers": [{"name": "main", "image": "x", "resources": {"requests": {"cpu": "1000"}}}]}},
        ),
    ],
)  # fmt: skip
def test_what_no_state_of_the_cluster_could_satisfy(world, name, reason, words, spec):
    world.submit(name, **{"queue": "bad-q", **spec})
    said, message = refusal(world, name)
    assert said == reason, message
    for word in words:
        assert word in message, message


def test_a_model_that_nobody_has(world):
    template = {"spec": {"containers": [{"name": "main", "image": "x"}]}}
    role = {"name": "worker", "replicas": 1, "devices": {"count": 1, "model": "B300"}, "template": template}
    world.submit("model", queue="bad-q", roles=[role])
    reason, message = refusal(world, "model")
    assert reason == "NoSuchGpu"
    assert "B300" in message
    assert "devices.model" in message


def test_a_template_that_a_resource_quota_refuses(world):
    quota = {"metadata": {"name": "cpus"}, "spec": {"hard": {"requests.cpu": "4"}}}
    world.api.create(path("resourcequotas", POOR), quota)
    where = path("resourcequotas", POOR, "cpus")
    world.api.wait(where, lambda quota: quota.get("status", {}).get("hard"), what="the quota counts")
    resources = {"requests": {"cpu": "8"}}
    pod = {"containers": [{"name": "main", "image": "x", "resources": resources}]}
    world.submit("rich", queue="bad-q", namespace=POOR, pod=pod)
    reason, message = refusal(world, "rich", POOR)
    assert reason == "TemplateRefused"
    assert "role worker" in message
    assert "exceeded quota: cpus" in message
    assert "spec.roles[worker].template" in message
    world.api.patch(where, {"spec": {"hard": {"requests.cpu": "16"}}})
    time.sleep(6)  # the answer is kept for some seconds; without an edit it is asked for again within a minute or so
    world.patch_gang("rich", {"startDeadline": "11m"}, POOR)
    world.wait_phase("rich", "Running", namespace=POOR)


def test_a_template_that_pod_security_refuses(world):
    world.submit("root", queue="bad-q", namespace=RESTRICTED)
    reason, message = refusal(world, "root", RESTRICTED)
    assert reason == "TemplateRefused"
    assert "PodSecurity" in message
    assert "runAsNonRoot" in message  # the server's own words say what to change


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"replicas": 2, "minReplicas": 3, "maxReplicas": 1}, ["minReplicas", "maxReplicas"]),
        ({"replicas": 10_000}, ["spec.roles[0].replicas", "4096"]),
        ({"replicas": 0}, ["spec.roles[0].replicas", "1"]),
        ({"replicas": 1, "devices": {"count": 1, "mig": "1g.10gb"}}, ["devices", "mig"]),
    ],
)
def test_what_the_server_itself_refuses_in_words(world, fields, words):
    template = {"spec": {"containers": [{"name": "main", "image": "x"}]}}
    with pytest.raises(ApiError) as refused:
        world.submit("never", queue="bad-q", roles=[{"name": "worker", "template": template, **fields}])
    assert refused.value.status == 422
    for word in words:
        assert word in refused.value.message, refused.value.message


def big_pod(kib):
    env = [{"name": f"E{n}", "value": "x" * 1020} for n in range(kib)]
    return {"containers": [{"name": "main", "image": "x", "env": env}]}


@pytest.mark.parametrize("kib", [800, 1_000, 1_400])
def test_a_spec_of_about_a_mebibyte(world, kib):
    world.submit("huge", replicas=2, queue="bad-q", pod=big_pod(kib))
    reason, message = refusal(world, "huge")
    assert reason == "InvalidSpec"
    assert "spec.roles[].template: is " in message
    assert "under 512 KiB" in message
    assert "ConfigMap" in message
    world.delete_gang("huge")
    world.until(lambda: "huge" in world.gangs(), "it remains")


def test_a_large_spec_runs_and_a_far_too_large_one_does_not_reach_us(world):
    world.submit("large", replicas=2, queue="bad-q", pod=big_pod(400))
    world.wait_phase("large", "Running")
    world.delete_gang("large")
    with pytest.raises(ApiError) as refused:
        world.submit("far", queue="bad-q", pod=big_pod(4_000))
    assert refused.value.status == 413
