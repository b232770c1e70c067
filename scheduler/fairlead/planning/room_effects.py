"""The effects by which an owner gets the nodes of its reservation: they are kept for it, and guests leave."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fairlead.model.effects import Effect, Nominate, Stop
from fairlead.model.gang import Gang, Placement
from fairlead.model.reasons import Reason, refuse
from fairlead.world.snapshot import Running


def guests_leave(gang: Gang, placement: Placement, victims: Sequence[Running], until_ms: int) -> Iterator[Effect]:
    """Yield what makes `placement` the gang's: its nomination first, then the stops of those who are on it."""
    named = tuple((victim.gang, victim.attempt) for victim in victims)
    yield Nominate(gang=gang.id, placement=placement, victims=named, until_ms=until_ms)
    cause = refuse(Reason.RESERVATION_BEGINS)
    for victim in victims:
        yield Stop(gang=victim.gang, attempt=victim.attempt, cause=cause, requeue=True, by=gang.id)
