"""Opening hours in OpenStreetMap's opening_hours syntax, evaluated in an IANA time zone.

https://wiki.openstreetmap.org/wiki/Key:opening_hours/specification
"""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

# The library's stubs leave its exceptions out.
from opening_hours import OpeningHours, ParserError, UnknownCountryError  # type: ignore[attr-defined]

from callrouter.errors import InputError


def check_hours(text: str, timezone: str, country: str | None = None) -> None:
    """Refuse what cannot be read.

    :raises InputError: unreadable hours or an unknown zone
    """
    _hours(text, timezone, country)


def is_open(text: str, timezone: str, at: float, country: str | None = None) -> bool:
    """Whether it is open at an instant.

    :param at: seconds since the epoch, UTC
    :param country: ISO 3166 alpha-2; gives "PH" (public holidays) its meaning
    """
    hours, zone = _hours(text, timezone, country)
    return bool(hours.is_open(datetime.fromtimestamp(at, zone)))


def next_change(text: str, timezone: str, at: float, country: str | None = None) -> float | None:
    """The instant at which open turns to closed or back (seconds since the epoch, UTC); None: never."""
    hours, zone = _hours(text, timezone, country)
    change = hours.next_change(datetime.fromtimestamp(at, zone))
    return change.astimezone(UTC).timestamp() if change else None


def local_time(timezone: str, at: float) -> str:
    """An instant as the wall clock of a zone shows it: ``Sat 18:05 (America/New_York)``."""
    return f"{datetime.fromtimestamp(at, _zone(timezone)):%a %H:%M} ({timezone})"


@functools.lru_cache(maxsize=4096)
def _hours(text: str, timezone: str, country: str | None) -> tuple[OpeningHours, ZoneInfo]:
    zone = _zone(timezone)
    try:
        return OpeningHours(text, timezone=zone, country=country), zone
    except ParserError as exc:
        raise InputError(
            f"opening hours {text!r} cannot be read: {_where(str(exc))}",
            hint='write them like "Mo-Fr 08:00-18:00; PH off"',
        ) from exc
    except UnknownCountryError:  # no calendar of that country's holidays: "PH" never matches
        return _hours(text, timezone, None)


def _where(report: str) -> str:
    """The library's drawing with a caret, in one line: ``at column 4: expected wday``."""
    place = re.search(r"--> \d+:(\d+)", report)
    expected = re.search(r"= (.+)", report)
    if place and expected:
        return f"at column {place[1]}: {expected[1].strip()}"
    return " ".join(report.split())


@functools.lru_cache(maxsize=1024)
def _zone(timezone: str) -> ZoneInfo:
    try:
        return ZoneInfo(timezone)
    except (KeyError, ValueError, OSError) as exc:
        raise InputError(f"there is no time zone {timezone!r}", hint="IANA names look like America/New_York") from exc
