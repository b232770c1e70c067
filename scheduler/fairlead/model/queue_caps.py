"""What a queue says beside its quota: how many jobs, how many that wait, how fast they may come, and who of its users.

All of it holds for the queue and everything below it. None, or an empty tuple, is no bound.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum

from fairlead.errors import UnreadableInput
from fairlead.model.calendars import UTC, Calendar, Grain, Span
from fairlead.model.gang import ServiceClass
from fairlead.model.windows import Window, Zone
from fairlead.units import NANO


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


class OnExhausted(StrEnum):
    """What becomes of running work whose next hour a hard budget does not cover."""

    FINISH = "finish"
    STOP = "checkpoint-and-stop"
    DEMOTE = "demote"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a queue and those below it may use in a period: GPU time, or `nanos` of a currency where that is named.

    From `soft_percent` of it on, starts are paced. `alerts` are percents that somebody is to hear of. One that is not
    `hard` holds nothing back. Periods are those of a calendar: see `fairlead.model.calendars`.
    """

    gpu_ms: int = 0
    soft_percent: int = 80
    nanos: int = 0
    currency: str = ""
    period: Grain = Grain.MONTH
    zone: Zone = UTC
    month_starts_on: int = 1
    year_starts_in: int = 1
    alerts: tuple[int, ...] = (50, 80, 100)
    hard: bool = True
    on_exhausted: OnExhausted = OnExhausted.FINISH

    def raised(self, more: int) -> Budget:
        """Return it with so many GPU-hours more, or whole units of its currency."""
        if self.nanos:
            return replace(self, nanos=self.nanos + more * NANO)
        return replace(self, gpu_ms=self.gpu_ms + more * 3_600_000)

    def span(self, at_ms: int) -> Span:
        """Return the period that a moment lies in."""
        calendar = Calendar(
            zone=self.zone, month_starts_on=self.month_starts_on, year_starts_in=self.year_starts_in
        )  # fmt: skip
        return calendar.at(self.period, at_ms)


def checked_budget(budget: Budget, *, field: str) -> Budget:
    """Return the budget, if it makes sense.

    Raises
    ------
    UnreadableInput
        A number is out of range, or it is of both time and money, or of neither; the message names `field`.
    """
    if (budget.gpu_ms > 0) == (budget.nanos > 0) or min(budget.gpu_ms, budget.nanos) < 0:
        raise UnreadableInput(f"{field}: must say either gpuHours or amount, and more than 0")
    if bool(budget.currency) != bool(budget.nanos):
        raise UnreadableInput(f"{field}.currency: belongs to an amount; say both or neither")
    if not 0 <= budget.soft_percent <= 100:
        raise UnreadableInput(f"{field}.softPercent: must be 0 to 100")
    if not 1 <= budget.month_starts_on <= 31 or not 1 <= budget.year_starts_in <= 12:
        raise UnreadableInput(f"{field}.monthStartsOn: must be a day, 1 to 31, and yearStartsIn a month, 1 to 12")
    if any(not 1 <= percent <= 1_000 for percent in budget.alerts):
        raise UnreadableInput(f"{field}.alertPercents: must be 1 to 1000")
    return budget


class OnIdle(StrEnum):
    """What becomes of a job whose devices have all been idle for too long, beside that its owner is told."""

    NOTIFY = "notify"
    DEMOTE = "demote"
    STOP = "checkpoint-and-stop"


SHORTEST_IDLE_MS = 5 * 60_000
LONGEST_IDLE_MS = 30 * 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleRule:
    """How long all devices of a job may be idle, and what then. `service_classes` are whom it is for, () everybody."""

    after_ms: int
    then: OnIdle = OnIdle.NOTIFY
    service_classes: tuple[ServiceClass, ...] = ()

    def is_for(self, service_class: ServiceClass) -> bool:
        """Whether jobs of this class go by it."""
        return not self.service_classes or service_class in self.service_classes


def checked_idle_rule(rule: IdleRule, *, field: str) -> IdleRule:
    """Return the rule, if it makes sense.

    Raises
    ------
    UnreadableInput
        The time is too short to be told from a pause, or longer than anybody waits; the message names `field`.
    """
    if not SHORTEST_IDLE_MS <= rule.after_ms <= LONGEST_IDLE_MS:
        raise UnreadableInput(f"{field}.after: must be 5m to 30d; remove {field.rpartition('.')[2]} for no rule")
    return rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """In these windows nothing of these service classes starts that asks for `gpus_at_least` GPUs or more."""

    service_classes: tuple[ServiceClass, ...]
    windows: tuple[Window, ...]
    gpus_at_least: int = 0


class OnCostAnomaly(StrEnum):
    """What becomes of a queue whose costs alarm: somebody hears of it, or nothing new starts either."""

    NOTIFY = "notify"
    HOLD = "hold"


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """Somebody has looked at the costs of days up to `through`, such as ``2026-11-20``: they hold nothing back."""

    through: str
    actor: str
    reason: str


def acknowledged(through: str, actor: str, reason: str, *, field: str) -> Acknowledged:
    """Return an acknowledgement, if it makes sense.

    Raises
    ------
    UnreadableInput
        It names no day, or not who and why; the message names `field`.
    """
    try:
        is_day = date.fromisoformat(through).isoformat() == through
    except ValueError:
        is_day = False
    if not is_day:
        raise UnreadableInput(f"{field}.through: {through!r} is no day; write the last one that is well, as 2026-11-20")
    for name, text in (("actor", actor), ("reason", reason)):
        if not text.strip():
            raise UnreadableInput(f"{field}.{name}: is empty; write a role or pseudonym as actor, and why as reason")
    return Acknowledged(through=through, actor=actor, reason=reason)


EVERYBODY = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueCaps:
    """Counts and rates of a queue.

    `max_jobs` bounds gangs that hold devices, `max_pending` those in line, `max_pending_of` those of one service class.
    Who comes beyond the last two, or faster than `submit_rate`, meets `overflow`. Of `users` each has a cap of their
    own; a group of `groups` shares one. `budget` is about a period, `peaks` hold expensive classes back by the clock.
    `idle` is about jobs that hold devices and do not use them; here the nearest queue that says something counts.
    `on_cost_anomaly` is about costs that alarm and that nobody has `acknowledged`.
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
    idle: IdleRule | None = None
    on_cost_anomaly: OnCostAnomaly = OnCostAnomaly.NOTIFY
    acknowledged: Acknowledged | None = None

    @property
    def bounds_running(self) -> bool:
        """Whether anything here is about jobs that hold devices."""
        holds = self.on_cost_anomaly is OnCostAnomaly.HOLD
        return self.max_jobs is not None or self.budget is not None or holds or bool(self.users or self.groups)

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
