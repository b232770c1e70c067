"""What a stop throws away: devices times the work since the last committed checkpoint, and the cost of a new start.

A program that saves when it is given notice, and is given the time for it, loses only the pause for that; one that
saves by itself loses what it has done since the latest checkpoint that was committed began; one that can't
save loses everything since its members ran.
"""

from __future__ import annotations

from dataclasses import dataclass

from fairlead.world.snapshot import Running

RESTART_COST_MS = 60_000
"""What losing an attempt costs beside its work, where a job does not say: images, start-up, warm caches."""
NOT_STARTED = 1 << 60
"""A moment that no clock reaches: nothing is lost of what has not begun."""


@dataclass(frozen=True, slots=True)
class Price:
    """What one device of an attempt costs, in ms: the time since `safe_ms`, at most `most_ms`, and `restart_ms`."""

    safe_ms: int
    most_ms: int
    restart_ms: int

    def at(self, now_ms: int) -> int:
        """Return the price at a moment."""
        return min(max(0, now_ms - self.safe_ms), self.most_ms) + self.restart_ms

    @property
    def flat_ms(self) -> int | None:
        """What it never costs more than, None where it grows without end."""
        if self.safe_ms == NOT_STARTED:
            return self.restart_ms
        return None if self.most_ms == NOT_STARTED else self.most_ms + self.restart_ms


def price_of(attempt: Running) -> Price:
    """Return what one device of an attempt costs."""
    spec = attempt.spec
    checkpoint = spec.checkpoint if spec is not None else None
    began = attempt.all_running_ms
    safe = NOT_STARTED if began is None else began if attempt.saved_ms is None else max(began, attempt.saved_ms)
    if spec is None or checkpoint is None:
        return Price(safe, NOT_STARTED, RESTART_COST_MS)
    pause_ms = attempt.measured.save_ms or checkpoint.pause_ms
    saves_first = checkpoint.on_notice and spec.grace_ms >= max(1, pause_ms)
    restart_ms = attempt.measured.restart_ms or checkpoint.restart_ms
    return Price(safe, pause_ms if saves_first else NOT_STARTED, restart_ms)


def lost_work(victim: Running, now_ms: int) -> int:
    """GPU-ms that stopping this attempt throws away, restart included."""
    return victim.gpus * price_of(victim).at(now_ms)
