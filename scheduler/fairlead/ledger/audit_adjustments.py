"""The auditor's look at adjustments: the entry says what was decided, and each decision is booked once."""

from __future__ import annotations

from collections.abc import Iterator

from fairlead.ledger import accounts
from fairlead.ledger.entry import Entry
from fairlead.model.prices import Adjusted


def due_of(said: Adjusted) -> dict[tuple[str, str], int]:
    """Return (account, unit) -> nano-units of what a decision moves; where that is nothing, no entry books it."""
    due: dict[tuple[str, str], int] = {}
    for line in said.lines:
        charged = accounts.spend(line.tenant, line.queue, line.tier)
        against = accounts.revenue(line.sku) if line.sku else accounts.credit(said.reason)
        for account, nanos in ((charged, line.nanos), (against, -line.nanos)):
            key = (account, accounts.money(line.currency))
            due[key] = due.get(key, 0) + nanos
    return {key: nanos for key, nanos in due.items() if nanos}


def misbooked(entry: Entry, said: Adjusted | None) -> Iterator[tuple[str, str]]:
    """Yield (field, what is wrong) of an adjustment's entry; `said` is None where nothing was decided, or no more."""
    if said is None:
        yield "fact", "its record decides on no adjustment, or is booked already"
        return
    booked: dict[tuple[str, str], int] = {}
    for part in entry.postings:
        booked[part.account, part.unit] = booked.get((part.account, part.unit), 0) + part.amount
    if booked != due_of(said):
        yield "postings", "they are not what its record decided on"
    for name, there, truth in (
        ("actor", entry.actor, said.actor),
        ("reason", entry.reason, f"{said.reason}: {said.note}" if said.note else said.reason),
        ("refers", entry.refers, said.refers),
        ("from_ms", entry.from_ms, said.from_ms),
        ("to_ms", entry.to_ms, said.to_ms),
    ):
        if there != truth:
            yield name, f"is {there!r}, its record says {truth!r}"
