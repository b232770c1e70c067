"""Kubernetes objects as the operator reads them: only the fields it uses, decoded straight from the server's bytes.

Everything listed or watched goes through these structs; nothing here is ever written back whole, because what we do not
decode would be lost. Claims and slices are in `device_objects`, our own kinds in `custom_objects`. Times stay RFC 3339
text until `time_ms` reads one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from fairlead.errors import UnreadableInput


class Record(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True, kw_only=True, gc=False):
    """Base of all structs here: camelCase outside, unknown fields skipped, never part of a cycle."""


class OwnerReference(Record, frozen=True, kw_only=True):
    """Who an object goes with when it is deleted."""

    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


class Meta(Record, frozen=True, kw_only=True):
    """The metadata that all objects share."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: list[OwnerReference] = []
    finalizers: list[str] = []


class HasMeta(Protocol):
    """Any object with metadata."""

    @property
    def metadata(self) -> Meta:
        """The object's metadata."""
        ...


class ListMeta(Record, frozen=True, kw_only=True):
    """Where a list stands: the version to watch from, and the token of the next page."""

    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class Expression(Record, frozen=True, kw_only=True):
    """One requirement of a node or label selector."""

    key: str = ""
    operator: str = ""
    values: list[str] = []


class LabelSelector(Record, frozen=True, kw_only=True):
    """A label selector; both parts must match. Present but empty, it matches everything."""

    match_labels: dict[str, str] = {}
    match_expressions: list[Expression] = []


class NodeSelectorTerm(Record, frozen=True, kw_only=True):
    """One term of a node selector; terms are ORed."""

    match_expressions: list[Expression] = []
    match_fields: list[Expression] = []


class NodeSelector(Record, frozen=True, kw_only=True):
    """Node selector terms, of which one must match."""

    node_selector_terms: list[NodeSelectorTerm] = []


class NodeAffinity(Record, frozen=True, kw_only=True):
    """Node affinity: only the required half decides where a pod may run."""

    required: NodeSelector | None = msgspec.field(default=None, name="requiredDuringSchedulingIgnoredDuringExecution")


class PodAffinity(Record, frozen=True, kw_only=True):
    """Pod affinity or anti-affinity; decoded only to see whether anything is required."""

    required: list[msgspec.Raw] = msgspec.field(default=[], name="requiredDuringSchedulingIgnoredDuringExecution")


class Affinity(Record, frozen=True, kw_only=True):
    """A pod's three kinds of affinity."""

    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None


class TolerationSpec(Record, frozen=True, kw_only=True):
    """A pod's toleration as written."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


class Named(Record, frozen=True, kw_only=True):
    """An entry of which only the name matters."""

    name: str = ""


class ContainerResources(Record, frozen=True, kw_only=True):
    """Requests and limits as quantities in text."""

    requests: dict[str, str | int] = {}
    limits: dict[str, str | int] = {}
    claims: list[Named] = []


class ContainerPort(Record, frozen=True, kw_only=True):
    """A port of a container; `host_port` 0 takes none of the node's."""

    host_port: int = 0
    host_ip: str = msgspec.field(default="", name="hostIP")
    protocol: str = "TCP"


class Container(Record, frozen=True, kw_only=True):
    """What a container takes of its node. `restart_policy` Always marks a sidecar among init containers."""

    name: str = ""
    resources: ContainerResources = ContainerResources()
    ports: list[ContainerPort] = []
    restart_policy: str = ""


class ClaimSource(Record, frozen=True, kw_only=True):
    """The PersistentVolumeClaim of a volume."""

    claim_name: str = ""


class Volume(Record, frozen=True, kw_only=True):
    """A pod's volume, by the sources that decide where the pod may run."""

    name: str = ""
    persistent_volume_claim: ClaimSource | None = None
    ephemeral: Any = None
    gce_persistent_disk: Any = None
    aws_elastic_block_store: Any = None
    iscsi: Any = None
    rbd: Any = None


class SpreadConstraint(Record, frozen=True, kw_only=True):
    """A topology spread constraint; DoNotSchedule makes it a filter."""

    when_unsatisfiable: str = ""


class PodSpec(Record, frozen=True, kw_only=True):
    """What of a pod's spec decides where it may run."""

    node_name: str = ""
    scheduler_name: str = ""
    host_network: bool = False
    node_selector: dict[str, str] = {}
    affinity: Affinity | None = None
    tolerations: list[TolerationSpec] = []
    containers: list[Container] = []
    init_containers: list[Container] = []
    ephemeral_containers: list[Named] = []
    overhead: dict[str, str | int] = {}
    resources: ContainerResources | None = None
    priority: int | None = None
    priority_class_name: str = ""
    scheduling_gates: list[Named] = []
    topology_spread_constraints: list[SpreadConstraint] = []
    resource_claims: list[Named] = []
    volumes: list[Volume] = []
    scheduling_group: Any = None
    workload_ref: Any = None


class Terminated(Record, frozen=True, kw_only=True):
    """How a container ended."""

    exit_code: int = 0
    reason: str = ""
    message: str = ""
    finished_at: str | None = None


class RunningState(Record, frozen=True, kw_only=True):
    """Since when a container runs."""

    started_at: str | None = None


class ContainerState(Record, frozen=True, kw_only=True):
    """A container's state: running, ended, or neither yet."""

    running: RunningState | None = None
    terminated: Terminated | None = None


class ContainerStatus(Record, frozen=True, kw_only=True):
    """What the kubelet says of one container."""

    name: str = ""
    state: ContainerState = ContainerState()
    allocated_resources: dict[str, str | int] = {}


class Condition(Record, frozen=True, kw_only=True):
    """A condition; `last_heartbeat_time` is kept by kubelets only."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None
    last_heartbeat_time: str | None = None
    observed_generation: int = 0


class PodStatus(Record, frozen=True, kw_only=True):
    """How a pod fares."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    start_time: str | None = None
    conditions: list[Condition] = []
    container_statuses: list[ContainerStatus] = []


class Pod(Record, frozen=True, kw_only=True):
    """A pod."""

    metadata: Meta = Meta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class TaintSpec(Record, frozen=True, kw_only=True):
    """A taint of a node or device."""

    key: str = ""
    value: str = ""
    effect: str = ""


class NodeSpec(Record, frozen=True, kw_only=True):
    """What an administrator or controller set on a node."""

    unschedulable: bool = False
    taints: list[TaintSpec] = []


class NodeStatus(Record, frozen=True, kw_only=True):
    """What a kubelet says of its node."""

    allocatable: dict[str, str | int] = {}
    conditions: list[Condition] = []


class NodeObject(Record, frozen=True, kw_only=True):
    """A node (`fairlead.model.hardware.Node` is what becomes of it)."""

    metadata: Meta = Meta()
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class Plain(Record, frozen=True, kw_only=True):
    """An object of which only metadata matters: Namespace, DeviceClass, Service."""

    metadata: Meta = Meta()


class ConfigMap(Record, frozen=True, kw_only=True):
    """A ConfigMap."""

    metadata: Meta = Meta()
    data: dict[str, str] = {}


class PriorityClass(Record, frozen=True, kw_only=True):
    """Kubernetes' own PriorityClass."""

    metadata: Meta = Meta()
    value: int = 0
    global_default: bool = False
    preemption_policy: str = "PreemptLowerPriority"


Item = TypeVar("Item", bound=HasMeta)


@dataclass(frozen=True)
class Resource(Generic[Item]):
    """How one kind is reached: ``/api/v1``, ``pods``, and the struct it decodes to."""

    kind: str
    api: str
    plural: str
    struct: type[Item]
    namespaced: bool = True

    def path(self, namespace: str = "", name: str = "", sub: str = "") -> str:
        """Return the URL path of the collection, of one object, or of its subresource `sub`."""
        parts = [self.api]
        if namespace and self.namespaced:
            parts.append(f"namespaces/{namespace}")
        return "/".join([*parts, self.plural, *(part for part in (name, sub) if part)])


PODS = Resource("Pod", "/api/v1", "pods", Pod)
NODES = Resource("Node", "/api/v1", "nodes", NodeObject, namespaced=False)
NAMESPACES = Resource("Namespace", "/api/v1", "namespaces", Plain, namespaced=False)
SERVICES = Resource("Service", "/api/v1", "services", Plain)
CONFIG_MAPS = Resource("ConfigMap", "/api/v1", "configmaps", ConfigMap)
PRIORITY_CLASSES = Resource(
    "PriorityClass", "/apis/scheduling.k8s.io/v1", "priorityclasses", PriorityClass, namespaced=False
)


def time_ms(text: str | None, *, field: str = "timestamp") -> int:
    """Return an RFC 3339 time as UTC ms since 1970; 0 for None or an empty text.

    Raises
    ------
    UnreadableInput
        The text is no time; the message names `field`.
    """
    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UnreadableInput(f"{field}: {text!r} is not a time; write for example 2026-01-31T12:00:00Z") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return delta.days * 86_400_000 + delta.seconds * 1_000 + delta.microseconds // 1_000


def as_json(value: Any) -> bytes:
    """Encode a struct, dict or list for a request body."""
    return value if isinstance(value, bytes) else msgspec.json.encode(value)
