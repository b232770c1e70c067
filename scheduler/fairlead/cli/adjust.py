"""`fairlead ledger adjust`: credits and charges that somebody decided on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fairlead.cli import render
from fairlead.cli.books_file import (
    DEFAULT_URL,
    ActorOption,
    DatabaseOption,
    FileOption,
    JsonOption,
    decided,
    to_read,
    url_of,
)
from fairlead.cli.report import SinceOption, UntilOption
from fairlead.cli.report_answer import moment_of
from fairlead.clock import now_ms
from fairlead.errors import NotFound, UnreadableInput
from fairlead.units import money_text, nanos_of

if TYPE_CHECKING:
    from fairlead.model.prices import AdjustedLine


def adjust(
    reason: Annotated[str, typer.Option("--reason", help="Why, in a word: outage, goodwill. Names the account.")],
    actor: ActorOption,
    queue: Annotated[str, typer.Option("--queue", help="Queue that is meant, with all below it.")] = "",
    credit: Annotated[str, typer.Option("--credit", help="Amount to give back, such as 12.50.")] = "",
    charge: Annotated[str, typer.Option("--charge", help="Amount to charge.")] = "",
    currency: Annotated[str, typer.Option("--currency", help="Of the amount: EUR, GPU-credits.")] = "",
    tier: Annotated[str, typer.Option("--tier", help="Book all of it here, not as it was spent.")] = "",
    entry: Annotated[int | None, typer.Option("--entry", help="Take back all that this entry charged.")] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    note: Annotated[str, typer.Option("--note", help="What else there is to say.")] = "",
    database: DatabaseOption = DEFAULT_URL,
    file: FileOption = None,
    json: JsonOption = False,
) -> None:
    """Give money back to a queue, or charge it, by an entry that says who and why."""
    from fairlead.ledger import adjusting
    from fairlead.model.prices import Adjusted

    if (entry is None) == (not queue) or (entry is None and bool(credit) == bool(charge)):
        raise UnreadableInput("give --entry, or --queue with either --credit or --charge")
    who = adjusting.said(actor, 253, field="--actor")
    why = adjusting.said(reason, adjusting.REASON_MAX, field="--reason")
    more = adjusting.said(note, adjusting.NOTE_MAX, field="--note") if note else ""
    url, at_ms, refers = url_of(database, file), now_ms(), ""
    since_ms, until_ms = moment_of("--since", since), moment_of("--until", until)
    if entry is not None:
        lines, refers, span = _of_entry(url, entry)
    else:
        nanos = nanos_of(charge, field="--charge") if charge else -nanos_of(credit, field="--credit")
        lines = _of_queue(url, queue, nanos, currency, tier, (since_ms, until_ms))
        span = (since_ms or at_ms, until_ms or at_ms)
    if span[0] > span[1]:
        raise UnreadableInput("--since: must be before --until")
    fact = Adjusted(
        actor=who,
        reason=why,
        note=more,
        lines=lines,
        from_ms=span[0],
        to_ms=span[1],
        at_ms=at_ms,
        refers=refers,
    )
    decided(url, [fact])
    rows = [[line.queue, line.tier.value, money_text(line.nanos), line.currency] for line in lines]
    if json:
        keys = ("queue", "tier", "amount", "currency")
        render.as_json({"actor": who, "reason": why, "lines": [dict(zip(keys, row, strict=True)) for row in rows]})
    else:
        render.table(("QUEUE", "TIER", "AMOUNT", "CURRENCY"), rows, right=frozenset({"AMOUNT"}))


def _of_queue(
    url: str, queue: str, nanos: int, currency: str, tier: str, window: tuple[int | None, int | None]
) -> tuple[AdjustedLine, ...]:
    """Divide an amount over the queue and what is below it as they spent in a time, or book all of it to one tier."""
    from fairlead.ledger import accounts, adjusting
    from fairlead.model.prices import AdjustedLine, PriceTier
    from fairlead.model.tenancy import ancestors, tenant_of
    from fairlead.reports import spending
    from fairlead.store import engine as store

    unit = accounts.money(currency)
    if tier and tier not in tuple(PriceTier):
        raise UnreadableInput(f"--tier: {tier!r} is none of {', '.join(PriceTier)}")
    with to_read(url) as engine, store.reading(engine) as connection:
        queues = spending.queues_of(connection)
        if queue not in queues:
            raise NotFound(f"--queue: the books know no queue {queue!r}")
        if tier:
            tenant = tenant_of(queue, queues)
            line = AdjustedLine(tenant=tenant, queue=queue, tier=PriceTier(tier), nanos=nanos, currency=currency)
            return (line,)
        spent = spending.spent(connection, *window).get(unit, {})
    below = {name: amount for name, amount in spent.items() if queue in ancestors(accounts.parse(name).queue, queues)}
    return adjusting.divided(nanos, currency, below)


def _of_entry(url: str, number: int) -> tuple[tuple[AdjustedLine, ...], str, tuple[int, int]]:
    from fairlead.ledger import adjusting
    from fairlead.store import engine as store
    from fairlead.store import entries

    with to_read(url) as engine, store.reading(engine) as connection:
        found = next(entries.read(connection, after=number - 1, up_to=number), None)
    if found is None:
        raise NotFound(f"--entry: there is no entry {number}")
    entry = found.entry
    return adjusting.taken_back(entry), entry.id, (entry.from_ms, entry.to_ms)
