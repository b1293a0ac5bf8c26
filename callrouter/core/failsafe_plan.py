"""What a flow comes to when nobody but the dialplan runs it: announcements, opening hours, whom to ring.

The dialplan cannot ask anybody anything: it gets the answers beforehand, as windows of time in which they hold.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TypeAlias

from callrouter.core.flow import nodes as n
from callrouter.core.flow.check import dialled
from callrouter.core.flow.link import home
from callrouter.core.hours import is_open, next_change, override_for
from callrouter.core.routing import Destination, Entry, filled
from callrouter.errors import InputError

DAYS = 14
"""How far ahead opening hours are worked out; beyond, the backup destinations ring at any time."""
MAX_WINDOWS = 120
"""Hours that change more often than this in DAYS are followed as far as it goes."""
MAX_NODES = 50
"""Nodes gone through without a caller's say; a flow with more goes round."""


@dataclass(frozen=True, slots=True)
class Alone:
    """What the dialplan does with a caller by itself."""

    announce: n.Prompts
    """Said to the caller first, placeholders filled in."""
    destinations: tuple[Destination, ...]
    """Rung in order; empty: the call ends after the announcement."""
    cause: int = 16
    """Q.850, when nobody is to be rung."""
    consent: bool | None = None
    """Whether what is said makes the caller one who may be recorded; None: nothing of it is said."""


@dataclass(frozen=True, slots=True)
class Window:
    """From the window before (or now) until ``until``, seconds since the epoch; None: for ever."""

    until: float | None
    alone: Alone


def failsafe_windows(entry: Entry, now: float) -> tuple[Window, ...]:
    """What the dialplan does with the calls of a number from now on; neighbouring windows differ.

    Followed from the flow's start: what is played is announced, tags are passed by, hours are asked. At the first node
    that needs the controller (a menu, a gather, a voicemail) the backup destinations ring; of a ``split`` the branch
    that most callers take is followed; a ``geo`` whose branches do not all come to the same rings whomever they reach,
    for the dialplan does not tell areas apart; a ``webhook`` goes by ``on_failed``; at a ``dial`` the targets that this
    branch can reach come before them, but after the backup that the number itself names; at a ``hangup`` the call ends,
    for then the flow has said that nobody is there. A ``consent`` by staying on the line is announced; one that takes a
    key is passed by, as if agreed, and nothing is recorded (``Alone.consent``). Hours that cannot be read count as
    open; what overrides them ends in its time.

    :param now: seconds since the epoch
    """
    moments = [now, *_changes(entry, now)]
    found: list[tuple[float, Alone]] = []
    for moment in moments:
        alone = at_moment(entry, moment)
        if not found or found[-1][1] != alone:
            found.append((moment, alone))
    ends: list[float | None] = [moment for moment, _ in found[1:]]
    if len(moments) == 1:
        ends.append(None)
    else:
        # Beyond what was worked out nothing is known.
        ends.append(moments[-1])
    return tuple(Window(end, alone) for end, (_, alone) in zip(ends, found, strict=True))


def at_moment(entry: Entry, at: float) -> Alone:
    """What the dialplan does with a call that comes at an instant (seconds since the epoch)."""
    return _from(entry, entry.flow.start, at, None, {})


_Known: TypeAlias = dict[tuple[str, str | None], Alone | None]


def _from(entry: Entry, start: str, at: float, language: str | None, known: _Known) -> Alone:
    """What the dialplan does from a node on.

    :param language: that was chosen before
    :param known: what it does from branches that were followed before; None: it is being followed
    """
    said: n.Prompts = ()
    consent: bool | None = None
    name: str | None = start
    for _ in range(MAX_NODES):
        node = entry.flow.nodes.get(name) if name is not None else None
        match node:
            case n.Play():
                said, name = (*said, *(filled(prompt, entry, language) for prompt in node.prompts)), node.next
            case n.Consent(mode=n.ConsentMode.ANNOUNCE):
                said, name = (*said, *(filled(prompt, entry, language) for prompt in node.prompts)), node.on_agreed
                consent = consent is not False
            case n.Consent():
                name, consent = node.on_agreed, False
            case n.Tag():
                name = node.next
            case n.Set():
                name, language = node.next, node.language or language
            case n.GotoFlow():
                name = node.to
            case n.Hours():
                assert name is not None
                name = node.on_open if _open(entry, name, node, at) else node.on_closed
            case n.Split():
                name = max(node.branches, key=lambda branch: branch[1])[0]
            case n.Caller():
                name = node.on_unknown
            case n.Webhook():
                name = node.on_failed
            case n.Geo():
                assert name is not None
                found = {_branch(entry, to, at, language, known) for _, to in n.exits(node)}
                alone = next(iter(found)) if len(found) == 1 else Alone((), _ring(entry, name))
                alone = alone or Alone((), entry.backups)
                later = consent if alone.consent is None else alone.consent and consent is not False
                return replace(alone, announce=(*said, *alone.announce), consent=later)
            case n.Dial():
                assert name is not None
                return Alone(said, _ring(entry, name), consent=consent)
            case n.Hangup():
                return Alone(said, (), n.HANGUP_CAUSES[node.cause], consent)
            case n.Menu() | n.Gather() | n.Voicemail() | None:
                break
    return Alone(said, entry.backups, consent=consent)


def _branch(entry: Entry, to: str | None, at: float, language: str | None, known: _Known) -> Alone | None:
    """What the dialplan does in a branch; None: it comes back to where it is being followed, or goes too far."""
    if to is None:
        return Alone((), (), n.HANGUP_CAUSES["normal"])
    key = (to, language)
    if sum(alone is None for alone in known.values()) >= MAX_NODES:
        return None  # branches within branches are followed as far as nodes are
    if key not in known:
        known[key] = None
        known[key] = _from(entry, to, at, language, known)
    return known[key]


def _ring(entry: Entry, start: str) -> tuple[Destination, ...]:
    """The number's own backup, what this branch dials, then every other backup."""
    branch = n.Flow(entry.flow.name, start, entry.flow.nodes)
    names = [entry.number.backup, *dialled(branch, entry.members), *(backup.target.name for backup in entry.backups)]
    known = {backup.target.name: backup for backup in entry.backups}
    return tuple(known[name] for name in dict.fromkeys(names) if name in known)


def _open(entry: Entry, name: str, node: n.Hours, at: float) -> bool:
    if (override := override_for(entry.overrides, home(entry.flow, name)[0], at)) is not None:
        return override.state == "open"
    try:
        return is_open(node.open, node.timezone or entry.company.timezone, at, entry.company.country)
    except InputError:
        return True


def _changes(entry: Entry, now: float) -> list[float]:
    """The instants in the next ``DAYS`` at which any of the flow's hours change, and the end of that time."""
    end = now + DAYS * 86400.0
    hours = [node for node in entry.flow.nodes.values() if isinstance(node, n.Hours)]
    if not hours:
        return []
    found = sorted(
        {
            change
            for node in hours
            for change in _changes_of(
                node.open, node.timezone or entry.company.timezone, entry.company.country, now, end
            )
        }
        | {each.until for each in entry.overrides if now < each.until < end}
    )
    if len(found) > MAX_WINDOWS:
        return found[:MAX_WINDOWS]
    return [*found, end]


@functools.lru_cache(maxsize=1024)
def _changes_of(text: str, timezone: str, country: str, now: float, end: float) -> tuple[float, ...]:
    found: list[float] = []
    moment = now
    while len(found) <= MAX_WINDOWS:
        try:
            change = next_change(text, timezone, moment, country)
        except InputError:
            break
        if change is None or not moment < change < end:
            break
        found.append(change)
        moment = change
    return tuple(found)
