"""What pods held beside devices: cores, memory and NICs, by queue and tier."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fairlead.errors import UnreadableInput
from fairlead.ledger import accounts
from fairlead.ledger.accounts import CORES, MEMORY, NICS, Kind
from fairlead.ledger.meter import OpenSegment
from fairlead.model.gang import Tier
from fairlead.reports.booked import By, columns_of
from fairlead.reports.document import Document, Value
from fairlead.store import engine as database
from fairlead.store import periods, rollups, snapshots, usage

WORDS = {"cpu": CORES, "memory": MEMORY, "nic": NICS}
"""How units are asked for."""
_TIERS = tuple(tier.value for tier in Tier)


def report(
    amounts: Mapping[tuple[str, ...], int],
    open_pods: Iterable[OpenSegment],
    unit: str,
    window: tuple[int, int],
    as_of_ms: int,
    by: By,
) -> Document:
    """Sum what is posted, and what is open up to the window's end or `as_of_ms`; rows sorted by their names.

    Raises
    ------
    UnreadableInput
        The window is empty.
    """
    since_ms, until_ms = window
    if since_ms >= until_ms:
        raise UnreadableInput("--since: must be before --until")
    end_ms = min(as_of_ms, until_ms)
    sums: dict[tuple[str, ...], dict[str, int]] = {}
    for (name, _, *job), amount in [*amounts.items(), *_open_amounts(open_pods, unit, since_ms, end_ms)]:
        account = accounts.parse(name)
        if account.kind is Kind.HELD:
            row = sums.setdefault((account.tenant, account.queue, *job)[: len(columns_of(by))], {})
            row[account.tier] = row.get(account.tier, 0) + amount
    suffix = unit.replace("-", "_")
    rows: list[tuple[Value, ...]] = [
        (*key, *(tiers.get(tier, 0) for tier in _TIERS), sum(tiers.values())) for key, tiers in sorted(sums.items())
    ]
    columns = (*(f"{tier.replace('-', '_')}_{suffix}" for tier in _TIERS), f"held_{suffix}")
    return Document(
        report="usage",
        since_ms=since_ms,
        until_ms=end_ms,
        as_of_ms=as_of_ms,
        columns=(*columns_of(by), *columns),
        rows=tuple(rows),
        facts={"unit": unit},
    )


def _open_amounts(
    pods: Iterable[OpenSegment], unit: str, since_ms: int, end_ms: int
) -> Iterable[tuple[tuple[str, ...], int]]:
    """Yield what open pods would post if they were cut at `end_ms`."""
    for pod in pods:
        begin = max(pod.from_ms, since_ms)
        amount = dict(pod.state.beside).get(unit, 0)
        if begin < end_ms and amount:
            state = pod.state
            yield (state.account, state.pool, state.namespace, state.name, state.gang), (end_ms - begin) * amount


def from_database(
    engine: database.Engine, word: str, *, since_ms: int | None = None, until_ms: int | None = None, by: By = By.JOB
) -> Document:
    """Report from the database alone, as of its newest record; `word` is one of `WORDS`.

    Raises
    ------
    UnreadableInput
        There is no such unit, or the window is empty.
    """
    if word not in WORDS:
        raise UnreadableInput(f"--unit: {word!r} is none of gpu, {', '.join(WORDS)}")
    unit = WORDS[word]
    with database.reading(engine) as connection:
        as_of_ms, cut_ms = usage.newest_ms(connection) or 0, periods.last_cut_ms(connection)
        open_pods: Iterable[OpenSegment] = ()
        if until_ms is None or cut_ms is None or cut_ms < until_ms:
            meter = snapshots.current(connection)
            open_pods = tuple(meter.open_pods())
        amounts = usage.beside(connection, unit, since_ms, until_ms, jobs=by is By.JOB)
        begin_ms = rollups.begin_ms(connection) or 0
    since_ms = begin_ms if since_ms is None else since_ms
    return report(amounts, open_pods, unit, (since_ms, as_of_ms if until_ms is None else until_ms), as_of_ms, by)
