"""`fairlead bench waste`: work that preemption throws away, against the newest first."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from fairlead.errors import UnreadableInput


def waste(
    seeds: Annotated[int, typer.Option("--seeds", help="Seeds, from 0.")] = 20,
    worlds: Annotated[str, typer.Option("--worlds", help="Which, with commas between them.")] = (
        "mixed,often,seldom,never"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Play days with the engine's own victims and with the newest first, and compare what is lost."""
    from dataclasses import asdict

    from fairlead.bench import waste as bench

    names = [name for name in worlds.split(",") if name]
    unknown = [name for name in names if name not in bench.WORLDS]
    if unknown or not names:
        raise UnreadableInput(f"--worlds: {worlds!r}; use some of: {', '.join(bench.WORLDS)}")
    if not 1 <= seeds <= 10_000:
        raise UnreadableInput(f"--seeds: {seeds} is outside 1..10000")
    rows = {name: [bench.run(name, seed) for seed in range(seeds)] for name in names}
    sums = [bench.summary(rows[name]) for name in names]
    if as_json:
        every = [asdict(row) for name in names for row in rows[name]]
        typer.echo(json.dumps({"worlds": [asdict(one) for one in sums], "rows": every}, indent=2))
        return
    heads = ("world", "seeds", "median_ratio", "worst_ratio", "total_ratio")
    typer.echo("  ".join(heads))
    for one in sums:
        typer.echo("  ".join(str(asdict(one)[head]).rjust(len(head)) for head in heads))
