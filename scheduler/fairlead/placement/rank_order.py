"""The order of a gang's members (R34): neighbours in rank are neighbours in the tree, and on the ring inside a node."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fairlead.placement.locality import LocalTable
from fairlead.world.fleet import IntColumn


def rank_order(
    seats: Sequence[tuple[int, int]], levels: Sequence[IntColumn], table: Callable[[int], LocalTable]
) -> tuple[int, ...]:
    """Return positions in `seats` in rank order, for the seats (row, device mask) of one role.

    Seats of one domain stand together, at the widest level first; `levels` are domains of rows, tightest first, -1 for
    none. Inside a node seats follow the fastest ring over their devices (`table` by row), then come those without
    devices. Where levels do not nest, the wider one wins. O(seats log seats).
    """
    if not seats:
        return ()
    rows = np.array([row for row, _ in seats], dtype=np.int64)
    starts = np.array([mask & -mask if mask else 1 << 62 for _, mask in seats], dtype=np.int64)
    keys = [np.arange(len(seats), dtype=np.int64), starts, rows, *(level[rows] for level in levels)]
    order: list[int] = np.lexsort(keys).tolist()
    at = 0
    while at < len(order):
        end = at + 1
        while end < len(order) and seats[order[end]][0] == seats[order[at]][0]:
            end += 1
        if end - at > 2:
            order[at:end] = _on_one_node(order[at:end], seats, table)
        at = end
    return tuple(order)


def _on_one_node(order: list[int], seats: Sequence[tuple[int, int]], table: Callable[[int], LocalTable]) -> list[int]:
    by_set: dict[int, list[int]] = {}
    for seat in order:
        by_set.setdefault(seats[seat][1], []).append(seat)  # several shares have the same device
    without = by_set.pop(0, [])
    ring = table(seats[order[0]][0]).ring_of_sets(tuple(by_set))
    return [seat for mask in ring for seat in by_set[mask]] + without
