"""Facts about room that is made for a gang, and about who is stopped, shrunk or asked to save for it or for himself.

Times are UTC ms.
"""

from __future__ import annotations

from dataclasses import dataclass

from fairlead.model.gang import GangId, Placement
from fairlead.model.reasons import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Nominated:
    """Room is being made for a gang: nobody else may have `placement` until it is used or `until_ms` has passed.

    The record of a taking: `rule` is the right by which (preemption, reclaim, both), `lost_gpu_ms` what it throws away,
    `placement` the shape that it frees; `shrunk` are (gang, attempt, ranks) of those who go on with fewer members.
    """

    gang: GangId
    placement: Placement
    victims: tuple[tuple[GangId, int], ...]
    at_ms: int
    until_ms: int
    shrunk: tuple[tuple[GangId, int, tuple[int, ...]], ...] = ()
    rule: str = ""
    lost_gpu_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NominationEnded:
    """The room is no longer kept for the gang."""

    gang: GangId
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StopIntended:
    """An attempt is to end whole. `by` is the gang that gains, "" where none does; `lost_gpu_ms` what that costs.

    What was done by `safe_ms` is in a checkpoint that counts; None where nothing is.
    """

    gang: GangId
    attempt: int
    cause: Refusal
    requeue: bool
    at_ms: int
    by: str = ""
    lost_gpu_ms: int = 0
    safe_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShrinkIntended:
    """Members of an attempt are to leave it, and the others to go on. `by` gains, "" where they never joined it."""

    gang: GangId
    attempt: int
    ranks: tuple[int, ...]
    cause: Refusal
    at_ms: int
    by: str
    lost_gpu_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRefused:
    """Nothing was stopped or shrunk: a disruption budget forbids to take a member of the attempt. It goes on."""

    gang: GangId
    attempt: int
    cause: Refusal
    at_ms: int
