"""What queues have spent, by account and currency, and the tree that they stand in."""

from __future__ import annotations

from fairlead.ledger.accounts import Kind
from fairlead.model.events import QueueGone, QueueSeen
from fairlead.model.tenancy import Queue
from fairlead.reports.usage import read_record
from fairlead.store import engine as database
from fairlead.store import journal, usage


def queues_of(connection: database.Connection) -> dict[str, Queue]:
    """Return the queues that are there at the end of the journal, by name."""
    found: dict[str, Queue] = {}
    for row in journal.of_kinds(connection, (QueueSeen.__name__, QueueGone.__name__)):
        record = read_record(row)
        if isinstance(record, QueueSeen):
            found[record.queue.name] = record.queue
        elif isinstance(record, QueueGone):
            found.pop(record.name, None)
    return found


def spent(
    connection: database.Connection, since_ms: int | None = None, until_ms: int | None = None
) -> dict[str, dict[str, int]]:
    """Return unit -> account -> nano-units that queues were charged for [since_ms, until_ms); None is no bound.

    Of what lies across an edge the part inside is taken in proportion.
    """
    return usage.money(connection, f"{Kind.SPEND}:", since_ms, until_ms)
