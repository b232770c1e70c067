"""`fairlead price estimate`: what a job would take and cost, before it is submitted."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli import render
from fairlead.cli.books_file import DEFAULT_URL, DatabaseOption, FileOption, JsonOption, to_read, url_of
from fairlead.errors import UnreadableInput
from fairlead.units import duration_text, gpu_hours_text, money_text

if TYPE_CHECKING:
    from fairlead.model.gang import Gang
    from fairlead.reports.estimates import Estimate


def estimate(
    job: Annotated[Path, typer.Argument(help="YAML with one GangJob or more; - reads standard input.")],
    database: DatabaseOption = DEFAULT_URL,
    file: FileOption = None,
    duration: Annotated[str | None, typer.Option(help="How long it runs, such as 4h; else what it declares.")] = None,
    headroom: Annotated[
        int | None, typer.Option(min=0, max=1000, help="Percent on top; else what went wrong in the queue lately.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Say what a job would take and cost, before it is submitted."""
    from fairlead.clock import now_ms
    from fairlead.ledger.prices import PriceList
    from fairlead.reports import estimates
    from fairlead.reports.prices import books_in
    from fairlead.reports.spending import queues_of
    from fairlead.store import engine as store
    from fairlead.units import duration_ms

    now = now_ms()
    given_ms = None if duration is None else duration_ms(duration, field="--duration")
    gangs = _jobs(job, now)
    with to_read(url_of(database, file)) as engine:
        with store.reading(engine) as connection:
            prices, queues = PriceList(books_in(connection)), queues_of(connection)
        found = [
            estimates.estimate(
                gang,
                queues,
                prices,
                estimates.Headroom(permille=10 * headroom, basis="given")
                if headroom is not None
                else estimates.measured(engine, gang.queue, now),
                now,
                given_ms,
            )
            for gang in gangs
        ]
    if json:
        render.as_json({"items": [estimate_data(one) for one in found]})
        return
    for one in found:
        _tell(one)


def estimate_data(one: Estimate) -> dict[str, Any]:
    """Return an estimate as plain data; amounts in GPU-ms and in nano-units of the currency."""
    on = one.headroom.on
    return {
        "job": one.job,
        "queue": one.queue,
        "duration_ms": one.duration_ms,
        "duration_from": "job" if one.declared else "option",
        "gpu_ms": one.gpu_ms,
        "headroom_permille": one.headroom.permille,
        "headroom_from": one.headroom.basis,
        "gpu_ms_with_headroom": on(one.gpu_ms),
        "costs": [
            {
                "role": cost.role,
                "model": cost.model,
                "tier": cost.tier,
                "currency": cost.currency,
                "nanos": cost.nanos,
                "nanos_with_headroom": None if cost.nanos is None else on(cost.nanos),
            }
            for cost in one.costs
        ],
        "totals": [
            {
                "tier": total.tier,
                "currency": total.currency,
                "lowest_nanos": total.lowest_nanos,
                "highest_nanos": total.highest_nanos,
                "lowest_nanos_with_headroom": on(total.lowest_nanos),
                "highest_nanos_with_headroom": on(total.highest_nanos),
            }
            for total in one.totals
        ],
    }


_BASIS = {
    "measured": "went wrong in this queue in the last 30 days",
    "given": "on top, as was asked for",
    "none": "on top: the books have nothing of this queue in the last 30 days",
}


def _tell(one: Estimate) -> None:
    on, permille = one.headroom.on, one.headroom.permille
    said = "as it declares" if one.declared else "as was asked for"
    typer.echo(
        f"{one.job} in {one.queue}: {gpu_hours_text(one.gpu_ms)} GPU-h in {duration_text(one.duration_ms)}, {said}"
    )
    more = f"{permille // 10}.{permille % 10} % {_BASIS[one.headroom.basis]}"
    typer.echo(f"with headroom: {gpu_hours_text(on(one.gpu_ms))} GPU-h ({more})")
    rows = [[cost.tier, cost.role, cost.model, *_money(cost.nanos, on), cost.currency] for cost in one.costs]
    rows += [
        [total.tier, "all", which, money_text(amount), money_text(on(amount)), total.currency]
        for total in one.totals
        for which, amount in (("cheapest", total.lowest_nanos), ("dearest", total.highest_nanos))
        if which == "cheapest" or amount != total.lowest_nanos
    ]
    if rows:
        render.table(
            ("TIER", "ROLE", "MODEL", "COST", "WITH-HEADROOM", "CURRENCY"),
            rows,
            right=frozenset({"COST", "WITH-HEADROOM"}),
        )
    else:
        typer.echo("no price book prices a model that it accepts")


def _money(nanos: int | None, on: Callable[[int], int]) -> tuple[str, str]:
    return ("-", "-") if nanos is None else (money_text(nanos), money_text(on(nanos)))


def _jobs(path: Path, now_ms: int) -> tuple[Gang, ...]:
    """Read the GangJobs of a file."""
    from fairlead.model.gang import GangId
    from fairlead.simulation import gangjob_yaml

    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise UnreadableInput(f"cannot read {path}: {problem}") from problem
    found = gangjob_yaml.read(text, now_ms=now_ms, new_id=lambda namespace, name: GangId(f"{namespace}/{name}"))
    if not found.gangs:
        raise UnreadableInput(f"{path}: holds no GangJob; an estimate is of those")
    return found.gangs
