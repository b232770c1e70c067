"""Enumerate the states of a MIG grid: which instances go together, what still fits, and how many ways there are on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fairlead.model.partitions import MigProfile

IntColumn = npt.NDArray[np.int64]
Transitions = npt.NDArray[np.int32]
"""Shape (states, slots): the state after a slot is taken, -1 where it cannot be."""
_BITS_MOST = 1 << 18


def layouts(
    profiles: Sequence[MigProfile],
    slots: Sequence[tuple[int, int]],
    *,
    limits: Sequence[MigProfile],
    most: int,
) -> list[int] | None:
    """Return the masks over `slots` (row of a profile, start) that can be, by number of instances; None above `most`.

    `limits` are all profiles that the GPU has: it has at least the engines that the most of each would need at once,
    and nothing says that it has more. Without any only overlaps are refused, as for instances that exist already.
    """
    amounts = [_amounts(p) for p in profiles] if limits else []
    most_of = [tuple(p.most * amount for amount in _amounts(p)) for p in limits]
    return _Bounds(profiles, slots, amounts, [max(column) for column in zip(*most_of, strict=True)]).layouts(most)


class _Bounds:
    """Which slots go together. `amounts` is empty where the instances exist, so that nothing can run out."""

    def __init__(
        self,
        profiles: Sequence[MigProfile],
        slots: Sequence[tuple[int, int]],
        amounts: Sequence[tuple[int, ...]],
        totals: Sequence[int],
    ) -> None:
        self._row = [row for row, _ in slots]
        self._amounts, self._totals = amounts, totals
        self._most = [p.most for p in profiles]
        spans = [((1 << profiles[row].size) - 1) << start for row, start in slots]
        self._apart = [sum(1 << other for other, b in enumerate(spans) if a & b) for a in spans]

    def layouts(self, most: int) -> list[int] | None:
        """Return all masks that can be reached from the empty one, by number of instances; None above `most`."""
        found, layer = [0], [0]
        while layer:
            reached = {
                mask | 1 << at for mask in layer for at in range(len(self._row)) if self._fits(mask, at)
            }  # a set: many ways lead to one mask
            layer = sorted(reached)
            found += layer
            if len(found) > most:
                return None
        return found

    def _fits(self, mask: int, at: int) -> bool:
        if mask & self._apart[at]:
            return False
        if not self._amounts:
            return True
        rows = [row for other, row in enumerate(self._row) if mask >> other & 1]
        mine = self._row[at]
        if rows.count(mine) >= self._most[mine]:
            return False
        rows.append(mine)
        return all(sum(self._amounts[row][i] for row in rows) <= total for i, total in enumerate(self._totals))


def count_rooms(profiles: int, slots: Sequence[tuple[int, int]], after: Transitions) -> IntColumn:
    """Longest chain of additions of each profile; a state's successors always have higher ids."""
    rooms = np.zeros((profiles, len(after)), dtype=np.int64)
    by_row: dict[int, list[int]] = {}
    for at, (row, _) in enumerate(slots):
        by_row.setdefault(row, []).append(at)
    for row, columns in by_row.items():
        reached = after[:, columns]
        room = rooms[row]
        while True:
            grown = np.where(reached >= 0, 1 + room[reached], 0).max(axis=1)
            if np.array_equal(grown, room):
                break
            room[:] = grown
    rooms.flags.writeable = False
    return rooms


def count_futures(
    profiles: Sequence[MigProfile], slots: Sequence[tuple[int, int]], after: Transitions, rooms: IntColumn
) -> IntColumn:
    """Count the multisets that still fit: bit n of a state's set stands for the n-th multiset in a mixed radix.

    A grid with too many for that counts the units that each profile could use instead.
    """
    steps: list[int] = []
    bits = 1
    for row in range(len(profiles)):
        steps.append(bits)
        bits *= int(rooms[row].max()) + 1
        if bits > _BITS_MOST:
            sizes = np.array([p.size for p in profiles], dtype=np.int64)
            return readonly(1 + sizes @ rooms)
    shift = [steps[row] for row, _ in slots]
    sets = [1] * len(after)
    for state in range(len(after) - 1, -1, -1):
        found = 1
        for at, reached in enumerate(after[state].tolist()):
            if reached >= 0:
                found |= sets[reached] << shift[at]
        sets[state] = found
    return readonly(np.array([found.bit_count() for found in sets], dtype=np.int64))


def _amounts(profile: MigProfile) -> tuple[int, ...]:
    """What an instance takes of each thing that a GPU has so many of."""
    engines = (profile.decoders, profile.encoders, profile.jpegs, profile.ofas)
    return (profile.slices, *engines, int(profile.takes_media))


def readonly(column: IntColumn) -> IntColumn:
    """Return the column, which can no longer be written."""
    column.flags.writeable = False
    return column
