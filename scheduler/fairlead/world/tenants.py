"""Queues, their exceptions, pools, fairness policies and switches as last seen."""

from __future__ import annotations

from collections.abc import Mapping

from fairlead.model import events as ev
from fairlead.model.fairness import BUILT_IN, ROOT_POLICY, FairnessPolicy
from fairlead.model.quota import FIXED, GPU
from fairlead.model.quota_exception import QuotaException
from fairlead.model.switches import ALL_ON
from fairlead.model.tenancy import Pool, Queue, ancestors
from fairlead.world.doors import Rates


class Tenants:
    """Queues, exceptions, pools and policies by name. `version` counts changes.

    `counted` names, sorted, what is counted beside GPUs because some queue or policy speaks of it.
    """

    def __init__(self) -> None:
        """Start with none."""
        self.version = 0
        self.queues: dict[str, Queue] = {}
        self.pools: dict[str, Pool] = {}
        self.exceptions: dict[str, QuotaException] = {}
        self.policies: dict[str, FairnessPolicy] = {}
        self.counted: tuple[str, ...] = ()
        self._speak_of: dict[str, int] = {}
        self.switches = ALL_ON
        self.rates = Rates()
        self.spent: Mapping[str, ev.QueueSpent] = {}
        self.alarms: Mapping[str, ev.CostAlarmed] = {}
        self.books_full = False

    def apply(self, fact: ev.TenancyFact) -> bool:
        """Take up one fact; returns whether it changed anything."""
        if self.rates.since_ms is None:
            self.rates.since_ms = fact.at_ms
        match fact:
            case ev.QueueSeen(queue=queue):
                before = self.queues.get(queue.name)
                changed = before != queue
                self.queues[queue.name] = queue
                self._speak(_names(before), _names(queue))
            case ev.QueueGone(name=name):
                gone = self.queues.pop(name, None)
                changed = gone is not None
                self.alarms = {queue: alarm for queue, alarm in self.alarms.items() if queue != name}
                self._speak(_names(gone), ())
            case ev.PoolSeen(pool=pool):
                changed = self.pools.get(pool.name) != pool
                self.pools[pool.name] = pool
            case ev.PoolGone(name=name):
                changed = self.pools.pop(name, None) is not None
            case ev.ExceptionSeen(exception=exception):
                changed = self.exceptions.get(exception.name) != exception
                self.exceptions[exception.name] = exception
            case ev.ExceptionGone(name=name):
                changed = self.exceptions.pop(name, None) is not None
            case ev.PolicySeen(policy=policy):
                known = self.policies.get(policy.name)
                changed = known != policy
                self.policies[policy.name] = policy
                self._speak(_weighed(known), _weighed(policy))
            case ev.PolicyGone(name=name):
                dropped = self.policies.pop(name, None)
                changed = dropped is not None
                self._speak(_weighed(dropped), ())
            case ev.QueueSpent(queue=queue_name):
                known_spent = self.spent.get(queue_name)
                self.spent = {**self.spent, queue_name: fact}
                return known_spent is None or _gave_back(known_spent, fact)
            case ev.CostAlarmed(queue=queue_name):
                told = self.alarms.get(queue_name)
                changed = told is None or told.day < fact.day
                self.alarms = {**self.alarms, queue_name: fact} if changed else self.alarms
            case ev.BooksFull(is_full=is_full):
                changed = self.books_full != is_full
                self.books_full = is_full
            case ev.SwitchesSet(switches=switches):
                changed = self.switches != switches
                self.switches = switches
            case _:
                raise AssertionError(fact)
        self.version += changed
        return changed

    def policy_of(self, queue: str) -> FairnessPolicy:
        """Return the policy by which a queue shares with those beside it: the nearest one named above it."""
        for above in ancestors(queue, self.queues)[1:] if self.policies else ():
            named = self.policies.get(self.queues[above].fairness_policy)
            if named is not None:
                return named
        return self.policies.get(ROOT_POLICY, BUILT_IN)

    def half_life_of(self, queue: str) -> int:
        """Return how fast a queue's past usage fades, in ms."""
        return self.policy_of(queue).half_life_ms

    def aging_of(self, queue: str) -> int:
        """Return how long a gang waits in a queue before it is ahead of all that came later, in ms."""
        return self.policy_of(queue).aging_ms

    def _speak(self, before: tuple[str, ...], after: tuple[str, ...]) -> None:
        """Count who speaks of which resources."""
        if before == after:
            return
        for names, sign in ((before, -1), (after, 1)):
            for name in names:
                self._speak_of[name] = self._speak_of.get(name, 0) + sign
        self.counted = tuple(sorted(name for name, number in self._speak_of.items() if number))


def _names(queue: Queue | None) -> tuple[str, ...]:
    if queue is None or (not queue.quotas and queue.non_preemptible == "any"):
        return ()
    fixed = () if queue.non_preemptible == "any" else (FIXED,)
    return (*(quota.resource for quota in queue.quotas if quota.resource != GPU), *fixed)


def _weighed(policy: FairnessPolicy | None) -> tuple[str, ...]:
    return () if policy is None else tuple(name for name, _ in policy.resources if name != GPU)


def _gave_back(before: ev.QueueSpent, now: ev.QueueSpent) -> bool:
    """Whether a queue has more of its budget left than before: refusals may be answered anew."""
    return now.period_start_ms != before.period_start_ms or now.gpu_ms < before.gpu_ms
