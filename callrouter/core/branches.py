"""Where a node leads that asks nobody: opening hours, percentages, areas, earlier calls."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from callrouter.core import phone
from callrouter.core.flow import nodes as n
from callrouter.core.flow.link import home
from callrouter.core.hours import is_open, local_time, moment_text, override_for
from callrouter.core.identity import CallerHistory
from callrouter.core.model import HoursOverride
from callrouter.core.state import Session
from callrouter.errors import InputError


@dataclass(frozen=True, slots=True)
class Branch:
    """The exit that a call takes."""

    to: str
    what: str
    """What was decided, in a word or two."""
    why: str


def branch(session: Session, node: n.Hours | n.Split | n.Geo | n.Caller, at: float) -> Branch:
    """The exit that a call takes at a node.

    :param at: seconds since the epoch
    """
    entry = session.entry
    assert entry is not None
    flow, own = home(entry.flow, session.node)
    match node:
        case n.Hours():
            zone = node.timezone or entry.company.timezone
            if (override := override_for(session.overrides, flow, at)) is not None:
                return _overridden(node, override, zone)
            return _hours(node, zone, entry.company.country, at)
        case n.Split():
            return split(node, f"{flow}/{own}", session.caller, session.call_id)
        case n.Geo():
            return geo(node, session.caller, entry.company.country)
        case n.Caller():
            return caller(node, session.caller, session.history, at)


def _hours(node: n.Hours, zone: str, country: str, at: float) -> Branch:
    try:
        opened = is_open(node.open, zone, at, country)
    except InputError as exc:
        return Branch(node.on_open, "hours", f"unreadable, taken as open: {exc.message}")
    why = f"{local_time(zone, at)} against {node.open!r}"
    return Branch(node.on_open, "open", why) if opened else Branch(node.on_closed, "closed", why)


def _overridden(node: n.Hours, override: HoursOverride, zone: str) -> Branch:
    whose = f"flow {override.flow}" if override.flow else "the company"
    reason = f": {override.reason}" if override.reason else ""
    try:
        until = moment_text(zone, override.until)
    except InputError:  # a zone that there is no more
        until = moment_text("UTC", override.until)
    to = node.on_open if override.state == "open" else node.on_closed
    return Branch(to, override.state, f"overridden for {whose} until {until}{reason}")


def point(salt: str, who: str) -> int:
    """A whole number from 0 to 99, always the same for the same two texts, and evenly spread over callers.

    The first 8 bytes of SHA-256(salt, a zero byte, who), as a number, times 100, divided by 2 to the 64th.
    """
    digest = hashlib.sha256(f"{salt}\0{who}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") * 100 >> 64


def split(node: n.Split, salt: str, caller: str | None, call_id: str) -> Branch:
    """The branch of a caller; of a call without a number, by its id.

    :param salt: "flow/node": whom one split sends left another one may send right
    """
    place = point(salt, caller or call_id)
    who = "the caller's number falls" if caller else "without a number, the call falls"
    begin = 0
    for to, percent in node.branches:
        if place < begin + percent:
            return Branch(to, f"{percent} %", f"{who} on {place + 1}, which is in {begin + 1} to {begin + percent}")
        begin += percent
    raise AssertionError("percentages are 100 together")


def geo(node: n.Geo, caller: str | None, country: str) -> Branch:
    """The branch of a caller's number.

    :param caller: E.164; None: withheld
    :param country: that area codes without one are of
    """
    if caller is None:
        return Branch(node.on_unknown, "unknown", "the caller's number is withheld")
    if not caller.startswith("+"):
        return Branch(node.on_unknown, "unknown", f"{caller} is a number of no country")
    region = phone.region_of(caller)
    for area in node.areas:
        if any(caller.startswith(prefix) for prefix in area.prefixes) or _in_country(area, caller, region, country):
            return Branch(area.next, area.label, f"{caller} is a number there")
    where = f"in {region}" if region else "of no known country"
    return Branch(node.on_other, "other", f"{caller} is {where}, and in none of the areas")


def _in_country(area: n.Area, caller: str, region: str | None, country: str) -> bool:
    countries = area.countries or ((country,) if area.codes else ())
    if region is None or region not in countries:
        return False
    return not area.codes or any(phone.has_area_code(caller, region, code) for code in area.codes)


def caller(node: n.Caller, number: str | None, history: CallerHistory | None, at: float) -> Branch:
    """The exit of a caller.

    :param number: E.164; None: withheld
    :param history: None: it is not known
    :param at: seconds since the epoch
    """
    if number is None:
        return Branch(node.on_anonymous, "anonymous", "the number is withheld")
    if history is None:
        return Branch(node.on_unknown, "unknown", "whether there were earlier calls is not known at this moment")
    tag = next((tag for tag in node.tags if tag in history.tags), None)
    if tag is not None and node.on_known is not None:
        return Branch(node.on_known, "known", f"an earlier call has the tag {tag!r}")
    if history.last_at is None:
        return Branch(node.on_first_time, "first time", "no earlier call from this number")
    days = max(0.0, at - history.last_at) / 86400
    calls = f"{history.calls} earlier call{'s' if history.calls != 1 else ''}, the last one {days:.1f} days ago"
    if node.within_days is None or days <= node.within_days:
        return Branch(node.on_repeat, "repeat", calls)
    return Branch(node.on_other, "other", f"{calls}, not within {node.within_days}")
