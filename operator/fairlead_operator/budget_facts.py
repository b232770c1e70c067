"""What queues have used of their budgets, from what the books say of this calendar month. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from fairlead.model.events import QueueSpent
from fairlead.model.tenancy import Queue, ancestors
from fairlead.reports.queue_usage import QueueUsage


def budget_facts(usage: QueueUsage, queues: Mapping[str, Queue]) -> Iterator[QueueSpent]:
    """Yield, for each queue with a budget, what it and those below it have used, by name."""
    spent: dict[str, int] = {}
    known = dict(queues)
    for queue, gpu_ms in usage.period.items():
        for name in ancestors(queue, known):
            spent[name] = spent.get(name, 0) + max(0, gpu_ms)
    for name in sorted(queues):
        if queues[name].caps.budget is not None:
            yield QueueSpent(
                queue=name,
                gpu_ms=spent.get(name, 0),
                period_start_ms=usage.period_start_ms,
                period_end_ms=month_end_ms(usage.period_start_ms),
                at_ms=usage.as_of_ms,
            )


def month_end_ms(start_ms: int) -> int:
    """Return the first millisecond of the month (UTC) after the one that begins at `start_ms`."""
    start = datetime.fromtimestamp(start_ms // 1000, UTC)
    after = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return int(after.timestamp()) * 1000
