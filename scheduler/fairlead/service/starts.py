"""When waiting gangs will start, as it was last said; said anew when a range is no longer inside what was said."""

from __future__ import annotations

from collections.abc import Callable

from fairlead.model.gang import GangId
from fairlead.ordering.backlog import inside_queue
from fairlead.planning.estimates import Estimates
from fairlead.world.snapshot import World
from fairlead.world.views import UNKNOWN_START, StartRange

LOOKED_AT = 256
"""Gangs that are estimated at a time: those who are promised something, then the first of each queue."""
EACH_QUEUE = 16


class Starts:
    """Start ranges of the gangs that may start next. What is further back in a queue has none yet."""

    def __init__(self, world: Callable[[int], World]) -> None:
        """`world` takes the picture at a moment, UTC ms."""
        self._world = world
        self._told: dict[GangId, StartRange] = {}
        self._known: tuple[int, int, Estimates] | None = None

    def of(self, gang: GangId) -> StartRange:
        """Return what was last said of a gang."""
        return self._told.get(gang, UNKNOWN_START)

    def fresh(self, gang: GangId, now_ms: int) -> StartRange:
        """Return what would be said now of any gang that waits."""
        world = self._world(now_ms)
        waiting = world.waiting.get(gang)
        return UNKNOWN_START if waiting is None else self._estimates(world).of(waiting.gang)

    def renew(self, now_ms: int) -> list[GangId]:
        """Estimate anew; return those of whom something else is said now than before, by uid.

        A range that lies inside the one that was said is no news, unless that has passed.
        """
        world = self._world(now_ms)
        estimates = self._estimates(world)
        before, self._told = self._told, {}
        news: list[GangId] = []
        for gang in _next(world):
            item = world.waiting.get(gang)
            if item is None:
                continue
            found, said = estimates.of(item.gang), before.get(gang, UNKNOWN_START)
            if _inside(found, said, now_ms):
                found = said
            elif found != said:
                news.append(gang)
            self._told[gang] = found
        news += [gang for gang, said in before.items() if gang not in self._told and said != UNKNOWN_START]
        return sorted(news)

    def _estimates(self, world: World) -> Estimates:
        key = (world.version, world.now_ms)
        if self._known is None or self._known[:2] != key:
            self._known = (*key, Estimates(world))
        return self._known[2]


def _next(world: World) -> list[GangId]:
    """Return who is estimated: whoever is promised something, then the first of every queue by its order."""
    found = dict.fromkeys(one.gang for one in world.promises)
    seen: dict[str, int] = {}
    for item in sorted(world.waiting.everyone, key=inside_queue):
        place = seen[item.gang.queue] = seen.get(item.gang.queue, 0) + 1
        if place <= EACH_QUEUE and len(found) < LOOKED_AT:
            found[item.gang.id] = None
    return list(found)


def _inside(found: StartRange, said: StartRange, now_ms: int) -> bool:
    """Whether a range says nothing that the one before did not say."""
    low, high, said_low, said_high = found.p50_ms, found.p90_ms, said.p50_ms, said.p90_ms
    if low is None or high is None or said_low is None or said_high is None or found.basis != said.basis:
        return False
    return said_low <= low and high <= said_high and said_high >= now_ms
