"""Append records to the journal, and read them back in order. The caller owns the transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import sqlalchemy as sa

from fairlead.errors import BooksDoNotVerify, UnreadableInput
from fairlead.ledger.chain import Head, link
from fairlead.model import codec
from fairlead.model.codec import Record
from fairlead.store.rows import insert
from fairlead.store.tables import journal, meta

_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the journal as it lies there; nothing in it is trusted before the audit has looked."""

    number: int
    id: str
    kind: str
    subject: str
    at_ms: int
    recorded_ms: int
    payload: str
    hash: str


_COLUMNS = [journal.c[name] for name in Row.__slots__]
_values = attrgetter(*Row.__slots__)


def make_row(head: Head, record: Record, data: bytes, recorded_ms: int) -> tuple[Row, Head]:
    """Number and link a record after `head`; `data` are its canonical bytes."""
    fact = codec.fact_id(data)
    after = Head(head.number + 1, link(head.hash, head.number + 1, fact.encode()))
    row = Row(
        number=after.number,
        id=fact,
        kind=type(record).__name__,
        subject=codec.subject(record),
        at_ms=record.at_ms,
        recorded_ms=recorded_ms,
        payload=data.decode(),
        hash=after.hash,
    )
    return row, after


def record_of(row: Row) -> codec.Record:
    """Decode one row.

    Raises
    ------
    BooksDoNotVerify
        It cannot be read; the text has its number.
    """
    try:
        return codec.decode(row.payload)
    except UnreadableInput as error:
        raise BooksDoNotVerify(f"journal record {row.number}: {error}") from error


def append(connection: sa.Connection, rows: Sequence[Row]) -> None:
    """Append rows; one that is there already raises through the database's own keys."""
    insert(connection, journal, [*Row.__slots__], [_values(row) for row in rows])


def known(connection: sa.Connection, ids: Sequence[str]) -> dict[str, int]:
    """Return which of these record ids the journal has, with their numbers."""
    found: dict[str, int] = {}
    for at in range(0, len(ids), _BATCH):
        query = sa.select(journal.c.id, journal.c.number).where(journal.c.id.in_(ids[at : at + _BATCH]))
        found.update({str(row[0]): int(row[1]) for row in connection.execute(query)})
    return found


def head(connection: sa.Connection) -> Head:
    """Return the journal's last number and hash."""
    row = connection.execute(
        sa.select(journal.c.number, journal.c.hash).order_by(journal.c.number.desc()).limit(1)
    ).first()  # fmt: skip
    return Head(int(row[0]), str(row[1])) if row else Head()


def hash_of(connection: sa.Connection, number: int) -> str | None:
    """Return the hash of a record as it lies there, None where there is no such record."""
    return connection.scalar(sa.select(journal.c.hash).where(journal.c.number == number))


def read(connection: sa.Connection, after: int = 0) -> Iterator[Row]:
    """Yield rows with numbers above `after`, in order, a batch in memory at a time."""
    query = sa.select(*_COLUMNS).where(journal.c.number > after).order_by(journal.c.number)
    yield from _rows(connection.execute(query, execution_options={"yield_per": _BATCH}))


def times(connection: sa.Connection, fact: str) -> dict[str, tuple[int, int]]:
    """Return record id -> (number, at_ms) of one record, empty where it is not there."""
    query = sa.select(journal.c.number, journal.c.at_ms).where(journal.c.id == fact)
    found = connection.execute(query).first()
    return {} if found is None else {fact: (int(found[0]), int(found[1]))}


def of_subject(connection: sa.Connection, subject: str, kinds: Iterable[str] = ()) -> Iterator[Row]:
    """Yield the rows about one gang, node, queue or pool, in order; all kinds where none is named."""
    query = sa.select(*_COLUMNS).where(journal.c.subject == subject).order_by(journal.c.number)
    wanted = tuple(kinds)
    yield from _rows(connection.execute(query.where(journal.c.kind.in_(wanted)) if wanted else query))


def of_kinds(connection: sa.Connection, kinds: Iterable[str]) -> Iterator[Row]:
    """Yield the rows of these kinds, in order."""
    query = sa.select(journal).where(journal.c.kind.in_(tuple(kinds))).order_by(journal.c.number)
    yield from _rows(connection.execute(query))


def before(connection: sa.Connection, number: int) -> int:
    """Return the time of the record before one, of that one itself where it is the first."""
    found = connection.scalar(
        sa.select(journal.c.at_ms).where(journal.c.number.in_((number - 1, number))).order_by(journal.c.number).limit(1)
    )
    return int(found or 0)


def set_meta(connection: sa.Connection, name: str, value: str) -> str:
    """Write a property of these books once; return what it is, which is another value where one was there."""
    there = connection.scalar(sa.select(meta.c.value).where(meta.c.name == name))
    if there is not None:
        return str(there)
    connection.execute(meta.insert().values(name=name, value=value))
    return value


def get_meta(connection: sa.Connection, name: str) -> str:
    """Return a property of these books, "" where it was never written."""
    return str(connection.scalar(sa.select(meta.c.value).where(meta.c.name == name)) or "")


def _rows(result: sa.CursorResult[tuple[object, ...]]) -> Iterator[Row]:
    with result:
        for row in result:
            values: Any = dict(zip(Row.__slots__, row, strict=True))
            yield Row(**values)
