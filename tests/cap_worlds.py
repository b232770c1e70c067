"""Small worlds for what budgets, caps and quotas are worked out from, built from values and without an engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import builders

from fairlead.model.effects import Phase
from fairlead.model.events import CostAlarmed, QueueSpent
from fairlead.model.gang import Gang, Placement, Tier
from fairlead.model.queue_caps import Budget, QueueCaps
from fairlead.model.tenancy import Queue, ancestors
from fairlead.world.job_counts import JobsHeld
from fairlead.world.pictures import Running

HOUR, MINUTE = 3_600_000, 60_000
NOW = 100 * HOUR
QUEUES = {"org": "", "team": "org", "lab": "org", "alone": ""}
"""Queue -> the one above it."""
CHAINS = {name: (name, above) if above else (name,) for name, above in QUEUES.items()}


def running(gang: Gang, milli: int, **fields: Any) -> Running:
    """An attempt that runs since now, charged for so many thousandths."""
    words = {
        "gang": gang.id, "spec": gang, "queue": gang.queue, "attempt": 1, "placement": Placement(members=()),
        "tier": Tier.BORROWED, "phase": Phase.RUNNING, "since_ms": NOW, "deadline_ms": 0, "bound_ms": None,
        "all_running_ms": None, "holding": frozenset(), "running": frozenset(), "succeeded": frozenset(),
        "failed": (), "robbed": (), "restarts": 0, "gone": False, "ripe_ms": 0, "gpu_milli": milli,
    }  # fmt: skip
    return Running(**(words | fields))


class Attempts(list[Running]):
    """All that run, in the order in which they are given."""

    @property
    def demoted(self) -> list[Running]:
        """Those that a budget does not cover."""
        return [attempt for attempt in self if attempt.demoted]

    @property
    def idle(self) -> list[Running]:
        """Those whose devices do nothing."""
        return [attempt for attempt in self if attempt.idle_ms is not None]


def spent(queue: str, gpu_ms: int, *, ago: int = 0, left: int = 10 * HOUR, **fields: Any) -> QueueSpent:
    """What was told so long ago of a period that ends in so long."""
    span = {"period_start_ms": NOW - 50 * HOUR, "period_end_ms": NOW + left, "at_ms": NOW - ago}
    return QueueSpent(queue=queue, gpu_ms=gpu_ms, **(span | fields))


def queues_of(caps: Mapping[str, QueueCaps]) -> dict[str, Queue]:
    return {
        name: replace(builders.queue(name, f"parent={above}" if above else ""), caps=caps.get(name, QueueCaps()))
        for name, above in QUEUES.items()
    }


def world_of(
    attempts: Iterable[Running] = (),
    caps: Mapping[str, QueueCaps | Budget] | None = None,
    told: Iterable[QueueSpent] = (),
    *,
    books_full: bool = False,
    alarms: Iterable[CostAlarmed] = (),
) -> Any:
    """What plans and their checks read of a World, counted from the attempts one by one."""
    own = {name: QueueCaps(budget=said) if isinstance(said, Budget) else said for name, said in (caps or {}).items()}
    queues, attempts = queues_of(own), Attempts(attempts)
    milli: dict[str, int] = {}
    jobs: dict[str, int] = {}
    had: tuple[dict[Any, Any], dict[Any, Any]] = ({}, {})
    for attempt in attempts:
        milli[attempt.queue] = milli.get(attempt.queue, 0) + attempt.gpu_milli
        jobs[attempt.queue] = jobs.get(attempt.queue, 0) + 1
        names = ((attempt.spec.user,), attempt.spec.groups) if attempt.spec else ((), ())
        for counts, whose in zip(had, names, strict=True):
            for one in whose:
                count, amount = counts.get((attempt.queue, one), (0, 0))
                counts[attempt.queue, one] = count + 1, amount + attempt.gpu_milli
    force = SimpleNamespace(capped=any(one.bounds_running for one in own.values()), problems={}, plain=queues)
    return SimpleNamespace(
        now_ms=NOW, queues=queues, running=attempts, force=force, queue_gpu_milli=milli,
        spent={one.queue: one for one in told}, books_full=books_full,
        alarms={one.queue: one for one in alarms},
        jobs=JobsHeld(of_queue=jobs, of_user=had[0], of_group=had[1]),
    )  # fmt: skip


def above(name: str) -> tuple[str, ...]:
    return ancestors(name, queues_of({}))
