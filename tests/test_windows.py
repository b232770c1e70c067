"""Recurring windows as UTC: both changes of summer time, midnight, zones that skip midnight, zones without changes."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.errors import UnreadableInput
from fairlead.model.windows import DAY_MS, Window, current_or_next
from fairlead.timezones import minute_of, window_of, zone_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


def spans(window: Window, first: str, last: str) -> list[str]:
    def told(moment: int) -> str:
        return datetime.fromtimestamp(moment / 1000, UTC).strftime("%m-%dT%H:%M")

    return [f"{told(start)} {told(end)}" for start, end in window.spans(ms(first), ms(last))]


def window(begins: str, ends: str, zone: str, *days: str) -> Window:
    return window_of(days or None, begins, ends, zone, field="window")


CASES = [
    # Europe/Berlin: 2027-03-28 02:00 becomes 03:00 (01:00 UTC), 2027-10-31 03:00 becomes 02:00 (01:00 UTC)
    ("07:00", "09:30", "Europe/Berlin", "2027-03-27", "2027-03-28", ["03-27T06:00 03-27T08:30"]),
    ("07:00", "09:30", "Europe/Berlin", "2027-03-28", "2027-03-29", ["03-28T05:00 03-28T07:30"]),
    ("22:00", "06:00", "Europe/Berlin", "2027-03-28", "2027-03-28T12:00", ["03-27T21:00 03-28T04:00"]),
    ("22:00", "06:00", "Europe/Berlin", "2027-10-31", "2027-10-31T12:00", ["10-30T20:00 10-31T05:00"]),
    ("02:30", "04:00", "Europe/Berlin", "2027-03-28", "2027-03-28T12:00", ["03-28T01:00 03-28T02:00"]),
    ("01:00", "02:30", "Europe/Berlin", "2027-03-28", "2027-03-28T12:00", ["03-28T00:00 03-28T01:00"]),
    ("02:10", "02:50", "Europe/Berlin", "2027-03-28", "2027-03-28T12:00", []),
    ("02:30", "04:00", "Europe/Berlin", "2027-10-31", "2027-10-31T12:00", ["10-31T00:30 10-31T03:00"]),
    ("01:00", "02:30", "Europe/Berlin", "2027-10-31", "2027-10-31T12:00", ["10-30T23:00 10-31T01:30"]),
    # America/Sao_Paulo: 2018-11-04 00:00 became 01:00 (03:00 UTC), 2019-02-17 00:00 became 23:00 (02:00 UTC)
    ("00:00", "06:00", "America/Sao_Paulo", "2018-11-04", "2018-11-05", ["11-04T03:00 11-04T08:00"]),
    ("23:30", "24:00", "America/Sao_Paulo", "2019-02-16T12:00", "2019-02-17T12:00", ["02-17T01:30 02-17T03:00"]),
    ("08:00", "09:00", "America/Sao_Paulo", "2027-03-01", "2027-03-02", ["03-01T11:00 03-01T12:00"]),
    # Asia/Kolkata is five and a half hours ahead all year
    ("08:00", "20:00", "Asia/Kolkata", "2027-03-28", "2027-03-29", ["03-28T02:30 03-28T14:30"]),
    ("00:00", "24:00", "UTC", "2027-03-28T05:00", "2027-03-28T06:00", ["03-28T00:00 03-29T00:00"]),
]  # fmt: skip


@pytest.mark.parametrize(("begins", "ends", "zone", "first", "last", "wanted"), CASES)
def test_windows_in_utc(begins, ends, zone, first, last, wanted):
    assert spans(window(begins, ends, zone), first, last) == wanted


def test_days_are_those_on_which_a_window_begins() -> None:
    found = spans(window("22:00", "06:00", "UTC", "fri"), "2027-03-01", "2027-03-15")
    assert found == ["03-05T22:00 03-06T06:00", "03-12T22:00 03-13T06:00"]


def test_the_current_window_or_the_next_one_and_windows_without_a_gap_are_one() -> None:
    day = window("08:00", "20:00", "UTC")
    assert current_or_next([day], ms("2027-03-01T09:00")) == (ms("2027-03-01T08:00"), ms("2027-03-01T20:00"))
    assert current_or_next([day], ms("2027-03-01T20:00")) == (ms("2027-03-02T08:00"), ms("2027-03-02T20:00"))
    halves = [window("08:00", "12:00", "UTC"), window("12:30", "20:00", "UTC")]
    assert current_or_next(halves, ms("2027-03-01T09:00")) == (ms("2027-03-01T08:00"), ms("2027-03-01T12:00"))
    whole = (ms("2027-03-01T08:00"), ms("2027-03-01T20:00"))
    assert current_or_next(halves, ms("2027-03-01T09:00"), lead_ms=30 * 60_000) == whole
    assert current_or_next([], 0) is None


@given(
    st.sampled_from(["Europe/Berlin", "America/Sao_Paulo", "Asia/Kolkata", "Australia/Lord_Howe", "America/New_York"]),
    st.integers(ms("2018-02-01"), ms("2040-01-01")),
)
def test_a_table_of_offsets_says_what_the_database_says(name, moment):
    zone = zone_of(name, field="zone")
    wanted = datetime.fromtimestamp(moment // 1000, UTC).astimezone(ZoneInfo(name))
    local = int(wanted.replace(tzinfo=UTC).timestamp()) * 1000
    assert zone.local_ms(moment // 1000 * 1000) == local
    first, last = zone.moments(local)
    assert moment // 1000 * 1000 in (first, last)


def test_a_window_is_what_the_journal_keeps() -> None:
    berlin = window("07:00", "09:30", "Europe/Berlin")
    assert msgspec.json.decode(msgspec.json.encode(berlin), type=Window) == berlin
    assert max(since for since, _ in berlin.zone.offsets) > ms("2049-01-01"), "and needs no database again"
    assert len(berlin.zone.offsets) < 80


@pytest.mark.parametrize(
    ("days", "begins", "ends", "zone", "says"),
    [
        (None, "8:00", "09:00", "UTC", "w.from: '8:00' is no time of a day"),
        (None, "08:00", "25:00", "UTC", "w.to: '25:00' is no time of a day"),
        (None, "08:60", "09:00", "UTC", "w.from: '08:60' is no time"),
        (None, "24:00", "09:00", "UTC", "w.from: '24:00' is the end of a day; write 00:00"),
        (None, "08:00", "08:00", "UTC", "w.to: is the same as from"),
        (("monday",), "08:00", "09:00", "UTC", "w.days: 'monday' is not one of: mon, tue"),
        ((), "08:00", "09:00", "UTC", "w.days: is empty"),
        (None, "08:00", "09:00", "Europe/Berln", "w.timeZone: there is no time zone 'Europe/Berln'"),
        (None, "08:00", "09:00", "../etc/passwd", "w.timeZone: there is no time zone"),
        (None, "08:00", "09:00", "", "w.timeZone: there is no time zone ''"),
    ],
)
def test_what_is_no_window_is_refused_with_its_field(days, begins, ends, zone, says):
    with pytest.raises(UnreadableInput) as error:
        window_of(days, begins, ends, zone, field="w")
    assert says in str(error.value)


def test_minutes_and_days() -> None:
    assert minute_of("24:00", field="x") == 1440
    assert Window(from_minute=0, to_minute=1440).on(0) == (0, DAY_MS)
