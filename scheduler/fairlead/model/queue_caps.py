"""What a queue says beside its quota: how many jobs, how many that wait, how fast they may come, and who of its users.

All of it holds for the queue and everything below it. None, or an empty tuple, is no bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fairlead.model.gang import ServiceClass
from fairlead.model.windows import Window


class TenantKind(StrEnum):
    """What a queue stands for. It decides nothing; people and reports go by it."""

    CUSTOMER = "customer"
    TEAM = "team"
    WORKLOAD_CLASS = "workload-class"
    PROJECT = "project"
    MODEL_FAMILY = "model-family"


class Overflow(StrEnum):
    """What becomes of a job that comes when there is no place in line: it waits outside, or it is turned away."""

    DEFER = "Defer"
    REJECT = "Reject"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitRate:
    """At most `burst` jobs at once and `per_minute` in the long run."""

    per_minute: int
    burst: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedCap:
    """What one user, or all of one group together, may have running. `name` ``*`` is everybody who is not named."""

    name: str
    max_jobs: int | None = None
    max_gpus: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """GPU time that a queue and those below it may use in a period; from `soft_percent` of it on, starts are paced."""

    gpu_ms: int
    soft_percent: int = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """In these windows nothing of these service classes starts that asks for `gpus_at_least` GPUs or more."""

    service_classes: tuple[ServiceClass, ...]
    windows: tuple[Window, ...]
    gpus_at_least: int = 0


EVERYBODY = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueCaps:
    """Counts and rates of a queue.

    `max_jobs` bounds gangs that hold devices, `max_pending` those in line, `max_pending_of` those of one service class.
    Who comes beyond the last two, or faster than `submit_rate`, meets `overflow`. Of `users` each has a cap of their
    own; a group of `groups` shares one. `budget` is about GPU time, `peaks` hold expensive classes back by the clock.
    """

    max_jobs: int | None = None
    max_pending: int | None = None
    max_pending_of: tuple[tuple[ServiceClass, int], ...] = ()
    submit_rate: SubmitRate | None = None
    overflow: Overflow = Overflow.DEFER
    users: tuple[NamedCap, ...] = ()
    groups: tuple[NamedCap, ...] = ()
    budget: Budget | None = None
    peaks: tuple[Peak, ...] = ()

    @property
    def bounds_running(self) -> bool:
        """Whether anything here is about jobs that hold devices."""
        return self.max_jobs is not None or self.budget is not None or bool(self.users or self.groups)

    def of_user(self, name: str) -> NamedCap | None:
        """Return the cap of a user: their own, else everybody's, None where there is none."""
        return _named(self.users, name)

    def of_groups(self, names: tuple[str, ...]) -> tuple[NamedCap, ...]:
        """Return the caps of all groups that a user is in."""
        return tuple(cap for cap in self.groups if cap.name in names)


NO_CAPS = QueueCaps()


def _named(caps: tuple[NamedCap, ...], name: str) -> NamedCap | None:
    found = {cap.name: cap for cap in caps}
    return found.get(name) or found.get(EVERYBODY)
