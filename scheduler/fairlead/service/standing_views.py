"""State as people see it: the values of `fairlead.world.views`, computed on read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fairlead.model.effects import Phase
from fairlead.model.promises import Promised
from fairlead.model.quota import GPU, unit_of
from fairlead.model.reasons import Reason, refuse
from fairlead.model.tenancy import Queue, tenant_of
from fairlead.ordering.backlog import positions
from fairlead.ordering.queue_tree import QueueTree
from fairlead.ordering.standing import Standing
from fairlead.planning.caps import Caps, cost_hold
from fairlead.planning.quota_places import standing_of
from fairlead.service.saving_views import checkpoint_view
from fairlead.units import utc_text
from fairlead.world.gangs import GangRecord
from fairlead.world.snapshot import World
from fairlead.world.state import ClusterState
from fairlead.world.views import UNKNOWN_START, GangView, NodeView, PoolView, QueueView, ResourceView, StartRange

_AWAITING_CYCLE, _SUSPENDED = refuse(Reason.AWAITING_CYCLE), refuse(Reason.SUSPENDED)


def gang_view(
    record: GangRecord,
    now_ms: int,
    position: int | None,
    start: StartRange = UNKNOWN_START,
    promise: Promised | None = None,
) -> GangView:
    """Return one gang's view; a waiting gang that was not looked at yet says so."""
    attempt, gang = record.current, record.gang
    refusal = record.refusal
    if refusal is None and record.phase is Phase.PENDING:
        refusal = _AWAITING_CYCLE
    if record.phase is Phase.SUSPENDED:
        refusal = _SUSPENDED
    running_gpu_ms = 0
    if attempt is not None and now_ms > attempt.since_ms:
        held = ((attempt.member(rank).gpu_milli, now_ms - attempt.held_from(rank)) for rank in attempt.holding)
        running_gpu_ms = sum(milli * held_ms for milli, held_ms in held) // 1000
    return GangView(
        id=record.id,
        namespace=record.namespace,
        name=record.name,
        queue=record.queue,
        priority=gang.priority if gang else 0,
        gpus=gang.gpus if gang else 0,
        members=gang.members if gang else 0,
        phase=record.phase,
        attempt=record.attempts,
        restarts=record.restarts,
        refusal=refusal,
        position=position,
        placement=attempt.shown_placement if attempt else None,
        tier=attempt.tier if attempt else None,
        nomination=record.nomination,
        submitted_ms=gang.submitted_ms if gang else 0,
        placed_ms=attempt.since_ms if attempt else None,
        started_ms=record.started_ms,
        finished_ms=record.finished_ms,
        gpu_ms=record.past_gpu_ms + running_gpu_ms,
        lost_gpu_ms=record.lost_gpu_ms,
        failures=tuple(sorted(record.failures.items())) if record.failures else (),
        start=start,
        checkpoint=checkpoint_view(record, now_ms),
        idle_ms=attempt.idle_ms if attempt and record.phase is Phase.RUNNING else None,
        promise=promise,
    )


def gang_views(state: ClusterState, now_ms: int, world: World) -> Sequence[GangView]:
    """Return all gangs, by namespace and name."""
    place = positions(world.waiting)
    records = sorted(state.gangs.values(), key=lambda r: (r.namespace, r.name, r.id))
    return [gang_view(record, now_ms, place.get(record.id)) for record in records]


def queue_views(state: ClusterState, world: World) -> Sequence[QueueView]:
    """Return all queues, by name. Usage is of the queue's own jobs, children not included; parts of a GPU round up."""
    used = world.queue_gpu_milli
    asked = [(w.gang.queue, w.gang.gpu_milli) for w in world.waiting.everyone]
    tree = QueueTree(world.queues, world.policies)
    standing, force = standing_of(world, tree, Caps(world, tree.chains)), world.force
    gangs: dict[str, int] = {}
    wanted: dict[str, int] = {}
    for name, gpu_milli in asked:
        gangs[name] = gangs.get(name, 0) + 1
        wanted[name] = wanted.get(name, 0) + gpu_milli
    running: dict[str, int] = {}
    for attempt in world.running:
        running[attempt.queue] = running.get(attempt.queue, 0) + 1
    return [
        QueueView(
            name=name,
            parent=state.queues[name].parent,
            tenant=tenant_of(name, state.queues),
            guaranteed_gpus=queue.guaranteed_gpus,
            limit_gpus=queue.limit_gpus,
            weight=queue.weight,
            used_gpus=_rounded(used.get(name, 0)),
            borrowed_gpus=max(0, _rounded(used.get(name, 0)) - queue.guaranteed_gpus),
            pending_gangs=gangs.get(name, 0),
            pending_gpus=_rounded(wanted.get(name, 0)),
            running_gangs=running.get(name, 0),
            entitled_gpus=standing.entitled.get(name, 0) // 1000,
            over_limit=_over(name, standing),
            kind=queue.kind.value if queue.kind is not None else "",
            problem=force.problems[name].text if name in force.problems else "",
            cost_hold=_cost_hold(world, name),
            exceptions=tuple(one for one in force.exceptions if one.queue == name),
            resources=tuple(_resources(queue, world)),
        )
        for name, queue in sorted(world.queues.items())
    ]


def _cost_hold(world: World, queue: str) -> str:
    alarm = cost_hold(world, queue)
    if alarm is None:
        return ""
    return f"starts nothing new until {utc_text(alarm.until_ms)}: what it cost on {alarm.day} alarms ({alarm.what})"


def _resources(queue: Queue, world: World) -> Iterator[ResourceView]:
    """Yield GPUs, then all else that a queue has a quota of, by name."""
    for resource in (GPU, *sorted(quota.resource for quota in queue.quotas if quota.resource != GPU)):
        quota, unit = queue.quota(resource), unit_of(resource)
        assert quota is not None, (queue.name, resource)
        held = world.queue_gpu_milli if resource == GPU else world.running.used.get(resource, {})
        used, guaranteed = -(-held.get(queue.name, 0) // unit), quota.guaranteed // unit
        yield ResourceView(
            name=resource,
            guaranteed=guaranteed,
            limit=None if quota.limit is None else quota.limit // unit,
            used=used,
            borrowed=max(0, used - guaranteed),
        )


def _over(name: str, standing: Standing) -> bool:
    """Whether a queue, or one above it, holds more than a limit of its own."""
    return any(standing.over(above) for above in standing.tree.chains.get(name, ()))


def _rounded(gpu_milli: int) -> int:
    return -(-gpu_milli // 1000)


def node_views(state: ClusterState, world: World) -> Sequence[NodeView]:
    """Return all nodes, by name. A device counts once: down before held before foreign before free."""
    views: list[NodeView] = []
    inventory = world.inventory
    for row, node in enumerate(inventory.nodes):
        holds = state.holds_on.get(node.name, {})
        held = 0
        for hold in holds.values():
            held |= inventory.mask(row, hold.devices)
        foreign = inventory.mask(row, state.foreign.get(node.name, ()))
        every = int(inventory.all_mask[row])
        well = int(inventory.healthy_mask[row]) | int(inventory.mig_mask[row])
        down = every & ~well if node.ready else every
        names = {
            state.gangs[key[0]].namespace + "/" + state.gangs[key[0]].name for key in holds if key[0] in state.gangs
        }
        views.append(
            NodeView(
                name=node.name,
                pool=node.pool,
                levels=node.levels,
                model=", ".join(sorted({gpu.model for gpu in node.machine.gpus})),
                gpus=every.bit_count(),
                free=(every & ~down & ~held & ~foreign).bit_count(),
                held=(held & ~down).bit_count(),
                foreign=(foreign & ~held & ~down).bit_count(),
                down=down.bit_count(),
                ready=node.ready,
                schedulable=bool(inventory.usable[row]),
                gangs=tuple(sorted(names)),
                conflicts=node.conflicts,
            )
        )
    return views


def pool_views(nodes: Sequence[NodeView], pools: Sequence[str]) -> Sequence[PoolView]:
    """Sum nodes by pool."""
    views: list[PoolView] = []
    for name in pools:
        inside = [node for node in nodes if node.pool == name]
        views.append(
            PoolView(
                name=name,
                nodes=len(inside),
                gpus=sum(n.gpus for n in inside),
                free=sum(n.free for n in inside),
                held=sum(n.held for n in inside),
                foreign=sum(n.foreign for n in inside),
                down=sum(n.down for n in inside),
            )
        )
    return views
