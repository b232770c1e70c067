"""The effects by which room is made: it is kept for whoever asked, those who are on it stop, and it is said."""

from __future__ import annotations

from collections.abc import Sequence

from fairlead.model.effects import Effect, Nominate, Refuse, Stop
from fairlead.model.gang import Gang, Placement
from fairlead.model.reasons import Reason, Refusal, refuse
from fairlead.units import gpus_of
from fairlead.world.snapshot import Running


def cause_of(victim: Running, gang: Gang, *, reserved: bool = False) -> Refusal:
    """Return why a victim stops: for its own queue's priority, for another's entitlement, or for its reservation."""
    if reserved:
        return refuse(Reason.RESERVATION_BEGINS)
    own = victim.queue == gang.queue
    return refuse(Reason.PREEMPTED) if own else refuse(Reason.RECLAIMED, gpus=gpus_of(victim.gpu_milli))


def room_effects(
    gang: Gang, placement: Placement, victims: Sequence[Running], until_ms: int, *, reserved: bool = False
) -> list[Effect]:
    """Return what makes `placement` the gang's: its nomination first, then the stops, then what the gang is told."""
    named = tuple((victim.gang, victim.attempt) for victim in victims)
    effects: list[Effect] = [Nominate(gang=gang.id, placement=placement, victims=named, until_ms=until_ms)]
    for victim in victims:
        cause = cause_of(victim, gang, reserved=reserved)
        effects.append(Stop(gang=victim.gang, attempt=victim.attempt, cause=cause, requeue=True, by=gang.id))
    told = refuse(Reason.WAITING_FOR_VICTIMS, count=len(victims), domain=placement.domain or "the cluster")
    return [*effects, Refuse(gang=gang.id, refusal=told, alone=True)]
