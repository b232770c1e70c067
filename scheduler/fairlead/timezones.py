"""The one door to the time zone database: names become tables of offsets, which is all that decisions ever see.

Only what reads objects calls this, never the core: databases differ between machines and years, journals must not.
"""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from fairlead.errors import UnreadableInput
from fairlead.model.windows import DAYS, Window, Zone

FIRST_YEAR, LAST_YEAR = 2018, 2050
"""What a table covers: fixed years, so that the same object always reads the same."""
_CLOCK_MINUTES = 24 * 60


def zone_of(name: str, *, field: str) -> Zone:
    """Return a time zone of the IANA database by its name, such as Europe/Berlin.

    Raises
    ------
    UnreadableInput
        There is none of this name; the message names `field`.
    """
    try:
        return _table(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as problem:
        mend = "write a name of the IANA database such as Europe/Berlin, or UTC"
        raise UnreadableInput(f"{field}: there is no time zone {name!r}; {mend}") from problem


def minute_of(text: str, *, field: str) -> int:
    """Return the minute of the day of a time such as ``08:30``; ``24:00`` is the end of the day.

    Raises
    ------
    UnreadableInput
        It is no time of a day; the message names `field`.
    """
    hours, colon, minutes = text.partition(":")
    known = colon and len(hours) == len(minutes) == 2 and (hours + minutes).isascii() and (hours + minutes).isdigit()
    minute = 60 * int(hours) + int(minutes) if known and int(minutes) < 60 else -1
    if not 0 <= minute <= _CLOCK_MINUTES:
        raise UnreadableInput(f"{field}: {text!r} is no time of a day; write for example 08:30, or 24:00 for its end")
    return minute


def window_of(days: tuple[str, ...] | None, begins: str, ends: str, time_zone: str, *, field: str) -> Window:
    """Return a window from what people write; no days are all days.

    Raises
    ------
    UnreadableInput
        A text is none; the message names the field below `field`.
    """
    for day in days or ():
        if day not in DAYS:
            raise UnreadableInput(f"{field}.days: {day!r} is not one of: {', '.join(DAYS)}")
    if days is not None and not days:
        raise UnreadableInput(f"{field}.days: is empty; name a day, or remove it for every day")
    from_minute, to_minute = minute_of(begins, field=f"{field}.from"), minute_of(ends, field=f"{field}.to")
    if from_minute == _CLOCK_MINUTES:
        raise UnreadableInput(f"{field}.from: '24:00' is the end of a day; write 00:00")
    if from_minute == to_minute:
        raise UnreadableInput(f"{field}.to: is the same as from; for whole days write from 00:00 to 24:00")
    return Window(
        days=tuple(sorted({DAYS.index(day) for day in days or DAYS})),
        from_minute=from_minute,
        to_minute=to_minute,
        zone=zone_of(time_zone, field=f"{field}.timeZone"),
    )


@lru_cache(maxsize=256)
def _table(name: str) -> Zone:
    zone = zoneinfo.ZoneInfo(name)
    moment, last = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC), datetime(LAST_YEAR, 1, 1, tzinfo=UTC)
    offsets = [(_ms(moment), _offset_ms(zone, moment))]
    day = timedelta(days=1)
    while moment < last:
        after = moment + day
        if _offset_ms(zone, after) != offsets[-1][1]:
            low, high = moment, after
            while high - low > timedelta(minutes=1):  # changes happen on whole minutes
                middle = low + timedelta(minutes=(high - low) // timedelta(minutes=2))
                if _offset_ms(zone, middle) == offsets[-1][1]:
                    low = middle
                else:
                    high = middle
            offsets.append((_ms(high), _offset_ms(zone, high)))
        moment = after
    return Zone(name=name, offsets=tuple(offsets))


def _offset_ms(zone: zoneinfo.ZoneInfo, moment: datetime) -> int:
    offset = moment.astimezone(zone).utcoffset()
    assert offset is not None, (zone, moment)
    return offset // timedelta(milliseconds=1)


def _ms(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
