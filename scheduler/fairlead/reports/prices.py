"""What the books know of prices, and what of a time has none: who charges for it must not report a smaller number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fairlead.ledger import accounts
from fairlead.ledger.entry import TIMELINE, EntryKind
from fairlead.ledger.pricing import Pricing
from fairlead.model.codec import Record
from fairlead.model.events import Adjusted, PriceBookGone, PriceBookSeen
from fairlead.model.prices import PriceBook
from fairlead.store import engine as database
from fairlead.store import entries, journal, snapshots
from fairlead.store.journal import Row
from fairlead.units import TICKS_PER_GPU_MS


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Unpriced:
    """Held GPU time that no price book covers."""

    tenant: str
    queue: str
    tier: str
    model: str
    gpu_ms: int


def books_of(records: Iterable[Record]) -> tuple[PriceBook, ...]:
    """Return the price books that hold at the end of the records, by name."""
    found: dict[str, PriceBook] = {}
    for record in records:
        if isinstance(record, PriceBookSeen):
            found[record.book.name] = record.book
        elif isinstance(record, PriceBookGone) and record.name in found:
            found[record.name] = found[record.name].closed(record.at_ms)
    return tuple(found[name] for name in sorted(found))


def price_rows(connection: database.Connection) -> Iterator[Row]:
    """Yield the rows of the journal that are about price books."""
    return journal.of_kinds(connection, (PriceBookSeen.__name__, PriceBookGone.__name__))


def books_in(connection: database.Connection) -> tuple[PriceBook, ...]:
    """Return the price books that hold at the end of the journal, by name."""
    return books_of(journal.record_of(row) for row in price_rows(connection))


def correction(engine: database.Engine, pricing: Pricing) -> Adjusted | None:
    """Return what the first of the prices that came late changes of what is posted; None where none did."""
    if not pricing.late:
        return None
    late = pricing.late[0]
    with database.reading(engine) as connection:
        posted = entries.held_between(connection, late.from_ms, late.to_ms, late.up_to)
        return pricing.correction(late, (sealed.entry for sealed in posted))


def unpriced(
    connection: database.Connection, since_ms: int | None = None, until_ms: int | None = None
) -> tuple[Unpriced, ...]:
    """Return what was held in [since_ms, until_ms) and posted, and has no price; empty where all has."""
    pricing: Pricing = snapshots.current(connection).pricing
    found: dict[tuple[str, str, str, str], int] = {}
    head = entries.head(connection).number
    for sealed in entries.held_between(connection, since_ms, until_ms, head):
        entry = sealed.entry
        if entry.kind not in TIMELINE:
            continue
        sign = 1 if entry.kind is EntryKind.SEGMENT else -1
        per_ms = abs(entry.postings[1].amount) // (entry.to_ms - entry.from_ms)
        account = accounts.parse(entry.account)
        for charge in pricing.charges_of(entry):
            begin = charge.from_ms if since_ms is None else max(charge.from_ms, since_ms)
            end = charge.to_ms if until_ms is None else min(charge.to_ms, until_ms)
            if charge.rate is None and begin < end:
                model = pricing.model_of(entry.node, entry.device, entry.from_ms)
                key = (charge.tenant, charge.queue, account.tier or account.kind.value, model)
                found[key] = found.get(key, 0) + sign * per_ms * (end - begin)
    return tuple(
        Unpriced(tenant=tenant, queue=queue, tier=tier, model=model, gpu_ms=ticks // TICKS_PER_GPU_MS)
        for (tenant, queue, tier, model), ticks in sorted(found.items())
        if ticks
    )
