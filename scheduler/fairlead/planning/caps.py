"""What binds beside the quota: jobs of a queue, what its users and groups have, its budget. Moved along in a cycle.

A cap that is reached holds back and stops nobody. What is being stopped counts until it is gone, what room is being
made for counts at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fairlead.model.events import CostAlarmed
from fairlead.model.gang import Gang
from fairlead.model.queue_caps import NamedCap, OnCostAnomaly, OnExhausted
from fairlead.model.reasons import Reason, Refusal, refuse
from fairlead.model.tenancy import Queue
from fairlead.planning import budgets
from fairlead.planning.budgets import HOLD_MS, Account, budget_refusal, retry_at
from fairlead.units import gpus_of
from fairlead.world.job_counts import Had, Who
from fairlead.world.snapshot import World

NOBODY = "a job without a user"


@dataclass(slots=True)
class _Counts:
    """Of whole subtrees."""

    jobs: dict[str, int] = field(default_factory=dict[str, int])
    milli: dict[str, int] = field(default_factory=dict[str, int])
    users: dict[Who, Had] = field(default_factory=dict[Who, Had])
    groups: dict[Who, Had] = field(default_factory=dict[Who, Had])


def cost_hold(world: World, queue: str) -> CostAlarmed | None:
    """Return the alarm for which nothing with GPUs starts in a queue and below it now, None where it is free."""
    caps, alarm = world.queues[queue].caps, world.alarms.get(queue)
    if alarm is None or caps.on_cost_anomaly is not OnCostAnomaly.HOLD or world.now_ms >= alarm.until_ms:
        return None
    return alarm if caps.acknowledged is None or caps.acknowledged.through < alarm.day else None


class Caps:
    """What may still start. Costs nothing where no queue caps what runs."""

    def __init__(self, world: World, chains: Mapping[str, tuple[str, ...]]) -> None:
        """Count from the world; `chains` are each queue and those above it, nearest first."""
        self._queues, self._chains, self._on = world.queues, chains, world.force.capped
        self._counts = _Counts()
        self._spent, self._now_ms, self._world = world.spent, world.now_ms, world
        self._covered: dict[str, int] | None = None
        self._started: dict[str, int] = {}
        if not self._on:
            return
        for queue, milli in world.queue_gpu_milli.items():
            for name in chains.get(queue, ()):
                self._counts.milli[name] = self._counts.milli.get(name, 0) + milli
        for queue, jobs in world.jobs.of_queue.items():
            for name in chains.get(queue, ()):
                self._counts.jobs[name] = self._counts.jobs.get(name, 0) + jobs
        for counts, found in ((self._counts.users, world.jobs.of_user), (self._counts.groups, world.jobs.of_group)):
            for (queue, who), (jobs, milli) in found.items():
                for name in chains.get(queue, ()):
                    _add(counts, (name, who), jobs, milli)

    def charge(self, gang: Gang, gpu_milli: int, jobs: int = 1) -> None:
        """Count a gang that is placed, or that room is being made for; one that grows is no new job."""
        if not self._on:
            return
        for name in self._chains.get(gang.queue, ()):
            spent = self._spent.get(name)
            if spent is not None:
                hold_ms = min(_runs_ms(gang), HOLD_MS, spent.period_end_ms - self._now_ms)
                self._started[name] = self._started.get(name, 0) + gpu_milli * hold_ms
            self._counts.jobs[name] = self._counts.jobs.get(name, 0) + jobs
            self._counts.milli[name] = self._counts.milli.get(name, 0) + gpu_milli
            _add(self._counts.users, (name, gang.user), jobs, gpu_milli)
            for group in gang.groups:
                _add(self._counts.groups, (name, group), jobs, gpu_milli)

    def starts_nothing(self, queue: str) -> bool:
        """Whether a queue, or one above it, is at its most of jobs, held, or has used up its budget or may well have.

        Nobody gives anything up for it then.
        """
        if not self._on:
            return False
        for name in self._chains.get(queue, ()):
            one, account = self._queues[name], self._account(self._queues[name])
            if self._at_max_jobs(one) or self._is_unknown(one) or cost_hold(self._world, name) is not None:
                return True
            if account is not None and account.is_exhausted(self._now_ms):
                return True
        return False

    def refusal(self, gang: Gang, gpu_milli: int) -> Refusal | None:
        """Return the first cap, from the queue up, that a gang charged for `gpu_milli` would break."""
        if not self._on:
            return None
        for name in self._chains.get(gang.queue, ()):
            queue = self._queues[name]
            if self._at_max_jobs(queue):
                limit = queue.caps.max_jobs or 0
                return refuse(Reason.QUEUE_AT_MAX_JOBS, queue=name, used=self._counts.jobs.get(name, 0), limit=limit)
            if gpu_milli > 0 and self._is_unknown(queue):
                return refuse(Reason.BOOKS_FULL, queue=name)
            alarm = cost_hold(self._world, name) if gpu_milli > 0 else None
            if alarm is not None:
                said = {"queue": name, "day": alarm.day, "what": alarm.what}
                return refuse(Reason.COST_ANOMALY, **said, **retry_at(alarm.until_ms))
            account = self._account(queue)
            refusal = None if account is None else budget_refusal(account, gpu_milli, _runs_ms(gang), self._now_ms)
            if refusal is not None:
                return refusal
            for cap, who, had in self._caps_on(queue, gang):
                refusal = _broken(cap, who, had, name, gpu_milli)
                if refusal is not None:
                    return refusal
        return None

    def may_grow(self, gang: Gang, gpu_milli: int) -> bool:
        """Whether the budgets above a running gang, and the caps on its user and groups, let it have so much more."""
        room = self.room_milli(gang)
        above = [self._queues[name] for name in self._chains.get(gang.queue, ())] if self._on else []
        if any(self._is_unknown(queue) or cost_hold(self._world, queue.name) is not None for queue in above):
            return False
        accounts = [self._account(queue) for queue in above]
        paid = all(one is None or budget_refusal(one, gpu_milli, HOLD_MS, self._now_ms) is None for one in accounts)
        return paid and (room is None or gpu_milli <= room)

    def _is_unknown(self, queue: Queue) -> bool:
        """Whether nobody knows what is left of a queue's hard budget, because the books are behind."""
        budget = queue.caps.budget
        return self._world.books_full and budget is not None and budget.hard

    def room_milli(self, gang: Gang) -> int | None:
        """Return what the caps on its user and groups leave for a gang, None where none of them counts GPUs."""
        if not self._on:
            return None
        rooms = [
            1000 * cap.max_gpus - had[1]
            for name in self._chains.get(gang.queue, ())
            for cap, _, had in self._caps_on(self._queues[name], gang)
            if cap.max_gpus is not None
        ]
        return min(rooms, default=None)

    def _account(self, queue: Queue) -> Account | None:
        """Return how a queue stands with its budget, None where it has none or nothing was told of it."""
        spent = self._spent.get(queue.name)
        if queue.caps.budget is None or spent is None:
            return None
        held = self._counts.milli.get(queue.name, 0)
        return Account(
            queue=queue.name,
            budget=queue.caps.budget,
            spent=spent,
            held_milli=held,
            covered=lambda: self._covered_in(queue.name),
        )

    def _covered_in(self, queue: str) -> int:
        """Return what holds cover; counted once, and only if somebody asks."""
        if self._covered is None:
            self._covered = budgets.covered(self._world, self._chains)
        return self._covered.get(queue, 0) + self._started.get(queue, 0)

    def renewing(self) -> tuple[Account, ...]:
        """Return the accounts of queues in which something becomes of whose hold is not renewed, by name."""
        found = [
            self._account(self._queues[name])
            for name in sorted(self._spent if self._on else ())
            if name in self._queues
        ]
        return tuple(one for one in found if one is not None and one.budget.on_exhausted is not OnExhausted.FINISH)

    def _at_max_jobs(self, queue: Queue) -> bool:
        most = queue.caps.max_jobs
        return most is not None and self._counts.jobs.get(queue.name, 0) >= most

    def _caps_on(self, queue: Queue, gang: Gang) -> Iterator[tuple[NamedCap, str, Had]]:
        """Yield each cap of a queue that concerns a gang, whose it is, and what they have."""
        own = queue.caps.of_user(gang.user)
        if own is not None:
            who = f"user {gang.user}" if gang.user else NOBODY
            yield own, who, self._counts.users.get((queue.name, gang.user), (0, 0))
        for cap in queue.caps.of_groups(gang.groups):
            yield cap, f"group {cap.name}", self._counts.groups.get((queue.name, cap.name), (0, 0))


def _broken(cap: NamedCap, who: str, had: Had, queue: str, gpu_milli: int) -> Refusal | None:
    jobs, milli = had
    if cap.max_gpus is not None and gpu_milli > 1000 * cap.max_gpus:
        return refuse(Reason.ABOVE_CAP, need=gpus_of(gpu_milli), who=who, limit=cap.max_gpus, queue=queue)
    used: int | str
    need: int | str
    if cap.max_jobs is not None and jobs >= cap.max_jobs:
        what, used, need, limit = "jobs", jobs, 1, cap.max_jobs
    elif cap.max_gpus is not None and milli + gpu_milli > 1000 * cap.max_gpus:
        what, used, need, limit = "GPUs", gpus_of(milli), gpus_of(gpu_milli), cap.max_gpus
    else:
        return None
    return refuse(Reason.USER_AT_CAP, who=who, queue=queue, what=what, used=used, need=need, limit=limit)


def _add(counts: dict[Who, Had], who: Who, jobs: int, milli: int) -> None:
    had = counts.get(who, (0, 0))
    counts[who] = had[0] + jobs, had[1] + milli


def _runs_ms(gang: Gang) -> int:
    return HOLD_MS if gang.duration_ms is None else gang.duration_ms
