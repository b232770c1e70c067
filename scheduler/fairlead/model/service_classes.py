"""What each service class is by default, in one table, and what a Pool says otherwise.

The table is shown in docs/explanation/pools.md. A job says more than its class where it has a field of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from fairlead.model.gang import ServiceClass


class Borrows(StrEnum):
    """Whether jobs of a class may use GPUs that a pool keeps for another class, as long as that one does not.

    ``never``; ``ending``: if they are certain to have ended in time, because their duration is enforced; ``yielding``:
    also if they may be stopped and will be, in time.
    """

    NEVER = "never"
    ENDING = "ending"
    YIELDING = "yielding"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassTerms:
    """The terms of one class.

    `preemptible` holds where the job says nothing. `stopped` is its turn when somebody must go from a pool, the lowest
    first. `queue_time_ms` is the longest wait that it is meant to have, None for none. `dedicated` wants no time
    slices, which have no stable latency.
    """

    preemptible: bool
    stopped: int
    queue_time_ms: int | None
    borrows: Borrows
    dedicated: bool


HOUR_MS = 3_600_000
TERMS: Mapping[ServiceClass, ClassTerms] = {
    ServiceClass.SERVING: ClassTerms(
        preemptible=False,
        stopped=4,
        queue_time_ms=HOUR_MS // 12,
        borrows=Borrows.NEVER,
        dedicated=True,
    ),
    ServiceClass.TRAINING: ClassTerms(
        preemptible=True,
        stopped=3,
        queue_time_ms=None,
        borrows=Borrows.ENDING,
        dedicated=False,
    ),
    ServiceClass.INTERACTIVE: ClassTerms(
        preemptible=True,
        stopped=2,
        queue_time_ms=HOUR_MS // 12,
        borrows=Borrows.ENDING,
        dedicated=False,
    ),
    ServiceClass.BATCH: ClassTerms(
        preemptible=True,
        stopped=1,
        queue_time_ms=24 * HOUR_MS,
        borrows=Borrows.YIELDING,
        dedicated=False,
    ),
    ServiceClass.OPPORTUNISTIC: ClassTerms(
        preemptible=True,
        stopped=0,
        queue_time_ms=None,
        borrows=Borrows.YIELDING,
        dedicated=False,
    ),
}
"""Service class -> its terms unless a Pool says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnTerms:
    """What a Pool says of one class instead of the table."""

    service_class: ServiceClass
    borrows: Borrows


def borrows_of(service_class: ServiceClass, own: tuple[OwnTerms, ...]) -> Borrows:
    """Return whether a class is lent protected GPUs in a pool that says `own`."""
    said = (terms.borrows for terms in own if terms.service_class is service_class)
    return next(said, TERMS[service_class].borrows)
