"""Opening hours in OpenStreetMap's opening_hours syntax, evaluated in an IANA time zone.

https://wiki.openstreetmap.org/wiki/Key:opening_hours/specification
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

# The library's stubs leave its exceptions out.
from opening_hours import OpeningHours, ParserError, UnknownCountryError  # type: ignore[attr-defined]

from callrouter.core.clocks import pieces
from callrouter.core.model import HoursOverride
from callrouter.errors import InputError

_DAY = timedelta(days=1)


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
    hours, clock = _hours(text, "UTC", country)
    return bool(hours.is_open(_on_the_wall(timezone, at, clock)))


def next_change(text: str, timezone: str, at: float, country: str | None = None) -> float | None:
    """The instant at which open turns to closed or back (seconds since the epoch, UTC); None: never."""
    hours, clock = _hours(text, "UTC", country)
    state = is_open(text, timezone, at, country)
    while True:
        wall = _on_the_wall(timezone, at, clock)
        change = hours.next_change(wall)
        if change is None:
            return None
        # As if the clocks ran on evenly; where they are changed before that, it is asked again from there on.
        evenly = at + min(change - wall, _DAY).total_seconds()
        at = pieces(timezone, at, evenly)[0].end
        if at == evenly and change - wall > _DAY:
            # Nothing changes on the wall clock until then, and it was not put back.
            at = max(at, (change - _DAY).replace(tzinfo=_zone(timezone)).timestamp())
        if is_open(text, timezone, at, country) != state:
            return at


@functools.lru_cache(maxsize=2048)
def open_spans(
    text: str, timezone: str, begin: float, end: float, country: str | None = None
) -> tuple[tuple[float, float], ...]:
    """When it is open between two instants: (begin, end) in seconds since the epoch, exact also where clocks change.

    :raises InputError: unreadable hours or an unknown zone
    """
    hours, clock = _hours(text, "UTC", country)
    _zone(timezone)
    found: list[tuple[float, float]] = []
    for piece in pieces(timezone, begin, end):
        # On the wall clock, as if that were UTC: within a piece it runs like any other clock.
        low, high = (datetime.fromtimestamp(at + piece.offset, clock) for at in (piece.begin, piece.end))
        for opens, closes, state, *_ in hours.intervals(low, high):
            if str(state).lower() != "open":
                continue
            first = max(opens.timestamp() - piece.offset, piece.begin)
            last = min(closes.timestamp() - piece.offset, piece.end)
            if found and found[-1][1] == first:
                found[-1] = (found[-1][0], last)
            elif first < last:
                found.append((first, last))
    return tuple(found)


def _on_the_wall(timezone: str, at: float, clock: ZoneInfo) -> datetime:
    """What the wall clock of a zone shows at an instant, as if that were UTC.

    The library reads hours on such a clock truly, also in the hour that a change of clocks brings twice.
    """
    return datetime.fromtimestamp(at, _zone(timezone)).replace(tzinfo=clock, fold=0)


def override_for(overrides: Iterable[HoursOverride], flow: str, at: float) -> HoursOverride | None:
    """What is put in the place of a flow's opening hours at an instant; one for the flow comes before the company's.

    :param at: seconds since the epoch
    """
    now = [each for each in overrides if at < each.until and each.flow in (flow, None)]
    return min(now, key=lambda each: each.flow is None, default=None)


def local_time(timezone: str, at: float) -> str:
    """An instant as the wall clock of a zone shows it: ``Sat 18:05 (America/New_York)``."""
    return f"{datetime.fromtimestamp(at, _zone(timezone)):%a %H:%M} ({timezone})"


def moment_text(timezone: str, at: float) -> str:
    """An instant with its day: ``2026-12-24 Thu 18:05 (America/New_York)``.

    :raises InputError: an unknown zone
    """
    return f"{datetime.fromtimestamp(at, _zone(timezone)):%Y-%m-%d} {local_time(timezone, at)}"


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
