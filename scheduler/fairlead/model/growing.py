"""Facts about an elastic gang that grows while it runs. Times are UTC ms."""

from __future__ import annotations

from dataclasses import dataclass

from fairlead.model.gang import GangId, Placement, Tier
from fairlead.model.reasons import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowIntended:
    """Members are to join a running attempt. `placement` is all of it: the last `joining` members are the new ones."""

    gang: GangId
    attempt: int
    placement: Placement
    joining: int
    tier: Tier
    at_ms: int
    deadline_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowFailed:
    """Members of `ranks` could not be bound and do not join; those of `released` hold nothing any more."""

    gang: GangId
    attempt: int
    ranks: tuple[int, ...]
    cause: Refusal
    released: tuple[int, ...]
    at_ms: int
