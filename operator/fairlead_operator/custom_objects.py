"""Our own kinds (`fairlead.dev/v1alpha1`) and the lesser Kubernetes kinds that accepting and electing need.

As in `objects`, only fields that the operator uses; the pod template of a GangJob stays raw and is judged by the API
server's dry run.
"""

# ruff: noqa: RUF012  # msgspec makes a new list or dict of an empty default
from __future__ import annotations

from typing import Any

import msgspec

from fairlead_operator.gangjob_status import AllocatedNode as AllocatedNode
from fairlead_operator.gangjob_status import Allocation as Allocation
from fairlead_operator.gangjob_status import GangJobStatus as GangJobStatus
from fairlead_operator.gangjob_status import NominationStatus as NominationStatus
from fairlead_operator.gangjob_status import NoticeStatus as NoticeStatus
from fairlead_operator.gangjob_status import StartEstimate as StartEstimate
from fairlead_operator.gangjob_status import UsageStatus as UsageStatus
from fairlead_operator.objects import (
    Condition,
    LabelSelector,
    Meta,
    NodeSelector,
    Plain,
    Record,
    Resource,
)
from fairlead_operator.pool_objects import PoolSpec as PoolSpec
from fairlead_operator.pool_objects import WindowSpec
from fairlead_operator.saving_spec import CheckpointSpec, HeartbeatSpec, RetryPolicy
from fairlead_operator.topology_objects import NodeTopology as NodeTopology

API = "/apis/fairlead.dev/v1alpha1"


class ShareSpec(Record, frozen=True, kw_only=True):
    """A part of one GPU: of its compute (``25%``) and of its memory (a quantity, "" not asked for)."""

    compute: str = ""
    memory: str = ""
    mode: str = "time-slice"


class DeviceRequest(Record, frozen=True, kw_only=True):
    """What each member of a role gets: whole GPUs, or one MIG instance, or one share of a GPU."""

    count: int = 0
    model: str = ""
    memory: str = ""
    mig: str = ""
    share: ShareSpec | None = None

    @property
    def claimed(self) -> int:
        """Devices in the claim of one member; 0 where it has no claim."""
        return self.count or int(bool(self.mig))


class SliceOfMembers(Record, frozen=True, kw_only=True):
    """Every `size` members, in rank order, lie in one domain of level `within`."""

    within: str = ""
    size: int = 0


class TopologySpec(Record, frozen=True, kw_only=True):
    """How close together the members must be, and over which level they are spread."""

    within: str = "cluster"
    mode: str = "required"
    slices: list[SliceOfMembers] = []
    spread: str = ""


class RoleSpec(Record, frozen=True, kw_only=True):
    """One kind of member of a gang."""

    name: str
    replicas: int
    template: msgspec.Raw
    min_replicas: int | None = None
    max_replicas: int | None = None
    devices: DeviceRequest = DeviceRequest()
    nic_per_gpu: bool = False
    topology: TopologySpec | None = None
    spread: str = ""
    needs: dict[str, str | int] = {}


class SuccessPolicy(Record, frozen=True, kw_only=True):
    """When the gang has succeeded."""

    operator: str = "All"
    roles: list[str] = []


class FailurePolicy(Record, frozen=True, kw_only=True):
    """What happens when a member fails."""

    max_restarts: int = 3
    on_member_failure: str = "restart"


class PreemptionSpec(Record, frozen=True, kw_only=True):
    """Whether the gang may be stopped for others; empty is the service class's default."""

    policy: str = ""


class GangJobSpec(Record, frozen=True, kw_only=True):
    """What a tenant asks for."""

    queue: str
    roles: list[RoleSpec]
    priority_class_name: str = ""
    service_class: str = "training"
    suspend: bool = False
    topology: TopologySpec | None = None
    duration: str = ""
    overrun: str = "stop"
    start_deadline: str = "10m"
    success_policy: SuccessPolicy = SuccessPolicy()
    failure_policy: FailurePolicy = FailurePolicy()
    preemption: PreemptionSpec = PreemptionSpec()
    checkpoint: CheckpointSpec | None = None
    retry_policy: RetryPolicy = RetryPolicy()
    heartbeat: HeartbeatSpec | None = None
    depends_on: Any = None
    deadline: str = ""
    isolation: str = "shared"
    promise: bool = False
    mixed_models: bool = False
    resize: str = "AtStart"
    ttl: str = ""


class GangJob(Record, frozen=True, kw_only=True):
    """A GangJob."""

    metadata: Meta
    spec: GangJobSpec
    status: GangJobStatus = GangJobStatus()


class QueueResource(Record, frozen=True, kw_only=True):
    """A queue's quota of one resource."""

    name: str = ""
    guaranteed: int = 0
    limit: int | None = None
    weight: int | None = None
    lend_limit: int | None = None
    borrow_limit: int | None = None
    need: int = 0


class NamespaceSet(Record, frozen=True, kw_only=True):
    """Namespaces by name or label; either is enough, absent means none."""

    names: list[str] = []
    selector: LabelSelector | None = None


class RateSpec(Record, frozen=True, kw_only=True):
    """How fast jobs may come; no burst means as many at once as in a minute."""

    per_minute: int = 1
    burst: int | None = None


class ClassCapSpec(Record, frozen=True, kw_only=True):
    """Most jobs of one service class that stand in line."""

    service_class: str = ""
    max_pending: int = 0


class NamedCapSpec(Record, frozen=True, kw_only=True):
    """What one user, or one group together, may have running."""

    name: str = ""
    max_jobs: int | None = None
    max_gpus: int | None = None


class BudgetSpec(Record, frozen=True, kw_only=True):
    """What a period may cost, and what is done about it (`fairlead.budget_words.BudgetWords`)."""

    gpu_hours: int = 0
    amount: str = ""
    currency: str = ""
    soft_percent: int = 80
    alert_percents: tuple[int, ...] = (50, 80, 100)
    period: str = "Month"
    time_zone: str = "UTC"
    month_starts_on: int = 1
    year_starts_in: int = 1
    enforcement: str = "Hard"
    on_exhausted: str = "finish"


class AcknowledgedSpec(Record, frozen=True, kw_only=True):
    """Who has looked at the costs of days up to one, and why they are well."""

    through: str = ""
    actor: str = ""
    reason: str = ""


class PeakSpec(Record, frozen=True, kw_only=True):
    """When which expensive jobs are not started."""

    service_classes: list[str] = []
    gpus_at_least: int = 0
    windows: list[WindowSpec] = []


class IdleSpec(Record, frozen=True, kw_only=True):
    """How long jobs may hold devices and not use them, and what then."""

    after: str = ""
    then: str = "notify"
    service_classes: list[str] = []


class PromiseSpec(Record, frozen=True, kw_only=True):
    """Latest starts that jobs of a queue may ask for."""

    jobs: int = 0
    notice: str = "1h"


class TakingSpec(Record, frozen=True, kw_only=True):
    """What keeps the jobs of a queue from being stopped for others too soon or too often."""

    min_run: str = ""
    per_job: int | None = None
    per_queue: int | None = None
    lost_work: str = ""


class QueueSpec(Record, frozen=True, kw_only=True):
    """What the platform team grants."""

    parent: str = ""
    resources: list[QueueResource] = []
    namespaces: NamespaceSet = NamespaceSet()
    priority_classes: list[str] | None = None
    service_classes: list[str] | None = None
    tenant_kind: str = ""
    max_jobs: int | None = None
    max_pending: int | None = None
    max_pending_by_class: list[ClassCapSpec] = []
    submit_rate: RateSpec | None = None
    on_overflow: str = "Defer"
    users: list[NamedCapSpec] = []
    groups: list[NamedCapSpec] = []
    fairness_policy: str = ""
    priority_scope: str = "queue"
    on_over_limit: str = "keep"
    non_preemptible: str = "any"
    shares: str = "own"
    budget: BudgetSpec | None = None
    peaks: list[PeakSpec] = []
    idle: IdleSpec | None = None
    on_cost_anomaly: str = "notify"
    cost_anomaly_acknowledged: AcknowledgedSpec | None = None
    promise: PromiseSpec = PromiseSpec()
    preemption: TakingSpec = TakingSpec()


class Conditions(Record, frozen=True, kw_only=True):
    """What of a status is read back: since when its conditions are as they are."""

    conditions: list[Condition] = []


class QueueObject(Record, frozen=True, kw_only=True):
    """A Queue (`fairlead.model.tenancy.Queue` is what becomes of it)."""

    metadata: Meta
    spec: QueueSpec = QueueSpec()
    status: Conditions = Conditions()


class PoolObject(Record, frozen=True, kw_only=True):
    """A Pool."""

    metadata: Meta
    spec: PoolSpec = PoolSpec()
    status: Conditions = Conditions()


class VolumeClaimSpec(Record, frozen=True, kw_only=True):
    """What of a PersistentVolumeClaim decides where its pod may run."""

    volume_name: str = ""
    storage_class_name: str | None = None
    access_modes: list[str] = []


class VolumeClaimStatus(Record, frozen=True, kw_only=True):
    """Pending, Bound or Lost."""

    phase: str = ""


class VolumeClaim(Record, frozen=True, kw_only=True):
    """A PersistentVolumeClaim."""

    metadata: Meta = Meta()
    spec: VolumeClaimSpec = VolumeClaimSpec()
    status: VolumeClaimStatus = VolumeClaimStatus()


class VolumeAffinity(Record, frozen=True, kw_only=True):
    """From which nodes a volume can be reached."""

    required: NodeSelector | None = None


class PersistentVolumeSpec(Record, frozen=True, kw_only=True):
    """What of a PersistentVolume decides where its pod may run."""

    node_affinity: VolumeAffinity | None = None


class PersistentVolume(Record, frozen=True, kw_only=True):
    """A PersistentVolume."""

    metadata: Meta = Meta()
    spec: PersistentVolumeSpec = PersistentVolumeSpec()


class TopologyExpression(Record, frozen=True, kw_only=True):
    """One requirement of a StorageClass's allowed topology."""

    key: str = ""
    values: list[str] = []


class AllowedTopology(Record, frozen=True, kw_only=True):
    """One allowed topology of a StorageClass; several are ORed."""

    match_label_expressions: list[TopologyExpression] = []


class StorageClass(Record, frozen=True, kw_only=True):
    """A StorageClass."""

    metadata: Meta = Meta()
    provisioner: str = ""
    volume_binding_mode: str = "Immediate"
    allowed_topologies: list[AllowedTopology] = []


class LeaseSpec(Record, frozen=True, kw_only=True):
    """Who leads, and until when if nothing more is heard."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class Lease(Record, frozen=True, kw_only=True):
    """A coordination Lease."""

    metadata: Meta = Meta()
    spec: LeaseSpec = LeaseSpec()


GANGJOBS = Resource("GangJob", API, "gangjobs", GangJob)
QUEUES = Resource("Queue", API, "queues", QueueObject, namespaced=False)
POOLS = Resource("Pool", API, "pools", PoolObject, namespaced=False)
NODE_TOPOLOGIES = Resource("NodeTopology", API, "nodetopologies", NodeTopology, namespaced=False)
QUEUE_VIEWS = Resource("QueueView", API, "queueviews", Plain)
VOLUME_CLAIMS = Resource("PersistentVolumeClaim", "/api/v1", "persistentvolumeclaims", VolumeClaim)
VOLUMES = Resource("PersistentVolume", "/api/v1", "persistentvolumes", PersistentVolume, namespaced=False)
STORAGE_CLASSES = Resource("StorageClass", "/apis/storage.k8s.io/v1", "storageclasses", StorageClass, namespaced=False)
LEASES = Resource("Lease", "/apis/coordination.k8s.io/v1", "leases", Lease)
