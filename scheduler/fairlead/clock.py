"""The only module that reads the machine's clocks."""

from __future__ import annotations

import time


def now_ms() -> int:
    """Return UTC milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    """Return milliseconds of a clock that never steps; only differences mean anything."""
    return time.monotonic_ns() // 1_000_000
