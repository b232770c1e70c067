"""The sums that reports need, over a window of time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from fairlead.ledger.accounts import TICKS, TIMELINE_KINDS
from fairlead.ledger.entry import PODS, TIMELINE
from fairlead.ledger.periods import Line
from fairlead.ledger.rollup import QUARTER_MS
from fairlead.store import entries, periods, rollups
from fairlead.store.tables import entry, joined_sum, journal, posting, wide_sum


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """Ticks on one account in one pool by one job (its fields "" where nobody holds)."""

    account: str
    pool: str
    namespace: str
    name: str
    gang: str
    ticks: int


def amounts(
    connection: sa.Connection, since_ms: int | None = None, until_ms: int | None = None, *, jobs: bool = True
) -> list[Amount]:
    """Sum postings by account and job, each clipped to [since_ms, until_ms); None is no bound.

    Exact: an entry's amount is a whole number of ticks per millisecond, so a clipped one is too. Who does not need
    `jobs` gets sums over them, fast, where both bounds lie on quarters of an hour.
    """
    on_quarters = all(edge is None or edge % QUARTER_MS == 0 for edge in (since_ms, until_ms))
    if not jobs and on_quarters and rollups.number(connection) == entries.head(connection).number:
        return [
            Amount(account=account, pool=pool, namespace="", name="", gang="", ticks=ticks)
            for (account, pool), ticks in rollups.sums(connection, since_ms, until_ms).items()
        ]
    return [
        Amount(account=a, pool=b, namespace=c, name=d, gang=e, ticks=total)
        for (a, b, c, d, e), total in _by_job(connection, TICKS, since_ms, until_ms).items()
    ]


def beside(
    connection: sa.Connection, unit: str, since_ms: int | None = None, until_ms: int | None = None
) -> dict[tuple[str, ...], int]:
    """Sum what pods had of a unit beside devices: (account, pool, namespace, name, gang) -> amount. Exact likewise."""
    return _by_job(connection, unit, since_ms, until_ms)


def _by_job(
    connection: sa.Connection, unit: str, since_ms: int | None, until_ms: int | None
) -> dict[tuple[str, ...], int]:
    amount, inside = _clipped(since_ms, until_ms, unit)
    key = (posting.c.account, entry.c.pool, entry.c.namespace, entry.c.name, entry.c.gang)
    query = (
        sa.select(*key, *wide_sum(amount))
        .select_from(posting.join(entry, entry.c.number == posting.c.number))
        .where(*inside)
        .group_by(*key)
    )
    found = {tuple(str(n) for n in names): joined_sum(high, low) for *names, high, low in connection.execute(query)}
    for line in _carried(connection, since_ms, until_ms, unit):
        names = (line.account, line.pool, line.namespace, line.name, line.gang)
        found[names] = found.get(names, 0) + line.amount
    return {names: found[names] for names in sorted(found) if found[names]}


def _carried(
    connection: sa.Connection, since_ms: int | None, until_ms: int | None, unit: str = TICKS
) -> Iterator[Line]:
    """Yield what dropped entries about devices, or about pods, add."""
    for line in periods.carried(connection, since_ms, until_ms):
        if line.unit == unit and line.account.partition(":")[0] in TIMELINE_KINDS:
            yield line


def by_account(
    connection: sa.Connection, prefix: str, *, since_ms: int | None = None, after: int = 0, up_to: int
) -> dict[str, int]:
    """Sum ticks by account for names that begin with `prefix`, over entries numbered ]after, up_to].

    Each is clipped to what lies after `since_ms`. Entries are dense and never change, so sums can be carried on from
    where the last call ended.
    """
    ticks, inside = _clipped(since_ms, None)
    query = (
        sa.select(posting.c.account, *wide_sum(ticks))
        .select_from(posting.join(entry, entry.c.number == posting.c.number))
        .where(entry.c.number > after, entry.c.number <= up_to, posting.c.account.startswith(prefix), *inside)
        .group_by(posting.c.account)
    )
    found = {str(account): joined_sum(high, low) for account, high, low in connection.execute(query)}
    for line in () if after else _carried(connection, since_ms, None):
        if line.account.startswith(prefix):
            found[line.account] = found.get(line.account, 0) + line.amount
    return found


def money(
    connection: sa.Connection,
    prefix: str,
    since_ms: int | None = None,
    until_ms: int | None = None,
    *,
    after: int = 0,
    up_to: int | None = None,
) -> dict[str, dict[str, int]]:
    """Sum money by unit and account for names that begin with `prefix`, each part inside [since_ms, until_ms).

    An amount that lies across an edge is taken in proportion, rounded down by less than a nano-unit a ms. What is of no
    time at all counts where it stands.
    """
    begin, end = entry.c.from_ms, entry.c.to_ms
    first, last, inside = _overlap(since_ms, until_ms)
    amount = sa.case(
        (sa.or_(begin == end, sa.and_(first == begin, last == end)), posting.c.amount),
        else_=posting.c.amount // (end - begin) * (last - first),
    )
    key = (posting.c.unit, posting.c.account)
    query = (
        sa.select(*key, *wide_sum(amount))
        .select_from(posting.join(entry, entry.c.number == posting.c.number))
        .where(entry.c.number > after, posting.c.unit != TICKS, posting.c.account.startswith(prefix), *inside)
        .group_by(*key)
    )
    found: dict[str, dict[str, int]] = {}
    for unit, account, high, low in connection.execute(
        query if up_to is None else query.where(entry.c.number <= up_to)
    ):
        found.setdefault(str(unit), {})[str(account)] = joined_sum(high, low)
    return found


def _overlap(
    since_ms: int | None, until_ms: int | None
) -> tuple[sa.ColumnElement[int], sa.ColumnElement[int], list[sa.ColumnElement[bool]]]:
    """Return where an entry's part in [since_ms, until_ms) begins and ends, and which entries have any."""
    begin, end = entry.c.from_ms, entry.c.to_ms
    inside: list[sa.ColumnElement[bool]] = []
    since, until = sa.literal(since_ms, sa.BigInteger), sa.literal(until_ms, sa.BigInteger)
    first: sa.ColumnElement[int] = begin if since_ms is None else sa.case((begin < since, since), else_=begin)
    last: sa.ColumnElement[int] = end if until_ms is None else sa.case((end > until, until), else_=end)
    if since_ms is not None:
        inside.append(sa.or_(end > since, sa.and_(begin == end, begin >= since)))
    if until_ms is not None:
        inside.append(begin < until)
    return first, last, inside


def _clipped(
    since_ms: int | None, until_ms: int | None, unit: str = TICKS
) -> tuple[sa.ColumnElement[int], list[sa.ColumnElement[bool]]]:
    """Return the part of a posting that lies in [since_ms, until_ms), of devices' timeline or pods' in another unit.

    And which entries have any.
    """
    first, last, inside = _overlap(since_ms, until_ms)
    amount: sa.ColumnElement[int] = posting.c.amount
    if since_ms is not None or until_ms is not None:
        amount = posting.c.amount // (entry.c.to_ms - entry.c.from_ms) * (last - first)
    return amount, [posting.c.unit == unit, entry.c.kind.in_(TIMELINE if unit == TICKS else PODS), *inside]


def newest_ms(connection: sa.Connection) -> int | None:
    """Return the time of the newest record, None where the journal is empty."""
    found = connection.scalar(sa.select(sa.func.max(journal.c.at_ms)))
    return None if found is None else int(found)
