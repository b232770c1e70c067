"""`fairlead bench year`: how long a year of jobs takes in simulation."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from fairlead.bench.year import run
from fairlead.cli import render
from fairlead.errors import UnreadableInput

JOBS_MOST, NODES_MOST = 1_000_000, 10_000


def year(
    jobs: Annotated[int, typer.Option("--jobs", help="Jobs, spread evenly over 365 days.")] = 100_000,
    nodes: Annotated[int, typer.Option("--nodes", help="Nodes of 8 GPUs.")] = 96,
    seed: Annotated[int, typer.Option("--seed", help="Draws sizes, run times and arrivals.")] = 42,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Run a year of jobs through the engine on virtual time, and print how long it took."""
    if not 1 <= jobs <= JOBS_MOST:
        raise UnreadableInput(f"--jobs: {jobs} is outside 1..{JOBS_MOST}")
    if not 1 <= nodes <= NODES_MOST:
        raise UnreadableInput(f"--nodes: {nodes} is outside 1..{NODES_MOST}")
    if seed < 0:
        raise UnreadableInput(f"--seed: {seed} is negative")
    document = asdict(run(jobs, nodes, seed=seed))
    if json:
        render.as_json(document)
        return
    for key, value in document.items():
        typer.echo(f"{key} {value}")
