"""The earliest moment by which a gang can be promised its devices: what is held ends, bounded, and then there is room.

At every probed moment the overlay is made what it will be by then at the latest: whatever ends before is given back,
whatever is promised to others beyond it is taken. Room only grows from one such moment to the next, so the earliest is
found by halving. The overlay is left as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fairlead.model.gang import Gang, Placement
from fairlead.placement.placer import Placer
from fairlead.planning.end_calendar import NEVER, Entry, Stock


@dataclass(frozen=True, slots=True)
class Found:
    """Where a gang can be by `at_ms` at the latest."""

    at_ms: int
    placement: Placement


class PromiseSearch:
    """One look at what is held and promised, for any number of gangs."""

    def __init__(self, placer: Placer, held: Sequence[Entry], promised: Sequence[Entry], now_ms: int) -> None:
        """`held` are entries that end; `promised` those that begin later, each with the end of what was promised."""
        self._placer = placer
        extended = sorted(placer.overlay.columns.extended)
        self._now_ms = now_ms
        self._held, self._promised = Stock(held, extended), Stock(promised, extended)
        self._odd = [entry for entry in held if not entry.plain]
        ends = {entry.end_ms for entry in (*held, *promised)}
        self.moments = sorted(end for end in ends if now_ms < end < NEVER)

    def earliest(self, gang: Gang, may_by: Callable[[int], bool]) -> Found | None:
        """Return the earliest moment at which the gang has a place and `may_by` says yes, None where there is none.

        `may_by` must go on saying yes once it has. O(log moments) searches for a place.
        """
        low, high = 0, len(self.moments) - 1
        if high < 0:
            return None
        best = self._at(gang, self.moments[high], may_by)
        while best is not None and low < high:
            middle = (low + high) // 2
            found = self._at(gang, self.moments[middle], may_by)
            if found is None:
                low = middle + 1
            else:
                high, best = middle, found
        return best

    def _at(self, gang: Gang, at_ms: int, may_by: Callable[[int], bool]) -> Found | None:
        if not may_by(at_ms):
            return None
        overlay = self._placer.overlay
        mark = overlay.checkpoint()
        back = self._held.lot(np.flatnonzero(self._held.ends <= at_ms), overlay, back=True)
        if back is not None:
            overlay.give_lot(back)
        for entry in self._odd:
            if entry.end_ms <= at_ms:
                for taking in entry.takings:
                    overlay.give(taking)
        taken = self._promised.lot(np.flatnonzero(self._promised.ends > at_ms), overlay, back=False)
        if taken is not None:
            overlay.take_lot(taken)
        placement = self._placer.place(gang).placement
        overlay.roll_back(mark)
        return None if placement is None else Found(at_ms, placement)
