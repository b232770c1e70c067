"""Who stands in line and who has to wait outside: the most that may be pending, and how fast jobs may come.

`Rates` are part of the state, moved by the fact that a gang has come. `Doors` are an index over who waits: of those in
a queue and below it, the first so many stand in line, who has run before first, then by age. Where each gang stands
follows from who waits and from nothing else, so a replay finds the same. A change moves at most one other gang for each
cap on the way up: O(caps · log gangs).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping

from fairlead.model.gang import Gang, GangId
from fairlead.model.queue_caps import Overflow
from fairlead.model.reasons import RETRY, Reason, refuse
from fairlead.model.tenancy import Queue, ancestors
from fairlead.units import utc_text
from fairlead.world.gangs import GangRecord, is_hopeless, is_waiting
from fairlead.world.lifecycle import Step

MINUTE_MS = 60_000
Cap = tuple[str, str]
"""(queue, service class): a queue's most of one class, or of all where the class is ""."""
_Place = tuple[bool, int, GangId]


class Rates:
    """How fast jobs come into queues (GCRA). Jobs that were there when the scheduler began are not counted."""

    def __init__(self) -> None:
        """Nobody has come yet."""
        self.since_ms: int | None = None
        self._next: dict[str, int] = {}

    def knock(self, record: GangRecord, gang: Gang, at_ms: int, queues: Mapping[str, Queue]) -> None:
        """Let a gang that has just come in, or say from when on it may, or turn it away."""
        if self.since_ms is None or gang.submitted_ms < self.since_ms:
            return
        limited = [queues[name] for name in ancestors(gang.queue, dict(queues)) if queues[name].caps.submit_rate]
        due: dict[str, int] = {}
        late_ms, binding = at_ms, ""
        for queue in limited:
            rate = queue.caps.submit_rate
            assert rate is not None, queue
            # In ms times jobs a minute, so that everything is whole: a job takes a minute of that.
            now = at_ms * rate.per_minute
            due[queue.name] = max(self._next.get(queue.name, 0), now) + MINUTE_MS
            from_ms = -(-(due[queue.name] - rate.burst * MINUTE_MS) // rate.per_minute)
            if from_ms > late_ms:
                late_ms, binding = from_ms, queue.name
        if not binding or queues[binding].caps.overflow is Overflow.DEFER:
            self._next |= due
        if binding:
            rate = queues[binding].caps.submit_rate
            assert rate is not None, binding
            record.refusal = refuse(
                Reason.SUBMIT_RATE,
                queue=binding,
                per_minute=rate.per_minute,
                burst=rate.burst,
                retry_at=utc_text(late_ms + 999),
                **{RETRY: late_ms},
            )
            if queues[binding].caps.overflow is Overflow.DEFER:
                record.retry_at_ms = late_ms
            else:
                record.step(Step.REFUSED)


class Doors:
    """Where each waiting gang stands, by the caps on who may be pending. Costs nothing where there are none."""

    def __init__(self) -> None:
        """No caps."""
        self._queues: Mapping[str, Queue] | None = None
        self._most: dict[Cap, int] = {}
        self._chains: dict[str, tuple[str, ...]] = {}
        self._lists: dict[Cap, list[_Place]] = {}
        self._of: dict[GangId, tuple[_Place, tuple[Cap, ...]]] = {}

    @property
    def on(self) -> bool:
        """Whether anybody may have to stand outside."""
        return bool(self._most)

    def follow(self, queues: Mapping[str, Queue]) -> bool:
        """Take over the queues in force; returns whether every gang must be filed anew."""
        if queues is self._queues:
            return False
        self._queues = queues
        most: dict[Cap, int] = {}
        for name, queue in queues.items():
            if queue.caps.max_pending is not None:
                most[name, ""] = queue.caps.max_pending
            most |= {(name, of_class.value): count for of_class, count in queue.caps.max_pending_of}
        chains = {name: ancestors(name, dict(queues)) for name in queues} if most else {}
        if (most, chains) == (self._most, self._chains):
            return False
        self._most, self._chains, self._lists, self._of = most, chains, {}, {}
        return True

    def file(self, record: GangRecord) -> set[GangId]:
        """Give a gang its place, or take it away; returns the others who come in or have to go out for it."""
        moved = self.forget(record.id)
        gang = record.gang
        if gang is None or not is_waiting(record) or is_hopeless(record):
            return moved
        chain, of_class = self._chains.get(gang.queue, ()), gang.service_class.value
        caps = tuple(cap for name in chain for cap in ((name, ""), (name, of_class)) if cap in self._most)
        if caps:
            place = (record.attempts == 0, gang.submitted_ms, gang.id)
            self._of[gang.id] = place, caps
            for cap in caps:
                places, most = self._lists.setdefault(cap, []), self._most[cap]
                insort(places, place)
                if len(places) > most > 0 and place < places[most]:
                    moved.add(places[most][2])
        return moved

    def forget(self, gang: GangId) -> set[GangId]:
        """Take a gang's place away; returns who comes in for it."""
        place, caps = self._of.pop(gang, (None, ()))
        moved: set[GangId] = set()
        for cap in caps:
            assert place is not None, gang
            places, most = self._lists[cap], self._most[cap]
            at = bisect_left(places, place)
            del places[at]
            if at < most <= len(places) and most > 0:
                moved.add(places[most - 1][2])
        return moved

    def full(self, gang: GangId) -> Cap | None:
        """Return the first cap, from its queue up, that keeps a gang outside; None where it stands in line."""
        place, caps = self._of.get(gang, (None, ()))
        for cap in caps:
            assert place is not None, gang
            if bisect_left(self._lists[cap], place) >= self._most[cap]:
                return cap
        return None
