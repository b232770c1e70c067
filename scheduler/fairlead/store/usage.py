"""The sums that reports need, over a window of time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import sqlalchemy as sa

from fairlead.ledger.accounts import TICKS
from fairlead.ledger.entry import PODS, TIMELINE, EntryKind
from fairlead.ledger.periods import Line, merged
from fairlead.ledger.rollup import DAY_MS, line_of, over_jobs
from fairlead.store import entries, periods, rollups
from fairlead.store.tables import entry, journal

EVER = (-(2**62) // DAY_MS * DAY_MS, 2**62 // DAY_MS * DAY_MS)
"""A window with everything in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """Ticks on one account in one pool by one job (its fields "" where nobody holds, or jobs are summed over)."""

    account: str
    pool: str
    namespace: str
    name: str
    gang: str
    ticks: int


def lines(
    connection: sa.Connection,
    since_ms: int | None = None,
    until_ms: int | None = None,
    *,
    jobs: bool,
    up_to: int | None = None,
    only: tuple[sa.ColumnElement[bool], ...] = (),
) -> list[Line]:
    """Sum what lies in [since_ms, until_ms) by account, over entries up to a number; None is no bound. Sorted.

    Amounts are cut as `periods.clipped` cuts them. Without `jobs` they are summed over, and it is fast. What dropped
    entries add is in it; `only` chooses among the others where there are `jobs`.

    Raises
    ------
    UnreadableInput
        The window cuts the time of entries that are in archives only.
    """
    window = (EVER[0] if since_ms is None else since_ms, EVER[1] if until_ms is None else until_ms)
    carried = [replace(line, of="") for line in periods.carried(connection, since_ms, until_ms)]
    if jobs:
        numbers = None if up_to is None else (0, up_to)
        there = periods.sums(connection, window, numbers, "", only=only)
        return merged((*carried, *there), {}) if carried else there
    found = [line_of("", key, amount) for key, amount in rollups.sums(connection, window, up_to).items()]
    return over_jobs((*carried, *found))


def amounts(
    connection: sa.Connection, since_ms: int | None = None, until_ms: int | None = None, *, jobs: bool = True
) -> list[Amount]:
    """Sum the timeline's ticks by account, pool and job inside of [since_ms, until_ms). Arguments as of `lines`."""
    found = _by_names(lines(connection, since_ms, until_ms, jobs=jobs, only=(entry.c.kind.in_(TIMELINE),)), TICKS)
    return [Amount(account=a, pool=b, namespace=c, name=d, gang=e, ticks=n) for (a, b, c, d, e), n in found.items()]


def beside(
    connection: sa.Connection, unit: str, since_ms: int | None = None, until_ms: int | None = None, *, jobs: bool = True
) -> dict[tuple[str, ...], int]:
    """Sum what pods had of a unit beside devices: (account, pool, namespace, name, gang) -> amount. Exact likewise."""
    return _by_names(lines(connection, since_ms, until_ms, jobs=jobs, only=(entry.c.kind.in_(PODS),)), unit)


def _by_names(found: Iterable[Line], unit: str) -> dict[tuple[str, ...], int]:
    """Sum lines that say what devices were in, or in another unit what pods had, whoever decided and why; sorted."""
    kind = EntryKind.SEGMENT if unit == TICKS else EntryKind.POD
    sums: dict[tuple[str, ...], int] = {}
    for line in found:
        if line.unit == unit and line.kind == kind:
            names = (line.account, line.pool, line.namespace, line.name, line.gang)
            sums[names] = sums.get(names, 0) + line.amount
    return {names: sums[names] for names in sorted(sums) if sums[names]}


def by_account(
    connection: sa.Connection,
    prefixes: tuple[str, ...],
    since_ms: int | None = None,
    until_ms: int | None = None,
    *,
    after: int = 0,
    up_to: int | None = None,
) -> dict[tuple[str, str], int]:
    """Sum by (unit, account) for names that begin with one of `prefixes`, over entries numbered ]after, up_to].

    Each is cut to [since_ms, until_ms). Entries are dense and never change, so sums can be carried on from where the
    last call ended.
    """
    if after:
        window = (EVER[0] if since_ms is None else since_ms, EVER[1] if until_ms is None else until_ms)
        numbers = (after, entries.head(connection).number if up_to is None else up_to)
        there = periods.sums(connection, window, numbers, "")
    else:
        there = lines(connection, since_ms, until_ms, jobs=False, up_to=up_to)
    found: dict[tuple[str, str], int] = {}
    for line in there:
        if line.account.startswith(prefixes):
            found[line.unit, line.account] = found.get((line.unit, line.account), 0) + line.amount
    return found


def newest_ms(connection: sa.Connection) -> int | None:
    """Return the time of the newest record, None where the journal is empty."""
    found = connection.scalar(sa.select(sa.func.max(journal.c.at_ms)))
    return None if found is None else int(found)
