"""Everybody who waits, in lines, kept in order as records change: a picture costs what has changed since the last one.

Theory of operation. `Lines.file` puts one gang where it belongs: among the nominated, among those that wait out a
backoff, or into the line of its request. `Lines.picture` then gives every changed line its place in its queue. A queue
has three sorted lists: lines that the present walk over the queues has not asked, lines that it was refused for and
that stay so until an epoch or a moment which could change the answer, and lines for which that has come before the walk
was over. Lists are merged when a walk has come to its end, which sorted runs make linear.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import msgspec

from fairlead.model.gang import Gang, GangId
from fairlead.model.quota import Amounts, added, times
from fairlead.model.reasons import Reason
from fairlead.world.charges import wanted
from fairlead.world.checkpoints import held_to_checkpoint
from fairlead.world.doors import Cap, Doors
from fairlead.world.gangs import GangRecord, is_hopeless, is_waiting
from fairlead.world.layers import Frozen, Layers
from fairlead.world.lines import Entry, Line, Request, by_age, request_of, retry_ms
from fairlead.world.pictures import Waiting

OLDEST = 1 << 40
"""A priority above all that anybody can give."""
AskKey = tuple[str, str, str, str]
"""(queue, namespace, priority class, service class): what a queue's rules look at."""


class Ask(msgspec.Struct, frozen=True):
    """What all waiting gangs of one `AskKey` want together, hopeless ones left out. `example` is one of them.

    `also` is what they want of what is counted beside GPUs.
    """

    gangs: int
    gpu_milli: int
    example: Gang
    also: Amounts = ()


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Backlog:
    """Who waits, as a World shows it. Iteration is over every waiting gang.

    fresh       per queue, in order: lines that the present walk has still to ask
    reopened    per queue, in order: lines that it has asked, and that may be answered differently by now
    refused     per queue, in order: lines whose refusal still holds
    nominated   gangs for which room is being made, by uid
    asked       what is wanted, by what a queue's rules look at
    outside     who may not stand in line, with the cap that keeps them out, and has not been told so
    retry_at_ms when the next backoff ends, or time alone may change an answer, None where neither comes
    """

    everyone: Frozen[GangId, Waiting]
    fresh: Mapping[str, Sequence[Entry]]
    reopened: Mapping[str, Sequence[Entry]]
    refused: Mapping[str, Sequence[Entry]]
    nominated: tuple[Waiting, ...]
    asked: Mapping[AskKey, Ask]
    retry_at_ms: int | None
    outside: tuple[tuple[Waiting, Cap], ...] = ()

    def __iter__(self) -> Iterator[Waiting]:
        """Yield every waiting gang by age, then uid."""
        return iter(sorted(self.everyone, key=by_age))

    def __len__(self) -> int:
        """Count the waiting gangs."""
        return len(self.everyone)

    def get(self, gang: GangId) -> Waiting | None:
        """Return a waiting gang, None where it does not wait."""
        return self.everyone.get(gang)


class Lines:
    """All lines of one state. Lists that a picture has are copied before they change.

    A gang that has waited for as long as `aging_of` says of its queue is ahead of all that came later, whatever their
    priority: a stream of urgent work keeps nobody waiting for longer than that.
    """

    def __init__(self, aging_of: Callable[[str], int] | None = None, doors: Doors | None = None) -> None:
        """Nobody waits. Without `aging_of` nobody grows old; `doors` know who may stand in line."""
        self._aging_of = aging_of
        self._growing: list[tuple[int, int, Line]] = []
        self._serial = 0
        self._doors = doors or Doors()
        self._outside: dict[GangId, tuple[GangRecord, Waiting, Cap]] = {}
        self._now_ms = 0
        self._everyone: Layers[GangId, Waiting] = Layers()
        self._lines: dict[Request, Line] = {}
        self._line_of: dict[GangId, Line] = {}
        self._nominated: dict[GangId, Waiting] = {}
        self._promised: set[GangId] = set()
        self._backoffs: list[tuple[int, GangId]] = []
        self._backing_off: dict[GangId, GangRecord] = {}
        self._apart: dict[GangId, tuple[AskKey, int, Amounts]] = {}
        self._counted: tuple[str, ...] = ()
        self._asked: dict[AskKey, Ask] = {}
        self._dirty: dict[int, Line] = {}
        self._retries: list[tuple[int, int, Line]] = []
        self._told = 0
        self._fresh = _Side()
        self._reopened = _Side()
        self._refused = _Side()
        self._answers_hold: tuple[int, tuple[int, ...]] = (-1, ())

    # --- where a gang belongs ---------------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> None:
        """Let time pass; it never goes back. Gangs whose backoff is over come into line."""
        self._now_ms = max(self._now_ms, now_ms)
        while self._backoffs and self._backoffs[0][0] <= self._now_ms:
            gang = self._backoffs[0][1]
            self.file(self._backing_off[gang])
        while self._retries and self._retries[0][0] <= self._now_ms:
            line = heappop(self._retries)[2]
            line.answered = False
            if line.entry is not None and self._refused.remove(line.queue, line.entry):
                self._fresh.add(line.queue, line.entry)
        while self._growing and self._growing[0][0] <= self._now_ms:
            self._grow_old(heappop(self._growing)[2])

    @property
    def somebody_outside(self) -> bool:
        """Whether anybody waits who may not stand in line."""
        return bool(self._outside)

    def file(self, record: GangRecord, *, promised: bool | None = None) -> None:
        """Put a gang where it belongs now, or take it out.

        Who is `promised` something has a line of its own; None: as when it was filed last.
        """
        if promised is not None:
            (self._promised.add if promised else self._promised.discard)(record.id)
        gang, before = record.gang, self._everyone.live.get(record.id)
        if before is not None:
            self._take_out(record.id, before)
        if gang is None or not is_waiting(record):
            self._everyone.drop(record.id)
            record.leave_line()
            return
        gang = held_to_checkpoint(gang, record.saved)
        picture = Waiting(
            gang=gang,
            attempts=record.attempts,
            retry_at_ms=record.retry_at_ms,
            nomination=record.nomination,
            arrived=record.arrived,
            displaced=record.displaced,
        )
        self._everyone.put(record.id, picture)
        cap = self._doors.full(record.id) if record.nomination is None else None
        if cap is not None:
            record.leave_line()
            self._outside[record.id] = record, picture, cap
            return
        if record.nomination is None and record.retry_at_ms <= self._now_ms:
            request = request_of(gang, displaced=picture.displaced)
            self._join(record, picture, (*request, gang.id) if gang.id in self._promised else request)
            return
        record.leave_line()
        if not is_hopeless(record):
            also = wanted(gang, self._counted)
            self._apart[record.id] = (ask_key(gang), gang.gpu_milli, also)
            self._ask(ask_key(gang), 1, gang.gpu_milli, gang, also)
        if record.nomination is not None:
            self._nominated[record.id] = picture
        else:
            insort(self._backoffs, (record.retry_at_ms, record.id))
            self._backing_off[record.id] = record

    def forget(self, gang: GangId) -> None:
        """Take out a gang that is no more."""
        before = self._everyone.live.get(gang)
        self._promised.discard(gang)
        if before is not None:
            self._take_out(gang, before)
            self._everyone.drop(gang)

    def refused(self, line: Line) -> None:
        """Hear that a line was told why not, as the state was in the last picture."""
        self._dirty[id(line)] = line
        retry_at_ms = None if line.refusal is None else retry_ms(line.example, line.refusal)
        line.answered = retry_at_ms is None or retry_at_ms > self._now_ms
        if retry_at_ms is not None:
            self._told += 1
            heappush(self._retries, (retry_at_ms, self._told, line))

    def _join(self, record: GangRecord, picture: Waiting, request: Request) -> None:
        line = self._lines.get(request)
        if line is None:
            gang = picture.gang
            also = wanted(gang, self._counted)
            line = self._lines[request] = Line(example=gang, request=request, ask_key=ask_key(gang), also=also)
        if not line.ready or by_age(line.ready[-1]) < by_age(picture):  # who came last mostly is the last
            line.ready.append(picture)
        else:
            insort(line.ready, picture, key=by_age)
        self._line_of[record.id] = line
        self._dirty[id(line)] = line
        if record.line is not line:
            record.leave_line()
            record.line, record.joined = line, line.refusals
        if line.refusals == record.joined:
            line.untold[record.id] = record

    def _take_out(self, gang: GangId, before: Waiting) -> None:
        line = self._line_of.pop(gang, None)
        if line is not None:
            at = bisect_left(line.ready, by_age(before), key=by_age)
            assert line.ready[at] is before, (gang, at)
            del line.ready[at]
            line.untold.pop(gang, None)
            self._dirty[id(line)] = line
            return
        self._nominated.pop(gang, None)
        self._outside.pop(gang, None)
        if self._backing_off.pop(gang, None) is not None:
            del self._backoffs[bisect_left(self._backoffs, (before.retry_at_ms, gang))]
        key, gpu_milli, also = self._apart.pop(gang, (None, 0, ()))
        if key is not None:
            self._ask(key, -1, -gpu_milli, before.gang, times(-1, also))

    def count(self, counted: tuple[str, ...]) -> None:
        """Count what is wanted of other resources, too, from now on."""
        if counted == self._counted:
            return
        self._counted = counted
        self._asked = {key: msgspec.structs.replace(ask, also=()) for key, ask in self._asked.items()}
        for gang, (key, gpu_milli, _) in list(self._apart.items()):
            spec = self._everyone.live[gang].gang
            self._apart[gang] = (key, gpu_milli, also := wanted(spec, counted))
            self._ask(key, 0, 0, spec, also)
        for line in self._lines.values():
            line.also = wanted(line.example, counted)
            if line.counted:
                self._ask(line.ask_key, 0, 0, line.example, times(line.counted, line.also))

    def _ask(self, key: AskKey, gangs: int, gpu_milli: int, example: Gang, also: Amounts) -> None:
        known = self._asked.get(key)
        if known is not None:
            gangs, gpu_milli, example = known.gangs + gangs, known.gpu_milli + gpu_milli, known.example
            also = added(known.also, also)
        if gangs:
            self._asked[key] = Ask(gangs, gpu_milli, example, also)
        else:
            self._asked.pop(key, None)

    # --- the picture ------------------------------------------------------------------------------------------------

    def picture(self, epoch: int, moments: tuple[int, ...], *, cut: bool) -> Backlog:
        """Return who waits now. Refusals of another epoch, or from before one of these `moments`, hold no longer.

        `cut` says that the last walk did not come to its end and goes on.
        """
        # All of them leave before one comes: the first gang of one line may have been that of another a moment ago.
        for line, side in [(line, self._take_line_out(line)) for line in self._dirty.values()]:
            self._put(line, side)
        self._dirty = {}
        if self._answers_hold != (epoch, moments):
            self._answers_hold = (epoch, moments)
            self._reopened.take_over(self._refused)
        if not cut:
            self._fresh.take_over(self._reopened)
        return Backlog(
            everyone=self._everyone.freeze(),
            fresh=self._fresh.picture(),
            reopened=self._reopened.picture(),
            refused=self._refused.picture(),
            nominated=tuple(self._nominated[gang] for gang in sorted(self._nominated)),
            asked=dict(self._asked),
            outside=tuple(self._news_outside()),
            retry_at_ms=min((queue[0][0] for queue in (self._backoffs, self._retries) if queue), default=None),
        )

    def _news_outside(self) -> Iterator[tuple[Waiting, Cap]]:
        """Yield who has to wait outside and has not been told so."""
        for gang in sorted(self._outside):
            record, picture, cap = self._outside[gang]
            told = record.refusal
            if told is None or told.reason is not Reason.QUEUE_FULL:
                yield picture, cap

    def _take_line_out(self, line: Line) -> _Side:
        """Take a line out of its place; returns the side it was on."""
        side = self._fresh
        if line.entry is not None:
            side = next(s for s in (self._fresh, self._reopened, self._refused) if s.remove(line.queue, line.entry))
        line.entry = None
        return side

    def _put(self, line: Line, side: _Side) -> None:
        """Give a changed line its place, and what it wants its weight."""
        hoping = 0 if line.hopeless else len(line.ready)
        if hoping != line.counted:
            more = hoping - line.counted
            self._ask(line.ask_key, more, more * line.example.gpu_milli, line.example, times(more, line.also))
            line.counted = hoping
        if not line.ready:
            if self._lines.get(line.request) is line:
                del self._lines[line.request]
            return
        line.entry = self._entry(line)
        if line.answered:
            line.answered, side = False, self._refused
        side.add(line.queue, line.entry)
        if side is not self._fresh:
            line.hear()

    def _entry(self, line: Line) -> Entry:
        """Return a line's place by its first gang; notes when that one will be old."""
        first, old_ms = line.ready[0].gang, None
        if self._aging_of is not None:
            old_ms = first.submitted_ms + self._aging_of(line.queue)
            if old_ms > self._now_ms and old_ms != line.old_ms:
                self._serial += 1
                heappush(self._growing, (old_ms, self._serial, line))
                line.old_ms = old_ms
        ahead = OLDEST if old_ms is not None and old_ms <= self._now_ms else first.priority
        return (-ahead, first.submitted_ms, first.id, line.picture())

    def _grow_old(self, line: Line) -> None:
        """Move a line ahead whose first gang has become old; what it was told still holds."""
        if line.entry is None or id(line) in self._dirty:
            return
        side = next(s for s in (self._fresh, self._reopened, self._refused) if s.remove(line.queue, line.entry))
        line.entry = self._entry(line)
        side.add(line.queue, line.entry)


class _Side:
    """Per queue a sorted list of lines. Lists that a picture has are copied before they change."""

    def __init__(self) -> None:
        self._lists: dict[str, list[Entry]] = {}
        self._own: set[str] = set()

    def remove(self, queue: str, entry: Entry) -> bool:
        """Take a line out; returns whether it was here."""
        entries = self._lists.get(queue)
        at = 0 if entries is None else bisect_left(entries, entry[:3])
        if entries is None or at == len(entries) or entries[at] is not entry:
            return False
        del self._owned(queue)[at]
        if not self._lists[queue]:
            del self._lists[queue]
        return True

    def add(self, queue: str, entry: Entry) -> None:
        insort(self._owned(queue), entry)

    def take_over(self, other: _Side) -> None:
        """Empty another side into this one."""
        for queue, entries in other._lists.items():
            known = self._lists.get(queue)
            self._lists[queue] = sorted([*known, *entries]) if known else entries.copy()
            self._own.add(queue)
        other._lists, other._own = {}, set()

    def picture(self) -> Mapping[str, Sequence[Entry]]:
        self._own = set()
        return dict(self._lists)

    def _owned(self, queue: str) -> list[Entry]:
        if queue not in self._own or queue not in self._lists:
            self._lists[queue] = self._lists.get(queue, []).copy()
            self._own.add(queue)
        return self._lists[queue]


def ask_key(gang: Gang) -> AskKey:
    """Return what a queue's rules look at."""
    return (gang.queue, gang.namespace, gang.priority_class, gang.service_class.value)
