"""`fairlead report`: questions that the books alone can answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Protocol, TypeVar

import typer

from fairlead.cli import render
from fairlead.cli.books_file import DEFAULT_URL, DatabaseOption, FileOption, JsonOption, to_read, url_of
from fairlead.cli.periods import MonthOption, YearOption, ZoneOption, calendar_of_options
from fairlead.cli.usage_text import print_usage
from fairlead.errors import UnreadableInput
from fairlead.units import gpu_hours_text, money_text, utc_text

if TYPE_CHECKING:
    from fairlead.model.calendars import Calendar, Span
    from fairlead.reports.booked import Booked, By
    from fairlead.reports.document import Document, Value
    from fairlead.store.engine import Engine

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

MILLISECOND = timedelta(milliseconds=1)
WINDOW = "UTC: 2026-11-01, 2026-11-01T12:00:00Z, or milliseconds."
OUTPUTS = ("table", "json", "csv")
SPANS_MAX = 10_000

ByOption = Annotated[str, typer.Option("--by", help="queue, tenant or job.")]
SinceOption = Annotated[str | None, typer.Option("--since", help=f"From when on; {WINDOW}")]
UntilOption = Annotated[str | None, typer.Option("--until", help=f"Up to when; {WINDOW}")]
PeriodOption = Annotated[str | None, typer.Option("--period", help="2026-10-31, 2026-10, 2026-Q4 or 2026.")]
EachOption = Annotated[str | None, typer.Option("--each", help="Rows for each hour, day, month, quarter or year.")]
CurrencyOption = Annotated[str | None, typer.Option("--currency", help="Which, where the books have several.")]
OutputOption = Annotated[str, typer.Option("--output", "-o", help="table, json or csv.")]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What time a report is about, and how it is printed."""

    database: str
    since: str | None
    until: str | None
    period: str | None
    each: str | None
    output: str
    calendar: Calendar | None


@app.callback()
def root(
    ctx: typer.Context,
    time_zone: ZoneOption = None,
    month_starts_on: MonthOption = None,
    year_starts_in: YearOption = None,
) -> None:
    """Answer questions from the books. The calendar is that of their periods unless it is said here."""
    ctx.obj = calendar_of_options(time_zone, month_starts_on, year_starts_in)


@app.command()
def usage(
    database: DatabaseOption = DEFAULT_URL,
    file: FileOption = None,
    by: ByOption = "queue",
    since: SinceOption = None,
    until: UntilOption = None,
    json: JsonOption = False,
) -> None:
    """Print held GPU time, and where the whole fleet's time went, as of the newest fact in the books."""
    from fairlead.reports.usage import from_database, to_data

    since_ms, until_ms = moment_of("--since", since), moment_of("--until", until)
    with to_read(url_of(database, file)) as engine:
        found = from_database(engine, since_ms=since_ms, until_ms=until_ms, by=_by(by))
    if json:
        render.as_json(to_data(found))
    else:
        print_usage(found)


@app.command()
def showback(
    ctx: typer.Context,
    database: DatabaseOption = DEFAULT_URL,
    file: FileOption = None,
    by: ByOption = "queue",
    since: SinceOption = None,
    until: UntilOption = None,
    period: PeriodOption = None,
    each: EachOption = None,
    currency: CurrencyOption = None,
    output: OutputOption = "table",
) -> None:
    """Print what everybody held, what of it was used, idle and wasted, and what it cost."""
    from fairlead.reports import charges

    asked = _Asked(url_of(database, file), since, until, period, each, output, ctx.obj)
    kept = _by(by)
    _of_entries(asked, lambda found: charges.showback(found, kept, currency))


@app.command()
def chargeback(
    ctx: typer.Context,
    database: DatabaseOption = DEFAULT_URL,
    file: FileOption = None,
    by: ByOption = "queue",
    since: SinceOption = None,
    until: UntilOption = None,
    period: PeriodOption = None,
    each: EachOption = None,
    output: OutputOption = "table",
) -> None:
    """Print what is to be paid; of a closed month the frozen numbers, with corrections of earlier ones."""
    from fairlead.reports import charges

    asked = _Asked(url_of(database, file), since, until, period, each, output, ctx.obj)
    kept = _by(by)
    _of_entries(asked, lambda found: charges.chargeback(found, kept))


@app.command()
def efficiency(
    ctx: typer.Context,
    database: DatabaseOption = DEFAULT_URL,
    file: FileOption = None,
    by: ByOption = "queue",
    since: SinceOption = None,
    until: UntilOption = None,
    period: PeriodOption = None,
    each: EachOption = None,
    output: OutputOption = "table",
) -> None:
    """Print what of the held time was used, idle, wasted, or measured by nobody."""
    from fairlead.reports import efficiency as report

    asked = _Asked(url_of(database, file), since, until, period, each, output, ctx.obj)
    kept = _by(by)
    _of_entries(asked, lambda found: report.efficiency(found, kept))


@app.command()
def waste(
    ctx: typer.Context,
    database: DatabaseOption = DEFAULT_URL,
    file: FileOption = None,
    by: ByOption = "queue",
    since: SinceOption = None,
    until: UntilOption = None,
    period: PeriodOption = None,
    each: EachOption = None,
    output: OutputOption = "table",
) -> None:
    """Print what of the held time was lost, to which cause and by whom."""
    from fairlead.reports import waste as report

    asked = _Asked(url_of(database, file), since, until, period, each, output, ctx.obj)
    kept = _by(by)
    _of_entries(asked, lambda found: report.waste(found, kept))


@app.command()
def idle(
    ctx: typer.Context,
    database: DatabaseOption = DEFAULT_URL,
    file: FileOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    period: PeriodOption = None,
    currency: CurrencyOption = None,
    output: OutputOption = "table",
) -> None:
    """Print the jobs that held devices idle, the most idle first, and what that cost."""
    from fairlead.reports import efficiency as report

    asked = _Asked(url_of(database, file), since, until, period, None, output, ctx.obj)
    _of_entries(asked, lambda found: report.idle(found, currency))


@app.command()
def reservations(
    ctx: typer.Context,
    database: DatabaseOption = DEFAULT_URL,
    file: FileOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    period: PeriodOption = None,
    each: EachOption = None,
    output: OutputOption = "table",
) -> None:
    """Print what was kept free for whom, and how much of what a queue had reserved it held."""
    from fairlead.reports import efficiency as report

    asked = _Asked(url_of(database, file), since, until, period, each, output, ctx.obj)
    _of_entries(asked, report.reservations)


@app.command()
def fairness(
    ctx: typer.Context,
    database: DatabaseOption = DEFAULT_URL,
    file: FileOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    period: PeriodOption = None,
    each: EachOption = None,
    output: OutputOption = "table",
) -> None:
    """Print what every queue was entitled to, wanted, got and lacked over time."""
    from fairlead.reports import fairness as report

    asked = _Asked(url_of(database, file), since, until, period, each, output, ctx.obj)
    _answer(asked, report.fairness, report.stood)


@app.command()
def capacity(
    ctx: typer.Context,
    database: DatabaseOption = DEFAULT_URL,
    file: FileOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    period: PeriodOption = None,
    each: EachOption = None,
    output: OutputOption = "table",
) -> None:
    """Print what waited by service class, how much of each resource was taken, and which is most constrained."""
    from fairlead.reports import fairness as report

    asked = _Asked(url_of(database, file), since, until, period, each, output, ctx.obj)
    _answer(asked, report.capacity, report.stood)


@app.command()
def focus(
    ctx: typer.Context,
    period: Annotated[str, typer.Option("--period", help="The month, such as 2026-10.")],
    database: DatabaseOption = DEFAULT_URL,
    file: FileOption = None,
    currency: CurrencyOption = None,
    issuer: Annotated[str, typer.Option("--issuer", help="Who sends the bill.")] = "Platform team",
) -> None:
    """Print a month's charges as FOCUS 1.2 rows in CSV, a row for each job, device and day."""
    from fairlead.reports import bills, focus

    with to_read(url_of(database, file)) as engine:
        calendar = ctx.obj or _calendar_of(engine)
        found = bills.focus_rows(engine, period, calendar=calendar, currency=currency, issuer=issuer)
    typer.echo(focus.to_csv(found), nl=False)


class _Window(Protocol):
    """What was found of a time."""

    @property
    def since_ms(self) -> int: ...

    @property
    def until_ms(self) -> int: ...


_Found = TypeVar("_Found", bound=_Window)


def _of_entries(asked: _Asked, report: Callable[[Booked], Document]) -> None:
    """Answer from what was booked."""
    from fairlead.reports.booked import booked

    _answer(asked, report, booked)


def _answer(asked: _Asked, report: Callable[[_Found], Document], look: Callable[[Engine, Span | None], _Found]) -> None:
    """Make a report over the time that is asked for, or over each span of it, and print it."""
    from fairlead.reports.document import stacked

    if asked.output not in OUTPUTS:
        raise UnreadableInput(f"--output: {asked.output!r} is none of {', '.join(OUTPUTS)}")
    with to_read(asked.database) as engine:
        calendar = asked.calendar or _calendar_of(engine)
        span = _span(asked, calendar)
        whole = look(engine, span)
        if asked.each is None:
            _show(report(whole), asked.output)
            return
        parts = [
            (part.name, report(look(engine, part)))
            for part in _each(asked.each, calendar, whole.since_ms, whole.until_ms)
        ]
    _show(stacked(parts, "span"), asked.output)


def _calendar_of(engine: Engine) -> Calendar:
    from fairlead.reports.statements import calendar_of
    from fairlead.store import engine as store

    with store.reading(engine) as connection:
        return calendar_of(connection)


def _span(asked: _Asked, calendar: Calendar) -> Span | None:
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


def _show(found: Document, output: str) -> None:
    if output == "json":
        render.as_json(found.to_data())
        return
    if output == "csv":
        typer.echo(found.to_csv(), nl=False)
        return
    head = [column.removesuffix("_gpu_ms").removesuffix("_nanos").replace("_", "-").upper() for column in found.columns]
    rows = [[_text(column, value) for column, value in zip(found.columns, row, strict=True)] for row in found.rows]
    numbers = {
        title for title, column in zip(head, found.columns, strict=True) if column.endswith(("_ms", "_nanos", "ille"))
    }
    render.table(head, rows, right=frozenset(numbers))
    typer.echo("")
    for name, value in found.facts.items():
        title = name.replace("_gpu_ms", "").replace("_nanos", "").replace("_", " ").replace("permille", "")
        typer.echo(f"{title.strip()}: {_text(name, value) or '-'}")
    typer.echo(
        f"{found.report}, times in GPU-hours, from {utc_text(found.since_ms)} to {utc_text(found.until_ms)}, "
        f"as of {utc_text(found.as_of_ms)}"
    )


def _text(column: str, value: Value) -> str:
    """Write a value of a column for people."""
    if value is None:
        return "unmeasured"
    if isinstance(value, str):
        return value
    if "_gpu_ms" in column:
        return f"-{gpu_hours_text(-value)}" if value < 0 else gpu_hours_text(value)
    if "_nanos" in column:
        return money_text(value)
    if column.endswith("_permille"):
        return f"{value // 10}.{value % 10} %"
    return str(value)


def _by(text: str) -> By:
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
