"""A spool with raw legs and a directory for finished recordings."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from callrouter.core.records import RecordingKind, RecordingRef
from callrouter.media.recordings import FinishedRecording, finish

RATE = 8000
STARTED = 1_795_300_000.0  # 2026-11-21 22:26:40 UTC
DAY = "2026/11/21"


def sine(seconds: float, amplitude: float = 0.3, hertz: float = 440.0) -> np.ndarray:
    return np.asarray(amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE))


def noise(seconds: float, amplitude: float = 0.05) -> np.ndarray:
    return amplitude * np.random.default_rng(7).standard_normal(round(seconds * RATE))


def write_leg(path: Path, signal: np.ndarray, declared: int | None = None) -> None:
    """A WAV as Asterisk writes it; ``declared`` replaces the header's idea of how many bytes follow."""
    body = np.round(signal * 32767).astype("<i2").tobytes()
    size = len(body) if declared is None else declared
    whole = min(size + 36, 0xFFFFFFFF)
    head = b"RIFF" + struct.pack("<I", whole) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, RATE, 16000, 2, 16)
    path.write_bytes(head + b"data" + struct.pack("<I", size) + body)


class Place:
    """A spool and a recordings directory."""

    def __init__(self, tmp_path: Path) -> None:
        self.spool = tmp_path / "spool"
        self.kept = tmp_path / "kept"
        self.spool.mkdir()
        self.kept.mkdir()

    def conversation(self, caller: np.ndarray | None, business: np.ndarray | None, name: str = "r1") -> RecordingRef:
        for signal, suffix in ((caller, "rx"), (business, "tx")):
            if signal is not None:
                write_leg(self.spool / f"{name}-{suffix}.wav", signal)
        return RecordingRef(name, RecordingKind.CONVERSATION, "leg", STARTED)

    def finish(self, ref: RecordingRef, expected: float | None = None, fmt: str = "flac") -> FinishedRecording:
        return finish(self.spool, ref, self.kept, fmt, expected, STARTED)  # type: ignore[arg-type]

    def spooled(self) -> list[str]:
        return sorted(path.name for path in self.spool.iterdir())

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.kept)) for path in self.kept.rglob("*") if path.is_file())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)
