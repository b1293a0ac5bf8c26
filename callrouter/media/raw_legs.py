"""Raw legs: one channel of a call as Asterisk writes it, 16-bit mono WAV, perhaps torn by a crash."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import IO, Self

import numpy as np
import numpy.typing as npt

from callrouter.core.records import RecordingKind
from callrouter.errors import ServiceError
from callrouter.media.audio import TELEPHONE_RATE

_HEADER = 44
"""Bytes of the header that Asterisk writes (formats/format_wav.c): RIFF, fmt, data, nothing else."""


def legs_of(spool: Path, recording_id: str, kind: RecordingKind) -> tuple[Path, ...]:
    """The raw files a recording is made of, in channel order."""
    if kind is RecordingKind.CONVERSATION:
        return spool / f"{recording_id}-rx.wav", spool / f"{recording_id}-tx.wav"
    return (spool / f"{recording_id}.wav",)


def recording_of(path: Path) -> str:
    """Id of the recording that a raw file belongs to."""
    return path.stem.removesuffix("-rx").removesuffix("-tx")


class RawLeg:
    """One raw file, opened. How much it holds is taken from its size; the header is believed only where it agrees.

    Asterisk writes the lengths into the header when it closes the file. After a crash they say nothing, or less than
    the file holds.
    """

    def __init__(self, file: IO[bytes], size: int, modified: float) -> None:
        self._file = file
        self.notes: list[str] = []
        """What is wrong with the file."""
        self.readable = True
        """False: it is no WAV that we know; it is kept for a person to look at."""
        self.rate = TELEPHONE_RATE
        self.frames = 0
        self.modified = modified
        """Seconds since the epoch."""
        self.closed_properly = False
        """The header and the size agree, as they do once Asterisk has closed the file."""
        self.torn = False
        """Asterisk died before it closed the file: what was said last may be missing."""
        self._examine(size)

    @classmethod
    def open(cls, path: Path) -> Self | None:
        """None when there is no such file.

        :raises ServiceError: it exists and cannot be read
        """
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise ServiceError(
                f"the raw recording {path} cannot be read: {exc.strerror or exc}",
                hint="Asterisk and callrouter must run as the same user, or share a group",
            ) from exc
        facts = os.fstat(file.fileno())
        return cls(file, facts.st_size, facts.st_mtime)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    @property
    def seconds(self) -> float:
        return self.frames / self.rate

    def read(self, frames: int) -> npt.NDArray[np.int16]:
        """The next samples; fewer at the end."""
        data = self._file.read(frames * 2)
        return np.frombuffer(data[: len(data) // 2 * 2], "<i2")

    def _examine(self, size: int) -> None:
        head = self._file.read(4096)
        if not size:
            return
        if size < _HEADER and _begins_a_header(head):
            self.torn = True
            self.notes.append("it is torn inside its header; nothing of it had been written")
            return
        offset, declared = self._parse(head, size)
        if not self.readable:
            return
        held = max(0, size - offset)
        held_seconds = held / 2 / self.rate
        if declared is None:
            self.notes.append("its header was never written; read as 8 kHz")
        elif declared > held:
            self.notes.append(f"it is cut short: {held_seconds:.1f} s of {declared / 2 / self.rate:.1f} s are there")
        elif held - declared > 1:  # one byte may pad an odd length
            self.notes.append(
                f"its header says {declared / 2 / self.rate:.1f} s; {held_seconds:.1f} s are there and were taken"
            )
        else:
            self.closed_properly = True
        self.torn = not self.closed_properly
        self.frames = held // 2
        self._file.seek(offset)

    def _parse(self, head: bytes, size: int) -> tuple[int, int | None]:
        """(where samples begin, how many bytes of them the header declares; None: there is no header)."""
        if not head.rstrip(b"\0"):
            # A power failure can leave the header's block unwritten; the layout is known.
            return _HEADER, None
        if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
            self.readable = False
            self.notes.append(f"it is no WAV file ({size} bytes); it stays in the spool")
            return 0, 0
        at, known = 12, False
        while at + 8 <= len(head):
            chunk, length = struct.unpack_from("<4sI", head, at)
            if chunk == b"fmt " and at + 24 <= len(head):
                coding, channels, rate = struct.unpack_from("<HHI", head, at + 8)
                bits = struct.unpack_from("<H", head, at + 22)[0]
                known = (coding, channels, bits) == (1, 1, 16) and rate > 0
                self.rate = rate or TELEPHONE_RATE
            elif chunk == b"data" and known:
                return at + 8, length
            at += 8 + length + (length & 1)
        self.readable = False
        self.notes.append("it is no 16-bit mono WAV file; it stays in the spool")
        return 0, 0


def _begins_a_header(head: bytes) -> bool:
    """Whether so few bytes are what Asterisk writes first, or a block of the disk that was never written."""
    names = head[:4] + head[8:16]
    return not head.rstrip(b"\0") or b"RIFFWAVEfmt "[: len(names)] == names
