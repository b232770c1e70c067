"""Requests and rules of a pod, counted as Kubernetes' own scheduler counts them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from fairlead.model.gang import Requirement, Toleration
from fairlead.model.hardware import Resources
from fairlead_operator.custom_objects import PersistentVolume, StorageClass, VolumeClaim
from fairlead_operator.objects import Pod
from fairlead_operator.pod_shape import pod_requests, pod_shape, unsupported
from fairlead_operator.pod_volumes import volume_needs

GI = 1 << 30


def pod(**spec: Any) -> Pod:
    return msgspec.json.decode(json.dumps({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec}), type=Pod)


def box(name: str = "c", restart: str = "", **requests: str) -> dict[str, Any]:
    named = {key.replace("_", "-"): value for key, value in requests.items()}
    found: dict[str, Any] = {"name": name, "resources": {"requests": named}}
    return {**found, "restartPolicy": restart} if restart else found


def test_containers_are_summed_and_the_pod_itself_counts() -> None:
    got = pod_requests(pod(containers=[box("a", cpu="500m", memory="1Gi"), box("b", cpu="2", ephemeral_storage="3")]))
    assert got == Resources(cpu_milli=2_500, memory_bytes=GI, ephemeral_bytes=3, pods=1)


def test_a_large_init_container_counts_instead_of_the_sum() -> None:
    got = pod_requests(pod(containers=[box(cpu="1", memory="4Gi")], initContainers=[box("i", cpu="3", memory="1Gi")]))
    assert (got.cpu_milli, got.memory_bytes) == (3_000, 4 * GI)


def test_sidecars_count_beside_containers_and_beside_later_init_containers_only() -> None:
    init = [box("first", cpu="5"), box("side", "Always", cpu="2"), box("later", cpu="4")]
    assert pod_requests(pod(containers=[box(cpu="1")], initContainers=init)).cpu_milli == 6_000  # 2 + 4 > 5, > 1 + 2
    init = [box("first", cpu="7"), box("side", "Always", cpu="2")]
    assert pod_requests(pod(containers=[box(cpu="1")], initContainers=init)).cpu_milli == 7_000
    assert pod_requests(pod(containers=[box(cpu="6")], initContainers=init)).cpu_milli == 8_000


def test_requests_of_the_whole_pod_replace_sums_and_overhead_comes_on_top() -> None:
    whole = {"requests": {"cpu": "8", "hugepages-2Mi": "4Mi", "example.com/x": "9"}}
    got = pod_requests(pod(containers=[box(cpu="1", memory="1Gi")], resources=whole, overhead={"cpu": "250m"}))
    assert got == Resources(cpu_milli=8_250, memory_bytes=GI, pods=1, extended=(("hugepages-2Mi", 4 << 20),))


def test_a_resized_container_counts_with_the_larger_amount() -> None:
    one = pod(containers=[box(cpu="1")])
    raw = msgspec.to_builtins(one) | {
        "status": {"containerStatuses": [{"name": "c", "allocatedResources": {"cpu": "3"}}]}
    }
    assert pod_requests(msgspec.convert(raw, Pod)).cpu_milli == 3_000


def test_extended_resources_are_sorted_and_numbers_may_be_bare() -> None:
    containers = [{"name": "c", "resources": {"requests": {"z.io/b": 2, "a.io/b": "1"}}}]
    assert pod_requests(pod(containers=containers)).extended == (("a.io/b", 1), ("z.io/b", 2))


def test_selector_affinity_tolerations_and_ports_are_decoded() -> None:
    terms = [
        {
            "matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}],
            "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}],
        },
        {},
    ]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    ports = [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]
    side = box("s", "Always") | {"ports": [{"hostPort": 53, "protocol": "UDP", "hostIP": "10.0.0.1"}]}
    got = pod_shape(
        pod(
            containers=[box() | {"ports": ports}],
            initContainers=[side, box("once") | {"ports": [{"hostPort": 99}]}],
            nodeSelector={"b": "2", "a": "1"},
            affinity={"nodeAffinity": required},
            tolerations=[{"key": "k", "operator": "Exists", "effect": "NoSchedule"}, {"key": "v", "value": "1"}],
        )
    )
    assert got.node_selector == (("a", "1"), ("b", "2"))
    assert got.affinity == (
        (
            Requirement(key="zone", operator="In", values=("a", "b")),
            Requirement(key="metadata.name", operator="In", values=("n1",)),
        ),
        (),  # an empty term matches nothing, and must not vanish
    )
    assert got.tolerations == (
        Toleration(key="k", operator="Exists", effect="NoSchedule"),
        Toleration(key="v", operator="Equal", value="1"),
    )
    assert got.host_ports == (("TCP", "0.0.0.0", 8080), ("UDP", "10.0.0.1", 53))


REQUIRED = {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "x"}]}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"affinity": {"podAffinity": REQUIRED}}, "spec.affinity.podAffinity.required"),
        ({"affinity": {"podAntiAffinity": REQUIRED}}, "spec.affinity.podAntiAffinity.required"),
        ({"topologySpreadConstraints": [{"whenUnsatisfiable": "DoNotSchedule"}]}, "spec.topologySpreadConstraints"),
        ({"nodeName": "n1"}, "spec.nodeName"),
        ({"schedulingGates": [{"name": "g"}]}, "spec.schedulingGates"),
        ({"resourceClaims": [{"name": "mine"}]}, "spec.resourceClaims"),
        ({"ephemeralContainers": [{"name": "dbg"}]}, "spec.ephemeralContainers"),
        ({"schedulingGroup": {"podGroupName": "g"}}, "spec.schedulingGroup"),
        ({"containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": 1}}}]}, "spec.containers[c]"),
        ({"initContainers": [{"name": "i", "resources": {"requests": {"nvidia.com/mig-1g.5gb": 1}}}]}, "spec.initC"),
        ({"volumes": [{"name": "v", "ephemeral": {}}]}, "spec.volumes[v].ephemeral"),
        ({"volumes": [{"name": "v", "awsElasticBlockStore": {}}]}, "spec.volumes[v].awsElasticBlockStore"),
    ],
)
def test_what_we_do_not_filter_is_named_with_a_mend(spec: dict[str, Any], field: str) -> None:
    problems = unsupported(pod(**spec), with_devices=True)
    assert len(problems) == 1
    assert problems[0][0].startswith(field)
    assert len(problems[0][1]) > 10


def test_what_is_only_a_wish_or_ours_is_not_refused() -> None:
    fine = pod(
        containers=[box(cpu="1")],
        affinity={"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{}]}},
        topologySpreadConstraints=[{"whenUnsatisfiable": "ScheduleAnyway"}],
        resourceClaims=[{"name": "gpus"}],
        hostNetwork=True,
    )
    assert unsupported(fine, with_devices=True) == []
    assert [field for field, _ in unsupported(fine, with_devices=False)] == ["spec.resourceClaims"]


def volume_pod(*names: str) -> Pod:
    return pod(volumes=[{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in names])


def test_volumes_say_where_a_pod_may_run() -> None:
    claims = {
        "bound": {"spec": {"volumeName": "pv1"}, "status": {"phase": "Bound"}},
        "late": {"spec": {"storageClassName": "wait"}, "status": {"phase": "Pending"}},
    }
    term = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
    volume = {
        "metadata": {"labels": {"topology.kubernetes.io/zone": "z1__z2"}},
        "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}},
    }
    allowed = [{"matchLabelExpressions": [{"key": "zone", "values": ["b", "c"]}]}]
    storage = {"volumeBindingMode": "WaitForFirstConsumer", "provisioner": "csi", "allowedTopologies": allowed}
    got = volume_needs(
        volume_pod("late", "bound"),
        {name: msgspec.convert(claim, VolumeClaim) for name, claim in claims.items()},
        {"pv1": msgspec.convert(volume, PersistentVolume)},
        {"wait": msgspec.convert(storage, StorageClass)},
    )
    assert got.problems == ()
    assert got.unbound == ("late",)
    assert got.affinity == (
        ((Requirement(key="zone", operator="In", values=("a",)),),),
        ((Requirement(key="topology.kubernetes.io/zone", operator="In", values=("z1", "z2")),),),
        ((Requirement(key="zone", operator="In", values=("b", "c")),),),
    )


@pytest.mark.parametrize(
    ("claim", "storage", "says"),
    [
        (None, None, "create that"),
        ({"spec": {"accessModes": ["ReadWriteOncePod"]}}, None, "access mode"),
        ({"status": {"phase": "Lost"}}, None, "lost"),
        ({"spec": {"volumeName": "nowhere"}, "status": {"phase": "Bound"}}, None, "nowhere does not exist"),
        ({"spec": {"storageClassName": "s"}}, {"volumeBindingMode": "Immediate"}, "wait until it is bound"),
        (
            {"spec": {"storageClassName": "s"}},
            {"volumeBindingMode": "WaitForFirstConsumer", "provisioner": "kubernetes.io/no-provisioner"},
            "by hand",
        ),
    ],
)
def test_a_volume_that_cannot_be_had_is_named(claim: Any, storage: Any, says: str) -> None:
    claims = {} if claim is None else {"v": msgspec.convert(claim, VolumeClaim)}
    classes = {} if storage is None else {"s": msgspec.convert(storage, StorageClass)}
    got = volume_needs(volume_pod("v"), claims, {}, classes)
    assert len(got.problems) == 1
    assert says in got.problems[0][1]
