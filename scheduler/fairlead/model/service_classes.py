"""What each service class is by default, in one table, and what a Queue or a Pool says otherwise.

The table is shown in docs/explanation/pools.md. A job says more than its class where it has a field of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from fairlead.model.gang import Gang, ServiceClass


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
    first. `queue_time_ms` is the longest wait that it is meant to have, None for none. `min_run_ms` is how long an
    attempt is left alone. `dedicated` wants no time slices, which have no stable latency.
    """

    preemptible: bool
    stopped: int
    queue_time_ms: int | None
    min_run_ms: int
    borrows: Borrows
    dedicated: bool


HOUR_MS = 3_600_000
TERMS: Mapping[ServiceClass, ClassTerms] = {
    ServiceClass.SERVING: ClassTerms(
        preemptible=False,
        stopped=4,
        queue_time_ms=HOUR_MS // 12,
        min_run_ms=0,
        borrows=Borrows.NEVER,
        dedicated=True,
    ),
    ServiceClass.TRAINING: ClassTerms(
        preemptible=True,
        stopped=3,
        queue_time_ms=None,
        min_run_ms=0,
        borrows=Borrows.ENDING,
        dedicated=False,
    ),
    ServiceClass.INTERACTIVE: ClassTerms(
        preemptible=True,
        stopped=2,
        queue_time_ms=HOUR_MS // 12,
        min_run_ms=0,
        borrows=Borrows.ENDING,
        dedicated=False,
    ),
    ServiceClass.BATCH: ClassTerms(
        preemptible=True,
        stopped=1,
        queue_time_ms=24 * HOUR_MS,
        min_run_ms=0,
        borrows=Borrows.YIELDING,
        dedicated=False,
    ),
    ServiceClass.OPPORTUNISTIC: ClassTerms(
        preemptible=True,
        stopped=0,
        queue_time_ms=None,
        min_run_ms=0,
        borrows=Borrows.YIELDING,
        dedicated=False,
    ),
}
"""Service class -> its terms unless a Queue or a Pool says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnTerms:
    """What a Queue or Pool says of one class beside the table; None leaves a term as it is there.

    A Queue's words are about its jobs: `min_run_ms` and `queue_time_ms`. A Pool's are about its nodes: `borrows`.
    """

    service_class: ServiceClass
    borrows: Borrows | None = None
    min_run_ms: int | None = None
    queue_time_ms: int | None = None


def terms_of(service_class: ServiceClass, own: tuple[OwnTerms, ...] = ()) -> ClassTerms:
    """Return the terms of a class where `own` says something else of some of them."""
    terms = TERMS[service_class]
    for said in own:
        if said.service_class is service_class:
            terms = replace(
                terms,
                borrows=terms.borrows if said.borrows is None else said.borrows,
                min_run_ms=terms.min_run_ms if said.min_run_ms is None else said.min_run_ms,
                queue_time_ms=terms.queue_time_ms if said.queue_time_ms is None else said.queue_time_ms,
            )
    return terms


LAST = 1 << 32
"""More than any two priorities of Kubernetes are apart."""


def rank_of(gang: Gang) -> int:
    """Return a gang's priority inside its queue: opportunistic work stands behind all other, whatever it says."""
    return gang.priority - LAST if gang.service_class is ServiceClass.OPPORTUNISTIC else gang.priority
