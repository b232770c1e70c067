"""Rings over devices: the order in which a collective passes data on, so that its slowest step is as fast as can be."""

from __future__ import annotations

from collections.abc import Sequence

RING_EXACT_UP_TO = 8
"""Members of a ring up to which the best one is found: 5,040 ways at most, looked at once per set of devices."""

Paces = Sequence[Sequence[int]]


def fastest_ring(pace: Paces, members: Sequence[int]) -> tuple[int, ...]:
    """Return `members` in the order of the ring whose slowest step is fastest; it starts at the first of them.

    `pace` is bytes/s from each to each, 0 unknown. Up to `RING_EXACT_UP_TO` members no ring has a faster slowest step,
    and of those that are as fast it is the first in the order of `members`; beyond, the best of one greedy walk from
    every member.
    """
    if len(members) < 3:
        return tuple(members)
    bound = min(sorted((pace[a][b] for b in members if b != a), reverse=True)[1] for a in members)
    if ring_pace(pace, members) >= bound:  # every member has two neighbours, so no ring is faster
        return tuple(members)
    if len(members) > RING_EXACT_UP_TO:
        return _walk(pace, members)
    for least in sorted({pace[a][b] for a in members for b in members if a != b}, reverse=True):
        near = {a: [b for b in members if b != a and pace[a][b] >= least] for a in members}
        if all(len(others) > 1 for others in near.values()):
            ring = _close([members[0]], {members[0]}, near, len(members))
            if ring is not None:
                return tuple(ring)
    raise AssertionError((pace, members))  # at the lowest pace everything is joined


def _close(path: list[int], on: set[int], near: dict[int, list[int]], size: int) -> list[int] | None:
    if len(path) == size:
        return path if path[0] in near[path[-1]] else None
    for following in near[path[-1]]:
        if following not in on:
            ring = _close([*path, following], on | {following}, near, size)
            if ring is not None:
                return ring
    return None


def _walk(pace: Paces, members: Sequence[int]) -> tuple[int, ...]:
    best: tuple[int, ...] = ()
    fastest = -1
    for start in members:
        path, left = [start], [member for member in members if member != start]
        while left:
            following = max(left, key=pace[path[-1]].__getitem__)  # the first of equals
            path.append(following)
            left.remove(following)
        slowest = ring_pace(pace, path)
        if slowest > fastest:
            at = path.index(members[0])
            best, fastest = (*path[at:], *path[:at]), slowest
    return best


def ring_pace(pace: Paces, ring: Sequence[int]) -> int:
    """Return bytes/s of the slowest step of a ring, 0 below two members or where one is unknown."""
    if len(ring) < 2:
        return 0
    return min(pace[ring[at - 1]][ring[at]] for at in range(len(ring)))
