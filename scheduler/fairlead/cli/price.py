"""`fairlead price`: what device time costs, by the price books that stand in the journal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli import render
from fairlead.cli.books_file import DEFAULT_URL, DatabaseOption, FileOption, JsonOption, decided, to_read, url_of
from fairlead.cli.estimate import estimate
from fairlead.cli.report import SinceOption, UntilOption
from fairlead.cli.report_answer import moment_of
from fairlead.errors import UnreadableInput
from fairlead.units import gpu_hours_text, utc_text

if TYPE_CHECKING:
    from fairlead.model.prices import PriceBook

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


app.command("estimate")(estimate)


@app.callback()
def root() -> None:
    """List, set and check prices, and say what a job would cost."""


@app.command("list")
def show(database: DatabaseOption = DEFAULT_URL, file: FileOption = None, json: JsonOption = False) -> None:
    """List all prices with their periods, those of queues below those of everybody, and what the platform pays."""
    from fairlead.model.rates import per_hour_text
    from fairlead.reports.prices import books_in
    from fairlead.store import engine as store

    with to_read(url_of(database, file)) as engine, store.reading(engine) as connection:
        books = books_in(connection)
    rows: list[dict[str, Any]] = [
        {
            "book": book.name,
            "sku": price.sku,
            "queue": price.queue,
            "from_ms": price.from_ms,
            "to_ms": price.to_ms,
            "tier": tier.value,
            "per_hour": per_hour_text(amount),
            "currency": book.currency,
        }
        for book in books
        for price in sorted(book.prices, key=lambda one: (one.queue, one.sku, one.from_ms or 0))
        for tier, amount in price.per_hour
    ]
    costs, fixed = list(_costs(books)), list(_fixed(books))
    if json:
        render.as_json({"items": rows, "costs": costs, "fixed": fixed})
        return
    _table(("BOOK", "SKU", "QUEUE", "FROM", "TO", "TIER", "PER-HOUR", "CURRENCY"), rows)
    for head, of in (
        (("BOOK", "MODEL", "FROM", "TO", "COST", "PER-GPU-HOUR", "CURRENCY"), costs),
        (("BOOK", "FIXED-COST", "FROM", "TO", "PER-MONTH", "CURRENCY"), fixed),
    ):
        if of:
            typer.echo("")
            _table(head, of)


def _costs(books: Iterable[PriceBook]) -> Iterator[dict[str, Any]]:
    """Yield what an hour of a GPU costs the platform, by part and in all."""
    from fairlead.ledger.costs import gpu_hour
    from fairlead.model.rates import per_hour_text

    for book in books:
        for cost in sorted(book.costs, key=lambda one: (one.model, one.from_ms or 0)):
            parts = gpu_hour(cost)
            said = {part.value: amount for part, amount in parts.items() if amount}
            for name, amount in {**said, "total": sum(parts.values())}.items():
                yield {
                    "book": book.name,
                    "model": cost.model,
                    "from_ms": cost.from_ms,
                    "to_ms": cost.to_ms,
                    "cost": name,
                    "per_gpu_hour": per_hour_text(amount),
                    "currency": book.currency,
                }


def _fixed(books: Iterable[PriceBook]) -> Iterator[dict[str, Any]]:
    """Yield what the platform pays whatever is held."""
    from fairlead.model.rates import per_hour_text

    for book in books:
        for one in sorted(book.fixed, key=lambda one: (one.name, one.from_ms or 0)):
            yield {
                "book": book.name,
                "name": one.name,
                "from_ms": one.from_ms,
                "to_ms": one.to_ms,
                "per_month": per_hour_text(one.per_month),
                "currency": book.currency,
            }


def _table(head: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    cells = [
        [_when(row[column]) if column in ("from_ms", "to_ms") else row[column] or "-" for column in row] for row in rows
    ]  # fmt: skip
    render.table(head, cells, right=frozenset({"PER-HOUR", "PER-GPU-HOUR", "PER-MONTH"}))


@app.command("set")
def take(
    documents: Annotated[Path, typer.Argument(help="YAML with one PriceBook or more.")],
    database: DatabaseOption = DEFAULT_URL,
    file: FileOption = None,
) -> None:
    """Write price books into the journal. What they change of the past is posted as adjustments."""
    from fairlead.clock import now_ms
    from fairlead.model.events import PriceBookSeen
    from fairlead.model.prices import check_book
    from fairlead.reports.prices import books_in
    from fairlead.simulation import gangjob_yaml
    from fairlead.store import engine as store

    try:
        text = documents.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise UnreadableInput(f"cannot read {documents}: {problem}") from problem
    found = gangjob_yaml.read(text, now_ms=now_ms(), new_id=_no_jobs)
    if not found.books or found.queues or found.pools:
        raise UnreadableInput(f"{documents}: holds something else than PriceBooks, or none; write only those")
    url = url_of(database, file)
    with to_read(url) as engine, store.reading(engine) as connection:
        known = {book.name: book for book in books_in(connection)}
    known |= {book.name: book for book in found.books}
    for book in found.books:
        check_book(book, [one for one in known.values() if one is not book], field=f"PriceBook {book.name}: spec")
    decided(url, [PriceBookSeen(book=book, at_ms=now_ms()) for book in found.books])
    typer.echo("\n".join(f"PriceBook/{book.name}" for book in found.books))


@app.command()
def check(
    database: DatabaseOption = DEFAULT_URL,
    file: FileOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    json: JsonOption = False,
) -> None:
    """Look for held time that has no price; exit 1 where there is any."""
    from dataclasses import asdict

    from fairlead.reports.prices import unpriced
    from fairlead.store import engine as store

    since_ms, until_ms = moment_of("--since", since), moment_of("--until", until)
    with to_read(url_of(database, file)) as engine, store.reading(engine) as connection:
        found = unpriced(connection, since_ms, until_ms)
    if json:
        render.as_json({"priced": not found, "unpriced": [asdict(one) for one in found]})
    elif found:
        rows = [[one.tenant, one.queue, one.tier, one.model, gpu_hours_text(one.gpu_ms)] for one in found]
        render.table(("TENANT", "QUEUE", "TIER", "MODEL", "GPU-H"), rows, right=frozenset({"GPU-H"}))
        typer.echo("this time has no price: add one for the model and tier, also for the past")
    else:
        typer.echo("all that was held has a price")
    if found:
        raise typer.Exit(1)


def _no_jobs(namespace: str, name: str) -> Any:
    raise UnreadableInput(
        f"GangJob {namespace}/{name}: only PriceBooks can be set; hand jobs in with `fairlead submit`"
    )


def _when(at_ms: int | None) -> str:
    return "-" if at_ms is None else utc_text(at_ms)
