"""How budgets stand: what was used in the period, how fast, and when it will be used up. Sums are carried on.

A budget counts what its queue and those below it used, in ticks or in money of its own currency. The rate is the mean
of the last day, or of the period where that is younger; at that rate the forecast says when nothing will be left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fairlead.ledger import accounts
from fairlead.ledger.accounts import TICKS, Kind
from fairlead.ledger.meter import OpenSegment
from fairlead.ledger.pricing import Pricing
from fairlead.model.calendars import Span
from fairlead.model.events import QueueSpent
from fairlead.model.queue_caps import Budget
from fairlead.model.tenancy import Queue, ancestors
from fairlead.reports.spending import queues_at
from fairlead.store import engine as database
from fairlead.store import entries, snapshots, usage
from fairlead.units import TICKS_PER_GPU_MS

DAY_MS = 86_400_000

Sums = dict[tuple[str, str], int]
"""(unit, queue) -> ticks or nano-units, of the queue alone."""


@dataclass(frozen=True, slots=True)
class Now:
    """One moment of the books: the last entry's number, what is open, and the prices."""

    number: int
    segments: tuple[OpenSegment, ...]
    pricing: Pricing


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetStanding:
    """How a queue's budget stands at `at_ms`.

    `used` and `amount` are in GPU-ms, or in nano-units where `budget.currency` is named; `gpu_ms` is GPU time in either
    case. `a_day` is what is used a day at the present rate, `exhausted_ms` when nothing is left, None where that is not
    before the period ends.
    """

    queue: str
    budget: Budget
    period: Span
    at_ms: int
    used: int
    gpu_ms: int
    a_day: int

    @property
    def amount(self) -> int:
        """All that may be used."""
        return self.budget.nanos or self.budget.gpu_ms

    @property
    def left(self) -> int:
        """What may still be used, less than 0 where it is overdrawn."""
        return self.amount - self.used

    @property
    def exhausted_ms(self) -> int | None:
        """When nothing is left at the present rate; None where that is not in this period."""
        if self.left <= 0:
            return self.at_ms
        at_ms = self.at_ms + self.left * DAY_MS // self.a_day if self.a_day > 0 else self.period.to_ms
        return at_ms if at_ms < self.period.to_ms else None

    @property
    def alert(self) -> int:
        """The highest percent of `budget.alerts` that is reached, 0 for none."""
        return max((percent for percent in self.budget.alerts if self.used * 100 >= percent * self.amount), default=0)

    @property
    def ahead(self) -> int:
        """How much more is used than an even pace through the period would have, less than 0 for less."""
        gone = self.at_ms - self.period.from_ms
        return self.used - self.amount * gone // (self.period.to_ms - self.period.from_ms)

    def fact(self) -> QueueSpent:
        """Return what the scheduler is told. What is left of money lasts as long as at its mean price so far."""
        worth = None
        if self.budget.currency and (self.used > 0 or self.left <= 0):
            worth = self.gpu_ms + self.left * self.gpu_ms // self.used if self.used > 0 else self.gpu_ms
        return QueueSpent(
            queue=self.queue,
            gpu_ms=self.gpu_ms,
            period_start_ms=self.period.from_ms,
            period_end_ms=self.period.to_ms,
            at_ms=self.at_ms,
            worth_gpu_ms=worth,
        )


@dataclass(slots=True)
class _Since:
    """Sums from a moment on, over the entries up to a number."""

    number: int = 0
    sums: Sums = field(default_factory=Sums)


class BudgetTally:
    """The sums, carried on: a refresh reads the new entries. Not for several threads at once."""

    def __init__(self) -> None:
        """Start before the first entry."""
        self._since: dict[int, _Since] = {}

    def read(
        self, connection: database.Connection, now: Now, queues: Mapping[str, Queue], now_ms: int
    ) -> tuple[BudgetStanding, ...]:
        """Return how the budget of each queue that has one stands, by name."""
        having = {name: queues[name].caps.budget for name in sorted(queues)}
        budgets = {name: budget for name, budget in having.items() if budget is not None}
        if not budgets:
            return ()
        spans = {name: budget.span(now_ms) for name, budget in budgets.items()}
        wanted = {span.from_ms for span in spans.values()}
        self._since = {at: since for at, since in self._since.items() if at in wanted and since.number <= now.number}
        used = {at: self._used(connection, now, at, now_ms, queues) for at in sorted(wanted)}
        lately: dict[int, Sums] = {}
        for at in sorted({max(span.from_ms, now_ms - DAY_MS) for span in spans.values()}):
            fresh = _sums(connection, at, 0, now.number)
            lately[at] = _rolled_up(_with_open(fresh, now, at, now_ms), queues)
        return tuple(
            _standing(name, budgets[name], spans[name], used[spans[name].from_ms], lately, now_ms) for name in budgets
        )

    def _used(
        self, connection: database.Connection, now: Now, at: int, now_ms: int, queues: Mapping[str, Queue]
    ) -> Sums:
        since = self._since.setdefault(at, _Since())
        if since.number < now.number:
            _add(since.sums, _sums(connection, at, since.number, now.number))
            since.number = now.number
        return _rolled_up(_with_open(since.sums, now, at, now_ms), queues)


def from_database(engine: database.Engine) -> tuple[BudgetStanding, ...]:
    """Return how budgets stand from the database alone, as of its newest fact about the fleet."""
    with database.reading(engine) as connection:
        meter = snapshots.current(connection)
        now = Now(entries.head(connection).number, tuple(meter.open_segments()), meter.pricing)
        now_ms = meter.newest_ms or 0
        return BudgetTally().read(connection, now, queues_at(connection, now_ms), now_ms)


def _standing(
    name: str, budget: Budget, span: Span, used: Sums, lately: Mapping[int, Sums], now_ms: int
) -> BudgetStanding:
    unit = accounts.money(budget.currency) if budget.currency else TICKS
    scale = 1 if budget.currency else TICKS_PER_GPU_MS
    since_ms = max(span.from_ms, now_ms - DAY_MS)
    rate = lately[since_ms].get((unit, name), 0) * DAY_MS // max(1, now_ms - since_ms)
    return BudgetStanding(
        queue=name,
        budget=budget,
        period=span,
        at_ms=now_ms,
        used=used.get((unit, name), 0) // scale,
        gpu_ms=used.get((TICKS, name), 0) // TICKS_PER_GPU_MS,
        a_day=rate // scale,
    )


def _sums(connection: database.Connection, since_ms: int, after: int, up_to: int) -> Sums:
    """Sum what lies after a moment, of entries numbered ]after, up_to]."""
    found: Sums = {}
    prefixes = (f"{Kind.HELD}:", f"{Kind.SPEND}:")
    sums = usage.by_account(connection, prefixes, since_ms, after=after, up_to=up_to)
    for (unit, account), amount in sums.items():
        _add(found, {(unit, accounts.parse(account).queue): amount})
    return found


def _with_open(sums: Sums, now: Now, since_ms: int, now_ms: int) -> Sums:
    """Return the sums with what is open, as if it were posted now."""
    found = dict(sums)
    for segment in now.segments:
        account = accounts.parse(segment.state.account)
        begin = max(since_ms, segment.from_ms)
        if begin >= now_ms:
            continue
        if account.kind is Kind.HELD:
            _add(found, {(TICKS, account.queue): (now_ms - begin) * segment.state.ticks})
        for charge in now.pricing.charges(segment.node, segment.device, segment.state, (begin, now_ms)):
            if charge.rate is not None:
                _add(found, {(accounts.money(charge.rate.currency), charge.queue): charge.nanos})
    return found


def _rolled_up(sums: Sums, queues: Mapping[str, Queue]) -> Sums:
    """Return the sums of whole subtrees."""
    found: Sums = {}
    known = dict(queues)
    for (unit, queue), amount in sums.items():
        _add(found, {(unit, name): amount for name in ancestors(queue, known)})
    return found


def _add(sums: Sums, more: Mapping[tuple[str, str], int]) -> None:
    for key, amount in more.items():
        sums[key] = sums.get(key, 0) + amount


class Alerts:
    """Remembers what was said: each percent of each budget is said once a period."""

    def __init__(self) -> None:
        """Nothing was said yet."""
        self._said: dict[str, tuple[str, int]] = {}

    def news(self, standings: Iterable[BudgetStanding]) -> list[BudgetStanding]:
        """Return those that have reached a percent that was not said yet, and note it."""
        found: list[BudgetStanding] = []
        for standing in standings:
            period, percent = self._said.get(standing.queue, ("", 0))
            if period != standing.period.name:
                percent = 0
            if standing.alert > percent:
                found.append(standing)
            self._said[standing.queue] = (standing.period.name, max(percent, standing.alert))
        return found
