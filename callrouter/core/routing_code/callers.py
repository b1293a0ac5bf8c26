"""Classes of callers that a routing tells apart. A node that treats callers differently says here which there are."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from callrouter.core import phone
from callrouter.core.branches import geo
from callrouter.core.clocks import DAY
from callrouter.core.flow import nodes as n
from callrouter.core.flow.check import reachable
from callrouter.core.identity import CallerHistory
from callrouter.core.routing import Entry

WITHHELD = "callers who withhold their number"
PRIVATE = "callers with a number of no country"
OTHERS = "other callers"
ALL = ""
"""All of them are treated alike."""
MANY_TAGS = 4
"""Of more tags not every combination is looked at: none, each alone, all together."""
SOMEWHERE = ("US", "GB", "DE", "FR", "AU", "IN", "BR", "JP", "ZA", "NZ", "MX", "IT")
"""Some of these are in none of the areas that a flow names."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """Earlier calls to the same company."""

    label: str
    """"who call for the first time"."""
    days: float | None
    """Since the last one; None: there was none."""
    tags: tuple[str, ...] = ()


UNTOLD = Earlier("whose earlier calls are not known", None)


@dataclass(frozen=True, slots=True)
class CallerClass:
    """Callers who are treated alike, by one who stands for them."""

    label: str
    """In words, for a sentence: "callers from US 212"; "" for all."""
    caller: str | None
    """E.164; None: withheld."""
    earlier: Earlier = UNTOLD

    def history(self, at: float) -> CallerHistory | None:
        """What is known of such a caller's earlier calls at a moment."""
        if self.caller is None or self.earlier is UNTOLD:
            return None
        if self.earlier.days is None:
            return CallerHistory()
        return CallerHistory(calls=1, last_at=at - self.earlier.days * DAY, tags=self.earlier.tags)


def classes(entries: Sequence[Entry]) -> tuple[CallerClass, ...]:
    """The classes that the entries' flows tell apart, together: within one class all of them treat callers alike."""
    nodes = [node for entry in entries for node in _reached(entry)]
    histories = tuple(dict.fromkeys((node.within_days, node.tags) for node in nodes if isinstance(node, n.Caller)))
    areas = tuple(dict.fromkeys(_areas(entries)))
    withheld = bool(areas or histories) or not all(entry.company.accept_anonymous for entry in entries)
    return _classes(areas, histories, withheld)


def _reached(entry: Entry) -> Iterator[n.Node]:
    return (entry.flow.nodes[name] for name in reachable(entry.flow))


def _areas(entries: Iterable[Entry]) -> Iterator[tuple[n.Area, str]]:
    """Every area that is asked for, with the country that its codes are of."""
    for entry in entries:
        for node in _reached(entry):
            if isinstance(node, n.Geo):
                for area in node.areas:
                    yield n.Area("", area.countries, area.codes, area.prefixes), entry.company.country


@functools.lru_cache(maxsize=1024)
def _classes(
    areas: tuple[tuple[n.Area, str], ...], histories: tuple[tuple[int | None, tuple[str, ...]], ...], withheld: bool
) -> tuple[CallerClass, ...]:
    numbers = _by_number(areas) if areas else [(ALL, next(phone.examples(SOMEWHERE[0])))]
    if not histories:
        made = [CallerClass(label or (OTHERS if withheld else ALL), caller) for label, caller in numbers]
    else:
        made = [
            CallerClass(f"{label or 'callers'} {earlier.label}", caller, earlier)
            for label, caller in numbers
            for earlier in _by_history(histories)
        ]
    return (*made, CallerClass(WITHHELD, None)) if withheld else tuple(made)


def _by_number(areas: tuple[tuple[n.Area, str], ...]) -> list[tuple[str, str]]:
    callers = [number for area, country in areas for number in _within(area, country)]
    callers += [number for country in SOMEWHERE for number in phone.examples(country)]
    # Which areas a number is in decides all that a geo node can say of it.
    found: dict[frozenset[int], str] = {}
    for caller in dict.fromkeys(callers):
        found.setdefault(_where(caller, areas), caller)
    return [*((_label(places, found, areas), caller) for places, caller in found.items()), (PRIVATE, "100")]


def _by_history(histories: tuple[tuple[int | None, tuple[str, ...]], ...]) -> Iterator[Earlier]:
    yield UNTOLD
    yield Earlier("who call for the first time", None)
    tags = sorted({tag for _, each in histories for tag in each})
    sizes = range(len(tags) + 1) if len(tags) <= MANY_TAGS else (0, 1, len(tags))
    edges = sorted({days for days, _ in histories if days is not None})
    for chosen in (some for size in sizes for some in itertools.combinations(tags, size)):
        marked = f" and have tag {', '.join(chosen)}" if chosen else ""
        before = 0
        for days in edges:
            since = f"{before} to {days}" if before else f"at most {days}"
            yield Earlier(f"who last called {since} days ago{marked}", (before + days) / 2, chosen)
            before = days
        ago = f"who last called more than {before} days ago" if before else "who called before"
        yield Earlier(f"{ago}{marked}", before + 1.0, chosen)


def _where(caller: str, areas: tuple[tuple[n.Area, str], ...]) -> frozenset[int]:
    return frozenset(
        place
        for place, (area, country) in enumerate(areas)
        if geo(n.Geo((area,), "other", "unknown"), caller, country).to == area.next
    )


def _label(places: frozenset[int], known: Iterable[frozenset[int]], areas: tuple[tuple[n.Area, str], ...]) -> str:
    if not places:
        return OTHERS
    known = list(known)

    def width(place: int) -> int:
        return sum(place in each for each in known)

    narrow = min(places, key=width)
    inner = [each - places for each in known if each > places]
    besides = sorted({areas[min(each, key=width)][0].label for each in inner})
    return f"callers from {areas[narrow][0].label}" + (f", except {', '.join(besides)}" if besides else "")


def _within(area: n.Area, country: str) -> Iterator[str]:
    """Numbers in an area; enough of them that some are in no narrower one."""
    countries = area.countries or ((country,) if area.codes else ())
    for each in countries:
        yield from phone.examples(each)
        for code in area.codes:
            yield from phone.examples(each, code)
    for prefix in area.prefixes:
        yield from phone.examples_with(prefix)
