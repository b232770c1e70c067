"""`fairlead`: one verb a module, imported when it is used, so that `--help` is there at once.

Exit codes: 0 done or yes, 1 no or findings, 2 wrong usage or unreadable input, 3 server away, 4 not found, 5 forbidden,
6 limit exceeded, 7 the books do not verify.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

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
    "usage": ("fairlead.cli.verbs", "usage", "List held and lost GPU-hours by queue."),
    "topology": ("fairlead.cli.topology", "app", "Look at machines and fabrics, and ask how devices hang together."),
    "ledger": ("fairlead.cli.ledger", "app", "Verify the books and show their entries."),
    "report": ("fairlead.cli.report", "app", "Answer questions from the books."),
    "replay": ("fairlead.cli.replay", "replay", "Decide again what the journal says was decided, and compare."),
    "db": ("fairlead.cli.db", "app", "Create, upgrade and check the database."),
}
"""name -> (module, a function or a Typer application in it, help). Order is that of the help page."""


class LazyGroup(TyperGroup):
    """A group that imports a command's module when the command is asked for, not before."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names without importing anything."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import one command; None for an unknown name."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, attribute, help_text = entry
        target: typer.Typer | Callable[..., None] = getattr(importlib.import_module(module), attribute)
        if isinstance(target, typer.Typer):
            loaded: Any = typer.main.get_group(target)
            loaded.help = loaded.help or help_text
        else:
            single = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
            single.command(help=help_text)(target)
            loaded = typer.main.get_command(single)
        loaded.name = cmd_name
        return loaded

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[2]) for name, entry in COMMANDS.items()])


app = typer.Typer(
    cls=LazyGroup,
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
