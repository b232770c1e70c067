"""`fairlead bench starvation`: one large gang in a stream of single GPUs that never ends."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from fairlead.errors import UnreadableInput


def starvation(
    seeds: Annotated[int, typer.Option("--seeds", help="Seeds to run, from 1.")] = 100,
    undeclared: Annotated[
        int, typer.Option("--undeclared", help="Percent of the stream that declares no duration and may be stopped.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run a 64-GPU gang in a stream of 1-GPU jobs of its own queue, with promises and without, once a seed.

    Exit code 1 where it did not start by its promised time in every seed.
    """
    if seeds < 1:
        raise UnreadableInput(f"--seeds: {seeds} seeds show nothing; write a positive number")
    if not 0 <= undeclared <= 100:
        raise UnreadableInput(f"--undeclared: {undeclared} is no percentage; write 0 to 100")
    from fairlead.bench.starvation import study

    found = study(range(1, seeds + 1), undeclared_percent=undeclared)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        for name, value in found.items():
            typer.echo(f"{name:<30} {value}")
    if found["in_time"] != seeds:
        raise typer.Exit(1)
