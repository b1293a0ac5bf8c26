"""The manifest of a finished recording: what it is, whose voice is where, what is missing, and the manifest before it.

    recordings/2026/11/21/<id>.flac
    recordings/2026/11/21/<id>.json             this
    recordings/2026/11/21/.<id>.<hash>.json.part    this, before its place in the chain was committed

A manifest holds the SHA-256 of its recording and of the manifest before it, so that nothing can be changed, removed or
put in between without all that come after it being made anew. It names no telephone number.

It is written under a name of its own content first; then the database takes it into the chain; then it gets its name.
A process killed between any two of these leaves a file that is in no chain and does not count, or one that is in the
chain and only has to be renamed.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from callrouter.core.records import RecordingKind
from callrouter.errors import InputError
from callrouter.files import replace_file, sync

VERSION = 1
FIRST = "0" * 64
"""Stands for the manifest before the first."""
SUFFIX = ".json"
PART_SUFFIX = ".json.part"
CHANNEL_MAPS: Mapping[RecordingKind, Mapping[str, str]] = {
    RecordingKind.CONVERSATION: {"left": "caller", "right": "business"},
    RecordingKind.VOICEMAIL: {"mono": "caller"},
}


@dataclass(frozen=True, slots=True)
class Link:
    """A manifest's place in the chain."""

    seq: int
    """1, 2, 3 … over all recordings; 0: before the first."""
    sha256: str
    """Of the manifest's bytes."""


@dataclass(frozen=True, slots=True)
class Audio:
    """The file that a manifest speaks of."""

    path: str
    """Below the recordings directory, with slashes."""
    size_bytes: int
    sha256: str
    format: str
    sample_rate: int
    """Hz."""
    channels: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is put on record about a recording when it is finished."""

    recording: str
    call: str
    leg: str | None
    kind: RecordingKind
    started_at: str
    """ISO 8601, UTC; so is ``ended_at``."""
    ended_at: str | None
    audio: Audio
    gaps: tuple[Mapping[str, Any], ...]
    """As ``gaps.Gap.as_json`` gives them."""
    pauses: tuple[Mapping[str, Any], ...]
    """Stretches in which recording was paused on purpose."""
    consent: Mapping[str, Any] | None
    """How the caller was told, or agreed; None: not known."""
    flow: str | None
    """Label such as "front-desk@3"; None: none ran."""
    flow_version: str | None
    """Its id."""
    policy: str
    """Why it was recorded."""
    problems: tuple[str, ...]
    tool: str
    """Program and version that made the file."""

    def encode(self, previous: Link) -> bytes:
        """The manifest's bytes as the successor of ``previous``: the same values, the same bytes."""
        told = {
            "version": VERSION,
            "seq": previous.seq + 1,
            "previous_sha256": previous.sha256,
            "recording": self.recording,
            "call": self.call,
            "leg": self.leg,
            "kind": str(self.kind),
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "audio": {name: getattr(self.audio, name) for name in Audio.__slots__},
            "channel_map": dict(CHANNEL_MAPS[self.kind]),
            "gaps": [dict(gap) for gap in self.gaps],
            "pauses": [dict(pause) for pause in self.pauses],
            "consent": self.consent,
            "flow": self.flow,
            "flow_version": self.flow_version,
            "policy": self.policy,
            "problems": list(self.problems),
            "tool": self.tool,
        }
        text = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode() + b"\n"


def decode(data: bytes) -> dict[str, Any]:
    """A manifest's values, for whoever compares or shows them.

    :raises ValueError: it is no manifest, or of a version that this program does not know
    """
    try:
        told = json.loads(data)
    except ValueError:
        told = None
    if not isinstance(told, dict) or told.get("version") != VERSION:
        raise ValueError("it is no manifest that this program can read")
    return told


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# -- files -----------------------------------------------------------------------------------------------------------


def inside(recordings_dir: Path, relative: str) -> Path:
    """Where a recording's file is.

    :raises InputError: the path leads out of the recordings directory
    """
    path = recordings_dir / relative
    if ".." in Path(relative).parts or not path.is_relative_to(recordings_dir):
        raise InputError(f"{relative!r} lies outside of {recordings_dir}")
    return path


def manifest_path(audio: Path) -> Path:
    """A manifest lies beside its recording."""
    return audio.with_suffix(SUFFIX)


def part_path(audio: Path, sha256: str) -> Path:
    """Where a manifest waits until it is in the chain."""
    return audio.with_name(f".{audio.stem}.{sha256[:16]}{PART_SUFFIX}")


def prepare(audio: Path, data: bytes) -> None:
    """Write a manifest so that it outlasts a power failure, under the name it has until it is in the chain.

    :param audio: its recording, whose permissions it gets
    :raises OSError: the disk is full, gone, or cannot be written
    """
    target = part_path(audio, digest(data))
    replace_file(target, data, mode=stat.S_IMODE(audio.stat().st_mode))


def publish(audio: Path, sha256: str) -> bool:
    """Give a manifest that is in the chain its name. Safe to repeat, and to be done by two at once.

    :returns: False when there is no such manifest, neither waiting nor in its place
    :raises OSError: the disk refuses
    """
    target = manifest_path(audio)
    try:
        part_path(audio, sha256).replace(target)
    except FileNotFoundError:
        data = read(audio, sha256)
        return data is not None and digest(data) == sha256
    sync(audio.parent)
    for stale in audio.parent.glob(f".{audio.stem}.*{PART_SUFFIX}"):
        # Attempts whose place in the chain another recording got.
        with suppress(OSError):
            stale.unlink()
    return True


def read(audio: Path, sha256: str | None) -> bytes | None:
    """A recording's manifest, in its place or just about to be.

    :param sha256: as the database has it
    :returns: None when there is none
    :raises OSError: it cannot be read
    """
    for path in (manifest_path(audio), *([part_path(audio, sha256)] if sha256 else []), manifest_path(audio)):
        with suppress(FileNotFoundError):
            return path.read_bytes()
    return None
