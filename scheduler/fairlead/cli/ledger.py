"""`fairlead ledger`: verify the books, and show a gang's life in them."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli import periods, render
from fairlead.cli.adjust import adjust
from fairlead.cli.books_file import DEFAULT_URL, DatabaseOption, FileOption, JsonOption, shown, to_read, url_of
from fairlead.cli.reconcile import reconcile
from fairlead.errors import NotFound
from fairlead.units import TICKS_PER_GPU_MS, beside_text, gpu_hours_text, money_text

if TYPE_CHECKING:
    from fairlead.ledger.audit import Audit
    from fairlead.ledger.published import Published
    from fairlead.reports.published import Compared

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


for _command in (adjust, periods.close, periods.periods, periods.statement, periods.archive, reconcile):
    app.command()(_command)


@app.callback()
def root() -> None:
    """Verify the books, show their entries, adjust and reconcile them, and close periods."""


@app.command()
def verify(
    database: DatabaseOption = DEFAULT_URL,
    file: FileOption = None,
    archive: Annotated[list[Path] | None, typer.Option("--archive", help="File of entries that were dropped.")] = None,
    head: Annotated[
        Path | None, typer.Option("--head", help="The published head, a ConfigMap as JSON; - for standard input.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Recompute the timeline from the journal and compare every entry; exit 7 names the first that is wrong."""
    from fairlead.reports import published, verification
    from fairlead.store import engine as store
    from fairlead.store import journal

    said = None if head is None else _read_head(head)
    with to_read(url_of(database, file)) as engine:
        with store.reading(engine) as connection:
            cluster = journal.get_meta(connection, "cluster")
            found = verification.verify(connection, archive or ())
            compared = None if said is None else published.compare(connection, said, archive or ())
        name = shown(engine)
    if compared is not None:
        found.findings += compared.findings
    if json:
        numbers = None if compared is None else compared.to_data()
        render.as_json({"database": name, "cluster": cluster, "published": numbers, **found.to_data()})
    else:
        _print(name, found)
        if compared is not None and not compared.findings:
            typer.echo(_agreement(compared))
    if not found.verified:
        raise typer.Exit(7)


def _read_head(path: Path) -> Published:
    from fairlead.ledger.published import read_config_map

    try:
        content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise NotFound(f"--head: {path}: {error.strerror}") from None
    return read_config_map(content, name=f"--head {path}")


@app.command()
def rebuild_rollups(database: DatabaseOption = DEFAULT_URL, file: FileOption = None) -> None:
    """Make the sums that reports use anew from all entries; exit 1 where they were not the same before."""
    from fairlead.store import engine as store
    from fairlead.store import rollups

    with to_read(url_of(database, file)) as engine, store.writing(engine) as connection:
        wrong = rollups.rebuild(connection)
        typer.echo(f"{shown(engine)}: {rollups.number(connection)} entries summed, {wrong} sums differed")
    if wrong:
        raise typer.Exit(1)


def _print(name: str, found: Audit) -> None:
    typer.echo(f"{name}: {found.records} facts, {found.entries} entries, {found.devices} devices")
    for account, ticks in sorted(found.balances.items()):
        if ticks:
            typer.echo(f"  {account}  {gpu_hours_text(abs(ticks) // TICKS_PER_GPU_MS)} GPU-h")
    for unit, sums in sorted(found.beside.items()):
        for account, amount in sorted(sums.items()):
            if amount:
                typer.echo(f"  {account}  {' '.join(beside_text(unit, abs(amount)))}")
    for currency, accounts in sorted(found.money.items()):
        for account, nanos in sorted(accounts.items()):
            if nanos:
                typer.echo(f"  {account}  {money_text(nanos)} {currency}")
    for finding in found.findings:
        typer.echo(f"WRONG  {finding.sentence}")
    if found.verified:
        typer.echo(f"head {found.head.number} {found.head.hash}")
        typer.echo("the books balance: capacity × time = held + reserved-idle + stranded + free + down + unmanaged")
    else:
        typer.echo("the books do not verify")


def _agreement(compared: Compared) -> str:
    """Say where the published numbers are."""
    where = f"the archive of {compared.archive}" if compared.archive else "the books"
    step = "no period step" if compared.step is None else f"period step {compared.step} in the books"
    record = "no journal record" if compared.record is None else f"journal record {compared.record} in the books"
    return f"published: entry {compared.entry} in {where}, {step}, {record}"


@app.command()
def show(
    gang: Annotated[str, typer.Argument(help="The gang: uid, NAME, or NAMESPACE/NAME.")],
    database: DatabaseOption = DEFAULT_URL,
    file: FileOption = None,
    json: JsonOption = False,
) -> None:
    """Print the entries of one gang in the order they were written."""
    from fairlead.ledger.entry import PODS, TIMELINE
    from fairlead.store import engine as store
    from fairlead.store import entries

    with to_read(url_of(database, file)) as engine, store.reading(engine) as connection:
        known = entries.gangs_named(connection, gang)
        if not known:
            raise NotFound(f"no gang {gang!r} is in the books of {shown(engine)}")
        rows = [
            _line(sealed, sealed.entry.kind in TIMELINE, sealed.entry.kind in PODS)
            for uid, _, _ in known
            for sealed in entries.read(connection, gang=uid)
        ]
    if json:
        render.as_json({"items": rows})
        return
    head = ("ENTRY", "KIND", "DEVICE", "ATTEMPT", "RANK", "FROM", "TO", "GPU-MS", "ESTIMATED-MS", "ACCOUNT")
    columns = (
        "number", "kind", "device", "attempt", "rank", "from_ms", "to_ms", "gpu_ms", "estimated_ms", "account",
    )  # fmt: skip
    cells = [[_moment(row[c]) if c in ("from_ms", "to_ms") else row[c] for c in columns] for row in rows]
    render.table(head, cells, right=frozenset({"ENTRY", "ATTEMPT", "RANK", "GPU-MS", "ESTIMATED-MS"}))


def _line(sealed: Any, is_timeline: bool, of_pod: bool) -> dict[str, Any]:
    entry = sealed.entry
    return {
        "number": sealed.number,
        "id": entry.id,
        "kind": str(entry.kind),
        "fact": entry.fact,
        "gang": entry.gang,
        "namespace": entry.namespace,
        "name": entry.name,
        "attempt": entry.attempt,
        "rank": entry.rank,
        "device": f"{entry.node}/{entry.device}",
        "pool": entry.pool,
        "account": entry.account,
        "from_ms": entry.from_ms,
        "to_ms": entry.to_ms,
        "gpu_ms": entry.postings[1].amount // TICKS_PER_GPU_MS if is_timeline else 0,
        "beside": {part.unit: part.amount for part in entry.postings[1::2]} if of_pod else {},
        "estimated_ms": entry.estimated_ms,
        "actor": entry.actor,
        "reason": entry.reason,
        "refers": entry.refers,
        "hash": sealed.hash,
    }


def _moment(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
