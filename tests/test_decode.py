"""Our kinds and Kubernetes' nodes, decoded from JSON as a server sends it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from fairlead.errors import UnreadableInput
from fairlead.model.gang import Gang, Overrun, PodShape, ServiceClass, TopologyRequest
from fairlead.model.hardware import Resources, Taint
from fairlead.model.reasons import Reason, Refusal
from fairlead.model.tenancy import Pool
from fairlead_operator.custom_objects import GangJob, NodeTopology
from fairlead_operator.decode import decode_gang, priority_of, spec_refusal, template_refusal
from fairlead_operator.decode_nodes import decode_node, is_out_of_service, not_ready_since_ms, slice_devices
from fairlead_operator.device_objects import Slice
from fairlead_operator.objects import Condition, NodeObject, PriorityClass, time_ms
from fairlead_operator.pods import sheet_of

NOON = "2026-03-01T12:00:00Z"
NOON_MS = 1_772_366_400_000
LEVELS = {"rack": ("fairlead.dev/rack", "topology.kubernetes.io/rack"), "block": ("fairlead.dev/block",)}


def decoded(value: Any, kind: Any) -> Any:
    return msgspec.json.decode(json.dumps(value), type=kind)


def job(**spec: Any) -> GangJob:
    role = {"name": "w", "replicas": 2, "template": {"spec": {}}, "devices": {"count": 8}}
    whole = {"queue": "q", "roles": [role], **spec}
    meta = {"name": "j", "namespace": "ns", "uid": "u1", "creationTimestamp": NOON, "generation": 1}
    found = decoded({"metadata": meta, "spec": whole}, GangJob)
    assert isinstance(found, GangJob)
    return found


def gang_of(found: GangJob, **more: Any) -> Gang:
    got = decode_gang(found, {role.name: PodShape() for role in found.spec.roles}, **more)
    assert isinstance(got, Gang), got
    return got


def test_defaults_of_a_bare_job() -> None:
    got = gang_of(job(), priority=5, priority_class="p")
    assert (got.id, got.full_name, got.queue, got.submitted_ms) == ("u1", "ns/j", "q", NOON_MS)
    assert (got.gpus, got.members, got.priority, got.priority_class) == (16, 2, 5, "p")
    assert (got.start_deadline_ms, got.duration_ms, got.overrun) == (600_000, None, Overrun.STOP)
    assert (got.max_restarts, got.restart_on_failure, got.success_any, got.topology) == (3, True, False, None)
    assert got.preemptible
    assert got.service_class is ServiceClass.TRAINING


def test_every_field_arrives() -> None:
    role = {
        "name": "w",
        "replicas": 4,
        "template": {},
        "devices": {"count": 1, "model": "H100", "memory": "80Gi"},
        "minReplicas": 4,
        "maxReplicas": 4,
    }
    got = gang_of(
        job(
            roles=[role],
            suspend=True,
            topology={"within": "rack", "mode": "preferred"},
            duration="1h30m",
            overrun="requeue",
            startDeadline="90s",
            successPolicy={"operator": "Any", "roles": ["w"]},
            failurePolicy={"maxRestarts": 0, "onMemberFailure": "fail"},
            preemption={"policy": "Never"},
            serviceClass="batch",
        )
    )
    assert got.topology == TopologyRequest(within="rack", required=False)
    assert (got.duration_ms, got.overrun, got.start_deadline_ms) == (5_400_000, Overrun.REQUEUE, 90_000)
    assert (got.success_any, got.success_roles, got.max_restarts, got.restart_on_failure) == (True, ("w",), 0, False)
    assert (got.preemptible, got.suspended) == (False, True)
    assert (got.roles[0].gpu_model, got.roles[0].gpu_memory_bytes) == ("H100", 80 << 30)


def test_serving_is_not_preempted_unless_it_says_so() -> None:
    assert not gang_of(job(serviceClass="serving")).preemptible
    assert gang_of(job(serviceClass="serving", preemption={"policy": "Allowed"})).preemptible


def one_role(**more: Any) -> list[dict[str, Any]]:
    return [{"name": "w", "replicas": 2, "template": {}, **more}]


@pytest.mark.parametrize(
    ("spec", "reason", "field"),
    [
        ({"checkpoint": {"pause": "soon"}}, Reason.INVALID_SPEC, "spec.checkpoint.pause"),
        ({"checkpoint": {"interval": "0s"}}, Reason.INVALID_SPEC, "spec.checkpoint.interval"),
        ({"checkpoint": {"interval": "3650d"}}, Reason.INVALID_SPEC, "spec.checkpoint.interval"),
        ({"checkpoint": {"interval": "1m", "pause": "2m"}}, Reason.INVALID_SPEC, "spec.checkpoint.interval"),
        ({"checkpoint": {"restart": "3650d"}}, Reason.INVALID_SPEC, "spec.checkpoint.restart"),
        ({"checkpoint": {"notify": "file", "grace": "3650d"}}, Reason.INVALID_SPEC, "spec.checkpoint.grace"),
        (
            {"checkpoint": {"notify": "file", "grace": "1m", "pause": "2m"}},
            Reason.INVALID_SPEC,
            "spec.checkpoint.grace",
        ),
        ({"checkpoint": {"grace": "1m"}}, Reason.INVALID_SPEC, "spec.checkpoint.grace"),
        ({"checkpoint": {"notify": "command"}}, Reason.INVALID_SPEC, "spec.checkpoint.command"),
        ({"checkpoint": {"notify": "file", "signal": "SIGINT"}}, Reason.INVALID_SPEC, "spec.checkpoint.signal"),
        ({"checkpoint": {"signal": "SIGKILL"}}, Reason.INVALID_SPEC, "spec.checkpoint.signal"),
        ({"checkpoint": {"size": "much"}}, Reason.INVALID_SPEC, "spec.checkpoint.size"),
        ({"heartbeat": {"timeout": "1s"}}, Reason.INVALID_SPEC, "spec.heartbeat.timeout"),
        ({"heartbeat": {"timeout": "3650d"}}, Reason.INVALID_SPEC, "spec.heartbeat.timeout"),
        ({"retryPolicy": {"hung": 1}}, Reason.INVALID_SPEC, "spec.retryPolicy.hung"),
        ({"retryPolicy": {"backoff": "1h", "backoffMax": "1m"}}, Reason.INVALID_SPEC, "spec.retryPolicy.backoffMax"),
        ({"deadline": "x"}, Reason.INVALID_SPEC, "spec.deadline"),
        ({"deadline": "2030-01-01T00:00:00"}, Reason.INVALID_SPEC, "spec.deadline"),
        ({"ttl": "3650d"}, Reason.INVALID_SPEC, "spec.ttl"),
        ({"ttl": "soon"}, Reason.INVALID_SPEC, "spec.ttl"),
        (
            {"roles": one_role(devices={"share": {"compute": "25%"}})},
            Reason.UNSUPPORTED_FIELD,
            "spec.roles[w].devices.share in a Pool of mode dra",
        ),
        ({"roles": one_role(maxReplicas=4)}, Reason.UNSUPPORTED_FIELD, "spec.roles[w].maxReplicas other than replicas"),
        ({"topology": {"mode": "preferred"}}, Reason.INVALID_SPEC, "spec.topology"),
        ({"roles": one_role(topology={"mode": "preferred"})}, Reason.INVALID_SPEC, "spec.roles[w].topology"),
        (
            {"roles": one_role(topology={"within": "rack", "spread": "node"})},
            Reason.INVALID_SPEC,
            "spec.roles[w].topology.spread",
        ),
        (
            {"roles": one_role(topology={"within": "rack", "mode": "x"})},
            Reason.INVALID_SPEC,
            "spec.roles[w].topology.mode",
        ),
        ({"isolation": "total"}, Reason.INVALID_SPEC, "spec.isolation"),
        ({"roles": one_role(needs={"watts": "1"})}, Reason.INVALID_SPEC, "spec.roles[w].needs"),
        ({"roles": one_role(needs={"nvidia.com/gpu": "1"})}, Reason.INVALID_SPEC, "spec.roles[w].needs"),
        ({"roles": one_role(needs={"x.y/z": "-1"})}, Reason.INVALID_SPEC, "spec.roles[w].needs[x.y/z]"),
        ({"roles": one_role(needs={"x.y/z": "much"})}, Reason.INVALID_SPEC, "spec.roles[w].needs[x.y/z]"),
        ({"roles": []}, Reason.INVALID_SPEC, "spec.roles"),
        ({"roles": one_role(replicas=10_000)}, Reason.INVALID_SPEC, "spec.roles[].replicas"),
        ({"roles": one_role(replicas=0)}, Reason.INVALID_SPEC, "spec.roles[w].replicas"),
        ({"roles": one_role(devices={"count": 33})}, Reason.INVALID_SPEC, "spec.roles[w].devices.count"),
        ({"roles": one_role(devices={"model": "H100"})}, Reason.INVALID_SPEC, "spec.roles[w].devices"),
        (
            {"roles": one_role(devices={"count": 1, "memory": "lots"})},
            Reason.INVALID_SPEC,
            "spec.roles[w].devices.memory",
        ),
        ({"roles": one_role() + one_role()}, Reason.INVALID_SPEC, "spec.roles"),
        ({"serviceClass": "vip"}, Reason.INVALID_SPEC, "spec.serviceClass"),
        ({"duration": "soon"}, Reason.INVALID_SPEC, "spec.duration"),
        ({"startDeadline": "0s"}, Reason.INVALID_SPEC, "spec.startDeadline"),
        ({"overrun": "explode"}, Reason.INVALID_SPEC, "spec.overrun"),
        ({"topology": {"within": "rack", "mode": "maybe"}}, Reason.INVALID_SPEC, "spec.topology.mode"),
        ({"successPolicy": {"roles": ["x"]}}, Reason.INVALID_SPEC, "spec.successPolicy.roles"),
    ],
)
def test_a_spec_that_cannot_be_honoured_names_field_and_mend(spec: dict[str, Any], reason: Reason, field: str) -> None:
    refusal = spec_refusal(job(**spec))
    assert refusal is not None
    assert refusal.reason is reason
    details = dict(refusal.details)
    assert details["field"] == field
    assert str(details["mend"])
    assert refusal.message.startswith(field)
    assert decode_gang(job(**spec), {}) == refusal


def test_a_template_problem_is_named_with_its_role() -> None:
    refusal = template_refusal("w", [("spec.nodeName", "remove it")])
    assert refusal is not None
    assert refusal.message == "spec.roles[w].template.spec.nodeName is not supported by this version; remove it"
    assert template_refusal("w", []) is None


def test_priorities() -> None:
    def known(name: str, value: int, default: bool = False) -> PriorityClass:
        found = decoded({"metadata": {"name": name}, "value": value, "globalDefault": default}, PriorityClass)
        assert isinstance(found, PriorityClass)
        return found

    classes = [known("high", 1_000), known("usual", 10, True), known("other", 20, True)]
    assert priority_of(job(priorityClassName="high"), classes) == (1_000, "high")
    assert priority_of(job(), classes) == (10, "usual")
    assert priority_of(job(), classes[:1]) == (0, "")
    missing = priority_of(job(priorityClassName="nope"), classes)
    assert isinstance(missing, Refusal)
    assert missing.reason is Reason.UNKNOWN_PRIORITY_CLASS


def test_needs_are_added_to_what_the_returned_pod_requests() -> None:
    shape = PodShape(requests=Resources(cpu_milli=500, pods=1, extended=(("example.com/fpga", 1),)))
    found = job(roles=[{"name": "w", "replicas": 1, "template": {}, "needs": {"example.com/rack-watts": "1200"}}])
    got = decode_gang(found, {"w": shape})
    assert isinstance(got, Gang)
    asked = got.roles[0].pod.requests
    assert (asked.cpu_milli, asked.pods) == (500, 1)
    assert asked.extended == (("example.com/fpga", 1), ("example.com/rack-watts", 1_200))
    assert sheet_of(found).needs == {"w": {"example.com/rack-watts": "1200"}}


def slice_of(
    name: str, devices: list[dict[str, Any]], *, generation: int = 1, count: int = 1, pool: str = "n1"
) -> Slice:
    spec = {
        "driver": "gpu.nvidia.com",
        "nodeName": "n1",
        "pool": {"name": pool, "generation": generation, "resourceSliceCount": count},
        "devices": devices,
    }
    found = decoded({"metadata": {"name": name, "uid": name}, "spec": spec}, Slice)
    assert isinstance(found, Slice)
    return found


def gpu(index: int, **more: Any) -> dict[str, Any]:
    attributes = {
        "type": {"string": "gpu"},
        "uuid": {"string": f"GPU-{index}"},
        "productName": {"string": "NVIDIA H100"},
        "resource.kubernetes.io/pciBusID": {"string": f"0000:{index:02x}:00.0"},
    }
    return {"name": f"gpu-{index}", "attributes": attributes, "capacity": {"memory": {"value": "80Gi"}}, **more}


def names(slices: list[Slice]) -> dict[str, bool]:
    return {device.name: device.tainted for device in slice_devices(slices, "gpu.nvidia.com")[1]}


def test_only_the_newest_generation_counts() -> None:
    old, new = slice_of("a", [gpu(0), gpu(1)]), slice_of("b", [gpu(1)], generation=2)
    assert names([old, new]) == {"gpu-1": False}


def test_devices_of_an_incomplete_pool_stay_known_but_get_nothing_new() -> None:
    old, new = slice_of("a", [gpu(0), gpu(1)]), slice_of("b", [gpu(1)], generation=2, count=2)
    assert names([old, new]) == {"gpu-0": True, "gpu-1": True}
    counters = slice_of("c", [], generation=2, count=2)
    assert names([old, new, counters]) == {"gpu-1": False}


def test_a_device_named_twice_spoils_its_pool() -> None:
    assert names([slice_of("a", [gpu(0), gpu(0)])]) == {"gpu-0": True}


def test_attributes_in_either_domain_taints_and_parts_of_gpus() -> None:
    attributes = {"gpu.nvidia.com/uuid": {"string": "GPU-x"}, "pciBusID": {"string": "0000:65:00.0"}}
    own = {"name": "gpu-7", "attributes": attributes, "capacity": {"gpu.nvidia.com/memory": {"value": "40Gi"}}}
    mig = {"name": "gpu-0-mig-1", "attributes": {"type": {"string": "mig"}}}
    sick = gpu(1, taints=[{"key": "gpu.nvidia.com/xid", "value": "79", "effect": "NoSchedule"}])
    warned = gpu(2, taints=[{"key": "k", "effect": "None"}])
    pool, devices, conflicts = slice_devices([slice_of("a", [own, mig, sick, warned])], "gpu.nvidia.com")
    assert (pool, conflicts) == ("n1", ())
    by_name = {device.name: device for device in devices}
    assert set(by_name) == {"gpu-7", "gpu-1", "gpu-2", "gpu-0"}
    assert (by_name["gpu-0"].whole, [part.device for part in by_name["gpu-0"].parts]) == (False, ["gpu-0-mig-1"])
    assert (by_name["gpu-7"].uuid, by_name["gpu-7"].pci, by_name["gpu-7"].memory_bytes) == (
        "GPU-x",
        "0000:65:00.0",
        40 << 30,
    )
    assert (by_name["gpu-1"].tainted, by_name["gpu-1"].taint) == (True, "gpu.nvidia.com/xid=79:NoSchedule")
    assert not by_name["gpu-2"].tainted
    assert slice_devices([slice_of("a", [gpu(0)])], "other") == ("", (), ())


def node_object(labels: dict[str, str] | None = None, **status: Any) -> NodeObject:
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": NOON, "lastHeartbeatTime": NOON}
    whole = {
        "allocatable": {"cpu": "96", "memory": "1Ti", "pods": "110", "x.io/y": "3"},
        "conditions": [ready],
        **status,
    }
    meta = {"name": "n1", "uid": "n", "labels": labels or {}, "creationTimestamp": NOON}
    taints = [{"key": "fairlead.dev/pool", "value": "p", "effect": "NoSchedule"}]
    found = decoded({"metadata": meta, "spec": {"taints": taints}, "status": whole}, NodeObject)
    assert isinstance(found, NodeObject)
    return found


TOPOLOGY = {
    "metadata": {"name": "n1"},
    "spec": {
        "source": "nvml",
        "clique": "c.1",
        "gpus": [
            {"id": f"GPU{i}", "index": i, "uuid": f"GPU-{i}", "pci": f"0000:{i:02x}:00.0", "numa": i} for i in range(2)
        ],
        "nics": [{"id": "NIC0", "bytesPerSecond": 50, "rail": 2}],
        "numaNodes": [{"id": 0, "cpus": "0-47", "memoryBytes": 7, "distances": [10, 21]}],
        "links": [{"a": "GPU0", "b": "GPU1", "class": "NV18", "bytesPerSecond": 450}],
    },
}


def test_a_node_is_joined_from_all_that_is_known() -> None:
    labels = {"topology.kubernetes.io/rack": "r2", "fairlead.dev/rack": "r1", "pool": "h100"}
    pools = [
        Pool(name="z", node_selector=(("pool", "h100"),)),
        Pool(name="a", node_selector=(("pool", "h100"),)),
        Pool(name="no", node_selector=(("pool", "other"),)),
    ]
    topology = decoded(TOPOLOGY, NodeTopology)
    got = decode_node(
        node_object(labels),
        topology=topology,
        slices=[slice_of("a", [gpu(0), gpu(1)])],
        pools=pools,
        level_labels=LEVELS,
    )
    assert (got.pool, got.device_pool, got.levels) == ("a", "n1", (("rack", "r1"),))
    assert [g.device for g in got.machine.gpus] == ["gpu-0", "gpu-1"]
    assert [(x.path, x.bytes_per_s) for x in got.machine.links] == [("NV18", 450)]
    assert (got.machine.clique, got.machine.nics[0].rail, got.machine.numa_nodes[0].distances) == ("c.1", 2, (10, 21))
    assert got.machine.gpus[0].memory_bytes == 80 << 30
    assert (got.allocatable.cpu_milli, got.allocatable.pods, got.allocatable.extended) == (
        96_000,
        110,
        (("x.io/y", 3),),
    )
    assert got.taints == (Taint(key="fairlead.dev/pool", value="p"),)
    assert got.ready
    assert len([c for c in got.conflicts if "pools a, z" in c]) == 1


def test_a_heartbeat_changes_nothing() -> None:
    later = {"type": "Ready", "status": "True", "lastTransitionTime": NOON, "lastHeartbeatTime": "2026-03-01T12:05:00Z"}
    same = {"topology": None, "slices": (), "pools": (), "level_labels": LEVELS}
    assert decode_node(node_object(), **same) == decode_node(node_object(conditions=[later]), **same)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "heartbeat", "since"),
    [
        ("True", NOON, None),
        ("Unknown", "2026-03-01T11:59:20Z", NOON_MS - 40_000),  # silent since its last heartbeat
        ("Unknown", "2026-03-01T09:00:00Z", NOON_MS - 60_000),  # too old to be the last sign of life
        ("False", "2026-03-01T12:03:00Z", NOON_MS),  # it still speaks, and says no
        ("False", None, NOON_MS),
    ],
)
def test_since_when_a_node_is_not_ready(status: str, heartbeat: str | None, since: int | None) -> None:
    ready = Condition(type="Ready", status=status, last_transition_time=NOON, last_heartbeat_time=heartbeat)
    assert not_ready_since_ms([Condition(type="DiskPressure", status="True"), ready], 5) == since
    assert not_ready_since_ms([], 5) == 5


def test_out_of_service_is_seen() -> None:
    assert not is_out_of_service(node_object())
    raw = {
        "metadata": {"name": "n"},
        "spec": {"taints": [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]},
    }
    assert is_out_of_service(decoded(raw, NodeObject))


def test_times() -> None:
    assert time_ms(NOON) == NOON_MS
    assert time_ms("2026-03-01T13:00:00.250000+01:00") == NOON_MS + 250
    assert time_ms(None) == 0
    with pytest.raises(UnreadableInput, match="yesterday"):
        time_ms("yesterday")


def test_templates_that_would_burst_the_object_are_refused_by_size() -> None:
    def with_text(kib: int) -> GangJob:
        role = {"name": "w", "replicas": 2, "template": {"spec": {"x": "y" * 1024 * kib}}}
        return job(roles=[role, {**role, "name": "v"}])

    assert spec_refusal(with_text(250)) is None
    refusal = spec_refusal(with_text(260))
    assert refusal is not None
    assert "spec.roles[].template: is 520 KiB long; keep all together under 512 KiB" in refusal.message
