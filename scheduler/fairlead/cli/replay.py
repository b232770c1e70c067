"""`fairlead replay`: decide again what the journal says was decided."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from fairlead.cli.books_file import DEFAULT_URL, DatabaseOption, FileOption, JsonOption, to_read, url_of

if TYPE_CHECKING:
    from fairlead.model.codec import Record
    from fairlead.store.engine import Engine


def replay(database: DatabaseOption = DEFAULT_URL, file: FileOption = None, as_json: JsonOption = False) -> None:
    """Exit 0: every decision comes out the same, byte for byte; 1: one does not, and the first of each run is named."""
    from fairlead.service.replay import referenced
    from fairlead.service.replay import replay as decide_again

    with to_read(url_of(database, file)) as engine:
        result = decide_again(_rows(engine), referenced(_rows(engine)))
    if as_json:
        data = {
            "runs": result.runs,
            "decisions": result.decisions,
            "differing": result.differing,
            "differences": list(result.differences),
        }
        typer.echo(json.dumps(data, indent=2))
    else:
        for text in result.differences:
            typer.echo(text)
        typer.echo(f"{result.decisions} decisions in {result.runs} runs; {result.differing} runs differ")
    raise typer.Exit(1 if result.differing else 0)


def _rows(engine: Engine) -> Iterator[tuple[str, Record]]:
    """Yield the journal in order."""
    from fairlead.store import engine as database
    from fairlead.store import journal
    from fairlead.store.journal import record_of

    with database.reading(engine) as connection:
        for row in journal.read(connection):
            yield row.id, record_of(row)
