"""Asterisk's own log, ``log/messages``: JSON, one object a line, so that what a caller writes stays in its line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from callrouter.config import Settings


def messages_path(settings: Settings) -> Path:
    return settings.asterisk_dir / "log" / "messages"


@dataclass(frozen=True, slots=True)
class LogLine:
    """One message."""

    at: str
    """Local time, as Asterisk writes it."""
    level: str
    """NOTICE, WARNING or ERROR."""
    file: str
    """Of Asterisk's source, with its directory where it tells."""
    message: str

    def __str__(self) -> str:
        return f"[{self.at}] {self.level} {self.file}: {self.message}"


def read_log(path: Path, start: int = 0) -> Iterator[LogLine]:
    """The messages from byte ``start`` on; from the beginning in a file that is shorter. What is none is passed over:
    a line that was cut off, or of before this format.

    :raises OSError: the file cannot be read; one that is not there has no messages
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        size = file.seek(0, 2)
        file.seek(start if start <= size else 0)
        for raw in file:
            try:
                said = json.loads(raw)
                told = said["logmsg"]
                yield LogLine(said["timestamp"], told["level"], told["location"]["filename"], told["message"])
            except (ValueError, TypeError, KeyError):
                continue
