"""Who used what: GPU-milliseconds by tenant, queue, tier and job, beside where the fleet's whole time went."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from fairlead.errors import UnreadableInput
from fairlead.ledger import accounts
from fairlead.ledger.accounts import Kind
from fairlead.ledger.meter import OpenSegment
from fairlead.reports.booked import By as By
from fairlead.reports.booked import columns_of
from fairlead.store import engine as database
from fairlead.store import periods, snapshots, usage
from fairlead.store.usage import Amount
from fairlead.units import TICKS_PER_GPU_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """What was held, in GPU-ms; the tiers sum to `gpu_ms`. Fields that were summed over are ""."""

    tenant: str
    queue: str = ""
    namespace: str = ""
    name: str = ""
    gang: str = ""
    in_quota_gpu_ms: int = 0
    borrowed_gpu_ms: int = 0
    reserved_gpu_ms: int = 0
    opportunistic_gpu_ms: int = 0
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
    """Sum what is posted and what is open; rows sorted by their names, so equal books give equal reports.

    Parts of devices leave parts of a GPU-ms. So ticks are summed, and whole GPU-ms are dealt out only at the end.
    """
    if since_ms is not None and until_ms is not None and since_ms >= until_ms:
        raise UnreadableInput("--since: must be before --until")
    held: dict[tuple[str, ...], dict[str, int]] = {}
    fleet: dict[str, dict[str, int]] = {}
    end_ms = as_of_ms if until_ms is None else min(as_of_ms, until_ms)
    for amount in [*amounts, *_open_amounts(open_segments, since_ms, end_ms)]:
        account = accounts.parse(amount.account)
        _add(fleet.setdefault(amount.pool, {}), account.kind, amount.ticks)
        if account.kind is Kind.HELD:
            _add(held.setdefault(_key(account, amount, by), {}), account.tier, amount.ticks)
    rows = [_row(key, whole_gpu_ms(tiers)) for key, tiers in sorted(held.items())]
    pools = [_pool(name, kinds) for name, kinds in sorted(fleet.items())]
    return UsageReport(
        since_ms=since_ms,
        until_ms=until_ms,
        as_of_ms=as_of_ms,
        by=by,
        rows=tuple(row for row in rows if row.gpu_ms),
        fleet=tuple(row for row in pools if any(_numbers(row))),
    )


def from_database(
    engine: database.Engine, *, since_ms: int | None = None, until_ms: int | None = None, by: By = By.JOB
) -> UsageReport:
    """Report from the database alone, as of its newest record: for files that no process has open.

    What is open is known from what the journal says, unless the window ends where a cut was drawn, or before.
    """
    open_segments: Iterable[OpenSegment] = ()
    with database.reading(engine) as connection:
        as_of_ms = usage.newest_ms(connection) or 0
        cut_ms = periods.last_cut_ms(connection)
        if until_ms is None or cut_ms is None or cut_ms < until_ms:
            meter = snapshots.current(connection)
            open_segments = meter.open_segments()
        amounts = usage.amounts(connection, since_ms, until_ms, jobs=by is By.JOB)
    return report(amounts, open_segments, as_of_ms=as_of_ms, since_ms=since_ms, until_ms=until_ms, by=by)


def to_data(found: UsageReport) -> dict[str, Any]:
    """Return the report as plain data for JSON; GPU-ms are integers."""
    return {**asdict(found), "by": found.by.value, "balanced": found.balanced}


def _add(sums: dict[str, int], name: str, ticks: int) -> None:
    sums[name] = sums.get(name, 0) + ticks


def _key(account: accounts.Account, amount: Amount, by: By) -> tuple[str, ...]:
    """Return tenant, queue, namespace, name and gang, "" from where it is summed over."""
    names = (account.tenant, account.queue, amount.namespace, amount.name, amount.gang)
    kept = len(columns_of(by))
    return (*names[:kept], *("" for _ in names[kept:]))


def _row(key: tuple[str, ...], gpu_ms: Mapping[str, int]) -> UsageRow:
    tenant, queue, namespace, name, gang = key
    return UsageRow(
        tenant=tenant,
        queue=queue,
        namespace=namespace,
        name=name,
        gang=gang,
        gpu_ms=sum(gpu_ms.values()),
        **{f"{tier.replace('-', '_')}_gpu_ms": amount for tier, amount in gpu_ms.items()},
    )


def _pool(name: str, ticks: Mapping[str, int]) -> FleetRow:
    gpu_ms = whole_gpu_ms({kind: amount for kind, amount in ticks.items() if kind != Kind.CAPACITY})
    columns = {f"{kind.replace('-', '_')}_gpu_ms": amount for kind, amount in gpu_ms.items()}
    return FleetRow(pool=name, capacity_gpu_ms=-ticks.get(Kind.CAPACITY, 0) // TICKS_PER_GPU_MS, **columns)


def whole_gpu_ms(ticks: Mapping[str, int]) -> dict[str, int]:
    """Turn ticks into whole GPU-ms that sum to what is whole of their sum, by largest remainder."""
    gpu_ms = {name: amount // TICKS_PER_GPU_MS for name, amount in ticks.items()}
    left = sum(ticks.values()) // TICKS_PER_GPU_MS - sum(gpu_ms.values())
    for name in sorted(ticks, key=lambda name: (-(ticks[name] % TICKS_PER_GPU_MS), name))[:left]:
        gpu_ms[name] += 1
    return gpu_ms


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
