"""A declared exception from a queue's quota: somebody answers for it, says why, and it ends by itself."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fairlead.model.tenancy import Queue
from fairlead.units import utc_text


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaException:
    """More for `queue` from `starts_ms` until `expires_ms`, UTC ms. Whole GPUs, jobs, and what its budget counts.

    `more_budget` is GPU-hours, or whole units of the currency of a budget of money. What the queue has no limit of
    means nothing to it. Limits of queues above it stay.
    """

    name: str
    queue: str
    owner: str
    reason: str
    expires_ms: int
    starts_ms: int = 0
    more_limit_gpus: int = 0
    more_guaranteed_gpus: int = 0
    more_jobs: int = 0
    more_budget: int = 0

    @property
    def gives(self) -> bool:
        """Whether it gives anything."""
        return any((self.more_limit_gpus, self.more_guaranteed_gpus, self.more_jobs, self.more_budget))

    def acts_at(self, now_ms: int) -> bool:
        """Whether it is in force at a moment: from its start on, and at its end no more."""
        return self.starts_ms <= now_ms < self.expires_ms

    def state_at(self, now_ms: int) -> str:
        """Return Pending, Active or Expired."""
        if self.acts_at(now_ms):
            return "Active"
        return "Pending" if now_ms < self.starts_ms else "Expired"

    @property
    def text(self) -> str:
        """Say for people what is given until when, by whom and why."""
        given = [
            f"{amount} {what}"
            for amount, what in (
                (self.more_limit_gpus, "GPUs above its limit"),
                (self.more_guaranteed_gpus, "more guaranteed GPUs"),
                (self.more_jobs, "more jobs"),
                (self.more_budget, "more in its budget"),
            )
            if amount
        ]
        until = utc_text(self.expires_ms)
        return f"exception {self.name}: {', '.join(given)} until {until}, by {self.owner}: {self.reason}"


def granted(queue: Queue, exception: QuotaException) -> Queue:
    """Return the queue with what an exception gives it. A guarantee is never above the limit."""
    limit, jobs = queue.limit_gpus, queue.caps.max_jobs
    if limit is not None:
        limit += exception.more_limit_gpus
    guaranteed = queue.guaranteed_gpus + exception.more_guaranteed_gpus
    caps = queue.caps
    if jobs is not None and exception.more_jobs:
        caps = replace(caps, max_jobs=jobs + exception.more_jobs)
    if caps.budget is not None and exception.more_budget:
        caps = replace(caps, budget=caps.budget.raised(exception.more_budget))
    return replace(
        queue,
        limit_gpus=limit,
        guaranteed_gpus=guaranteed if limit is None else min(guaranteed, limit),
        caps=caps,
    )
