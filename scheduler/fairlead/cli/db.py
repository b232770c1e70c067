"""`fairlead db`: make, upgrade and check the books' database."""

from __future__ import annotations

import typer

from fairlead.cli import render
from fairlead.cli.books_file import DEFAULT_URL, DatabaseOption, FileOption, JsonOption, existing, shown, url_of

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback()
def root() -> None:
    """Create, upgrade and check the database."""


@app.command()
def upgrade(database: DatabaseOption = DEFAULT_URL, file: FileOption = None) -> None:
    """Bring the schema to this version; makes a SQLite file that is not there."""
    from fairlead.store import engine as store

    engine = store.connect(url_of(database, file))
    try:
        before, _ = store.versions(engine)
        store.upgrade(engine)
        after, _ = store.versions(engine)
        how = "was already" if before == after else f"from {before or 'nothing'} to"
        typer.echo(f"{shown(engine)}: {how} version {after}")
    finally:
        engine.dispose()


@app.command()
def check(database: DatabaseOption = DEFAULT_URL, file: FileOption = None, json: JsonOption = False) -> None:
    """Compare tables and triggers with what this version needs; exit 1 with findings."""
    from fairlead.store import engine as store

    engine = existing(url_of(database, file))
    try:
        found = store.findings(engine)
        if json:
            render.as_json({"database": shown(engine), "findings": list(found)})
        else:
            typer.echo("\n".join(found) or f"{shown(engine)}: as it should be")
    finally:
        engine.dispose()
    if found:
        raise typer.Exit(1)
