"""Finishing recordings: two raw legs become one stereo file, checked, hashed, kept by date.

    spool/<id>-rx.wav (caller), <id>-tx.wav (business), or <id>.wav for a message
    recordings/2026/11/21/<id>.flac

The raw legs are removed only when the finished file has been read back and found right. A finished file appears by
renaming, so that one which exists is whole; what was wrong with the raw legs is kept in its comment tag, so that
finishing twice gives the same answer.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import soundfile as sf

from callrouter.core.records import RecordingKind, RecordingStatus
from callrouter.errors import InputError, ServiceError
from callrouter.media.archive import StoredRecording, VerifyReport, export, peaks, verify
from callrouter.media.audio import LevelMeter
from callrouter.media.raw_legs import RawLeg, legs_of

__all__ = [
    "FORMATS",
    "FinishedRecording",
    "StoredRecording",
    "VerifyReport",
    "export",
    "finish",
    "is_finished",
    "peaks",
    "relative_path",
    "settled",
    "verify",
]

Format = Literal["flac", "opus"]
FORMATS: dict[str, tuple[str, str, str]] = {
    # format: (suffix, libsndfile's format, subtype). Opus at libsndfile's own rate, 30 to 40 kbit/s for two legs of
    # speech: its compression_level 1.0 merges the channels.
    "flac": (".flac", "FLAC", "PCM_16"),
    "opus": (".opus", "OGG", "OPUS"),
}
CHANNELS = {
    RecordingKind.CONVERSATION: ("caller (left)", "business (right)"),
    RecordingKind.VOICEMAIL: ("message",),
}

_BLOCK = 1 << 16
"""Frames at a time: eight seconds."""
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_UNEQUAL_SECONDS = 1.0


class RecordingLike(Protocol):
    """What is needed of ``core.records.RecordingRef``."""

    @property
    def id(self) -> str: ...
    @property
    def kind(self) -> RecordingKind: ...


@dataclass(frozen=True, slots=True)
class FinishedRecording:
    """Verified facts about a finished recording."""

    status: RecordingStatus
    """OK; SUSPECT with ``problems``; MISSING, then with no path."""
    path: str | None
    """Below the recordings directory, with slashes."""
    format: str
    size_bytes: int = 0
    sha256: str = ""
    """Of the file."""
    seconds: float = 0.0
    left_dbfs: float | None = None
    """Active speech level of the caller, or of a message; −100 for digital silence."""
    right_dbfs: float | None = None
    """Active speech level of the business; None for a message."""
    problems: tuple[str, ...] = ()

    @property
    def problem(self) -> str | None:
        """All problems in one sentence, as a call record keeps it."""
        return "; ".join(self.problems) or None


def relative_path(recording_id: str, started_at: float, fmt: str) -> str:
    """Where a recording belongs: ``YYYY/MM/DD/<id>.flac`` by the UTC date of ``started_at`` (seconds since the epoch).

    :raises InputError: an id that is no file name, an unknown format
    """
    if not _ID.fullmatch(recording_id):
        raise InputError(f"{recording_id!r} cannot name a recording")
    if fmt not in FORMATS:
        raise InputError(f"there is no recording format {fmt!r}", hint="flac or opus")
    return f"{datetime.fromtimestamp(started_at, UTC):%Y/%m/%d}/{recording_id}{FORMATS[fmt][0]}"


def settled(spool: Path, recording: RecordingLike, now: float, quiet_seconds: float = 60.0) -> bool:
    """True when Asterisk has closed the raw files, or has surely left them: then ``finish`` may run.

    The header is written when the file is closed; after a crash it never is, and the file merely stops growing.

    :param now: seconds since the epoch
    :param quiet_seconds: a file not written to for so long has no writer any more
    """
    for path in legs_of(spool, recording.id, recording.kind):
        leg = RawLeg.open(path)
        if leg is None:
            continue
        with leg:
            closed = leg.closed_properly and leg.frames > 0
            if not closed and now - leg.modified < quiet_seconds:
                return False
    return True


def is_finished(dest_dir: Path, recording: RecordingLike, started_at: float) -> bool:
    """Is there a finished file, in whichever format?"""
    return any(path.exists() for path in _versions(dest_dir / relative_path(recording.id, started_at, "flac")))


def finish(
    spool: Path,
    recording: RecordingLike,
    dest_dir: Path,
    fmt: Format,
    expected_seconds: float | None,
    started_at: float,
) -> FinishedRecording:
    """Make the finished recording out of the raw legs, or give the facts again if that was done before.

    Blocks: ten minutes of stereo take half a second as FLAC and ten as Opus. Memory does not grow with length.

    :param expected_seconds: talk time, to check against; None: unknown
    :param started_at: seconds since the epoch
    :raises ServiceError: the destination is missing, full or not writable; the raw legs are then untouched
    """
    target = dest_dir / relative_path(recording.id, started_at, fmt)
    labels = CHANNELS[recording.kind]
    with ExitStack() as stack:
        # Open first, look for the finished file second: whoever finished it meanwhile made it before removing a leg.
        legs = [
            leg and stack.enter_context(leg) for leg in map(RawLeg.open, legs_of(spool, recording.id, recording.kind))
        ]
        done = next((at for at in _versions(target) if at.exists()), None)
        if done is not None and not all(legs):
            # Finished before; a leg that remains was about to be removed.
            try:
                facts = _report(done, dest_dir, labels, expected_seconds)
            except sf.LibsndfileError as exc:
                return _damaged(done, dest_dir, exc)
            _remove_raw(spool, recording)
            return facts
        usable = [leg for leg in legs if leg is not None and leg.frames]
        if not usable:
            return _missing(spool, recording, legs, fmt)
        if not dest_dir.is_dir():
            raise ServiceError(
                f"the recordings directory {dest_dir} is missing",
                hint="is its disk mounted? callrouter doctor looks; raw recordings wait in " + str(spool),
            )
        notes = _notes(legs, labels)
        try:
            _make(target, legs, labels, notes, fmt, recording.id)
        except OSError as exc:
            raise ServiceError(
                f"recording {recording.id} cannot be written to {target.parent}: {exc.strerror or exc}",
                hint="make room; the raw recording waits in " + str(spool),
            ) from exc
        facts = _report(target, dest_dir, labels, expected_seconds)
        for other in _versions(target):
            if other != target:
                other.unlink(missing_ok=True)
        if all(leg is None or leg.readable for leg in legs):
            _remove_raw(spool, recording)
        return facts


# -- making ----------------------------------------------------------------------------------------------------------


def _versions(target: Path) -> list[Path]:
    return [target.with_suffix(suffix) for suffix, _, _ in FORMATS.values()]


def _remove_raw(spool: Path, recording: RecordingLike) -> None:
    for path in legs_of(spool, recording.id, recording.kind):
        path.unlink(missing_ok=True)


def _missing(spool: Path, recording: RecordingLike, legs: Sequence[RawLeg | None], fmt: str) -> FinishedRecording:
    names = ", ".join(path.name for path in legs_of(spool, recording.id, recording.kind))
    if not any(legs):
        problem = f"no file was recorded: {names} not found in {spool}"
    else:
        notes = "; ".join(note for leg in legs if leg for note in leg.notes)
        problem = "the recording is empty: no audio arrived" + (f" ({notes})" if notes else "")
    return FinishedRecording(RecordingStatus.MISSING, None, fmt, problems=(problem,))


def _damaged(path: Path, dest_dir: Path, error: Exception) -> FinishedRecording:
    """A finished file that no longer decodes: kept, and whatever raw legs are left with it."""
    data = path.read_bytes()
    return FinishedRecording(
        RecordingStatus.SUSPECT,
        path.relative_to(dest_dir).as_posix(),
        _format_of(path),
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        problems=(f"the finished file is damaged: {error}",),
    )


def _format_of(path: Path) -> str:
    return next(fmt for fmt, (suffix, _, _) in FORMATS.items() if suffix == path.suffix)


def _notes(legs: Sequence[RawLeg | None], labels: tuple[str, ...]) -> list[str]:
    """What is known before a sample is read."""
    notes = []
    for leg, label in zip(legs, labels, strict=True):
        if leg is None:
            notes.append(f"{label}: its file is missing, the channel is silent")
        else:
            notes += [f"{label}: {note}" for note in leg.notes]
            if not leg.frames and leg.readable:
                notes.append(f"{label}: its file is empty, the channel is silent")
    lengths = [leg.seconds for leg in legs if leg is not None and leg.frames]
    if len(lengths) > 1 and max(lengths) - min(lengths) > _UNEQUAL_SECONDS:
        notes.append(
            f"the legs differ in length by {max(lengths) - min(lengths):.1f} s; the shorter is padded at its end"
        )
    return notes


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


def _make(
    target: Path, legs: Sequence[RawLeg | None], labels: tuple[str, ...], notes: list[str], fmt: str, recording_id: str
) -> None:
    """Write, flush, read back, rename. Whatever happens, nothing half-written stays under the target's name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for part in target.parent.glob(f".{recording_id}.*.part"):
        with suppress(OSError):
            if part.stat().st_mtime < time.time() - 3600:  # of a process that was killed
                part.unlink()
    handle, name = tempfile.mkstemp(prefix=f".{recording_id}.", suffix=".part", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w+b", buffering=0) as file:
            digest, frames = _encode(file, legs, notes, fmt, recording_id)
            os.fsync(file.fileno())
            with suppress(OSError, AttributeError):  # so that reading back asks the disk, not our own cache
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        try:
            facts = _read_back(temporary, labels)
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
    directory = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _encode(
    file: IO[bytes], legs: Sequence[RawLeg | None], notes: list[str], fmt: str, recording_id: str
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
            if notes:
                out.comment = json.dumps(notes, ensure_ascii=False)
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


# -- reading back ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Facts:
    frames: int
    rate: int
    digest: str
    size: int
    sha256: str
    meters: tuple[LevelMeter, ...]
    notes: tuple[str, ...]


def _read_back(path: Path, labels: tuple[str, ...]) -> _Facts:
    """Decode all of a finished file.

    :raises soundfile.LibsndfileError: it cannot be decoded
    """
    digest, frames = hashlib.sha256(), 0
    with path.open("rb") as raw:
        sha256 = hashlib.file_digest(raw, "sha256").hexdigest()
        size = raw.tell()
    with sf.SoundFile(path) as source:
        meters = tuple(LevelMeter(source.samplerate) for _ in labels)
        notes: tuple[str, ...] = ()
        if source.comment:
            with suppress(ValueError, TypeError):
                notes = tuple(str(note) for note in json.loads(source.comment))
        while len(block := source.read(_BLOCK, dtype="int16", always_2d=True)):
            digest.update(block.tobytes())
            frames += len(block)
            for channel, meter in enumerate(meters[: block.shape[1]]):
                meter.add(block[:, channel] / 32768)
        return _Facts(frames, source.samplerate, digest.hexdigest(), size, sha256, meters, notes)


def _report(path: Path, dest_dir: Path, labels: tuple[str, ...], expected_seconds: float | None) -> FinishedRecording:
    facts = _read_back(path, labels)
    seconds = facts.frames / facts.rate
    problems = list(facts.notes)
    if expected_seconds is not None and abs(seconds - expected_seconds) > max(2.0, 0.02 * expected_seconds):
        problems.append(f"it lasts {seconds:.1f} s, the conversation lasted {expected_seconds:.1f} s")
    for label, meter in zip(labels, facts.meters, strict=True):
        if meter.silent and not any(note.startswith(label) and "silent" in note for note in facts.notes):
            problems.append(f"{label}: silent throughout ({meter.active:.0f} dBFS)")
    levels = [round(meter.active, 1) for meter in facts.meters]
    return FinishedRecording(
        status=RecordingStatus.SUSPECT if problems else RecordingStatus.OK,
        path=path.relative_to(dest_dir).as_posix(),
        format=_format_of(path),
        size_bytes=facts.size,
        sha256=facts.sha256,
        seconds=round(seconds, 3),
        left_dbfs=levels[0],
        right_dbfs=levels[1] if len(levels) > 1 else None,
        problems=tuple(problems),
    )
