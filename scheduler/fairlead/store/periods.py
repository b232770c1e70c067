"""Periods as they lie in the database: steps, frozen statements, and the sums that a statement is made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from fairlead.errors import BooksDoNotVerify, UnreadableInput
from fairlead.ledger.periods import BOOKED_AS, Line, PeriodState, Step, clipped, read_line
from fairlead.model.codec import Cut
from fairlead.store.tables import entry, joined_sum, journal, period, posting, statement, wide_sum
from fairlead.units import utc_text

_BATCH = 500
_KIND = sa.case(*[(entry.c.kind == back.value, kind.value) for back, kind in BOOKED_AS.items()], else_=entry.c.kind)
_KEY = (
    _KIND,
    posting.c.account,
    posting.c.unit,
    *(entry.c[name] for name in ("pool", "namespace", "name", "gang", "actor", "reason")),
)
_NAMES = ("kind", "account", "unit", "pool", "namespace", "name", "gang", "actor", "reason")
_JOINED = posting.join(entry, entry.c.number == posting.c.number)


def steps(connection: sa.Connection) -> list[Step]:
    """Return every step of every period, in order."""
    return [_step(row) for row in connection.execute(sa.select(period).order_by(period.c.number)).mappings()]


def last(connection: sa.Connection) -> Step | None:
    """Return the newest step, None where no period became anything yet."""
    row = connection.execute(sa.select(period).order_by(period.c.number.desc()).limit(1)).mappings().first()
    return None if row is None else _step(row)


def hash_of(connection: sa.Connection, number: int) -> str | None:
    """Return the hash of a step as it lies there, None where there is no such step."""
    return connection.scalar(sa.select(period.c.hash).where(period.c.number == number))


def _step(row: sa.RowMapping) -> Step:
    values: dict[str, Any] = {field.name: row[field.name] for field in fields(Step)}
    if values["state"] not in tuple(PeriodState):
        raise BooksDoNotVerify(f"period step {values['number']}: state: is {values['state']!r}")
    values["state"] = PeriodState(values["state"])
    return Step(**values)


def append(connection: sa.Connection, new: Sequence[Step]) -> None:
    """Append sealed steps; another writer's step of the same number or state raises through the database's keys."""
    if new:
        connection.execute(period.insert(), [{f.name: getattr(step, f.name) for f in fields(Step)} for step in new])


def freeze(connection: sa.Connection, name: str, texts: Sequence[str]) -> None:
    """Write a statement's lines."""
    if texts:
        rows = [{"period": name, "line": line, "payload": text} for line, text in enumerate(texts, start=1)]
        connection.execute(statement.insert(), rows)


def frozen(connection: sa.Connection, name: str) -> Iterator[str]:
    """Yield the texts of a statement's lines in order, a batch in memory at a time."""
    query = sa.select(statement.c.payload).where(statement.c.period == name).order_by(statement.c.line)
    for text in connection.execution_options(yield_per=_BATCH).execute(query).scalars():
        yield str(text)


def last_cut_ms(connection: sa.Connection) -> int | None:
    """Return up to when every device is posted, None where no line was ever drawn."""
    query = sa.select(sa.func.max(journal.c.at_ms)).where(journal.c.subject == "", journal.c.kind == Cut.__name__)
    found = connection.scalar(query)
    return None if found is None else int(found)


def latest_ms(connection: sa.Connection, up_to: int) -> int:
    """Return the latest moment that an entry up to a number speaks of, 0 where there is none."""
    return int(connection.scalar(sa.select(sa.func.max(entry.c.to_ms)).where(entry.c.number <= up_to)) or 0)


def sums(
    connection: sa.Connection,
    window: tuple[int, int],
    numbers: tuple[int, int] | None,
    of: str,
    *,
    only: Sequence[sa.ColumnElement[bool]] = (),
) -> list[Line]:
    """Sum what lies in a window [from_ms, to_ms), over entries numbered ]after, up to], by account and job; sorted.

    What lies wholly inside is summed by the database; the few entries that stick out are cut here, so that the parts
    of neighbouring windows sum to the whole whatever an amount is divisible by. `only` chooses among entries.
    """
    since, until = window
    begin, end = entry.c.from_ms, entry.c.to_ms
    numbered = [*only, *([] if numbers is None else [entry.c.number > numbers[0], entry.c.number <= numbers[1]])]
    found: dict[tuple[str, ...], int] = {}
    whole = (
        sa.select(*_KEY, *wide_sum(posting.c.amount))
        .select_from(_JOINED)
        .where(*numbered, begin >= since, begin < until, end <= until)
        .group_by(*_KEY)
    )
    for row in connection.execute(whole):
        *names, high, low = tuple(row)
        found[tuple(str(name) for name in names)] = joined_sum(high, low)
    sticking_out = (
        sa.select(entry.c.number, posting.c.line, *_KEY, posting.c.amount, begin, end)
        .select_from(_JOINED)
        .where(*numbered, begin < until, end > since, sa.or_(begin < since, end > until))
    )  # asked to order them, SQLite would read all entries in their order instead of finding these
    few = sorted(connection.execute(sticking_out).all(), key=lambda row: (row.number, row.line))
    for _, rows in groupby(few, key=lambda row: row[0]):
        lines = list(rows)
        time = (int(lines[0].from_ms), int(lines[0].to_ms))
        parts = clipped([(str(row.unit), int(row.amount)) for row in lines], time, window)
        for row, part in zip(lines, parts, strict=True):
            key = tuple(str(name) for name in row[2:-3])
            found[key] = found.get(key, 0) + part
    return [
        Line(**dict(zip(_NAMES, key, strict=True)), of=of, amount=amount)
        for key, amount in sorted(found.items())  # sorted as lines are
        if amount
    ]


def dropped(connection: sa.Connection) -> list[Step]:
    """Return the steps that archived entries which are not here any more, in order."""
    first = int(connection.scalar(sa.select(sa.func.min(entry.c.number))) or 1)
    if first == 1:
        return []
    return [step for step in steps(connection) if step.state is PeriodState.ARCHIVED and step.entries_to < first]


def dropped_until_ms(connection: sa.Connection) -> int:
    """Return up to when entries lie in archives alone, 0 where none do."""
    return max((step.latest_ms for step in dropped(connection)), default=0)


def carried_name(period: str) -> str:
    """Return under which name `statement` has what the entries of a period's archive sum to."""
    return f"{period} archived"


def carried(connection: sa.Connection, since_ms: int | None, until_ms: int | None) -> list[Line]:
    """Return what dropped entries add to sums over [since_ms, until_ms).

    Raises
    ------
    UnreadableInput
        The window cuts their time; the text says from when on it may begin.
    """
    gone = dropped(connection)
    latest_ms = max((step.latest_ms for step in gone), default=0)
    if not gone or (since_ms is not None and since_ms >= latest_ms):
        return []
    begin_ms = min(step.from_ms for step in gone)
    if (since_ms is None or since_ms <= begin_ms) and (until_ms is None or until_ms >= latest_ms):
        texts = [text for step in gone for text in frozen(connection, carried_name(step.period))]
        return [read_line(text) for text in texts]
    raise UnreadableInput(
        f"--since: entries before {utc_text(latest_ms)} are in archives; begin there, or ask for everything, "
        "or for a month's statement"
    )


def drop(connection: sa.Connection, up_to: int) -> int:
    """Delete entries up to a number, which the triggers allow only where an archive has them; return how many."""
    connection.execute(posting.delete().where(posting.c.number <= up_to))
    return int(connection.execute(entry.delete().where(entry.c.number <= up_to)).rowcount)
