"""`fairlead demo`: the story of `fairlead.simulation.story`, printed for people or as data."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from fairlead.cli import render
from fairlead.units import gpu_hours_text, pace_text


def demo(
    fleet: Annotated[str, typer.Option("--fleet", help="hgx-h100, dgx-a100 or pcie-l40s.")] = "hgx-h100",
    json: Annotated[bool, typer.Option("--json", help="Print the story as data.")] = False,
) -> None:
    """Play the story and verify its books; exit 7 where they do not balance."""
    from fairlead.simulation.fleet_books import tell_with_books

    data = tell_with_books(fleet)
    if json:
        render.as_json(data)
    else:
        _print(data)
    if not data["books"]["balance"]:
        raise typer.Exit(7)


def _print(data: Mapping[str, Any]) -> None:
    fleet = data["fleet"]
    _head(f"A fleet in memory: {fleet['name']}, {fleet['nodes']} nodes, {fleet['gpus']} GPUs")
    _say("Two tenants, research and vision, are promised half of it each and may borrow what the other leaves idle.")
    _head("Jobs, handed in as GangJob YAML")
    _jobs(data)
    _head("Where each gang went")
    _placements(data)
    _head("One job waits, and says why")
    render.explain(data["waiting"], data["waiting_ms"])
    _head("A reclaim: vision asks for what it is promised")
    _reclaim(data["reclaim"])
    _head("A node dies")
    _failure(data["node_failure"])
    _head("Usage, from the books")
    _usage(data)
    _head("The books")
    _books(data["books"])


def _jobs(data: Mapping[str, Any]) -> None:
    head = ("GANGJOB", "QUEUE", "PODSxGPUS", "WITHIN", "CLASS", "AT")
    rows = [
        (
            f"{job['namespace']}/{job['name']}",
            job["queue"],
            job["shape"],
            job["within"],
            job["service_class"],
            _at(job["submitted_ms"]),
        )
        for job in data["jobs"]
    ]
    render.table(head, rows)
    _say(f"Beside them {data['background_jobs']} small jobs come and go, with the run times of a public trace.")


def _placements(data: Mapping[str, Any]) -> None:
    for placed in data["placements"]:
        pace = placed["pace_bytes_per_s"]
        link = f"slowest link {pace_text(pace)}" if pace else "no link to cross"
        again = f", attempt {placed['attempt']}" if placed["attempt"] > 1 else ""
        where = f"{placed['level']} {placed['domain']}".strip()
        _say(f"{_at(placed['placed_ms'])}  {placed['gang']}{again}: within {where}, {link}, {placed['tier']}")
        for on_node in placed["nodes"]:
            pods = ", ".join(f"{pod} on {devices}" for pod, devices in on_node["pods"].items())
            _say(f"         {on_node['node']}: {pods}")


def _reclaim(reclaim: Mapping[str, Any]) -> None:
    asked, freed = _at(reclaim["asked_ms"]), _at(reclaim["last_released_ms"])
    _say(f"{asked}  {reclaim['for']} asks for {reclaim['gpus']} GPUs in one rack. Its queue is below its guarantee,")
    _say("         so it may take back what was lent; no priority is involved.")
    for victim in reclaim["victims"]:
        nodes = ", ".join(on_node["node"] for on_node in victim["allocation"]["nodes"])
        again = f"it ran again at {_at(victim['ran_again_ms'])}" if victim["ran_again_ms"] else "it waits"
        _say(f"         {victim['gang']} ({victim['tier']}, on {nodes}) is stopped; {again}.")
    _say(f"{freed}  {reclaim['freed_gpus']} GPUs are freed; with what was idle, rack {reclaim['domain']} is whole.")
    _say(f"{_at(reclaim['placed_ms'])}  {reclaim['for']} is placed.")


def _failure(failure: Mapping[str, Any]) -> None:
    before, after = _list(failure["nodes_before"]), _list(failure["nodes_after"])
    _say(f"{_at(failure['failed_ms'])}  {failure['node']} stops answering. {failure['gang']} ran on {before}.")
    _say(f"{_at(failure['restarted_ms'])}  It restarts whole as attempt {failure['attempt_after']} on {after}")
    _say(f"         (slowest link {pace_text(failure['pace_bytes_per_s'])}). The dead node's GPUs are booked as down.")


def _usage(data: Mapping[str, Any]) -> None:
    head = ("TENANT", "IN QUOTA", "BORROWED", "GPU-HOURS")
    rows = [
        (
            line["tenant"],
            gpu_hours_text(line["in_quota_gpu_ms"]),
            gpu_hours_text(line["borrowed_gpu_ms"]),
            gpu_hours_text(line["gpu_ms"]),
        )
        for line in data["usage"]
    ]
    render.table(head, rows, right=frozenset(head[1:]))


def _books(books: Mapping[str, Any]) -> None:
    if books["balance"]:
        _say(f"books balance: {books['summary']}")
    else:
        _say(f"BOOKS DO NOT BALANCE: {books['summary']}")


def _head(text: str) -> None:
    line = f"\n== {text}"
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.text import Text

        Console().print(Text(line, style="bold cyan"), soft_wrap=True)
    else:
        print(line)


def _say(text: str) -> None:
    print(text)


def _list(names: list[str]) -> str:
    return " and ".join(names)


def _at(at_ms: int | None) -> str:
    return "--:--:--" if at_ms is None else datetime.fromtimestamp(at_ms / 1_000, UTC).strftime("%H:%M:%S")
