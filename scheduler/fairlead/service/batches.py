"""What one transaction of the books writes, and which of the facts that are told it need not write again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fairlead.ledger.chain import Head, Sealed
from fairlead.ledger.timeline import HoldKey
from fairlead.model import codec
from fairlead.model.codec import Again, Cut, Record
from fairlead.model.events import GrowFailed, MemberReleased, PlaceFailed
from fairlead.service.outbox import Queued
from fairlead.store import engine as database
from fairlead.store import journal


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction writes, worked out once. The heads are those after it."""

    rows: tuple[journal.Row, ...]
    sealed: tuple[Sealed, ...]
    closed: tuple[HoldKey, ...]
    journal_head: Head
    ledger_head: Head


def known(
    connection: database.Connection, queued: Sequence[Queued], began_at: int
) -> tuple[list[str], dict[str, int], dict[str, Again]]:
    """Return the ids of facts, the numbers of those that the journal has, and which of these to journal as told again.

    Those are known to an earlier process, which wrote up to `began_at`, and told to this one for the first time. Nobody
    tells a cut.
    """
    ids = [codec.fact_id(item.data) for item in queued]
    there = journal.known(connection, ids)
    news = {
        fact: Again(fact=fact, at_ms=item.since_ms)
        for item, fact in zip(queued, ids, strict=True)
        if not (item.restored or isinstance(item.record, Cut)) and there.get(fact, began_at + 1) <= began_at
    }
    marks = {codec.fact_id(codec.encode(again)): fact for fact, again in news.items()}
    for mark in journal.known(connection, list(marks)) if marks else ():
        del news[marks[mark]]
    return ids, there, news


def ended_by(record: Record) -> list[HoldKey]:
    """Return the holds that a record says are over."""
    match record:
        case MemberReleased():
            return [(record.gang, record.attempt, record.rank)]
        case PlaceFailed() | GrowFailed():
            return [(record.gang, record.attempt, rank) for rank in record.released]
        case _:
            return []
