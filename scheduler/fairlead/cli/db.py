"""`fairlead db`: make, upgrade, check and rewrite the books' database."""

from __future__ import annotations

import typer

from fairlead.cli import render
from fairlead.cli.books_file import (
    DEFAULT_URL,
    DatabaseOption,
    FileOption,
    JsonOption,
    existing,
    shown,
    to_read,
    url_of,
)
from fairlead.errors import UnreadableInput

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback()
def root() -> None:
    """Create, upgrade, check and rewrite the database."""


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


@app.command()
def rewrite(database: DatabaseOption = DEFAULT_URL, file: FileOption = None, json: JsonOption = False) -> None:
    """Write journal, entries and postings into new tables, compare every row, and put them in the old ones' place."""
    from fairlead.store import engine as store
    from fairlead.store import entries
    from fairlead.store import rewrite as store_rewrite

    with to_read(url_of(database, file)) as engine:
        found = store.findings(engine)
        if found:
            raise UnreadableInput(f"{shown(engine)} is not as it should be: {'; '.join(found)}")
        with store.writing(engine) as connection:
            rows = store_rewrite.rewrite(connection)
            head = entries.head(connection)
        name = shown(engine)
    if json:
        render.as_json({"database": name, "rows": rows, "number": head.number, "hash": head.hash})
        return
    counts = ", ".join(f"{count} of {table}" for table, count in rows.items())
    typer.echo(f"{name}: rows written anew and the same: {counts}\nhead {head.number} {head.hash}")
