"""Tracks: what is known of one thing over time, as points (at_ms, sequence, …), sorted.

At a moment the last point at or before it holds; of two points of one moment, the one journaled later. So a late fact
changes the past exactly as if it had come in time.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from operator import itemgetter
from typing import Any, TypeVar

T = TypeVar("T")
P = TypeVar("P", bound=tuple[Any, ...])

_at = itemgetter(0)
_when = itemgetter(0, 1)


def learn(track: list[P], point: P) -> None:
    """Put a point in its place. Points of one moment and one sequence keep the order in which they came."""
    insort(track, point, key=_when)


def last(track: list[P], at_ms: int) -> P | None:
    """Return the point that holds at a moment, None before the first."""
    after = bisect_right(track, at_ms, key=_at)
    return track[after - 1] if after else None


def value(track: list[tuple[int, int, T]], at_ms: int) -> T | None:
    """Return what the point that holds at a moment says, None before the first."""
    point = last(track, at_ms)
    return None if point is None else point[2]


def later(track: list[P], at_ms: int, until_ms: int | None = None) -> list[P]:
    """Return the points after a moment, up to and with those of another."""
    end = len(track) if until_ms is None else bisect_right(track, until_ms, key=_at)
    return track[bisect_right(track, at_ms, key=_at) : end]


def forget(track: list[P], before_ms: int) -> None:
    """Drop the points that hold at no moment from just before `before_ms` on, and that no later fact can bring back."""
    del track[: max(0, bisect_left(track, before_ms, key=_at) - 1)]
