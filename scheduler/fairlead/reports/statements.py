"""Close periods, freeze their statements, and say whether they still are what the entries say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fairlead.errors import BooksDoNotVerify, NotFound, UnreadableInput
from fairlead.ledger.meter import LATE_MS
from fairlead.ledger.periods import (
    Line,
    PeriodState,
    Step,
    closed,
    digest,
    line_text,
    problems,
    read_line,
    seal_step,
    state_of,
)
from fairlead.model.calendars import Calendar, Grain, Span
from fairlead.store import engine as database
from fairlead.store import entries, journal, periods, rollups, usage
from fairlead.timezones import zone_of
from fairlead.units import utc_text

CALENDAR = "calendar"
"""The name in `meta` of the periods' calendar: its zone, the day that months start on, the month years start in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A period and what was booked in it; `sha256` is of its lines. One that is not closed may still change."""

    span: Span
    state: PeriodState
    as_of_ms: int
    entries_to: int
    sha256: str
    lines: tuple[Line, ...]


def calendar_of(connection: database.Connection) -> Calendar:
    """Return the calendar of the books' periods: months of UTC where none was ever said."""
    return calendar_from(journal.get_meta(connection, CALENDAR) or "UTC 1 1")


def calendar_from(text: str) -> Calendar:
    """Read a calendar as `calendar_text` writes it."""
    zone, day, month = text.split(" ")
    return Calendar(zone=zone_of(zone, field="calendar"), month_starts_on=int(day), year_starts_in=int(month))


def calendar_text(calendar: Calendar) -> str:
    """Write a calendar on one line."""
    return f"{calendar.zone.name} {calendar.month_starts_on} {calendar.year_starts_in}"


def close(
    engine: database.Engine, name: str, *, actor: str, calendar: Calendar | None = None, wait: bool = True
) -> list[Step]:
    """Take a month towards closed; return the steps that were new.

    It is closing as soon as it is over, and closed once no fact can change it any more: 48 hours later, or at once
    where `wait` is false. The first call fixes the `calendar`.

    Raises
    ------
    UnreadableInput
        It is not over, not the next to be closed, closed already, or not booked to its end; the text says what to do.
    """
    with database.reading(engine) as connection:
        known = calendar_of(connection)
        before = periods.steps(connection)
        _sound(before)
        if calendar is not None and before and calendar != known:
            raise UnreadableInput(f"the books' periods are of the calendar {calendar_text(known)}; it stays")
        calendar = calendar or known
        span = calendar.named(name)
        now_ms = _closable(connection, calendar, span, before)
        whole = now_ms >= span.to_ms + LATE_MS or not wait
        step = Step(
            number=len(before) + 1,
            period=span.name,
            state=PeriodState.CLOSING,
            from_ms=span.from_ms,
            to_ms=span.to_ms,
            zone=calendar.zone.name,
            month_starts_on=calendar.month_starts_on,
            at_ms=now_ms,
            actor=actor,
        )
        new = [] if state_of(before, span.name) is PeriodState.CLOSING else [step]
        texts: list[str] = []
        if whole:
            head = entries.head(connection)
            texts = [line_text(line) for line in lines_of(connection, span, closed(before), head.number)]
            new.append(
                replace(
                    step,
                    number=len(before) + len(new) + 1,
                    state=PeriodState.CLOSED,
                    entries_to=head.number,
                    entries_hash=head.hash,
                    lines=len(texts),
                    sha256=digest(texts),
                )
            )
    sealed = _sealed(before, new)
    with database.writing(engine) as connection:
        said = journal.set_meta(connection, CALENDAR, calendar_text(calendar))
        if said != calendar_text(calendar):
            raise UnreadableInput(f"the books' periods are of the calendar {said}; it stays")
        periods.append(connection, sealed)
        if whole:
            periods.freeze(connection, span.name, texts)
    return sealed


def _sealed(before: Sequence[Step], new: Sequence[Step]) -> list[Step]:
    """Link new steps after those that are there."""
    sealed: list[Step] = []
    for step in new:
        last = sealed[-1] if sealed else before[-1] if before else None
        sealed.append(seal_step(last, step))
    return sealed


def _sound(steps: Sequence[Step]) -> None:
    for number, field, message in problems(steps):
        raise BooksDoNotVerify(f"period step {number}: {field}: {message}")


def _closable(connection: database.Connection, calendar: Calendar, span: Span, steps: Sequence[Step]) -> int:
    """Return the newest moment the books know of; raise where a period cannot be closed now."""
    if "Q" in span.name or span.name.count("-") != 1:
        raise UnreadableInput(f"period: {span.name!r} is no month; only months are closed, write for example 2026-10")
    state = state_of(steps, span.name)
    if state in (PeriodState.CLOSED, PeriodState.ARCHIVED):
        raise UnreadableInput(f"period {span.name} is {state}; what is wrong in it is corrected in the next")
    now_ms, begin = usage.newest_ms(connection), rollups.begin_ms(connection)
    if now_ms is None or begin is None:
        raise UnreadableInput("period: the books have no entries yet; there is nothing to close")
    done = closed(steps)
    from_ms = done[-1].to_ms if done else calendar.named(_month_of(calendar, begin)).from_ms
    if span.from_ms != from_ms:
        due = _month_of(calendar, from_ms)
        raise UnreadableInput(f"period {span.name}: {due} comes first; run `fairlead ledger close {due}`")
    cut_ms = periods.last_cut_ms(connection) or 0
    if now_ms < span.to_ms:
        raise UnreadableInput(f"period {span.name} ends at {utc_text(span.to_ms)}; the books are at {utc_text(now_ms)}")
    if cut_ms < span.to_ms:
        raise UnreadableInput(
            f"period {span.name} ends at {utc_text(span.to_ms)} and is booked up to {utc_text(cut_ms)}; "
            "the scheduler books the rest with the next full hour"
        )
    return now_ms


def _month_of(calendar: Calendar, at_ms: int) -> str:
    return calendar.at(Grain.MONTH, at_ms).name


def lines_of(connection: database.Connection, span: Span, done: Sequence[Step], up_to: int) -> list[Line]:
    """Return what a period's statement says with entries up to a number; `done` closed the periods before it."""
    found: list[Line] = []
    since = done[-1].entries_to if done else 0
    for step in done:
        found += periods.sums(connection, (step.from_ms, step.to_ms), (since, up_to), step.period)
    return found + periods.sums(connection, (span.from_ms, span.to_ms), (0, up_to), span.name)


def statement(engine: database.Engine, name: str) -> Statement:
    """Return a period's statement: as it was frozen, or as it stands where it is not closed yet.

    Raises
    ------
    UnreadableInput
        It is no name of a month.
    NotFound
        The books had not begun.
    """
    with database.reading(engine) as connection:
        steps, calendar = periods.steps(connection), calendar_of(connection)
        state = state_of(steps, name)
        as_of_ms = usage.newest_ms(connection) or 0
        at = next((step for step in steps if step.period == name and step.state is PeriodState.CLOSED), None)
        if at is not None:
            texts = list(periods.frozen(connection, name))
            if digest(texts) != at.sha256:
                raise BooksDoNotVerify(f"the statement of {name} is not the one that was closed: its rows were changed")
            lines = tuple(read_line(text) for text in texts)
            return Statement(
                span=at.span, state=state, as_of_ms=at.at_ms, entries_to=at.entries_to, sha256=at.sha256, lines=lines
            )
        span, done = calendar.named(name), closed(steps)
        begin = done[-1].to_ms if done else rollups.begin_ms(connection)
        if begin is None or span.to_ms <= begin:
            raise NotFound(f"the books have nothing of {name}")
        head = entries.head(connection)
        lines = tuple(lines_of(connection, span, done, head.number))
    sha256 = digest(line_text(line) for line in lines)
    return Statement(
        span=span, state=state, as_of_ms=as_of_ms, entries_to=head.number, sha256=sha256, lines=lines
    )  # fmt: skip
