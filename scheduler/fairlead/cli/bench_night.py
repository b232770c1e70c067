"""`fairlead bench night`: whether serving has its GPUs every morning, with a protected window and without."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from fairlead.errors import UnreadableInput


def night(
    days: Annotated[int, typer.Option("--days", help="Days to run, from --first on.")] = 31,
    first: Annotated[int, typer.Option("--first", help="Days after 2027-03-01 to begin at; 27 is summer time's.")] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the jobs and of the fleet.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Let batch fill a pool by night and serving ask for its GPUs by day; once protected, once not.

    Exits with 1 where serving was late with protection on, or never late without it.
    """
    if not 1 <= days <= 366:
        raise UnreadableInput(f"--days: {days} is outside 1..366")
    if not 0 <= first <= 10_000:
        raise UnreadableInput(f"--first: {first} is outside 0..10000")
    from dataclasses import asdict

    from fairlead.bench import night as bench

    reports = [bench.run(days, first=first, protected=on, seed=seed) for on in (True, False)]
    if as_json:
        typer.echo(json.dumps({"zone": bench.ZONE, "runs": [asdict(report) for report in reports]}, indent=2))
    else:
        for report in reports:
            typer.echo(f"protection {'on' if report.protected else 'off'}, bound {report.bound_s} s")
            typer.echo("date        hours  pods  late  worst_wait_s  returned")
            for day in report.days:
                told = (day.hours, day.pods, day.late, day.worst_wait_s, day.returned)
                hours, pods, late, wait, back = (str(number) for number in told)
                typer.echo(f"{day.date}  {hours:>5}  {pods:>4}  {late:>4}  {wait:>12}  {back:>8}")
            typer.echo(f"late on {report.late_days} days; batch held {report.batch_gpu_hours} GPU-hours\n")
    if reports[0].late_days or not reports[1].late_days:
        raise typer.Exit(1)
