"""What people see of a gang's checkpoints, and the interval that would lose least.

The recommended interval is Young's first-order optimum with Daly's correction: with saves that cost C and failures that
come every M on average, sqrt(2 C M) − C, and M where saving costs more than half of that. M is learned: a gang begins
with one failure per 6,000 node-hours on its nodes, which is what a published training run of 54 days on 2,048 nodes saw
(The Llama 3 Herd of Models, 2024, table 5), and its own failures and running time count beside that. An interval never
lets the gang write more than its pool's storage takes, and never less than the save itself.
"""

from __future__ import annotations

from math import isqrt

from fairlead.world.gangs import GangRecord
from fairlead.world.views import CheckpointView

NODE_MTBF_MS = 6_000 * 3_600_000


def checkpoint_view(record: GangRecord, now_ms: int, bytes_per_s: int | None = None) -> CheckpointView | None:
    """Return what is known of a gang's checkpoints, None for one that neither declares nor claims any."""
    declared = record.gang.checkpoint if record.gang is not None else None
    if declared is None and record.saved is None and not record.false_claims:
        return None
    attempt = record.current
    notice = attempt.notice if attempt is not None and attempt.stop is None else None
    save_ms = record.measured.save_ms or (declared.pause_ms if declared is not None else 0)
    size = declared.size_bytes if declared is not None else 0
    return CheckpointView(
        saved=record.saved,
        measured=record.measured,
        interval_ms=declared.interval_ms if declared is not None else 0,
        recommended_ms=recommended_ms(save_ms, mtbf_ms(record, now_ms), least_interval_ms(save_ms, size, bytes_per_s)),
        false_claims=record.false_claims,
        problem=record.false_claim,
        begins_ms=notice.begins_ms if notice is not None else None,
        until_ms=notice.until_ms if notice is not None else None,
    )


def recommended_ms(save_ms: int, between_failures_ms: int, least_ms: int = 0) -> int:
    """Return the interval between saves that loses least, 0 where it is not known how long a save takes.

    >>> recommended_ms(60_000, 24 * 3_600_000) // 60_000  # a save of 1 min, a failure a day
    52
    """
    if save_ms <= 0 or between_failures_ms <= 0:
        return 0
    if save_ms >= between_failures_ms // 2:
        return max(least_ms, between_failures_ms)
    return max(least_ms, save_ms, isqrt(2 * save_ms * between_failures_ms) - save_ms)


def mtbf_ms(record: GangRecord, now_ms: int) -> int:
    """Return the mean time between a gang's failures: what its nodes let expect, as one failure more, and its own."""
    attempt = record.current
    nodes = 1
    ran_ms = record.ran_ms
    if attempt is not None:
        nodes = len({member.node for member in attempt.placement.members})
        ran_ms += 0 if attempt.all_running_ms is None else max(0, now_ms - attempt.all_running_ms)
    elif record.gang is not None:
        nodes = record.gang.members
    return (NODE_MTBF_MS // max(1, nodes) + ran_ms) // (1 + sum(record.failures.values()))


def least_interval_ms(save_ms: int, size_bytes: int, bytes_per_s: int | None) -> int:
    """Return the shortest interval at which a gang fills no more than a tenth of its pool's storage bandwidth."""
    if bytes_per_s is None or not size_bytes:
        return save_ms
    return max(save_ms, -(-10 * 1_000 * size_bytes // bytes_per_s))
