"""What queues have spent, by account and currency, and the tree that they stand in."""

from __future__ import annotations

from fairlead.ledger.accounts import Kind
from fairlead.model.events import ExceptionGone, ExceptionSeen, QueueGone, QueueSeen
from fairlead.model.quota_exception import QuotaException, granted
from fairlead.model.tenancy import Queue
from fairlead.store import engine as database
from fairlead.store import journal, usage
from fairlead.store.journal import record_of


def queues_at(connection: database.Connection, now_ms: int) -> dict[str, Queue]:
    """Return the queues as they are at the end of the journal, with the exceptions that act at a moment."""
    queues, known = queues_of(connection), dict[str, QuotaException]()
    for row in journal.of_kinds(connection, (ExceptionSeen.__name__, ExceptionGone.__name__)):
        record = record_of(row)
        if isinstance(record, ExceptionSeen):
            known[record.exception.name] = record.exception
        elif isinstance(record, ExceptionGone):
            known.pop(record.name, None)
    for one in known.values():
        if one.acts_at(now_ms) and one.queue in queues:
            queues[one.queue] = granted(queues[one.queue], one)
    return queues


def queues_of(connection: database.Connection) -> dict[str, Queue]:
    """Return the queues that are there at the end of the journal, by name."""
    found: dict[str, Queue] = {}
    for row in journal.of_kinds(connection, (QueueSeen.__name__, QueueGone.__name__)):
        record = record_of(row)
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
    found: dict[str, dict[str, int]] = {}
    for (unit, account), nanos in usage.by_account(connection, (f"{Kind.SPEND}:",), since_ms, until_ms).items():
        found.setdefault(unit, {})[account] = nanos
    return found
