"""A promise: by when a gang that waits will have which devices. Its facts, and the effects they come from."""

from __future__ import annotations

from dataclasses import dataclass

from fairlead.model.gang import GangId, Placement
from fairlead.model.reasons import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Promised:
    """The gang can be placed as `placement` says at `latest_start_ms` (UTC) or before, or anywhere else before that.

    Whoever holds one of the devices until then has an end that is enforced, or is among `stops` (gang, attempt): those
    may be stopped for it. `hero` is true where the gang asked for it and its queue allows so many.
    """

    gang: GangId
    placement: Placement
    latest_start_ms: int
    at_ms: int
    stops: tuple[tuple[GangId, int], ...] = ()
    hero: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PromiseKept:
    """The gang has got its devices; `early_ms` is how long before the latest start."""

    gang: GangId
    early_ms: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PromiseBroken:
    """What was promised can't be given any more, or was not given in time."""

    gang: GangId
    cause: Refusal
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """Keep `placement` for the gang from `latest_start_ms` on; until then only those have it who are gone by then."""

    gang: GangId
    placement: Placement
    latest_start_ms: int
    stops: tuple[tuple[GangId, int], ...] = ()
    hero: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EndPromise:
    """The promise is over: kept, `early_ms` before its time, or broken for a `cause`."""

    gang: GangId
    cause: Refusal | None = None
    early_ms: int = 0
