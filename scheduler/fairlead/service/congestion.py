"""Who waits although as much as they ask for is idle, and why: the fleet is congested and not used up (R44). Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

from fairlead.model.gang import GangId
from fairlead.model.reasons import Kind, Reason, Refusal
from fairlead.model.standings import Unplaced
from fairlead.service.fragmentation import Room, Wanted, wanted
from fairlead.world.pictures import Waiting
from fairlead.world.snapshot import World

CAUSES: dict[Reason, str] = {
    Reason.NOT_ENOUGH_FREE: "scattered",
    Reason.NO_DOMAIN_FITS: "scattered",
    Reason.ISOLATION_KEEPS_APART: "isolation",
    Reason.SEARCH_ENDED: "search",
    Reason.ROOM_SEARCH_ENDED: "search",
    Reason.QUEUE_AT_LIMIT: "quota",
    Reason.BORROW_LIMIT: "quota",
    Reason.NOT_LENT: "quota",
    Reason.QUEUE_AT_MAX_JOBS: "quota",
    Reason.USER_AT_CAP: "quota",
    Reason.BUDGET_EXHAUSTED: "budget",
    Reason.BUDGET_PACED: "budget",
    Reason.BUDGET_HELD: "budget",
    Reason.BOOKS_FULL: "budget",
    Reason.COST_ANOMALY: "cost-alarm",
    Reason.HELD_FOR_CLASS: "pool",
    Reason.SPARE_KEPT: "pool",
    Reason.ABOVE_CEILING: "pool",
    Reason.PEAK_HOLDS_BACK: "pool",
    Reason.KEPT_FOR_PROMISE: "promise",
    Reason.RESERVED: "reservation",
    Reason.WAITING_FOR_VICTIMS: "making-room",
    Reason.VICTIMS_PROTECTED: "making-room",
    Reason.TOO_MANY_STOPS: "making-room",
    Reason.BUDGET_REFUSES: "making-room",
    Reason.PLACEMENT_DISABLED: "switched-off",
}
"""What is in the way, in a word, by what gangs were told. Where no node will take a pod, that is found out."""


def unplaced(world: World, room: Room, refusal_of: Callable[[GangId], Refusal | None]) -> tuple[Unplaced, ...]:
    """Return who waits for what, by queue and reason; `room` is what is idle, and is taken from. O(lines + GPUs).

    Lines are served in their order, all queues together, as far as the room goes. Who has not been looked at yet, waits
    out a backoff, is suspended or may not stand in line is left out, and so is who can't be helped by waiting.
    """
    begin = room.copy()
    found: dict[tuple[str, str, str], tuple[int, int]] = {}
    for waiting in _lines(world):
        first = waiting[0].gang
        refusal, ask = refusal_of(first.id), wanted(first)
        if refusal is None or ask is None or not begin.holds(ask):
            continue
        if refusal.reason.kind is not Kind.NOT_NOW or refusal.reason is Reason.SUSPENDED:
            continue
        served = 0
        while served < len(waiting) and room.holds(ask):
            room.take(ask)
            served += 1
        key = (first.queue, _cause(refusal.reason, ask, begin), refusal.reason.token)
        gangs, milli = found.get(key, (0, 0))
        found[key] = (gangs + len(waiting), milli + served * ask.gpu_milli)
    return tuple(
        Unplaced(queue=queue, cause=cause, reason=reason, gangs=gangs, gpu_milli=milli)
        for (queue, cause, reason), (gangs, milli) in sorted(found.items())
    )


def _lines(world: World) -> Iterator[tuple[Waiting, ...]]:
    """Yield those for whom room is being made, then every line: gangs that ask for the same and were told the same."""
    backlog = world.waiting
    for waiting in backlog.nominated:
        yield (waiting,)
    sides = (backlog.fresh, backlog.reopened, backlog.refused)
    entries = chain.from_iterable(queue for side in sides for queue in side.values())
    for entry in sorted(entries, key=lambda entry: entry[:3]):
        yield entry[3].ready


def _cause(reason: Reason, ask: Wanted, room: Room) -> str:
    """Return what is in the way; where no node will take a pod, whether none has as many GPUs idle as it asks for."""
    if reason is Reason.NODES_FILTERED:
        return "node-rules" if room.on_one_node(ask) else "scattered"
    return CAUSES.get(reason, "other")
