"""Append sealed entries once, and read them and balances back. The caller owns the transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter, itemgetter

import sqlalchemy as sa

from fairlead.ledger.chain import Head, Link, Sealed
from fairlead.ledger.entry import HASHED, OUTCOMES, TIMELINE, Entry, EntryKind, Posting, said_bytes
from fairlead.ledger.outcomes import ESTIMATED
from fairlead.model.calendars import Span
from fairlead.store import rows
from fairlead.store.tables import entry, joined_sum, posting, wide_sum

_BATCH = 500
_FIELDS = tuple(name for name in entry.c.keys() if name not in ("number", "hash"))  # noqa: SIM118 - a column collection
_values = attrgetter(*_FIELDS)
_STREAM = 5_000
_NONE: tuple[int, tuple[()]] = (0, ())


def append(connection: sa.Connection, sealed: Sequence[Sealed]) -> None:
    """Append entries; one that is there already raises through the database's own keys."""
    rows.insert(
        connection,
        entry,
        ("number", "hash", *_FIELDS),
        [(item.number, item.hash, *_values(item.entry)) for item in sealed],
    )
    rows.insert(
        connection,
        posting,
        ("number", "line", "account", "amount", "unit"),
        [
            (item.number, line, part.account, part.amount, part.unit)
            for item in sealed
            for line, part in enumerate(item.entry.postings)
        ],
    )


def head(connection: sa.Connection) -> Head:
    """Return the ledger's last number and hash."""
    row = connection.execute(sa.select(entry.c.number, entry.c.hash).order_by(entry.c.number.desc()).limit(1)).first()
    return Head(int(row[0]), str(row[1])) if row else Head()


def hash_of(connection: sa.Connection, number: int) -> str | None:
    """Return the hash of an entry as it lies there, None where there is no such entry."""
    return connection.scalar(sa.select(entry.c.hash).where(entry.c.number == number))


def read(connection: sa.Connection, *, gang: str = "", after: int = 0, up_to: int | None = None) -> Iterator[Sealed]:
    """Yield entries numbered ]after, up_to] with their postings, in order of number, a batch in memory at a time."""
    wanted = [entry.c.gang == gang] if gang else []
    wanted += [entry.c.number > after] if after else []
    wanted += [] if up_to is None else [entry.c.number <= up_to]
    return _read(connection, wanted)


def held_between(connection: sa.Connection, since_ms: int | None, until_ms: int | None, up_to: int) -> Iterator[Sealed]:
    """Yield entries up to a number that touch [since_ms, until_ms) and can have a price; None is ever.

    Those are what is somebody's, and what of it a poor placement cost.
    """
    given_back = sa.and_(entry.c.kind.in_(OUTCOMES), entry.c.reason.startswith(f"{ESTIMATED}/"))
    theirs = sa.and_(entry.c.kind.in_(TIMELINE), sa.or_(entry.c.gang != "", entry.c.actor != ""))
    wanted = [entry.c.number <= up_to, sa.or_(theirs, given_back)]
    wanted += [] if since_ms is None else [entry.c.to_ms > since_ms]
    wanted += [] if until_ms is None else [entry.c.from_ms < until_ms]
    return _read(connection, wanted)


def of_bill(connection: sa.Connection, span: Span, up_to: int, corrected_after: int | None) -> Iterator[Sealed]:
    """Yield entries up to a number that touch a span, and all after another one: what corrects earlier time."""
    told = sa.and_(entry.c.to_ms >= span.from_ms, entry.c.from_ms < span.to_ms)
    corrects = [] if corrected_after is None else [entry.c.number > corrected_after]
    return _read(connection, [entry.c.number <= up_to, sa.or_(told, *corrects)])


def of_gang(connection: sa.Connection, gang: str, since_ms: int, until_ms: int) -> Iterator[Sealed]:
    """Yield the entries of a gang's devices that touch [since_ms, until_ms): what they were in, what became of that."""
    kinds = entry.c.kind.in_((*TIMELINE, *OUTCOMES))
    return _read(connection, [entry.c.gang == gang, kinds, entry.c.to_ms > since_ms, entry.c.from_ms < until_ms])


def _read(connection: sa.Connection, wanted: Sequence[sa.ColumnElement[bool]]) -> Iterator[Sealed]:
    joined = entry.outerjoin(posting, entry.c.number == posting.c.number)
    query = (
        sa.select(entry, posting.c.line, posting.c.account, posting.c.amount, posting.c.unit)
        .select_from(joined)
        .where(*wanted)
        .order_by(entry.c.number, posting.c.line)
    )
    with connection.execute(query, execution_options={"yield_per": _BATCH}) as result:
        for of, group in groupby(result.mappings(), key=lambda row: row["number"]):
            lines = list(group)
            yield Sealed(of, lines[0]["hash"], _entry(lines))


def links(connection: sa.Connection, strays: list[int]) -> Iterator[Link]:
    """Yield what the chain says of every entry, from bytes made of the rows as they lie there, streaming.

    Numbers that postings name and no entry has are added to `strays`. Lines that are not numbered from 0 on are said
    with their numbers, so that their entry's hash does not hold.
    """
    heads = sa.select(entry.c.number, entry.c.hash, *(entry.c[name] for name in HASHED))
    lines = sa.select(posting.c.number, posting.c.line, posting.c.account, posting.c.amount, posting.c.unit)
    lines = lines.order_by(posting.c.number, posting.c.line)
    heads = heads.order_by(entry.c.number)
    streaming = {"yield_per": _STREAM}
    with (
        connection.execute(lines, execution_options=streaming) as below,
        connection.execute(heads, execution_options=streaming) as above,
    ):
        parts = groupby(map(tuple, below), key=itemgetter(0))
        number, group = next(parts, _NONE)
        for row in map(tuple, above):
            while group and _rank(number) < _rank(row[0]):
                strays.append(number)
                number, group = next(parts, _NONE)
            mine = list(group) if number == row[0] else []
            if mine:
                number, group = next(parts, _NONE)
            in_order = [line[2:] if line[1] == at else (*line[2:4], f"line {line[1]}") for at, line in enumerate(mine)]
            yield row[0], row[1], said_bytes(row[2:], in_order)
        while group:
            strays.append(number)
            number, group = next(parts, _NONE)


def balances(connection: sa.Connection) -> dict[str, dict[str, int]]:
    """Return unit -> account -> amount over all entries; those of a unit sum to zero."""
    key = (posting.c.unit, posting.c.account)
    found: dict[str, dict[str, int]] = {}
    for unit, account, high, low in connection.execute(sa.select(*key, *wide_sum(posting.c.amount)).group_by(*key)):
        found.setdefault(str(unit), {})[str(account)] = joined_sum(high, low)
    return found


def gangs_named(connection: sa.Connection, name: str) -> list[tuple[str, str, str]]:
    """Return (uid, namespace, name) of gangs with this uid, name or ``namespace/name`` in the books, sorted."""
    namespace, _, short = name.rpartition("/")
    found = sa.or_(entry.c.gang == name, entry.c.name == name)
    if namespace:
        found = sa.and_(entry.c.namespace == namespace, entry.c.name == short)
    query = sa.select(entry.c.gang, entry.c.namespace, entry.c.name).where(found, entry.c.gang != "").distinct()
    return sorted((str(a), str(b), str(c)) for a, b, c in connection.execute(query))


def holders(connection: sa.Connection, field: str, values: Sequence[str]) -> Iterator[tuple[str, str, str, int, int]]:
    """Yield (uid, namespace, name, since, until when it held anything) of gangs whose uid or name is one of `values`.

    `field` is ``gang`` or ``name``; there is an index only for the first.
    """
    key = (entry.c.gang, entry.c.namespace, entry.c.name)
    query = sa.select(*key, sa.func.min(entry.c.from_ms), sa.func.max(entry.c.to_ms)).group_by(*key)
    for at in range(0, len(values), _BATCH):
        for *names, since_ms, until_ms in connection.execute(query.where(entry.c[field].in_(values[at : at + _BATCH]))):
            gang, namespace, name = map(str, names)
            yield gang, namespace, name, int(since_ms), int(until_ms)


def _rank(number: object) -> tuple[bool, int]:
    """Order numbers as the database does: what is no integer comes last."""
    return (False, number) if isinstance(number, int) else (True, 0)


def _entry(lines: Sequence[sa.RowMapping]) -> Entry:
    """Build the entry as it lies there. Wrong types are kept, so that the audit sees and names them."""
    values = {name: lines[0][name] for name in _FIELDS}
    if values["kind"] in tuple(EntryKind):
        values["kind"] = EntryKind(str(values["kind"]))
    parts = tuple(
        Posting(account=row["account"], amount=row["amount"], unit=row["unit"])
        for row in lines
        if row["line"] is not None
    )
    return Entry(**values, postings=parts)
