"""`kubectl fairlead`: what waits and why, what runs where, and what it costs, with the rights of your kubeconfig.

Exit codes are those of `fairlead`: 2 wrong usage, 3 server away, 4 not found, 5 forbidden.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from fairlead.cli import render
from fairlead.errors import FairleadError, UnreadableInput
from fairlead.units import duration_ms
from fairlead_operator.kubectl.sources import HttpSource, KubeSource, Source

app = typer.Typer(
    name="kubectl fairlead",
    help="Gangs on exact GPUs: what waits and why, what runs where, and what it costs.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Namespace; default that of the context.")]
Everywhere = Annotated[bool, typer.Option("--all-namespaces", "-A", help="All namespaces.")]
Context = Annotated[str, typer.Option("--context", help="Context of the kubeconfig; default the current one.")]
Kubeconfig = Annotated[str, typer.Option("--kubeconfig", help="Kubeconfig file; default $KUBECONFIG.")]
Timeout = Annotated[str, typer.Option("--request-timeout", help="Deadline of one request, as in 10s.")]
Address = Annotated[str, typer.Option("--server", help="Read from this Fairlead HTTP API instead of the API server.")]
Output = Annotated[str, typer.Option("--output", "-o", help="table, json or name.")]
Json = Annotated[bool, typer.Option("--json", help="The same as -o json.")]


def _open(kubeconfig: str, context: str, timeout: str, server: str) -> tuple[Source, str]:
    """Return where to read from and the namespace that holds when none is given."""
    text = f"{timeout}s" if timeout.isdecimal() else timeout
    timeout_s = duration_ms(text, field="--request-timeout") / 1_000
    if timeout_s <= 0:
        raise UnreadableInput("--request-timeout: is zero; write for example 10s")
    if server:
        from fairlead.cli.client import Server

        return HttpSource(Server(server, timeout_s=timeout_s)), "default"
    from fairlead_operator.kubectl.access import find
    from fairlead_operator.kubectl.api_server import ApiServer

    config = find(kubeconfig, context)
    return KubeSource(ApiServer(config, timeout_s=timeout_s)), config.namespace


def _print(docs: Sequence[Any], output: str, json: bool, kind: str, draw: Callable[[Sequence[Any]], None]) -> None:
    """Print documents in the form asked for."""
    if json or output == "json":
        render.as_json(docs)
    elif output == "name":
        for doc in docs:
            typer.echo(f"{kind}/{_name(doc)}")
    elif output == "table":
        draw(docs)
    else:
        raise UnreadableInput(f"--output: {output!r} is not one of: table, json, name")


def _name(doc: Mapping[str, Any]) -> str:
    return str(doc["queue"] if "gangs" in doc and "queue" in doc else doc["name"])


@app.command()
def ls(
    namespace: Namespace = None,
    everywhere: Everywhere = False,
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    timeout: Timeout = "10s",
    server: Address = "",
    output: Output = "table",
    json: Json = False,
) -> None:
    """List gangs: state, place in the queue, reason, start."""
    source, default = _open(kubeconfig, context, timeout, server)
    docs = source.gangs(None if everywhere else namespace or default)
    _print(docs, output, json, "gangjob.fairlead.dev", lambda found: render.gangs(found, source.now_ms))


@app.command()
def explain(
    gang: Annotated[str, typer.Argument(help="The gang: NAME, or NAMESPACE/NAME.")],
    namespace: Namespace = None,
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    timeout: Timeout = "10s",
    server: Address = "",
    output: Output = "table",
    json: Json = False,
) -> None:
    """Say why a gang waits, or where it runs and what it costs."""
    parts = gang.split("/")
    if len(parts) > 2 or not all(parts):
        raise UnreadableInput(f"{gang!r} names no gang; write NAME or NAMESPACE/NAME")
    source, default = _open(kubeconfig, context, timeout, server)
    doc = source.gang(parts[0] if len(parts) == 2 else namespace or default, parts[-1])
    if json or output == "json":
        render.as_json(doc)
    else:
        _print([doc], output, False, "gangjob.fairlead.dev", lambda found: render.explain(found[0], source.now_ms))


@app.command()
def queues(
    namespace: Namespace = None,
    everywhere: Everywhere = False,
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    timeout: Timeout = "10s",
    server: Address = "",
    output: Output = "table",
    json: Json = False,
) -> None:
    """List queues, or what your namespace may see of them; -o wide has a line for each resource with a quota."""
    source, default = _open(kubeconfig, context, timeout, server)
    docs = source.queues(None if everywhere else namespace or default)
    wide = output == "wide"
    _print(docs, "table" if wide else output, json, "queue.fairlead.dev", render.quotas if wide else render.queues)


@app.command()
def nodes(
    pools: Annotated[bool, typer.Option("--pools", help="One line a pool instead.")] = False,
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    timeout: Timeout = "10s",
    server: Address = "",
    output: Output = "table",
    json: Json = False,
) -> None:
    """List nodes and their devices by state; for the platform team."""
    source, _ = _open(kubeconfig, context, timeout, server)
    if pools:
        _print(source.pools(), output, json, "pool.fairlead.dev", render.pools)
    else:
        _print(source.nodes(), output, json, "node", render.nodes)


@app.command()
def usage(
    namespace: Namespace = None,
    everywhere: Everywhere = False,
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    timeout: Timeout = "10s",
    server: Address = "",
    output: Output = "table",
    json: Json = False,
) -> None:
    """List held and lost GPU-hours by queue."""
    source, default = _open(kubeconfig, context, timeout, server)
    docs = source.usage(None if everywhere else namespace or default)
    _print(docs, output, json, "queue.fairlead.dev", render.usage)


def run() -> None:
    """Run the plugin and end the process; a failure of the outside is one sentence and an exit code."""
    try:
        app(prog_name="kubectl fairlead")
    except FairleadError as problem:
        print(f"kubectl fairlead: {problem}", file=sys.stderr)
        raise SystemExit(problem.exit_code) from None


if __name__ == "__main__":
    run()
