"""A declared exception from a queue's quota: somebody answers for it, says why, and it ends by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fairlead.errors import UnreadableInput
from fairlead.model.quota import GPU, Quota, amount_text, is_resource, unit_of, words_of
from fairlead.model.tenancy import Queue
from fairlead.units import utc_text


@dataclass(frozen=True, slots=True, kw_only=True)
class MoreOf:
    """More of one resource other than ``gpu``, counted as inside."""

    resource: str
    limit: int = 0
    guaranteed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaException:
    """More for `queue` from `starts_ms` until `expires_ms`, UTC ms. Whole GPUs, jobs, and what its budget counts.

    `more_of` is of other resources, each named once. `more_budget` is GPU-hours, or whole units of the currency of a
    budget of money. What the queue has no limit of means nothing to it. Limits of queues above it stay.
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
    more_of: tuple[MoreOf, ...] = ()

    @property
    def gives(self) -> bool:
        """Whether it gives anything."""
        amounts = (self.more_limit_gpus, self.more_guaranteed_gpus, self.more_jobs, self.more_budget)
        return any(amounts) or bool(self.more_of)

    def more_limit(self, resource: str) -> int:
        """Return what it adds to the limit of a resource, counted as inside."""
        if resource == GPU:
            return unit_of(GPU) * self.more_limit_gpus
        return sum(one.limit for one in self.more_of if one.resource == resource)

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
        for one in self.more_of:
            for amount, before, after in (
                (one.limit, "", " above its limit"),
                (one.guaranteed, "more guaranteed ", ""),
            ):
                if amount:
                    given.append(f"{amount_text(one.resource, amount)} {before}{words_of(one.resource)}{after}")
        until = utc_text(self.expires_ms)
        return f"exception {self.name}: {', '.join(given)} until {until}, by {self.owner}: {self.reason}"


def more_of(name: str, said: Mapping[str, int], *, field: str) -> MoreOf:
    """Return what is given of a resource from what people write: ``limit`` and ``guaranteed``, in whole units.

    Raises
    ------
    UnreadableInput
        The name is no resource or ``gpu``, or nothing is given; the message names `field` and the mend.
    """
    if name == GPU:
        raise UnreadableInput(f"{field}.name: gpu has fields of its own; write change.limit and change.guaranteed")
    if not is_resource(name):
        known = "gpu/MODEL, cpu, memory, ephemeral-storage or an extended resource such as example.com/licence"
        raise UnreadableInput(f"{field}.name: {name!r} is no resource; use {known}")
    limit, guaranteed = said.get("limit", 0), said.get("guaranteed", 0)
    if min(limit, guaranteed) < 0 or not (limit or guaranteed):
        raise UnreadableInput(f"{field}: takes or gives nothing; set limit or guaranteed to 1 or more")
    return MoreOf(resource=name, limit=unit_of(name) * limit, guaranteed=unit_of(name) * guaranteed)


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
        quotas=_with_more(queue.quotas, exception.more_of),
    )


def _with_more(quotas: tuple[Quota, ...], more: tuple[MoreOf, ...]) -> tuple[Quota, ...]:
    """Return quotas with what is added to them; a queue that said nothing of a resource has no limit of it."""
    if not more:
        return quotas
    found = {quota.resource: quota for quota in quotas}
    for one in more:
        quota = found.get(one.resource, Quota(resource=one.resource))
        limit = None if quota.limit is None else quota.limit + one.limit
        guaranteed = quota.guaranteed + one.guaranteed
        found[one.resource] = replace(
            quota, limit=limit, guaranteed=guaranteed if limit is None else min(guaranteed, limit)
        )
    return tuple(found[resource] for resource in sorted(found))
