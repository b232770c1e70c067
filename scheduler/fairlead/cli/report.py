"""`fairlead report`: questions that the books alone can answer."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fairlead.cli import render
from fairlead.cli.books_file import DEFAULT_URL, DatabaseOption, FileOption, JsonOption, to_read, url_of
from fairlead.cli.periods import MonthOption, YearOption, ZoneOption, calendar_of_options
from fairlead.cli.report_answer import (
    WINDOW,
    Asked,
    answer,
    books_calendar,
    by_of,
    moment_of,
    of_entries,
    of_kept,
    show,
)
from fairlead.cli.usage_text import print_usage

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


ByOption = Annotated[str, typer.Option("--by", help="queue, tenant or job.")]
SinceOption = Annotated[str | None, typer.Option("--since", help=f"From when on; {WINDOW}")]
UntilOption = Annotated[str | None, typer.Option("--until", help=f"Up to when; {WINDOW}")]
PeriodOption = Annotated[str | None, typer.Option("--period", help="2026-10-31, 2026-10, 2026-Q4 or 2026.")]
EachOption = Annotated[str | None, typer.Option("--each", help="Rows for each hour, day, month, quarter or year.")]
CurrencyOption = Annotated[str | None, typer.Option("--currency", help="Which, where the books have several.")]
OutputOption = Annotated[str, typer.Option("--output", "-o", help="table, json or csv.")]


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
    unit: Annotated[str, typer.Option("--unit", help="gpu, or what pods held beside GPUs: cpu, memory, nic.")] = "gpu",
    json: JsonOption = False,
) -> None:
    """Print held GPU time, and where the whole fleet's time went, as of the newest fact in the books."""
    from fairlead.reports import beside
    from fairlead.reports.usage import from_database, to_data

    since_ms, until_ms = moment_of("--since", since), moment_of("--until", until)
    with to_read(url_of(database, file)) as engine:
        if unit != "gpu":
            pods = beside.from_database(engine, unit, since_ms=since_ms, until_ms=until_ms, by=by_of(by))
            show(pods, "json" if json else "table")
            return
        found = from_database(engine, since_ms=since_ms, until_ms=until_ms, by=by_of(by))
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

    asked = Asked(url_of(database, file), since, until, period, each, output, ctx.obj)
    of_kept(asked, by, lambda found, kept: charges.showback(found, kept, currency))


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

    asked = Asked(url_of(database, file), since, until, period, each, output, ctx.obj)
    of_kept(asked, by, charges.chargeback)


@app.command()
def costs(
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
    """Print what held time cost the platform: hardware by part, idle fleet and fixed costs, beside what it charged."""
    from functools import cache

    from fairlead.reports import costs as report

    kept, known = by_of(by), cache(report.known)
    asked = Asked(url_of(database, file), since, until, period, each, output, ctx.obj)
    answer(
        asked,
        lambda found: report.costs(found, kept),
        lambda engine, span: report.device_times(engine, known(engine), span, jobs=kept == "job", currency=currency),
    )


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

    asked = Asked(url_of(database, file), since, until, period, each, output, ctx.obj)
    of_kept(asked, by, report.efficiency)


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

    asked = Asked(url_of(database, file), since, until, period, each, output, ctx.obj)
    of_kept(asked, by, report.waste)


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

    asked = Asked(url_of(database, file), since, until, period, None, output, ctx.obj)
    of_entries(asked, lambda found: report.idle(found, currency), jobs=True)


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

    asked = Asked(url_of(database, file), since, until, period, each, output, ctx.obj)
    of_entries(asked, report.reservations, jobs=False)


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

    asked = Asked(url_of(database, file), since, until, period, each, output, ctx.obj)
    answer(asked, report.fairness, report.stood)


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

    asked = Asked(url_of(database, file), since, until, period, each, output, ctx.obj)
    answer(asked, report.capacity, report.stood)


@app.command()
def unplaced(
    ctx: typer.Context,
    database: DatabaseOption = DEFAULT_URL,
    file: FileOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    period: PeriodOption = None,
    each: EachOption = None,
    output: OutputOption = "table",
) -> None:
    """Print who waited although enough was idle, for how long, and what was in the way."""
    from fairlead.reports import fairness as stood
    from fairlead.reports import unplaced as report

    asked = Asked(url_of(database, file), since, until, period, each, output, ctx.obj)
    answer(asked, report.unplaced, stood.stood)


@app.command()
def anomalies(
    ctx: typer.Context,
    database: DatabaseOption = DEFAULT_URL,
    file: FileOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    period: PeriodOption = None,
    output: OutputOption = "table",
) -> None:
    """Print the days on which a queue cost what its days before do not explain, and what drove that."""
    from fairlead.reports import anomalies as report

    asked = Asked(url_of(database, file), since, until, period, None, output, ctx.obj)
    answer(asked, report.anomalies, partial(report.look, calendar=ctx.obj))


@app.command()
def tokens(
    ctx: typer.Context,
    counts: Annotated[Path, typer.Option("--counts", help="CSV or JSON lines: who served which tokens, and when.")],
    peak: Annotated[
        str | None, typer.Option("--peak", help="Tell a time of the day apart, such as 08:00-20:00.")
    ] = None,
    weight: Annotated[list[str] | None, typer.Option("--weight", help="Such as completion=4; repeat it.")] = None,
    basis: Annotated[str, typer.Option("--basis", help="charged, or cost: what the platform paid.")] = "charged",
    database: DatabaseOption = DEFAULT_URL,
    file: FileOption = None,
    by: ByOption = "job",
    since: SinceOption = None,
    until: UntilOption = None,
    period: PeriodOption = None,
    each: EachOption = None,
    currency: CurrencyOption = None,
    output: OutputOption = "table",
) -> None:
    """Print what tokens cost, idle time included, by counts that whoever serves them told."""
    from fairlead.cli.report_tokens import looking
    from fairlead.reports import token_books as report

    asked = Asked(url_of(database, file), since, until, period, each, output, ctx.obj)
    kept = by_of(by)
    answer(asked, lambda found: report.report(found, kept), looking(counts, peak, weight or (), basis, currency, asked))


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
        calendar = ctx.obj or books_calendar(engine)
        found = bills.focus_rows(engine, period, calendar=calendar, currency=currency, issuer=issuer)
    typer.echo(focus.to_csv(found), nl=False)
