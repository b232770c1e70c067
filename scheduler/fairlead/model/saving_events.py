"""Facts about checkpoints: a notice that one is wanted, a claim that one is complete, a sign that a program goes on."""

from __future__ import annotations

from dataclasses import dataclass

from fairlead.model.gang import GangId
from fairlead.model.reasons import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeIntended:
    """An attempt is asked to save from `begins_ms` on; `StopIntended` follows once it has, or at `until_ms`.

    `by` is the gang that gains, "" where none does; `lost_gpu_ms` what that costs, at an estimate.
    """

    gang: GangId
    attempt: int
    cause: Refusal
    requeue: bool
    at_ms: int
    begins_ms: int
    until_ms: int
    by: str = ""
    lost_gpu_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeWithdrawn:
    """An attempt that was asked to save is not to be stopped any more: nobody gains by it now."""

    gang: GangId
    attempt: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointCommitted:
    """A program says that the state in which it was at `began_ms` is safe: its manifest is complete.

    `step` is its own count. `notice_ms` is the `begins_ms` of the notice that it answers, 0 where it came by itself.
    Only a claim: `fairlead.world.checkpoints` says which ones count.
    """

    gang: GangId
    attempt: int
    at_ms: int
    began_ms: int
    step: str = ""
    notice_ms: int = 0
    path: str = ""
    digest: str = ""
    format: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LifeSign:
    """A program's heartbeat has moved; or, with a `problem`, what it said of a checkpoint cannot be read."""

    gang: GangId
    attempt: int
    at_ms: int
    problem: str = ""
