"""Out of the finished recordings: copies for people, outlines for players."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from callrouter.errors import InputError, NotFoundError, ServiceError
from callrouter.media.manifest import SUFFIX, inside, read

EXPORTS: dict[str, tuple[str, str]] = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
_BLOCK = 1 << 16


class StoredRecording(Protocol):
    """What is needed of a recording's row."""

    @property
    def id(self) -> str: ...
    @property
    def path(self) -> str | None:
        """Below the recordings directory; None: there is no file."""
        ...

    @property
    def manifest_sha256(self) -> str | None: ...
    @property
    def started_at(self) -> float | datetime:
        """Seconds since the epoch, or an aware datetime."""
        ...


def export(recordings_dir: Path, rows: Iterable[StoredRecording], dest: Path, fmt: str = "wav") -> list[Path]:
    """Copy recordings out, as ``<UTC date>T<time>Z_<id>.<fmt>``; names carry no telephone number. Blocks.

    The manifest goes with each, byte for byte, as ``….json``; its SHA-256 of the audio is that of the file kept here.

    :param dest: an existing directory, or one to be made
    :param fmt: "wav", "flac", "opus" or "mp3"
    :returns: the recordings written, in the order of ``rows``; files of those names are replaced
    :raises NotFoundError: a recording has no file
    :raises ServiceError: ``dest`` cannot be written
    """
    if fmt not in EXPORTS:
        raise InputError(f"recordings cannot be exported as {fmt!r}", hint=f"one of: {', '.join(EXPORTS)}")
    written = []
    for row in rows:
        source = inside(recordings_dir, row.path) if row.path else None
        if source is None or not source.is_file():
            raise NotFoundError(f"recording {row.id} has no file", hint="callrouter recording verify")
        at = row.started_at if isinstance(row.started_at, datetime) else datetime.fromtimestamp(row.started_at, UTC)
        target = dest / f"{at.astimezone(UTC):%Y-%m-%dT%H%M%SZ}_{row.id}.{fmt}"
        try:
            dest.mkdir(parents=True, exist_ok=True)
            _convert(source, target, fmt)
            manifest = read(source, row.manifest_sha256)
            if manifest is not None:
                target.with_suffix(SUFFIX).write_bytes(manifest)
        except OSError as exc:
            raise ServiceError(f"{target} cannot be written: {exc.strerror or exc}") from exc
        written.append(target)
    return written


def _convert(source: Path, target: Path, fmt: str) -> None:
    handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=target.parent)
    os.close(handle)
    try:
        if source.suffix == f".{fmt}":
            shutil.copyfile(source, name)
        else:
            import soundfile as sf

            container, subtype = EXPORTS[fmt]
            try:
                with (
                    sf.SoundFile(source) as old,
                    sf.SoundFile(name, "w", old.samplerate, old.channels, subtype, format=container) as new,
                ):
                    while len(block := old.read(_BLOCK, dtype="float32", always_2d=True)):
                        new.write(block)
            except (sf.LibsndfileError, AssertionError) as exc:  # the latter when fewer samples were taken than given
                raise OSError(str(exc) or "the disk is full") from exc
        Path(name).replace(target)
    except BaseException:  # Ctrl-C as well
        with suppress(OSError):
            Path(name).unlink()
        raise


def peaks(path: Path, buckets: int) -> list[list[tuple[float, float]]]:
    """(lowest, highest) sample in each of ``buckets`` stretches, for each channel: the outline a player draws.

    :raises NotFoundError: the file is absent or no audio
    """
    import numpy as np
    import soundfile as sf

    try:
        with sf.SoundFile(path) as source:
            low = np.zeros((source.channels, buckets), np.float32)
            high = np.zeros((source.channels, buckets), np.float32)
            total, at = max(1, source.frames), 0
            while len(block := source.read(_BLOCK, dtype="float32", always_2d=True)):
                places = np.minimum((np.arange(at, at + len(block)) * buckets) // total, buckets - 1)
                for channel in range(source.channels):
                    np.minimum.at(low[channel], places, block[:, channel])
                    np.maximum.at(high[channel], places, block[:, channel])
                at += len(block)
    except sf.LibsndfileError as exc:
        raise NotFoundError(f"{path} cannot be read as audio") from exc
    return [
        [(round(float(a), 4), round(float(b), 4)) for a, b in zip(*pair, strict=True)]
        for pair in zip(low, high, strict=True)
    ]
