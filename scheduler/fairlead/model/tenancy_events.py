"""Facts about who may have how much: queues, their exceptions, fairness policies, pools and switches."""

from __future__ import annotations

from dataclasses import dataclass

from fairlead.model.fairness import FairnessPolicy
from fairlead.model.quota_exception import QuotaException
from fairlead.model.switches import Switches
from fairlead.model.tenancy import Pool, Queue


class TenancyFact:
    """About who may have how much: queues, exceptions, pools, policies."""

    __slots__ = ()
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSeen(TenancyFact):
    """A queue is there, like this."""

    queue: Queue
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueGone(TenancyFact):
    """A queue was deleted."""

    name: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExceptionSeen(TenancyFact):
    """A quota exception is there, like this."""

    exception: QuotaException
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExceptionGone(TenancyFact):
    """A quota exception was deleted: it acts no more, whatever its end was to be."""

    name: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchesSet(TenancyFact):
    """From now on these switches hold, instead of those before."""

    switches: Switches
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSpent(TenancyFact):
    """What a queue and those below it have used of their budget by `at_ms`, in the period [start, end), UTC ms.

    `worth_gpu_ms` is the GPU time that a budget of money comes to, the part that is spent as it was spent; None where
    the budget is of GPU time, or nobody can say.
    """

    queue: str
    gpu_ms: int
    period_start_ms: int
    period_end_ms: int
    at_ms: int
    worth_gpu_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CostAlarmed(TenancyFact):
    """What a queue cost on a day, such as ``2026-11-20``, is far from usual; `what` names the kinds of alarms.

    Where the queue asks for it, nothing new starts in it until `until_ms`, or until somebody has acknowledged that day.
    """

    queue: str
    day: str
    what: str
    until_ms: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BooksFull(TenancyFact):
    """What waits for the books' database is more, or waits longer, than their outbox is for; or is not any more.

    What budgets have used is not certain meanwhile.
    """

    is_full: bool
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSeen(TenancyFact):
    """A pool is there, like this."""

    pool: Pool
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolGone(TenancyFact):
    """A pool was deleted."""

    name: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySeen(TenancyFact):
    """A fairness policy is there, like this."""

    policy: FairnessPolicy
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyGone(TenancyFact):
    """A fairness policy was deleted."""

    name: str
    at_ms: int
