"""The file that the dialplan reads when the controller is absent: for each DID, whom to ring.

Asterisk reads it anew whenever it changed (``AST_CONFIG``), so an edit needs no reload.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from callrouter.core.dialstring import check_dial_string
from callrouter.core.model import NumberFormat
from callrouter.core.phone import for_trunk
from callrouter.errors import InputError

_E164 = re.compile(r"\+[1-9][0-9]{4,14}\Z")
_ID = re.compile(r"[A-Za-z0-9-]{0,64}\Z")
_LABEL = re.compile(r"[A-Za-z0-9 ._-]{0,80}\Z")


@dataclass(frozen=True, slots=True)
class FailsafeEntry:
    """What the dialplan does with a DID by itself."""

    did: str
    """E.164."""
    destinations: tuple[tuple[str, int], ...]
    """Dial string and ring seconds, tried in order."""
    label: str = ""
    """For people who read the file; other characters than letters, digits, space . _ - are dropped."""
    caller_id: str | None = None
    """E.164 shown to the business; None: the caller's own."""
    record: bool = True
    number_id: str = ""
    campaign_id: str = ""
    company_id: str = ""


def render_failsafe(entries: Iterable[FailsafeEntry]) -> str:
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
    for entry in entries:
        body = [f"did = {entry.did}"]
        if label := "".join(ch for ch in entry.label if _LABEL.match(ch))[:80].strip():
            body.append(f"label = {label}")
        for key, value in (
            ("number", entry.number_id),
            ("campaign", entry.campaign_id),
            ("company", entry.company_id),
            ("caller_id", entry.caller_id or ""),
        ):
            if value:
                body.append(f"{key} = {value}")
        body.append(f"record = {'yes' if entry.record else 'no'}")
        for number, (destination, ring) in enumerate(entry.destinations, 1):
            body += [f"dest{number} = {destination}", f"ring{number} = {ring}"]
        for spelling in spellings[entry.did]:
            if spelling not in shared:
                lines += ["", f"[{spelling}]", *body]
    return "\n".join(lines) + "\n"


def write_failsafe(path: Path, entries: Iterable[FailsafeEntry]) -> bool:
    """Replace the file, all or nothing; mode 0600.

    :return: whether its text changed
    :raises InputError: see ``render_failsafe``; the old file stays
    """
    text = render_failsafe(entries)
    try:
        if path.read_text("utf-8") == text:
            return False
    except (OSError, UnicodeDecodeError):
        pass
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        os.fchmod(handle, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return True


def _check(entry: FailsafeEntry) -> None:
    if not _E164.match(entry.did):
        raise InputError(f"failsafe: {entry.did!r} is not an E.164 number")
    if not entry.destinations:
        raise InputError(f"failsafe: {entry.did} has no destination", hint="leave the number out, or give it a backup")
    for destination, ring in entry.destinations:
        check_dial_string(destination)
        if not 1 <= ring <= 600:
            raise InputError(f"failsafe: {entry.did} rings {ring} seconds; 1 to 600 make sense")
    if entry.caller_id is not None and not _E164.match(entry.caller_id):
        raise InputError(f"failsafe: {entry.did} shows {entry.caller_id!r}, which is not an E.164 number")
    for value in (entry.number_id, entry.campaign_id, entry.company_id):
        if not _ID.match(value):
            raise InputError(f"failsafe: {value!r} is no id")


def _spellings(did: str) -> list[str]:
    found = [for_trunk(did, style) for style in NumberFormat]
    return list(dict.fromkeys(found))
