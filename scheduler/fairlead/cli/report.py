"""`fairlead report`: questions that the books alone can answer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from fairlead.cli import render
from fairlead.cli.books_file import DEFAULT_URL, DatabaseOption, FileOption, JsonOption, to_read, url_of
from fairlead.errors import UnreadableInput
from fairlead.units import gpu_hours_text

if TYPE_CHECKING:
    from fairlead.reports.usage import UsageReport

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

MILLISECOND = timedelta(milliseconds=1)
WINDOW = "UTC: 2026-11-01, 2026-11-01T12:00:00Z, or milliseconds."


SinceOption = Annotated[str | None, typer.Option("--since", help=f"From when on; {WINDOW}")]
UntilOption = Annotated[str | None, typer.Option("--until", help=f"Up to when; {WINDOW}")]


@app.callback()
def root() -> None:
    """Answer questions from the books."""


@app.command()
def usage(
    database: DatabaseOption = DEFAULT_URL,
    file: FileOption = None,
    by: Annotated[str, typer.Option("--by", help="queue, tenant or job.")] = "queue",
    since: SinceOption = None,
    until: UntilOption = None,
    json: JsonOption = False,
) -> None:
    """Print held GPU time, and where the whole fleet's time went, as of the newest fact in the books."""
    from fairlead.reports.usage import By, from_database, to_data

    if by not in tuple(By):
        raise UnreadableInput(f"--by: {by!r} is none of {', '.join(By)}")
    since_ms, until_ms = moment_of("--since", since), moment_of("--until", until)
    with to_read(url_of(database, file)) as engine:
        found = from_database(engine, since_ms=since_ms, until_ms=until_ms, by=By(by))
    if json:
        render.as_json(to_data(found))
    else:
        _print(found)


def _print(found: UsageReport) -> None:
    wanted = [("TENANT", "tenant"), ("QUEUE", "queue"), ("NAMESPACE", "namespace"), ("JOB", "name")]
    named = wanted[: {"tenant": 1, "queue": 2, "job": 4}[found.by]]
    hours = [("IN-QUOTA", "in_quota"), ("BORROWED", "borrowed"), ("RESERVED", "reserved")]
    head = [*(title for title, _ in [*named, *hours]), "GPU-H"]
    rows = [
        [
            *(getattr(row, name) for _, name in named),
            *(gpu_hours_text(getattr(row, f"{name}_gpu_ms")) for _, name in hours),
            gpu_hours_text(row.gpu_ms),
        ]
        for row in found.rows
    ]
    render.table(head, rows, right=frozenset(head[len(named) :]))
    typer.echo("")
    kinds = ("capacity", "held", "reserved_idle", "stranded", "free", "down", "unmanaged")
    head = ["POOL", *(kind.replace("_", "-").upper() for kind in kinds)]
    rows = [
        [row.pool, *(gpu_hours_text(getattr(row, f"{kind}_gpu_ms")) for kind in kinds)] for row in found.fleet
    ]  # fmt: skip
    render.table(head, rows, right=frozenset(head[1:]))
    as_of = datetime.fromtimestamp(found.as_of_ms / 1000, UTC).isoformat(timespec="seconds")
    typer.echo(f"\nGPU-hours as of {as_of.replace('+00:00', 'Z')}")


def moment_of(option: str, text: str | None) -> int | None:
    """Return a moment in UTC ms; a text without a zone is UTC."""
    if text is None:
        return None
    if text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UnreadableInput(f"{option}: {text!r} is no time; write it in {WINDOW}") from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // MILLISECOND
