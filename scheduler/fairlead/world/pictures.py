"""What a World shows of one gang: values, made anew only when the gang's record has changed."""

from __future__ import annotations

import msgspec

from fairlead.model.checkpoints import UNMEASURED, Measured
from fairlead.model.effects import Phase
from fairlead.model.events import Nominated, NoticeIntended
from fairlead.model.gang import Checkpoint, Gang, GangId, Placement, Tier
from fairlead.model.quota import Amounts
from fairlead.model.retries import Failures
from fairlead.model.rules import Rules
from fairlead.model.saving_rules import RESTART_MAX_MS

USUAL_RESTART_MS = Checkpoint().restart_ms
"""What starting again costs one that says nothing."""

HostPorts = frozenset[tuple[str, str, int]]


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A gang in its queue. `arrived` is the state's version when it came or changed what it asks for.

    `displaced` says that its last attempt ended because a node was lost.
    """

    gang: Gang
    attempts: int
    retry_at_ms: int
    nomination: Nominated | None
    arrived: int
    displaced: bool = False


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that holds devices, or is to be ended. Ranks in `holding` still hold theirs.

    `robbed` are (rank, since) of members that hold nothing any more, though nobody has told of their end.
    From `ripe_ms` on it may be taken from: its minimum run time is over, and the time for which a budget spared it.
    `gpu_milli` are the thousandths of a GPU that it is still charged for. `saved_ms` is when the latest committed
    checkpoint began, None without one. Members of `leaving` still hold and are about to leave; those of `left` have.
    `notice` says that it was asked to save before it is stopped, `answered` that it has; None before that and after its
    stop. `beat_ms` is when it last showed that it goes on, `failures` what ended attempts before it, `measured` how
    long its saves and starts take. `joining` are (rank, since) of members that are on their way into it, `stray` (rank,
    why) of those among them that have failed. From `grow_ms` on it may grow; None where it never does.
    `demoted` has lost its right to what it holds, because a budget does not cover it or because it is idle; `spec` says
    so too. All its devices are idle since `idle_ms`, longer than its queue allows; None where they are not.
    """

    gang: GangId
    spec: Gang | None
    queue: str
    attempt: int
    placement: Placement
    tier: Tier
    phase: Phase
    since_ms: int
    deadline_ms: int
    bound_ms: int | None
    all_running_ms: int | None
    holding: frozenset[int]
    running: frozenset[int]
    succeeded: frozenset[int]
    failed: tuple[tuple[int, str], ...]
    robbed: tuple[tuple[int, int], ...]
    restarts: int
    gone: bool
    ripe_ms: int
    gpu_milli: int
    also: Amounts = ()
    saved_ms: int | None = None
    notice: NoticeIntended | None = None
    answered: bool = False
    failures: Failures = ()
    beat_ms: int = 0
    measured: Measured = UNMEASURED
    leaving: frozenset[int] = frozenset()
    left: frozenset[int] = frozenset()
    joining: tuple[tuple[int, int], ...] = ()
    stray: tuple[tuple[int, str], ...] = ()
    grow_ms: int | None = None
    demoted: bool = False
    idle_ms: int | None = None

    @property
    def at_work(self) -> frozenset[int]:
        """Ranks that hold devices, go on holding them, and have joined."""
        return self.staying - {rank for rank, _ in self.joining} if self.joining else self.staying

    @property
    def staying(self) -> frozenset[int]:
        """Ranks that hold devices and go on holding them."""
        return self.holding - self.leaving if self.leaving else self.holding

    @property
    def present(self) -> int:
        """Members that belong to it."""
        return len(self.placement.members) - len(self.leaving) - len(self.left) - len(self.joining)

    @property
    def save_ms(self) -> int:
        """How long it takes to save: as measured, else as declared; 0 where nobody knows."""
        declared = self.spec.checkpoint if self.spec is not None else None
        return self.measured.save_ms or (declared.pause_ms if declared is not None else 0)

    @property
    def restart_ms(self) -> int:
        """What starting again costs: as measured, else as declared, never more than `RESTART_MAX_MS`."""
        declared = self.spec.checkpoint if self.spec is not None else None
        usual_ms = declared.restart_ms if declared is not None else USUAL_RESTART_MS
        return min(RESTART_MAX_MS, self.measured.restart_ms or usual_ms)

    @property
    def gpus(self) -> int:
        """Devices still held."""
        return sum(len(self.placement.members[rank].devices) for rank in self.holding)


def own_deadlines(attempt: Running, rules: Rules) -> list[int]:
    """Return when an attempt must have come further, or must be over, in no order."""
    spec, due = attempt.spec, list[int]()
    if spec is None:
        return due
    if attempt.phase is Phase.STARTING and attempt.bound_ms is not None:
        due.append(attempt.bound_ms + spec.start_deadline_ms)
    if attempt.phase is Phase.RUNNING and spec.duration_ms is not None and attempt.all_running_ms is not None:
        ends_ms = attempt.all_running_ms + spec.duration_ms
        due.append(ends_ms)
        if spec.checkpoint is not None and spec.checkpoint.on_notice and spec.grace_ms:
            due.append(ends_ms - min(spec.grace_ms, spec.duration_ms // 2))  # its last checkpoint is part of its time
    hangs_ms = hang_ms(attempt)
    if hangs_ms is not None:
        due.append(hangs_ms)
    if attempt.phase is Phase.PLACING:
        due.append(attempt.deadline_ms + rules.place_deadline_ms)
    return due


def hang_ms(attempt: Running) -> int | None:
    """Return from when on an attempt counts as hung if it shows nothing more, None where it never does."""
    spec = attempt.spec
    if spec is None or spec.heartbeat_ms is None or attempt.phase is not Phase.RUNNING:
        return None
    return max(attempt.all_running_ms or 0, attempt.beat_ms) + spec.heartbeat_ms


def deadlines(attempt: Running, rules: Rules) -> list[int]:
    """Return the moments at which time alone may end a live attempt, in no order: its own, and its members'."""
    robbed = [since_ms + rules.robbed_after_ms for _, since_ms in attempt.robbed]
    return own_deadlines(attempt, rules) + robbed + [due for _, due in joins_by(attempt, rules)]


def joins_by(attempt: Running, rules: Rules) -> list[tuple[int, int]]:
    """Return (rank, moment) by when each member must run that is on its way into an attempt."""
    if attempt.spec is None or not attempt.joining:
        return []
    most_ms = 2 * rules.place_deadline_ms + attempt.spec.start_deadline_ms
    return [(rank, since_ms + most_ms) for rank, since_ms in attempt.joining]
