"""The rules of holes: who may enter one, what can be promised at all, and what of a promise can't be given any more.

A hole is a device that is free now and promised to somebody from a later moment on.
"""

from __future__ import annotations

from collections.abc import Mapping

from fairlead.model.effects import Phase
from fairlead.model.gang import Gang, ServiceClass
from fairlead.model.promises import Promised
from fairlead.model.reasons import Reason, Refusal, refuse
from fairlead.model.rules import Rules
from fairlead.model.tenancy import Queue
from fairlead.placement.feasible import Feasibility
from fairlead.world.ends import end_in_hole, lead_ms
from fairlead.world.snapshot import Running, World

FOREVER = 1 << 61


def gone_by(gang: Gang, now_ms: int, rules: Rules, expected_ms: int | None = None) -> int:
    """Return the moment before which no hole may end that the gang enters now.

    A declared duration is over by then. A gang that may be stopped enters holes that are long enough for what it is
    expected to need, or, where nobody knows, for some work to be worth the start.
    """
    declared = end_in_hole(gang, now_ms, rules)
    if not gang.preemptible:
        return FOREVER if declared is None else declared
    wanted = gang.duration_ms if expected_ms is None else expected_ms
    if wanted is None:
        wanted = rules.hole_least_ms
    elif gang.service_class is ServiceClass.OPPORTUNISTIC:
        wanted = min(wanted, rules.hole_least_ms)
    asked = now_ms + rules.hole_start_ms + wanted + lead_ms(gang, rules)
    return asked if declared is None else min(asked, declared)


def promise_refusal(gang: Gang, queues: Mapping[str, Queue]) -> Refusal | None:
    """Return a refusal where the gang asks for a promise that its queue gives nobody."""
    queue = queues.get(gang.queue)
    if gang.wants_promise and queue is not None and not queue.promised_jobs:
        return refuse(Reason.PROMISE_NOT_ALLOWED, queue=queue.name)
    return None


def can_be_promised(gang: Gang) -> bool:
    """Whether all that the gang asks for can be kept: parts of devices can't, and neither can host ports."""
    return not any(role.share is not None or role.mig or role.pod.host_ports for role in gang.roles)


def may_be_stopped_for(attempt: Running | None, asker: Gang) -> bool:
    """Whether an attempt may be stopped for a promise: preemptible, of the same queue, of no higher priority."""
    if attempt is None or attempt.spec is None or attempt.queue != asker.queue or attempt.phase is Phase.STOPPING:
        return False
    return attempt.spec.preemptible and attempt.spec.priority <= asker.priority


def why_lost(promise: Promised, gang: Gang, world: World, feasibility: Feasibility) -> Refusal | None:
    """Return what of a promise can't be given any more: a node or a device is lost, or an administrator took one."""
    inventory = world.inventory
    fits = {role.name: feasibility.fit(role, gang.service_class) for role in gang.roles}
    for member in promise.placement.members:
        row = inventory.row.get(member.node)
        if row is None or member.node in world.lost:
            return refuse(Reason.PROMISED_NODE_LOST, node=member.node)
        if inventory.nodes[row].not_ready_since_ms is not None:
            continue  # it may come back; if it does not, it is lost
        if member.role not in fits or not bool(fits[member.role].allowed[row]):
            return refuse(Reason.PROMISED_NODE_WITHDRAWN, node=member.node)
        mask = inventory.mask(row, member.devices)
        if mask.bit_count() < len(member.devices) or mask & ~int(inventory.healthy_mask[row]):
            return refuse(Reason.PROMISED_NODE_LOST, node=member.node)
    return None
