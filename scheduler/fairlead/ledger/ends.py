"""When holds ended, of all that ever did: an end may be told before its beginning, and again years later.

Theory of operation. Ends that facts are likely to change are a dictionary. Those of holds that the tracks have
forgotten are packed by gang, as rows of 20 bytes, ordered by attempt and rank, so that one is found by bisection. A row
is changed in place when its end is told anew. What no row can hold (numbers beyond 32 or 64 bits) stays in the
dictionary, which counts before the rows.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from fairlead.ledger.timeline import HoldKey
from fairlead.model.gang import GangId

End = tuple[int, int]
"""(at_ms, the width in which it lies, in ms)."""

_ROW = struct.Struct("<IIqI")  # attempt, rank, at_ms, width


class Ends:
    """A mapping from holds to their ends. `Meter` tells it which of them are forgotten."""

    def __init__(self) -> None:
        """Know no end."""
        self._recent: dict[HoldKey, End] = {}
        self._packed: dict[GangId, bytes] = {}

    def __contains__(self, key: HoldKey) -> bool:
        """Return whether an end was told."""
        return self.get(key) is not None

    def get(self, key: HoldKey) -> End | None:
        """Return when a hold ended, None where nothing said so."""
        end = self._recent.get(key)
        rows = self._packed.get(key[0]) if end is None else None
        if rows is None:
            return end
        at, found = _place(rows, key)
        return _ROW.unpack_from(rows, at)[2:] if found else None

    def tell(self, key: HoldKey, end: End) -> None:
        """Let a hold end at a moment, whatever was told before."""
        rows = self._packed.get(key[0])
        if rows is not None and key not in self._recent and _place(rows, key)[1]:
            changed = bytearray(rows)  # only now: what other attempts left there may be megabytes
            if _put(changed, key, end):
                self._packed[key[0]] = bytes(changed)
                return
        self._recent[key] = end

    def pack(self, keys: Iterable[HoldKey], id_of: Callable[[GangId], GangId]) -> None:
        """Pack the ends of holds, as far as they are not; `id_of` a gang is the one string to keep of it."""
        self._pack({key: self._recent.pop(key) for key in keys if key in self._recent}, id_of)

    def saved(self) -> list[tuple[HoldKey, End]]:
        """Return all ends, sorted by hold."""
        packed = ((key, end) for key, end in self._unpacked() if key not in self._recent)
        return sorted([*packed, *self._recent.items()])

    def restore(
        self, saved: Iterable[tuple[HoldKey, End]], held: Callable[[HoldKey], bool], id_of: Callable[[GangId], GangId]
    ) -> None:
        """Know what was saved; of holds that are not `held` in any track it is packed."""
        told = dict(saved)
        self._recent = {key: end for key, end in told.items() if held(key)}
        self._pack({key: end for key, end in told.items() if key not in self._recent}, id_of)

    def _pack(self, told: dict[HoldKey, End], id_of: Callable[[GangId], GangId]) -> None:
        for gang, found in groupby(sorted(told), key=lambda key: key[0]):
            rows = bytearray(self._packed.get(gang, b""))
            self._recent |= {key: told[key] for key in found if not _put(rows, key, told[key])}
            if rows:
                self._packed[id_of(gang)] = bytes(rows)

    def _unpacked(self) -> Iterator[tuple[HoldKey, End]]:
        for gang, rows in self._packed.items():
            for attempt, rank, at_ms, width in _ROW.iter_unpack(rows):
                yield (gang, attempt, rank), (at_ms, width)


def _place(rows: bytes | bytearray, key: HoldKey) -> tuple[int, bool]:
    """Return where in the rows of its gang a hold's is or would be, in bytes, and whether it is there."""
    count = len(rows) // _ROW.size
    row = bisect_left(range(count), key[1:], key=lambda row: _ROW.unpack_from(rows, row * _ROW.size)[:2])
    at = row * _ROW.size
    return at, row < count and _ROW.unpack_from(rows, at)[:2] == key[1:]


def _put(rows: bytearray, key: HoldKey, end: End) -> bool:
    """Write a row where it belongs, over the one that is there; return whether a row can hold it."""
    try:
        row = _ROW.pack(*key[1:], *end)
    except struct.error:
        return False
    at, known = _place(rows, key)
    rows[at : at + known * _ROW.size] = row
    return True
