"""Files that a command writes: whole, or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from callrouter.errors import ConfigError


def write_whole(path: Path, text: str) -> None:
    """Write a file, replacing one of that name; nothing half-written stays behind.

    :raises ConfigError: it cannot be written
    """
    if path.exists():
        path = path.resolve()  # what a link leads to is replaced, not the link
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.exists() and not path.is_file():  # /dev/stdout, say
            path.write_text(text, "utf-8")
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text, "utf-8")
            temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    except OSError as exc:
        hint = "free some space, or choose another place"
        raise ConfigError(f"{path} cannot be written: {exc.strerror}", hint=hint) from exc
