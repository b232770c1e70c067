"""The only module that reads the machine's clocks."""

from __future__ import annotations

import time
from collections.abc import Callable


def now_ms() -> int:
    """Return UTC milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    """Return milliseconds of a clock that never steps; only differences mean anything."""
    return time.monotonic_ns() // 1_000_000


class SteadyClock:
    """UTC ms that never step: where somebody sets the machine's clock, this one follows at a sixteenth of its own pace.

    So it never goes back, a wait is off by a sixteenth of itself at most, and an hour's step is made up in 16 hours.
    """

    SLEW = 16

    def __init__(self, wall_ms: Callable[[], int] = now_ms, mono_ms: Callable[[], int] = monotonic_ms) -> None:
        """Begin at what the machine's clock says now."""
        self._wall_ms, self._mono_ms = wall_ms, mono_ms
        self._followed_ms = mono_ms()
        self._offset_ms = wall_ms() - self._followed_ms

    def __call__(self) -> int:
        """Return UTC ms, at least what was returned before."""
        mono_ms = self._mono_ms()
        step_ms = (mono_ms - self._followed_ms) // self.SLEW
        if step_ms:
            apart_ms = self._wall_ms() - mono_ms - self._offset_ms
            self._offset_ms += max(-step_ms, min(step_ms, apart_ms))
            self._followed_ms = mono_ms
        return mono_ms + self._offset_ms
