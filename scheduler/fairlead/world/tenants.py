"""Queues, their exceptions, and pools as last seen."""

from __future__ import annotations

from fairlead.model import events as ev
from fairlead.model.quota_exception import QuotaException
from fairlead.model.tenancy import Pool, Queue


class Tenants:
    """Queues, exceptions and pools by name. `version` counts changes."""

    def __init__(self) -> None:
        """Start with none."""
        self.version = 0
        self.queues: dict[str, Queue] = {}
        self.pools: dict[str, Pool] = {}
        self.exceptions: dict[str, QuotaException] = {}

    def apply(self, fact: ev.TenancyFact) -> bool:
        """Take up one fact; returns whether it changed anything."""
        match fact:
            case ev.QueueSeen(queue=queue):
                changed = self.queues.get(queue.name) != queue
                self.queues[queue.name] = queue
            case ev.QueueGone(name=name):
                changed = self.queues.pop(name, None) is not None
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
            case _:
                raise AssertionError(fact)
        self.version += changed
        return changed
