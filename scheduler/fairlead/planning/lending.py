"""Who is certain to be out of what a pool lends by a moment: by itself, or because it is told to go. Pure.

Only what is enforced counts: a duration that ends the job, or a stop that the job has agreed to.
"""

from __future__ import annotations

from fairlead.model.effects import Phase
from fairlead.model.gang import Gang
from fairlead.model.rules import Rules
from fairlead.world.ends import end_if_placed, latest_end, lead_ms
from fairlead.world.pictures import Running


def leaves_at_ms(attempt: Running, rules: Rules, now_ms: int) -> int | None:
    """Return when an attempt that holds something has certainly let go by itself, None where nothing ends it."""
    end_ms = None if attempt.phase is Phase.STOPPING else latest_end(attempt, rules, now_ms)
    return None if end_ms is None or attempt.spec is None else end_ms + lead_ms(attempt.spec, rules) - rules.stop_ms


def may_be_lent(gang: Gang, now_ms: int, until_ms: int, rules: Rules, *, told_ms: int | None = None) -> bool:
    """Whether a gang that starts now is certain to be out by `until_ms`.

    By itself; or, where it may be stopped, because it is told to go at `told_ms` (None: nobody will). Nobody is told
    before its minimum run time is over.
    """
    end_ms = end_if_placed(gang, now_ms, rules)
    if end_ms is not None and end_ms + lead_ms(gang, rules) - rules.stop_ms <= until_ms:
        return True
    if told_ms is None or not gang.preemptible:
        return False
    started_ms = now_ms + 2 * rules.place_deadline_ms + gang.start_deadline_ms
    ripe_ms = started_ms + rules.min_run_ms if rules.min_run_ms else now_ms
    return max(told_ms, ripe_ms) + lead_ms(gang, rules) <= until_ms
