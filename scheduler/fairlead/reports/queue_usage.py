"""What each queue has held, in all and in this calendar month: sums that are carried on from one look to the next.

The ledger only grows, so a refresh reads the entries that are new since the last one and nothing else; the whole is
read once, and the month's part once a month.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from fairlead.ledger import accounts
from fairlead.ledger.accounts import TICKS, Kind
from fairlead.ledger.meter import OpenSegment
from fairlead.store import engine as database
from fairlead.store import usage
from fairlead.units import TICKS_PER_GPU_MS

_HELD = f"{Kind.HELD}:"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueUsage:
    """GPU-ms held by queue as of a moment: since the books began, and since `period_start_ms` (UTC month)."""

    as_of_ms: int
    period_start_ms: int
    total: Mapping[str, int]
    period: Mapping[str, int]


def month_start_ms(now_ms: int) -> int:
    """Return the first millisecond of the calendar month (UTC) that `now_ms` lies in."""
    now = datetime.fromtimestamp(now_ms // 1000, UTC)
    return int(now.replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp()) * 1000


class QueueTally:
    """The sums, carried on. Not for several threads at once."""

    def __init__(self) -> None:
        """Start before the first entry."""
        self._total: dict[str, int] = {}
        self._period: dict[str, int] = {}
        self._number = 0
        self._period_start_ms: int | None = None

    def read(
        self, connection: database.Connection, number: int, open_segments: Iterable[OpenSegment], now_ms: int
    ) -> QueueUsage:
        """Take in entries up to `number` and add what is open; both must be of one moment."""
        start_ms = month_start_ms(now_ms)
        if number < self._number:  # other books than before
            self._total, self._period, self._number, self._period_start_ms = {}, {}, 0, None
        if start_ms == self._period_start_ms:
            month = _held(connection, start_ms, self._number, number)
            period = self._period
        else:
            month, period = _held(connection, start_ms, 0, number), {}
        ever = _held(connection, None, self._number, number)
        self._total, self._period = _grown(self._total, ever), _grown(period, month)
        self._number, self._period_start_ms = number, start_ms
        total, period = dict(self._total), dict(self._period)
        for segment in open_segments:
            if segment.state.account.startswith(_HELD):
                for sums, begin_ms in ((total, segment.from_ms), (period, max(start_ms, segment.from_ms))):
                    ticks = max(0, now_ms - begin_ms) * segment.state.ticks
                    sums[segment.state.account] = sums.get(segment.state.account, 0) + ticks
        return QueueUsage(
            as_of_ms=now_ms, period_start_ms=start_ms, total=_by_queue(total), period=_by_queue(period)
        )  # fmt: skip


def _held(connection: database.Connection, since_ms: int | None, after: int, up_to: int) -> dict[str, int]:
    found = usage.by_account(connection, (_HELD,), since_ms, after=after, up_to=up_to)
    return {account: ticks for (unit, account), ticks in found.items() if unit == TICKS}


def _grown(sums: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    return {account: sums.get(account, 0) + more.get(account, 0) for account in sorted({*sums, *more})}


def _by_queue(ticks: Mapping[str, int]) -> dict[str, int]:
    """Sum the tiers of each queue, in whole GPU-ms."""
    found: dict[str, int] = {}
    for account, amount in sorted(ticks.items()):
        queue = accounts.parse(account).queue
        found[queue] = found.get(queue, 0) + amount
    return {queue: amount // TICKS_PER_GPU_MS for queue, amount in found.items()}
