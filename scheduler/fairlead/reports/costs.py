"""What device time costs the platform itself, beside what it charges: by part, idle time and fixed costs apart.

    hardware     of each model, ticks that were there x what an hour of a GPU costs; of held time by part
    idle         what nobody held of a model is borne by those who held that model, in proportion to how much
    fixed        what is paid whatever is held, divided over all held time

Everything is summed exactly and rounded once: whole nano-units are dealt out by largest remainder, first over the
fleet, then within it. So rows sum to what the hardware of the time cost, to the nano-unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

from fairlead.errors import UnreadableInput
from fairlead.ledger import accounts
from fairlead.ledger.accounts import Kind, currency_of
from fairlead.ledger.costs import CostList, Part, fixed_nanos
from fairlead.ledger.prices import HOUR_MS, largest_remainder
from fairlead.model.calendars import Calendar, Span
from fairlead.model.prices import PriceBook
from fairlead.model.rates import PRICE_SCALE
from fairlead.reports.booked import By, columns_of, gpu_ms, key_of, window
from fairlead.reports.device_models import Models, by_model
from fairlead.reports.document import Document, Value
from fairlead.reports.prices import books_in
from fairlead.reports.statements import calendar_of
from fairlead.store import engine as database
from fairlead.store import periods, snapshots, usage
from fairlead.units import NANO, TICKS_PER_GPU_MS, utc_text

Who = tuple[str, ...]
"""Tenant, queue, namespace, name and gang, as far as they are told apart."""
_GPU_HOUR = TICKS_PER_GPU_MS * HOUR_MS
_NANOS = _GPU_HOUR * (PRICE_SCALE // NANO)  # ticks x `PRICE_SCALE` in a nano-unit
_IDLE = (Kind.RESERVED_IDLE, Kind.STRANDED, Kind.FREE, Kind.DOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the books know whatever time is asked for. The calendar is that of their periods."""

    books: tuple[PriceBook, ...]
    calendar: Calendar
    models: Models


@dataclass(slots=True, kw_only=True)
class ModelTime:
    """Ticks of one model while an hour of it costs `parts` (`PRICE_SCALE`), None where nothing says what it costs."""

    model: str
    parts: Mapping[Part, int] | None
    held: dict[Who, int] = field(default_factory=dict[Who, int])
    idle: int = 0
    unmanaged: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTimes:
    """What was in a time, and what it cost. `charged` and `fixed` are nano-units of the currency."""

    since_ms: int
    until_ms: int
    as_of_ms: int
    currency: str
    times: tuple[ModelTime, ...]
    charged: Mapping[Who, int]
    fixed: Mapping[str, int]


@dataclass(slots=True)
class RowCost:
    """What one row's held time cost, nano-units. `held` and, of that, `uncosted` are ticks.

    `parts` and `idle` are of time that has a cost only. `charged` is None where nothing was.
    """

    held: int = 0
    uncosted: int = 0
    parts: dict[Part, int] = field(default_factory=lambda: dict.fromkeys(Part, 0))
    idle: int = 0
    fixed: int = 0
    charged: int | None = None

    @property
    def is_known(self) -> bool:
        """Whether anything of it has a cost, or nothing was held."""
        return self.uncosted < self.held or not self.held

    @property
    def variable(self) -> int:
        """What its hardware cost while it was held."""
        return sum(self.parts.values())

    @property
    def total(self) -> int | None:
        """All that it cost; None where a part of the time has no cost."""
        return None if self.uncosted else self.variable + self.idle + self.fixed


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Rows, and what is in none of them: all in nano-units.

    `hardware` is the sum of all rows' `variable` and `idle`, of `unmanaged` (held by allocations that are not ours) and
    of `unborne` (of models that nobody held). `fixed` is the sum of the rows', where anything was held.
    """

    rows: Mapping[Who, RowCost]
    hardware: int
    unmanaged: int
    unborne: int
    fixed: int


def known(engine: database.Engine) -> Known:
    """Return what costs are worked out from, whatever time is asked for."""
    with database.reading(engine) as connection:
        pricing = snapshots.current(connection).pricing
        return Known(books=books_in(connection), calendar=calendar_of(connection), models=pricing.models)


def device_times(
    engine: database.Engine, facts: Known, span: Span | None, *, jobs: bool, currency: str | None = None
) -> DeviceTimes:
    """Return what was in a span as the books have it now, of everything where there is none.

    Raises
    ------
    NotFound
        Nothing was booked in it.
    UnreadableInput
        Part of it was dropped to an archive, or the costs are in several currencies and none is named.
    """
    money = _currency(facts.books, currency)
    costs = CostList(facts.books, money)
    times: dict[tuple[int, str], ModelTime] = {}
    charged: dict[Who, int] = {}
    with database.reading(engine) as connection:
        since_ms, until_ms, as_of_ms = window(connection, span)
        latest_ms = periods.dropped_until_ms(connection)
        if since_ms < latest_ms:
            raise UnreadableInput(
                f"--since: entries before {utc_text(latest_ms)} are in archives, and what is kept of them does not say "
                "on which devices; begin there"
            )
        for begin, end in pairwise(costs.edges(since_ms, until_ms)):
            lines = usage.lines(connection, begin, end, jobs=jobs)
            for line in lines:
                if currency_of(line.unit) == money and line.account.startswith(f"{Kind.SPEND}:"):
                    who = key_of(accounts.parse(line.account), line, By.JOB)
                    charged[who] = charged.get(who, 0) + line.amount
            for model, line in by_model(connection, facts.models, (begin, end), lines):
                time = times.get((begin, model))
                if time is None:
                    time = times[begin, model] = ModelTime(model=model, parts=costs.at(model, begin))
                account = accounts.parse(line.account)
                if account.kind is Kind.HELD:
                    who = key_of(account, line, By.JOB)
                    time.held[who] = time.held.get(who, 0) + line.amount
                elif account.kind is Kind.UNMANAGED:
                    time.unmanaged += line.amount
                elif account.kind in _IDLE:
                    time.idle += line.amount
    return DeviceTimes(
        since_ms=since_ms,
        until_ms=until_ms,
        as_of_ms=as_of_ms,
        currency=money,
        times=tuple(times[key] for key in sorted(times)),
        charged=charged,
        fixed=fixed_nanos(costs.fixed, facts.calendar, since_ms, until_ms),
    )


def costs_by(found: DeviceTimes, by: By) -> Costs:
    """Return what everybody's held time cost: the hardware, with what nobody held of it, and the fixed costs.

    Of one job, `rows` has it under `key_of` by job, if `found` has jobs. The sums beside the rows are the same by
    whatever they are.
    """
    rows, models = _rows(found, by), _exact(found.times, by)
    amounts = {
        (model, what): amount
        for model, exact in models.items()
        for what, amount in (("held", sum(exact.held.values())), ("idle", exact.idle), ("others", exact.unmanaged))
    }
    nanos = _dealt(sum(amounts.values()) // _NANOS, amounts)
    unborne = 0
    for model, exact in models.items():
        for (who, part), share in _dealt(nanos.get((model, "held"), 0), exact.held).items():
            rows[who].parts[part] += share
        idle = nanos.get((model, "idle"), 0)
        borne = _dealt(idle, exact.ticks)
        for who, share in borne.items():
            rows[who].idle += share
        unborne += idle - sum(borne.values())
    fixed = sum(found.fixed.values())
    for who, share in _dealt(fixed, {who: row.held for who, row in rows.items()}).items():
        rows[who].fixed = share
    unmanaged = sum(nanos.get((model, "others"), 0) for model in models)
    return Costs(rows=rows, hardware=sum(nanos.values()), unmanaged=unmanaged, unborne=unborne, fixed=fixed)


def costs(found: DeviceTimes, by: By) -> Document:
    """Return what everybody's held time cost the platform, beside what it was charged."""
    dealt = costs_by(found, by)
    rows: list[tuple[Value, ...]] = []
    for who, row in sorted(dealt.rows.items()):
        total = row.total
        rows.append(
            (
                *who,
                gpu_ms(row.held),
                gpu_ms(row.uncosted),
                *(row.parts[part] if row.is_known else None for part in Part),
                *(amount if row.is_known else None for amount in (row.variable, row.idle)),
                row.fixed if found.fixed else None,
                total,
                row.charged,
                None if total is None or not row.held else total * _GPU_HOUR // row.held,
            )
        )
    columns = (
        *columns_of(by), "held_gpu_ms", "uncosted_gpu_ms", *(f"{part}_nanos" for part in Part), "variable_nanos",
        "idle_nanos", "fixed_nanos", "total_nanos", "charged_nanos", "per_gpu_hour_nanos",
    )  # fmt: skip
    return Document(
        report="costs",
        since_ms=found.since_ms,
        until_ms=found.until_ms,
        as_of_ms=found.as_of_ms,
        columns=columns,
        rows=tuple(rows),
        facts=_facts(found, dealt),
    )


def _facts(found: DeviceTimes, dealt: Costs) -> dict[str, Value]:
    """Return the fleet's sums, and the models that nothing says the cost of."""
    held = sum(sum(time.held.values()) for time in found.times)
    idle, unmanaged = sum(time.idle for time in found.times), sum(time.unmanaged for time in found.times)
    without = sorted({time.model or "unknown" for time in found.times if time.parts is None})
    is_known = any(time.parts is not None for time in found.times)
    return {
        "currency": found.currency or None,
        "capacity_gpu_ms": gpu_ms(held + idle + unmanaged),
        "idle_gpu_ms": gpu_ms(idle),
        "unmanaged_gpu_ms": gpu_ms(unmanaged),
        "hardware_nanos": dealt.hardware if is_known else None,
        "unmanaged_nanos": dealt.unmanaged if is_known else None,
        "unborne_nanos": dealt.unborne if is_known else None,
        **{f"fixed_nanos {name}": amount for name, amount in found.fixed.items()},
        "without_costs": ", ".join(without),
    }


@dataclass(slots=True)
class _Exact:
    """One model's time that has a cost: ticks held; the rest in ticks x `PRICE_SCALE`."""

    ticks: dict[Who, int] = field(default_factory=dict[Who, int])
    held: dict[tuple[Who, Part], int] = field(default_factory=dict[tuple[Who, Part], int])
    idle: int = 0
    unmanaged: int = 0


def _exact(times: Iterable[ModelTime], by: By) -> dict[str, _Exact]:
    found: dict[str, _Exact] = {}
    for time in times:
        if time.parts is None:
            continue
        exact, per_hour = found.setdefault(time.model, _Exact()), sum(time.parts.values())
        exact.idle += time.idle * per_hour
        exact.unmanaged += time.unmanaged * per_hour
        for job, ticks in time.held.items():
            who = _kept(job, by)
            exact.ticks[who] = exact.ticks.get(who, 0) + ticks
            for part, amount in time.parts.items():
                exact.held[who, part] = exact.held.get((who, part), 0) + ticks * amount
    return dict(sorted(found.items()))


def _rows(found: DeviceTimes, by: By) -> dict[Who, RowCost]:
    """Return a row for whoever held or was charged anything, without costs."""
    rows: dict[Who, RowCost] = {}
    for time in found.times:
        for job, ticks in time.held.items():
            row = rows.setdefault(_kept(job, by), RowCost())
            row.held += ticks
            row.uncosted += ticks if time.parts is None else 0
    for job, nanos in found.charged.items():
        row = rows.setdefault(_kept(job, by), RowCost())
        row.charged = (row.charged or 0) + nanos
    return rows


def _kept(job: Who, by: By) -> Who:
    return job[: len(columns_of(by))]


_K = TypeVar("_K", bound=tuple[Any, ...])


def _dealt(total: int, weights: Mapping[_K, int]) -> dict[_K, int]:
    """Divide an amount in proportion by largest remainder, of equals to the first by name; among nobody to nobody."""
    keys = sorted(weights)
    if sum(weights.values()) <= 0:
        return {}
    return dict(zip(keys, largest_remainder(total, [weights[key] for key in keys]), strict=True))


def _currency(books: Iterable[PriceBook], wanted: str | None) -> str:
    """Return the currency of the costs, "" where there are none."""
    there = sorted({book.currency for book in books if book.costs or book.fixed})
    if wanted is not None:
        return wanted
    if len(there) > 1:
        raise UnreadableInput(f"--currency: the price books have costs in {' and '.join(there)}; name one")
    return there[0] if there else ""
