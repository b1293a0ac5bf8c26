"""How far the clocks of a zone are from UTC, and since when: what turns times of the wall clock into instants."""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

DAY = 86400.0


class Piece(NamedTuple):
    """A stretch of time in which the clocks are not changed."""

    begin: float
    """Seconds since the epoch, UTC."""
    end: float
    offset: float
    """Seconds that the wall clock is ahead of UTC."""


@functools.lru_cache(maxsize=256)
def pieces(timezone: str, begin: float, end: float) -> tuple[Piece, ...]:
    """The stretches of constant offset from ``begin`` to ``end``, to the second.

    :param timezone: IANA name, known to be one
    """
    place = ZoneInfo(timezone)

    def offset(at: float) -> float:
        return (datetime.fromtimestamp(at, UTC).astimezone(place).utcoffset() or timedelta()).total_seconds()

    found = []
    since, at, now = begin, begin, offset(begin)
    while at < end:
        following = min(at + DAY, end)
        if (then := offset(following)) != now:
            low, high = at, following
            while high - low > 1:
                middle = float(int((low + high) / 2))
                low, high = (middle, high) if offset(middle) == now else (low, middle)
            found.append(Piece(since, high, now))
            since, now = high, then
        at = following
    if since < end:
        found.append(Piece(since, end, now))
    return tuple(found)


def midnight(timezone: str, at: float) -> float:
    """The instant at which the day of an instant began there."""
    place = ZoneInfo(timezone)
    day = datetime.fromtimestamp(at, place).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    return day.astimezone(UTC).timestamp()
