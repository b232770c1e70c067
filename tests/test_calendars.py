"""Calendars as UTC: summer time, months of 28 to 31 days, months from the 31st, fiscal years; no gap, no overlap."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.errors import UnreadableInput
from fairlead.model.calendars import HOUR_MS, Calendar, Grain, Span
from fairlead.timezones import zone_of

ZONES = ["UTC", "Europe/Berlin", "America/Sao_Paulo", "Asia/Kolkata", "America/Havana", "Australia/Lord_Howe"]


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


def told(span: Span) -> str:
    return " ".join(
        datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%dT%H:%M") for at in (span.from_ms, span.to_ms)
    )


def calendar(zone: str = "UTC", day: int = 1, month: int = 1) -> Calendar:
    return Calendar(zone=zone_of(zone, field="zone"), month_starts_on=day, year_starts_in=month)


DAYS = [
    ("Europe/Berlin", "2027-03-28", 23),
    ("Europe/Berlin", "2027-10-31", 25),
    ("Europe/Berlin", "2027-06-01", 24),
    ("America/Sao_Paulo", "2018-11-04", 23),  # begins at 01:00: there is no midnight
    ("America/Sao_Paulo", "2019-02-16", 25),  # the hour before midnight comes twice
    ("America/Sao_Paulo", "2027-02-17", 24),  # no summer time since 2019
    ("America/Havana", "2027-11-07", 25),  # midnight comes twice: it begins at the first
    ("Asia/Kolkata", "2027-03-28", 24),
]


@pytest.mark.parametrize(("zone", "name", "hours"), DAYS)
def test_a_day_has_as_many_hours_as_pass(zone, name, hours):
    found = calendar(zone)
    day = found.named(name)
    inside = list(found.spans(Grain.HOUR, day.from_ms, day.to_ms))
    assert len(inside) == hours
    assert day.to_ms - day.from_ms == hours * HOUR_MS
    assert (inside[0].from_ms, inside[-1].to_ms) == (day.from_ms, day.to_ms)
    assert len({hour.name for hour in inside}) == hours
    assert all(hour.name.startswith(name) for hour in inside)


def test_the_hour_that_comes_twice_has_two_names() -> None:
    found = calendar("Europe/Berlin")
    day = found.named("2027-10-31")
    names = [hour.name for hour in found.spans(Grain.HOUR, day.from_ms, day.to_ms)]
    assert names[2:4] == ["2027-10-31T02:00+02:00", "2027-10-31T02:00+01:00"]
    assert [h.name for h in calendar("Asia/Kolkata").spans(Grain.HOUR, ms("2027-01-01"), ms("2027-01-01") + 1)] == [
        "2027-01-01T05:00+05:30"
    ]


def test_a_day_whose_clock_moves_by_half_an_hour_ends_with_half_an_hour() -> None:
    found = calendar("Australia/Lord_Howe")
    day = found.named("2027-10-03")
    inside = [hour.to_ms - hour.from_ms for hour in found.spans(Grain.HOUR, day.from_ms, day.to_ms)]
    assert inside == [HOUR_MS] * 23 + [HOUR_MS // 2]


MONTHS = [
    (calendar(), "2027-02", "2027-02-01T00:00 2027-03-01T00:00"),
    (calendar(), "2028-02", "2028-02-01T00:00 2028-03-01T00:00"),
    (calendar(), "2027-12", "2027-12-01T00:00 2028-01-01T00:00"),
    (calendar("Europe/Berlin"), "2027-03", "2027-02-28T23:00 2027-03-31T22:00"),
    (calendar("Europe/Berlin"), "2027-10", "2027-09-30T22:00 2027-10-31T23:00"),
    (calendar("Asia/Kolkata"), "2027-03", "2027-02-28T18:30 2027-03-31T18:30"),
    (calendar("America/Sao_Paulo"), "2018-11", "2018-11-01T03:00 2018-12-01T02:00"),
    (calendar(day=31), "2027-01", "2027-01-31T00:00 2027-02-28T00:00"),
    (calendar(day=31), "2027-02", "2027-02-28T00:00 2027-03-31T00:00"),
    (calendar(day=31), "2028-02", "2028-02-29T00:00 2028-03-31T00:00"),
    (calendar(day=31), "2027-04", "2027-04-30T00:00 2027-05-31T00:00"),
    (calendar(day=30), "2027-02", "2027-02-28T00:00 2027-03-30T00:00"),
    (calendar("Europe/Berlin", day=31), "2027-10", "2027-10-30T22:00 2027-11-29T23:00"),
    (calendar(month=4), "2027", "2027-04-01T00:00 2028-04-01T00:00"),
    (calendar(month=4), "2027-Q1", "2027-04-01T00:00 2027-07-01T00:00"),
    (calendar(month=4), "2027-Q4", "2028-01-01T00:00 2028-04-01T00:00"),
    (calendar(day=31, month=2), "2027", "2027-02-28T00:00 2028-02-29T00:00"),
    (calendar(), "2027-Q3", "2027-07-01T00:00 2027-10-01T00:00"),
    (calendar("Europe/Berlin"), "2027", "2026-12-31T23:00 2027-12-31T23:00"),
]  # fmt: skip


@pytest.mark.parametrize(("found", "name", "wanted"), MONTHS)
def test_months_quarters_and_years(found, name, wanted):
    span = found.named(name)
    assert (span.name, told(span)) == (name, wanted)


@given(
    st.sampled_from(ZONES),
    st.integers(1, 31),
    st.integers(1, 12),
    st.sampled_from(list(Grain)),
    st.integers(ms("2018-01-02"), ms("2040-01-01")),
)
def test_spans_meet_at_their_edges_and_hold_the_moment(zone, day, month, grain, at_ms):
    found = calendar(zone, day, month)
    here = found.at(grain, at_ms)
    assert here.from_ms <= at_ms < here.to_ms
    around = list(found.spans(grain, here.from_ms - 1, here.to_ms + 1))
    assert around[1] == here
    assert all(a.to_ms == b.from_ms for a, b in pairwise(around))
    assert len({span.name for span in around}) == 3
    if grain is not Grain.HOUR:
        assert found.named(here.name) == here


@given(st.sampled_from(ZONES), st.integers(ms("2018-01-02"), ms("2040-01-01")))
def test_days_begin_where_the_zone_database_says(zone, at_ms):
    local = datetime.fromtimestamp(at_ms / 1000, ZoneInfo(zone))
    name = calendar(zone).at(Grain.DAY, at_ms).name
    # A midnight that comes twice puts the end of a day's clock into the next day's span.
    assert name == local.date().isoformat() or name == (local.date() + timedelta(days=1)).isoformat()


@given(st.integers(1, 31), st.integers(1, 12), st.integers(2018, 2040))
def test_a_year_is_four_quarters_is_twelve_months(day, month, year):
    found = calendar("Europe/Berlin", day, month)
    whole = found.named(f"{year}")
    for grain, count in ((Grain.QUARTER, 4), (Grain.MONTH, 12)):
        inside = list(found.spans(grain, whole.from_ms, whole.to_ms))
        assert len(inside) == count
        assert (inside[0].from_ms, inside[-1].to_ms) == (whole.from_ms, whole.to_ms)


@pytest.mark.parametrize(
    "name", ["", "2026-13", "2026-00", "2026-Q5", "2026-02-30", "26-01", "0000", "2026-1", "٢٠٢٦", "x"]
)
def test_names_that_are_none_are_refused(name):
    with pytest.raises(UnreadableInput, match=r"--period: .* write for example 2026-10"):
        calendar().named(name, field="--period")


@pytest.mark.parametrize(
    ("day", "month", "field"), [(0, 1, "month_starts_on"), (32, 1, "month_starts_on"), (1, 13, "year")]
)
def test_days_and_months_that_are_none_are_refused(day, month, field):
    with pytest.raises(UnreadableInput, match=field):
        calendar(day=day, month=month)
