"""`fairlead bench openb`: the public packing protocol, by any of the published policies or by the product's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fairlead.bench.openb import ARRIVED_PERCENT_MAX, sweep
from fairlead.bench.openb_files import read_nodes, read_pods
from fairlead.bench.published_policies import POLICIES
from fairlead.cli import render
from fairlead.errors import UnreadableInput

SEEDS_MAX = 1_000


def openb(
    nodes: Annotated[Path, typer.Option("--nodes", help="CSV: sn, cpu_milli, memory_mib, gpu, model.")],
    pods: Annotated[
        Path, typer.Option("--pods", help="CSV: name, cpu_milli, memory_mib, num_gpu, gpu_milli[, gpu_spec].")
    ],
    policy: Annotated[str, typer.Option("--policy", help=f"One of {', '.join(POLICIES)}.")] = "default",
    seeds: Annotated[str, typer.Option("--seeds", help="Numbers and ranges, as in 42-51 or 1,2,7-9.")] = "42-51",
    arrived: Annotated[
        str, typer.Option("--arrived", help="At which share of the fleet's GPUs asked for, in percent: 100,130.")
    ] = "100",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Pack a list of pods onto nodes, once a seed, and print how much GPU stays unallocated."""
    factory = POLICIES.get(policy)
    if factory is None:
        raise UnreadableInput(f"--policy {policy!r} is unknown; one of {', '.join(POLICIES)}")
    numbers = numbers_of(seeds, "--seeds", least=0, most=2**31)
    percents = numbers_of(arrived, "--arrived", least=1, most=ARRIVED_PERCENT_MAX)
    result = sweep(read_nodes(nodes), read_pods(pods), factory, seeds=numbers, arrived=percents)
    document = result.document(policy)
    if json:
        render.as_json(document)
        return
    typer.echo(f"policy {policy}; {len(numbers)} seeds ({seeds}); ties: {document['tie_break']}")
    points: Any = document["arrived"]
    for percent, found in points.items():
        left = found["unallocated_percent"]
        typer.echo(f"at {percent} % arrived: {left['mean']:.2f} % of GPU unallocated (sd {left['sd']:.2f})")
    typer.echo(f"{document['seconds_per_run']} s a run")


def numbers_of(text: str, option: str, *, least: int, most: int) -> list[int]:
    """Return the numbers of a list such as ``1,2,7-9``, each once, in the order given.

    Raises
    ------
    UnreadableInput
        The text names the option and the part that is wrong.
    """
    found: dict[int, None] = {}
    for part in text.split(","):
        ends = [end.strip() for end in part.split("-")]
        if len(ends) > 2 or not all(end.isascii() and end.isdigit() and len(end) <= 10 for end in ends):
            raise UnreadableInput(f"{option} {text!r}: {part.strip()!r} is no number or range; write 42-51 or 1,2,7-9")
        low, high = int(ends[0]), int(ends[-1])
        if not least <= low <= high <= most:
            raise UnreadableInput(f"{option} {text!r}: {part.strip()} is not within {least} to {most}, low to high")
        if len(found) + high - low >= SEEDS_MAX:
            raise UnreadableInput(f"{option} {text!r}: more than {SEEDS_MAX} numbers")
        found.update(dict.fromkeys(range(low, high + 1)))
    return list(found)
