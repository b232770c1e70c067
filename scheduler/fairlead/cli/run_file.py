"""`fairlead run`: a scenario file through the engine until it is stable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fairlead.cli import render
from fairlead.cli.books_file import JsonOption

if TYPE_CHECKING:
    from fairlead.simulation.scenario_run import Outcome, Placed


def run(
    scenario: Annotated[Path, typer.Argument(metavar="SCENARIO.yaml", help="The world; - reads the standard input.")],
    rounds: Annotated[int, typer.Option(min=1, max=1_000_000, help="At most so many rounds.")] = 1_000,
    as_json: JsonOption = False,
) -> None:
    """Exit 0: stable, and it stayed so for 5 more rounds; 1: it did not become stable, or it moved again."""
    from fairlead.simulation import scenario_file, scenario_run

    outcome = scenario_run.run(scenario_file.read(_text(scenario)), rounds)
    if as_json:
        typer.echo(json.dumps(scenario_run.as_document(outcome), indent=2))
    else:
        _tell(outcome)
    raise typer.Exit(0 if outcome.stable else 1)


def _text(path: Path) -> str:
    from fairlead.errors import UnreadableInput

    try:
        return typer.get_text_stream("stdin").read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise UnreadableInput(f"{path}: {problem}") from problem


def _where(placed: Placed) -> tuple[object, ...]:
    """One line of a job: the tightest domain, how many domains of each level, and how fast its slowest link is."""
    from fairlead.units import pace_text

    where = placed.placement
    pace = pace_text(where.pace_bytes_per_s) if where.pace_bytes_per_s else None
    within = f"{where.level} {where.domain}".strip()
    return placed.gang, placed.round, within, render.span_text(dict(where.span)), pace


def _tell(outcome: Outcome) -> None:
    """Print what runs, what was stopped, what waits and why."""
    if outcome.placed:
        rows = [
            (placed.gang, f"{member.role}-{member.index}", member.node, ",".join(member.devices), placed.tier.value)
            for placed in outcome.placed
            for member in placed.placement.members
        ]
        render.table(("JOB", "MEMBER", "NODE", "DEVICES", "TIER"), rows)
        typer.echo("")
        render.table(("JOB", "ROUND", "WITHIN", "SPANS", "PACE"), [_where(placed) for placed in outcome.placed])
    for victim in outcome.victims:
        typer.echo(f"round {victim.round}: {victim.gang} was stopped: {victim.cause.message}")
    for left in outcome.waiting:
        why = "no reason" if left.refusal is None else f"{left.refusal.reason.token}: {left.refusal.message}"
        typer.echo(f"{left.gang} is {left.phase.value}: {why}")
    for violation in outcome.violations:
        typer.echo(f"refused by the engine's own check: {violation}")
    typer.echo(f"{'stable' if outcome.stable else 'NOT stable'} after {outcome.rounds} rounds")
