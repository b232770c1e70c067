"""What a pod asks of its node, counted and matched as Kubernetes' own scheduler does. Pure.

Fairlead is the whole scheduler for its pods. So everything in a pod that would make kube-scheduler filter nodes is
either in the `PodShape`, or named by `unsupported` and refused at submission.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fairlead.model.gang import PodShape, Requirement, SelectorTerms, Toleration
from fairlead.model.hardware import Resources
from fairlead.units import quantity, quantity_milli
from fairlead_operator.objects import Container, Expression, NodeSelector, Pod, PodSpec
from fairlead_operator.pods import CLAIM_IN_POD

Quantities = Mapping[str, str | int]
Problem = tuple[str, str]
"""(field inside the template, what to do instead)."""

_ANY_ADDRESS = "0.0.0.0"
_POD_LEVEL = ("cpu", "memory")  # and hugepages-*: what a pod may request as a whole
_GPU_PREFIX = "nvidia.com/"
_DRA_PREFIX = "deviceclass.resource.kubernetes.io/"


def pod_shape(pod: Pod, volume_affinity: tuple[SelectorTerms, ...] = ()) -> PodShape:
    """Return what decides where `pod` may run; `volume_affinity` comes from `volume_needs`.

    Raises
    ------
    UnreadableInput
        A quantity cannot be read. The API server has already refused such a pod, so this is somebody's bug.
    """
    spec = pod.spec
    affinity = spec.affinity.node_affinity if spec.affinity else None
    return PodShape(
        requests=pod_requests(pod),
        node_selector=tuple(sorted(spec.node_selector.items())),
        affinity=selector_terms(affinity.required) if affinity and affinity.required else None,
        volume_affinity=volume_affinity,
        tolerations=tuple(
            Toleration(key=t.key, operator=t.operator or "Equal", value=t.value, effect=t.effect)
            for t in spec.tolerations
        ),
        host_ports=host_ports(spec),
    )


def selector_terms(selector: NodeSelector) -> SelectorTerms:
    """Return a node selector's terms; a matchFields requirement keeps its key ``metadata.name``."""
    return tuple(
        tuple(_requirement(e) for e in [*term.match_expressions, *term.match_fields])
        for term in selector.node_selector_terms
    )


def _requirement(expression: Expression) -> Requirement:
    """Convert one requirement."""
    return Requirement(key=expression.key, operator=expression.operator, values=tuple(expression.values))


def host_ports(spec: PodSpec) -> tuple[tuple[str, str, int], ...]:
    """Return the node's ports that a pod takes as (protocol, address, port), sorted."""
    ports = {
        (port.protocol or "TCP", port.host_ip or _ANY_ADDRESS, port.host_port)
        for container in [*spec.containers, *_sidecars(spec)]
        for port in container.ports
        if port.host_port
    }
    return tuple(sorted(ports))


def _sidecars(spec: PodSpec) -> list[Container]:
    """Return the init containers that go on running."""
    return [container for container in spec.init_containers if container.restart_policy == "Always"]


def pod_requests(pod: Pod) -> Resources:
    """Return what a pod takes of its node: the larger of its start and its run, overhead and itself included.

    Init containers run one by one beside the sidecars started before them; containers run beside all sidecars. Requests
    for the pod as a whole replace the sums they are given for. A container that was resized counts with the larger of
    what it asks for and what it was given.
    """
    spec = pod.spec
    given = {status.name: status.allocated_resources for status in pod.status.container_statuses}
    running: dict[str, int] = {}
    for container in spec.containers:
        asked = amounts(container.resources.requests, f"containers[{container.name}]")
        _add(running, _larger(asked, amounts(given.get(container.name, {}), "allocatedResources")))
    sidecars: dict[str, int] = {}
    starting: dict[str, int] = {}
    for container in spec.init_containers:
        asked = amounts(container.resources.requests, f"initContainers[{container.name}]")
        if container.restart_policy == "Always":
            _add(sidecars, asked)
            starting = _larger(starting, sidecars)
        else:
            beside = dict(sidecars)
            _add(beside, asked)
            starting = _larger(starting, beside)
    _add(running, sidecars)
    total = _larger(running, starting)
    if spec.resources is not None:
        whole = amounts(spec.resources.requests, "resources")
        total |= {name: value for name, value in whole.items() if _is_pod_level(name)}
    _add(total, amounts(spec.overhead, "overhead"))
    return as_resources(total, pods=1)


def _is_pod_level(name: str) -> bool:
    """Whether a resource may be requested for the pod as a whole."""
    return name in _POD_LEVEL or name.startswith("hugepages-")


def amounts(quantities: Quantities, field: str) -> dict[str, int]:
    """Read quantities: cpu in thousandths, everything else in whole units."""
    return {
        name: quantity_milli(str(text), field=f"{field}.{name}")
        if name == "cpu"
        else quantity(str(text), field=f"{field}.{name}")
        for name, text in quantities.items()
    }


def as_resources(found: Mapping[str, int], *, pods: int) -> Resources:
    """Sort amounts by resource name into `Resources`."""
    named = {"cpu", "memory", "ephemeral-storage", "pods"}
    return Resources(
        cpu_milli=found.get("cpu", 0),
        memory_bytes=found.get("memory", 0),
        ephemeral_bytes=found.get("ephemeral-storage", 0),
        pods=pods,
        extended=tuple(sorted((name, value) for name, value in found.items() if value and name not in named)),
    )


def allocatable(quantities: Quantities, node: str) -> Resources:
    """Return what a node offers."""
    found = amounts(quantities, f"node {node} status.allocatable")
    return as_resources(found, pods=found.get("pods", 0))


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    """Add amounts in place."""
    for name, value in more.items():
        total[name] = total.get(name, 0) + value


def _larger(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """Return the larger amount of each resource."""
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in {**one, **other}}


def unsupported(pod: Pod, *, with_devices: bool) -> list[Problem]:
    """Return the fields of a template's pod that we cannot honour, each with its mend; [] when there are none.

    `pod` is what the dry run returned; `with_devices` says that it carries our own claim.
    """
    spec = pod.spec
    return [*_unsupported_rules(spec), *_unsupported_claims(spec, with_devices), *_unsupported_volumes(spec)]


def _unsupported_rules(spec: PodSpec) -> Iterable[Problem]:
    """Fields that kube-scheduler would filter nodes by, or that belong to another scheduler."""
    affinity = spec.affinity
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    if affinity and affinity.pod_affinity and affinity.pod_affinity.required:
        yield f"spec.affinity.podAffinity.{required}", "use spec.topology.within to keep the members together"
    if affinity and affinity.pod_anti_affinity and affinity.pod_anti_affinity.required:
        yield (
            f"spec.affinity.podAntiAffinity.{required}",
            "use the preferred form, or host ports or requests that only one pod per node can have",
        )
    if any(c.when_unsatisfiable == "DoNotSchedule" for c in spec.topology_spread_constraints):
        yield (
            "spec.topologySpreadConstraints[].whenUnsatisfiable DoNotSchedule",
            "use ScheduleAnyway, or spread with several GangJobs that each have a nodeSelector",
        )
    if spec.node_name:
        yield "spec.nodeName", "remove it and use nodeSelector {kubernetes.io/hostname: <node>}"
    if spec.scheduling_gates:
        yield "spec.schedulingGates", "remove them and use spec.suspend of the GangJob"
    if spec.ephemeral_containers:
        yield "spec.ephemeralContainers", "remove them; add them with kubectl debug once the pod runs"
    if spec.scheduling_group is not None:
        yield "spec.schedulingGroup", "remove it; a GangJob's members are a gang without it"
    if spec.workload_ref is not None:
        yield "spec.workloadRef", "remove it; a GangJob's members are a gang without it"


def _unsupported_claims(spec: PodSpec, with_devices: bool) -> Iterable[Problem]:
    """Devices asked for past `roles[].devices`."""
    ours = [entry for entry in spec.resource_claims if entry.name == CLAIM_IN_POD]
    if len(ours) > int(with_devices) or len(spec.resource_claims) > len(ours):
        yield "spec.resourceClaims", "remove them and ask for GPUs with spec.roles[].devices"
    for group, containers in (("containers", spec.containers), ("initContainers", spec.init_containers)):
        for container in containers:
            for name in sorted({**container.resources.requests, **container.resources.limits}):
                if name.startswith((_GPU_PREFIX, _DRA_PREFIX)):
                    where = f"spec.{group}[{container.name}].resources {name}"
                    yield where, "remove it and ask for GPUs with spec.roles[].devices.count"


def _unsupported_volumes(spec: PodSpec) -> Iterable[Problem]:
    """Volumes whose placement rules we do not know."""
    for volume in spec.volumes:
        kinds = {
            "ephemeral": volume.ephemeral,
            "gcePersistentDisk": volume.gce_persistent_disk,
            "awsElasticBlockStore": volume.aws_elastic_block_store,
            "iscsi": volume.iscsi,
            "rbd": volume.rbd,
        }
        for kind, source in kinds.items():
            if source is not None:
                yield f"spec.volumes[{volume.name}].{kind}", "use a persistentVolumeClaim"
