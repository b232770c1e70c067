"""The order in which waiting gangs are looked at, re-decided after every placement."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence

from fairlead.ordering.standing import OrderKey, Standing
from fairlead.world.backlog import Backlog
from fairlead.world.lines import Entry
from fairlead.world.pictures import Waiting

ELDERS_ASKED = 8
"""Gangs that are asked at most before one that has just come, in its queue."""
_Head = tuple[int, int, str, Sequence[Waiting], int]
"""(−priority, age, uid) of a line's next gang, then who is ready in the line, and the gang's place there."""


def inside_queue(waiting: Waiting) -> tuple[int, int, str]:
    """Priority first, then age, then uid, so that the order is total."""
    return (-waiting.gang.priority, waiting.gang.submitted_ms, waiting.gang.id)


REFUSAL_STEPS = 2
"""What a refusal counts as in a slice, where a pod that is placed is one step."""


class Walk:
    """One walk over the queues: the one that stands furthest back first, inside it by priority and age.

    `standing` is read again before each step, so what the caller charges to it moves the order. After each gang the
    caller says whether its line goes on (`go_on`) or was told why not (`line_refused`). Only lines that may be
    answered anew are walked. A step is O(log queues + log lines looked at); what is not reached costs nothing.

    Lines that this walk has asked before, and whose answer may be another by now, keep their place in the order for the
    first `again` steps. Then the others come first, so that a walk comes to its end however often something changes.
    `steps` is the work that refusals have been so far.
    """

    def __init__(self, backlog: Backlog, standing: Standing, *, cut_version: int | None = None, again: int) -> None:
        """Stand before the first gang. `cut_version` is when the walk before this one was cut short, if it was.

        Then a queue has its turn at once when the first that is still to be asked there came since: who comes while a
        long backlog is being worked does not wait for its end. Those before it are asked again before it, if they are
        few.
        """
        self.steps = 0
        self._standing = standing
        self._fresh, self._reopened = _Lists(backlog.fresh), _Lists(backlog.reopened)
        self._next: dict[str, list[_Head]] = {}
        self._again = again
        self._late = False
        self._queues: list[OrderKey] = []
        self._start({*backlog.fresh, *backlog.reopened})
        self._first: list[tuple[str, Entry]] = []
        self._patience = ELDERS_ASKED
        self._last: tuple[str, _Head] | None = None
        if cut_version is not None:
            heads = [(key[-1], self._fresh.peek(key[-1])) for key in reversed(self._queues)]
            self._first = [(q, entry) for q, entry in heads if entry and entry[3].ready[0].arrived > cut_version]

    def step(self) -> Waiting | None:
        """Return the next gang, None at the end."""
        while self._first:
            queue, entry = self._first[-1]
            if self._fresh.peek(queue) is entry and self._patience:
                self._patience -= 1
                return self._take(queue, elders=True)
            self._first.pop()
            self._patience = ELDERS_ASKED
        while True:
            while self._queues:
                key = self._queues[0]
                fresh = self._key(key[-1])
                if fresh != key:
                    heapq.heapreplace(self._queues, fresh)
                    continue
                found = self._take(key[-1])
                if found is not None:
                    return found
                heapq.heappop(self._queues)
            if self._late:
                return None
            self._late = True
            self._start(self._reopened.queues())

    def line_refused(self) -> None:
        """Leave out the line of the last gang: everybody in it has the same answer."""
        self.steps += REFUSAL_STEPS
        self._last = None

    def go_on(self) -> None:
        """Put the next gang of the last one's line in its place in the queue."""
        assert self._last is not None
        queue, (_, _, _, ready, at) = self._last
        self._last = None
        if at + 1 < len(ready):
            heapq.heappush(self._next.setdefault(queue, []), (*inside_queue(ready[at + 1]), ready, at + 1))

    def _start(self, queues: Iterable[str]) -> None:
        self._queues = sorted(self._key(name) for name in queues)  # a sorted list is a heap

    def _key(self, queue: str) -> OrderKey:
        """Return a queue's place in the order; in a scope of priority its next gang decides, too."""
        standing = self._standing
        if queue not in standing.tree.scopes:
            return standing.order_key(queue)
        again = self._again > 0 or self._late
        entries = (self._fresh.peek(queue), self._reopened.peek(queue) if again else None)
        heads = [-entry[0] for entry in entries if entry is not None]
        heads += [-head[0] for head in self._next.get(queue, ())[:1]]
        return standing.order_key(queue, max(heads, default=0))

    def _take(self, queue: str, *, elders: bool = False) -> Waiting | None:
        """Take the first gang out of a queue; `elders` asks those again, too, for which there are no steps."""
        side = self._fresh
        entry, asked = side.peek(queue), self._reopened.peek(queue)
        if asked is not None and (elders or self._again > 0 or self._late) and (entry is None or asked < entry):
            side, entry = self._reopened, asked
        following = self._next.get(queue)
        if entry is not None and (not following or entry[:3] < following[0][:3]):
            side.skip(queue)
            self._again -= side is self._reopened and not elders
            ready = entry[3].ready
            self._last = queue, (*entry[:3], ready, 0)
            return ready[0]
        if not following:
            return None
        head = heapq.heappop(following)
        self._last = queue, head
        return head[3][head[4]]


class _Lists:
    """One sorted list a queue, read from its front."""

    def __init__(self, lists: Mapping[str, Sequence[Entry]]) -> None:
        self._lists = lists
        self._at: dict[str, int] = dict.fromkeys(lists, 0)

    def peek(self, queue: str) -> Entry | None:
        entries, at = self._lists.get(queue, ()), self._at.get(queue, 0)
        return entries[at] if at < len(entries) else None

    def skip(self, queue: str) -> None:
        self._at[queue] += 1

    def queues(self) -> list[str]:
        return [queue for queue, entries in self._lists.items() if self._at[queue] < len(entries)]


def positions(waiting: Iterable[Waiting]) -> dict[str, int]:
    """Return each gang's place in its own queue, from 1."""
    count: dict[str, int] = {}
    placed: dict[str, int] = {}
    for item in sorted(waiting, key=lambda w: (w.gang.queue, *inside_queue(w))):
        count[item.gang.queue] = count.get(item.gang.queue, 0) + 1
        placed[item.gang.id] = count[item.gang.queue]
    return placed
