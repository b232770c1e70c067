"""Sums of the timeline by account over quarters of an hour and over days, so that reports need not read every entry.

An entry that covers a whole day (UTC) is in that day's cell only. Any other is in the day's cell with all that it has
of the day, and in the cells of the quarters that it touches. In every zone days and months begin on a quarter, so the
sum over such a window is made of whole days, of quarters at its two ends, and of an even part of what covers the whole
of an end's day: exact, and of about as many cells as the window has days.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

from fairlead.ledger.accounts import TICKS
from fairlead.ledger.entry import TIMELINE, Entry

QUARTER_MS = 900_000
DAY_MS = 86_400_000

Cell = tuple[int, int, str, str]
"""(length_ms, start_ms, account, pool)."""
Piece = tuple[int, int, int]
"""(length_ms and start_ms of a cell, ms of an interval that are in it)."""


@lru_cache(maxsize=4096)
def pieces(from_ms: int, to_ms: int) -> tuple[Piece, ...]:
    """Cut the interval [from_ms, to_ms) into its parts of cells; the parts of days sum to it."""
    return tuple(_pieces(from_ms, to_ms))


def _pieces(from_ms: int, to_ms: int) -> Iterator[Piece]:
    for day in range(from_ms // DAY_MS * DAY_MS, to_ms, DAY_MS):
        begin, end = max(day, from_ms), min(day + DAY_MS, to_ms)
        yield DAY_MS, day, end - begin
        if end - begin < DAY_MS:
            for quarter in range(begin // QUARTER_MS * QUARTER_MS, end, QUARTER_MS):
                yield QUARTER_MS, quarter, min(quarter + QUARTER_MS, end) - max(quarter, begin)


def cells(entries: Iterable[Entry], into: dict[Cell, int] | None = None) -> dict[Cell, int]:
    """Return the ticks that entries add to cells, on top of `into` (changed) where it is given."""
    sums: dict[Cell, int] = {} if into is None else into
    for entry in entries:
        if entry.kind not in TIMELINE:
            continue
        span_ms = entry.to_ms - entry.from_ms
        for part in entry.postings:
            if part.unit != TICKS:
                continue
            rate = part.amount // span_ms
            for length, start, ms in pieces(entry.from_ms, entry.to_ms):
                cell = (length, start, part.account, entry.pool)
                sums[cell] = sums.get(cell, 0) + rate * ms
    return sums
