"""Fairness over time, and what a plan of capacity begins with: from how everybody stood, as the journal was told.

What was told holds until it was told anew, or until the last word before a start of the scheduler: nobody knows what
was while it was away. That time is not measured, and is not in any of the sums.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from fairlead.errors import NotFound
from fairlead.model.calendars import Span
from fairlead.model.events import Started
from fairlead.model.standings import Standings
from fairlead.reports.document import Document, Value
from fairlead.store import engine as database
from fairlead.store import journal, rollups, usage
from fairlead.store.journal import record_of

MILLIONTHS = 1_000_000


@dataclass(frozen=True, slots=True)
class Stretch:
    """How it stood from one moment to another."""

    from_ms: int
    to_ms: int
    stood: Standings


@dataclass(frozen=True, slots=True, kw_only=True)
class Stood:
    """What is known of a window."""

    since_ms: int
    until_ms: int
    as_of_ms: int
    stretches: tuple[Stretch, ...]

    @property
    def measured_ms(self) -> int:
        """How much of the window somebody watched."""
        return sum(part.to_ms - part.from_ms for part in self.stretches)


def stood(engine: database.Engine, span: Span | None = None) -> Stood:
    """Return how everybody stood in a span, of all time where there is none.

    Raises
    ------
    NotFound
        Nothing was told of that time.
    """
    with database.reading(engine) as connection:
        told = list(_told(connection))
        as_of_ms = usage.newest_ms(connection) or 0
        begin_ms = rollups.begin_ms(connection)
    begin_ms = min([at for at in (begin_ms, told[0][0] if told else None) if at is not None], default=0)
    since_ms = begin_ms if span is None else max(begin_ms, span.from_ms)
    until_ms = as_of_ms if span is None else min(as_of_ms, span.to_ms)
    if since_ms >= until_ms:
        raise NotFound("the books have nothing of that time")
    return Stood(
        since_ms=since_ms,
        until_ms=until_ms,
        as_of_ms=as_of_ms,
        stretches=tuple(_stretches(told, since_ms, until_ms)),
    )


def _told(connection: database.Connection) -> Iterator[tuple[int, Standings | None]]:
    """Yield (moment, how it stood from then on), in order; None where from then on nobody knew."""
    for row in journal.of_subject(connection, "", (Standings.__name__, Started.__name__)):
        record = record_of(row)
        if isinstance(record, Standings):
            yield record.at_ms, record
        else:
            yield journal.before(connection, row.number), None


def _stretches(told: Iterable[tuple[int, Standings | None]], since_ms: int, until_ms: int) -> Iterator[Stretch]:
    """Yield what is known of a window; of two words of one moment the later holds."""
    last: tuple[int, Standings | None] = (since_ms, None)
    for at_ms, known in [*told, (until_ms, None)]:
        begin, end = max(last[0], since_ms), min(max(at_ms, last[0]), until_ms)
        if last[1] is not None and begin < end:
            yield Stretch(begin, end, last[1])
        last = (max(at_ms, last[0]), known)


@dataclass(slots=True)
class _Queue:
    """Sums in thousandths of a GPU times ms. `due` is what it was entitled to and wanted."""

    entitled: int = 0
    demanded: int = 0
    got: int = 0
    due: int = 0
    shortfall: int = 0
    beyond: int = 0


def fairness(found: Stood) -> Document:
    """Return what every queue was entitled to, wanted and got, and what it lacked of what it was due.

    Jain's index is over how much of what it was due each queue got, at most all of it: 1,000,000 where all got the same
    part. The largest envy is the difference between the largest of these parts and the least.
    """
    queues: dict[str, _Queue] = {}
    for part in found.stretches:
        time = part.to_ms - part.from_ms
        for one in part.stood.queues:
            row = queues.setdefault(one.queue, _Queue())
            due = min(one.entitled_milli, one.demanded_milli)
            row.entitled += one.entitled_milli * time
            row.demanded += one.demanded_milli * time
            row.got += one.held_milli * time
            row.due += due * time
            row.shortfall += max(0, due - one.held_milli) * time
            row.beyond += max(0, one.held_milli - one.entitled_milli) * time
    rows: list[tuple[Value, ...]] = []
    parts: dict[str, Fraction] = {}
    for name, row in sorted(queues.items()):
        if row.due:
            parts[name] = Fraction(row.due - row.shortfall, row.due)
        amounts = (row.entitled, row.demanded, row.got, row.shortfall, row.beyond)
        satisfied = int(parts[name] * 1_000) if name in parts else None
        rows.append((name, *(amount // 1_000 for amount in amounts), satisfied))
    columns = (
        "queue", "entitled_gpu_ms", "demanded_gpu_ms", "got_gpu_ms", "shortfall_gpu_ms", "beyond_gpu_ms",
        "satisfied_permille",
    )  # fmt: skip
    return document("fairness", found, columns, rows, _judged(parts))


def _judged(parts: dict[str, Fraction]) -> dict[str, Value]:
    if not parts:
        return {"jain_millionths": None, "max_envy_permille": None, "envious": "", "envied": ""}
    squares = sum(part * part for part in parts.values())
    jain = sum(parts.values()) ** 2 / (len(parts) * squares) if squares else Fraction(1)
    least, most = min(parts, key=lambda name: (parts[name], name)), max(parts, key=lambda name: (parts[name], name))
    envy = parts[most] - parts[least]
    return {
        "jain_millionths": int(jain * MILLIONTHS),
        "max_envy_permille": int(envy * 1_000),
        "envious": least if envy else "",
        "envied": most if envy else "",
    }


@dataclass(slots=True)
class _Level:
    """A level over time: its sum times ms, what there was, and the most."""

    amount: int = 0
    capacity: int = 0
    peak: int = 0


def capacity(found: Stood) -> Document:
    """Return what waited by service class, and how much of each resource was taken, on average and at most.

    The most constrained resource is the one of which the largest part was taken over time.
    """
    levels: dict[tuple[str, str], _Level] = {}
    for part in found.stretches:
        time = part.to_ms - part.from_ms
        seen = [("waiting", one.service_class, one.gpu_milli, 0) for one in part.stood.waiting]
        seen += [("resource", one.resource, one.taken, one.capacity) for one in part.stood.resources]
        for kind, name, amount, there in seen:
            level = levels.setdefault((kind, name), _Level())
            level.amount += amount * time
            level.capacity += there * time
            level.peak = max(level.peak, amount)
    whole = found.measured_ms
    rows: list[tuple[Value, ...]] = []
    taken: dict[str, int] = {}
    for (kind, name), level in sorted(levels.items()):
        share = level.amount * 1_000 // level.capacity if level.capacity else None
        if kind == "resource" and share is not None:
            taken[name] = share
        mean = level.capacity // whole if kind == "resource" else None
        rows.append((kind, name, level.amount // whole, level.peak, mean, share))
    most = max(taken, key=lambda name: (taken[name], name)) if taken else None
    columns = ("kind", "name", "mean", "peak", "capacity", "taken_permille")
    return document("capacity", found, columns, rows, {"most_constrained": most})


def document(
    name: str, found: Stood, columns: tuple[str, ...], rows: list[tuple[Value, ...]], facts: dict[str, Value]
) -> Document:
    """Return a report over how everybody stood in a window."""
    return Document(
        report=name,
        since_ms=found.since_ms,
        until_ms=found.until_ms,
        as_of_ms=found.as_of_ms,
        columns=columns,
        rows=tuple(rows),
        facts={"measured_ms": found.measured_ms, **facts},
    )
