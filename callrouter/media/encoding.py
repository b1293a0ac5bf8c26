"""Writing a finished recording so that it is there as a whole or not at all, and reading it back to be sure."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import soundfile as sf

from callrouter.files import sync
from callrouter.media.audio import LevelMeter
from callrouter.media.gaps import Gap
from callrouter.media.raw_legs import RawLeg

FORMATS: dict[str, tuple[str, str, str]] = {
    # format: (suffix, libsndfile's format, subtype). Opus at libsndfile's own rate, 30 to 40 kbit/s for two legs of
    # speech: its compression_level 1.0 merges the channels.
    "flac": (".flac", "FLAC", "PCM_16"),
    "opus": (".opus", "OGG", "OPUS"),
}
STALE_SECONDS = 3600.0
"""A half-written file not touched for so long belongs to a process that was killed."""
_BLOCK = 1 << 16
"""Frames at a time: eight seconds."""


@dataclass(frozen=True, slots=True)
class Remarks:
    """What was wrong with the raw legs. Kept in the finished file's comment tag: they are gone when it is asked."""

    notes: tuple[str, ...] = ()
    gaps: tuple[Gap, ...] = ()
    torn: bool = False
    """A raw file was not closed by Asterisk."""

    def as_comment(self) -> str:
        """The text of the tag; "" when there is nothing to say."""
        if not (self.notes or self.gaps or self.torn):
            return ""
        told = {"notes": list(self.notes), "gaps": [gap.as_json() for gap in self.gaps], "torn": self.torn}
        return json.dumps(told, ensure_ascii=False)

    @classmethod
    def from_comment(cls, text: str) -> Remarks:
        """Nothing, when it is none of ours."""
        try:
            told = json.loads(text)
            if isinstance(told, list):  # as version 0.1 wrote it
                return cls(tuple(str(note) for note in told))
            gaps = tuple(Gap.from_json(gap) for gap in told["gaps"])
            return cls(tuple(str(note) for note in told["notes"]), gaps, bool(told["torn"]))
        except (KeyError, TypeError, ValueError):
            return cls()


@dataclass(frozen=True, slots=True)
class AudioFacts:
    """What a finished file holds, found by decoding all of it."""

    frames: int
    rate: int
    channels: int
    digest: str
    """SHA-256 of the samples."""
    size: int
    sha256: str
    """Of the file."""
    meters: tuple[LevelMeter, ...]
    remarks: Remarks


def make(target: Path, legs: Sequence[RawLeg | None], remarks: Remarks, fmt: str, recording_id: str) -> None:
    """Write, flush, read back, rename. Whatever happens, nothing half-written stays under the target's name.

    :raises OSError: it cannot be written, or what was read back is something else
    """
    _make_directory(target.parent)
    for part in target.parent.glob(f".{recording_id}.*.part"):
        with suppress(OSError):
            if not part.name.endswith(".json.part") and part.stat().st_mtime < time.time() - STALE_SECONDS:
                part.unlink()
    handle, name = tempfile.mkstemp(prefix=f".{recording_id}.", suffix=".part", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w+b", buffering=0) as file:
            digest, frames = _encode(file, legs, remarks, fmt, recording_id)
            os.fsync(file.fileno())
            with suppress(OSError, AttributeError):  # so that reading back asks the disk, not our own cache
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        try:
            facts = read_back(temporary)
        except sf.LibsndfileError as exc:
            raise OSError(f"what was written cannot be read back: {exc}") from exc
        rate = next(leg.rate for leg in legs if leg is not None and leg.frames)
        wrong = facts.digest != digest if fmt == "flac" else abs(facts.frames - frames) > rate // 10
        if wrong or (fmt == "flac" and facts.frames != frames):
            raise OSError(f"what was read back differs from what was written ({facts.frames} of {frames} samples)")
        temporary.replace(target)
    except BaseException:  # Ctrl-C as well
        with suppress(OSError):
            temporary.unlink()
        raise
    sync(target.parent)


def _make_directory(directory: Path) -> None:
    """Make a directory that outlasts a power failure: each new name is flushed in the directory that got it."""
    if directory.is_dir():
        return
    _make_directory(directory.parent)
    directory.mkdir(exist_ok=True)
    sync(directory.parent)


def read_back(path: Path) -> AudioFacts:
    """Decode all of a finished file. Memory does not grow with its length.

    :raises soundfile.LibsndfileError: it cannot be decoded
    """
    digest, frames = hashlib.sha256(), 0
    with path.open("rb") as raw:
        sha256 = hashlib.file_digest(raw, "sha256").hexdigest()
        size = raw.tell()
    with sf.SoundFile(path) as source:
        meters = tuple(LevelMeter(source.samplerate) for _ in range(source.channels))
        remarks = Remarks.from_comment(source.comment) if source.comment else Remarks()
        while len(block := source.read(_BLOCK, dtype="int16", always_2d=True)):
            digest.update(block.tobytes())
            frames += len(block)
            for channel, meter in enumerate(meters):
                meter.add(block[:, channel] / 32768)
        rate, channels = source.samplerate, source.channels
    return AudioFacts(frames, rate, channels, digest.hexdigest(), size, sha256, meters, remarks)


def _blocks(legs: Sequence[RawLeg | None]) -> Iterator[npt.NDArray[np.int16]]:
    """The legs side by side, shorter ones padded with silence."""
    frames = max(leg.frames for leg in legs if leg is not None)
    for at in range(0, frames, _BLOCK):
        block = np.zeros((min(_BLOCK, frames - at), len(legs)), np.int16)
        for channel, leg in enumerate(legs):
            if leg is not None and (part := leg.read(len(block))).size:
                block[: len(part), channel] = part
        yield block


class _Sink:
    """A file for libsndfile, which swallows errors of the system: they are kept here, to be raised afterwards."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data)
        try:
            while rest and self.error is None:
                rest = rest[self._file.write(rest) :]
        except OSError as exc:
            self.error = exc
        return len(data) if self.error is None else 0

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        self._file.flush()


def _encode(
    file: IO[bytes], legs: Sequence[RawLeg | None], remarks: Remarks, fmt: str, recording_id: str
) -> tuple[str, int]:
    """Write the legs to a file → (SHA-256 of the samples, frames)."""
    _, container, subtype = FORMATS[fmt]
    rates = {leg.rate for leg in legs if leg is not None and leg.frames}
    if len(rates) > 1:
        raise OSError(f"the legs have different sample rates: {sorted(rates)}")
    digest, frames = hashlib.sha256(), 0
    sink = _Sink(file)
    try:
        with sf.SoundFile(sink, "w", rates.pop(), len(legs), subtype, format=container) as out:
            # libsndfile takes tags before the first sample only.
            out.title = recording_id
            out.software = "callrouter"
            if comment := remarks.as_comment():
                out.comment = comment
            for block in _blocks(legs):
                out.write(block)
                digest.update(block.tobytes())
                frames += len(block)
                if sink.error:
                    break
    except (sf.LibsndfileError, RuntimeError, AssertionError) as exc:
        if sink.error is None:
            raise OSError(str(exc)) from exc
    if sink.error is not None:
        raise sink.error
    return digest.hexdigest(), frames
