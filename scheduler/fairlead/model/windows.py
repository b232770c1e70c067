"""Windows that recur by the clock on the wall, as moments of UTC: pure functions of the offsets that came with them.

Nothing here asks a time zone database. Whoever reads a Pool or a Reservation looks the zone up once
(`fairlead.timezones`) and sends its table of offsets along, so a journal replays byte for byte whatever database the
machine that replays it has.

What a clock on the wall cannot say: a time that it skips (summer time begins) is the moment of the change; of a time
that it shows twice (summer time ends) a window begins at the first and ends at the second. So a window is never
shorter than what it says, but for one that lies whole inside the skipped hour: that day has none.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MINUTE_MS = 60_000
DAY_MS = 86_400_000
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_EPOCH_DAY = 3  # 1970-01-01 was a Thursday
_FAR = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """A time zone: its name, and from which UTC ms on its clocks are how many ms ahead of UTC, earliest first.

    The first offset also holds before its moment, the last one for ever.
    """

    name: str = "UTC"
    offsets: tuple[tuple[int, int], ...] = ((0, 0),)

    def local_ms(self, at_ms: int) -> int:
        """Return what a clock on the wall shows at a moment, in ms since 1970-01-01 00:00 on that clock."""
        at = bisect_right(self.offsets, (at_ms, _FAR)) - 1
        return at_ms + self.offsets[max(0, at)][1]

    def moments(self, local_ms: int) -> tuple[int, int]:
        """Return the first and the last moment at which the clock shows this; of a skipped time, that of the change."""
        about = max(0, bisect_right(self.offsets, (local_ms, _FAR)) - 1)  # offsets are less than a day, seasons more
        near = range(max(0, about - 1), min(len(self.offsets), about + 2))
        found: list[int] = []
        for at in near:
            since, offset = self.offsets[at]
            begins = since if at else -_FAR
            ends = self.offsets[at + 1][0] if at + 1 < len(self.offsets) else _FAR
            if begins <= local_ms - offset < ends:
                found.append(local_ms - offset)
        if found:
            return min(found), max(found)
        skipped = next(
            self.offsets[at][0]
            for at in near
            if at and self.offsets[at][0] + self.offsets[at - 1][1] <= local_ms < sum(self.offsets[at])
        )
        return skipped, skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Every week on these days (0 is Monday) from one minute of the day to another, by the clocks of a zone.

    An end that is not after the start is on the next day; 1440 is midnight at the end of the day.
    """

    days: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)
    from_minute: int
    to_minute: int
    zone: Zone = Zone()

    def on(self, day: int) -> tuple[int, int] | None:
        """Return the UTC ms [start, end) of the window that begins on a day (counted from 1970-01-01), None if none."""
        if (day + _EPOCH_DAY) % 7 not in self.days:
            return None
        over = 0 if self.to_minute > self.from_minute else DAY_MS
        start, _ = self.zone.moments(day * DAY_MS + self.from_minute * MINUTE_MS)
        _, end = self.zone.moments(day * DAY_MS + self.to_minute * MINUTE_MS + over)
        return (start, end) if start < end else None

    def spans(self, from_ms: int, until_ms: int) -> Iterator[tuple[int, int]]:
        """Yield [start, end) in UTC ms of every window that touches [from_ms, until_ms), in order."""
        first, last = (self.zone.local_ms(moment) // DAY_MS for moment in (from_ms, until_ms))
        for day in range(first - 2, last + 2):
            found = self.on(day)
            if found is not None and found[0] < until_ms and found[1] > from_ms:
                yield found


LOOK_AHEAD_MS = 16 * DAY_MS
"""A window comes every week, but for one that is skipped when summer time begins."""


def current_or_next(windows: Sequence[Window], now_ms: int, lead_ms: int = 0) -> tuple[int, int] | None:
    """Return [start, end) of the window that `now_ms` is in, else of the next one; None where there is none.

    Windows that overlap, or of which one begins no later than `lead_ms` after another's end, count as one: between
    them nothing could be lent.
    """
    for until_ms in (now_ms + 2 * DAY_MS, now_ms + LOOK_AHEAD_MS):
        spans = sorted(span for window in windows for span in window.spans(now_ms, until_ms))
        if not spans:
            continue
        start, end = spans[0]
        for following, last in spans[1:]:
            if following - lead_ms > end:
                return start, end
            end = max(end, last)
        if until_ms - lead_ms > end:
            return start, end
    return (start, end) if spans else None
