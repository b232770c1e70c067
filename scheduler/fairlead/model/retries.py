"""Why an attempt can fail, and how often a gang may do so before it has failed for good."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Failure(StrEnum):
    """What ended an attempt that was to go on. Being stopped for others is none."""

    MEMBER = "memberFailed"
    START = "startDeadline"
    HANG = "hung"
    NODE = "nodeLost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """Bounds of a gang's own; None leaves a failure to `Gang.max_restarts`, which counts no lost nodes.

    `backoff_ms` is the wait after the first failure, doubled with each one up to `backoff_max_ms`; 0 is the cluster's.
    """

    member_failed: int | None = None
    start_deadline: int | None = None
    hung: int | None = None
    node_lost: int | None = None
    backoff_ms: int = 0
    backoff_max_ms: int = 0

    def most(self, failure: Failure) -> int | None:
        """Return how often a gang may fail in this way, None where nothing of its own is said."""
        match failure:
            case Failure.MEMBER:
                return self.member_failed
            case Failure.START:
                return self.start_deadline
            case Failure.HANG:
                return self.hung
            case Failure.NODE:
                return self.node_lost


NO_RETRIES = Retries()
"""What a gang that says nothing of its own has."""

Failures = tuple[tuple[Failure, int], ...]
"""How often each has happened, by name; what never has is left out."""


def may_retry(failures: Failures, failure: Failure, retries: Retries, max_restarts: int) -> bool:
    """Whether a gang that has failed so often may begin again after one more `failure`."""
    count = dict(failures)
    most = retries.most(failure)
    if most is not None:
        return count.get(failure, 0) < most
    if failure is Failure.NODE:
        return True
    others = (one for one in Failure if one is not Failure.NODE and retries.most(one) is None)
    return sum(count.get(one, 0) for one in others) < max_restarts


def backoff_ms(retries: Retries, failures: int, usual_ms: int, usual_max_ms: int) -> int:
    """Return the wait after so many failures, the first being 1; `usual_…` is what the cluster says."""
    first, most = retries.backoff_ms or usual_ms, retries.backoff_max_ms or usual_max_ms
    return min(max(first, most), first << min(failures - 1, 20))
