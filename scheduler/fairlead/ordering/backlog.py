"""The order in which waiting gangs are looked at, re-decided after every placement."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from fairlead.ordering.standing import Standing
from fairlead.world.backlog import Backlog
from fairlead.world.pictures import Waiting

_Head = tuple[int, int, str, int, int]
"""(−priority, age, uid) of a line's next gang, then the line's place in its queue and the gang's in the line."""


def inside_queue(waiting: Waiting) -> tuple[int, int, str]:
    """Priority first, then age, then uid, so that the order is total."""
    return (-waiting.gang.priority, waiting.gang.submitted_ms, waiting.gang.id)


class Walk:
    """One walk over the queues: the one that stands furthest back first, inside it by priority and age.

    `standing` is read again before each step, so what the caller charges to it moves the order. After each gang the
    caller says whether its line goes on (`go_on`) or was told why not (`line_refused`). Only lines that may be
    answered anew are walked. A step is O(log queues + log lines looked at); what is not reached costs nothing.
    """

    def __init__(self, backlog: Backlog, standing: Standing, cut_version: int | None = None) -> None:
        """Stand before the first gang. `cut_version` is when the walk before this one was cut short, if it was.

        Then gangs that came since and are the first of their queue have their turn at once, one a queue: who comes
        while a long backlog is being worked does not wait for its end.
        """
        self._fresh = backlog.fresh
        self._standing = standing
        self._at: dict[str, int] = dict.fromkeys(self._fresh, 0)
        self._again: dict[str, list[_Head]] = {}
        self._queues = sorted(standing.order_key(name) for name in self._fresh)  # a sorted list is a heap
        self._first: list[str] = []
        self._last: tuple[str, _Head] | None = None
        if cut_version is not None:
            heads = {name: entries[0][3].ready[0] for name, entries in self._fresh.items()}
            self._first = [key[2] for key in reversed(self._queues) if heads[key[2]].arrived > cut_version]

    def step(self) -> Waiting | None:
        """Return the next gang, None at the end."""
        if self._first:
            return self._head(self._first.pop())
        while self._queues:
            key = self._queues[0]
            fresh = self._standing.order_key(key[2])
            if fresh != key:
                heapq.heapreplace(self._queues, fresh)
                continue
            found = self._head(key[2])
            if found is not None:
                return found
            heapq.heappop(self._queues)
        return None

    def line_refused(self) -> None:
        """Leave out the line of the last gang: everybody in it has the same answer."""
        self._last = None

    def go_on(self) -> None:
        """Put the next gang of the last one's line in its place in the queue."""
        assert self._last is not None
        queue, (_, _, _, line, at) = self._last
        self._last = None
        ready = self._fresh[queue][line][3].ready
        if at + 1 < len(ready):
            heapq.heappush(self._again.setdefault(queue, []), (*inside_queue(ready[at + 1]), line, at + 1))

    def _head(self, queue: str) -> Waiting | None:
        """Take the first gang out of a queue."""
        entries, line = self._fresh[queue], self._at[queue]
        again = self._again.get(queue)
        if line < len(entries) and (not again or entries[line][:3] < again[0][:3]):
            self._at[queue] = line + 1
            priority, since_ms, gang, picture = entries[line]
            self._last = queue, (priority, since_ms, gang, line, 0)
            return picture.ready[0]
        if not again:
            return None
        head = heapq.heappop(again)
        self._last = queue, head
        return entries[head[3]][3].ready[head[4]]


def positions(waiting: Iterable[Waiting]) -> dict[str, int]:
    """Return each gang's place in its own queue, from 1."""
    count: dict[str, int] = {}
    placed: dict[str, int] = {}
    for item in sorted(waiting, key=lambda w: (w.gang.queue, *inside_queue(w))):
        count[item.gang.queue] = count.get(item.gang.queue, 0) + 1
        placed[item.gang.id] = count[item.gang.queue]
    return placed
