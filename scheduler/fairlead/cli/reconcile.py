"""`fairlead ledger reconcile`: what is open in the books against what the cluster says is bound."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fairlead.cli import render
from fairlead.cli.books_file import (
    DEFAULT_URL,
    ActorOption,
    DatabaseOption,
    FileOption,
    JsonOption,
    decided,
    to_read,
    url_of,
)
from fairlead.clock import now_ms
from fairlead.errors import NotFound, UnreadableInput

if TYPE_CHECKING:
    from fairlead.service.reconcile import Comparison

WORDS = {
    "only_books": "open in the books, no bound pod",
    "only_scheduler": "bound pod, not open in the books",
    "claims_of_nobody": "claim with devices, no bound pod",
    "holds_without_claim": "bound pod, no claim with devices",
}


def reconcile(
    objects: Annotated[
        Path, typer.Option("--objects", help="JSON list of the cluster's pods and claims, - for standard input.")
    ],
    mend: Annotated[bool, typer.Option("--mend", help="End in the books what has ended unseen.")] = False,
    actor: ActorOption = "",
    database: DatabaseOption = DEFAULT_URL,
    file: FileOption = None,
    json: JsonOption = False,
) -> None:
    """Compare the books' open holds with a list of bound pods; exit 1 where they differ and nothing mends it."""
    from fairlead.service import reconcile as service

    if mend and not actor:
        raise UnreadableInput("--actor: say who mends the books, by a role or pseudonym")
    url = url_of(database, file)
    data, at_ms = _read(objects)
    cluster = service.read_list(data, at_ms, name=str(objects))
    with to_read(url) as engine:
        compared = service.compare(engine, cluster)
    mended = compared.over if mend else ()
    if mended:
        decided(url, compared.facts(at_ms, actor))
    rows = _rows(compared, frozenset(mended))
    if json:
        keys = ("gang", "attempt", "rank", "difference", "then")
        render.as_json({"as_of_ms": at_ms, "items": [dict(zip(keys, row, strict=True)) for row in rows]})
    elif rows:
        render.table(("GANG", "ATTEMPT", "RANK", "DIFFERENCE", "THEN"), rows, right=frozenset({"ATTEMPT", "RANK"}))
    else:
        typer.echo(f"the books and the cluster agree on {len(cluster.bound)} bound pods")
    if any(row[-1] != "mended" for row in rows):
        raise typer.Exit(1)


def _read(path: Path) -> tuple[bytes, int]:
    """Return the list, and when it was made."""
    if str(path) == "-":
        return sys.stdin.buffer.read(), now_ms()
    try:
        return path.read_bytes(), path.stat().st_mtime_ns // 1_000_000
    except OSError as error:
        raise NotFound(f"--objects: {path}: {error.strerror}") from None


def _rows(compared: Comparison, mended: frozenset[tuple[str, int, int]]) -> list[tuple[str, int, int, str, str]]:
    """Say what differs and what becomes of it."""
    rows: list[tuple[str, int, int, str, str]] = []
    for name, holds in compared.found.by_name().items():
        for hold in sorted(holds):
            then = "left alone"
            if name == "only_books" and hold in compared.since_ms:
                then = (
                    "mended" if hold in mended else "too young to tell" if hold in compared.young else "--mend ends it"
                )
            rows.append((*hold, WORDS[name], then))
    return rows
