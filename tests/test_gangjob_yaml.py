"""GangJob, Queue and Pool documents: what is read, and that every bad field is refused by name with its mend."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from fairlead.errors import UnreadableInput
from fairlead.model.gang import GangId, Overrun, ServiceClass, Share, ShareMode, TopologyRequest
from fairlead.model.tenancy import LevelBudget
from fairlead.simulation import gangjob_yaml
from fairlead.simulation.story import jobs_yaml

GOOD: dict[str, Any] = {
    "apiVersion": "fairlead.dev/v1alpha1",
    "kind": "GangJob",
    "metadata": {"name": "train", "namespace": "team", "annotations": {"simulation.fairlead.dev/run": "90m"}},
    "spec": {
        "queue": "research",
        "priorityClassName": "high",
        "serviceClass": "batch",
        "topology": {"within": "rack", "mode": "preferred"},
        "duration": "2h",
        "overrun": "requeue",
        "startDeadline": "5m",
        "successPolicy": {"operator": "Any", "roles": ["worker"]},
        "failurePolicy": {"maxRestarts": 7, "onMemberFailure": "fail"},
        "preemption": {"policy": "Never"},
        "roles": [
            {
                "name": "worker",
                "replicas": 2,
                "devices": {"count": 8, "model": "H100", "memory": "80G"},
                "template": {
                    "spec": {
                        "nodeSelector": {"zone": "a"},
                        "tolerations": [{"key": "k", "operator": "Exists"}],
                        "affinity": {
                            "nodeAffinity": {
                                "requiredDuringSchedulingIgnoredDuringExecution": {
                                    "nodeSelectorTerms": [
                                        {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}
                                    ]
                                }
                            }
                        },
                        "containers": [
                            {
                                "name": "main",
                                "resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "1Gi"}},
                                "ports": [{"hostPort": 9000}],
                            }
                        ],
                    }
                },
            }
        ],
    },
}


def read(*documents: Any, **more: Any) -> gangjob_yaml.Documents:
    return gangjob_yaml.read(
        yaml.safe_dump_all(documents),
        now_ms=5,
        new_id=lambda namespace, name: GangId(f"{namespace}.{name}"),
        **{"priorities": {"high": 9}, **more},
    )


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return GOOD with one field set; `path` has numbers for list items."""
    document = yaml.safe_load(yaml.safe_dump(GOOD))
    at: Any = document
    *parents, last = path.split(".")
    for part in parents:
        at = at[int(part)] if part.isdecimal() else at.setdefault(part, {})
    if value is None:
        del at[last]
    else:
        at[last] = value
    return document


def test_every_field_is_read():
    found = read(GOOD)
    gang = found.gangs[0]
    assert (gang.full_name, gang.queue, gang.priority, gang.submitted_ms) == ("team/train", "research", 9, 5)
    assert gang.service_class is ServiceClass.BATCH
    assert gang.topology == TopologyRequest(within="rack", required=False)
    assert (gang.duration_ms, gang.overrun, gang.start_deadline_ms) == (7_200_000, Overrun.REQUEUE, 300_000)
    assert (gang.success_any, gang.success_roles) == (True, ("worker",))
    assert (gang.max_restarts, gang.restart_on_failure, gang.preemptible) == (7, False, False)
    role = gang.roles[0]
    assert (role.gpus, role.gpu_model, role.gpu_memory_bytes) == (8, "H100", 80 * 10**9)
    assert (role.pod.requests.cpu_milli, role.pod.requests.memory_bytes) == (500, 2**30)
    assert role.pod.node_selector == (("zone", "a"),)
    assert role.pod.affinity is not None
    assert role.pod.tolerations[0].operator == "Exists"
    assert role.pod.host_ports == (("TCP", "0.0.0.0", 9_000),)
    assert found.runs[gang.id].run_ms == 5_400_000


def test_what_is_absent_gets_the_defaults_of_the_schema():
    spec = {"queue": "q", "roles": [{"name": "w", "replicas": 1, "template": {}}]}
    gang = read({**GOOD, "metadata": {"name": "x"}, "spec": spec}, namespace="here").gangs[0]
    assert (gang.namespace, gang.max_restarts, gang.start_deadline_ms, gang.duration_ms) == ("here", 3, 600_000, None)
    assert gang.preemptible
    serving = read({**GOOD, "spec": {**spec, "serviceClass": "serving"}}).gangs[0]
    assert not serving.preemptible


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("apiVersion", "v1", "apiVersion: must be fairlead.dev/v1alpha1"),
        ("metadata.name", "Bad.Name", "metadata.name"),
        ("spec.queue", None, "spec.queue: is required"),
        ("spec.queue", 7, "spec.queue: must be text, not a number"),
        ("spec.prio", "high", "spec.prio: unknown field"),
        ("spec.priorityClass", "high", "did you mean priorityClassName"),
        ("spec.priorityClassName", "lofty", "there is no PriorityClass 'lofty'; use one of: high"),
        ("spec.serviceClass", "gold", "spec.serviceClass: 'gold' is not one of"),
        ("spec.suspend", "yes", "spec.suspend: must be true or false"),
        ("spec.checkpoint", {"signal": "USR1"}, "spec.checkpoint.signal: 'USR1' is not one of: SIGTERM"),
        ("spec.checkpoint", {"notify": "file", "every": "1m", "pause": "2m"}, "1m is not longer than pause, 2m"),
        ("spec.ttl", "3650d", "spec.ttl: 3650d is not between 0ms and 365d"),
        ("spec.heartbeat", {}, "spec.heartbeat.timeout: is required"),
        ("spec.dependsOn", ["a"], "spec.dependsOn: is not supported yet"),
        ("spec.duration", "soon", "spec.duration: 'soon' is not a duration"),
        ("spec.duration", "0s", "spec.duration: is zero"),
        ("spec.topology", {"mode": "preferred"}, "spec.topology: asks for nothing"),
        ("spec.topology", {"slices": [{"within": "rack"}]}, r"spec.topology.slices\[0\].size: is required"),
        ("spec.topology.slice", 4, "did you mean slices"),
        ("spec.topology.mode", "maybe", "spec.topology.mode"),
        ("spec.successPolicy.roles", ["driver"], "spec.successPolicy.roles: 'driver' is no role"),
        ("spec.failurePolicy.maxRestarts", 5_000, r"maxRestarts: 5000 is outside 0..1000"),
        ("spec.preemption.policy", "Maybe", "spec.preemption.policy"),
        ("spec.roles", [], "spec.roles: is empty; add a role"),
        ("spec.roles.0.replicas", 10_000, r"spec.roles\[\].replicas: add up to more than 4096"),
        ("spec.roles.0.replicas", True, r"spec.roles\[0\].replicas: must be a whole number"),
        ("spec.roles.0.minReplicas", 5, r"minReplicas: 5 is not between 1 and replicas"),
        ("spec.roles.0.maxReplicas", 9, r"maxReplicas: other than replicas is not supported"),
        ("spec.roles.0.nicPerGpu", 1, "nicPerGpu: must be true or false"),
        ("spec.roles.0.devices.share", {"mode": "mps"}, "devices.share.compute: is required"),
        ("spec.roles.0.devices.share", {"compute": "some"}, "'some' is not a part of a whole; write for example 25%"),
        ("spec.roles.0.devices.share", {"compute": "9%", "mode": "turns"}, "'turns' is not one of: time-slice, mps"),
        ("spec.roles.0.devices.count", 0, "describes GPUs, but count is 0"),
        ("spec.roles.0.topology", {"within": "rack", "spread": "rack"}, r"use spec.roles\[\].spread"),
        ("spec.roles.0.needs", {"watts": 5}, "'watts' is no resource name; write for example example.com/rack-watts"),
        ("spec.roles.0.needs", {"nvidia.com/gpu": 5}, "has a meaning of its own"),
        ("spec.roles.0.needs", {"example.com/watts": 0}, r"needs\[example.com/watts\]: '0' is not positive"),
        ("spec.isolation", "total", "spec.isolation: 'total' is not one of: shared, strict"),
        ("spec.roles.0.devices.memory", "eighty", "devices.memory"),
        ("spec.roles.0.template.spec.nodeName", "n1", "nodeName: is not supported yet"),
        ("spec.roles.0.template.spec.topologySpreadConstraints", [{}], "topologySpreadConstraints"),
        ("spec.roles.0.template.spec.affinity.podAntiAffinity", {"x": 1}, "podAntiAffinity"),
        ("spec.roles.0.template.spec.containers.0.resources.limits", {"nvidia.com/gpu": 1}, "asked for in spec.roles"),
    ],
)
def test_a_bad_field_is_named_with_its_mend(path: str, value: Any, says: str):
    with pytest.raises(UnreadableInput, match=says):
        read(changed(path, value))


def test_two_roles_of_one_name_and_too_many_members_are_refused():
    role = {"name": "w", "replicas": 3_000, "template": {}}
    with pytest.raises(UnreadableInput, match="names a role twice"):
        read(changed("spec.roles", [role, role]))
    with pytest.raises(UnreadableInput, match="more than 4096"):
        read(changed("spec.roles", [role, {**role, "name": "v"}]))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not YAML"),
        ("- a", "must be a mapping"),
        ("kind: Job", "is not one of: GangJob, Queue, Pool"),
        ("a: " + "x" * (1 << 20), "larger than"),
        ("a: \x00", "not YAML"),
    ],
)
def test_text_that_is_no_document_is_refused(text: str, says: str):
    with pytest.raises(UnreadableInput, match=says):
        gangjob_yaml.read(text, now_ms=0, new_id=lambda *_: GangId("x"))


def test_queues_and_pools():
    queue = {
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "Queue",
        "metadata": {"name": "q"},
        "spec": {
            "parent": "root",
            "resources": [{"name": "gpu", "guaranteed": 8, "limit": 16, "weight": 3}],
            "namespaces": {"names": ["a"]},
            "serviceClasses": ["batch"],
        },
    }
    found = read(queue).queues[0]
    assert (found.guaranteed_gpus, found.limit_gpus, found.weight, found.namespaces) == (8, 16, 3, ("a",))
    queue["spec"]["resources"][0]["limit"] = 4
    with pytest.raises(UnreadableInput, match=r"resources\[0\].limit: 4 is below guaranteed 8"):
        read(queue)
    queue["spec"] = {"resources": [], "namespaces": {"selector": {}}, "promise": {"wait": "1h"}}
    with pytest.raises(UnreadableInput, match=r"is not supported yet"):
        read(queue)
    pool = {**queue, "kind": "Pool", "spec": {"nodeSelector": {"a": "b"}, "mode": "count"}}
    with pytest.raises(UnreadableInput, match=r"spec\.mode"):
        read(pool)
    pool["spec"] = {"nodeSelector": {}}
    with pytest.raises(UnreadableInput, match=r"spec\.nodeSelector"):
        read(pool)


def test_parts_of_gpus_are_read():
    document = changed("spec.roles.0.devices", {"share": {"compute": "12.5%", "memory": "10Gi", "mode": "mps"}})
    role = read(document).gangs[0].roles[0]
    assert role.share == Share(milli=125, memory_bytes=10 << 30, mode=ShareMode.MPS)
    document["spec"]["roles"][0]["devices"] = {"share": {"compute": "0.25"}, "model": "H100"}
    assert read(document).gangs[0].roles[0].share == Share(milli=250)
    document["spec"]["roles"][0]["devices"] = {"mig": "1g.10gb"}
    assert read(document).gangs[0].roles[0].mig == "1g.10gb"


@pytest.mark.parametrize(
    ("share", "says"),
    [
        ({"compute": "0%"}, "is 0 thousandths of a GPU, outside 1 to 999"),
        ({"compute": "100%"}, "is 1000 thousandths of a GPU, outside 1 to 999; .* set devices.count to 1"),
        ({"compute": "10%", "memory": "5Gi"}, "not enforced by time slices, which limit no memory; use mode mps"),
    ],
)
def test_a_share_that_is_none_is_refused(share: dict[str, Any], says: str):
    with pytest.raises(UnreadableInput, match=says):
        read(changed("spec.roles.0.devices", {"share": share}))


def test_a_pool_of_the_embedded_shell_may_share_in_every_way():
    pool = {"apiVersion": "fairlead.dev/v1alpha1", "kind": "Pool", "metadata": {"name": "p"}}
    spec: dict[str, Any] = {"nodeSelector": {"a": "b"}}
    assert read({**pool, "spec": spec}).pools[0].sharing == ("mig",)
    spec |= {
        "sharing": ["mig", "time-slice"],
        "servingOnTimeSlices": True,
        "mig": "dynamic",
        "budgets": [{"level": "rack", "resource": "example.com/rack-watts", "amount": "40k"}],
    }
    found = read({**pool, "spec": spec}).pools[0]
    assert (found.sharing, found.mig_mode, found.serving_on_time_slices) == (("time-slice", "mig"), "dynamic", True)
    assert found.budgets == (LevelBudget(level="rack", resource="example.com/rack-watts", amount=40_000),)
    for name, value, says in (
        ("sharing", ["turns"], "'turns' is not one of"),
        ("sharing", ["mps"], "servingOnTimeSlices: means nothing unless"),
        ("mig", "fluid", "'fluid' is not one of"),
        ("sharing", ["mps", "time-slice"], "spec.mig: the driver has either dynamic MIG or MPS"),
        ("budgets", [{"level": "rack", "resource": "watts", "amount": 1}], r"budgets\[0\].resource: 'watts' is no"),
        ("budgets", [{"level": "rack", "resource": "x.y/z", "amount": -1}], r"budgets\[0\].amount: '-1' is not"),
        ("budgets", [{"level": "rack", "resource": "x.y/z"}], r"budgets\[0\].amount: must be a quantity"),
        ("budgets", [{"level": "rack", "resource": "x.y/z", "amount": 1}] * 2, "rack has a budget of x.y/z already"),
    ):
        with pytest.raises(UnreadableInput, match=says):
            read({**pool, "spec": {**spec, name: value}})


def test_the_jobs_of_the_demo_are_good_documents():
    found = gangjob_yaml.read(jobs_yaml(), now_ms=0, new_id=lambda namespace, name: GangId(f"{namespace}.{name}"))
    assert len(found.gangs) == 8
    assert {queue.name for queue in found.queues} == {"research", "vision"}
