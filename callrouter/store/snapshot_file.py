"""The configuration that was last in force, kept in a file: a start needs no database.

One line of header (what it is, the format's version, the SHA-256 of what follows), then JSON. It is replaced whole, so
that whoever reads it finds the one before or the one after. No password is in it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import NoReturn

import msgspec

from callrouter.core.snapshot import ConfigSnapshot
from callrouter.errors import ConfigError
from callrouter.files import replace_file

SNAPSHOT_FILE = "routing.snapshot"
FORMAT = "callrouter-routing"
VERSION = 1
"""Moves when an older program would misunderstand the file."""
MAX_BYTES = 256 * 1024 * 1024


class KeptConfig(msgspec.Struct, frozen=True):
    """What the file holds."""

    database: str
    """Name of the database it came from, without password."""
    saved_at: float
    """Seconds since the epoch."""
    config: ConfigSnapshot


def keep_config(path: Path, kept: KeptConfig) -> None:
    """Replace the file, whole, for its owner alone; it survives a power failure on return.

    :raises OSError: it cannot be written; the one before stays
    """
    body = msgspec.json.encode(kept)
    head = f"{FORMAT} {VERSION} {hashlib.sha256(body).hexdigest()}\n".encode()
    replace_file(path, head + body)


def kept_config(path: Path, database: str) -> KeptConfig | None:
    """The configuration that was kept; None when there is none.

    :param database: name of the database it has to come from
    :raises ConfigError: the file is damaged, of another program or version, or of another database
    """
    try:
        raw = _read(path)
    except FileNotFoundError:
        return None
    except OSError as exc:
        _refuse(path, exc.strerror or str(exc))
    head, _, body = raw.partition(b"\n")
    words = head.decode("ascii", "replace").split(" ")
    if len(words) != 3 or words[0] != FORMAT:
        _refuse(path, "it is no routing snapshot of callrouter")
    if words[1] != str(VERSION):
        _refuse(path, f"it has format {words[1][:20]!r}; this callrouter reads {VERSION}")
    if hashlib.sha256(body).hexdigest() != words[2]:
        _refuse(path, "it is damaged: its checksum does not match")
    try:
        kept = msgspec.json.decode(body, type=KeptConfig)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        _refuse(path, f"it cannot be read: {exc}")
    if kept.database != database:
        _refuse(path, f"it is of another database ({kept.database})")
    return kept


def _read(path: Path) -> bytes:
    # Not blocking: somebody could have put a pipe there.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 - a descriptor
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            _refuse(path, "it is no file")
        if facts.st_size > MAX_BYTES:
            _refuse(path, f"it is larger than {MAX_BYTES} bytes")
        return file.read()


def _refuse(path: Path, why: str) -> NoReturn:
    raise ConfigError(
        f"the routing snapshot {path} is not used: {why}",
        hint="it is written anew when the database answers; nothing else needs it",
    )
