"""The verbs that talk to a server: they fetch documents and print them, and compute nothing of their own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fairlead.cli import render
from fairlead.cli.client import DEFAULT_SERVER, Server
from fairlead.clock import now_ms
from fairlead.errors import Unreachable, UnreadableInput

ServerOption = Annotated[str, typer.Option("--server", envvar="FAIRLEAD_SERVER", help="Address of the HTTP API.")]
NamespaceOption = Annotated[str, typer.Option("--namespace", "-n", help="Namespace of the GangJob.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON documents.")]


def ls(
    server: ServerOption = DEFAULT_SERVER,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Only this namespace.")] = None,
    queue: Annotated[str | None, typer.Option("--queue", "-q", help="Only this queue.")] = None,
    phase: Annotated[str | None, typer.Option("--phase", help="Only gangs in this phase, as in Pending.")] = None,
    json: JsonOption = False,
) -> None:
    """Print one line a gang."""
    items, as_of_ms = Server(server).dated("/v1/gangs", namespace=namespace, queue=queue, phase=phase)
    if json:
        render.as_json(items)
    else:
        render.gangs(items, as_of_ms)


def explain(
    gang: Annotated[str, typer.Argument(help="The gang: NAME, or NAMESPACE/NAME.")],
    server: ServerOption = DEFAULT_SERVER,
    namespace: NamespaceOption = "default",
    json: JsonOption = False,
) -> None:
    """Print all that is known of one gang."""
    answer = Server(server).call("GET", "/v1/gangs/" + full_name(gang, namespace))
    as_of_ms = answer.pop("as_of_ms", None) or now_ms()
    if json:
        render.as_json(answer)
    else:
        render.explain(_gang(answer), as_of_ms)


def queues(
    server: ServerOption = DEFAULT_SERVER,
    wide: Annotated[bool, typer.Option("--wide", help="One line for each resource with a quota instead.")] = False,
    json: JsonOption = False,
) -> None:
    """Print one line a queue."""
    _show(server, "/v1/queues", json, render.quotas if wide else render.queues)


def nodes(
    server: ServerOption = DEFAULT_SERVER,
    pools: Annotated[bool, typer.Option("--pools", help="One line a pool instead.")] = False,
    json: JsonOption = False,
) -> None:
    """Print one line a node, or a pool, and below them how broken up the free GPUs are."""
    if pools:
        _show(server, "/v1/pools", json, render.pools)
    else:
        _show(server, "/v1/nodes", json, render.nodes)
    if not json:
        answer: Any = Server(server).call("GET", "/v1/fragmentation")
        render.fragmentation(answer)


def mig(server: ServerOption = DEFAULT_SERVER, json: JsonOption = False) -> None:
    """Propose how to cut idle GPUs anew for the MIG instances that wait."""
    answer: Any = Server(server).call("GET", "/v1/mig")
    answer.pop("as_of_ms", None)
    if json:
        render.as_json(answer)
    else:
        render.recuts(answer)


def usage(server: ServerOption = DEFAULT_SERVER, json: JsonOption = False) -> None:
    """Print held and lost GPU-hours by queue."""
    _show(server, "/v1/usage", json, render.usage)


def submit(
    file: Annotated[Path, typer.Argument(help="YAML or JSON documents; - reads standard input.")],
    server: ServerOption = DEFAULT_SERVER,
    namespace: NamespaceOption = "default",
    json: JsonOption = False,
) -> None:
    """Hand in all documents of a file, or none of them."""
    try:
        body = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as problem:
        raise UnreadableInput(f"cannot read {file}: {problem.strerror}") from problem
    answer = Server(server).call("POST", "/v1/gangs", query={"namespace": namespace}, body=body)
    if json:
        render.as_json(answer)
    else:
        for name in answer.get("accepted", []):
            typer.echo(f"accepted {name}")


def delete(
    gang: Annotated[str, typer.Argument(help="The gang: NAME, or NAMESPACE/NAME.")],
    server: ServerOption = DEFAULT_SERVER,
    namespace: NamespaceOption = "default",
    json: JsonOption = False,
) -> None:
    """Ask for a gang's end; its devices are free once its pods have ended."""
    answer = Server(server).call("DELETE", "/v1/gangs/" + full_name(gang, namespace))
    if json:
        render.as_json(answer)
    else:
        typer.echo(f"deleting {answer.get('deleted')}")


def full_name(gang: str, namespace: str) -> str:
    """Return ``namespace/name`` of what was typed. Raises UnreadableInput."""
    parts = gang.split("/")
    if len(parts) > 2 or not all(parts):
        raise UnreadableInput(f"{gang!r} names no gang; write NAME or NAMESPACE/NAME")
    return gang if len(parts) == 2 else f"{namespace}/{gang}"


def _show(server: str, path: str, json: bool, draw: Any) -> None:
    items = Server(server).items(path)
    if json:
        render.as_json(items)
    else:
        draw(items)


def _gang(answer: dict[str, Any]) -> Any:
    missing = [name for name in ("namespace", "name", "phase", "allocation") if name not in answer]
    if missing:
        raise Unreachable(f"the server's answer lacks {', '.join(missing)}; is it a Fairlead server?")
    return answer
