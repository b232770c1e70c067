"""`fairlead bench reclaim`: the time to decide who makes room for half of a full fleet."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from fairlead.cli.bench_scale import sizes_of
from fairlead.errors import UnreadableInput
from fairlead.model.gang_rules import MEMBERS_MAX


def reclaim(
    nodes: Annotated[str, typer.Option("--nodes", help="Fleet sizes, with commas between them.")] = "500,5000",
    runs: Annotated[int, typer.Option("--runs", help="Decisions a size; the median counts.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Decide about one gang of N/2 pods of 8 GPUs on N nodes full of jobs of one GPU, by right of its guarantee."""
    sizes = sizes_of(nodes)
    if min(sizes) < 2:
        raise UnreadableInput("--nodes: half of one node is no node; write numbers from 2")
    if max(sizes) > 2 * MEMBERS_MAX:
        raise UnreadableInput(f"--nodes: half of {max(sizes)} pods are no gang; write numbers up to {2 * MEMBERS_MAX}")
    if runs < 1:
        raise UnreadableInput(f"--runs: {runs} runs have no median; write a positive number")
    from dataclasses import asdict

    from fairlead.bench import reclaim as bench

    rows = [asdict(bench.run(size, runs=runs)) for size in sizes]
    if as_json:
        typer.echo(json.dumps({"blast_radius": "off", "rows": rows}, indent=2))
        return
    typer.echo("blast radius off")
    heads = ("nodes", "gang_pods", "victims", "runs", "seconds", "seconds_max", "first_seconds")
    typer.echo("  ".join(heads))
    for row in rows:
        typer.echo("  ".join(str(row[head]).rjust(len(head)) for head in heads))
