"""The sums that reports need, over a window of time."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from fairlead.store.tables import entry, journal, posting


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """Ticks on one account in one pool by one job (its fields "" where nobody holds)."""

    account: str
    pool: str
    namespace: str
    name: str
    gang: str
    ticks: int


def amounts(connection: sa.Connection, since_ms: int | None = None, until_ms: int | None = None) -> list[Amount]:
    """Sum postings by account and job, each clipped to [since_ms, until_ms); None is no bound.

    Exact: an entry's amount is a whole number of ticks per millisecond, so a clipped one is too.
    """
    begin, end = entry.c.from_ms, entry.c.to_ms
    inside: list[sa.ColumnElement[bool]] = []
    ticks: sa.ColumnElement[int] = posting.c.ticks
    if since_ms is not None or until_ms is not None:
        first = begin if since_ms is None else sa.case((begin < since_ms, since_ms), else_=begin)
        last = end if until_ms is None else sa.case((end > until_ms, until_ms), else_=end)
        ticks = posting.c.ticks.op("/")(end - begin) * (last - first)
    if since_ms is not None:
        inside.append(end > since_ms)
    if until_ms is not None:
        inside.append(begin < until_ms)
    key = (posting.c.account, entry.c.pool, entry.c.namespace, entry.c.name, entry.c.gang)
    query = (
        sa.select(*key, sa.func.sum(ticks))
        .select_from(posting.join(entry, entry.c.number == posting.c.number))
        .where(*inside)
        .group_by(*key)
        .order_by(*key)
    )
    return [
        Amount(account=str(a), pool=str(b), namespace=str(c), name=str(d), gang=str(e), ticks=int(total))
        for a, b, c, d, e, total in connection.execute(query)
        if total
    ]


def newest_ms(connection: sa.Connection) -> int | None:
    """Return the time of the newest record, None where the journal is empty."""
    found = connection.scalar(sa.select(sa.func.max(journal.c.at_ms)))
    return None if found is None else int(found)
