"""Is every recording there, as it was stored, and in the chain where it was put? One recording at a time, so that
memory does not grow with their number."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from callrouter.core.records import RecordingKind, RecordingStatus
from callrouter.media.encoding import FORMATS, STALE_SECONDS
from callrouter.media.manifest import (
    CHANNEL_MAPS,
    FIRST,
    PART_SUFFIX,
    SUFFIX,
    Link,
    decode,
    digest,
    inside,
    part_path,
    read,
)

AUDIO_SUFFIXES = frozenset(suffix for suffix, _, _ in FORMATS.values())
RESTORE = "bring it back from a backup; until then it proves nothing"


class Fault(StrEnum):
    """What can be wrong."""

    CHANGED = "changed"
    """A file is not what was stored."""
    MISSING = "missing"
    """A file that should be there is not."""
    EXTRA = "extra"
    """A file that no recording claims."""
    BROKEN = "broken"
    """The chain: a link is missing, in another place, or does not follow the one before it."""
    DISAGREES = "disagrees"
    """The database says something else than the manifest."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    fault: Fault
    where: str
    """A path below the recordings directory, or "chain"."""
    what: str
    do: str


class Chained(Protocol):
    """What is needed of a recording's row."""

    @property
    def id(self) -> str: ...
    @property
    def call_id(self) -> str: ...
    @property
    def leg_id(self) -> str | None: ...
    @property
    def kind(self) -> RecordingKind: ...
    @property
    def status(self) -> RecordingStatus: ...
    @property
    def path(self) -> str | None: ...
    @property
    def format(self) -> str | None: ...
    @property
    def size_bytes(self) -> int | None: ...
    @property
    def sha256(self) -> str | None: ...
    @property
    def seconds(self) -> float | None: ...
    @property
    def gaps(self) -> tuple[Mapping[str, Any], ...]: ...
    @property
    def chain_seq(self) -> int | None: ...
    @property
    def manifest_sha256(self) -> str | None: ...


# -- one recording ---------------------------------------------------------------------------------------------------


def check_files(recordings_dir: Path, row: Chained, previous: Link | None) -> list[Finding]:
    """Read a recording and its manifest, and compare them with the database. Blocks on the disk.

    :param previous: the link before it as the database has it; None: not to be looked at
    """
    if row.path is None:
        return []
    audio = inside(recordings_dir, row.path)
    found = _check_audio(audio, row)
    if row.chain_seq is None or row.manifest_sha256 is None:
        return found
    where = Path(row.path).with_suffix(SUFFIX).as_posix()
    try:
        data = read(audio, row.manifest_sha256)
    except OSError as exc:
        return [*found, Finding(Fault.CHANGED, where, f"cannot be read: {exc.strerror or exc}", RESTORE)]
    if data is None:
        return [*found, Finding(Fault.MISSING, where, "the manifest is gone", RESTORE)]
    if digest(data) != row.manifest_sha256:
        return [*found, Finding(Fault.CHANGED, where, "the manifest is not the one that was stored", RESTORE)]
    try:
        told = decode(data)
    except ValueError as exc:
        return [*found, Finding(Fault.CHANGED, where, str(exc), RESTORE)]
    found += _disagreements(where, row, told)
    if previous is not None and told.get("previous_sha256") != previous.sha256:
        what = f"link {row.chain_seq} does not follow link {previous.seq} as it is now"
        found.append(Finding(Fault.BROKEN, where, what, "compare with a backup: one of the two was made anew"))
    return found


def _check_audio(audio: Path, row: Chained) -> list[Finding]:
    where = str(row.path)
    try:
        with audio.open("rb") as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == row.sha256
    except FileNotFoundError:
        return [Finding(Fault.MISSING, where, "the recording is gone", "bring it back from a backup")]
    except OSError as exc:
        what = f"cannot be read: {exc.strerror or exc}"
        return [Finding(Fault.CHANGED, where, what, "look at the disk; else bring it back from a backup")]
    if same:
        return []
    return [Finding(Fault.CHANGED, where, "the recording is not the one that was stored", RESTORE)]


def _disagreements(where: str, row: Chained, told: Mapping[str, Any]) -> list[Finding]:
    """Facts that stand in the manifest otherwise than in the database."""
    audio = told.get("audio")
    audio = audio if isinstance(audio, dict) else {}
    pairs = {
        "place in the chain": (row.chain_seq, told.get("seq")),
        "recording": (row.id, told.get("recording")),
        "call": (row.call_id, told.get("call")),
        "leg": (row.leg_id, told.get("leg")),
        "kind": (str(row.kind), told.get("kind")),
        "channels": (dict(CHANNEL_MAPS[row.kind]), told.get("channel_map")),
        "file": (row.path, audio.get("path")),
        "format": (row.format, audio.get("format")),
        "size": (row.size_bytes, audio.get("size_bytes")),
        "SHA-256": (row.sha256, audio.get("sha256")),
        "length": (row.seconds, audio.get("seconds")),
        "gaps": ([dict(gap) for gap in row.gaps], told.get("gaps")),
    }
    return [
        Finding(
            Fault.DISAGREES,
            where,
            f"{name}: {ours!r} in the database, {theirs!r} in the manifest",
            "the manifest holds: who can write to the database changed it",
        )
        for name, (ours, theirs) in pairs.items()
        if ours != theirs
    ]


# -- the chain -------------------------------------------------------------------------------------------------------


class Chain:
    """Goes along the chain in its order.

    :param start: the link before the first one that is looked at
    """

    def __init__(self, recordings_dir: Path, start: Link | None = None) -> None:
        self._dir = recordings_dir
        self.last = start or Link(0, FIRST)
        self.checked = 0
        """Recordings looked at."""

    def take(self, row: Chained) -> list[Finding]:
        """The next recording of the chain, as the database has it. Blocks on the disk."""
        assert row.chain_seq is not None
        assert row.manifest_sha256 is not None
        found = []
        whole = row.chain_seq == self.last.seq + 1
        if not whole:
            found.append(_lost(self.last.seq + 1, row.chain_seq - 1))
        found += check_files(self._dir, row, self.last if whole else None)
        self.last = Link(row.chain_seq, row.manifest_sha256)
        self.checked += 1
        return found

    def end(self, head: Link | None) -> list[Finding]:
        """After the last one.

        :param head: the newest link as the database noted it before the first was looked at; None: it notes none
        """
        if head is None:
            if not self.last.seq:
                return []
            what = f"the database does not say that the chain ends at link {self.last.seq}"
            return [Finding(Fault.BROKEN, "chain", what, "bring the database back from a backup")]
        if self.last.seq < head.seq:
            return [_lost(self.last.seq + 1, head.seq)]
        if self.last != head:
            what = f"the database says it ends at link {head.seq} with {head.sha256}; it ends with {self.last.sha256}"
            return [Finding(Fault.BROKEN, "chain", what, "compare with a backup: its end was made anew")]
        return []


def _lost(first: int, last: int) -> Finding:
    which = f"link {first} is" if first == last else f"links {first} to {last} are"
    do = "bring the database back from a backup; the manifests still lie beside their recordings unless listed here"
    return Finding(Fault.BROKEN, "chain", f"{which} missing in the database", do)


# -- files that nobody claims ----------------------------------------------------------------------------------------


def kept_files(recordings_dir: Path, since: datetime | None = None, most: int = 500) -> Iterator[list[str]]:
    """Recordings, manifests and half-written files, some at a time, as paths below the recordings directory.

    Only the directories of dates are looked into: the spool of raw legs may lie beside them.

    :param since: only of this UTC date and later
    """
    first = f"{since.astimezone(UTC):%Y/%m/%d}" if since else ""
    some: list[str] = []
    for day in _days(recordings_dir):
        if day < first:
            continue
        with os.scandir(recordings_dir / day) as entries:
            for entry in entries:
                if Path(entry.name).suffix in AUDIO_SUFFIXES | {SUFFIX, ".part"}:
                    some.append(f"{day}/{entry.name}")
                if len(some) >= most:
                    yield some
                    some = []
    if some:
        yield some


def _days(recordings_dir: Path) -> list[str]:
    found = recordings_dir.glob("[0-9][0-9][0-9][0-9]/[0-9][0-9]/[0-9][0-9]")
    return sorted(path.relative_to(recordings_dir).as_posix() for path in found if path.is_dir())


def owner_of(path: str) -> str:
    """Id of the recording that a file belongs to by its name; half-written ones are ``.<id>.<something>.part``."""
    name = Path(path).name
    if name.startswith("."):
        return name.removeprefix(".").removesuffix(PART_SUFFIX).removesuffix(".part").rpartition(".")[0]
    return Path(name).stem


def is_waiting(path: str, row: Chained) -> bool:
    """Whether a half-written file is a recording's manifest that is in the chain and has yet to get its name."""
    if row.path is None or row.manifest_sha256 is None:
        return False
    return path == part_path(Path(row.path), row.manifest_sha256).as_posix()


def is_claimed(recordings_dir: Path, path: str, row: Chained | None, now: float) -> bool:
    """Whether a file is one that a recording has, or is about to have.

    :param row: the recording of the id in its name; None: there is none
    :param now: seconds since the epoch; half-written files are removed when they are old
    """
    name = Path(path)
    if name.suffix == ".part":
        if row is not None and is_waiting(path, row):
            return True
        try:
            return now - (recordings_dir / path).stat().st_mtime < 2 * STALE_SECONDS
        except OSError:
            return True
    if row is None:
        return False
    if row.status is RecordingStatus.PENDING:
        # Its job has written it and not yet told the database.
        return name.suffix in AUDIO_SUFFIXES
    if row.path is None:
        return False
    if name.suffix == SUFFIX:
        return row.chain_seq is not None and path == Path(row.path).with_suffix(SUFFIX).as_posix()
    return path == row.path


def extra(path: str) -> Finding:
    """A file that nobody claims."""
    if Path(path).name.startswith("."):
        return Finding(Fault.EXTRA, path, "half-written, of no recording", "remove it")
    return Finding(Fault.EXTRA, path, "no recording has this file", "find out who put it there; move it elsewhere")


def stale_parts(recordings_dir: Path, now: float) -> Iterator[str]:
    """Half-written files of processes that were killed.

    :param now: seconds since the epoch
    """
    for paths in kept_files(recordings_dir):
        for path in paths:
            if not path.endswith(".part"):
                continue
            try:
                age = now - (recordings_dir / path).stat().st_mtime
            except OSError:
                continue
            if age > STALE_SECONDS:
                yield path
