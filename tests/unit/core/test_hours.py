from __future__ import annotations

from datetime import UTC, datetime

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
