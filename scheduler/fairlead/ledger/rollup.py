"""Sums of entries by account over hours and over days (UTC), so that reports need not read every entry.

A cell has what lies in its hour or day of all entries shorter than a day, each cut as `periods.clipped` cuts; so cells
that meet sum to what the entries have in their time together, to the tick and the nano-unit. An entry of a day or more
is in no cell: there are few (what was lost with a job since its last checkpoint, an adjustment of a month), and whoever
sums a window reads them. Jobs are summed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from fairlead.ledger.accounts import Kind
from fairlead.ledger.entry import Entry, EntryKind
from fairlead.ledger.periods import BOOKED_AS, Line, clipped

HOUR_MS = 3_600_000
DAY_MS = 86_400_000

Key = tuple[str, str, str, str, str, str]
"""(kind, account, unit, pool, actor, reason) of a `Line`, as far as reports over jobs tell them apart."""
Cell = tuple[int, int, Key]
"""(length_ms, start_ms, key)."""

_KEPT, _WASTE = f"{Kind.RESERVED_IDLE}:", f"{Kind.WASTE}:"
_KINDS: dict[str, str] = {kind: BOOKED_AS.get(kind, kind).value for kind in EntryKind}


@lru_cache(maxsize=65_536)
def key_of(kind: str, account: str, unit: str, pool: str, actor: str, reason: str) -> Key:
    """Return the key of a line: of who decided and why it has what reports over jobs say.

    Of adjustments that is all; of what is kept idle for whom and by which rule; of what was wasted who caused it.
    """
    if kind == EntryKind.ADJUSTMENT:
        return kind, account, unit, pool, actor, reason
    if account.startswith(_KEPT):
        return kind, account, unit, pool, actor, reason.partition("/")[0]
    return kind, account, unit, pool, actor if account.startswith(_WASTE) else "", ""


def over_jobs(lines: Iterable[Line]) -> list[Line]:
    """Return lines with jobs summed over, sorted; a line of 0 is none."""
    sums: dict[tuple[str, Key], int] = {}
    for line in lines:
        at = line.of, key_of(line.kind, line.account, line.unit, line.pool, line.actor, line.reason)
        sums[at] = sums.get(at, 0) + line.amount
    return [line_of(of, key, amount) for (of, key), amount in sorted(sums.items()) if amount]


def line_of(of: str, key: Key, amount: int) -> Line:
    """Return the line of a key; it is of no job."""
    kind, account, unit, pool, actor, reason = key
    return Line(
        of=of, kind=kind, account=account, unit=unit, pool=pool, namespace="", name="", gang="", actor=actor,
        reason=reason, amount=amount,
    )  # fmt: skip


def hours(entries: Iterable[Entry], into: dict[tuple[int, Key], int] | None = None) -> dict[tuple[int, Key], int]:
    """Return what entries add to hours: (start_ms, key) -> amount, on top of `into` (changed) where it is given."""
    sums: dict[tuple[int, Key], int] = {} if into is None else into
    for entry in entries:
        begin, end = entry.from_ms, entry.to_ms
        if end - begin >= DAY_MS:
            continue
        kind, first = _KINDS.get(entry.kind, entry.kind), begin // HOUR_MS * HOUR_MS
        keys = [key_of(kind, part.account, part.unit, entry.pool, entry.actor, entry.reason) for part in entry.postings]
        if end <= first + HOUR_MS:
            for key, part in zip(keys, entry.postings, strict=True):
                sums[first, key] = sums.get((first, key), 0) + part.amount
            continue
        amounts = [(part.unit, part.amount) for part in entry.postings]
        for start in range(first, end, HOUR_MS):
            parts = clipped(amounts, (begin, end), (start, start + HOUR_MS))
            for key, amount in zip(keys, parts, strict=True):
                sums[start, key] = sums.get((start, key), 0) + amount
    return sums


def cells(sums: Mapping[tuple[int, Key], int]) -> dict[Cell, int]:
    """Return the cells that hours make: themselves, and their days."""
    found: dict[Cell, int] = {(HOUR_MS, start, key): amount for (start, key), amount in sums.items()}
    for (start, key), amount in sums.items():
        day = (DAY_MS, start // DAY_MS * DAY_MS, key)
        found[day] = found.get(day, 0) + amount
    return found


def spans(from_ms: int, to_ms: int) -> list[tuple[int, int, int]]:
    """Divide [from_ms, to_ms), whose bounds are full hours, into (length_ms of cells, from_ms, to_ms): days inside."""
    first, last = -(-from_ms // DAY_MS) * DAY_MS, to_ms // DAY_MS * DAY_MS
    if first >= last:
        return [(HOUR_MS, from_ms, to_ms)]
    found = [(HOUR_MS, from_ms, first), (DAY_MS, first, last), (HOUR_MS, last, to_ms)]
    return [span for span in found if span[1] < span[2]]
