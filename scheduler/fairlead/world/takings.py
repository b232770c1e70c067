"""What was taken of whom lately: remembered in bounds, for caps in a window and so that takings come to an end.

Theory of operation. Stops and shrinks for somebody's sake are counted per queue, minute by minute, for one window: at
most `MINUTES` + 1 entries a queue, and one that is a minute too old may still count. Beside it stands who was given
room by a right since the last fact from outside. Such a gang is *settled*: nothing takes from it until something
happens outside. So each gang takes at most once between two facts from outside, and is not taken from after it has:
the number of gangs that may still take falls with every taking and is raised by nothing that we do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from fairlead.model import events as ev
from fairlead.model.gang import GangId
from fairlead.model.keeping import kept_after
from fairlead.world.gangs import GangRecord

MINUTE_MS = 60_000
MINUTES = 60
WINDOW_MS = MINUTES * MINUTE_MS
"""The window of all caps: one hour."""

MOST_REMEMBERED = 32
"""Takings remembered of one gang: no cap of a job can be higher."""

OUTSIDE: frozenset[type] = frozenset(
    {
        ev.NodeSeen, ev.NodeGone, ev.NodeLost, ev.NodeUsed, ev.ForeignDevices, ev.QueueSeen, ev.QueueGone, ev.PoolSeen,
        ev.PoolGone, ev.GangSeen, ev.GangRefused, ev.GangGone, ev.StopRefused, ev.PlaceFailed, ev.MemberEnded,
        ev.Recovered, ev.Remembered,
    }
)  # fmt: skip
"""Facts from outside. What answers our own effects (bound, running, released) is none, nor what we intend ourselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """As a World shows it.

    by_queue    takings and GPU-ms of lost work in the window, by the queue that they were taken of
    settled     gangs that were given room by a right since the last fact from outside
    ripened_ms  the last moment at which something left the window, `next_ms` the next one
    """

    by_queue: Mapping[str, tuple[int, int]]
    settled: frozenset[GangId]
    ripened_ms: int
    next_ms: int | None


class Takings:
    """The record of one state. `kept` is what rules keep free, by name of the rule."""

    def __init__(self) -> None:
        """Nothing was taken."""
        self._minutes: dict[str, deque[list[int]]] = {}
        self._settled: set[GangId] = set()
        self._ripened_ms = 0
        self._capped = True
        self._shown: Taken | None = None
        self.kept: Mapping[str, ev.KeptFree] = {}

    def note(
        self, record: GangRecord, fact: ev.StopIntended | ev.NoticeIntended | ev.ShrinkIntended, *, again: bool = False
    ) -> None:
        """Count one taking, for the gang and for its queue, unless it is for nobody or was counted when it was said."""
        if again or not fact.by:
            return
        record.taken_ms = (*record.taken_ms, fact.at_ms)[-MOST_REMEMBERED:]
        self._count(record.queue, fact.at_ms, fact.lost_gpu_ms)

    def _count(self, queue: str, at_ms: int, lost_gpu_ms: int) -> None:
        minutes = self._minutes.setdefault(queue, deque(maxlen=MINUTES + 1))
        minute = at_ms // MINUTE_MS
        if not minutes or minutes[-1][0] < minute:  # a clock that steps back counts with the minute before
            minutes.append([minute, 0, 0])
        minutes[-1][1] += 1
        minutes[-1][2] += lost_gpu_ms
        self._shown = None

    def settle(self, gang: GangId) -> None:
        """Remember that room was made for a gang."""
        self._settled.add(gang)
        self._shown = None

    def hear(self, fact: ev.Event) -> bool:
        """Hear of a fact; returns whether it came from outside and somebody may be taken from again."""
        if isinstance(fact, ev.KeptFree):
            self.kept = kept_after(self.kept, fact)
        if not self._settled or type(fact) not in OUTSIDE:
            return False
        self._settled, self._shown = set(), None
        return True

    def picture(self, now_ms: int, *, capped: bool = True) -> Taken:
        """Return what counts at `now_ms`. Unless some queue is `capped`, nothing ripens."""
        if capped != self._capped:
            self._capped, self._shown = capped, None
        shown = self._shown
        if shown is not None and (shown.next_ms is None or now_ms < shown.next_ms):
            return shown
        for queue in list(self._minutes):
            minutes = self._minutes[queue]
            while minutes and _expires(minutes[0]) <= now_ms:
                self._ripened_ms = max(self._ripened_ms, _expires(minutes.popleft()))
            if not minutes:
                del self._minutes[queue]
        self._shown = Taken(
            by_queue={
                queue: (sum(entry[1] for entry in minutes), sum(entry[2] for entry in minutes))
                for queue, minutes in sorted(self._minutes.items())
            },
            settled=frozenset(self._settled),
            ripened_ms=self._ripened_ms if capped else 0,
            next_ms=min((_expires(minutes[0]) for minutes in self._minutes.values()), default=None),
        )
        return self._shown


def _expires(entry: list[int]) -> int:
    return (entry[0] + 1) * MINUTE_MS + WINDOW_MS
