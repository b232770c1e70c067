"""`fairlead bench ledger`: how fast the books take facts, and how long a month's report takes from large ones."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from fairlead.cli.books_file import DatabaseOption
from fairlead.errors import UnreadableInput


def ledger(
    database: DatabaseOption,
    entries: Annotated[int, typer.Option("--entries", help="Entries the report is made from.")] = 1_000_000,
    ingest: Annotated[int, typer.Option("--ingest", help="Entries that are made from facts, at least.")] = 100_000,
    queues: Annotated[int, typer.Option("--queues", help="Queues that hold devices.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Fill an empty database: first with facts as in production, then with a month; then report on the month."""
    for name, value, most in (("--entries", entries, 10**8), ("--ingest", ingest, 10**8), ("--queues", queues, 10**4)):
        if not 1 <= value <= most:
            raise UnreadableInput(f"{name}: {value} is outside 1..{most}")
    from dataclasses import asdict

    from fairlead.bench.ledger import run

    found = run(database, ingest=ingest, size=entries, queues=queues)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
        return
    typer.echo(
        f"{found.database}: {found.ingested} entries from {found.facts} facts in {found.ingest_s} s, "
        f"{found.entries_per_second:.0f} a second ({found.ingest_cpu_s} s of it our own CPU)"
    )
    typer.echo(
        f"a month's reports on {found.rows} queues from {found.entries} entries: "
        f"usage {found.usage_s} s, showback {found.showback_s} s"
    )
