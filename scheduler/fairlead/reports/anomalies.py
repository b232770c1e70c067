"""Which days of queues cost what nobody would expect, and what drove it, as the books say now."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from fairlead.ledger.anomalies import DAYS, Finding, Kind, findings
from fairlead.ledger.cost_days import Chain, Part, Tariff, costs_of
from fairlead.ledger.cost_drivers import Driver
from fairlead.ledger.prices import PriceList
from fairlead.model.calendars import Calendar, Grain, Span
from fairlead.model.events import QueueGone, QueueSeen
from fairlead.model.prices import Adjusted
from fairlead.model.tenancy import Queue, ancestors
from fairlead.reports.booked import cut_to, summed
from fairlead.reports.document import Document, Value
from fairlead.reports.prices import books_in
from fairlead.reports.statements import calendar_of
from fairlead.store import engine as database
from fairlead.store import journal, periods, usage
from fairlead.units import money_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is to be told of the days that touch [since_ms, until_ms)."""

    since_ms: int
    until_ms: int
    as_of_ms: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What is judged: `parts` of the days of a window, which begin at `first_ms`, and of four weeks before them."""

    since_ms: int
    until_ms: int
    as_of_ms: int
    first_ms: int
    parts: tuple[Part, ...]
    tariff: Tariff


def look(engine: database.Engine, span: Span | None, calendar: Calendar | None = None) -> Found:
    """Look at the days that touch a span, at all where there is none, of the books' calendar where none is said.

    Raises
    ------
    NotFound
        Nothing was booked in it.
    """
    with database.reading(engine) as connection:
        found = read(connection, span, calendar or calendar_of(connection))
    return judged(found)


def read(connection: database.Connection, span: Span | None, calendar: Calendar) -> Read:
    """Read the days that touch a span, whole, and four weeks before them. Raises as `look` does."""
    begin_ms, cut_ms = summed(connection)
    begin_ms = max(begin_ms, periods.dropped_until_ms(connection))
    since_ms, until_ms = cut_to(span, begin_ms, cut_ms)
    first_ms = calendar.at(Grain.DAY, since_ms).from_ms
    since_ms, until_ms = max(begin_ms, first_ms), min(cut_ms, calendar.at(Grain.DAY, until_ms - 1).to_ms)
    read_ms = first_ms
    for _ in range(DAYS):
        if read_ms > begin_ms:
            read_ms = calendar.at(Grain.DAY, read_ms - 1).from_ms
    books = books_in(connection)
    prices = [price for book in books for price in book.prices]
    edges = sorted({at for price in prices for at in (price.from_ms, price.to_ms) if at is not None})
    parts = [
        Part(day, from_ms, to_ms, usage.lines(connection, from_ms, to_ms, jobs=False))
        for day in calendar.spans(Grain.DAY, read_ms, until_ms)
        for from_ms, to_ms in _cut(max(day.from_ms, begin_ms), min(day.to_ms, until_ms), edges)
    ]
    records = [journal.record_of(row) for row in journal.of_kinds(connection, (Adjusted.__name__,))]
    tariff = Tariff(
        prices=PriceList(books),
        chains=_chains(connection),
        adjusted=[record for record in records if isinstance(record, Adjusted)],
    )
    return Read(
        since_ms=since_ms, until_ms=until_ms, as_of_ms=cut_ms, first_ms=first_ms, parts=tuple(parts), tariff=tariff
    )


def judged(read: Read) -> Found:
    """Judge what was read; no books are asked any more."""
    told = [finding for costs in costs_of(read.parts, read.tariff) for finding in findings(costs, read.first_ms)]
    told.sort(key=lambda one: (one.day, one.queue, one.currency))
    return Found(since_ms=read.since_ms, until_ms=read.until_ms, as_of_ms=read.as_of_ms, findings=tuple(told))


def sentence(one: Finding) -> str:
    """Say what is told of a day in a sentence, what drove it included."""
    if one.divided is None:
        return f"{one.day.name}: there are too few days before it to say what is usual"
    drivers = [f"{driver} {money_text(amount)}" for driver, amount in one.divided.parts.items() if amount]
    usual = "a day as usual is" if one.kind is Kind.SPEND else "the same time was, as usual,"
    of = f"{money_text(one.divided.actual)} {one.currency}, where {usual} {money_text(one.divided.expected)}"
    return f"{one.day.name}, {one.kind}: {of}; {', '.join(drivers)}"


def _chains(connection: database.Connection) -> dict[str, list[tuple[int, Chain]]]:
    """Return where each queue stood in the tree, from when on."""
    queues, found = dict[str, Queue](), dict[str, list[tuple[int, Chain]]]()
    for row in journal.of_kinds(connection, (QueueSeen.__name__, QueueGone.__name__)):
        record = journal.record_of(row)
        if isinstance(record, QueueSeen):
            before = queues.get(record.queue.name)
            queues[record.queue.name] = record.queue
            if before is not None and before.parent == record.queue.parent:
                continue
        elif isinstance(record, QueueGone):
            queues.pop(record.name, None)
        for name in queues:
            chain, known = ancestors(name, queues), found.setdefault(name, [])
            if not known or known[-1][1] != chain:
                known.append((row.at_ms, chain))
    return found


def _cut(from_ms: int, to_ms: int, edges: list[int]) -> list[tuple[int, int]]:
    return list(pairwise([from_ms, *(edge for edge in edges if from_ms < edge < to_ms), to_ms]))


def anomalies(found: Found) -> Document:
    """Return a row for each thing that is to be told of a queue's day; the parts sum to the change."""
    rows: list[tuple[Value, ...]] = []
    for one in found.findings:
        of = one.divided
        amounts = (None,) * (3 + len(Driver)) if of is None else (
            of.expected, of.actual, of.change, *(of.parts[driver] for driver in Driver))  # fmt: skip
        alarm = "yes" if one.alarm else "no"
        rows.append((one.day.name, one.tenant, one.queue, one.currency, one.kind, alarm, *amounts, one.by_hand))
    names = ("expected", "actual", "change", *(driver.replace("-", "_") for driver in Driver), "by_hand")
    return Document(
        report="anomalies",
        since_ms=found.since_ms,
        until_ms=found.until_ms,
        as_of_ms=found.as_of_ms,
        columns=("day", "tenant", "queue", "currency", "kind", "alarm", *(f"{name}_nanos" for name in names)),
        rows=tuple(rows),
        facts={"alarms": sum(one.alarm for one in found.findings)},
    )
