"""Whose borrowed capacity is taken first: that of the queue furthest above its entitlement, then the next."""

from __future__ import annotations

from collections.abc import Collection

from fairlead.model.gang import Gang, GangId
from fairlead.ordering.standing import Standing
from fairlead.placement.placer import Placer
from fairlead.placement.preempt import RoomAnswer, RoomMemo, look_for_room
from fairlead.placement.shields import Shields
from fairlead.world.snapshot import World


def look_for_room_by_excess(
    gang: Gang,
    world: World,
    placer: Placer,
    standing: Standing,
    spared: Collection[GangId],
    memo: RoomMemo | None = None,
    at_most: int | None = None,
    shields: Shields | None = None,
) -> RoomAnswer:
    """Return the cheapest room of the first few lenders of whom there is any: of one, then two, four and so on.

    Like `look_for_room`, which takes from whoever is cheapest; the own queue, and others of its scope, may always be
    taken from by priority. The queues of another scope of priority count as one lender.
    """
    scopes = standing.tree.scopes
    lenders = [name for name in standing.lenders() if name != gang.queue]
    heads = list(dict.fromkeys(scopes.get(name, name) for name in lenders))
    first = 1
    while first < len(heads):
        among = frozenset(name for name in lenders if scopes.get(name, name) in heads[:first])
        answer = look_for_room(gang, world, placer, standing, spared, memo, at_most, shields, among=among)
        if answer.room is not None:
            return answer
        first *= 2
    return look_for_room(gang, world, placer, standing, spared, memo, at_most, shields)
