"""`fairlead`: one verb a module, imported when it is used, so that `--help` is there at once.

Exit codes: 0 done or yes, 1 no or findings, 2 wrong usage or unreadable input, 3 server away, 4 not found, 5 forbidden,
6 limit exceeded, 7 the books do not verify.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from fairlead.cli.lazy import lazy_group
from fairlead.errors import FairleadError

COMMANDS: dict[str, tuple[str, str, str]] = {
    "demo": ("fairlead.cli.demo", "demo", "Tell a story on a fleet in memory, in virtual time, and end."),
    "up": ("fairlead.cli.up", "up", "Serve a fleet in memory with the HTTP API on the loopback address."),
    "fleets": ("fairlead.cli.fleets", "fleets", "List the built-in fleets."),
    "submit": ("fairlead.cli.verbs", "submit", "Hand in GangJobs from a YAML file."),
    "delete": ("fairlead.cli.verbs", "delete", "Ask for a gang's end."),
    "ls": ("fairlead.cli.verbs", "ls", "List gangs: state, place in the queue, reason, start."),
    "explain": ("fairlead.cli.verbs", "explain", "Say why a gang waits, or where it runs and what it costs."),
    "queues": ("fairlead.cli.verbs", "queues", "List queues: guaranteed, limit, used, borrowed, pending."),
    "nodes": ("fairlead.cli.verbs", "nodes", "List nodes and their devices by state."),
    "mig": ("fairlead.cli.verbs", "mig", "Propose how to cut idle GPUs anew for MIG instances that wait."),
    "usage": ("fairlead.cli.verbs", "usage", "List held and lost GPU-hours by queue."),
    "topology": ("fairlead.cli.topology", "app", "Look at machines and fabrics, and ask how devices hang together."),
    "ledger": ("fairlead.cli.ledger", "app", "Verify the books, show their entries, adjust them, and close periods."),
    "budget": ("fairlead.cli.budget", "app", "Say what is left of budgets, and until when it lasts."),
    "price": ("fairlead.cli.price", "app", "List, set and check what device time costs."),
    "report": ("fairlead.cli.report", "app", "Answer questions from the books."),
    "replay": ("fairlead.cli.replay", "replay", "Decide again what the journal says was decided, and compare."),
    "dry-run": ("fairlead.cli.dry_run", "dry_run", "Say what a change of policy would stop, start and refuse."),
    "run": ("fairlead.cli.run_file", "run", "Run a scenario file through the engine until it is stable."),
    "bench": ("fairlead.cli.bench", "app", "Measure: packing, scale, and what else has a figure to keep."),
    "db": ("fairlead.cli.db", "app", "Create, upgrade and check the database."),
}
"""name -> (module, a function or a Typer application in it, help). Order is that of the help page."""


app = typer.Typer(
    cls=lazy_group(COMMANDS),
    name="fairlead",
    help="Gangs on exact GPUs, with a reason for every wait and books that balance.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"fairlead {version('fairlead')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Carry the options that stand before a verb."""


def run() -> None:
    """Run the command line and end the process; a failure of the outside is one sentence and an exit code."""
    try:
        app()
    except FairleadError as problem:
        print(f"fairlead: {problem}", file=sys.stderr)
        raise SystemExit(problem.exit_code) from None


if __name__ == "__main__":
    run()
