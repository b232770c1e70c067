"""The second opinion on reservations, written from the rules alone: who may be there, and who may be stopped.

A job of the owner's queue, or of one below it, may be there at any time. Another may be there before the start if its
enforced end comes first or it may be stopped, and in the owner's time only as a guest that may be stopped, where the
nodes are lendable and it is no maintenance.
"""

from __future__ import annotations

from collections.abc import Iterator

from fairlead.model.effects import Effect, Grow, Notice, Place, Stop
from fairlead.model.gang import Gang, GangId
from fairlead.model.reasons import Reason
from fairlead.world.reservations import Reserved
from fairlead.world.snapshot import Running, World


def check_reserved(effect: Effect, world: World) -> Iterator[str]:
    """Yield what an effect breaks of the rules of reservations."""
    if not world.reserved:
        return
    match effect:
        case Place():
            waiting = world.waiting.get(effect.gang)
            nodes = {member.node for member in effect.placement.members}
            for one in world.reserved if waiting is not None else ():
                on = sorted(nodes & _nodes(one, world))
                if on and waiting is not None and not _may_be_on(waiting.gang, one, world):
                    yield f"{waiting.gang.full_name}: placed on {on[0]}, which is reserved"
        case Grow():
            attempt = world.running.get(effect.gang, effect.attempt)
            new = {effect.placement.members[rank].node for rank in effect.ranks}
            for one in world.reserved if attempt is not None and attempt.spec is not None else ():
                if attempt and attempt.spec and new & _nodes(one, world) and not _may_be_on(attempt.spec, one, world):
                    yield f"{attempt.spec.full_name}: grows on {min(new & _nodes(one, world))}, which is reserved"
        case Stop(cause=cause) | Notice(cause=cause) if cause.reason is Reason.RESERVATION_BEGINS:
            attempt = world.running.get(effect.gang, effect.attempt)
            if attempt is not None and attempt.notice is None:
                yield from _check_stop(effect, attempt, world)
        case _:
            return


def _nodes(one: Reserved, world: World) -> set[str]:
    return {world.inventory.nodes[row].name for row in one.rows}


def _owns(queue: str, one: Reserved, world: World) -> bool:
    """Whether a queue, or one above it, is the owner."""
    seen: set[str] = set()
    while queue in world.queues and queue not in seen:
        if queue == one.reservation.queue:
            return True
        seen.add(queue)
        queue = world.queues[queue].parent
    return False


def _may_be_on(gang: Gang, one: Reserved, world: World) -> bool:
    if _owns(gang.queue, one, world):
        return True
    if one.start_ms > world.now_ms:
        enforced = gang.duration_ms is not None and world.now_ms + gang.duration_ms <= one.start_ms
        return enforced or gang.preemptible or not one.reservation.pre_drain
    return gang.preemptible and one.reservation.lendable and bool(one.reservation.queue)


def _check_stop(effect: Stop | Notice, attempt: Running, world: World) -> Iterator[str]:
    """Stopped for a reservation: it is on a node of one that begins or wants it, is no owner, and may be stopped."""
    spec = attempt.spec
    held = {attempt.placement.members[rank].node for rank in attempt.holding}
    lead = world.rules.stop_ms
    if spec is not None and spec.checkpoint is not None:
        lead += spec.grace_ms + world.rules.stagger_max_ms
    taker = world.waiting.get(GangId(effect.by)) if effect.by else None
    for one in world.reserved:
        if not held & _nodes(one, world) or _owns(attempt.queue, one, world):
            continue
        may = one.reservation.stop_all or (spec is not None and spec.preemptible)
        due = one.start_ms <= world.now_ms + lead
        wanted = taker is None or (one.start_ms <= world.now_ms and _owns(taker.gang.queue, one, world))
        if may and due and wanted:
            return
    yield f"{effect.gang}: stopped for a reservation that does not ask for it"
