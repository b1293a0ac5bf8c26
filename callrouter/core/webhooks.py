"""What a flow asks a web service, and what the service may answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from callrouter.core import notes as note
from callrouter.core.events import HIDDEN
from callrouter.core.flow.names import NODE_NAME, TAG, VALUE
from callrouter.core.records import Reply, WebhookResult
from callrouter.errors import InputError

VERSION = 1
"""Of the question's fields: a number of its own for whatever means something else than before."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a service is told of a call."""

    call: str
    at: float
    """Seconds since the epoch."""
    company: str
    campaign: str | None
    source: str | None
    medium: str | None
    number: str
    """The tracking number, E.164."""
    number_name: str
    caller: str | None
    """E.164; None: withheld."""
    flow: str
    node: str
    path: tuple[str, ...]
    tags: tuple[str, ...]
    values: tuple[tuple[str, str], ...]
    digits: tuple[tuple[str, str], ...]
    """What was gathered, by name; nothing of a sensitive entry."""
    language: str | None

    def fields(self) -> dict[str, Any]:
        """As the service gets it, in JSON's own types."""
        moment = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds")
        return {
            "version": VERSION,
            "call": self.call,
            "at": moment.replace("+00:00", "Z"),
            "company": self.company,
            "campaign": self.campaign,
            "source": self.source,
            "medium": self.medium,
            "number": self.number,
            "number_name": self.number_name,
            "caller": self.caller,
            "flow": self.flow,
            "node": self.node,
            "path": list(self.path),
            "tags": list(self.tags),
            "values": dict(self.values),
            "digits": dict(self.digits),
            "language": self.language,
        }


@dataclass(frozen=True, slots=True)
class SoFar:
    """What became of a call so far, as far as a service is told of it."""

    path: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    values: tuple[tuple[str, str], ...] = ()
    digits: tuple[tuple[str, str], ...] = ()

    def after(self, notes: Iterable[note.Note]) -> SoFar:
        """The same, with what was decided since."""
        found = self
        for one in notes:
            match one:
                case note.Visited():
                    found = replace(found, path=(*found.path, one.node))
                case note.Tagged():
                    found = replace(found, tags=tuple(dict.fromkeys((*found.tags, *one.tags))))
                case note.Assigned():
                    found = replace(found, values=tuple({**dict(found.values), **dict(one.values)}.items()))
                case note.Gathered():
                    digits = {name: keys for name, keys in found.digits if name != one.name}
                    if HIDDEN not in one.digits:
                        digits[one.name] = one.digits
                    found = replace(found, digits=tuple(digits.items()))
        return found


NOTHING_YET = SoFar()


ASSUMED = Reply(WebhookResult.ANSWERED, "assumed: nobody said what the service answers")


def read_reply(body: object) -> Reply:
    """A service's answer, taken over only as a whole; fields that are not known are passed over.

    :param body: what the JSON text came to
    :raises InputError: no object, or a branch, tag or value that is none
    """
    if not isinstance(body, dict):
        raise InputError("the answer is no JSON object")
    branch, tags, values = body.get("branch"), body.get("tags") or [], body.get("values") or {}
    if branch is not None and (not isinstance(branch, str) or not NODE_NAME.fullmatch(branch)):
        raise InputError(f"branch {_shown(branch)} is no name of a branch")
    if not isinstance(tags, list) or not isinstance(values, dict):
        raise InputError("tags must be a list" if isinstance(values, dict) else "values must be an object")
    for tag in tags:
        if not isinstance(tag, str) or not TAG.fullmatch(tag) or not tag.isprintable():
            raise InputError(f"{_shown(tag)} is no tag")
    found = []
    for name, value in values.items():
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if not NODE_NAME.fullmatch(name):
            raise InputError(f"{_shown(name)} is no name of a value")
        if not isinstance(text, str) or not VALUE.fullmatch(text) or not text.isprintable():
            raise InputError(f"the value of {name!r} cannot be {_shown(value)}")
        found.append((name, text))
    return Reply(WebhookResult.ANSWERED, "", branch, tuple(dict.fromkeys(tags)), tuple(found))


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
