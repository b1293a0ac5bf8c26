"""Stretches of time as people say them: what repeats every week, and the dates on which it is otherwise."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple, TypeAlias

from callrouter.core.clocks import DAY, pieces

Span: TypeAlias = tuple[float, float]
"""Begin and end, the end not included."""
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
WEEKS = 3
"""A day is an exception where, within so many weeks, its weekday is as usual again; else the usual has changed."""
SHOWN = 8
"""Dates that are listed; of more the number is told."""


class Part(NamedTuple):
    """A part of a day, on the wall clock."""

    begin: float
    """Seconds since midnight."""
    end: float
    turn: int = 0
    """Of a time that a change of clocks brings twice: 1 the first time only, 2 the second only; 0 both, or once."""


Pattern: TypeAlias = tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Period:
    """Weeks that are alike."""

    first: date
    last: date
    week: tuple[Pattern, ...]
    """Monday to Sunday."""
    otherwise: tuple[tuple[date, Pattern], ...] = ()


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Spans in order, none touching another."""
    found: list[Span] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        elif end > begin:
            found.append((begin, end))
    return tuple(found)


def without(spans: Iterable[Span], others: Iterable[Span]) -> tuple[Span, ...]:
    """What of spans is in none of the others."""
    left = list(merged(spans))
    for begin, end in others:
        left = [
            each for low, high in left for each in ((low, min(high, begin)), (max(low, end), high)) if each[0] < each[1]
        ]
    return tuple(left)


@functools.lru_cache(maxsize=2048)
def periods(spans: tuple[Span, ...], timezone: str, begin: float, end: float) -> tuple[Period, ...]:
    """The weeks and dates that spans within ``begin`` and ``end`` come to on the wall clock of a zone."""
    days, gaps = _days(merged(spans), timezone, begin, end)
    dates = sorted(days)
    found: list[Period] = []
    start = 0
    while start < len(dates):
        usual = _usual(dates[start:], days, gaps)
        otherwise: list[tuple[date, Pattern]] = []
        at = start
        while at < len(dates):
            day = dates[at]
            if not _agrees(day, usual[day.weekday()], days, gaps):
                later = [day + timedelta(weeks=week) for week in range(1, WEEKS + 1)]
                known = [each for each in later if each in days]
                if known and not any(_agrees(each, usual[day.weekday()], days, gaps) for each in known):
                    break
                otherwise.append((day, days[day]))
            at += 1
        found.append(Period(dates[start], dates[at - 1], usual, tuple(otherwise)))
        start = at
    return tuple(found)


def _days(
    spans: tuple[Span, ...], timezone: str, begin: float, end: float
) -> tuple[dict[date, Pattern], dict[date, list[Span]]]:
    """The pattern of each day, and what of it a change of clocks leaves out."""
    steady = pieces(timezone, begin, end)
    walls: list[list[Span]] = []
    for piece in steady:
        inside = [(max(low, piece.begin), min(high, piece.end)) for low, high in spans]
        walls.append([(low + piece.offset, high + piece.offset) for low, high in inside if low < high])
    gaps: dict[date, list[Span]] = {}
    parts: list[tuple[float, float, int]] = []
    for number, (before, after) in enumerate(itertools.pairwise(steady)):
        low, high = sorted((after.begin + before.offset, after.begin + after.offset))
        if after.offset > before.offset:
            for day, part in _by_day(low, high):
                gaps.setdefault(day, []).append(part)
            continue
        # That time comes twice.
        first, second = (
            [(max(a, low), min(b, high)) for a, b in walls[at] if a < high and b > low] for at in (number, number + 1)
        )
        once = ((1, number, without(first, second)), (2, number + 1, without(second, first)))
        for turn, at, alone in once:
            parts += [(a, b, turn) for a, b in alone]
            walls[at] = list(without(walls[at], alone))
    whole = [(a, b, 0) for a, b in merged(each for mine in walls for each in mine)]
    days: dict[date, list[Part]] = {}
    for piece in steady:
        for day, _ in _by_day(piece.begin + piece.offset, piece.end + piece.offset):
            days.setdefault(day, [])
    for a, b, turn in sorted([*whole, *parts]):
        for day, (low, high) in _by_day(a, b):
            days[day].append(Part(low, high, turn))
    return {day: tuple(each) for day, each in days.items()}, gaps


def _by_day(low: float, high: float) -> Iterable[tuple[date, Span]]:
    """A stretch of the wall clock (as if that were UTC), cut at midnights."""
    while low < high:
        start = low - low % DAY
        yield datetime.fromtimestamp(low, UTC).date(), (low - start, min(high - start, DAY))
        low = start + DAY


def _usual(dates: list[date], days: Mapping[date, Pattern], gaps: Mapping[date, list[Span]]) -> tuple[Pattern, ...]:
    """The week that begins with the first of the dates: of each weekday what stays for WEEKS; not of days on which the
    clocks are changed."""
    found: dict[int, Pattern] = {}
    first: dict[int, Pattern] = {}
    for day in dates:
        weekday = day.weekday()
        if weekday in found or day in gaps or any(part.turn for part in days[day]):
            continue
        first.setdefault(weekday, days[day])
        following = (day + timedelta(weeks=week) for week in range(1, WEEKS))
        if all(days.get(each, days[day]) == days[day] for each in following):
            found[weekday] = days[day]
            if len(found) == 7:
                break
    return tuple(found.get(weekday, first.get(weekday, ())) for weekday in range(7))


def _agrees(day: date, usual: Pattern, days: Mapping[date, Pattern], gaps: Mapping[date, list[Span]]) -> bool:
    mine = days[day]
    if day not in gaps or any(part.turn for part in mine):
        return mine == usual
    spans, wanted = ([(part.begin, part.end) for part in each] for each in (mine, usual))
    return without(spans, gaps[day]) == without(wanted, gaps[day])


def said(found: tuple[Period, ...]) -> str:
    """Periods in words: ``Saturdays 12:00–13:00, not on 2026-12-26``."""
    alone = len(found) == 1
    told = []
    for period in found:
        week, dates = _week(period.week), _dates(period.otherwise)
        if not week and not dates:
            continue
        if alone:
            told.append("; ".join(each for each in (week, dates) if each))
        elif period.first == period.last or not week:
            told.append("; ".join(each for each in (week and f"on {period.first}", dates) if each))
        else:
            told.append(f"{period.first} to {period.last}: " + "; ".join(each for each in (week, dates) if each))
    return "; ".join(told)


ALL_DAY: Pattern = (Part(0.0, DAY),)


def _week(week: tuple[Pattern, ...]) -> str:
    if all(pattern == ALL_DAY for pattern in week):
        return "at any time"
    groups: list[tuple[list[int], Pattern]] = []
    for weekday, pattern in enumerate(week):
        if not pattern:
            continue
        same = next((days for days, known in groups if known == pattern), None)
        if same is None:
            groups.append(([weekday], pattern))
        else:
            same.append(weekday)
    return ", ".join(f"{_weekdays(days)} {clock_times(pattern)}" for days, pattern in groups)


def _weekdays(days: list[int]) -> str:
    if len(days) == 7:
        return "every day"
    if len(days) == 1:
        return f"{('Mondays', 'Tuesdays', 'Wednesdays', 'Thursdays', 'Fridays', 'Saturdays', 'Sundays')[days[0]]}"
    if days == list(range(days[0], days[-1] + 1)) and len(days) > 2:
        return f"{DAYS[days[0]]}–{DAYS[days[-1]]}"
    return ", ".join(DAYS[day] for day in days)


def clock_times(pattern: Pattern) -> str:
    """Parts of a day: ``12:00–13:00 and 18:00–24:00``."""
    if pattern == ALL_DAY:
        return "all day"
    turns = ("", " (the first time)", " (the second time)")
    return " and ".join(f"{_clock(part.begin)}–{_clock(part.end)}{turns[part.turn]}" for part in pattern)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60:02}:{minutes % 60:02}" + (f":{rest:02}" if rest else "")


def _dates(otherwise: tuple[tuple[date, Pattern], ...]) -> str:
    groups: dict[Pattern, list[date]] = {}
    for day, pattern in otherwise:
        groups.setdefault(pattern, []).append(day)
    return "; ".join(
        f"{'on' if pattern else 'not on'} {_listed(days)}{f' {clock_times(pattern)}' if pattern else ''}"
        for pattern, days in groups.items()
    )


def _listed(days: list[date]) -> str:
    runs: list[list[date]] = []
    for day in days:
        if runs and day - runs[-1][-1] == timedelta(days=1):
            runs[-1].append(day)
        else:
            runs.append([day])
    told = [f"{run[0]}" if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    more = f" and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    return ", ".join(told[:SHOWN]) + more
