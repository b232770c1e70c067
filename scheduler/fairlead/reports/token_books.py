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
from fairlead.reports.document import Document, Value
from fairlead.reports.token_counts import Count, TokenClass
from fairlead.reports.tokens import NO_COUNTS, Cell, Key, Terms, divided, reach
from fairlead.store import engine as database
from fairlead.store import entries, periods, rollups, usage
from fairlead.units import fixed_text, utc_text

SELF_REPORTED = "self-reported"
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
    """What was put to which tokens of which job in a window. `everybody` is what the books have of everybody in it.

    `by_busy` of the `gangs` told device time, the others tokens alone.
    """

    since_ms: int
    until_ms: int
    as_of_ms: int
    jobs: Mapping[tuple[Key, Gang], Cell]
    everybody: Booked
    gangs: int
    by_busy: int
    terms: Terms


def from_database(
    engine: database.Engine, span: Span | None, counts: Sequence[Count], file: str, terms: Terms
) -> TokenCosts:
    """Look up what the gangs that rows name held in a span, None is ever, and divide it among their tokens.

    Rows that lie outside of the span are passed over, but for which gangs they name.

    Raises
    ------
    NotFound
        Nothing was booked in the span.
    UnreadableInput
        A row contradicts another one or the books; the text has `file` and line.
    """
    with database.reading(engine) as connection:
        since_ms, until_ms, as_of_ms = window(connection, span)
        gone_ms = max((step.latest_ms for step in periods.dropped(connection)), default=0)
        if since_ms < gone_ms:
            raise UnreadableInput(f"--since: what jobs held before {utc_text(gone_ms)} is in archives; begin there")
        everybody = Booked(
            since_ms=since_ms, until_ms=until_ms, as_of_ms=as_of_ms,
            lines=tuple(usage.lines(connection, since_ms, until_ms, jobs=False)),
        )  # fmt: skip
        try:
            there = max(gone_ms, rollups.begin_ms(connection) or 0), as_of_ms
            rows = _rows_of(connection, counts, span, there)
            found: dict[tuple[Key, Gang], Cell] = {}
            for gang in sorted(rows):
                from_ms, to_ms = reach(rows[gang], (since_ms, until_ms))
                posted = (sealed.entry for sealed in entries.of_gang(connection, gang.uid, from_ms, to_ms))
                for key, cell in divided(posted, rows[gang], terms, (since_ms, until_ms)).items():
                    found[key, gang] = cell
        except UnreadableInput as problem:
            raise UnreadableInput(f"{file} {problem}") from None
    return TokenCosts(
        since_ms=since_ms, until_ms=until_ms, as_of_ms=as_of_ms, jobs=found, everybody=everybody, gangs=len(rows),
        by_busy=sum(any(row.busy_ms is not None for row in of) for of in rows.values()), terms=terms,
    )  # fmt: skip


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


def report(found: TokenCosts, by: By, currency: str | None = None) -> Document:
    """Return what the tokens of each job, queue or tenant cost, by class and by peak.

    Held time that no row tells of has rows of its own, without tokens. What all others held is beside the rows.
    """
    money = currency_in(found.everybody, currency)
    sums: dict[tuple[tuple[str, ...], TokenClass, str], Cell] = {}
    for (key, gang), cell in found.jobs.items():
        whose = (key.tenant, key.queue, gang.namespace, gang.name, gang.uid)[: len(columns_of(by))]
        sums.setdefault((whose, key.of, key.when), Cell()).add(cell)
    rows = [
        (*whose, *of, when, *_numbers(of, cell, money))
        for (whose, of, when), cell in sorted(sums.items(), key=lambda item: item[0])
        if cell.held or cell.money.get(money)
    ]
    held, cost = _of_everybody(found.everybody, money)
    facts: dict[str, Value] = {
        "counts": SELF_REPORTED,
        "currency": money or None,
        "peak": _peak_text(found.terms),
        "weights": " ".join(f"{word}={fixed_text(weight, 9)}" for word, weight in found.terms.weights.items()),
        "gangs": found.gangs,
        "gangs_by_busy_time": found.by_busy,
        "others_held_gpu_ms": gpu_ms(held - sum(cell.held for cell in sums.values())),
        "others_cost_nanos": cost - sum(cell.money.get(money, 0) for cell in sums.values()) if money else None,
    }
    columns = (
        *columns_of(by), "class", "cached", "context", "time", "counts", "tokens", "tokens_within_slo", "held_gpu_ms",
        "unmeasured_gpu_ms", "used_permille", "cost_nanos", "per_million_nanos", "per_million_within_slo_nanos",
    )  # fmt: skip
    return Document(
        report="tokens", since_ms=found.since_ms, until_ms=found.until_ms, as_of_ms=found.as_of_ms, columns=columns,
        rows=tuple(rows), facts=facts,
    )  # fmt: skip


def _numbers(of: TokenClass, cell: Cell, currency: str) -> tuple[Value, ...]:
    told = of != NO_COUNTS
    cost, tokens = cell.money.get(currency), cell.within + cell.beyond
    return (
        SELF_REPORTED if told else "none",
        tokens if told else None,
        cell.within if told else None,
        gpu_ms(cell.held),
        gpu_ms(cell.held - cell.known),
        cell.used * 1_000 // cell.held if cell.known and cell.held else None,
        cost,
        _per_million(cost, tokens),
        _per_million(cost, cell.within),
    )


def _per_million(nanos: int | None, tokens: int) -> int | None:
    """Return what a million costs, rounded half up; None where there are no tokens, or no price."""
    return None if nanos is None or not tokens else (2 * nanos * _MILLION + tokens) // (2 * tokens)


def _of_everybody(found: Booked, currency: str) -> tuple[int, int]:
    """Return the ticks that were held, and what those cost, whoever bears it."""
    held = sum(line.amount for _, line in found.of(Kind.HELD))
    return held, sum(
        line.amount
        for account, line in found.of(Kind.SPEND)
        if line.kind == EntryKind.SEGMENT and account.tier in _TIERS and currency_of(line.unit) == currency
    )


def _peak_text(terms: Terms) -> str:
    if terms.peak is None:
        return ""
    begin, end = (f"{minute // 60:02}:{minute % 60:02}" for minute in (terms.peak.from_minute, terms.peak.to_minute))
    return f"{begin}-{end} {terms.peak.zone.name}"
