"""Who may have how much: queues, pools and what they say. A tenant is the root of a queue subtree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fairlead.model.gang import ServiceClass
from fairlead.model.protection import Protection, Spares
from fairlead.model.queue_caps import NO_CAPS, QueueCaps, TenantKind
from fairlead.model.quota import GPU, Quota
from fairlead.model.service_classes import OwnTerms

SHARING_MODES = ("time-slice", "mps", "mig")
"""How parts of a GPU may be handed out."""
SHARING_BY_DEFAULT = ("mig",)
"""What a Pool that says nothing allows: hardware partitions, which keep their tenants apart."""
MIG_MODES = ("static", "dynamic")
"""Whether GPUs stay cut as they are."""
ON_OVER_LIMIT = ("keep", "requeue")
"""What becomes of running work when a limit is lowered below what is held."""
SHARES = ("own", "parent")
"""Whether a queue stands by its own weight in a slurm-classic tree, or exactly as the queue above it."""
PRIORITY_SCOPES = ("queue", "subtree")
"""Where priority takes from running work: inside each queue alone, or among all queues from this one down."""
NON_PREEMPTIBLE = ("any", "in-quota")
"""What gangs that may not be preempted may hold: anything, or only what the guarantee covers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakingCaps:
    """What keeps a queue's jobs from being taken too soon or too often, in any hour; None leaves it to what is above.

    `min_run_ms` and `per_job` (takings of one job) are those of the nearest queue that says them, else of the cluster's
    rules. `count` (stops and shrinks) and `lost_gpu_ms` (GPU-ms of work thrown away) hold for all queues below.
    """

    min_run_ms: int | None = None
    per_job: int | None = None
    count: int | None = None
    lost_gpu_ms: int | None = None

    @property
    def is_capped(self) -> bool:
        """Whether takings from this queue are capped."""
        return self.count is not None or self.lost_gpu_ms is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue's quota in whole GPUs. `limit_gpus` None is no limit; `weight` shares what nobody is guaranteed.

    `namespaces` are all that may submit (selectors already resolved); `priority_classes` and `service_classes`
    None means any. `quotas` are of other resources, and of ``gpu`` what the three fields do not say (its `guaranteed`
    and `limit` are left out there). `fairness_policy` names how the queues below share, "" as above. `kind` says what
    it stands for, `caps` what holds beside the quota. So many as `promised_jobs` of its jobs may hold a promised latest
    start that they asked for, for which its own preemptible jobs may be stopped after `promise_notice_ms`.
    """

    name: str
    parent: str = ""
    guaranteed_gpus: int = 0
    limit_gpus: int | None = None
    weight: int = 1
    namespaces: tuple[str, ...] = ()
    priority_classes: tuple[str, ...] | None = None
    service_classes: tuple[ServiceClass, ...] | None = None
    kind: TenantKind | None = None
    caps: QueueCaps = NO_CAPS
    promised_jobs: int = 0
    promise_notice_ms: int = 3_600_000
    quotas: tuple[Quota, ...] = ()
    fairness_policy: str = ""
    priority_scope: str = "queue"
    on_over_limit: str = "keep"
    non_preemptible: str = "any"
    shares: str = "own"
    taking_caps: TakingCaps = TakingCaps()

    def quota(self, resource: str) -> Quota | None:
        """Return the quota of a resource, counted as inside; None where the queue says nothing of it."""
        found = None
        for quota in self.quotas:
            if quota.resource == resource:
                found = quota
                break
        if resource != GPU:
            return found
        guaranteed, limit = 1000 * self.guaranteed_gpus, None if self.limit_gpus is None else 1000 * self.limit_gpus
        if found is None:
            return Quota(resource=GPU, guaranteed=guaranteed, limit=limit)
        return replace(found, guaranteed=guaranteed, limit=limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelBudget:
    """Every domain of `level` has `amount` of `resource`, whole units: watts of a rack, bytes/s of its uplink.

    What a pod requests of that name is taken from the domain that its node is in. ``cluster`` is one domain.
    """

    level: str
    resource: str
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Nodes that Fairlead alone allocates. `service_classes` None serves all; `taint` keeps other pods away.

    `sharing` lists how parts of GPUs may be handed out here (``time-slice``, ``mps``, ``mig``), beside whole ones.
    `mig_mode` ``static`` leaves GPUs cut as they are, ``dynamic`` cuts idle ones anew. `serving_on_time_slices` lets
    jobs of class serving use time slices, which have no stable latency. `budgets` are resources that live above the
    node. Claims of MIG instances name `mig_device_class`, all others `device_class`. `checkpoint_bytes_per_s` is what
    its storage takes of checkpoints that are written at the same time, None for no bound. `protected` and
    `spares` are kept free; of a latency pool, so is what is above `ceiling_percent` of its GPUs. `class_terms` says
    what differs here.
    """

    name: str
    node_selector: tuple[tuple[str, str], ...]
    service_classes: tuple[ServiceClass, ...] | None = None
    taint: bool = True
    driver: str = "gpu.nvidia.com"
    device_class: str = "gpu.nvidia.com"
    mig_device_class: str = "mig.nvidia.com"
    sharing: tuple[str, ...] = ()
    mig_mode: str = "static"
    serving_on_time_slices: bool = False
    budgets: tuple[LevelBudget, ...] = ()
    checkpoint_bytes_per_s: int | None = None
    protected: tuple[Protection, ...] = ()
    ceiling_percent: int | None = None
    spares: Spares | None = None
    class_terms: tuple[OwnTerms, ...] = ()

    @property
    def latency_class(self) -> ServiceClass:
        """For whom there is room above the ceiling: the first class that is protected, else serving."""
        return self.protected[0].service_class if self.protected else ServiceClass.SERVING

    @property
    def keeps_free(self) -> bool:
        """Whether anything is kept free here for anybody."""
        return bool(self.protected) or self.ceiling_percent is not None or self.spares is not None


def ancestors(queue: str, queues: dict[str, Queue]) -> tuple[str, ...]:
    """Return `queue` and all queues above it, nearest first; a cycle or a missing parent ends the walk."""
    seen: dict[str, None] = {}
    name = queue
    while name in queues and name not in seen:
        seen[name] = None
        name = queues[name].parent
    return tuple(seen)


def tenant_of(queue: str, queues: dict[str, Queue]) -> str:
    """Return the root of the subtree that `queue` is in: the tenant; the queue itself where it is unknown."""
    chain = ancestors(queue, queues)
    return chain[-1] if chain else queue


def quota_fields(quotas: Sequence[Quota]) -> dict[str, Any]:
    """Return the fields of a Queue that say these quotas, each of another resource."""
    gpu = next((quota for quota in quotas if quota.resource == GPU), Quota(resource=GPU))
    rest = replace(gpu, guaranteed=0, limit=None, weight=None)
    others = [quota for quota in quotas if quota.resource != GPU]
    if rest != Quota(resource=GPU):
        others.append(rest)
    return {
        "guaranteed_gpus": gpu.guaranteed // 1000,
        "limit_gpus": None if gpu.limit is None else gpu.limit // 1000,
        "weight": 1 if gpu.weight is None else gpu.weight,
        "quotas": tuple(sorted(others, key=lambda quota: quota.resource)),
    }
