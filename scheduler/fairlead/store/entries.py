"""Append sealed entries once, and read them and balances back. The caller owns the transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import sqlalchemy as sa

from fairlead.errors import BooksDoNotVerify
from fairlead.ledger.chain import Head, Sealed
from fairlead.ledger.entry import TIMELINE, Entry, EntryKind, Posting
from fairlead.store.tables import entry, joined_sum, posting, wide_sum

_BATCH = 500
_FIELDS = tuple(name for name in entry.c.keys() if name not in ("number", "hash"))  # noqa: SIM118 - a column collection


def append(connection: sa.Connection, sealed: Sequence[Sealed]) -> int:
    """Append entries; one that is there with the same bytes is skipped. Returns how many were new.

    Raises
    ------
    BooksDoNotVerify
        An entry with this id or number is there and says something else.
    """
    there = _hashes(connection, [item.entry.id for item in sealed])
    new: list[Sealed] = []
    for item in sealed:
        found = there.get(item.entry.id)
        if found is None:
            new.append(item)
        elif found != (item.number, item.hash):
            raise BooksDoNotVerify(f"entry {found[0]}: its id {item.entry.id} comes again with another payload")
    if new:
        connection.execute(entry.insert(), [_entry_row(item) for item in new])
        connection.execute(posting.insert(), [
            {"number": item.number, "line": line, "account": part.account, "amount": part.amount, "unit": part.unit}
            for item in new for line, part in enumerate(item.entry.postings)
        ])  # fmt: skip
    return len(new)


def head(connection: sa.Connection) -> Head:
    """Return the ledger's last number and hash."""
    row = connection.execute(sa.select(entry.c.number, entry.c.hash).order_by(entry.c.number.desc()).limit(1)).first()
    return Head(int(row[0]), str(row[1])) if row else Head()


def read(connection: sa.Connection, *, gang: str = "", after: int = 0, up_to: int | None = None) -> Iterator[Sealed]:
    """Yield entries numbered ]after, up_to] with their postings, in order of number, a batch in memory at a time."""
    wanted = [entry.c.gang == gang] if gang else []
    wanted += [entry.c.number > after] if after else []
    wanted += [] if up_to is None else [entry.c.number <= up_to]
    return _read(connection, wanted)


def held_between(connection: sa.Connection, since_ms: int | None, until_ms: int | None, up_to: int) -> Iterator[Sealed]:
    """Yield entries up to a number that are of a gang and touch [since_ms, until_ms); None is ever."""
    wanted = [entry.c.number <= up_to, entry.c.gang != "", entry.c.kind.in_(TIMELINE)]
    wanted += [] if since_ms is None else [entry.c.to_ms > since_ms]
    wanted += [] if until_ms is None else [entry.c.from_ms < until_ms]
    return _read(connection, wanted)


def _read(connection: sa.Connection, wanted: Sequence[sa.ColumnElement[bool]]) -> Iterator[Sealed]:
    joined = entry.outerjoin(posting, entry.c.number == posting.c.number)
    query = (
        sa.select(entry, posting.c.line, posting.c.account, posting.c.amount, posting.c.unit)
        .select_from(joined)
        .where(*wanted)
        .order_by(entry.c.number, posting.c.line)
    )
    result = connection.execution_options(yield_per=_BATCH).execute(query)
    for number, rows in groupby(result.mappings(), key=lambda row: row["number"]):
        lines = list(rows)
        yield Sealed(number, lines[0]["hash"], _entry(lines))


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


def stray_postings(connection: sa.Connection) -> list[int]:
    """Return the numbers that postings name and no entry has, sorted, the first ten."""
    query = (
        sa.select(posting.c.number)
        .outerjoin(entry, entry.c.number == posting.c.number)
        .where(entry.c.number.is_(None))
        .order_by(posting.c.number)
        .limit(10)
    )
    return [int(number) for number in connection.scalars(query)]


def _hashes(connection: sa.Connection, ids: Sequence[str]) -> dict[str, tuple[int, str]]:
    found: dict[str, tuple[int, str]] = {}
    for at in range(0, len(ids), _BATCH):
        query = sa.select(entry.c.id, entry.c.number, entry.c.hash).where(entry.c.id.in_(ids[at : at + _BATCH]))
        found.update({str(name): (int(number), str(digest)) for name, number, digest in connection.execute(query)})
    return found


def _entry_row(item: Sealed) -> dict[str, object]:
    row: dict[str, object] = {name: getattr(item.entry, name) for name in _FIELDS}
    return {**row, "kind": item.entry.kind.value, "number": item.number, "hash": item.hash}


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
