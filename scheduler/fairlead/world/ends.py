"""Until when something is held: bounds that are enforced, so that others can be promised what comes free.

A declared duration is enforced: when it is over the attempt is stopped, and a start that takes too long is one, too. An
attempt without a duration never ends, as far as anybody can promise.
"""

from __future__ import annotations

from fairlead.model.effects import Phase
from fairlead.model.gang import Gang
from fairlead.model.rules import Rules
from fairlead.world.pictures import Running


def latest_end(attempt: Running, rules: Rules, now_ms: int) -> int | None:
    """Return by when an attempt has let go of everything at the latest, None where nothing says so. UTC ms."""
    spec = attempt.spec
    if attempt.notice is not None:  # on its way out, but not before it has saved
        return max(now_ms, attempt.notice.until_ms) + rules.stop_ms
    if attempt.phase is Phase.STOPPING:
        return now_ms + rules.stop_ms
    if spec is None or spec.duration_ms is None:
        return None
    if attempt.all_running_ms is not None:
        return max(now_ms, attempt.all_running_ms + spec.duration_ms) + rules.stop_ms
    bound = attempt.bound_ms
    if bound is None:
        bound = max(now_ms, attempt.deadline_ms + rules.place_deadline_ms)
    return max(now_ms, bound + spec.start_deadline_ms) + spec.duration_ms + rules.stop_ms


def lead_ms(gang: Gang, rules: Rules) -> int:
    """Return how long before a moment a gang must be told to stop, to be gone by then: notice and grace included."""
    saves = gang.checkpoint is not None and gang.checkpoint.on_notice and gang.grace_ms > 0
    return rules.stop_ms + (gang.grace_ms + rules.stagger_max_ms if saves else 0)


def end_if_placed(gang: Gang, at_ms: int, rules: Rules) -> int | None:
    """Return by when a gang would have let go of everything if it got its devices at `at_ms`, None for never."""
    if gang.duration_ms is None:
        return None
    begun = at_ms + 2 * rules.place_deadline_ms + gang.start_deadline_ms
    return begun + gang.duration_ms + rules.stop_ms


def end_in_hole(gang: Gang, now_ms: int, rules: Rules) -> int | None:
    """Return by when a gang would be gone out of a hole that it enters now; None where its duration does not say.

    Whoever is still there when the hole ends is stopped, so a slow start counts only so much.
    """
    if gang.duration_ms is None:
        return None
    return now_ms + rules.hole_start_ms + gang.duration_ms + rules.stop_ms
