"""What a queue says of promised starts, as people write it in Queue documents and in scenario files."""

from __future__ import annotations

from fairlead.simulation.fields import Fields


def promise_words(item: Fields) -> tuple[int, int]:
    """Read a queue's `promise`: how many of its jobs may ask for one, and the notice that its own work gets, in ms."""
    inner = item.inner("promise")
    found = inner.integer("jobs", 0, low=0, high=1_000), inner.duration_ms("notice", 3_600_000) or 0
    inner.done()
    return found
