"""Groups of commands that import a command's module when the command is asked for, not before."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import typer
from typer.core import TyperGroup

Table = Mapping[str, tuple[str, str, str]]
"""name -> (module, a function or a Typer application in it, help). Order is that of the help page."""


def lazy_group(table: Table) -> type[TyperGroup]:
    """Return a group over `table`, for the `cls` of a Typer application."""

    class LazyGroup(TyperGroup):
        """The commands of one table."""

        def list_commands(self, ctx: Any) -> list[str]:
            """Return the names without importing anything."""
            return list(table)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            """Import one command; None for an unknown name."""
            entry = table.get(cmd_name)
            return None if entry is None else _load(cmd_name, *entry)

        def format_commands(self, ctx: Any, formatter: Any) -> None:
            """Write the list of commands from the table."""
            with formatter.section("Commands"):
                formatter.write_dl([(name, entry[2]) for name, entry in table.items()])

    return LazyGroup


def _load(name: str, module: str, attribute: str, help_text: str) -> Any:
    target: typer.Typer | Callable[..., None] = getattr(importlib.import_module(module), attribute)
    if isinstance(target, typer.Typer):
        loaded: Any = typer.main.get_group(target)
        loaded.help = loaded.help or help_text
    else:
        single = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        single.command(help=help_text)(target)
        loaded = typer.main.get_command(single)
    loaded.name = name
    return loaded
