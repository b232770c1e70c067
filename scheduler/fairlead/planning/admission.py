"""Who may submit what where: a Queue's rules, enforced by the scheduler even where the admission policy is gone."""

from __future__ import annotations

from fairlead.model.gang import Gang
from fairlead.model.reasons import Reason, Refusal, refuse
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
    return None
