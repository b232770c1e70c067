"""How `fairlead report` understands what it is asked, and prints the answer."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import typer

from fairlead.cli import render
from fairlead.cli.books_file import to_read
from fairlead.errors import UnreadableInput
from fairlead.units import gpu_hours_text, money_text, utc_text

if TYPE_CHECKING:
    from fairlead.model.calendars import Calendar, Span
    from fairlead.reports.booked import Booked, By
    from fairlead.reports.document import Document, Value
    from fairlead.store.engine import Engine

MILLISECOND = timedelta(milliseconds=1)
WINDOW = "UTC: 2026-11-01, 2026-11-01T12:00:00Z, or milliseconds."
OUTPUTS = ("table", "json", "csv")
SPANS_MAX = 10_000
_UNIT = r"(_gpu|_mib|_nic)?_ms$|_core_us$|_nanos(?= |$)"


@dataclass(frozen=True, slots=True)
class Asked:
    """What time a report is about, and how it is printed."""

    database: str
    since: str | None
    until: str | None
    period: str | None
    each: str | None
    output: str
    calendar: Calendar | None


class _Window(Protocol):
    """What was found of a time."""

    @property
    def since_ms(self) -> int: ...

    @property
    def until_ms(self) -> int: ...


_Found = TypeVar("_Found", bound=_Window)


def of_entries(asked: Asked, report: Callable[[Booked], Document], *, jobs: bool) -> None:
    """Answer from what was booked; without jobs from sums over them."""
    from fairlead.reports.booked import booked

    answer(asked, report, partial(booked, jobs=jobs))


def of_kept(asked: Asked, by: str, report: Callable[[Booked, By], Document]) -> None:
    """Answer from what was booked, kept apart by queue, tenant or job as `by` says."""
    kept = by_of(by)
    of_entries(asked, lambda found: report(found, kept), jobs=kept == "job")


def answer(asked: Asked, report: Callable[[_Found], Document], look: Callable[[Engine, Span | None], _Found]) -> None:
    """Make a report over the time that is asked for, or over each span of it, and print it."""
    from fairlead.reports.document import stacked

    if asked.output not in OUTPUTS:
        raise UnreadableInput(f"--output: {asked.output!r} is none of {', '.join(OUTPUTS)}")
    with to_read(asked.database) as engine:
        calendar = asked.calendar or books_calendar(engine)
        span = _span(asked, calendar)
        whole = look(engine, span)
        if asked.each is None:
            show(report(whole), asked.output)
            return
        parts = [
            (part.name, report(look(engine, part)))
            for part in _each(asked.each, calendar, whole.since_ms, whole.until_ms)
        ]
    show(stacked(parts, "span"), asked.output)


def books_calendar(engine: Engine) -> Calendar:
    """Return the calendar of the books' periods."""
    from fairlead.reports.statements import calendar_of
    from fairlead.store import engine as store

    with store.reading(engine) as connection:
        return calendar_of(connection)


def _span(asked: Asked, calendar: Calendar) -> Span | None:
    from fairlead.reports.booked import span_of

    since_ms, until_ms = moment_of("--since", asked.since), moment_of("--until", asked.until)
    if asked.period is None:
        return span_of(since_ms, until_ms)
    if since_ms is not None or until_ms is not None:
        raise UnreadableInput("--period: says from when to when; leave out --since and --until")
    return calendar.named(asked.period, field="--period")


def _each(text: str, calendar: Calendar, since_ms: int, until_ms: int) -> list[Span]:
    """Return the spans that a window is cut into, the first and the last cut to it."""
    from fairlead.model.calendars import Grain, Span

    if text not in tuple(Grain):
        raise UnreadableInput(f"--each: {text!r} is none of {', '.join(Grain)}")
    found: list[Span] = []
    for span in calendar.spans(Grain(text), since_ms, until_ms):
        found.append(Span(max(span.from_ms, since_ms), min(span.to_ms, until_ms), span.name))
        if len(found) > SPANS_MAX:
            raise UnreadableInput(f"--each: there are more than {SPANS_MAX} spans of a {text}; ask for less time")
    return found


def show(found: Document, output: str) -> None:
    """Print a report as a table, JSON or CSV."""
    if output == "json":
        render.as_json(found.to_data())
        return
    if output == "csv":
        typer.echo(found.to_csv(), nl=False)
        return
    head = [re.sub(_UNIT, "", column).replace("_", "-").upper() for column in found.columns]
    rows = [[_text(column, value) for column, value in zip(found.columns, row, strict=True)] for row in found.rows]
    numbers = {
        title
        for title, column in zip(head, found.columns, strict=True)
        if column.endswith(("_ms", "_us", "_nanos", "ille", "tokens", "_slo"))
    }
    render.table(head, rows, right=frozenset(numbers))
    typer.echo("")
    for name, value in found.facts.items():
        title = re.sub(_UNIT, "", name).replace("_", " ").replace("permille", "")
        typer.echo(f"{title.strip()}: {_text(name, value) or '-'}")
    window = f"from {utc_text(found.since_ms)} to {utc_text(found.until_ms)}, as of {utc_text(found.as_of_ms)}"
    typer.echo(f"{found.report}, times in hours: of GPUs, cores, GiB, NICs or gangs, {window}")


def _text(column: str, value: Value) -> str:
    """Write a value of a column for people."""
    if value is None:
        return "unmeasured"
    if isinstance(value, str):
        return value
    if column.endswith("_mib_ms"):
        return gpu_hours_text(value // 1024)
    if column.endswith("_core_us"):
        return gpu_hours_text(value // 1000)
    if column.endswith("_ms"):
        return f"-{gpu_hours_text(-value)}" if value < 0 else gpu_hours_text(value)
    if "_nanos" in column:
        return money_text(value)
    if column.endswith("_permille"):
        return f"{value // 10}.{value % 10} %"
    return str(value)


def by_of(text: str) -> By:
    """Return what rows are summed over."""
    from fairlead.reports.booked import By

    if text not in tuple(By):
        raise UnreadableInput(f"--by: {text!r} is none of {', '.join(By)}")
    return By(text)


def moment_of(option: str, text: str | None) -> int | None:
    """Return a moment in UTC ms; a text without a zone is UTC."""
    if text is None:
        return None
    if text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UnreadableInput(f"{option}: {text!r} is no time; write it in {WINDOW}") from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // MILLISECOND
