"""What tokens cost, from the books and from counts that somebody handed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from fairlead.errors import UnreadableInput
from fairlead.ledger.accounts import Kind, currency_of
from fairlead.ledger.entry import EntryKind
from fairlead.model.calendars import Span
from fairlead.model.gang import Tier
from fairlead.reports.booked import Booked, By, columns_of, gpu_ms, window
from fairlead.reports.charges import currency_in
from fairlead.reports.costs import Known, RowCost, Who, costs_by, device_times
from fairlead.reports.document import Document, Value
from fairlead.reports.token_counts import Count, TokenClass
from fairlead.reports.tokens import NO_COUNTS, Cell, Key, Paid, Terms, divided, reach
from fairlead.store import engine as database
from fairlead.store import entries, periods, rollups, usage
from fairlead.units import fixed_text, utc_text

SELF_REPORTED = "self-reported"
CHARGED, COST = BASES = ("charged", "cost")
"""What the money is: what held time cost by its prices, or what the platform itself paid for it."""
_MILLION = 1_000_000
_TIERS = tuple(tier.value for tier in Tier)


class Gang(NamedTuple):
    """A gang by its uid and its names, and from when to when it held anything."""

    uid: str
    namespace: str
    name: str
    since_ms: int
    until_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCosts:
    """What was put to which tokens of which job in a window: by `basis` what was charged, or what the platform paid.

    `others_held` are the ticks of gangs that no row names, `others_nanos` what those cost. `by_busy` of the `gangs`
    told device time, the others tokens alone. `has_fixed`: there are costs that are paid whatever is held.
    """

    since_ms: int
    until_ms: int
    as_of_ms: int
    basis: str
    currency: str
    jobs: Mapping[tuple[Key, Gang], Cell]
    others_held: int
    others_nanos: int
    has_fixed: bool
    gangs: int
    by_busy: int
    terms: Terms


def from_database(
    engine: database.Engine,
    span: Span | None,
    counts: Sequence[Count],
    file: str,
    terms: Terms,
    *,
    currency: str | None = None,
    costs: Known | None = None,
) -> TokenCosts:
    """Look up what the gangs that rows name held in a span, None is ever, and divide it among their tokens.

    Rows that lie outside of the span are passed over, but for which gangs they name. The money is what was charged, or
    by `costs` what the platform paid.

    Raises
    ------
    NotFound
        Nothing was booked in the span.
    UnreadableInput
        A row contradicts another one or the books; the text has `file` and line.
    """
    times = None if costs is None else device_times(engine, costs, span, jobs=True, currency=currency)
    rows_paid = None if times is None else costs_by(times, By.JOB).rows
    with database.reading(engine) as connection:
        at = window(connection, span if times is None else Span(times.since_ms, times.until_ms, ""))
        gone_ms = periods.dropped_until_ms(connection)
        if at[0] < gone_ms:
            raise UnreadableInput(f"--since: what jobs held before {utc_text(gone_ms)} is in archives; begin there")
        everybody = _everybody(connection, at)
        money = currency_in(everybody, currency) if times is None else times.currency
        try:
            there = max(gone_ms, rollups.begin_ms(connection) or 0), at[2]
            rows = _rows_of(connection, counts, span, there)
            jobs = _jobs(connection, rows, terms, at[:2], None if rows_paid is None else _paid(rows_paid, money))
        except UnreadableInput as problem:
            raise UnreadableInput(f"{file} {problem}") from None
    held = sum(line.amount for _, line in everybody.of(Kind.HELD)) - sum(cell.held for cell in jobs.values())
    if rows_paid is None:
        others_nanos = _charged(everybody, money) - sum(cell.money.get(money, 0) for cell in jobs.values())
    else:
        others = [row for who, row in rows_paid.items() if who[-1] not in {gang.uid for gang in rows}]
        others_nanos = sum(row.variable + row.idle + row.fixed for row in others)
    return TokenCosts(
        since_ms=at[0], until_ms=at[1], as_of_ms=at[2], basis=CHARGED if costs is None else COST, currency=money,
        jobs=jobs, others_held=held, others_nanos=others_nanos, has_fixed=times is not None and bool(times.fixed),
        gangs=len(rows), by_busy=sum(any(row.busy_ms is not None for row in of) for of in rows.values()), terms=terms,
    )  # fmt: skip


def _everybody(connection: database.Connection, at: tuple[int, int, int]) -> Booked:
    lines = tuple(usage.lines(connection, at[0], at[1], jobs=False))
    return Booked(since_ms=at[0], until_ms=at[1], as_of_ms=at[2], lines=lines)


def _charged(found: Booked, currency: str) -> int:
    """Return what held time cost by its prices, whoever bears it."""
    return sum(
        line.amount
        for account, line in found.of(Kind.SPEND)
        if line.kind == EntryKind.SEGMENT and account.tier in _TIERS and currency_of(line.unit) == currency
    )


def _paid(rows: Mapping[Who, RowCost], currency: str) -> dict[str, dict[tuple[str, str], Paid]]:
    """Return what the platform paid, by uid of a gang, then by tenant and queue."""
    found: dict[str, dict[tuple[str, str], Paid]] = {}
    for (tenant, queue, _, _, uid), row in rows.items():
        hardware = None if row.uncosted else row.variable + row.idle
        found.setdefault(uid, {})[tenant, queue] = Paid(currency, hardware, row.fixed)
    return found


def _jobs(
    connection: database.Connection,
    rows: Mapping[Gang, Sequence[Count]],
    terms: Terms,
    time: tuple[int, int],
    paid: Mapping[str, Mapping[tuple[str, str], Paid]] | None,
) -> dict[tuple[Key, Gang], Cell]:
    """Divide what each gang held in a time, one after the other."""
    found: dict[tuple[Key, Gang], Cell] = {}
    for gang in sorted(rows):
        from_ms, to_ms = reach(rows[gang], time)
        posted = (sealed.entry for sealed in entries.of_gang(connection, gang.uid, from_ms, to_ms))
        of_gang = None if paid is None else paid.get(gang.uid, {})
        for key, cell in divided(posted, rows[gang], terms, time, of_gang).items():
            found[key, gang] = cell
    return found


def _rows_of(
    connection: database.Connection, counts: Sequence[Count], span: Span | None, there: tuple[int, int]
) -> dict[Gang, list[Count]]:
    """Return the rows in a span by gang, after all checks that need other rows or the books, which have a time `there`.

    A gang of which rows tell only outside of it has none: all that it held in the span is without counts.
    """
    known = _Known(connection, counts)
    told: dict[Gang, list[Count]] = {}
    for row in counts:
        asked = span is None or (row.from_ms < span.to_ms and row.to_ms > span.from_ms)
        if asked and (row.from_ms < there[0] or row.to_ms > there[1]):
            field, time = ("from", row.from_ms) if row.from_ms < there[0] else ("to", row.to_ms)
            known_of = f"the books have everything from {utc_text(there[0])} to {utc_text(there[1])}"
            raise _refused(row, field, f"is {utc_text(time)}; {known_of}; leave the row out")
        found = known.of(row)
        if asked and len(found) != 1:
            raise _unclear(row, found)
        if len(found) == 1:
            told.setdefault(found[0], []).extend([row] if asked else [])
    for of in told.values():
        _check(of)
    return told


class _Known:
    """The gangs of the books that rows may mean."""

    def __init__(self, connection: database.Connection, rows: Sequence[Count]) -> None:
        uids = sorted({row.gang for row in rows if row.gang})
        self._by_uid = {found[0]: Gang(*found) for found in entries.holders(connection, "gang", uids)}
        self._by_name: dict[tuple[str, str], list[Gang]] = {}
        for found in entries.holders(connection, "name", sorted({row.name for row in rows if row.name})):
            self._by_name.setdefault(found[1:3], []).append(Gang(*found))

    def of(self, row: Count) -> list[Gang]:
        """Return the gang of a row's uid, or those of its name that held something in its time, sorted."""
        if row.gang:
            return [self._by_uid[row.gang]] if row.gang in self._by_uid else []
        same = self._by_name.get((row.namespace, row.name), ())
        return sorted(gang for gang in same if gang.since_ms < row.to_ms and gang.until_ms > row.from_ms)


def _unclear(row: Count, found: Sequence[Gang]) -> UnreadableInput:
    """Return what to say of a row that is of no gang, or of several."""
    name = f"{row.namespace}/{row.name}"
    if found:
        uids = " and ".join(gang.uid for gang in found[:2])
        return _refused(row, "name", f"there are several gangs {name!r} of that time; give a uid instead: {uids} …")
    if row.gang:
        return _refused(row, "gang", f"the books know no gang {row.gang!r}; mend its uid, or leave the row out")
    return _refused(row, "name", f"the books know no gang {name!r} of that time; mend it, or leave the row out")


def _check(rows: Sequence[Count]) -> None:
    """Refuse a gang's rows that contradict each other."""
    with_busy = [row for row in rows if row.busy_ms is not None]
    without = [row for row in rows if row.busy_ms is None]
    if with_busy and without:
        there = f"line {with_busy[0].line} of the same gang has it"
        raise _refused(without[0], "busy_ms", f"is missing, and {there}; give it in all rows of a gang, or in none")
    ordered = sorted(rows, key=lambda row: (row.of, row.from_ms, row.line))
    for before, row in pairwise(ordered):
        if before.of == row.of and row.from_ms < before.to_ms:
            first, second = sorted((before, row), key=lambda one: one.line)
            same = (before.from_ms, before.to_ms) == (row.from_ms, row.to_ms)
            how = "is of the same time as" if same else "overlaps"
            raise _refused(
                second, "from", f"{how} line {first.line}, of the same gang and class; leave one of them out"
            )


def _refused(row: Count, field: str, why: str) -> UnreadableInput:
    return UnreadableInput(f"line {row.line}: {field}: {why}")


def report(found: TokenCosts, by: By) -> Document:
    """Return what the tokens of each job, queue or tenant cost, by class and by peak.

    Held time that no row tells of has rows of its own, without tokens. What all others held is beside the rows. What is
    paid whatever is held stands apart, and is part of what a million costs.
    """
    sums: dict[tuple[tuple[str, ...], TokenClass, str], Cell] = {}
    uncosted: list[Cell] = []
    for (key, gang), cell in found.jobs.items():
        whose = (key.tenant, key.queue, gang.namespace, gang.name, gang.uid)[: len(columns_of(by))]
        row = sums.setdefault((whose, key.of, key.when), Cell())
        row.add(cell)
        if found.basis == COST and cell.held and found.currency not in cell.money:
            uncosted.append(row)
    for row in uncosted:  # what the others cost is not what all their tokens cost
        row.money.clear()
    rows = [
        (*whose, *of, when, *_numbers(of, cell, found))
        for (whose, of, when), cell in sorted(sums.items(), key=lambda item: item[0])
        if cell.held or cell.money.get(found.currency)
    ]
    facts: dict[str, Value] = {
        "counts": SELF_REPORTED,
        "basis": found.basis,
        "currency": found.currency or None,
        "peak": _peak_text(found.terms),
        "weights": " ".join(f"{word}={fixed_text(weight, 9)}" for word, weight in found.terms.weights.items()),
        "gangs": found.gangs,
        "gangs_by_busy_time": found.by_busy,
        "others_held_gpu_ms": gpu_ms(found.others_held),
        "others_cost_nanos": found.others_nanos if found.currency else None,
    }
    columns = (
        *columns_of(by), "class", "cached", "context", "time", "counts", "tokens", "tokens_within_slo", "held_gpu_ms",
        "unmeasured_gpu_ms", "used_permille", "cost_nanos", *(("fixed_nanos",) if found.basis == COST else ()),
        "per_million_nanos", "per_million_within_slo_nanos",
    )  # fmt: skip
    return Document(
        report="tokens", since_ms=found.since_ms, until_ms=found.until_ms, as_of_ms=found.as_of_ms, columns=columns,
        rows=tuple(rows), facts=facts,
    )  # fmt: skip


def _numbers(of: TokenClass, cell: Cell, found: TokenCosts) -> tuple[Value, ...]:
    told = of != NO_COUNTS
    cost, tokens = cell.money.get(found.currency), cell.within + cell.beyond
    whole = None if cost is None else cost + cell.fixed
    fixed = (cell.fixed if found.has_fixed else None,) if found.basis == COST else ()
    return (
        SELF_REPORTED if told else "none",
        tokens if told else None,
        cell.within if told else None,
        gpu_ms(cell.held),
        gpu_ms(cell.held - cell.known),
        cell.used * 1_000 // cell.held if cell.known and cell.held else None,
        cost,
        *fixed,
        _per_million(whole, tokens),
        _per_million(whole, cell.within),
    )


def _per_million(nanos: int | None, tokens: int) -> int | None:
    """Return what a million costs, rounded half up; None where there are no tokens, or no price."""
    return None if nanos is None or not tokens else (2 * nanos * _MILLION + tokens) // (2 * tokens)


def _peak_text(terms: Terms) -> str:
    if terms.peak is None:
        return ""
    begin, end = (f"{minute // 60:02}:{minute % 60:02}" for minute in (terms.peak.from_minute, terms.peak.to_minute))
    return f"{begin}-{end} {terms.peak.zone.name}"
