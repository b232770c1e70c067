"""`fairlead bench adversaries`: what a tenant gains by every way of cheating that is known."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from fairlead.errors import UnreadableInput


def adversaries(
    runs: Annotated[int, typer.Option("--runs", help="Runs an attack, each with a seed of its own.")] = 100,
    attacks: Annotated[str, typer.Option("--attacks", help="Attacks, with commas between them; empty for all.")] = "",
    hours: Annotated[int, typer.Option("--hours", help="Hours for which everybody wants more than there is.")] = 12,
    seed: Annotated[int, typer.Option("--seed", help="The first seed.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare the part of the fleet that a cheating tenant holds with what it holds when it is honest.

    Exits with 1 where an attack gains a hundredth of the fleet or more in any run.
    """
    if not 1 <= runs <= 10_000:
        raise UnreadableInput(f"--runs: {runs} is outside 1..10000")
    if not 1 <= hours <= 168:
        raise UnreadableInput(f"--hours: {hours} is outside 1..168")
    from dataclasses import asdict

    from fairlead.bench import adversaries as bench

    names = [name.strip() for name in attacks.split(",") if name.strip()] or list(bench.ATTACKS)
    for name in names:
        if name not in bench.ATTACKS:
            raise UnreadableInput(f"--attacks: there is no {name!r}; use {', '.join(bench.ATTACKS)}")
    rows: list[bench.Row] = []
    if not as_json:
        typer.echo(f"percent of the fleet, in {runs} runs of {hours} h")
        typer.echo("attack          honest  attack    mean   worst  bound")
    for row in bench.run(names, runs, hours=hours, first_seed=seed):
        rows.append(row)
        told = (row.honest_mean, row.attack_mean, row.gain_mean, row.gain_worst, row.bound)
        typer.echo(row.attack.ljust(14) + "".join(f"{number:8.2f}" for number in told), err=as_json)
    if as_json:
        typer.echo(json.dumps({"gpus": bench.GPUS, "hours": hours, "rows": [asdict(row) for row in rows]}, indent=2))
    if not all(row.holds for row in rows):
        raise typer.Exit(1)
