"""The file that the dialplan reads when the controller is absent: for each DID, whom to ring.

Asterisk reads it anew whenever it changed (``AST_CONFIG``), so an edit needs no reload.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from callrouter.core.blocks import ANONYMOUS
from callrouter.core.dialstring import check_dial_string
from callrouter.core.model import NumberFormat
from callrouter.core.phone import for_trunk
from callrouter.errors import InputError
from callrouter.files import replace_file

_E164 = re.compile(r"\+[1-9][0-9]{4,14}\Z")
_ID = re.compile(r"[A-Za-z0-9-]{0,64}\Z")
_LABEL = re.compile(r"[A-Za-z0-9 ._-]{0,80}\Z")
_PROMPT = re.compile(r"/[A-Za-z0-9/._-]+\Z")
_PATTERN = re.compile(r"\+[1-9][0-9]{0,14}\*?\Z|[0-9]{2,6}\Z|anonymous\Z")
_FOR_EVER = 9_999_999_999
"""Seconds since the epoch; in the year 2286."""


@dataclass(frozen=True, slots=True)
class FailsafeDestination:
    """One thing to dial."""

    endpoint: str
    """Dial string."""
    ring_seconds: int
    caller_id: str | None = None
    """E.164 shown to the business; None: the caller's own."""
    place: int = 1
    """What its leg's id ends with; different for each destination of an entry."""
    record: bool = True
    retry: bool = False
    """The destination before it over another trunk: dialled only when that one's trunk failed."""


@dataclass(frozen=True, slots=True)
class FailsafeWindow:
    """What is done with a new call until a moment; the window before it ends where this one begins."""

    until: float | None
    """Seconds since the epoch; None: for ever."""
    say: tuple[str, ...]
    """Prompts played first: absolute paths without extension."""
    places: tuple[int, ...]
    """Which of the entry's destinations are rung, by ``place``, in order; empty: the call ends after the prompts."""
    cause: int = 16
    """Q.850, when nobody is rung."""
    consent: bool = False
    """Whether who has heard the prompts may be recorded, where that takes consent."""


@dataclass(frozen=True, slots=True)
class FailsafeEntry:
    """What the dialplan does with a DID by itself."""

    did: str
    """E.164."""
    destinations: tuple[FailsafeDestination, ...]
    """Tried in order."""
    label: str = ""
    """For people who read the file; other characters than letters, digits, space . _ - are dropped."""
    consent_needed: bool = False
    """Whether only callers are recorded who consented."""
    number_id: str = ""
    campaign_id: str = ""
    company_id: str = ""
    max_calls: int | None = None
    """Calls of the company over trunks at once; None: no limit."""
    windows: tuple[FailsafeWindow, ...] = ()
    """Empty, or after the last one: all destinations ring, and nothing is said."""


@dataclass(frozen=True, slots=True)
class FailsafeBlock:
    """Callers whom the dialplan refuses by itself."""

    company_id: str
    """"" for all companies."""
    pattern: str
    """As :class:`callrouter.core.blocks.Block` has it."""
    cause: int
    """Q.850."""
    until: float | None = None
    """Seconds since the epoch; None: for ever."""


def render_failsafe(entries: Iterable[FailsafeEntry], blocks: Iterable[FailsafeBlock] = ()) -> str:
    """The file's text.

    A DID is found by every spelling a trunk may use: +12025550123, 12025550123, 0012025550123 and, where no two
    DIDs share it, 2025550123.

    :raises InputError: a value that cannot stand in the file, a DID twice, or one without destinations
    """
    entries = sorted(entries, key=lambda entry: entry.did)
    for entry in entries:
        _check(entry)
    twice = [did for did, count in Counter(entry.did for entry in entries).items() if count > 1]
    if twice:
        raise InputError(f"{twice[0]} stands twice in the failsafe")
    spellings = {entry.did: _spellings(entry.did) for entry in entries}
    shared = {text for text, count in Counter(s for found in spellings.values() for s in found).items() if count > 1}
    lines = ["; Written by callrouter at every change of numbers, flows or targets. Read by the dialplan's failsafe."]
    plans: dict[str, list[str]] = {}
    for entry in entries:
        body = [f"did = {entry.did}"]
        if entry.windows:
            plan = _plan(entry)
            name = f"plan-{hashlib.sha256(chr(10).join(plan).encode()).hexdigest()[:16]}"
            plans[name] = plan
            body.append(f"plan = {name}")
        if label := "".join(ch for ch in entry.label if _LABEL.match(ch))[:80].strip():
            body.append(f"label = {label}")
        for key, value in (
            ("number", entry.number_id),
            ("campaign", entry.campaign_id),
            ("company", entry.company_id),
        ):
            if value:
                body.append(f"{key} = {value}")
        if entry.max_calls is not None:
            body.append(f"max = {entry.max_calls}")
        if entry.consent_needed:
            body.append("consent = needed")
        for number, each in enumerate(entry.destinations, 1):
            body += [f"dest{number} = {each.endpoint}", f"ring{number} = {each.ring_seconds}"]
            body.append(f"place{number} = {each.place}")
            body.append(f"record{number} = {'yes' if each.record else 'no'}")
            if each.caller_id:
                body.append(f"cid{number} = {each.caller_id}")
            if each.retry:
                body.append(f"retry{number} = yes")
        for spelling in spellings[entry.did]:
            if spelling not in shared:
                lines += ["", f"[{spelling}]", *body]
    for name, plan in sorted(plans.items()):
        lines += ["", f"[{name}]", *plan]
    lines += _block_lists(blocks)
    return "\n".join(lines) + "\n"


def write_failsafe(path: Path, entries: Iterable[FailsafeEntry], blocks: Iterable[FailsafeBlock] = ()) -> bool:
    """Replace the file, all or nothing; mode 0600.

    :return: whether its text changed
    :raises InputError: see ``render_failsafe``; the old file stays
    """
    text = render_failsafe(entries, blocks)
    try:
        if path.read_text("utf-8") == text:
            return False
    except (OSError, UnicodeDecodeError):
        pass
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    replace_file(path, text.encode())
    return True


def _check(entry: FailsafeEntry) -> None:
    if not _E164.match(entry.did):
        raise InputError(f"failsafe: {entry.did!r} is not an E.164 number")
    if not entry.destinations:
        raise InputError(f"failsafe: {entry.did} has no destination", hint="leave the number out, or give it a backup")
    for each in entry.destinations:
        check_dial_string(each.endpoint)
        if not 1 <= each.ring_seconds <= 600:
            raise InputError(f"failsafe: {entry.did} rings {each.ring_seconds} seconds; 1 to 600 make sense")
        if each.caller_id is not None and not _E164.match(each.caller_id):
            raise InputError(f"failsafe: {entry.did} shows {each.caller_id!r}, which is not an E.164 number")
    places = {each.place for each in entry.destinations}
    for window in entry.windows:
        if not places.issuperset(window.places):
            raise InputError(f"failsafe: {entry.did} would ring a destination that it does not have")
        if odd := [prompt for prompt in window.say if not _PROMPT.match(prompt)]:
            raise InputError(f"failsafe: {entry.did} would say {odd[0]!r}, which is no path the dialplan can play")
    for value in (entry.number_id, entry.campaign_id, entry.company_id):
        if not _ID.match(value):
            raise InputError(f"failsafe: {value!r} is no id")


def _plan(entry: FailsafeEntry) -> list[str]:
    """The windows as the dialplan reads them; numbers with the same hours share them."""
    numbers = {each.place: number for number, each in enumerate(entry.destinations, 1)}
    lines = []
    for count, window in enumerate(entry.windows, 1):
        order = "-".join(str(numbers[place]) for place in window.places)
        lines += [
            f"until{count} = {_FOR_EVER if window.until is None else int(window.until)}",
            f"order{count} = {order or 'none'}",
        ]
        if window.say:
            lines.append(f"say{count} = {'&'.join(window.say)}")
        if window.consent:
            lines.append(f"consent{count} = given")
        if not order:
            lines.append(f"cause{count} = {window.cause}")
    return lines


def _block_lists(blocks: Iterable[FailsafeBlock]) -> list[str]:
    """A section for each company that has a list, and one for all; a number stands in every spelling of a trunk."""
    lists: dict[str, dict[str, str]] = {}
    for block in blocks:
        if not _ID.match(block.company_id) or not _PATTERN.match(block.pattern):
            raise InputError(f"failsafe: {block.pattern!r} cannot be blocked by the dialplan")
        value = f"{block.cause}-{_FOR_EVER if block.until is None else int(block.until)}"
        listed = lists.setdefault(f"block-{block.company_id or 'all'}", {})
        for key in _keys(block.pattern):
            listed[key] = value
    return [
        line
        for name, listed in sorted(lists.items())
        for line in ("", f"[{name}]", *(f"{key} = {value}" for key, value in sorted(listed.items())))
    ]


def _keys(pattern: str) -> list[str]:
    if pattern.endswith("*"):
        digits = pattern.strip("+*")
        return [f"p+{digits}", f"p{digits}", f"p00{digits}"]
    if pattern.startswith("+"):
        return [f"n{spelling}" for spelling in _spellings(pattern)]
    return [pattern if pattern == ANONYMOUS else f"n{pattern}"]


def _spellings(did: str) -> list[str]:
    found = [for_trunk(did, style) for style in NumberFormat]
    return list(dict.fromkeys(found))
