"""What a change of the routing means for calls: whose outcome changes, when. Two tables are compared, cell by cell;
nothing is tried out by chance.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from callrouter.core.clocks import DAY, midnight
from callrouter.core.flow import nodes as n
from callrouter.core.flow.link import home
from callrouter.core.flow.urls import host_of
from callrouter.core.routing import Entry, RoutingTable
from callrouter.core.routing_code.attributes import Attribute, attributes, changed
from callrouter.core.routing_code.callers import CallerClass, classes
from callrouter.core.routing_code.outcomes import Choices, leaves, pressed, two_words
from callrouter.core.routing_code.tables import case, times
from callrouter.core.routing_code.windows import Period, Span, merged, periods, said

HORIZON_DAYS = 400
"""So far ahead opening hours are worked out: a year, and the holidays at both its ends."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Calls that go elsewhere."""

    callers: tuple[str, ...]
    """Classes; none: all callers."""
    choices: Choices
    """What they press; none: whatever they press."""
    was: str
    will: str
    spans: tuple[Span, ...]
    """When, in seconds since the epoch."""
    periods: tuple[Period, ...]
    """When, on the company's clock."""
    others: tuple[str, ...] = ()
    """Classes of callers whose calls go where they went, then."""

    @property
    def when(self) -> str:
        return said(self.periods)

    def words(self) -> str:
        """``Saturdays 12:00–13:00, callers who press 1: was Ana, will be voicemail``"""
        few = "all but " * (0 < len(self.others) < len(self.callers))
        who = [few + " and ".join(self.others if few else self.callers)] if self.callers else []
        keys = pressed(self.choices)
        who += [f"{'who' if who else 'callers who'} {keys}"] if keys else []
        return f"{', '.join([self.when, ' '.join(who)] if who else [self.when])}: was {self.was}, will be {self.will}"


@dataclass(frozen=True, slots=True)
class Change:
    """What changes, alike for several numbers."""

    numbers: tuple[tuple[str, str], ...]
    """(E.164, name)."""
    differences: tuple[Difference, ...]
    attributes: tuple[Attribute, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    changes: tuple[Change, ...]
    numbers: int
    """That were compared."""
    begin: float
    days: int
    undecided: tuple[str, ...]
    """What cannot be known beforehand."""

    @property
    def elsewhere(self) -> bool:
        """Whether any call goes elsewhere."""
        return any(change.differences for change in self.changes)


class _Shape(NamedTuple):
    """Numbers of one shape are answered alike."""

    company: str
    flow: int
    direct: str
    active: bool
    problem: bool


def make_plan(was: RoutingTable, will: RoutingTable, now: float, days: int = HORIZON_DAYS) -> Plan:
    """The difference between two routings, for every number.

    :param now: seconds since the epoch; the comparison begins with the day that it is in, in each company's zone
    :param days: how far ahead
    """
    comparison = _Comparison(was, will, now, days)
    groups: dict[tuple[tuple[Difference, ...], tuple[Attribute, ...]], list[tuple[str, str]]] = {}
    dids = sorted({*was.entries, *will.entries})
    for did in dids:
        before, after = was.entries.get(did), will.entries.get(did)
        either = after or before
        assert either is not None
        found = comparison.differences(did, before, after)
        rest = changed(attributes(before), attributes(after)) if before and after else ()
        if found or rest:
            groups.setdefault((found, rest), []).append((did, either.number.name))
    changes = tuple(Change(tuple(numbers), *what) for what, numbers in groups.items())
    return Plan(changes, len(dids), now, days, tuple(comparison.undecided))


@dataclass
class _Comparison:
    was: RoutingTable
    will: RoutingTable
    since: float
    days: int
    undecided: dict[str, None] = field(default_factory=dict)
    known: dict[tuple[_Shape | None, _Shape | None], tuple[Difference, ...]] = field(default_factory=dict)
    """Numbers that are answered alike share a comparison."""

    def differences(self, did: str, before: Entry | None, after: Entry | None) -> tuple[Difference, ...]:
        key = (_shape(before), _shape(after))
        if key not in self.known:
            entries = [entry for entry in (before, after) if entry is not None]
            self.known[key] = self._compare(did, entries)
        return self.known[key]

    def _compare(self, did: str, entries: list[Entry]) -> tuple[Difference, ...]:
        zone = entries[-1].company.timezone
        begin = midnight(zone, self.since)
        end = midnight(zone, begin + self.days * DAY + DAY / 2)
        callers = classes(entries)
        cells: dict[tuple[Choices, str, str], dict[CallerClass, list[Span]]] = {}
        for spans in times(entries, begin, end):
            for caller in callers:
                old, new = case(self.was, did, caller, spans[0][0]), case(self.will, did, caller, spans[0][0])
                for leaf in leaves((old, old.start), (new, new.start)):
                    if leaf.differs:
                        texts = two_words((old, leaf.was), (new, leaf.will))
                        cells.setdefault((leaf.choices, *texts), {}).setdefault(caller, []).extend(spans)
        if cells:
            self._undecided(entries)
        found = []
        for (choices, was, will), by_caller in cells.items():
            alike: dict[tuple[Span, ...], list[CallerClass]] = {}
            for caller, stretches in by_caller.items():
                alike.setdefault(merged(stretches), []).append(caller)
            for when, who in alike.items():
                labels = tuple(each.label for each in who) if len(who) < len(callers) else ()
                others = tuple(each.label for each in callers if each not in who)
                found.append(Difference(labels, choices, was, will, when, periods(when, zone, begin, end), others))
        return tuple(found)

    def _undecided(self, entries: list[Entry]) -> None:
        for entry in entries:
            for name, node in entry.flow.nodes.items():
                place = "/".join(home(entry.flow, name))
                if isinstance(node, n.Split):
                    told = f"{place}: which callers fall on which branch; the percentages are compared"
                    self.undecided[told] = None
                elif isinstance(node, n.Webhook):
                    told = f"{place}: what {host_of(node.url)} answers; each answer is looked at"
                    self.undecided[told] = None


def _shape(entry: Entry | None) -> _Shape | None:
    if entry is None:
        return None
    direct = entry.flow_version_id is None
    start = entry.flow.nodes[entry.flow.start]
    return _Shape(
        entry.company.id,
        0 if direct else id(entry.flow),
        start.target if direct and isinstance(start, n.Dial) else "",
        entry.number.active,
        entry.problem is not None,
    )
