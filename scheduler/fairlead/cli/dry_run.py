"""`fairlead dry-run`: what a change of policy would do, asked of a running server or of a scenario file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fairlead.cli import render
from fairlead.cli.books_file import JsonOption
from fairlead.cli.client import DEFAULT_SERVER, Server
from fairlead.cli.verbs import ServerOption


def dry_run(
    change: Annotated[
        Path,
        typer.Argument(metavar="CHANGE.yaml", help="Queues, Pools, exceptions, switches; - reads stdin."),
    ],
    scenario: Annotated[
        Path | None, typer.Option("--scenario", help="Ask about the world of this scenario file, without a server.")
    ] = None,
    delete: Annotated[
        list[str] | None, typer.Option("--delete", help="Take this away too, as in Queue/team; may be repeated.")
    ] = None,
    server: ServerOption = DEFAULT_SERVER,
    as_json: JsonOption = False,
) -> None:
    """Exit 0: nothing that runs would be stopped for it; 1: something would. Changes nothing."""
    text = _text(change)
    found = (
        Server(server).call("POST", "/v1/dry-run", query={"delete": ",".join(delete or [])}, body=text.encode())
        if scenario is None
        else _offline(text, tuple(delete or ()), _text(scenario))
    )
    if as_json:
        render.as_json(found)
    else:
        _tell(found)
    raise typer.Exit(1 if found["stopped"] else 0)


def _offline(text: str, deleted: tuple[str, ...], world: str) -> dict[str, Any]:
    from fairlead.model.gang import GangId
    from fairlead.service.engine import Engine
    from fairlead.simulation import dry_run as trying
    from fairlead.simulation import gangjob_yaml, scenario_file

    scenario = scenario_file.read(world)
    now_ms = scenario_file.START_MS
    engine = Engine(scenario.rules)
    engine.take(scenario.facts())
    documents = gangjob_yaml.read(text, now_ms=now_ms, new_id=lambda _, name: GangId(name))
    changes = trying.changes_of(documents, deleted, engine.state, now_ms)
    return trying.dry_run(scenario.facts(), changes, scenario.rules, now_ms)


def _text(path: Path) -> str:
    from fairlead.errors import UnreadableInput

    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise UnreadableInput(f"{path}: {problem}") from problem


def _tell(found: dict[str, Any]) -> None:
    """Print what would be otherwise."""
    for one in found["stopped"]:
        by = f", for {one['by']}" if one["by"] else ""
        typer.echo(f"would be stopped: {one['job']}{by}: {one['message']}")
    for word, text in (
        ("spared", "would not be stopped any more"),
        ("placed", "would run"),
        ("displaced", "would not run"),
    ):
        for job in found[word]:
            typer.echo(f"{text}: {job}")
    for one in found["refused"]:
        typer.echo(f"would be told otherwise: {one['job']}: {one['reason']}: {one['message']}")
    for problem in found["problems"]:
        typer.echo(f"problem: {problem}")
    rows = []
    for queue in found["queues"]:
        was, now = queue["before"] or {}, queue["after"] or {}
        cells = [_change(was.get(word), now.get(word)) for word in ("guaranteed", "limit", "entitled")]
        rows.append((queue["queue"], *cells, (queue["after"] or was).get("used")))
    render.table(("QUEUE", "GUARANTEED", "LIMIT", "ENTITLED", "USED"), rows)
    if not found["settled"]:
        typer.echo("one of the worlds had not come to rest: later decisions are not in this")


def _change(was: object, now: object) -> str:
    shown = ["-" if value is None else str(value) for value in (was, now)]
    return shown[0] if shown[0] == shown[1] else " -> ".join(shown)
