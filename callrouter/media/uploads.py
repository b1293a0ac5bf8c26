"""Uploaded sound: what it is, whether we take it, and its samples at the telephone's rate."""

from __future__ import annotations

import io
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import soxr

from callrouter.errors import PromptError
from callrouter.media.audio import PEAK_DBFS, TELEPHONE_RATE, LevelMeter, Samples

MAX_SECONDS = 600
MAX_BYTES = 200_000_000
MAX_CHANNELS = 8
CONVERTER = "1"
"""Part of a converted file's name; raise it when the conversion sounds different, and all are converted anew."""

ACCEPTED = "WAV, AIFF, AU, CAF, FLAC, Ogg (Vorbis, Opus), MP3"
WITH_FFMPEG = "M4A/AAC, MP4, WMA, WebM, AMR"

_BLOCK = 65_536

# (offset, magic bytes, what it is, who reads it: "sndfile", "ffmpeg" or "" for nobody)
_MAGIC: tuple[tuple[int, bytes, str, str], ...] = (
    (8, b"WAVE", "a WAV file", "sndfile"),
    (0, b"fLaC", "a FLAC file", "sndfile"),
    (0, b"OggS", "an Ogg file", "sndfile"),
    (0, b"ID3", "an MP3 file", "sndfile"),
    (8, b"AIFF", "an AIFF file", "sndfile"),
    (8, b"AIFC", "an AIFF file", "sndfile"),
    (0, b".snd", "an AU file", "sndfile"),
    (0, b"caff", "a CAF file", "sndfile"),
    (4, b"ftyp", "an MP4 or M4A file", "ffmpeg"),
    (0, b"#!AMR", "an AMR file", "ffmpeg"),
    (0, b"\x1aE\xdf\xa3", "a WebM or Matroska file", "ffmpeg"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "a WMA file", "ffmpeg"),
    (0, b"\x89PNG", "a PNG picture", ""),
    (0, b"\xff\xd8\xff", "a JPEG picture", ""),
    (0, b"GIF8", "a GIF picture", ""),
    (8, b"WEBP", "a WebP picture", ""),
    (0, b"%PDF", "a PDF document", ""),
    (0, b"PK\x03\x04", "a ZIP archive or an office document", ""),
    (0, b"\x1f\x8b", "a gzip archive", ""),
    (0, b"7z\xbc\xaf", "a 7-Zip archive", ""),
    (0, b"\x7fELF", "a program", ""),
    (0, b"MZ", "a Windows program", ""),
    (0, b"MThd", "a MIDI file, which holds notes and no sound", ""),
)


def seems_to_be(head: bytes) -> tuple[str, str]:
    """(what a file with these first bytes is, "sndfile" | "ffmpeg" | "" for what reads it)."""
    if not head:
        return "an empty file", ""
    for offset, magic, what, reader in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return what, reader
    if head[0] == 0xFF and len(head) > 1 and head[1] & 0xE6 == 0xE2:  # frame sync, layer III
        return "an MP3 file", "sndfile"
    if head[0] == 0xFF and len(head) > 1 and head[1] & 0xF6 == 0xF0:  # ADTS
        return "an AAC file", "ffmpeg"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:1] == b"<":
        return "an HTML or XML page", ""
    try:
        head.decode()
    except UnicodeDecodeError as exc:
        if exc.end < len(head) - 4:  # not merely a character cut by the end of what was read
            return "no sound format we know", ""
    return ("no sound format we know" if b"\0" in head else "a text file"), ""


def accepted_formats() -> str:
    """What can be uploaded on this machine."""
    return f"{ACCEPTED}, {WITH_FFMPEG}" if shutil.which("ffmpeg") else f"{ACCEPTED} (with ffmpeg installed: more)"


def decode(data: bytes, name: str = "the upload") -> Samples:
    """Any accepted audio file → mono samples at 8 kHz, peak not above ``PEAK_DBFS``. Blocks for up to seconds.

    :raises PromptError: no audio, damaged, silent, or longer than ``MAX_SECONDS``
    """
    if len(data) > MAX_BYTES:
        raise PromptError(f"{name} is larger than {MAX_BYTES // 1_000_000} MB")
    what, reader = seems_to_be(data[:512])
    if not reader:
        raise PromptError(f"{name} is {what}, not audio", hint=f"accepted: {accepted_formats()}")
    if reader == "ffmpeg":
        data = _through_ffmpeg(data, name, what)
    try:
        with sf.SoundFile(io.BytesIO(data)) as source:
            samples = _read(source, name)
    except (sf.LibsndfileError, RuntimeError) as exc:
        said = getattr(exc, "error_string", str(exc)).rstrip(".")
        raise PromptError(
            f"{name} seems to be {what} but cannot be read: {said}",
            hint=f"save it again, for instance as WAV; accepted: {accepted_formats()}",
        ) from exc
    meter = LevelMeter(TELEPHONE_RATE)
    meter.add(samples)
    if meter.silent:
        raise PromptError(f"{name} is silent throughout ({len(samples) / TELEPHONE_RATE:.1f} s)")
    peak = float(np.max(np.abs(samples)))
    limit = 10 ** (PEAK_DBFS / 20)
    return samples if peak <= limit else (samples * np.float32(limit / peak)).astype(np.float32)


def _read(source: sf.SoundFile, name: str) -> Samples:
    if source.channels > MAX_CHANNELS:
        raise PromptError(f"{name} has {source.channels} channels; at most {MAX_CHANNELS} are taken")
    if not 4000 <= source.samplerate <= 384_000:
        raise PromptError(f"{name} has a sample rate of {source.samplerate} Hz; 8000 to 48000 is usual")
    too_long = PromptError(
        f"{name} is longer than {MAX_SECONDS // 60} minutes", hint="a prompt is usually under a minute"
    )
    # Some headers do not know their length (an interrupted MP3): what is really read is counted as well.
    if 0 < source.frames < 1 << 60 and source.frames > MAX_SECONDS * source.samplerate:
        raise too_long
    stream = soxr.ResampleStream(source.samplerate, TELEPHONE_RATE, 1, dtype="float32")
    pieces: list[Samples] = []
    total = 0
    while len(block := source.read(_BLOCK, dtype="float32", always_2d=True)):
        total += len(block)
        if total > MAX_SECONDS * source.samplerate:
            raise too_long
        pieces.append(stream.resample_chunk(_mono(block)))
    pieces.append(stream.resample_chunk(np.zeros(0, np.float32), last=True))
    return np.nan_to_num(np.concatenate(pieces)).astype(np.float32)


def _mono(block: Samples) -> Samples:
    mixed = np.asarray(block.mean(axis=1), np.float32)
    power = np.square(block).mean(axis=0)
    # Two channels in opposite phase, as balanced lines wired wrongly give, would cancel out.
    if float(np.square(mixed).mean()) < 0.05 * float(power.max(initial=0.0)):
        return np.ascontiguousarray(block[:, int(power.argmax())])
    return mixed


def _pydub() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydub warns at import when there is no ffmpeg; we say so when it matters
        import pydub
        import pydub.exceptions
    return pydub


def _through_ffmpeg(data: bytes, name: str, what: str) -> bytes:
    """Formats that libsndfile does not read, as WAV."""
    if not shutil.which("ffmpeg") or not shutil.which("ffprobe"):
        raise PromptError(
            f"{name} is {what}, which needs ffmpeg to be read",
            hint=f"apt-get install ffmpeg; or use one of: {ACCEPTED}",
        )
    pydub = _pydub()
    with tempfile.NamedTemporaryFile(prefix="callrouter-upload-") as file:
        file.write(data)
        file.flush()
        try:
            # One second more than allowed, so that "too long" is still seen without decoding a film.
            clip = pydub.AudioSegment.from_file(file.name, duration=MAX_SECONDS + 1)
        except (pydub.exceptions.PydubException, OSError, IndexError, KeyError, ValueError) as exc:
            raise PromptError(f"{name} seems to be {what} but holds no audio that ffmpeg can read") from exc
    out = io.BytesIO()
    clip.export(out, format="wav")
    return out.getvalue()


def join(pieces: Sequence[Path | bytes], gap_seconds: float = 0.25) -> bytes:
    """Several clips, one after the other, as one WAV (8 kHz mono 16 bit) that can be uploaded.

    :param gap_seconds: silence between two pieces
    :raises PromptError: nothing to join, or as ``decode`` for each piece
    """
    if not pieces:
        raise PromptError("there is nothing to join")
    pydub = _pydub()
    gap = pydub.AudioSegment.silent(duration=round(gap_seconds * 1000), frame_rate=TELEPHONE_RATE)
    joined = pydub.AudioSegment.empty().set_frame_rate(TELEPHONE_RATE).set_channels(1).set_sample_width(2)
    for index, piece in enumerate(pieces):
        data, name = (piece, f"piece {index + 1}") if isinstance(piece, bytes) else (read_upload(piece), piece.name)
        pcm = np.clip(decode(data, name) * 32768, -32768, 32767).astype("<i2").tobytes()
        clip = pydub.AudioSegment(data=pcm, sample_width=2, frame_rate=TELEPHONE_RATE, channels=1)
        joined = joined + gap + clip if index else clip
    out = io.BytesIO()
    joined.export(out, format="wav")
    return out.getvalue()


def read_upload(path: Path) -> bytes:
    """A file's bytes.

    :raises PromptError: it is absent, a directory, unreadable or too large
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise PromptError(f"{path} is larger than {MAX_BYTES // 1_000_000} MB")
        return path.read_bytes()
    except OSError as exc:
        raise PromptError(f"{path}: {exc.strerror or exc}") from exc
