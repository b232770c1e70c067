"""`fairlead budget`: what is left of budgets, how fast they are used, and when they will be used up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli import render
from fairlead.cli.books_file import DEFAULT_URL, DatabaseOption, FileOption, JsonOption, to_read, url_of
from fairlead.errors import NotFound
from fairlead.units import NANO, gpu_hours_text, money_text, utc_text

if TYPE_CHECKING:
    from fairlead.reports.budgets import BudgetStanding

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback()
def root() -> None:
    """Say how budgets stand."""


@app.command()
def show(
    queue: Annotated[str | None, typer.Argument(help="Only this queue's.")] = None,
    database: DatabaseOption = DEFAULT_URL,
    file: FileOption = None,
    json: JsonOption = False,
) -> None:
    """Print every budget in its period, as of the newest fact in the books; exit 6 where one is used up."""
    from fairlead.reports.budgets import from_database

    with to_read(url_of(database, file)) as engine:
        found = [one for one in from_database(engine) if queue in (None, one.queue)]
    if queue is not None and not found:
        raise NotFound(f"queue {queue!r} has no budget in these books")
    if json:
        render.as_json({"items": [data_of(one) for one in found]})
    else:
        head = ("QUEUE", "PERIOD", "USED", "OF", "UNIT", "PERCENT", "A-DAY", "AHEAD", "USED-UP", "ENDS", "ALERT")
        render.table(head, [_row(one) for one in found], right=frozenset(head[2:4] + head[5:8] + head[10:]))
    if any(one.budget.hard and one.left <= 0 for one in found):
        raise typer.Exit(6)


def data_of(one: BudgetStanding) -> dict[str, Any]:
    """Return a budget as plain data: amounts in GPU-ms, or in nano-units where `currency` is named."""
    return {
        "queue": one.queue,
        "period": one.period.name,
        "from_ms": one.period.from_ms,
        "to_ms": one.period.to_ms,
        "time_zone": one.budget.zone.name,
        "as_of_ms": one.at_ms,
        "currency": one.budget.currency,
        "amount": one.amount,
        "used": one.used,
        "left": one.left,
        "a_day": one.a_day,
        "ahead": one.ahead,
        "exhausted_ms": one.exhausted_ms,
        "alert_percent": one.alert,
        "hard": one.budget.hard,
        "on_exhausted": one.budget.on_exhausted.value,
    }


def _row(one: BudgetStanding) -> list[Any]:
    return [
        one.queue,
        one.period.name,
        _amount(one, one.used),
        _amount(one, one.amount),
        one.budget.currency or "GPU-h",
        one.used * 100 // one.amount,
        _amount(one, one.a_day),
        _amount(one, one.ahead),
        "-" if one.exhausted_ms is None else _clock(one, one.exhausted_ms),
        f"{_clock(one, one.period.to_ms)} {one.budget.zone.name}",
        one.alert or "-",
    ]


def _clock(one: BudgetStanding, at_ms: int) -> str:
    """Write a moment as the clocks of the budget's zone show it, to the minute."""
    return utc_text(one.budget.zone.local_ms(at_ms))[:16]


def _amount(one: BudgetStanding, amount: int) -> str:
    sign, size = "-" if amount < 0 else "", abs(amount)
    if not one.budget.currency:
        return sign + gpu_hours_text(size)
    cent = NANO // 100
    return sign + money_text((size + cent // 2) // cent * cent)
