"""`fairlead bench replay`: a published trace of jobs by a published rule, or by the product's own policy."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fairlead.bench.muri_trace import read_trace
from fairlead.bench.replay import POLICIES, Cluster
from fairlead.bench.replay import replay as run_replay
from fairlead.cli import render
from fairlead.errors import UnreadableInput
from fairlead.world.fleet import MAX_DEVICES

NODES_MAX = 10_000


def replay(
    trace: Annotated[
        Path, typer.Option("--trace", help="CSV: job_id, num_gpu, submit_time, iterations, model_name, iteration_time.")
    ],
    cluster: Annotated[str, typer.Option("--cluster", help="Nodes x GPUs of each.")] = "8x8",
    policy: Annotated[str, typer.Option("--policy", help=f"One of {', '.join(POLICIES)}.")] = "default",
    overhead: Annotated[str, typer.Option("--overhead", help="What a start costs: paper or none.")] = "paper",
    durations: Annotated[
        str, typer.Option("--durations", help="Whether the default policy is told how long jobs run: known or unknown.")
    ] = "known",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Run every job of a trace to its end on virtual time, and print how long jobs took."""
    _one_of("--policy", policy, POLICIES)
    _one_of("--overhead", overhead, ("paper", "none"))
    _one_of("--durations", durations, ("known", "unknown"))
    if policy != "default" and durations == "unknown":
        raise UnreadableInput(f"--durations unknown: {policy} sorts by what is left of them; use --policy default")
    size = cluster_of(cluster)
    result = run_replay(
        read_trace(trace), size, policy=policy, overhead=overhead == "paper", known=durations == "known"
    )
    document = {
        "trace": trace.name,
        "nodes": size.nodes,
        "gpus_per_node": size.gpus,
        "policy": policy,
        "overhead": overhead,
        "durations": durations,
        **asdict(result),
    }
    if json:
        render.as_json(document)
        return
    for key, value in document.items():
        typer.echo(f"{key} {value}")


def cluster_of(text: str) -> Cluster:
    """Return what ``8x8`` says.

    Raises
    ------
    UnreadableInput
        The text names the option.
    """
    parts = text.split("x")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) <= 6 for part in parts):
        raise UnreadableInput(f"--cluster {text!r}: write nodes x GPUs of each, as in 8x8")
    nodes, gpus = int(parts[0]), int(parts[1])
    if not (1 <= nodes <= NODES_MAX and 1 <= gpus <= MAX_DEVICES):
        raise UnreadableInput(f"--cluster {text!r}: 1 to {NODES_MAX} nodes, 1 to {MAX_DEVICES} GPUs of each")
    return Cluster(nodes=nodes, gpus=gpus)


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UnreadableInput(f"{option} {value!r} is unknown; one of {', '.join(allowed)}")
