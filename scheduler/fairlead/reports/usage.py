"""Who used what: GPU-milliseconds by tenant, queue, tier and job, beside where the fleet's whole time went."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from fairlead.errors import BooksDoNotVerify, UnreadableInput
from fairlead.ledger import accounts
from fairlead.ledger.accounts import Kind
from fairlead.ledger.meter import Meter, OpenSegment
from fairlead.model import codec
from fairlead.store import engine as database
from fairlead.store import journal, usage
from fairlead.store.usage import Amount
from fairlead.units import TICKS_PER_GPU_MS


class By(StrEnum):
    """What rows are summed over."""

    JOB = "job"
    QUEUE = "queue"
    TENANT = "tenant"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """What was held, in GPU-ms; the three tiers sum to `gpu_ms`. Fields that were summed over are ""."""

    tenant: str
    queue: str = ""
    namespace: str = ""
    name: str = ""
    gang: str = ""
    in_quota_gpu_ms: int = 0
    borrowed_gpu_ms: int = 0
    reserved_gpu_ms: int = 0
    gpu_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRow:
    """Where one pool's time went, in GPU-ms; all but `capacity_gpu_ms` sum to it."""

    pool: str
    capacity_gpu_ms: int = 0
    held_gpu_ms: int = 0
    reserved_idle_gpu_ms: int = 0
    stranded_gpu_ms: int = 0
    free_gpu_ms: int = 0
    down_gpu_ms: int = 0
    unmanaged_gpu_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReport:
    """Usage over [since_ms, until_ms), open segments included as far as `as_of_ms`."""

    since_ms: int | None
    until_ms: int | None
    as_of_ms: int
    by: By
    rows: tuple[UsageRow, ...]
    fleet: tuple[FleetRow, ...]

    @property
    def balanced(self) -> bool:
        """Whether in every pool the parts sum to the capacity."""
        return all(2 * row.capacity_gpu_ms == sum(_numbers(row)) for row in self.fleet)


def report(
    amounts: Iterable[Amount],
    open_segments: Iterable[OpenSegment],
    *,
    as_of_ms: int,
    since_ms: int | None = None,
    until_ms: int | None = None,
    by: By = By.JOB,
) -> UsageReport:
    """Sum what is posted and what is open; rows sorted by their names, so equal books give equal reports."""
    if since_ms is not None and until_ms is not None and since_ms >= until_ms:
        raise UnreadableInput("--since: must be before --until")
    rows: dict[tuple[str, ...], UsageRow] = {}
    fleet: dict[str, FleetRow] = {}
    end_ms = as_of_ms if until_ms is None else min(as_of_ms, until_ms)
    for amount in [*amounts, *_open_amounts(open_segments, since_ms, end_ms)]:
        account = accounts.parse(amount.account)
        gpu_ms = amount.ticks // TICKS_PER_GPU_MS
        pool = fleet.get(amount.pool, FleetRow(pool=amount.pool))
        sign = -1 if account.kind is Kind.CAPACITY else 1
        column = f"{account.kind.value.replace('-', '_')}_gpu_ms"
        fleet[amount.pool] = replace(pool, **{column: getattr(pool, column) + sign * gpu_ms})
        if account.kind is not Kind.HELD:
            continue
        row = _row(account, amount, by)
        key = (row.tenant, row.queue, row.namespace, row.name, row.gang)
        before = rows.get(key, row)
        tier = f"{account.tier.replace('-', '_')}_gpu_ms"
        grown = {tier: getattr(before, tier) + gpu_ms, "gpu_ms": before.gpu_ms + gpu_ms}
        rows[key] = replace(before, **grown)
    return UsageReport(
        since_ms=since_ms,
        until_ms=until_ms,
        as_of_ms=as_of_ms,
        by=by,
        rows=tuple(row for _, row in sorted(rows.items()) if row.gpu_ms),
        fleet=tuple(row for _, row in sorted(fleet.items()) if any(_numbers(row))),
    )


def replay(connection_rows: Iterable[journal.Row], cluster: str) -> Meter:
    """Fold a journal into a meter, to know what is open.

    Raises
    ------
    BooksDoNotVerify
        A record cannot be read; the text has its number.
    """
    meter = Meter(cluster)
    for row in connection_rows:
        meter.apply(read_record(row), row.id)
    return meter


def read_record(row: journal.Row) -> codec.Record:
    """Decode one row of the journal."""
    try:
        return codec.decode(row.payload)
    except UnreadableInput as error:
        raise BooksDoNotVerify(f"journal record {row.number}: {error}") from error


def from_database(
    engine: database.Engine, *, since_ms: int | None = None, until_ms: int | None = None, by: By = By.JOB
) -> UsageReport:
    """Report from the database alone, as of its newest record: for files that no process has open."""
    with database.reading(engine) as connection:
        as_of_ms = usage.newest_ms(connection) or 0
        meter = replay(journal.read(connection), journal.get_meta(connection, "cluster"))
        amounts = usage.amounts(connection, since_ms, until_ms)
    return report(
        amounts, meter.open_segments(), as_of_ms=as_of_ms, since_ms=since_ms, until_ms=until_ms, by=by
    )  # fmt: skip


def to_data(found: UsageReport) -> dict[str, Any]:
    """Return the report as plain data for JSON; GPU-ms are integers."""
    return {**asdict(found), "by": found.by.value, "balanced": found.balanced}


def _row(account: accounts.Account, amount: Amount, by: By) -> UsageRow:
    row = UsageRow(tenant=account.tenant)
    if by is By.TENANT:
        return row
    row = replace(row, queue=account.queue)
    if by is By.QUEUE:
        return row
    return replace(row, namespace=amount.namespace, name=amount.name, gang=amount.gang)


def _open_amounts(segments: Iterable[OpenSegment], since_ms: int | None, end_ms: int) -> Sequence[Amount]:
    """Return what open segments would post if they were cut at `end_ms`."""
    found: list[Amount] = []
    for segment in segments:
        begin = segment.from_ms if since_ms is None else max(segment.from_ms, since_ms)
        if begin >= end_ms:
            continue
        state, ticks = segment.state, (end_ms - begin) * segment.state.ticks
        amount = Amount(
            account=state.account,
            pool=state.pool,
            namespace=state.namespace,
            name=state.name,
            gang=state.gang,
            ticks=ticks,
        )
        capacity = accounts.of_pool(Kind.CAPACITY, state.pool)
        found += [amount, replace(amount, account=capacity, ticks=-ticks)]
    return found


def _numbers(row: FleetRow) -> list[int]:
    return [
        row.capacity_gpu_ms,
        row.held_gpu_ms,
        row.reserved_idle_gpu_ms,
        row.stranded_gpu_ms,
        row.free_gpu_ms,
        row.down_gpu_ms,
        row.unmanaged_gpu_ms,
    ]
