"""Who may submit what where: a Queue's rules, enforced by the scheduler even where the admission policy is gone."""

from __future__ import annotations

from collections.abc import Iterator

from fairlead.model.effects import Effect, Refuse
from fairlead.model.gang import Gang, ServiceClass
from fairlead.model.queue_caps import Overflow
from fairlead.model.reasons import RETRY, Reason, Refusal, refuse
from fairlead.model.windows import current_or_next
from fairlead.planning.deadlines import deadline_refusal
from fairlead.units import gpus_of, utc_text
from fairlead.world.snapshot import World


def admission(gang: Gang, world: World) -> Refusal | None:
    """Return what the gang's queue forbids, None where it may run."""
    queue = world.queues.get(gang.queue)
    if queue is None:
        return refuse(Reason.UNKNOWN_QUEUE, queue=gang.queue, namespace=gang.namespace)
    problem = world.force.problems.get(queue.name)
    if problem is not None and problem.closed:
        told = {"field": problem.field, "problem": problem.problem, "mend": problem.mend}
        return refuse(Reason.QUEUE_MISPLACED, queue=queue.name, **told)
    if gang.namespace not in queue.namespaces:
        return refuse(Reason.NAMESPACE_NOT_ALLOWED, queue=queue.name, namespace=gang.namespace)
    allowed = queue.priority_classes
    if gang.priority_class and allowed is not None and gang.priority_class not in allowed:
        return refuse(
            Reason.PRIORITY_CLASS_NOT_ALLOWED,
            queue=queue.name,
            name=gang.priority_class,
            allowed=", ".join(allowed) or "none",
        )
    served = queue.service_classes
    if served is not None and gang.service_class not in served:
        return refuse(
            Reason.SERVICE_CLASS_NOT_ALLOWED,
            queue=queue.name,
            name=gang.service_class.value,
            allowed=", ".join(c.value for c in served) or "none",
        )
    checkpoint = gang.checkpoint
    if checkpoint is not None and checkpoint.unreadable:
        told = {"format": checkpoint.unreadable, "reads": ", ".join(checkpoint.reads)}
        return refuse(Reason.CHECKPOINT_UNREADABLE, **told)
    refusal = deadline_refusal(gang, world.now_ms)
    return refusal or (_peak(gang, world) if world.force.peaked else None)


def at_the_door(world: World) -> Iterator[Effect]:
    """Yield what those are told who may not stand in line: to wait outside or, where the queue says so, to go."""
    for waiting, (name, of_class) in world.waiting.outside:
        caps = world.queues[name].caps
        limit = dict(caps.max_pending_of)[ServiceClass(of_class)] if of_class else caps.max_pending or 0
        what = f"{of_class} jobs" if of_class else "jobs"
        refusal = refuse(Reason.QUEUE_FULL, what=what, queue=name, limit=limit)
        goes = caps.overflow is Overflow.REJECT and waiting.attempts == 0
        yield Refuse(gang=waiting.gang.id, refusal=refusal, alone=True, turned_away=goes)


def _peak(gang: Gang, world: World) -> Refusal | None:
    """Return which queue, from the gang's own up, holds it back in its peak period."""
    name = gang.queue
    while name in world.queues:  # in force, a queue's way up has an end
        queue = world.queues[name]
        for peak in queue.caps.peaks:
            if gang.service_class not in peak.service_classes or gang.gpu_milli < 1000 * peak.gpus_at_least:
                continue
            found = current_or_next(peak.windows, world.now_ms)
            if found is not None and found[0] <= world.now_ms:
                return refuse(
                    Reason.PEAK_HOLDS_BACK,
                    queue=name,
                    service_class=gang.service_class.value,
                    gpus=gpus_of(gang.gpu_milli),
                    retry_at=utc_text(found[1]),
                    **{RETRY: found[1]},
                )
        name = queue.parent
    return None
