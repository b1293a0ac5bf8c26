from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callrouter.core.hours import check_hours, is_open, local_time, next_change
from callrouter.errors import InputError

WEEKDAYS = "Mo-Fr 08:00-18:00; PH off"
NEW_YORK, LOS_ANGELES, BERLIN = "America/New_York", "America/Los_Angeles", "Europe/Berlin"


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "at,zone,opened",
    [
        ("2025-10-09T12:00", NEW_YORK, True),  # Thursday 08:00, summer time
        ("2025-10-09T11:59", NEW_YORK, False),
        ("2025-10-09T12:00", LOS_ANGELES, False),  # 05:00 there
        ("2025-10-09T15:00", LOS_ANGELES, True),
        ("2025-10-09T21:59", NEW_YORK, True),
        ("2025-10-09T22:00", NEW_YORK, False),
        ("2025-10-10T00:30", LOS_ANGELES, True),  # Thursday 17:30 there, Friday in UTC
        ("2025-12-09T12:59", NEW_YORK, False),  # winter time
        ("2025-12-09T13:00", NEW_YORK, True),
        ("2025-10-11T15:00", NEW_YORK, False),  # Saturday
    ],
)
def test_hours_are_those_of_the_wall_clock_in_the_zone(at, zone, opened):
    assert is_open(WEEKDAYS, zone, utc(at)) is opened


@pytest.mark.parametrize(
    "at,opened",
    [
        ("2025-03-09T06:59", True),  # 01:59 EST
        ("2025-03-09T07:00", False),  # 03:00 EDT: the hour from 02:00 does not exist
        ("2025-11-02T05:30", True),  # 01:30 EDT
        ("2025-11-02T06:30", True),  # 01:30 EST, the same wall clock again
        ("2025-11-02T07:00", False),  # 02:00 EST
    ],
)
def test_the_nights_of_the_clock_change_have_no_hole(at, opened):
    assert is_open("Su 00:00-02:00", NEW_YORK, utc(at)) is opened


@pytest.mark.parametrize(
    "at,country,opened",
    [
        ("2025-07-04T15:00", "US", False),  # a Friday, Independence Day
        ("2025-07-04T15:00", "GB", True),
        ("2025-07-04T15:00", None, True),
        ("2025-07-04T15:00", "XX", True),  # no calendar of that country: PH never matches
        ("2025-07-03T15:00", "US", True),
    ],
)
def test_public_holidays_are_those_of_the_country(at, country, opened):
    assert is_open(WEEKDAYS, NEW_YORK, utc(at), country) is opened


def test_the_next_change_is_an_instant():
    assert next_change(WEEKDAYS, NEW_YORK, utc("2025-10-09T12:00"), "US") == utc("2025-10-09T22:00")
    assert next_change(WEEKDAYS, NEW_YORK, utc("2025-12-24T23:00"), "US") == utc("2025-12-26T13:00")  # Christmas
    assert next_change("24/7", BERLIN, utc("2025-10-09T12:00")) is None


def test_overnight_hours_span_midnight():
    assert is_open("Mo 22:00-06:00", BERLIN, utc("2025-10-07T03:00"))  # Tuesday 05:00
    assert not is_open("Mo 22:00-06:00", BERLIN, utc("2025-10-07T04:00"))


def test_the_wall_clock_is_told_with_its_zone():
    assert local_time(NEW_YORK, utc("2025-10-11T22:05")) == "Sat 18:05 (America/New_York)"


@pytest.mark.parametrize(
    "text,zone,says",
    [
        ("Mo-Fr 8-18 h", NEW_YORK, "cannot be read: at column"),
        ("", NEW_YORK, "cannot be read"),
        ("weekdays", NEW_YORK, "cannot be read"),
        ("24/7", "America/Nowhere", "no time zone"),
        ("24/7", "", "no time zone"),
        ("24/7", "../../etc/passwd", "no time zone"),
        ("24/7", "America", "no time zone"),
        ("24/7", "A\0B", "no time zone"),
    ],
)
def test_unreadable_hours_and_zones_are_refused_with_a_hint(text, zone, says):
    with pytest.raises(InputError, match=says) as caught:
        check_hours(text, zone)
    assert caught.value.hint
    assert "\n" not in caught.value.message


# -- clocks that are changed -------------------------------------------------------------------------------------------

CHANGES = [
    # Zone, instant at which its clocks are changed.
    ("America/New_York", "2026-03-08T07:00"),
    ("America/New_York", "2026-11-01T06:00"),
    ("Europe/Berlin", "2026-03-29T01:00"),
    ("Europe/Berlin", "2026-10-25T01:00"),
    ("Australia/Lord_Howe", "2026-04-04T15:00"),  # by half an hour
    ("Australia/Lord_Howe", "2026-10-03T15:30"),
    ("America/Santiago", "2026-04-05T03:00"),  # from midnight to 23:00
    ("America/Santiago", "2026-09-06T04:00"),  # there is no midnight
]
DAILY = {
    "00:30-02:15": [(30, 135)],
    "01:45-02:45": [(105, 165)],
    "02:00-02:30": [(120, 150)],
    "22:00-24:00,00:00-03:00": [(1320, 1440), (0, 180)],
    "23:30-24:00,00:00-00:30": [(1410, 1440), (0, 30)],
    "00:00-24:00": [(0, 1440)],
}
"""Hours of every day, and minutes of the day between which it is open then."""


@pytest.mark.parametrize("zone, change", CHANGES)
@pytest.mark.parametrize("text", DAILY)
def test_hours_hold_on_the_wall_clock_in_the_nights_of_a_change(zone, change, text):
    """Each minute of a day before and after: open as the wall clock says, and the next change found exactly."""
    grid = [utc(change) + 60.0 * minute for minute in range(-1440, 1440)]
    opened = [is_open(text, zone, at) for at in grid]
    for at, found in zip(grid, opened, strict=True):
        wall = datetime.fromtimestamp(at, ZoneInfo(zone))
        minute = wall.hour * 60 + wall.minute
        assert found is any(begin <= minute < end for begin, end in DAILY[text]), wall
    changes = [at for at, before, after in zip(grid[1:], opened, opened[1:], strict=False) if before != after]
    for at in grid[::7]:
        following = next((moment for moment in changes if moment > at), None)
        if following is not None:
            assert next_change(text, zone, at) == following, datetime.fromtimestamp(at, ZoneInfo(zone))


@pytest.mark.parametrize(
    "text, zone, at, opened, changes",
    [
        # The night in which Lord Howe's clocks go back by half an hour: 01:30 to 02:00 comes twice.
        ("Su 01:30-02:00", "Australia/Lord_Howe", "2026-04-04T14:30", True, "2026-04-04T15:30"),
        ("Su 01:45-02:15", "Australia/Lord_Howe", "2026-04-04T14:45", True, "2026-04-04T15:00"),
        ("Su 01:45-02:15", "Australia/Lord_Howe", "2026-04-04T15:00", False, "2026-04-04T15:15"),
        ("Su 01:45-02:15", "Australia/Lord_Howe", "2026-04-04T15:15", True, "2026-04-04T15:45"),
        # And that in which 02:00 to 02:30 does not come.
        ("Su 02:00-02:30", "Australia/Lord_Howe", "2026-10-03T15:29", False, "2026-10-10T15:00"),
        # A year that ends, and one that is no leap year.
        ("Dec 31 18:00-24:00; Jan 01 00:00-02:00", "Europe/Berlin", "2026-12-31T22:59", True, "2027-01-01T01:00"),
        ("Dec 31 18:00-24:00; Jan 01 00:00-02:00", "Europe/Berlin", "2027-01-01T01:00", False, "2027-12-31T17:00"),
        ("2026 10:00-12:00", "America/New_York", "2026-12-31T17:00", False, None),
        ("Feb 29 10:00-12:00", "Asia/Kolkata", "2026-03-01T00:00", False, "2028-02-29T04:30"),
        # A holiday in the middle of a week, and one that is another day each year.
        ("Mo-Fr 09:00-17:00; PH off", "Europe/Berlin", "2026-12-24T16:00", False, "2026-12-28T08:00"),
        ("Mo-Fr 09:00-17:00; PH off", "Europe/Berlin", "2026-04-03T10:00", False, "2026-04-07T07:00"),
        ("24/7", "Australia/Lord_Howe", "2026-04-04T15:00", True, None),
        ("24/7; 9999 Dec 31 off", "Australia/Lord_Howe", "2026-04-04T15:00", True, "9999-12-30T13:00"),
    ],
)
def test_nights_holidays_and_years(text, zone, at, opened, changes):
    country = "DE" if zone == BERLIN else None
    assert is_open(text, zone, utc(at), country) is opened
    assert next_change(text, zone, utc(at), country) == (utc(changes) if changes else None)


PIECES = st.sampled_from(
    ["Mo", "Tu", "Fr", "Su", "PH", "SH", "off", "24/7", "-", ",", ";", ":", "08:00", "18:00", "26:00", "25:00-27:00",
     "Jan", "31", "Feb", "29", "2024", "9999", "week", "53", "/2", "easter", "sunrise", "(sunset-1:00)", "+", "||",
     '"x"', "[1]", "[-1]", "+1", "day", "unknown"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=8), st.sampled_from(["", " "]))
def test_hours_are_either_refused_or_usable(pieces, separator):
    text = separator.join(pieces)
    try:
        check_hours(text, BERLIN, "DE")
    except InputError:
        return
    at = utc("2025-10-09T12:00")
    now = is_open(text, BERLIN, at, "DE")
    change = next_change(text, BERLIN, at, "DE")
    assert change is None or change > at
    assert isinstance(now, bool)
