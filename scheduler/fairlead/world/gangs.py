"""What state remembers of one gang and of one attempt to run it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import msgspec

from fairlead.model.checkpoints import UNMEASURED, Measured, Saved
from fairlead.model.effects import Phase
from fairlead.model.events import (
    GrowFailed,
    GrowIntended,
    Intended,
    Nominated,
    NoticeIntended,
    Recovered,
    Remembered,
    ShrinkIntended,
    StopIntended,
)
from fairlead.model.gang import Gang, GangId, Member, Placement, Tier
from fairlead.model.hardware import NodeName
from fairlead.model.reasons import Kind, Refusal
from fairlead.model.retries import Failure
from fairlead.world.lifecycle import FINAL, Step, next_phase
from fairlead.world.lines import Line
from fairlead.world.use import Use

HoldKey = tuple[GangId, int, int]
"""(gang, attempt, rank)."""


class Hold(msgspec.Struct, frozen=True):
    """What one member takes from one node. `queue` is charged for it while the attempt is the gang's current one."""

    node: NodeName
    use: Use
    queue: str
    since_ms: int

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that it lies on, whole or in part."""
        return self.use.devices


@dataclass(slots=True)
class Attempt:
    """One try of a gang. Sets hold ranks; `holding` shrinks to nothing as devices are released.

    `failed` is rank -> why, `released` rank -> when. `leaving` is rank -> since when members leave for the sake of
    `shrunk_for`; those that have are in `left` for good. `joining` is rank -> since when members are on their way into
    it; until they run they are none of it, and what becomes of those in `stray` (rank -> why) is no failure of it.
    `joined_ms` is rank -> since when of all that were not there from the start. Its size last changed at `resized_ms`;
    `setbacks` counts when it became smaller again, or did not grow.
    What was done by `saved_ms` is in a committed checkpoint.
    `notice` says why it was asked to save; with `answered` it has. `stop` is why it is being stopped. `beat_ms` is when
    it last showed that it goes on. `from_room`: it took room that was made for it, which nobody else could have before.
    All its devices are idle since `idle_ms`, longer than its queue allows.
    """

    number: int
    placement: Placement
    tier: Tier
    since_ms: int
    deadline_ms: int
    holding: set[int]
    bound_ms: int | None = None
    all_running_ms: int | None = None
    running: set[int] = field(default_factory=set[int])
    succeeded: set[int] = field(default_factory=set[int])
    failed: dict[int, str] = field(default_factory=dict[int, str])
    released: dict[int, int] = field(default_factory=dict[int, int])
    notice: NoticeIntended | None = None
    answered: bool = False
    stop: StopIntended | None = None
    spared_until_ms: int = 0
    saved_ms: int | None = None
    beat_ms: int = 0
    leaving: dict[int, int] = field(default_factory=dict[int, int])
    left: set[int] = field(default_factory=set[int])
    shrunk_for: str = ""
    joining: dict[int, int] = field(default_factory=dict[int, int])
    joined_ms: dict[int, int] = field(default_factory=dict[int, int])
    stray: dict[int, str] = field(default_factory=dict[int, str])
    resized_ms: int = 0
    setbacks: int = 0
    from_room: bool = False
    idle_ms: int | None = None

    @property
    def present(self) -> int:
        """How many members belong to it: those who have left, are leaving or have not joined yet do not."""
        return len(self.placement.members) - len(self.left) - len(self.leaving) - len(self.joining)

    @property
    def at_work(self) -> Placement:
        """The placement of those who belong to it."""
        away = self.left | self.leaving.keys() | self.joining.keys()
        members = tuple(member for member in self.placement.members if member.rank not in away)
        return replace(self.placement, members=members) if away else self.placement

    @property
    def shown_placement(self) -> Placement:
        """The placement without those who have left."""
        if not self.left:
            return self.placement
        members = tuple(member for member in self.placement.members if member.rank not in self.left)
        return replace(self.placement, members=members)

    def shrink(self, fact: ShrinkIntended) -> bool:
        """Let members go; returns whether any did. Who has gone by himself stays what he is."""
        going = [rank for rank in fact.ranks if rank in self.holding and rank not in self.leaving]
        if self.stop is not None or not going:
            return False
        self._let_go(going, fact.at_ms)
        self.shrunk_for = fact.by
        return True

    def _let_go(self, ranks: Iterable[int], at_ms: int) -> None:
        going = list(ranks)
        self.leaving |= dict.fromkeys(going, at_ms)
        self.resized_ms, self.setbacks = at_ms, self.setbacks + 1
        for rank in going:
            self.running.discard(rank)
            for known in (self.failed, self.joining, self.stray):
                known.pop(rank, None)

    def grow(self, fact: GrowIntended) -> range:
        """Let members join; returns their ranks, none where they do already or it is to stop."""
        first, known = len(fact.placement.members) - fact.joining, len(self.placement.members)
        if self.stop is not None or self.notice is not None or first != known:
            return range(0)
        joining = range(first, len(fact.placement.members))
        self.placement, self.resized_ms = fact.placement, fact.at_ms
        self.joining |= dict.fromkeys(joining, fact.at_ms)
        self.joined_ms |= self.joining
        return joining

    def held_from(self, rank: int) -> int:
        """Return from when on a member has held its devices, UTC ms."""
        return self.joined_ms.get(rank, self.since_ms)

    def turn_back(self, fact: GrowFailed) -> None:
        """Those who could not be bound leave before they have joined."""
        self._let_go([rank for rank in fact.ranks if rank in self.joining], fact.at_ms)

    def leave(self, rank: int) -> None:
        """A member's devices are free: if it was to leave, or had not joined yet, it has left."""
        if self.leaving.pop(rank, None) is not None or self.joining.pop(rank, None) is not None:
            self.stray.pop(rank, None)
            self.left.add(rank)

    def stay(self) -> str:
        """Take a shrink back that was refused; returns who was to gain by it."""
        by, self.shrunk_for = self.shrunk_for, ""
        self.running |= self.leaving.keys() & self.holding
        self.leaving = {}
        return by

    def member(self, rank: int) -> Member:
        """Return the member of that rank."""
        return self.placement.members[rank]


def intended(fact: Intended, *, from_room: bool) -> Attempt:
    """Return an attempt of which nothing is written yet; `from_room`: others made room for it."""
    return Attempt(
        number=fact.attempt,
        placement=fact.placement,
        tier=fact.tier,
        since_ms=fact.at_ms,
        deadline_ms=fact.deadline_ms,
        holding=set(),
        from_room=from_room,
    )


def recovered(fact: Recovered, deadline_ms: int) -> Attempt:
    """Return an attempt of an earlier process as it was found."""
    return Attempt(
        number=fact.attempt,
        placement=fact.placement,
        tier=fact.tier,
        since_ms=fact.since_ms,
        deadline_ms=deadline_ms,
        holding=set(),
        running=set(fact.running) - set(fact.left),
        left=set(fact.left) - set(fact.holding),
        leaving=dict.fromkeys((rank for rank in fact.left if rank in fact.holding), fact.at_ms),
        joining=dict.fromkeys(fact.joining, fact.at_ms),
        resized_ms=fact.at_ms,
        all_running_ms=fact.all_running_ms,
        saved_ms=fact.saved_ms,
        beat_ms=fact.at_ms,
    )


def nameless(gang: GangId) -> GangRecord:
    """Return the record of a gang of which only an attempt was found: its object is gone."""
    return GangRecord(id=gang, namespace="", name=str(gang), queue="", gone=True)


@dataclass(slots=True)
class GangRecord:
    """A gang's place in the world. `gang` is None while its spec was never accepted.

    `line` is where it stands in its queue, with all others that ask for the same and so have the same refusal; it came
    in after `joined` refusals of that line. `arrived` is the state's version when it came or changed what it asks for.
    `attempts` numbers the latest attempt, `concluded` the latest that is over. `retry_at_ms` is the end of its backoff.
    `displaced` says that the last attempt ended because a node was lost.
    `past_gpu_ms` counts ended attempts, `lost_gpu_ms` what of them was in no checkpoint when they were stopped. Claims
    of checkpoints that do not count are counted in `false_claims`; `false_claim` says what was wrong with the last one.
    `saved` is the last that counts, of whichever attempt. `ran_ms` is how long ended attempts had all members running.
    `taken_ms` are the last moments at which it was stopped or shrunk for others.
    """

    id: GangId
    namespace: str
    name: str
    queue: str
    gang: Gang | None = None
    phase: Phase = Phase.PENDING
    attempts: int = 0
    concluded: int = 0
    restarts: int = 0
    failures_in_row: int = 0
    current: Attempt | None = None
    own_refusal: Refusal | None = None
    line: Line | None = None
    joined: int = 0
    arrived: int = 0
    retry_at_ms: int = 0
    displaced: bool = False
    nomination: Nominated | None = None
    gone: bool = False
    started_ms: int | None = None
    finished_ms: int | None = None
    past_gpu_ms: int = 0
    lost_gpu_ms: int = 0
    false_claims: int = 0
    false_claim: str = ""
    failures: dict[Failure, int] = field(default_factory=dict[Failure, int])
    saved: Saved | None = None
    measured: Measured = UNMEASURED
    ran_ms: int = 0
    taken_ms: tuple[int, ...] = ()
    history: list[tuple[Phase, Step]] = field(default_factory=list[tuple[Phase, Step]])

    @property
    def refusal(self) -> Refusal | None:
        """Why it waits, was refused or last ended: what its line was told since it came in, else what it was told."""
        line = self.line
        if line is not None and line.refusals > self.joined and self.nomination is None:
            return line.refusal
        return self.own_refusal

    @refusal.setter
    def refusal(self, refusal: Refusal | None) -> None:
        self.own_refusal, self.line = refusal, None

    def __str__(self) -> str:
        """Name the gang, with its last changes of phase."""
        return f"{self.namespace}/{self.name} {[f'{phase}-{step.name}->' for phase, step in self.history]}"

    def leave_line(self) -> None:
        """Stand in no line any more, with what was said there."""
        if self.line is not None:
            self.own_refusal, self.line = self.refusal, None

    def step(self, step: Step) -> None:
        """Move to the next phase and remember how."""
        self.leave_line()
        before = self.phase
        self.phase = next_phase(before, step, self)
        if self.phase is not before:
            self.history = [*self.history[-9:], (before, step)]

    def carry_on(self, attempt: Attempt, until_ms: int) -> str:
        """Take a refused stop back; the attempt is not asked again before `until_ms`. Returns who was to gain by it."""
        ending = attempt.stop or attempt.notice
        assert ending is not None, self
        attempt.notice, attempt.answered, attempt.stop, attempt.spared_until_ms = None, False, None, until_ms
        self.refusal = None
        self.step(Step.CARRY_ON)
        return ending.by

    def withdraw(self, attempt: Attempt) -> bool:
        """Let an attempt go on that was asked to save; returns whether it was, so that it may be taken from again."""
        if attempt.notice is None or attempt.stop is not None:
            return False
        self.carry_on(attempt, attempt.spared_until_ms)
        return True

    def refuse_stop(self, attempt: Attempt, until_ms: int) -> str:
        """Take back a stop or shrink for somebody; returns for whom, "" where there is nothing to take back."""
        ending = attempt.stop or attempt.notice
        if self.phase is Phase.STOPPING and ending is not None and ending.by:
            return self.carry_on(attempt, until_ms)
        if not attempt.leaving or self.phase is Phase.STOPPING:
            return ""
        attempt.spared_until_ms = until_ms
        return attempt.stay()

    def remember(self, fact: Remembered) -> None:
        """Take over what a status says of the time before this process; what is known by now wins."""
        if fact.attempts < self.attempts or self.current is not None or self.phase in FINAL:
            return
        self.attempts, self.restarts = fact.attempts, max(self.restarts, fact.restarts)
        self.past_gpu_ms, self.lost_gpu_ms = fact.past_gpu_ms, fact.lost_gpu_ms
        self.started_ms, self.finished_ms = fact.started_ms, fact.finished_ms
        if fact.restarts and not fact.failures:  # written by a version that did not tell failures apart
            self.failures.setdefault(Failure.MEMBER, fact.restarts)
        self.failures |= {failure: max(n, self.failures.get(failure, 0)) for failure, n in fact.failures}
        self.saved = self.saved or fact.saved
        if fact.ended is not None and self.phase in (Phase.PENDING, Phase.SUSPENDED):
            self.step(Step.SUCCEED if fact.ended else Step.FAIL)


def is_waiting(record: GangRecord) -> bool:
    """Whether the gang stands in its queue."""
    return record.phase is Phase.PENDING and record.gang is not None and not record.gone


def is_hopeless(record: GangRecord) -> bool:
    """Whether no waiting helps: what it last asked for can't be given before a spec or the cluster changes."""
    return record.refusal is not None and record.refusal.reason.kind in (Kind.INVALID, Kind.NEVER)
