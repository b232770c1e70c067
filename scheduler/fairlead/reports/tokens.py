"""What tokens cost: the money of the device time that gangs held, idle time included, over the tokens they served.

Theory of operation. A gang's time is cut wherever something changes: where a row of its counts begins or ends, at an
edge of a peak, at the edges of the window. From the entries comes what was held in each such stretch, what of that was
used, and what it cost, whoever bears it: to the tick and the nano-unit. It is given to the classes of tokens that rows
tell of in this stretch, in proportion to the device time that they took, or to weighted tokens; the parts sum to the
whole exactly. A stretch that no row covers is a class of its own. A row's tokens lie over its time as the held device
time does.

Counts are told by who serves the tokens. So this is a report, and nothing that anybody is billed by.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from fairlead.errors import UnreadableInput
from fairlead.ledger import accounts
from fairlead.ledger.accounts import Kind
from fairlead.ledger.entry import TIMELINE, Entry
from fairlead.ledger.periods import clipped
from fairlead.ledger.prices import largest_remainder
from fairlead.model.windows import Window
from fairlead.reports.token_counts import Count, TokenClass
from fairlead.units import NANO, utc_text

WEIGHTS: Mapping[str, int] = {
    "prompt": NANO, "completion": 4 * NANO, "cached": NANO // 10, "uncached": NANO, "short": NANO, "long": NANO,
}  # fmt: skip
"""How much a token of each kind counts where nobody measured, in billionths: those of a class are multiplied.

They are an assumption: tokens of an answer are made one by one, those of a question many at once, and cached ones are
only looked up.
"""
NO_COUNTS = TokenClass("no counts", "", "")
"""What held time is put to that no row tells of."""
PEAK, OFF_PEAK, ANY_TIME = "peak", "off-peak", "any"
_FINE = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How time and money are divided: weights by word in billionths, all more than 0; None has no peaks."""

    weights: Mapping[str, int] = field(default_factory=lambda: WEIGHTS)
    peak: Window | None = None

    def weight(self, of: TokenClass) -> int:
        """Return how much a token of a class counts."""
        cached = "cached" if of.cached == "yes" else "uncached"
        return self.weights[of.kind] * self.weights[cached] * self.weights[of.context]


@dataclass(slots=True)
class Cell:
    """Held time: ticks held, of them used and of them known to be anything, and nano-units by currency.

    `fixed` are the nano-units that are paid whatever is held. `within` and `beyond` are tokens that were counted in it,
    within their SLO and not.
    """

    held: int = 0
    used: int = 0
    known: int = 0
    money: dict[str, int] = field(default_factory=dict[str, int])
    fixed: int = 0
    within: int = 0
    beyond: int = 0

    def add(self, more: Cell) -> None:
        """Add what another has."""
        self.held, self.used, self.known = self.held + more.held, self.used + more.used, self.known + more.known
        self.within, self.beyond, self.fixed = (
            self.within + more.within, self.beyond + more.beyond, self.fixed + more.fixed,
        )  # fmt: skip
        for currency, nanos in more.money.items():
            self.money[currency] = self.money.get(currency, 0) + nanos


class Paid(NamedTuple):
    """What the time that a gang held for a queue in a window cost the platform, in nano-units of a currency.

    `hardware` is None where nobody said what some of it costs.
    """

    currency: str
    hardware: int | None
    fixed: int


class Key(NamedTuple):
    """Whose held time it is, and what it was put to."""

    tenant: str
    queue: str
    of: TokenClass
    when: str


def reach(rows: Iterable[Count], window: tuple[int, int]) -> tuple[int, int]:
    """Return from when to when a gang's entries are needed: in the window, and in rows which stick out of it."""
    spans = [window, *((row.from_ms, row.to_ms) for row in rows)]
    return min(begin for begin, _ in spans), max(end for _, end in spans)


def divided(
    entries: Iterable[Entry],
    rows: Sequence[Count],
    terms: Terms,
    window: tuple[int, int],
    paid: Mapping[tuple[str, str], Paid] | None = None,
) -> dict[Key, Cell]:
    """Return what of a gang's held time in a window was put to which class, with the tokens of it.

    `rows` are the gang's, of one class no two of one time, and either all or none tell `busy_ms`; `entries` are the
    gang's in their `reach`. The money is what entries charge, unless `paid` says by tenant and queue what the platform
    paid: that lies over the held time evenly.

    Raises
    ------
    UnreadableInput
        A row has tokens of a time in which nothing was held; the text has its line.
    """
    begin_ms, end_ms = reach(rows, window)
    peaks = _Peaks(terms.peak, begin_ms, end_ms)
    moments = {*window, *(edge for edge in peaks.edges if begin_ms < edge < end_ms)}
    moments |= {*(row.from_ms for row in rows), *(row.to_ms for row in rows)}
    edges = sorted(moments)
    found = _cells(entries, edges)
    if paid is not None:
        _lay(found, edges, window, paid)
    told = _Told(found, edges, rows, terms)
    sums: dict[Key, Cell] = {}
    for at, stretch in groupby(sorted(found.items(), key=lambda item: item[0]), key=lambda item: item[0][0]):
        active, when = told.at(at), peaks.at(edges[at])
        for (_, tenant, queue), cell in stretch:
            for of, part in told.parts(active, cell):
                if window[0] <= edges[at] < window[1]:
                    sums.setdefault(Key(tenant, queue, of, when), Cell()).add(part)
    return sums


class _Peaks:
    """The peaks that touch a time: `edges` are the moments at which one begins or ends, in turn."""

    def __init__(self, window: Window | None, from_ms: int, until_ms: int) -> None:
        self._none = window is None
        self.edges: list[int] = []
        for begin, end in window.spans(from_ms, until_ms) if window else ():
            if self.edges and begin <= self.edges[-1]:
                self.edges[-1] = end
            else:
                self.edges += (begin, end)

    def at(self, at_ms: int) -> str:
        """Return which time a moment is of."""
        if self._none:
            return ANY_TIME
        return PEAK if bisect_right(self.edges, at_ms) % 2 else OFF_PEAK


def _cells(entries: Iterable[Entry], edges: Sequence[int]) -> dict[tuple[int, str, str], Cell]:
    """Sum held time by (number of the stretch between neighbouring edges, tenant, queue)."""
    found: dict[tuple[int, str, str], Cell] = {}
    for entry in entries:
        whose = accounts.parse(entry.account)
        amounts = [(part.unit, part.amount) for part in entry.postings]
        at = max(0, bisect_right(edges, entry.from_ms) - 1)
        while at + 1 < len(edges) and edges[at] < entry.to_ms:
            parts = clipped(amounts, (entry.from_ms, entry.to_ms), (edges[at], edges[at + 1]))
            _book(found.setdefault((at, whose.tenant, whose.queue), Cell()), entry, parts)
            at += 1
    return found


def _book(cell: Cell, entry: Entry, parts: Sequence[int]) -> None:
    """Add the parts of an entry's postings that lie in a stretch. What a queue is given back takes nothing off."""
    for posting, amount in zip(entry.postings, parts, strict=True):
        account = accounts.parse(posting.account)
        if account.kind is Kind.HELD:
            cell.held += amount
        elif account.kind is Kind.WASTE or (account.kind is Kind.USE and account.use != "unmeasured"):
            cell.known += amount
            cell.used += amount if account.use == "used" else 0
        elif account.kind is Kind.SPEND and entry.kind in TIMELINE:
            currency = accounts.currency_of(posting.unit) or ""
            cell.money[currency] = cell.money.get(currency, 0) + amount


def _lay(
    found: Mapping[tuple[int, str, str], Cell],
    edges: Sequence[int],
    window: tuple[int, int],
    paid: Mapping[tuple[str, str], Paid],
) -> None:
    """Put what was paid in place of what was charged, over what each queue held in the window; the parts sum to it."""
    mine: dict[tuple[str, str], list[Cell]] = {}
    for (at, *whose), cell in sorted(found.items(), key=lambda item: item[0]):
        cell.money.clear()
        if window[0] <= edges[at] < window[1]:
            mine.setdefault((whose[0], whose[1]), []).append(cell)
    for of, its in mine.items():
        weights = [cell.held for cell in its]
        if of not in paid or not any(weights):
            continue
        for cell, part in zip(its, largest_remainder(paid[of].fixed, weights), strict=True):
            cell.fixed = part
        hardware = paid[of].hardware
        if hardware is not None:
            for cell, part in zip(its, largest_remainder(hardware, weights), strict=True):
                cell.money[paid[of].currency] = part


class _Told:
    """The rows of one gang as a walk through its stretches meets them."""

    def __init__(
        self, found: Mapping[tuple[int, str, str], Cell], edges: Sequence[int], rows: Iterable[Count], terms: Terms
    ) -> None:
        self._edges, self._terms = edges, terms
        self._later = sorted(rows, key=lambda row: (row.from_ms, row.of), reverse=True)
        self._active: list[Count] = []
        ticks = [0] * len(edges)
        for (at, _, _), cell in found.items():
            ticks[at + 1] += cell.held
        self._until: dict[int, int] = {}
        self._passed = whole = 0
        for edge, more in zip(edges, ticks, strict=True):
            whole += more
            self._until[edge] = whole
        for row in self._later:
            if (row.within or row.beyond or row.busy_ms) and not self._span(row)[1]:
                raise UnreadableInput(
                    f"line {row.line}: from: the gang held no device from {utc_text(row.from_ms)} to "
                    f"{utc_text(row.to_ms)} (UTC); mend from and to, or which gang it is"
                )

    def at(self, at: int) -> list[Count]:
        """Return the rows around a stretch, by class; stretches are asked for in their order."""
        begin = self._edges[at]
        while self._later and self._later[-1].from_ms <= begin:
            self._active.append(self._later.pop())
        self._active = sorted((row for row in self._active if row.to_ms > begin), key=lambda row: row.of)
        return self._active

    def parts(self, active: Sequence[Count], cell: Cell) -> Iterator[tuple[TokenClass, Cell]]:
        """Yield what each class gets of the next held time; the parts sum to it."""
        weights = self._weights(active, cell)
        named = [row.of for row in active] or [NO_COUNTS]
        held, used, known, fixed = (
            largest_remainder(amount, weights) for amount in (cell.held, cell.used, cell.known, cell.fixed)
        )
        money = {currency: largest_remainder(nanos, weights) for currency, nanos in cell.money.items()}
        first, self._passed = self._passed, self._passed + cell.held
        for at, of in enumerate(named):
            of_money = {currency: nanos[at] for currency, nanos in money.items()}
            part = Cell(held[at], used[at], known[at], of_money, fixed[at])
            if active:
                part.within = self._dealt(active[at], first, active[at].within)
                part.beyond = self._dealt(active[at], first, active[at].beyond)
            yield of, part

    def _weights(self, active: Sequence[Count], cell: Cell) -> list[int]:
        """Return in which proportion rows share held time; where none of them counted anything, by class alone."""
        found = [self._counted(row) * _FINE * cell.held // (self._span(row)[1] or 1) for row in active]
        return found if any(found) else [self._terms.weight(row.of) for row in active] or [1]

    def _counted(self, row: Count) -> int:
        return (row.within + row.beyond) * self._terms.weight(row.of) if row.busy_ms is None else row.busy_ms

    def _span(self, row: Count) -> tuple[int, int]:
        """Return the ticks that were held before a row and in it."""
        before = self._until[row.from_ms]
        return before, self._until[row.to_ms] - before

    def _dealt(self, row: Count, first: int, tokens: int) -> int:
        """Return what of a row's tokens lies in the held time after `first` ticks, up to what is passed."""
        before, whole = self._span(row)
        return tokens * (self._passed - before) // whole - tokens * (first - before) // whole if whole else 0
