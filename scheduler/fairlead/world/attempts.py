"""Every attempt that holds something, with what time or misfortune may end kept apart from what just runs."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec

from fairlead.model.effects import Phase
from fairlead.model.gang import GangId, Tier
from fairlead.model.hardware import Node, NodeName
from fairlead.model.rules import Rules
from fairlead.world.charges import NodeOf, charged
from fairlead.world.gangs import GangRecord
from fairlead.world.layers import Frozen, Layers
from fairlead.world.lifecycle import HOLDING
from fairlead.world.pictures import Running, deadlines
from fairlead.world.ripeness import NO_CAPS, Caps, grows_from, ripe_at


class AttemptLog:
    """Which gangs' attempts changed, in order; revision r stands behind the first r changes. Old ones are let go."""

    __slots__ = ("_first", "_gangs")

    def __init__(self) -> None:
        """Nothing has changed."""
        self._first = 0
        self._gangs: list[GangId] = []

    @property
    def revision(self) -> int:
        """Return how many changes there were."""
        return self._first + len(self._gangs)

    def note(self, gang: GangId, alive: int) -> None:
        """Write down a change; of many more changes than there are attempts alive the older half is let go."""
        self._gangs.append(gang)
        if len(self._gangs) > 4 * alive + LOGGED_AT_LEAST:
            half = len(self._gangs) // 2
            self._first += half
            self._gangs = self._gangs[half:]

    def between(self, first: int, last: int) -> set[GangId] | None:
        """Return whose attempts changed from one revision to another, None where that is not known any more."""
        if not self._first <= first <= last:
            return None
        return set(self._gangs[first - self._first : last - self._first])


LOGGED_AT_LEAST = 4_096
_NOBODY: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Attempts:
    """Attempts as a World shows them. Iteration is over all of them, in no order that counts.

    doubtful    live ones of which something is known that may end them now, by uid; no other can end now
    stopping    those that are being ended, by uid
    noticed     those of them that were asked to save first and still run
    shrinking   live ones from which members are leaving, by uid
    short       running ones that may grow some day, by uid
    demoted     those that a budget does not cover, or that are idle, by uid
    idle        those that are idle for longer than their queue allows, by uid
    next_due_ms when time alone may end another one, None where it can't
    ripened_ms  the last moment at which one became an attempt that may be taken from; `next_ripe_ms` the next
    pods_placing members of attempts that are being written to the cluster
    bounded     attempts with a declared duration, whose end is enforced
    used        what is counted beside GPUs: resource -> queue -> what its attempts are charged for
    log, revision tell two pictures of one state apart: see `changed_since`
    """

    everyone: Frozen[GangId, Running]
    doubtful: tuple[Running, ...]
    stopping: tuple[Running, ...]
    noticed: tuple[Running, ...]
    shrinking: tuple[Running, ...]
    short: tuple[Running, ...]
    demoted: tuple[Running, ...]
    idle: tuple[Running, ...]
    next_due_ms: int | None
    ripened_ms: int
    next_ripe_ms: int | None
    pods_placing: int
    bounded: int
    used: Mapping[str, Mapping[str, int]]
    log: AttemptLog
    revision: int

    def changed_since(self, log: AttemptLog | None, revision: int) -> set[GangId] | None:
        """Return gangs whose attempts may differ from those of an earlier picture; None where all may."""
        return self.log.between(revision, self.revision) if log is self.log else None

    def __iter__(self) -> Iterator[Running]:
        """Yield every attempt."""
        return iter(self.everyone)

    def __len__(self) -> int:
        """Count the attempts."""
        return len(self.everyone)

    def get(self, gang: GangId, attempt: int) -> Running | None:
        """Return that attempt of a gang, None where it holds nothing any more."""
        found = self.everyone.get(gang)
        return found if found is not None and found.attempt == attempt else None


class AttemptIndex:
    """The attempts of one state, filed one record at a time."""

    def __init__(self) -> None:
        """Nothing runs."""
        self._everyone: Layers[GangId, Running] = Layers()
        self._unwell: dict[GangId, Running] = {}
        self._stopping: dict[GangId, Running] = {}
        self._noticed: dict[GangId, Running] = {}
        self._shrinking: dict[GangId, Running] = {}
        self._short: dict[GangId, Running] = {}
        self._demoted: dict[GangId, Running] = {}
        self._idle: dict[GangId, Running] = {}
        self._due_of: dict[GangId, int] = {}
        self._due: list[tuple[int, GangId]] = []
        self._ripe: list[tuple[int, GangId]] = []
        self._pods_placing = self._bounded = 0
        self._log = AttemptLog()
        self._counted: tuple[str, ...] = ()
        self._node_of: NodeOf = _no_node
        self._used: dict[str, dict[str, int]] = {}

    def count(self, counted: tuple[str, ...], node_of: NodeOf) -> None:
        """Count other resources from now on; every attempt must be filed again after that."""
        self._counted, self._node_of = counted, node_of
        self._used = {resource: {} for resource in counted}
        for gang, attempt in list(self._everyone.live.items()):
            self._everyone.put(gang, msgspec.structs.replace(attempt, also=()))

    def file(self, record: GangRecord, lost: set[NodeName], rules: Rules, caps: Caps = NO_CAPS) -> None:
        """Take up an attempt as it is, or let go of it."""
        self.forget(record.id)
        if record.phase not in HOLDING:
            return
        picture = _picture(record, rules, caps)
        if self._counted:
            members = [picture.placement.members[rank] for rank in sorted(picture.holding)]
            picture = msgspec.structs.replace(
                picture, also=charged(picture.spec, members, self._node_of, self._counted)
            )
            self._charge(picture, 1)
        self._everyone.put(picture.gang, picture)
        self._bounded += _is_bounded(picture)
        self._log.note(picture.gang, len(self._everyone.live))
        if picture.ripe_ms:
            insort(self._ripe, (picture.ripe_ms, picture.gang))
        if picture.phase is Phase.STOPPING:
            self._stopping[picture.gang] = picture
            if picture.notice is not None:
                self._noticed[picture.gang] = picture
            return
        if picture.demoted:
            self._demoted[picture.gang] = picture
        if picture.idle_ms is not None:
            self._idle[picture.gang] = picture
        if picture.leaving:
            self._shrinking[picture.gang] = picture
        if picture.grow_ms is not None:
            self._short[picture.gang] = picture
        if picture.phase is Phase.PLACING:
            self._pods_placing += len(picture.placement.members)
        if _is_unwell(picture, lost):
            self._unwell[picture.gang] = picture
        due_ms = min(deadlines(picture, rules), default=None)
        if due_ms is not None:
            self._due_of[picture.gang] = due_ms
            insort(self._due, (due_ms, picture.gang))

    def forget(self, gang: GangId) -> None:
        """Let go of a gang's attempt; none is no matter."""
        before = self._everyone.live.get(gang)
        if before is None:
            return
        self._everyone.drop(gang)
        self._bounded -= _is_bounded(before)
        self._charge(before, -1)
        self._log.note(gang, len(self._everyone.live))
        self._unwell.pop(gang, None)
        self._stopping.pop(gang, None)
        self._noticed.pop(gang, None)
        self._shrinking.pop(gang, None)
        self._short.pop(gang, None)
        self._demoted.pop(gang, None)
        self._idle.pop(gang, None)
        if before.phase is Phase.PLACING:
            self._pods_placing -= len(before.placement.members)
        if before.ripe_ms:
            del self._ripe[bisect_left(self._ripe, (before.ripe_ms, gang))]
        due_ms = self._due_of.pop(gang, None)
        if due_ms is not None:
            del self._due[bisect_left(self._due, (due_ms, gang))]

    def _charge(self, attempt: Running, sign: int) -> None:
        for resource, amount in attempt.also:
            of = self._used[resource]
            of[attempt.queue] = of.get(attempt.queue, 0) + sign * amount

    def picture(self, now_ms: int) -> Attempts:
        """Return what runs at `now_ms`. O(what changed + what may end)."""
        due = bisect_right(self._due, now_ms, key=_moment)
        ripe = bisect_right(self._ripe, now_ms, key=_moment)
        doubtful = {**self._unwell, **{gang: self._everyone.live[gang] for _, gang in self._due[:due]}}
        return Attempts(
            everyone=self._everyone.freeze(),
            doubtful=tuple(doubtful[gang] for gang in sorted(doubtful)),
            stopping=tuple(self._stopping[gang] for gang in sorted(self._stopping)),
            noticed=tuple(self._noticed[gang] for gang in sorted(self._noticed)),
            shrinking=tuple(self._shrinking[gang] for gang in sorted(self._shrinking)),
            short=tuple(self._short[gang] for gang in sorted(self._short)),
            demoted=tuple(self._demoted[gang] for gang in sorted(self._demoted)),
            idle=tuple(self._idle[gang] for gang in sorted(self._idle)),
            next_due_ms=self._due[due][0] if due < len(self._due) else None,
            ripened_ms=self._ripe[ripe - 1][0] if ripe else 0,
            next_ripe_ms=self._ripe[ripe][0] if ripe < len(self._ripe) else None,
            pods_placing=self._pods_placing,
            bounded=self._bounded,
            used={resource: of.copy() for resource, of in self._used.items()},
            log=self._log,
            revision=self._log.revision,
        )


def _no_node(_: NodeName) -> Node | None:
    return None


def _moment(item: tuple[int, GangId]) -> int:
    return item[0]


def _is_bounded(attempt: Running) -> bool:
    return attempt.spec is not None and attempt.spec.duration_ms is not None


def _is_unwell(attempt: Running, lost: set[NodeName]) -> bool:
    """Whether anything but time may end a live attempt."""
    spec = attempt.spec
    if attempt.gone or spec is None or spec.suspended or attempt.succeeded or attempt.failed or attempt.stray:
        return True
    return bool(lost) and any(attempt.placement.members[rank].node in lost for rank in attempt.staying)


def _picture(record: GangRecord, rules: Rules, caps: Caps) -> Running:
    """Return the attempt as it is."""
    attempt = record.current
    assert attempt is not None, record
    members = attempt.placement.members
    robbed = (
        tuple(
            (rank, since)
            for rank, since in sorted(attempt.released.items())
            if rank not in attempt.succeeded and rank not in attempt.failed and rank not in attempt.left
        )
        if attempt.released
        else ()
    )
    spec = record.gang
    demoted = attempt.tier is Tier.OPPORTUNISTIC and spec is not None and not spec.is_spare
    return Running(
        gang=record.id,
        spec=spec.as_spare() if demoted and spec is not None else spec,
        demoted=demoted,
        queue=record.queue,
        attempt=attempt.number,
        placement=attempt.placement,
        tier=attempt.tier,
        phase=record.phase,
        since_ms=attempt.since_ms,
        deadline_ms=attempt.deadline_ms,
        bound_ms=attempt.bound_ms,
        all_running_ms=attempt.all_running_ms,
        holding=frozenset(attempt.holding),
        running=frozenset(attempt.running),
        succeeded=frozenset(attempt.succeeded),
        failed=tuple(sorted(attempt.failed.items())) if attempt.failed else (),
        robbed=robbed,
        restarts=record.restarts,
        gone=record.gone,
        ripe_ms=ripe_at(record, attempt, rules, caps),
        gpu_milli=sum(members[rank].gpu_milli for rank in attempt.holding),
        saved_ms=attempt.saved_ms,
        notice=attempt.notice if attempt.stop is None else None,
        answered=attempt.answered,
        failures=tuple(sorted(record.failures.items())) if record.failures else (),
        beat_ms=attempt.beat_ms,
        measured=record.measured,
        leaving=frozenset(attempt.leaving) if attempt.leaving else _NOBODY,
        left=frozenset(attempt.left) if attempt.left else _NOBODY,
        joining=tuple(sorted(attempt.joining.items())) if attempt.joining else (),
        stray=tuple(sorted(attempt.stray.items())) if attempt.stray else (),
        grow_ms=grows_from(record, attempt, rules),
        idle_ms=attempt.idle_ms,
    )
