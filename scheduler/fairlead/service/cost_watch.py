"""Looks whether what queues cost alarms, after each line that is drawn through the books."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from fairlead.errors import NotFound
from fairlead.ledger.anomalies import Finding, Kind
from fairlead.model.calendars import Grain, Span
from fairlead.model.events import CostAlarmed, Event
from fairlead.model.windows import DAY_MS
from fairlead.reports import anomalies
from fairlead.reports.statements import calendar_of
from fairlead.service.bookkeeper import Bookkeeper
from fairlead.store import periods
from fairlead.store.engine import Connection
from fairlead.world.snapshot import World


def spending(books: Bookkeeper) -> Callable[[World], list[Event]]:
    """Return what tells the scheduler, whenever it is called, how budgets stand and whose costs alarm."""
    watch = CostWatch(books)

    def tell(world: World) -> list[Event]:
        standings = books.budgets(dict(world.queues), world.now_ms)
        watch.look()
        return [*(standing.fact() for standing in standings), *watch.facts(world.alarms, world.now_ms)]

    return tell


class CostWatch:
    """Judges the day that is not over, as far as it is booked, and the one before it; not for several threads at once.

    `alarms` are those of the last look. The books are read in one go and judged after that, without them.
    """

    def __init__(self, books: Bookkeeper) -> None:
        """Nothing was looked at yet."""
        self._books = books
        self._cut_ms: int | None = None
        self._told: set[tuple[str, str, str, Kind]] = set()
        self.alarms: tuple[Finding, ...] = ()

    @property
    def said(self) -> Mapping[str, str] | None:
        """Queue -> what alarms in it, as sentences; None where nobody has looked yet."""
        if self._cut_ms is None:
            return None
        found: dict[str, str] = {}
        for one in self.alarms:
            before = found.get(one.queue)
            found[one.queue] = anomalies.sentence(one) if before is None else f"{before}. {anomalies.sentence(one)}"
        return found

    def look(self) -> bool:
        """Look again if a line was drawn since the last time; returns whether one was. It may take seconds.

        Raises
        ------
        Unreachable
            The database is away, or behind.
        """
        read = self._books.ask(self._read)
        if read is None:
            return False
        self.alarms = tuple(one for one in anomalies.judged(read).findings if one.alarm)
        self._cut_ms = read.as_of_ms
        return True

    def news(self) -> Iterable[Finding]:
        """Return the alarms that were not returned yet: each kind of a queue's day once."""
        found = {(one.queue, one.currency, one.day.name, one.kind): one for one in self.alarms}
        fresh = [one for key, one in found.items() if key not in self._told]
        self._told = set(found)
        return fresh

    def facts(self, known: Mapping[str, CostAlarmed], now_ms: int) -> list[CostAlarmed]:
        """Return what the scheduler is to be told: the last day of each queue that alarms, if it is newer than known.

        What is held for it ends a day after it, whenever it was told: so it does not matter who leads meanwhile.
        """
        last = {one.queue: one.day for one in self.alarms}  # which are in order of time
        return [
            CostAlarmed(
                queue=queue,
                day=day.name,
                what=", ".join(sorted({one.kind.value for one in self.alarms if (one.queue, one.day) == (queue, day)})),
                until_ms=day.to_ms + DAY_MS,
                at_ms=now_ms,
            )
            for queue, day in sorted(last.items())
            if now_ms < day.to_ms + DAY_MS and (queue not in known or known[queue].day < day.name)
        ]

    def _read(self, connection: Connection) -> anomalies.Read | None:
        cut_ms = periods.last_cut_ms(connection)
        if cut_ms is None or cut_ms == self._cut_ms:
            return None
        calendar = calendar_of(connection)
        day = calendar.at(Grain.DAY, cut_ms - 1)
        span = Span(calendar.at(Grain.DAY, day.from_ms - 1).from_ms, cut_ms, "")
        try:
            return anomalies.read(connection, span, calendar)
        except NotFound:
            return None
