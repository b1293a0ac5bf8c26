"""The format of a backup: a head, then an encrypted stream with the members one after another, a manifest of them in
JSON, and the manifest's length in the last eight bytes.

So it is written in one pass, without knowing lengths before, and its list is read without reading all of it.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import msgspec

from callrouter.backup.keys import Head, Lock, content_key, read_head, write_head
from callrouter.backup.stream import CHUNK, SealedReader, SealedWriter
from callrouter.errors import ArchiveError

TRAILER = 8
MAX_MANIFEST = 1 << 30
PACKING = 3
"""zlib's level: most of the gain for a fraction of the time."""

Progress = Callable[[str, int, int], None]
"""(what is worked on, bytes done, bytes in all); may raise to stop the work."""


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One file within a backup."""

    name: str
    """Path in POSIX form, without a leading slash."""
    size: int
    sha256: str
    mtime: float
    """Seconds since the epoch."""
    mode: int
    """Permission bits."""
    offset: int
    """Where it begins in the stream."""
    stored: int
    """Bytes it has in the stream."""
    packed: bool
    """Whether those are compressed (zlib)."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds."""

    callrouter: str
    """Version of the program that made it."""
    created_at: str
    """ISO 8601, UTC: the moment the database was caught at."""
    database: str
    """"sqlite" or "postgresql"."""
    revision: str
    """The database's schema."""
    recordings: bool
    """Whether recordings were asked for."""
    config_version: int
    members: tuple[Member, ...] = ()

    def member(self, name: str) -> Member | None:
        return next((one for one in self.members if one.name == name), None)

    @property
    def size(self) -> int:
        """Bytes of all members."""
        return sum(one.size for one in self.members)


class ArchiveWriter:
    """Writes a backup into ``file``.

    :param created_at: ISO 8601
    """

    def __init__(self, file: BinaryIO, lock: Lock, *, version: str, created_at: str) -> None:
        self._stream = SealedWriter(file, write_head(file, lock, version=version, created_at=created_at))
        self._members: list[Member] = []

    def add(
        self, name: str, text: Iterable[bytes], *, mtime: float | None = None, mode: int = 0o600, pack: bool
    ) -> Member:
        """Append a member.

        :param text: its bytes, in pieces
        :param mtime: seconds since the epoch; None: now
        :param mode: its permission bits
        :param pack: compress it
        :raises OSError: the disk is full …
        """
        offset, size, digest = self._stream.written, 0, hashlib.sha256()
        packer = zlib.compressobj(PACKING) if pack else None
        for piece in text:
            size += len(piece)
            digest.update(piece)
            self._stream.write(packer.compress(piece) if packer else piece)
        if packer:
            self._stream.write(packer.flush())
        member = Member(
            name=name,
            size=size,
            sha256=digest.hexdigest(),
            mtime=time.time() if mtime is None else mtime,
            mode=mode,
            offset=offset,
            stored=self._stream.written - offset,
            packed=pack,
        )
        self._members.append(member)
        return member

    def finish(self, manifest: Manifest) -> Manifest:
        """Write the manifest, with the members that were added."""
        whole = msgspec.structs.replace(manifest, members=tuple(self._members))
        text = msgspec.json.encode(whole)
        self._stream.write(text + len(text).to_bytes(TRAILER, "big"))
        self._stream.finish()
        return whole


class ArchiveReader:
    """Reads a backup.

    :raises ArchiveError: no backup, damaged, cut off, newer
    :raises InputError: it is locked with something else
    """

    def __init__(self, file: BinaryIO, lock: Lock) -> None:
        self.head, text, mac = read_head(file)
        self._stream = SealedReader(file, content_key(self.head, text, mac, lock), file.tell())
        self.manifest = self._manifest()

    def read(self, member: Member) -> Iterator[bytes]:
        """A member's bytes in pieces. Its checksum is compared at the end, so use them only after the last one.

        :raises ArchiveError: damaged
        """
        digest, size = hashlib.sha256(), 0
        try:
            for piece in self._unpacked(member) if member.packed else self._stored(member):
                digest.update(piece)
                size += len(piece)
                yield piece
        except zlib.error as exc:
            raise ArchiveError(f"{member.name} in the backup is damaged: {exc}") from exc
        if (size, digest.hexdigest()) != (member.size, member.sha256):
            raise ArchiveError(f"{member.name} in the backup is damaged: its checksum does not match")

    def verify(self, progress: Progress) -> None:
        """Read and check all of it.

        :raises ArchiveError: damaged
        """
        done, total = 0, self.manifest.size
        for member in self.manifest.members:
            for piece in self.read(member):
                done += len(piece)
                progress(member.name, done, total)

    def _manifest(self) -> Manifest:
        end = self._stream.size
        if end < TRAILER:
            raise ArchiveError("the backup is damaged: it has no manifest")
        length = int.from_bytes(self._stream.read(end - TRAILER, TRAILER), "big")
        if not 0 < length <= min(end - TRAILER, MAX_MANIFEST):
            raise ArchiveError("the backup is damaged: it has no manifest")
        try:
            manifest = msgspec.json.decode(self._stream.read(end - TRAILER - length, length), type=Manifest)
        except msgspec.MsgspecError as exc:
            raise ArchiveError(f"the backup's manifest cannot be read: {exc}") from exc
        for member in manifest.members:
            _checked(member.name)
        return manifest

    def _stored(self, member: Member) -> Iterator[bytes]:
        offset, left = member.offset, member.stored
        while left:
            piece = self._stream.read(offset, min(left, CHUNK))
            offset, left = offset + len(piece), left - len(piece)
            yield piece

    def _unpacked(self, member: Member) -> Iterator[bytes]:
        unpacker = zlib.decompressobj()
        for piece in self._stored(member):
            while piece:
                yield unpacker.decompress(piece, CHUNK)
                piece = unpacker.unconsumed_tail
        yield unpacker.flush()


def peek(path: Path) -> Head:
    """What can be said of a backup without its key.

    :raises ArchiveError: no backup, or of a newer format
    """
    with open_archive(path) as file:
        return read_head(file)[0]


def open_archive(path: Path) -> BinaryIO:
    """:raises ArchiveError: the file cannot be read"""
    try:
        return path.open("rb")
    except OSError as exc:
        raise ArchiveError(f"{path} cannot be read: {exc.strerror}") from exc


def _checked(name: str) -> None:
    """A name from elsewhere must not lead out of where it is put."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or not name.isprintable():
        raise ArchiveError(f"the backup's manifest has a name that is none: {name!r}")
