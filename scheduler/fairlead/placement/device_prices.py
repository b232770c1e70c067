"""What the part of a GPU that is left on a device is worth, given what is asked for: prices of an ideal packing.

Take as many devices as the arrivals ask for, and fill each with a pattern of requests so that the most GPU is used and
no size is placed more often than it was asked for. Where an 810 is asked for often, 190 is left often; if nobody wants
190 it is worth nothing, and 470 is worth half a device because two of them make one. The linear program's dual gives
these worths: worth(g) = max over sizes a ≤ g of (a − fee of a) + worth(g − a), where a size that there are enough of
has a fee.

The fees are found by subgradient steps on a grid of 1 % of a device: a size that the best pattern uses more often than
it is asked for gets dearer. A single best solution of the program would be a corner that jumps with every new mix and
has wide plateaus; the mean over the second half of the steps is near it and smooth. Integers only, a fixed number of
steps: equal demand gives equal prices on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt

GRID = 100
WHOLE_MILLI = 1000
STEPS = 200  # within 0.3 to 1 point of the program's optimum on the public lists; 400 changed no result
SIZES_MAX = 16  # the most demanded ones; a step costs GRID times their number
_UNIT = 10_000  # worth of one grid step, so that fees move in parts of it
_FIRST_STEP = GRID * _UNIT // 4
_MILLION = 1_000_000


def device_worth(pods: Mapping[int, int]) -> tuple[int, ...]:
    """Return the worth of a device by what is left on it, in 10^-6 of a whole one.

    Parameters
    ----------
    pods
        Thousandths of a GPU (1 to 1000) -> devices or parts of that size that were asked for.

    Returns
    -------
    tuple of GRID + 1 integers, for 0, 1, ... 100 % left. It never falls, the first is 0 and the last 1,000,000; all are
    0 where nothing smaller than a device is asked for.
    """
    asked = _per_device(pods)
    if not asked or min(asked) == GRID:
        return (0,) * (GRID + 1)
    sizes = sorted(asked)
    fees = _fees(sizes, [asked[size] for size in sizes])
    worth, _ = _best(sizes, [size * _UNIT - fee for size, fee in zip(sizes, fees, strict=True)])
    whole = worth[GRID]
    return tuple(value * _MILLION // whole for value in worth) if whole else (0,) * (GRID + 1)


def grid_steps(milli: int) -> int:
    """Return the grid steps of a size: as many fit on the grid as on a device, so that 333 is a third."""
    return min(-(-milli * GRID // WHOLE_MILLI), GRID // (WHOLE_MILLI // milli)) or 1


def _per_device(pods: Mapping[int, int]) -> dict[int, int]:
    """Grid size -> how often it is asked for per device, in 10^-6, when all together ask for exactly all devices."""
    common = sorted(pods.items(), key=lambda item: (-item[0] * item[1], item[0]))[:SIZES_MAX]
    total = sum(milli * count for milli, count in common)
    asked: dict[int, int] = {}
    for milli, count in common:
        steps = grid_steps(milli)
        asked[steps] = asked.get(steps, 0) + count * WHOLE_MILLI * _MILLION // max(total, 1)
    return asked


def _fees(sizes: list[int], asked: list[int]) -> list[int]:
    """Return the fee of each size, the mean over the second half of the steps."""
    fees = [0] * len(sizes)
    sums = [0] * len(sizes)
    for step in range(1, STEPS + 1):
        _, choice = _best(sizes, [size * _UNIT - fee for size, fee in zip(sizes, fees, strict=True)])
        used = _pattern(sizes, choice)
        stride = isqrt(_FIRST_STEP**2 // step)
        for k, size in enumerate(sizes):
            moved = fees[k] + stride * (used[k] * _MILLION - asked[k]) * size // (GRID * _MILLION)
            fees[k] = min(max(moved, 0), size * _UNIT)
        if 2 * step > STEPS:
            sums = [total + fee for total, fee in zip(sums, fees, strict=True)]
    return [total // (STEPS - STEPS // 2) for total in sums]


def _best(sizes: list[int], gains: list[int]) -> tuple[list[int], list[int]]:
    """Return the best gain for each amount left, and the size that begins it (-1: leave a step unused)."""
    worth, choice = [0] * (GRID + 1), [-1] * (GRID + 1)
    options = list(zip(sizes, gains, range(len(sizes)), strict=True))
    for left in range(1, GRID + 1):
        best, chosen = worth[left - 1], -1
        for size, gain, k in options:
            if size > left:
                break
            found = gain + worth[left - size]
            if found > best:
                best, chosen = found, k
        worth[left], choice[left] = best, chosen
    return worth, choice


def _pattern(sizes: list[int], choice: list[int]) -> list[int]:
    """Return how often each size is in the best pattern of a whole device."""
    used = [0] * len(sizes)
    left = GRID
    while left > 0:
        k = choice[left]
        if k < 0:
            left -= 1
        else:
            used[k] += 1
            left -= sizes[k]
    return used
