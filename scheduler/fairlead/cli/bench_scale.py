"""`fairlead bench scale`: decisions a second on fleets of several sizes, and the curves on which schedulers break."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from fairlead.errors import UnreadableInput


def scale(
    nodes: Annotated[str, typer.Option("--nodes", help="Fleet sizes, with commas between them.")] = "1000,5000,10000",
    gangs: Annotated[int, typer.Option("--gangs", help="Gangs that wait when the clock starts.")] = 10_000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of gangs, places and ends.")] = 42,
    preemption: Annotated[bool, typer.Option("--preemption", help="Let gangs take from others.")] = False,
    peers: Annotated[
        bool, typer.Option("--peers", help="Also the worlds in which other schedulers are slowest.")
    ] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Also where a decision's time goes, by stage.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Decide about the same backlog on fleets of several sizes. Each size runs in a process of its own."""
    sizes = sizes_of(nodes)
    if gangs < 1:
        raise UnreadableInput(f"--gangs: {gangs} is no backlog; write a positive number")
    rows: list[dict[str, Any]] = [_apart("rows", size, gangs, seed, preemption, profile) for size in sizes]
    answer: dict[str, Any] = {"seed": seed, "preemption": preemption, "rows": rows}
    if len(rows) > 1:
        first, last = rows[0], rows[-1]
        answer["flat"] = round(last["decisions_per_second"] / first["decisions_per_second"], 3)
        alike = _apart("rows", sizes[0], max(1, gangs * sizes[0] // sizes[-1]), seed, preemption, False)
        answer["same_load"] = alike
        answer["flat_same_load"] = round(last["decisions_per_second"] / alike["decisions_per_second"], 3)
    if peers:
        answer |= _apart("peers", 0, 0, seed, preemption, profile)
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
        return
    _table(answer)


def sizes_of(text: str) -> list[int]:
    """Return fleet sizes with commas between them; raises UnreadableInput where they are none."""
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        raise UnreadableInput(f"--nodes: {text!r} is no list of numbers; write for example 1000,5000") from None
    if not sizes or min(sizes) < 1:
        raise UnreadableInput(f"--nodes: {text!r} has a fleet of no nodes; write positive numbers")
    return sizes


def _apart(what: str, *args: Any) -> dict[str, Any]:
    """Run in a process of its own, so that one size's memory is not counted for the next."""
    import multiprocessing

    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (what, *args))


def _measure(what: str, nodes: int, gangs: int, seed: int, preemption: bool, profile: bool) -> dict[str, Any]:
    from fairlead.bench import scale as bench
    from fairlead.bench import scale_peers
    from fairlead.model.rules import Rules

    if what == "peers":
        return scale_peers.run()
    row = asdict(
        bench.run(
            nodes, gangs, seed=seed, rules=Rules(preemption_on=preemption, reclaim_on=preemption), profiled=profile
        )
    )
    if not profile:
        del row["profile"]
    return row


def _table(answer: dict[str, Any]) -> None:
    heads = ("nodes", "gangs", "decisions_per_second", "new_gang_ms_p50", "new_gang_ms_p99", "cycle_ms_p99", "rss_mib")
    typer.echo("  ".join(heads))
    for row in answer["rows"]:
        typer.echo("  ".join(str(row[head]).rjust(len(head)) for head in heads))
        for stage, spent in sorted(row.get("profile", {}).items(), key=lambda item: -item[1]):
            typer.echo(f"    {stage:<14} {spent:8.4f} ms a decision")
    for key in ("flat", "flat_same_load", "full_cycle_s", "refusal_s", "topology_search_ms"):
        if key in answer:
            typer.echo(f"{key}: {answer[key]}")
