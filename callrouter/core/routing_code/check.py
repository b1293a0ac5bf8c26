"""What is wrong with a routing as a whole: proven of every number, without a call and without a database."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from callrouter.core.clocks import DAY, pieces
from callrouter.core.consent import unasked
from callrouter.core.flow import nodes as n
from callrouter.core.flow.check import check_flow, targets_of
from callrouter.core.flow.link import home, together
from callrouter.core.flow.parse import parse_flow
from callrouter.core.flow.source import suggest
from callrouter.core.flow.urls import Hosts
from callrouter.core.groups import checked_members
from callrouter.core.hours import is_open, next_change
from callrouter.core.recording_policy import decide_recording
from callrouter.core.routing import Entry, RoutingTable, build_table
from callrouter.core.routing_code.fields import Key, Routing, to_snapshot
from callrouter.errors import InputError

DAYS = 730
"""How far ahead changes of clocks are looked at."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    severity: str
    """"error" or "warning"."""
    key: Key
    field: str
    """Empty: the thing as a whole; "text" of a flow."""
    message: str
    hint: str | None = None
    node: str | None = None
    """Of a flow."""


@dataclass(frozen=True, slots=True)
class ClockChange:
    """The clocks of a zone are put forward or back."""

    wall: float
    """Begin of the time that is left out or comes twice, on the wall clock (as if that were UTC)."""
    seconds: float
    forward: bool


def check_routing(
    routing: Routing, prompts: Mapping[str, Collection[str]], now: float, hosts: Hosts | None = None
) -> list[Problem]:
    """Everything that is wrong, errors first.

    :param routing: the whole of it, with every field
    :param prompts: names of uploaded prompts by company
    :param now: seconds since the epoch
    :param hosts: web services that the settings allow to be asked; None: it is not looked at
    """
    names: dict[tuple[str, str], list[str]] = {}
    for key in routing:
        names.setdefault((key.kind, key.company), []).append(key.name)
    found = [*_references(routing, names), *_flows(routing, names, prompts, hosts)]
    broken = any(problem.severity == "error" for problem in found)
    table = build_table(to_snapshot(routing, 0))
    found += _targets(routing, table)
    found += _loops(routing, table)
    if not broken:
        found += [Problem("error", Key("number", e.company.name, e.number.e164), "", e.problem)
                  for e in table.entries.values() if e.problem is not None]  # fmt: skip
    found += _unasked(table)
    found += _clocks(routing, table, now)
    return sorted(found, key=lambda problem: (problem.severity, problem.key))


def _references(routing: Routing, names: Mapping[tuple[str, str], list[str]]) -> Iterator[Problem]:
    """What is named and not there."""
    for key, values in routing.items():
        fields: tuple[tuple[str, str, str], ...] = ()
        if key.kind == "number":
            own = key.company
            fields = (("campaign", "campaign", own), ("flow", "flow", own), ("target", "target", own),
                      ("backup", "target", own))  # fmt: skip
            if bool(values["flow"]) == bool(values["target"]):
                what = "both a flow and a target" if values["flow"] else "neither a flow nor a target"
                yield Problem("error", key, "", f"it has {what} to answer it", "give one of flow and target")
        elif key.kind == "target":
            fields = (("trunk", "trunk", ""),)
            if bool(values["number"]) == bool(values["sip_uri"]):
                what = "both a number and a SIP URI" if values["number"] else "nowhere to ring"
                yield Problem("error", key, "", f"it has {what}", "give number and trunk, or sip_uri")
        elif key.kind == "trunk":
            fields = (("next_trunk", "trunk", ""),)
        elif key.kind == "group":
            yield from _group(key, values, names.get(("target", key.company), []))
        for field, kind, owner in fields:
            wanted, known = values[field], names.get((kind, owner), [])
            if wanted and wanted not in known:
                yield Problem("error", key, field, f"there is no {kind} {wanted!r}", suggest(wanted, sorted(known)))


def _group(key: Key, values: Mapping[str, Any], targets: Collection[str]) -> Iterator[Problem]:
    try:
        checked_members(values["members"], values["strategy"])
    except InputError as exc:
        yield Problem("error", key, "members", exc.message, exc.hint)
    for name in [one.target for one in values["members"] if one.target not in targets]:
        yield Problem("error", key, "members", f"there is no target {name!r}", suggest(name, sorted(targets)))


def _flows(
    routing: Routing,
    names: Mapping[tuple[str, str], list[str]],
    prompts: Mapping[str, Collection[str]],
    hosts: Hosts | None,
) -> Iterator[Problem]:
    parsed: dict[Key, n.Flow] = {}
    for key, values in routing.items():
        if key.kind != "flow":
            continue
        try:
            parsed[key] = parse_flow(values["text"], key.name)
        except InputError as exc:
            yield Problem("error", key, "text", exc.message, exc.hint)
    companies = dict.fromkeys(key.company for key in parsed)
    others = {name: together(each for key, each in parsed.items() if key.company == name) for name in companies}
    for key, flow in parsed.items():
        targets, groups = (names.get((kind, key.company), []) for kind in ("target", "group"))
        known = prompts.get(key.company, ())
        for found in check_flow(flow, targets, known, groups, others=others[key.company], hosts=hosts):
            yield Problem(found.severity, key, "text", found.message, found.hint, found.node or None)


def _targets(routing: Routing, table: RoutingTable) -> Iterator[Problem]:
    """Targets that numbers could ring, and that cannot be dialled."""
    dialable: dict[str, Collection[str]] = {}
    for entry in table.entries.values():
        dialable.setdefault(entry.company.name, set(entry.destinations))
    for key, values in routing.items():
        if key.kind != "target" or key.company not in dialable or key.name in dialable[key.company]:
            continue
        known = not values["trunk"] or Key("trunk", "", values["trunk"]) in routing
        if known and bool(values["number"]) != bool(values["sip_uri"]):
            where = "sip_uri" if values["sip_uri"] else "number"
            hint = "a number needs its trunk, and has to be one that can be written as the trunk wants it"
            yield Problem("error", key, where, "it cannot be dialled", hint if where == "number" else None)


def _unasked(table: RoutingTable) -> Iterator[Problem]:
    """Conversations that somebody wants recorded and the company's demand for consent forbids."""
    told: set[tuple[Key, str]] = set()
    for entry in table.entries.values():
        if not entry.company.consent_required:
            continue
        for name in unasked(entry.flow):
            node = entry.flow.nodes[name]
            by_flow = entry.number.flow is not None and entry.problem is None
            of, own = home(entry.flow, name)
            kind, called = ("flow", of) if by_flow else ("number", entry.number.e164)
            key = Key(kind, entry.company.name, called)
            if (key, own) in told or not isinstance(node, n.Dial) or not _wanted(entry, name, node):
                continue
            told.add((key, own))
            message = "it is reached without consent, which the company requires: what is said there is not recorded"
            hint = "let a consent node come before it, or say record: never"
            yield Problem("warning", key, "text" if by_flow else "", message, hint, own if by_flow else None)


def _wanted(entry: Entry, name: str, node: n.Dial) -> bool:
    """Whether a conversation would be recorded, but for consent."""
    plain = replace(entry, company=replace(entry.company, consent_required=False))
    rung = [entry.destinations[each].target for each in targets_of(node, entry.members) if each in entry.destinations]
    return any(decide_recording(plain, name, node.record, target).record for target in rung)


def _loops(routing: Routing, table: RoutingTable) -> Iterator[Problem]:
    """Targets that are our own numbers: the call goes out, and comes back in as another one."""
    ours = set(table.entries)
    rings: dict[str, dict[str, str]] = {}
    for did, entry in table.entries.items():
        rings[did] = {
            number: target for target in _could_ring(entry)
            if (number := entry.destinations[target].target.number) is not None and number in ours
        }  # fmt: skip
    told: set[Key] = set()
    for did, found in rings.items():
        for number, target in found.items():
            company = table.entries[did].company.name
            key = Key("target", company, target)
            if key in told or key not in routing:
                continue
            told.add(key)
            circle = _circle(rings, number)
            if circle is None:
                message = f"it rings {number}, which is one of our own numbers: the call comes back as another one"
                yield Problem("warning", key, "number", message, "ring what that number rings")
            else:
                message = f"it rings {number}, one of our own numbers, and so goes round: {' → '.join(circle)}"
                yield Problem("error", key, "number", message, "ring a telephone that is not answered by callrouter")


def _could_ring(entry: Entry) -> list[str]:
    dials = [node for node in entry.flow.nodes.values() if isinstance(node, n.Dial)]
    dialled = [target for node in dials for target in targets_of(node, entry.members)]
    names = [*dialled, *(backup.target.name for backup in entry.backups)]
    return [name for name in dict.fromkeys(names) if name in entry.destinations]


def _circle(rings: Mapping[str, Mapping[str, str]], start: str) -> list[str] | None:
    """The numbers from ``start`` to ``start`` again, when it comes to that."""
    ways = [[start]]
    seen: set[str] = set()
    for way in ways:
        for following in rings.get(way[-1], {}):
            if following == start:
                return [*way, start]
            if following not in seen:
                seen.add(following)
                ways.append([*way, following])
    return None


def _clocks(routing: Routing, table: RoutingTable, now: float) -> Iterator[Problem]:
    """Opening hours that begin or end within the hour that a change of clocks leaves out or brings twice, and such
    that never change."""
    zones: dict[str, list[ClockChange]] = {}
    told: set[tuple[Key, str]] = set()
    for entry in table.entries.values():
        for where, node in entry.flow.nodes.items():
            of, name = home(entry.flow, where)
            key = Key("flow", entry.company.name, of)
            if key not in routing or not isinstance(node, n.Hours) or (key, name) in told:
                continue
            told.add((key, name))
            zone = node.timezone or entry.company.timezone
            if zone not in zones:
                zones[zone] = clock_changes(zone, now)
            for message in _surprises(node.open, zone, entry.company.country, zones[zone], now):
                yield Problem("warning", key, "text", message, node=name)


def _surprises(text: str, zone: str, country: str, changes: list[ClockChange], now: float) -> Iterator[str]:
    try:
        if next_change(text, zone, now, country) is None and "24/7" not in text:
            yield f"{text!r} is {'open' if is_open(text, zone, now, country) else 'closed'} for ever"
            return
        for change in changes:
            # On the wall clock alone, as if there were no zones: what happens then twice, or not at all.
            edge = next_change(text, "UTC", change.wall, country)
            if edge is not None and edge < change.wall + change.seconds:
                how = "forward: that time is left out" if change.forward else "back: that time comes twice"
                clock = datetime.fromtimestamp(edge, UTC)
                yield f"{text!r} opens or closes at {clock:%H:%M} while, on {clock:%Y-%m-%d}, the clocks are put {how}"
                return
    except InputError as exc:
        yield exc.message


def clock_changes(zone: str, now: float) -> list[ClockChange]:
    """The changes of clocks in the DAYS to come."""
    begin = float(int(now))
    return [
        ClockChange(
            after.begin + min(before.offset, after.offset),
            abs(after.offset - before.offset),
            after.offset > before.offset,
        )
        for before, after in itertools.pairwise(pieces(zone, begin, begin + DAYS * DAY))
    ]
