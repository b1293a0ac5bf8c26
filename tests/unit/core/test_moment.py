"""Moments as people write them, in zones with changes of clocks."""

from __future__ import annotations

from datetime import datetime

import pytest

from callrouter.core.moment import parse_moment
from callrouter.errors import InputError

NEW_YORK = "America/New_York"
NOW = datetime.fromisoformat("2026-11-21T12:00:30-05:00").timestamp()  # a Saturday


@pytest.mark.parametrize(
    "text, means",
    [
        ("now", "2026-11-21T12:00:30-05:00"),
        ("12:00", "2026-11-21T12:00-05:00"),
        ("11:59", "2026-11-22T11:59-05:00"),
        ("18:05", "2026-11-21T18:05-05:00"),
        ("Sat 18:05", "2026-11-21T18:05-05:00"),
        ("Sat 11:00", "2026-11-28T11:00-05:00"),
        ("saturday 18:05:30", "2026-11-21T18:05:30-05:00"),
        ("mo 9:00", "2026-11-23T09:00-05:00"),
        ("2026-07-01 18:05", "2026-07-01T18:05-04:00"),
        ("2026-07-01", "2026-07-01T00:00-04:00"),
        ("2026-07-01T18:05+02:00", "2026-07-01T18:05+02:00"),
        ("2026-11-01 01:30", "2026-11-01T01:30-04:00"),
        ("2026-11-01T01:30-05:00", "2026-11-01T01:30-05:00"),
        ("90m", "2026-11-21T13:30:30-05:00"),
        ("24h", "2026-11-22T12:00:30-05:00"),
        ("2w", "2026-12-05T12:00:30-05:00"),
    ],
)
def test_moments(text, means):
    assert parse_moment(text, NEW_YORK, NOW) == datetime.fromisoformat(means).timestamp()


@pytest.mark.parametrize(
    "zone, text, hint",
    [
        (NEW_YORK, "2026-03-08 02:30", "take 03:30"),
        ("Australia/Lord_Howe", "2026-10-04 02:15", "take 02:45"),
        (NEW_YORK, "Sut 10:00", "Mon, Tue"),
        (NEW_YORK, "25:00", "like"),
        (NEW_YORK, "tomorrow", "like"),
        (NEW_YORK, "3y", "24h"),
        (NEW_YORK, "-2h", "24h"),
        (NEW_YORK, "999999999d", "24h"),
        ("Mars/Base", "10:00", "IANA"),
    ],
)
def test_what_is_no_moment(zone, text, hint):
    with pytest.raises(InputError) as refused:
        parse_moment(text, zone, NOW)
    assert hint in str(refused.value.hint)
