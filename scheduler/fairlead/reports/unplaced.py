"""Idle GPUs that somebody waited for: how much, for how long, and what was in the way (R44).

From how everybody stood, as the journal was told: see `fairness.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from fairlead.reports.document import Document, Value
from fairlead.reports.fairness import Stood, document


@dataclass(slots=True)
class _Sum:
    waited_ms: int = 0
    gpu: int = 0


def unplaced(found: Stood) -> Document:
    """Return by queue and reason how long gangs waited although enough was idle, and what of that they would fill.

    Over all rows that is no more than what was idle.
    """
    sums: dict[tuple[str, str, str], _Sum] = {}
    congested = idle = 0
    for part in found.stretches:
        time = part.to_ms - part.from_ms
        idle += part.stood.idle_milli * time
        congested += time if part.stood.unplaced else 0
        for one in part.stood.unplaced:
            row = sums.setdefault((one.queue, one.cause, one.reason), _Sum())
            row.waited_ms += one.gangs * time
            row.gpu += one.gpu_milli * time
    rows: list[tuple[Value, ...]] = [
        (*key, row.waited_ms, row.gpu // 1_000, row.gpu * 1_000 // idle if idle else None)
        for key, row in sorted(sums.items())
    ]
    facts: dict[str, Value] = {"congested_ms": congested, "idle_gpu_ms": idle // 1_000}
    facts["unplaced_gpu_ms"] = sum(row.gpu for row in sums.values()) // 1_000
    columns = ("queue", "cause", "reason", "waited_gang_ms", "unplaced_gpu_ms", "idle_permille")
    return document("unplaced", found, columns, rows, facts)
