"""What is done and said once it is known who makes room, and why nobody does."""

from __future__ import annotations

from collections.abc import Iterator

from fairlead.model.effects import Effect, Nominate, Shrink, Stop
from fairlead.model.events import Nominated
from fairlead.model.gang import Gang
from fairlead.model.reasons import Reason, Refusal, refuse
from fairlead.model.rules import Rules
from fairlead.placement.preempt import RoomAnswer
from fairlead.placement.room_search import Room, Taken
from fairlead.units import gpus_of
from fairlead.world.attempts import Attempts
from fairlead.world.snapshot import World

PREEMPTION, RECLAIM, BOTH = "preemption", "reclaim", "both"


def takings(gang: Gang, room: Room, world: World) -> Iterator[Effect]:
    """Yield the nomination, then the stop or shrink of each victim, with what each of them costs (R77)."""
    own = {taken.by_priority for taken in room.taken}
    yield Nominate(
        gang=gang.id,
        placement=room.placement,
        victims=tuple((taken.attempt.gang, taken.attempt.attempt) for taken in room.taken if not taken.ranks),
        until_ms=world.now_ms + world.rules.nomination_ms,
        shrunk=tuple((taken.attempt.gang, taken.attempt.attempt, taken.ranks) for taken in room.taken if taken.ranks),
        rule=BOTH if len(own) > 1 else PREEMPTION if True in own else RECLAIM,
        lost_gpu_ms=room.cost,
    )
    for taken in room.taken:
        victim, cause = taken.attempt, _cause(taken)
        if taken.ranks:
            yield Shrink(
                gang=victim.gang,
                attempt=victim.attempt,
                ranks=taken.ranks,
                cause=cause,
                by=gang.id,
                lost_gpu_ms=taken.lost_gpu_ms,
            )
        else:
            yield Stop(
                gang=victim.gang,
                attempt=victim.attempt,
                cause=cause,
                requeue=True,
                by=gang.id,
                lost_gpu_ms=taken.lost_gpu_ms,
            )


def _cause(taken: Taken) -> Refusal:
    """Say to the victim what it lost, in its own numbers; who gains is nobody's business but the journal's."""
    numbers: dict[str, str | int] = {"gpus": gpus_of(taken.gpu_milli), "lost_gpu_s": taken.lost_gpu_ms // 1000}
    return refuse(Reason.PREEMPTED if taken.by_priority else Reason.RECLAIMED, **numbers)


def why_no_room(answer: RoomAnswer, rules: Rules) -> Refusal | None:
    """Return why nobody makes room although somebody might, None where nobody can."""
    if answer.too_many:
        return refuse(Reason.TOO_MANY_STOPS, limit=rules.stops_per_cycle)
    if answer.ended:
        return refuse(Reason.ROOM_SEARCH_ENDED)
    return refuse(Reason.VICTIMS_PROTECTED) if answer.protected else None


def any_holds(nomination: Nominated, running: Attempts) -> bool:
    """Whether anybody still has what the room is to be made of."""
    if any(running.get(gang, attempt) is not None for gang, attempt in nomination.victims):
        return True
    shrunk = ((running.get(gang, attempt), ranks) for gang, attempt, ranks in nomination.shrunk)
    return any(attempt is not None and not attempt.holding.isdisjoint(ranks) for attempt, ranks in shrunk)
