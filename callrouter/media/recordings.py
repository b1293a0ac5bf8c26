"""Finishing recordings: two raw legs become one stereo file, checked, hashed, kept by date.

    spool/<id>-rx.wav (caller), <id>-tx.wav (business), or <id>.wav for a message
    recordings/2026/11/21/<id>.flac

The raw legs are removed only when the finished file has been read back and found right. A finished file appears by
renaming, so that one which exists is whole; what was wrong with the raw legs is kept in its comment tag, so that
finishing twice gives the same answer.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol

import soundfile as sf

from callrouter.core.records import RecordingKind, RecordingStatus
from callrouter.errors import InputError, ServiceError
from callrouter.media.encoding import FORMATS, Remarks, make, read_back
from callrouter.media.gaps import LONGEST_DOUBT, Gap, gap_to_talk, gaps_of_legs
from callrouter.media.raw_legs import RawLeg, legs_of

__all__ = [
    "FORMATS",
    "PARTIES",
    "FinishedRecording",
    "finish",
    "has_sound",
    "is_finished",
    "relative_path",
    "settled",
]

Format = Literal["flac", "opus"]
CHANNELS = {
    RecordingKind.CONVERSATION: ("caller (left)", "business (right)"),
    RecordingKind.VOICEMAIL: ("message",),
}
PARTIES = {RecordingKind.CONVERSATION: ("caller", "business"), RecordingKind.VOICEMAIL: ("caller",)}
"""Whose voice is in which channel."""

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
    gaps: tuple[Gap, ...] = ()
    """What is missing of it."""
    sample_rate: int = 0
    """Hz."""
    channels: int = 0
    begun: bool = True
    """Whether Asterisk made any file of it."""

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
            if not leg.closed_properly and now - leg.modified < quiet_seconds:
                return False
    return True


def has_sound(spool: Path, recording: RecordingLike) -> bool:
    """True when all raw files are there and have samples. Asterisk may hold back the first seconds of a file."""
    for path in legs_of(spool, recording.id, recording.kind):
        leg = RawLeg.open(path)
        if leg is None:
            return False
        with leg:
            if not leg.frames:
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
        gaps = gaps_of_legs(legs, PARTIES[recording.kind])
        torn = any(leg is not None and leg.torn for leg in legs)
        try:
            make(target, legs, Remarks(tuple(_notes(legs, labels)), tuple(gaps), torn), fmt, recording.id)
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
    return FinishedRecording(RecordingStatus.MISSING, None, fmt, problems=(problem,), begun=any(legs))


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


# -- reading back ----------------------------------------------------------------------------------------------------


def _report(path: Path, dest_dir: Path, labels: tuple[str, ...], expected_seconds: float | None) -> FinishedRecording:
    facts = read_back(path)
    seconds = facts.frames / facts.rate
    notes, gaps = facts.remarks.notes, list(facts.remarks.gaps)
    problems = list(notes)
    if expected_seconds is not None and abs(seconds - expected_seconds) > max(LONGEST_DOUBT, 0.02 * expected_seconds):
        problems.append(f"it lasts {seconds:.1f} s, the conversation lasted {expected_seconds:.1f} s")
    if (short := gap_to_talk(seconds, expected_seconds, torn=facts.remarks.torn)) is not None:
        gaps.append(short)
    for label, meter in zip(labels, facts.meters, strict=False):
        if meter.silent and not any(note.startswith(label) and "silent" in note for note in notes):
            sound = meter.sound_seconds
            how = f"but for {sound:.2f} s" if sound else f"({meter.active:.0f} dBFS)"
            problems.append(f"{label}: silent throughout {how}")
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
        gaps=tuple(gaps),
        sample_rate=facts.rate,
        channels=facts.channels,
    )
