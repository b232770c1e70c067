"""The views as JSON documents: the one shape that the HTTP API sends, that `--json` prints and that the tables read.

Times are UTC ms, times of devices GPU-ms; a field that has no value is null, never absent. `kubectl-fairlead` builds
the same documents from the objects of an API server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypedDict

from fairlead.model.gang import Placement
from fairlead.model.ranges import fold
from fairlead.service.saving_json import SavingDoc, saving_doc
from fairlead.world.views import Fragmentation, GangView, NodeView, PoolView, QueueView, StartRange

if TYPE_CHECKING:  # the plugin prints these documents and must not load numpy
    from fairlead.placement.mig_plan import RecutPlan


class StartDoc(TypedDict):
    """When a waiting gang starts, as a range; `basis` "unknown" means that nobody knows."""

    p50_ms: int | None
    p90_ms: int | None
    basis: str


class OnNodeDoc(TypedDict):
    """The members of a gang on one node, in rank order: ``{"node": …, "pods": {"worker-0": "gpu-[0-7]"}}``."""

    node: str
    pods: dict[str, str]


class MemberDoc(TypedDict):
    """One member. `share_milli` is the part of its one GPU in thousandths, 0 for whole ones; `mig_start` is the unit
    where its instance begins, -1 for none; `cpus` is a CPU list, `devices` and `nics` are folded lists, "" for none.
    Devices stand in the order of their fastest ring.
    """

    rank: int
    pod: str
    node: str
    devices: str
    share_milli: int
    mig_start: int
    cpus: str
    nics: str


class AllocationDoc(TypedDict):
    """Where a gang is. `pace_bytes_per_s` is the slowest known link between any two of its GPUs, 0 where there is none.

    `span` is how many domains of each level its members lie in; `penalties` are sentences that say what is worse than
    it could be; `members` are in rank order.
    """

    level: str
    domain: str
    pace_bytes_per_s: int
    span: dict[str, int]
    penalties: list[str]
    placed_ms: int | None
    nodes: list[OnNodeDoc]
    members: list[MemberDoc]


class GangDoc(TypedDict):
    """One gang. `reason` is the token, `message` the sentence with its mend. `idle_since_ms`: see `GangView.idle_ms`.

    `pace_bytes_per_s` and `span` are those of its allocation, null without one; lists have them too.
    """

    namespace: str
    name: str
    queue: str
    priority: int | None
    gpus: int
    members: int
    phase: str
    attempt: int
    restarts: int
    position: int | None
    reason: str | None
    message: str | None
    start: StartDoc | None
    pace_bytes_per_s: int | None
    span: dict[str, int] | None
    allocation: AllocationDoc | None
    tier: str | None
    victims: list[str]
    submitted_ms: int | None
    started_ms: int | None
    finished_ms: int | None
    gpu_ms: int
    lost_gpu_ms: int
    checkpoint: SavingDoc | None
    idle_since_ms: int | None


class ResourceDoc(TypedDict):
    """What a queue may have and has of one resource, in GPUs, cores, GiB or pieces; parts of them round up."""

    name: str
    guaranteed: int
    limit: int | None
    used: int
    borrowed: int


class QueueDoc(TypedDict):
    """One queue in whole GPUs; null where the reader may not know. `notes` say what is wrong, and what is excepted.

    `resources` are GPUs, and everything else that it has a quota of.
    """

    name: str
    parent: str | None
    tenant: str | None
    guaranteed: int
    limit: int | None
    used: int
    borrowed: int
    pending: int
    pending_gpus: int | None
    running: int | None
    over_limit: bool | None
    kind: str | None
    notes: list[str]
    resources: list[ResourceDoc]


class NodeDoc(TypedDict):
    """One node: devices by state; `levels` maps a level to the node's domain."""

    name: str
    pool: str
    levels: dict[str, str]
    model: str
    gpus: int
    free: int
    held: int
    foreign: int
    down: int
    ready: bool
    schedulable: bool
    gangs: list[str]
    conflicts: list[str]


class PoolDoc(TypedDict):
    """One pool: devices by state."""

    name: str
    nodes: int
    gpus: int
    free: int
    held: int
    foreign: int
    down: int


class RecutDoc(TypedDict):
    """One idle GPU and what to cut it into, instances as ``3g.40gb@4``. Stranded is in thousandths of this GPU."""

    node: str
    device: str
    before: list[str]
    after: list[str]
    serves: dict[str, int]
    gain_gpu_ms: int
    cost_gpu_ms: int
    stranded_before: int
    stranded_after: int


class RecutPlanDoc(TypedDict):
    """Proposals, best first; `unserved` is what would still wait, `ended_early` why the search stopped or null."""

    proposals: list[RecutDoc]
    unserved: dict[str, int]
    ended_early: str | None


class UsageDoc(TypedDict):
    """GPU time of one queue so far: `gpu_ms` was held, `lost_gpu_ms` of it came to nothing."""

    tenant: str | None
    queue: str
    gangs: int
    gpu_ms: int
    lost_gpu_ms: int


class LevelRoomDoc(TypedDict):
    """The most whole free GPUs, and the most wholly free nodes, of one GPU model in one domain of `level`."""

    level: str
    gpus: int
    nodes: int


class FragmentationDoc(TypedDict):
    """How broken up the free GPUs are; levels tightest first, parts of GPUs in thousandths."""

    free_gpus: int
    shared_free_milli: int
    stranded_milli: int
    largest_gang: list[LevelRoomDoc]
    pending_although_free: int


def gang_doc(view: GangView, *, names: Mapping[str, str] | None = None, allocation: bool = True) -> GangDoc:
    """Return a gang's document. `names` maps ids to ``namespace/name``; `allocation` False leaves the members out."""
    refusal, placement, nomination = view.refusal, view.placement, view.nomination
    victims = () if nomination is None else nomination.victims
    return GangDoc(
        namespace=view.namespace,
        name=view.name,
        queue=view.queue,
        priority=view.priority,
        gpus=view.gpus,
        members=view.members,
        phase=str(view.phase),
        attempt=view.attempt,
        restarts=view.restarts,
        position=view.position,
        reason=None if refusal is None else refusal.reason.token,
        message=None if refusal is None else refusal.message,
        start=None if view.position is None else start_doc(view.start),
        pace_bytes_per_s=None if placement is None else placement.pace_bytes_per_s,
        span=None if placement is None else dict(placement.span),
        allocation=None if placement is None or not allocation else allocation_doc(placement, view.placed_ms),
        tier=None if view.tier is None else str(view.tier),
        victims=[f"{(names or {}).get(gang, gang)}#{attempt}" for gang, attempt in victims],
        submitted_ms=view.submitted_ms,
        started_ms=view.started_ms,
        finished_ms=view.finished_ms,
        gpu_ms=view.gpu_ms,
        lost_gpu_ms=view.lost_gpu_ms,
        checkpoint=saving_doc(view.checkpoint),
        idle_since_ms=view.idle_ms,
    )


def start_doc(start: StartRange) -> StartDoc:
    """Return when a gang will start; both ends None where that is unknown."""
    return StartDoc(p50_ms=start.p50_ms, p90_ms=start.p90_ms, basis=start.basis)


def allocation_doc(placement: Placement, placed_ms: int | None) -> AllocationDoc:
    """Return where a gang is, members in rank order, grouped by node."""
    nodes: dict[str, OnNodeDoc] = {}
    members: list[MemberDoc] = []
    for member in placement.members:
        pod, devices = f"{member.role}-{member.index}", fold(member.devices)
        on_node = nodes.setdefault(member.node, OnNodeDoc(node=member.node, pods={}))
        on_node["pods"][pod] = devices
        members.append(
            MemberDoc(
                rank=member.rank,
                pod=pod,
                node=member.node,
                devices=devices,
                share_milli=member.share_milli,
                mig_start=member.mig_start,
                cpus=member.cpus,
                nics=fold(member.nics),
            )
        )
    return AllocationDoc(
        level=placement.level,
        domain=placement.domain,
        pace_bytes_per_s=placement.pace_bytes_per_s,
        span=dict(placement.span),
        penalties=list(placement.penalties),
        placed_ms=placed_ms,
        nodes=list(nodes.values()),
        members=members,
    )


def queue_doc(view: QueueView) -> QueueDoc:
    """Return a queue's document."""
    return QueueDoc(
        name=view.name,
        parent=view.parent or None,
        tenant=view.tenant,
        guaranteed=view.guaranteed_gpus,
        limit=view.limit_gpus,
        used=view.used_gpus,
        borrowed=view.borrowed_gpus,
        pending=view.pending_gangs,
        pending_gpus=view.pending_gpus,
        running=view.running_gangs,
        over_limit=view.over_limit,
        kind=view.kind or None,
        notes=[*filter(None, (view.problem, view.cost_hold)), *(one.text for one in view.exceptions)],
        resources=[
            ResourceDoc(name=one.name, guaranteed=one.guaranteed, limit=one.limit, used=one.used, borrowed=one.borrowed)
            for one in view.resources
        ],
    )


def node_doc(view: NodeView) -> NodeDoc:
    """Return a node's document."""
    return NodeDoc(
        name=view.name,
        pool=view.pool,
        levels=dict(view.levels),
        model=view.model,
        gpus=view.gpus,
        free=view.free,
        held=view.held,
        foreign=view.foreign,
        down=view.down,
        ready=view.ready,
        schedulable=view.schedulable,
        gangs=list(view.gangs),
        conflicts=list(view.conflicts),
    )


def pool_doc(view: PoolView) -> PoolDoc:
    """Return a pool's document."""
    return PoolDoc(
        name=view.name,
        nodes=view.nodes,
        gpus=view.gpus,
        free=view.free,
        held=view.held,
        foreign=view.foreign,
        down=view.down,
    )


def fragmentation_doc(found: Fragmentation) -> FragmentationDoc:
    """Return the document of how broken up the free GPUs are."""
    return FragmentationDoc(
        free_gpus=found.free_gpus,
        shared_free_milli=found.shared_free_milli,
        stranded_milli=found.stranded_milli,
        largest_gang=[LevelRoomDoc(level=room.level, gpus=room.gpus, nodes=room.nodes) for room in found.largest],
        pending_although_free=found.pending_although_free,
    )


def usage_docs(gangs: Iterable[GangView], queues: Iterable[QueueView]) -> list[UsageDoc]:
    """Add up the gangs that are known, by queue; queues without gangs are listed with zeros.

    A queue that does not exist is listed only if something was held in its name, before it was deleted.
    """
    tenants = {queue.name: queue.tenant for queue in queues}
    usage = {name: UsageDoc(tenant=t, queue=name, gangs=0, gpu_ms=0, lost_gpu_ms=0) for name, t in tenants.items()}
    for gang in gangs:
        if gang.queue not in tenants and not gang.gpu_ms:
            continue
        empty = UsageDoc(tenant=None, queue=gang.queue, gangs=0, gpu_ms=0, lost_gpu_ms=0)
        doc = usage.setdefault(gang.queue, empty)
        doc["gangs"] += 1
        doc["gpu_ms"] += gang.gpu_ms
        doc["lost_gpu_ms"] += gang.lost_gpu_ms
    return sorted(usage.values(), key=lambda doc: (doc["tenant"] or "", doc["queue"]))


def recut_doc(plan: RecutPlan) -> RecutPlanDoc:
    """Return the document of a plan to cut GPUs anew."""
    return RecutPlanDoc(
        proposals=[
            RecutDoc(
                node=proposal.node,
                device=proposal.device,
                before=[f"{name}@{start}" for name, start in proposal.before],
                after=[f"{name}@{start}" for name, start in proposal.after],
                serves=dict(proposal.serves),
                gain_gpu_ms=proposal.gain_gpu_ms,
                cost_gpu_ms=proposal.cost_gpu_ms,
                stranded_before=proposal.stranded_before,
                stranded_after=proposal.stranded_after,
            )
            for proposal in plan.proposals
        ],
        unserved=dict(plan.unserved),
        ended_early=plan.ended_early or None,
    )
