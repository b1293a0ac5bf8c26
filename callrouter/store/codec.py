"""Events and notes of a call as JSON and back. Reading never fails: what this program does not know stays as it is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias, get_args

import msgspec

from callrouter.core.events import Event
from callrouter.core.notes import Note

LogItem: TypeAlias = Event | Note

TYPES: dict[str, type[Any]] = {kind.__name__: kind for union in (Event, Note) for kind in get_args(union)}
"""Class of every event and note, by name."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """An entry of another version of this program, or one that was damaged."""

    at: float
    type: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """One entry of a call's log, as it is written down."""

    call: str
    seq: int
    """1, 2, 3 … within the call."""
    at: float
    """Seconds since the epoch, UTC."""
    type: str
    """Class name."""
    data: dict[str, Any]

    @property
    def value(self) -> LogItem | Unknown:
        return decode(self.type, self.data, self.at)


def to_builtins(item: LogItem) -> dict[str, Any]:
    """An event or note as plain JSON values."""
    data: dict[str, Any] = msgspec.to_builtins(item)
    return data


def decode(name: str, data: dict[str, Any], at: float = 0.0) -> LogItem | Unknown:
    """The event or note of class ``name``; :class:`Unknown` when it is none, or its fields do not fit."""
    kind = TYPES.get(name)
    if kind is None:
        return Unknown(at, name, data)
    try:
        item: LogItem = msgspec.convert(data, kind)
    except msgspec.ValidationError:
        return Unknown(at, name, data)
    return item


def items(lines: Iterable[Line]) -> list[LogItem]:
    """The events and notes of a log, without those this program does not know."""
    values = (line.value for line in lines)
    return [value for value in values if not isinstance(value, Unknown)]


def encode_line(call: str, seq: int, item: LogItem) -> bytes:
    """One line of the journal, newline included. A string that is no Unicode loses what cannot be written."""
    try:
        return _line(call, seq, item)
    except (UnicodeEncodeError, msgspec.MsgspecError, ValueError):
        # Half of a surrogate pair from somebody's broken JSON: rare, and no reason to lose the event.
        return _line(call, seq, msgspec.convert(_clean(msgspec.to_builtins(item)), type(item)))


def decode_line(line: bytes) -> Line | None:
    """A line of the journal; None when it is none (torn, or damaged)."""
    try:
        return _decoder().decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _line(call: str, seq: int, item: LogItem) -> bytes:
    at = item.at if math.isfinite(item.at) else 0.0
    line = _ENCODER.encode({"call": call, "seq": seq, "at": at, "type": type(item).__name__, "data": item})
    if b"\\u0000" in line:
        # PostgreSQL keeps no NUL in any text.
        line = line.replace(b"\\u0000", b"\\ufffd")
    return line + b"\n"


def _clean(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "replace").decode("utf-8")
        case list() | tuple():
            return [_clean(each) for each in value]
        case dict():
            return {key: _clean(each) for key, each in value.items()}
        case _:
            return value


_ENCODER = msgspec.json.Encoder()


@cache
def _decoder() -> msgspec.json.Decoder[Line]:
    return msgspec.json.Decoder(Line)
