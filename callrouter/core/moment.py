"""Moments as people write them: ``Sat 18:05``, ``18:05``, ``2026-12-24 18:05``, ``24h`` from now, ISO 8601."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from callrouter.errors import InputError

_SHORT = re.compile(r"(?:(?P<day>[A-Za-z]{2,9})\s+)?(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2}))?")
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SPAN = re.compile(r"(\d{1,5})([mhdw])")
UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
HINT = 'write it like "Sat 18:05", "18:05", "2026-12-24 18:05", 2026-12-24T18:05:00+01:00, or 24h for a day from now'


def span(text: str) -> timedelta | None:
    """How long ``90m``, ``24h``, ``7d`` or ``2w`` is; None: the text says no length of time."""
    found = _SPAN.fullmatch(text.strip())
    return timedelta(**{UNITS[found[2]]: int(found[1])}) if found else None


def parse_moment(text: str, timezone: str, now: float) -> float:
    """The instant that a text means.

    Without a date it is the next such moment from ``now`` on; without an offset it is the wall clock of ``timezone``;
    a length of time counts from ``now``.
    An hour that a change of clocks brings twice is the first one; write the offset for the second.

    :param timezone: IANA name
    :param now: seconds since the epoch
    :return: seconds since the epoch
    :raises InputError: no moment, an unknown zone, or an hour that a change of clocks leaves out
    """
    try:
        zone = ZoneInfo(timezone)
    except (KeyError, ValueError, OSError) as exc:
        raise InputError(f"there is no time zone {timezone!r}", hint="IANA names look like America/New_York") from exc
    shown = text.strip()
    if shown == "now":
        return now
    if (length := span(shown)) is not None:
        return now + length.total_seconds()
    found = _SHORT.fullmatch(shown)
    if found is None:
        try:
            moment = datetime.fromisoformat(shown)
        except ValueError as exc:
            raise InputError(f"{text!r} is no moment", hint=HINT) from exc
        return moment.timestamp() if moment.tzinfo else _instant(moment, zone)
    try:
        clock = time(int(found["hour"]), int(found["minute"]), int(found["second"] or 0))
    except ValueError as exc:
        raise InputError(f"{text!r}: there is no such time of day", hint=HINT) from exc
    today = datetime.fromtimestamp(now, zone).date()
    if found["day"] is None:
        return _next([today, today + timedelta(days=1)], clock, zone, now)
    weekday = _weekday(found["day"])
    first = today + timedelta(days=(weekday - today.weekday()) % 7)
    return _next([first, first + timedelta(days=7)], clock, zone, now)


def _weekday(word: str) -> int:
    for number, day in enumerate(DAYS):
        if day.startswith(word.lower()):
            return number
    raise InputError(f"{word!r} is no day of the week", hint=", ".join(day[:3].title() for day in DAYS))


def _next(days: list[date], clock: time, zone: ZoneInfo, now: float) -> float:
    """The first that is not over."""
    for day in days[:-1]:
        moment = _instant(datetime.combine(day, clock), zone)
        if moment >= now - 59:  # the minute that it is now
            return moment
    return _instant(datetime.combine(days[-1], clock), zone)


def _instant(wall: datetime, zone: ZoneInfo) -> float:
    moment = wall.replace(tzinfo=zone)
    there = moment.astimezone(UTC).astimezone(zone).replace(tzinfo=None)
    if there != wall:
        raise InputError(
            f"there is no {wall:%H:%M} on {wall:%Y-%m-%d} in {zone.key}: the clocks are put forward",
            hint=f"take {there:%H:%M}",
        )
    return moment.timestamp()
