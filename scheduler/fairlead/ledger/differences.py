"""What of a timeline is to be posted, and what to be taken back and booked instead where it has changed."""

from __future__ import annotations

from collections.abc import Iterator

from fairlead.ledger.entry import EntryKind, State
from fairlead.ledger.timeline import Segments


def pieces(line: Segments, from_ms: int, to_ms: int) -> Iterator[tuple[int, int, State]]:
    """Yield (from, to, state) of a timeline inside [from_ms, to_ms), each part of the device by itself."""
    for at, (begin, states) in enumerate(line):
        end = line[at + 1][0] if at + 1 < len(line) else to_ms
        a, b = max(begin, from_ms), min(end, to_ms)
        if a < b:
            for state in states:
                yield a, b, state


def corrections(old: Segments, new: Segments, from_ms: int, to_ms: int) -> Iterator[tuple[EntryKind, int, int, State]]:
    """Yield what to take back and what to book instead inside [from_ms, to_ms), where the two timelines differ."""
    was, now = list(pieces(old, from_ms, to_ms)), list(pieces(new, from_ms, to_ms))
    for kind, line, other in ((EntryKind.REVERSAL, was, now), (EntryKind.SEGMENT, now, was)):
        for begin, end, state in line:
            at = begin
            for a, b in ((a, b) for a, b, same in other if same == state):
                upto = min(max(a, begin), end)
                if at < upto:
                    yield kind, at, upto, state
                at = min(max(b, begin), end)
            if at < end:
                yield kind, at, end, state
