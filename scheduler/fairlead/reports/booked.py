"""What reports are made of: the lines that were booked in a window, as of the moment up to which every device is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from fairlead.errors import NotFound, UnreadableInput
from fairlead.ledger import accounts
from fairlead.ledger.accounts import BESIDE, TICKS, Account, Kind
from fairlead.ledger.periods import Line, PeriodState
from fairlead.ledger.rollup import over_jobs
from fairlead.model.calendars import Span
from fairlead.reports.statements import statement
from fairlead.store import engine as database
from fairlead.store import periods, rollups, usage
from fairlead.units import TICKS_PER_GPU_MS, utc_text


class By(StrEnum):
    """What rows are summed over."""

    JOB = "job"
    QUEUE = "queue"
    TENANT = "tenant"


JOB_COLUMNS = ("tenant", "queue", "namespace", "name", "gang")
_KEPT = {By.TENANT: 1, By.QUEUE: 2, By.JOB: 5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """Lines of a window. `period` names it where it is a closed one: then they are its frozen statement's."""

    since_ms: int
    until_ms: int
    as_of_ms: int
    lines: tuple[Line, ...]
    period: str = ""
    sha256: str = ""

    def of(self, *kinds: Kind) -> Iterator[tuple[Account, Line]]:
        """Yield the lines of some kinds of account, of devices and money, with the name taken apart."""
        wanted = {kind.value for kind in kinds}
        for line in self.lines:
            if line.account.partition(":")[0] in wanted and line.unit not in BESIDE:
                yield accounts.parse(line.account), line

    @property
    def capacity_gpu_ms(self) -> int:
        """What there was."""
        return -sum(line.amount for _, line in self.of(Kind.CAPACITY)) // TICKS_PER_GPU_MS


def booked(engine: database.Engine, span: Span | None = None, *, jobs: bool = True) -> Booked:
    """Return what was booked in a span, of everything where there is none.

    A closed month is its statement, corrections of earlier ones included; any other span is cut to what is booked.
    Who does not need `jobs` gets lines over them, fast.

    Raises
    ------
    NotFound
        Nothing was booked in it.
    UnreadableInput
        Part of it was dropped to an archive.
    """
    with database.reading(engine) as connection:
        steps = periods.steps(connection)
        frozen = [step for step in steps if step.state is PeriodState.CLOSED and span is not None and step.span == span]
        if not frozen:
            return _live(connection, span, jobs)
    found = statement(engine, frozen[0].period)
    return Booked(
        since_ms=found.span.from_ms,
        until_ms=found.span.to_ms,
        as_of_ms=found.as_of_ms,
        lines=found.lines if jobs else tuple(over_jobs(found.lines)),
        period=found.span.name,
        sha256=found.sha256,
    )


def _live(connection: database.Connection, span: Span | None, jobs: bool) -> Booked:
    since_ms, until_ms, cut_ms = window(connection, span)
    return Booked(
        since_ms=since_ms,
        until_ms=until_ms,
        as_of_ms=cut_ms,
        lines=tuple(usage.lines(connection, since_ms, until_ms, jobs=jobs)),
    )


def window(connection: database.Connection, span: Span | None) -> tuple[int, int, int]:
    """Return a span cut to what is booked, (since_ms, until_ms), and up to when everything is.

    Raises
    ------
    NotFound
        Nothing was booked in it.
    """
    begin_ms, cut_ms = summed(connection)
    begin_ms = min([begin_ms, *(step.from_ms for step in periods.dropped(connection))])
    return (*cut_to(span, begin_ms, cut_ms), cut_ms)


def summed(connection: database.Connection) -> tuple[int, int]:
    """Return from when on there are sums of entries, and up to when everything is booked.

    Raises
    ------
    NotFound
        Nothing was booked yet.
    """
    cut_ms, begin_ms = periods.last_cut_ms(connection), rollups.begin_ms(connection)
    if cut_ms is None or begin_ms is None:
        raise NotFound("the books have nothing booked yet")
    return begin_ms, cut_ms


def cut_to(span: Span | None, begin_ms: int, cut_ms: int) -> tuple[int, int]:
    """Return both ends of a span, None is ever, cut to what the books have.

    Raises
    ------
    NotFound
        They have nothing of it.
    """
    since_ms = begin_ms if span is None else max(begin_ms, span.from_ms)
    until_ms = cut_ms if span is None else min(cut_ms, span.to_ms)
    if since_ms >= until_ms:
        raise NotFound(f"the books have nothing of that time: they go from {utc_text(begin_ms)} to {utc_text(cut_ms)}")
    return since_ms, until_ms


def span_of(since_ms: int | None, until_ms: int | None) -> Span | None:
    """Return the span between two moments, open where one is None; None where both are.

    Raises
    ------
    UnreadableInput
        It is empty.
    """
    if since_ms is None and until_ms is None:
        return None
    found = Span(-(2**62) if since_ms is None else since_ms, 2**62 if until_ms is None else until_ms, "")
    if found.from_ms >= found.to_ms:
        raise UnreadableInput("--since: must be before --until")
    return found


def key_of(account: Account, line: Line, by: By) -> tuple[str, ...]:
    """Return tenant, queue, namespace, name and gang as far as `by` tells them apart."""
    return (account.tenant, account.queue, line.namespace, line.name, line.gang)[: _KEPT[by]]


def columns_of(by: By) -> tuple[str, ...]:
    """Return the names of what `key_of` returns."""
    return JOB_COLUMNS[: _KEPT[by]]


def gpu_ms(ticks: int) -> int:
    """Return whole GPU-ms of ticks, towards zero: what was taken back rounds as what was booked."""
    return ticks // TICKS_PER_GPU_MS if ticks >= 0 else -(-ticks // TICKS_PER_GPU_MS)


def in_ticks(lines: Iterable[tuple[Account, Line]]) -> Iterator[tuple[Account, Line]]:
    """Yield the lines of device time."""
    return (pair for pair in lines if pair[1].unit == TICKS)
