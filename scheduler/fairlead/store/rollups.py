"""Keep the sums of `ledger/rollup.py` in the same transaction as the entries, and sum windows of time from them.

`meta` says under ``rollups`` up to which entry they go, so books from before there were any are caught up with, and
nobody reads sums that lack something. They are derived: who doubts them makes them anew and compares.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import sqlalchemy as sa

from fairlead.errors import BooksDoNotVerify
from fairlead.ledger.chain import Sealed
from fairlead.ledger.rollup import DAY_MS, QUARTER_MS, Cell, cells
from fairlead.store import entries
from fairlead.store.tables import joined_sum, meta, rollup, wide_sum

_META = "rollups"
_BATCH = 20_000


def add(connection: sa.Connection, sealed: Sequence[Sealed]) -> None:
    """Add what entries say, which follow directly on those that are in already."""
    if not sealed:
        return
    _grow(connection, cells(item.entry for item in sealed))
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
    """Make the sums anew from all entries; return how many cells differed from what they must be.

    Raises
    ------
    BooksDoNotVerify
        The first entries are archived, and they are in the sums.
    """
    first = next(entries.read(connection), None)
    if first is not None and first.number != 1:
        raise BooksDoNotVerify(f"entries before {first.number} are archived: their sums cannot be made anew")
    before = dict(read(connection))
    connection.execute(rollup.delete())
    _set_number(connection, 0)
    catch_up(connection)
    return len(differences(before, dict(read(connection))))


def read(connection: sa.Connection) -> Iterator[tuple[Cell, int]]:
    """Yield every cell with its ticks, sorted."""
    columns = (rollup.c.length_ms, rollup.c.start_ms, rollup.c.account, rollup.c.pool)
    for length, start, account, pool, ticks in connection.execute(
        sa.select(*columns, rollup.c.ticks).order_by(*columns)
    ):
        yield (int(length), int(start), str(account), str(pool)), int(ticks)


def differences(there: Mapping[Cell, int], due: Mapping[Cell, int]) -> list[Cell]:
    """Return the cells in which two sums differ, sorted; a missing cell is another than one of 0."""
    return sorted(cell for cell in {*there, *due} if there.get(cell) != due.get(cell))


def sums(connection: sa.Connection, since_ms: int | None, until_ms: int | None) -> dict[tuple[str, str], int]:
    """Return (account, pool) -> ticks inside [since_ms, until_ms), whose bounds lie on quarters; None is no bound."""
    first = None if since_ms is None else -(-since_ms // DAY_MS) * DAY_MS
    last = None if until_ms is None else until_ms // DAY_MS * DAY_MS
    edges = [(since_ms, first), (last, until_ms)]
    parts: list[Mapping[tuple[str, str], int]] = []
    if first is None or last is None or first <= last:
        parts.append(_sum(connection, DAY_MS, first, last))
    else:  # inside one day
        edges = [(since_ms, until_ms)]
    for begin, end in edges:
        if begin is not None and end is not None and begin < end:
            parts.append(_sum(connection, QUARTER_MS, begin, end))
            parts.append(_even(connection, begin // DAY_MS * DAY_MS, end - begin))
    found: dict[tuple[str, str], int] = {}
    for part in parts:
        for key, ticks in part.items():
            found[key] = found.get(key, 0) + ticks
    return {key: found[key] for key in sorted(found) if found[key]}


def _even(connection: sa.Connection, day: int, ms: int) -> dict[tuple[str, str], int]:
    """Return what entries that cover the whole of a day have in `ms` of it: they are in none of its quarters."""
    whole, quarters = (_sum(connection, length, day, day + DAY_MS) for length in (DAY_MS, QUARTER_MS))
    return {key: (ticks - quarters.get(key, 0)) // DAY_MS * ms for key, ticks in whole.items()}


def _sum(
    connection: sa.Connection, length_ms: int, since_ms: int | None, until_ms: int | None
) -> dict[tuple[str, str], int]:
    query = sa.select(rollup.c.account, rollup.c.pool, *wide_sum(rollup.c.ticks)).where(rollup.c.length_ms == length_ms)
    if since_ms is not None:
        query = query.where(rollup.c.start_ms >= since_ms)
    if until_ms is not None:
        query = query.where(rollup.c.start_ms < until_ms)
    rows = connection.execute(query.group_by(rollup.c.account, rollup.c.pool))
    return {(str(account), str(pool)): joined_sum(high, low) for account, pool, high, low in rows}


def _grow(connection: sa.Connection, more: Mapping[Cell, int]) -> None:
    """Add ticks to cells, those that are not there yet included."""
    rows = [(*cell, ticks) for cell, ticks in sorted(more.items())]
    if not rows:
        return
    add = "ON CONFLICT (length_ms, start_ms, account, pool) DO UPDATE SET ticks = rollup.ticks + excluded.ticks"
    if connection.dialect.name == "postgresql":
        columns = [list(column) for column in zip(*rows, strict=True)]
        arrays = "%s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::bigint[]"
        connection.exec_driver_sql(f"INSERT INTO rollup SELECT * FROM unnest({arrays}) {add}", tuple(columns))
    else:
        connection.exec_driver_sql(f"INSERT INTO rollup VALUES (?, ?, ?, ?, ?) {add}", rows)


def _set_number(connection: sa.Connection, last: int) -> None:
    done = connection.execute(meta.update().where(meta.c.name == _META).values(value=str(last)))
    if not done.rowcount:
        connection.execute(meta.insert().values(name=_META, value=str(last)))


def _batches(connection: sa.Connection, after: int) -> Iterator[list[Sealed]]:
    """Yield the entries after a number; each batch is read before the caller writes."""
    while batch := list(islice(entries.read(connection, after=after), _BATCH)):
        yield batch
        after = batch[-1].number
