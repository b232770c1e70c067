"""The meter as it was at some record of the journal, so that only what came after has to be replayed.

Derived, like `rollup`: a snapshot that does not fit (of another form, damaged, or of another journal) is passed over,
and where none fits the journal is replayed from its first record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from fairlead.errors import UnreadableInput
from fairlead.ledger.chain import Head
from fairlead.ledger.meter import Meter, Outcome
from fairlead.ledger.snapshot import FORM, READABLE, freeze, thaw
from fairlead.store import journal
from fairlead.store.tables import journal as rows
from fairlead.store.tables import meter_snapshot as table

KEPT = 2
"""How many are kept: the newest, and one to fall back upon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A meter to go on with after record `number` of the journal; `head` is the ledger's there."""

    meter: Meter
    number: int
    head: Head


def start(connection: sa.Connection, *, anew: bool = False) -> Start:
    """Return the meter of the newest snapshot that fits; a new one where none does, or where it is to be `anew`."""
    cluster = journal.get_meta(connection, "cluster")
    fitting = (
        sa.select(table.c.number, table.c.entries_to, table.c.entries_hash, table.c.sha256, table.c.content)
        .join(rows, (rows.c.number == table.c.number) & (rows.c.hash == table.c.journal_hash))
        .where(table.c.form.in_(READABLE))
        .order_by(table.c.number.desc())
    )
    for found in () if anew else connection.execute(fitting).all():
        content = bytes(found.content)
        if hashlib.sha256(content).hexdigest() != found.sha256:
            continue
        try:
            meter = thaw(content, cluster)
        except UnreadableInput:
            continue
        return Start(meter=meter, number=int(found.number), head=Head(int(found.entries_to), str(found.entries_hash)))
    return Start(meter=Meter(cluster), number=0, head=Head())


def current(connection: sa.Connection, *, anew: bool = False) -> Meter:
    """Return the meter as of the journal's last record, to know what is open; `anew` as `start` does.

    Raises
    ------
    BooksDoNotVerify
        A record cannot be read; the text has its number.
    """
    begun = start(connection, anew=anew)
    for _ in replayed(connection, begun):
        pass
    return begun.meter


def replayed(connection: sa.Connection, begun: Start) -> Iterator[Outcome]:
    """Give a meter every record that comes after where it begins; yield what each did. Raises as `current` does."""
    for row in journal.read(connection, begun.number):
        yield begun.meter.apply(journal.record_of(row), row.id)


def size(connection: sa.Connection) -> int:
    """Return the bytes of the newest snapshot, 0 where there is none."""
    found = connection.scalar(sa.select(sa.func.length(table.c.content)).order_by(table.c.number.desc()).limit(1))
    return int(found or 0)


def keep(connection: sa.Connection, meter: Meter, at: Head, ledger: Head) -> None:
    """Write the meter as of record `at` of the journal and entry `ledger`; older ones go but for `KEPT`."""
    content = freeze(meter)
    connection.execute(table.delete().where(table.c.number == at.number))
    connection.execute(
        table.insert().values(
            number=at.number,
            journal_hash=at.hash,
            entries_to=ledger.number,
            entries_hash=ledger.hash,
            form=FORM,
            sha256=hashlib.sha256(content).hexdigest(),
            content=content,
        )
    )
    newest = sa.select(table.c.number).order_by(table.c.number.desc()).limit(KEPT)
    connection.execute(table.delete().where(table.c.number.not_in(newest)))
