"""What of held time was lost: to which cause, and who caused it."""

from __future__ import annotations

from fairlead.ledger.accounts import Kind
from fairlead.reports.booked import Booked, By, columns_of, gpu_ms, key_of
from fairlead.reports.charges import document
from fairlead.reports.document import Document, Value


def waste(found: Booked, by: By) -> Document:
    """Return wasted device time by whose it was, cause and who caused it: a queue, or the platform."""
    sums: dict[tuple[str, ...], int] = {}
    held: dict[tuple[str, ...], int] = {}
    by_cause: dict[str, int] = {}
    for account, line in found.of(Kind.HELD, Kind.WASTE):
        key = key_of(account, line, by)
        if account.kind is Kind.HELD:
            held[key] = held.get(key, 0) + line.amount
            continue
        sums[*key, account.cause, line.actor] = sums.get((*key, account.cause, line.actor), 0) + line.amount
        by_cause[account.cause] = by_cause.get(account.cause, 0) + line.amount
    rows: list[tuple[Value, ...]] = []
    for key, ticks in sorted(sums.items()):
        of = held.get(key[:-2], 0)
        if ticks:
            rows.append((*key, gpu_ms(ticks), ticks * 1_000 // of if of else None))
    columns = (*columns_of(by), "cause", "caused_by", "wasted_gpu_ms", "held_permille")
    facts: dict[str, Value] = {f"{cause}_gpu_ms": gpu_ms(ticks) for cause, ticks in sorted(by_cause.items())}
    return document("waste", found, columns, rows, facts)
