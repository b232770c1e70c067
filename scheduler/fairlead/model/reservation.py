"""Reservations: nodes that are somebody's for a time; maintenance windows are those that are the platform's."""

from __future__ import annotations

from dataclasses import dataclass

from fairlead.model.promises import PromiseBroken, Promised, PromiseKept
from fairlead.model.windows import Window, current_or_next

LONGEST_MS = 366 * 86_400_000
NODES_MAX = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Whole nodes for the jobs of `queue` and of queues below it, from a start to an end; "" is maintenance.

    The nodes are those named, or all of one `domain` of a `level`, or `count` of them (with `model`, where that is
    said) in one domain of a level, the first by name that are free of other reservations. Once from `start_ms` to
    `end_ms` (UTC), or every week in `windows`; then those two only bound them, and None does not. While it is not the
    owner's time others may have the nodes if they will be gone by its start, or `lendable` nodes as long as the owner
    does not ask. `pre_drain` keeps work from running into it, and stops in time what may be stopped; `stop_all` also
    what may not.
    """

    name: str
    queue: str = ""
    nodes: tuple[str, ...] = ()
    level: str = ""
    domain: str = ""
    count: int = 0
    model: str = ""
    start_ms: int | None = None
    end_ms: int | None = None
    windows: tuple[Window, ...] = ()
    lendable: bool = True
    pre_drain: bool = True
    stop_all: bool = False
    created_ms: int = 0

    @property
    def is_maintenance(self) -> bool:
        """Whether nothing may run in it."""
        return not self.queue

    def span(self, now_ms: int) -> tuple[int, int] | None:
        """Return [start, end) of the time that `now_ms` is in, else of the next one; None where none comes any more."""
        if not self.windows:
            start, end = self.start_ms or 0, self.end_ms or 0
            return (start, end) if now_ms < end else None
        found = current_or_next(self.windows, max(now_ms, self.start_ms or 0))
        if found is None or (self.end_ms is not None and found[0] >= self.end_ms):
            return None
        end = found[1] if self.end_ms is None else min(found[1], self.end_ms)
        return found[0], end


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservationSeen:
    """A reservation is there, like this."""

    reservation: Reservation
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservationGone:
    """A reservation was deleted."""

    name: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DurationsLearned:
    """What the books remember of finished runs of one queue, user and template, the oldest first."""

    queue: str
    user: str
    template: str
    run_ms: tuple[int, ...]
    at_ms: int


TimeFact = Promised | PromiseKept | PromiseBroken | ReservationSeen | ReservationGone | DurationsLearned
"""Facts about what will be whose."""
