"""`fairlead ledger close`, `periods`, `statement`, `archive`: months that end, and what was booked in them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli import render
from fairlead.cli.books_file import DEFAULT_URL, ActorOption, DatabaseOption, FileOption, JsonOption, to_read, url_of
from fairlead.units import TICKS_PER_GPU_MS, beside_text, gpu_hours_text, money_text, utc_text

if TYPE_CHECKING:
    from fairlead.ledger.periods import Step
    from fairlead.model.calendars import Calendar
    from fairlead.reports.statements import Statement

PeriodArgument = Annotated[str, typer.Argument(help="The month, such as 2026-10.")]
ZoneOption = Annotated[str | None, typer.Option("--time-zone", help="Of the calendar; UTC if never said.")]
MonthOption = Annotated[int | None, typer.Option("--month-starts-on", help="Day of the month, 1 to 31.")]
YearOption = Annotated[int | None, typer.Option("--year-starts-in", help="Month, 1 to 12.")]


def close(
    period: PeriodArgument,
    actor: ActorOption,
    database: DatabaseOption = DEFAULT_URL,
    file: FileOption = None,
    time_zone: ZoneOption = None,
    month_starts_on: MonthOption = None,
    year_starts_in: YearOption = None,
    now: Annotated[bool, typer.Option("--now", help="Do not wait 48 hours for late facts.")] = False,
    json: JsonOption = False,
) -> None:
    """Close a month: its statement is frozen, and whatever comes later for it is a correction in the next."""
    from fairlead.reports import statements

    with to_read(url_of(database, file)) as engine:
        calendar = calendar_of_options(time_zone, month_starts_on, year_starts_in)
        steps = statements.close(engine, period, actor=actor, calendar=calendar, wait=not now)
        found = statements.statement(engine, period)
    if json:
        render.as_json({"period": period, "state": found.state.value, "steps": [step_data(step) for step in steps]})
        return
    for step in steps:
        typer.echo(_sentence(step))
    if not steps:
        typer.echo(f"{period} is {found.state}: late facts may come until 48 hours after its end")


def calendar_of_options(
    time_zone: str | None, month_starts_on: int | None, year_starts_in: int | None
) -> Calendar | None:
    """Return the calendar that options name, None where none is given: then it is that of the books."""
    from fairlead.model.calendars import Calendar
    from fairlead.timezones import zone_of

    if time_zone is None and month_starts_on is None and year_starts_in is None:
        return None
    return Calendar(
        zone=zone_of("UTC" if time_zone is None else time_zone, field="--time-zone"),
        month_starts_on=1 if month_starts_on is None else month_starts_on,
        year_starts_in=1 if year_starts_in is None else year_starts_in,
    )


def periods(database: DatabaseOption = DEFAULT_URL, file: FileOption = None, json: JsonOption = False) -> None:
    """List what became of periods, a line a step."""
    from fairlead.store import engine as store
    from fairlead.store import periods as rows

    with to_read(url_of(database, file)) as engine, store.reading(engine) as connection:
        steps = rows.steps(connection)
    if json:
        render.as_json({"items": [step_data(step) for step in steps]})
        return
    head = ("PERIOD", "STATE", "FROM", "TO", "ZONE", "AS-OF", "BY", "ENTRIES-TO", "LINES", "SHA256")
    cells = [
        (
            step.period,
            step.state.value,
            utc_text(step.from_ms),
            utc_text(step.to_ms),
            step.zone,
            utc_text(step.at_ms),
            step.actor,
            step.entries_to or None,
            step.lines or None,
            step.sha256,
        )
        for step in steps
    ]
    render.table(head, cells, right=frozenset({"ENTRIES-TO", "LINES"}))


def statement(
    period: PeriodArgument,
    database: DatabaseOption = DEFAULT_URL,
    file: FileOption = None,
    json: JsonOption = False,
    lines: Annotated[bool, typer.Option("--lines", help="Print the frozen lines, whose SHA-256 is the one.")] = False,
) -> None:
    """Print a month's statement: as it was frozen, or as it stands where it is not closed yet."""
    from fairlead.ledger.periods import line_text
    from fairlead.reports.statements import statement as read

    with to_read(url_of(database, file)) as engine:
        found = read(engine, period)
    if lines:
        for line in found.lines:
            typer.echo(line_text(line))
    elif json:
        render.as_json(statement_data(found))
    else:
        _print(found)


def archive(
    period: PeriodArgument,
    actor: ActorOption,
    to: Annotated[Path, typer.Option("--to", help="The archive, such as 2026-10.jsonl.gz.")],
    database: DatabaseOption = DEFAULT_URL,
    file: FileOption = None,
    drop: Annotated[bool, typer.Option("--drop", help="Delete what the archive has from the database.")] = False,
    keep_months: Annotated[int, typer.Option("--keep-months", min=0, help="Whole months that stay.")] = 13,
) -> None:
    """Write the entries of a closed month to a file; with --drop, delete them once the file was read back."""
    from fairlead.ledger.periods import PeriodState, state_of
    from fairlead.reports import archives
    from fairlead.store import engine as store
    from fairlead.store import periods as rows

    with to_read(url_of(database, file)) as engine:
        with store.reading(engine) as connection:
            state = state_of(rows.steps(connection), period)
        if state is not PeriodState.ARCHIVED or not drop:
            typer.echo(_sentence(archives.archive(engine, period, to, actor=actor)))
        if drop:
            count = archives.drop(engine, period, to, keep_months=keep_months)
            typer.echo(
                f"{count} entries were deleted; {to} has them, and `fairlead ledger verify --archive {to}` reads it"
            )


def _sentence(step: Step) -> str:
    if not step.sha256:
        return f"{step.period} is closing: from {utc_text(step.from_ms)} to {utc_text(step.to_ms)} ({step.zone})"
    what = "entries" if step.state.value == "archived" else "lines"
    return f"{step.period} is {step.state}: {step.lines} {what}, up to entry {step.entries_to}, sha256 {step.sha256}"


def _print(found: Statement) -> None:
    from fairlead.ledger.accounts import BESIDE

    head = ("OF", "ACCOUNT", "POOL", "JOB", "GPU-H", "AMOUNT", "UNIT")
    rows: list[tuple[object, ...]] = []
    for line in found.lines:
        job = f"{line.namespace}/{line.name}" if line.namespace or line.name else ""
        of = line.of if line.of == found.span.name else f"{line.of} (correction)"
        ticks = line.unit == "ticks"
        hours = gpu_hours_text(line.amount // TICKS_PER_GPU_MS) if ticks else ""
        amount = ("", "") if ticks else (money_text(line.amount), line.unit.partition(":")[2])
        if line.unit in BESIDE:
            amount = beside_text(line.unit, line.amount)
        rows.append((of, line.account, line.pool, job, hours, *amount))
    render.table(head, rows, right=frozenset({"GPU-H", "AMOUNT"}))
    span = f"{utc_text(found.span.from_ms)} to {utc_text(found.span.to_ms)}"
    typer.echo(f"\n{found.span.name} is {found.state}; {span}, as of {utc_text(found.as_of_ms)}, sha256 {found.sha256}")


def step_data(step: Step) -> dict[str, Any]:
    """Return a step as plain data for JSON."""
    from dataclasses import asdict

    return {**asdict(step), "state": step.state.value}


def statement_data(found: Statement) -> dict[str, Any]:
    """Return a statement as plain data for JSON; amounts are ticks (840 a GPU-ms) or nano-units of a currency."""
    from dataclasses import asdict

    return {
        "period": found.span.name,
        "state": found.state.value,
        "from_ms": found.span.from_ms,
        "to_ms": found.span.to_ms,
        "as_of_ms": found.as_of_ms,
        "entries_to": found.entries_to,
        "sha256": found.sha256,
        "lines": [asdict(line) for line in found.lines],
    }
