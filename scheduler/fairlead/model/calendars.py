"""Calendars of reports and periods: hours, days, months, quarters and years on somebody's wall, as moments of UTC.

The books hold UTC milliseconds. A calendar is applied when somebody asks, and what it gives are moments again, so that
neighbouring spans share an edge: no gap, no overlap, whatever summer time does. A day begins at its first midnight, or
at the moment of the change where the clock skips midnight; it has 23, 24 or 25 hours.

A month begins on `month_starts_on`, or on its last day where it has fewer days, and is named after the calendar month
it begins in. A year begins with the month `year_starts_in` and is named after the calendar year it begins in; quarters
are its quarters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from fairlead.errors import UnreadableInput
from fairlead.model.windows import DAY_MS, Zone

UTC = Zone()
HOUR_MS = 3_600_000
_EPOCH = date(1970, 1, 1).toordinal()
_NAME = re.compile(r"(\d{4})(?:-(?:Q([1-4])|(\d{2})(?:-(\d{2}))?))?")


class Grain(StrEnum):
    """How long the spans are that time is cut into."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


_MONTHS = {Grain.MONTH: 1, Grain.QUARTER: 3, Grain.YEAR: 12}


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A stretch of time [from_ms, to_ms), UTC ms, with the name it has in its calendar."""

    from_ms: int
    to_ms: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar:
    """A zone, the day of the month on which months begin (1 to 31) and the month with which years begin (1 to 12)."""

    zone: Zone = UTC
    month_starts_on: int = 1
    year_starts_in: int = 1

    def __post_init__(self) -> None:
        """Refuse days and months that are none."""
        if not 1 <= self.month_starts_on <= 31:
            raise UnreadableInput(f"month_starts_on: {self.month_starts_on} is no day of a month; write 1 to 31")
        if not 1 <= self.year_starts_in <= 12:
            raise UnreadableInput(f"year_starts_in: {self.year_starts_in} is no month; write 1 to 12")

    def at(self, grain: Grain, at_ms: int) -> Span:
        """Return the span of this length that a moment lies in."""
        day = self._day_of(at_ms)
        if grain is Grain.HOUR:
            return next(hour for hour in self._hours(day) if hour.to_ms > at_ms)
        if grain is Grain.DAY:
            return self._day(day)
        here = date.fromordinal(_EPOCH + day)
        month = here.year * 12 + here.month - 1
        if day < self._first_day(month):
            month -= 1
        return self._months(month, grain)

    def spans(self, grain: Grain, from_ms: int, until_ms: int) -> Iterator[Span]:
        """Yield, in order, every span of this length that touches [from_ms, until_ms)."""
        while from_ms < until_ms:
            found = self.at(grain, from_ms)
            yield found
            from_ms = found.to_ms

    def named(self, name: str, *, field: str = "period") -> Span:
        """Return the span with a name: ``2026``, ``2026-Q1``, ``2026-10`` or ``2026-10-31``.

        Raises
        ------
        UnreadableInput
            It is no such name; the message names `field`.
        """
        match = _NAME.fullmatch(name)
        try:
            if match is not None and name.isascii():
                year, quarter, month, day = (int(part) if part else None for part in match.groups())
                assert year is not None
                if month is not None and day is not None:
                    return self._day(date(year, month, day).toordinal() - _EPOCH)
                if month is not None:
                    return self._months(12 * year + date(year, month, 1).month - 1, Grain.MONTH)
                first = 12 * year + self.year_starts_in - 1
                return self._months(first + 3 * (quarter - 1), Grain.QUARTER) if quarter else (
                    self._months(first, Grain.YEAR))  # fmt: skip
        except ValueError:
            pass
        mend = "write for example 2026-10, 2026-Q4, 2026 or 2026-10-31"
        raise UnreadableInput(f"{field}: {name!r} is no month, quarter, year or day; {mend}")

    def _months(self, month: int, grain: Grain) -> Span:
        """Return the span of one or more months that has `month` (counted from year 0) in it."""
        count = _MONTHS[grain]
        first = month - (month - self.year_starts_in + 1) % count
        year, number = divmod(first, 12)
        if grain is Grain.MONTH:
            name = f"{year:04}-{number + 1:02}"
        else:
            fiscal = (first - self.year_starts_in + 1) // 12
            quarter = (first - self.year_starts_in + 1) % 12 // 3 + 1
            name = f"{fiscal:04}-Q{quarter}" if grain is Grain.QUARTER else f"{fiscal:04}"
        return Span(self._midnight(self._first_day(first)), self._midnight(self._first_day(first + count)), name)

    def _first_day(self, month: int) -> int:
        """Return the day (counted from 1970) on which a month (counted from year 0) begins."""
        first, following = (date(at // 12, at % 12 + 1, 1).toordinal() - _EPOCH for at in (month, month + 1))
        return first + min(self.month_starts_on, following - first) - 1

    def _day_of(self, at_ms: int) -> int:
        """Return the day that a moment lies in: not always the one the clock shows, where it shows one twice."""
        day = self.zone.local_ms(at_ms) // DAY_MS
        return day + (self._midnight(day + 1) <= at_ms) - (self._midnight(day) > at_ms)

    def _midnight(self, day: int) -> int:
        return self.zone.moments(day * DAY_MS)[0]

    def _day(self, day: int) -> Span:
        return Span(self._midnight(day), self._midnight(day + 1), date.fromordinal(_EPOCH + day).isoformat())

    def _hours(self, day: int) -> Iterator[Span]:
        """Yield a day's hours as they pass; the last is shorter where the clock moves by less than an hour."""
        whole = self._day(day)
        for from_ms in range(whole.from_ms, whole.to_ms, HOUR_MS):
            shown = self.zone.local_ms(from_ms)
            ahead, minutes = "+" if shown >= from_ms else "-", abs(shown - from_ms) // 60_000
            clock = f"{shown // HOUR_MS % 24:02}:{shown // 60_000 % 60:02}"
            date_shown = date.fromordinal(_EPOCH + shown // DAY_MS).isoformat()
            name = f"{date_shown}T{clock}{ahead}{minutes // 60:02}:{minutes % 60:02}"
            yield Span(from_ms, min(from_ms + HOUR_MS, whole.to_ms), name)
