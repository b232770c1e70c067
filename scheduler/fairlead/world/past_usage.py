"""What queues have used, the longer ago the less it counts: GPU-ms that decay with a half-life, in integers.

Changes with facts alone, at the times that facts say, so that a replay has the same numbers. Reading at a moment does
not change it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isqrt

import msgspec

_BITS = 60
_ONE = 1 << _BITS
_STEPS = 256
_FORGOTTEN = 120  # half-lives after which nothing is left of a number below 2^120
_PER_LN2 = (1 << 32) * 1_442_695_040_889 // 1_000_000_000_000
"""1/ln 2 in 2^-32: what a constant use for ever amounts to, in half-lives."""


def _table() -> tuple[int, ...]:
    """Return 2^(−i/256) for i = 0..256 in 2^-60, from square roots of integers: alike on every machine."""
    roots = [_ONE // 2]
    for _ in range(8):
        roots.append(isqrt(roots[-1] << _BITS))
    found: list[int] = []
    for i in range(_STEPS):
        value = _ONE
        for bit in range(8):
            if i >> bit & 1:
                value = value * roots[8 - bit] >> _BITS
        found.append(value)
    return (*found, _ONE // 2)


_POWERS = _table()


def left_of_one(age_ms: int, half_life_ms: int) -> int:
    """Return 2^(−age/half-life) in 2^-60; a straight line between 256 points of each half-life.

    Exact after whole half-lives; else too much by less than one part in a million.
    """
    halvings, rest = divmod(age_ms, half_life_ms)
    if halvings >= _FORGOTTEN:
        return 0
    at, between = divmod(rest * _STEPS, half_life_ms)
    low, high = _POWERS[at], _POWERS[at + 1]
    return low - (low - high) * between // half_life_ms >> halvings


class Past(msgspec.Struct, frozen=True):
    """One queue's usage: `milli` is held since `at_ms`, `sum` is what came before, decayed, in milli-GPU-ms."""

    milli: int
    sum: int
    at_ms: int

    def at(self, now_ms: int, half_life_ms: int) -> int:
        """Return the decayed usage at a later moment, in milli-GPU-ms."""
        age = now_ms - self.at_ms
        if age <= 0:
            return self.sum
        left = left_of_one(age, half_life_ms)
        grown = self.milli * half_life_ms * _PER_LN2 * (_ONE - left) >> (32 + _BITS)
        return (self.sum * left >> _BITS) + grown


@dataclass(slots=True)
class PastUsage:
    """All queues' usage. `half_life_of` says how fast a queue's past fades, as its policy is now."""

    half_life_of: Callable[[str], int]
    by_queue: dict[str, Past] = field(default_factory=dict[str, Past])
    now_ms: int = 0

    def change(self, queue: str, milli: int, at_ms: int) -> None:
        """Count that a queue holds so much more, or less, from a moment on. Time never goes back."""
        self.now_ms = now_ms = max(self.now_ms, at_ms)
        past = self.by_queue.get(queue)
        if past is None:
            self.by_queue[queue] = Past(milli, 0, now_ms)
        else:
            self.by_queue[queue] = Past(past.milli + milli, past.at(now_ms, self.half_life_of(queue)), now_ms)


def usage_at(past: Mapping[str, Past], queue: str, now_ms: int, half_life_ms: int) -> int:
    """Return a queue's decayed usage in milli-GPU-ms, 0 where it has never held anything."""
    known = past.get(queue)
    return 0 if known is None else known.at(now_ms, half_life_ms)
