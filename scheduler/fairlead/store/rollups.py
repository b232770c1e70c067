"""Keep the sums of `ledger/rollup.py` in the same transaction as the entries, and sum windows of time from them.

They are of the entries that are in the database, up to the one that `meta` names under ``rollups``; what is not in yet
(books from before there were any) is summed from the entries. They are derived: who doubts them makes them anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

import sqlalchemy as sa

from fairlead.ledger.chain import Sealed
from fairlead.ledger.periods import Line
from fairlead.ledger.rollup import DAY_MS, HOUR_MS, Cell, Key, cells, hours, key_of, spans
from fairlead.store import entries, periods
from fairlead.store.tables import LONG, entry, joined_sum, meta, posting, rollup, wide_sum

_META = "rollups"
_BATCH = 20_000
_FEW = 2_000
_KEY = (rollup.c.kind, rollup.c.account, rollup.c.unit, rollup.c.pool, rollup.c.actor, rollup.c.reason)


def add(connection: sa.Connection, sealed: Sequence[Sealed]) -> None:
    """Add what entries say, which follow directly on those that are in already."""
    if not sealed:
        return
    _grow(connection, cells(hours(item.entry for item in sealed)))
    _set_number(connection, sealed[-1].number)


def number(connection: sa.Connection) -> int:
    """Return the number of the last entry that is in."""
    found = connection.scalar(sa.select(meta.c.value).where(meta.c.name == _META))
    return 0 if found is None else int(found)


def catch_up(connection: sa.Connection) -> int:
    """Add the entries that are not in yet; return how many those were."""
    count = 0
    for batch in _batches(connection, number(connection)):
        add(connection, batch)
        count += len(batch)
    return count


def rebuild(connection: sa.Connection) -> int:
    """Make the sums anew from all entries; return how many cells differed from what they must be."""
    before = dict(read(connection))
    connection.execute(rollup.delete())
    _set_number(connection, 0)
    catch_up(connection)
    return len(differences(before, dict(read(connection))))


def take_out(connection: sa.Connection, up_to: int) -> None:
    """Take out the entries up to a number, which are about to be deleted, and are in."""
    for batch in _batches(connection, 0, up_to):
        less = cells(hours(item.entry for item in batch))
        _grow(connection, {cell: -amount for cell, amount in less.items()})
    connection.execute(rollup.delete().where(rollup.c.amount == 0))


def read(connection: sa.Connection) -> Iterator[tuple[Cell, int]]:
    """Yield every cell with its amount, sorted."""
    columns = (rollup.c.length_ms, rollup.c.start_ms, *_KEY)
    for length, start, *key, amount in connection.execute(sa.select(*columns, rollup.c.amount).order_by(*columns)):
        kind, account, unit, pool, actor, reason = map(str, key)
        yield (int(length), int(start), (kind, account, unit, pool, actor, reason)), int(amount)


def differences(there: Mapping[Cell, int], due: Mapping[Cell, int]) -> list[Cell]:
    """Return the cells in which two sums differ, sorted; a missing cell is one of 0."""
    return sorted(cell for cell in {*there, *due} if there.get(cell, 0) != due.get(cell, 0))


def sums(connection: sa.Connection, window: tuple[int, int], up_to: int | None = None) -> dict[Key, int]:
    """Return key -> amount inside of a window [from_ms, to_ms), over entries up to a number (None: all); none is 0.

    Cells have its full hours; of the parts of hours at its ends, and of what is in no cell, the entries are read.
    """
    head, last = entries.head(connection).number, number(connection)
    since, until = window
    first, end = -(-since // HOUR_MS) * HOUR_MS, until // HOUR_MS * HOUR_MS
    edges = [window] if first >= end else [edge for edge in ((since, first), (end, until)) if edge[0] < edge[1]]
    found: dict[Key, int] = {}
    if first < end:
        for length, begin, to in spans(first, end):
            _add(found, _cells(connection, length, begin, to))
        if last < head:
            _add(found, _keyed(periods.sums(connection, (first, end), (last, head), "", only=[~LONG])))
    for edge in edges:
        _add(found, _few(connection, edge, ~LONG, entry.c.to_ms < edge[1] + DAY_MS))
    _add(found, _few(connection, window, LONG))
    if up_to is not None and up_to < head:  # somebody wrote since
        newer = _keyed(periods.sums(connection, window, (up_to, head), ""))
        _add(found, ((key, -amount) for key, amount in newer))
    return {key: amount for key, amount in found.items() if amount}


def begin_ms(connection: sa.Connection) -> int | None:
    """Return the earliest moment that an entry in the database speaks of, None where there is none."""
    earliest = sa.select(sa.func.min(entry.c.from_ms))
    first = connection.scalar(sa.select(sa.func.min(rollup.c.start_ms)).where(rollup.c.length_ms == HOUR_MS))
    if number(connection) < entries.head(connection).number or first is None:
        parts = [earliest]
    else:
        near = (entry.c.to_ms >= first, entry.c.to_ms < first + HOUR_MS + DAY_MS)
        parts = [earliest.where(LONG), earliest.where(~LONG, *near)]
    found = [connection.scalar(part) for part in parts]
    return min((int(at) for at in found if at is not None), default=None)


def _few(
    connection: sa.Connection, window: tuple[int, int], *which: sa.ColumnElement[bool]
) -> Iterator[tuple[Key, int]]:
    """Sum what some entries have in a window. There are few, but only we know it: PostgreSQL would read all postings.

    So they are found first, by an index over times, and asked for by their numbers.
    """
    near = sa.select(entry.c.number).where(entry.c.from_ms < window[1], entry.c.to_ms >= window[0], *which)
    numbers = sorted(connection.scalars(near))
    for at in range(0, len(numbers), _FEW):
        some = numbers[at : at + _FEW]
        only = [entry.c.number.in_(some), posting.c.number.in_(some)]
        yield from _keyed(periods.sums(connection, window, None, "", only=only))


def _keyed(lines: Iterable[Line]) -> Iterator[tuple[Key, int]]:
    for line in lines:
        yield key_of(line.kind, line.account, line.unit, line.pool, line.actor, line.reason), line.amount


def _cells(connection: sa.Connection, length_ms: int, from_ms: int, to_ms: int) -> Iterator[tuple[Key, int]]:
    query = sa.select(*_KEY, *wide_sum(rollup.c.amount)).where(
        rollup.c.length_ms == length_ms, rollup.c.start_ms >= from_ms, rollup.c.start_ms < to_ms
    )
    for *key, high, low in connection.execute(query.group_by(*_KEY)):
        kind, account, unit, pool, actor, reason = map(str, key)
        yield (kind, account, unit, pool, actor, reason), joined_sum(high, low)


def _add(found: dict[Key, int], more: Iterable[tuple[Key, int]]) -> None:
    for key, amount in more:
        found[key] = found.get(key, 0) + amount


def _grow(connection: sa.Connection, more: Mapping[Cell, int]) -> None:
    """Add amounts to cells, those that are not there yet included."""
    rows = [(length, start, *key, amount) for (length, start, key), amount in sorted(more.items())]
    if not rows:
        return
    columns = [column.name for column in rollup.primary_key]
    add = f"ON CONFLICT ({', '.join(columns)}) DO UPDATE SET amount = rollup.amount + excluded.amount"
    if connection.dialect.name == "postgresql":
        kinds = ("bigint", "bigint", "text", "text", "text", "text", "text", "text", "bigint")
        arrays = ", ".join(f"%s::{kind}[]" for kind in kinds)
        values = tuple(list(column) for column in zip(*rows, strict=True))
        connection.exec_driver_sql(f"INSERT INTO rollup SELECT * FROM unnest({arrays}) {add}", values)
    else:
        marks = ", ".join("?" for _ in rollup.c)
        connection.exec_driver_sql(f"INSERT INTO rollup VALUES ({marks}) {add}", rows)


def _set_number(connection: sa.Connection, last: int) -> None:
    done = connection.execute(meta.update().where(meta.c.name == _META).values(value=str(last)))
    if not done.rowcount:
        connection.execute(meta.insert().values(name=_META, value=str(last)))


def _batches(connection: sa.Connection, after: int, up_to: int | None = None) -> Iterator[list[Sealed]]:
    """Yield the entries numbered ]after, up_to]; each batch is read before the caller writes."""
    while batch := list(islice(entries.read(connection, after=after, up_to=up_to), _BATCH)):
        yield batch
        after = batch[-1].number
