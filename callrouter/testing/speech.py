"""Sounds for callers and phones: spoken sentences by espeak-ng, tones by numpy. All 8 kHz, 16 bit, mono WAV."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from callrouter.errors import InputError, ServiceError

RATE = 8000
Samples = NDArray[np.float64]


def spoken(text: str, directory: Path, *, voice: str = "en-us", words_per_minute: int = 150) -> Path:
    """Say ``text`` into a WAV below ``directory``; made once per text and voice.

    :raises ServiceError: espeak-ng is absent or fails
    """
    key = hashlib.sha256(f"{voice}|{words_per_minute}|{text}".encode()).hexdigest()[:16]
    path = directory / f"speech-{key}.wav"
    if path.exists():
        return path
    program = shutil.which("espeak-ng")
    if program is None:
        raise ServiceError("espeak-ng is not installed; test calls cannot speak", hint="apt-get install espeak-ng")
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="speech-", dir=directory) as scratch:
        raw = Path(scratch) / "raw.wav"
        command = [program, "-v", voice, "-s", str(words_per_minute), "-w", raw.name, "--", text]
        # A relative name: espeak-ng cuts long paths and then writes nothing, with exit code 0.
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0 or not raw.exists():
            raise ServiceError(
                f"espeak-ng could not speak (exit {done.returncode}): {done.stderr.strip()}",
                hint=f"does 'espeak-ng --voices' list {voice}?",
            )
        samples, rate = soundfile.read(raw, dtype="float64", always_2d=True)
    write_wav(path, soxr.resample(samples[:, 0], rate, RATE))
    return path


def tone(hz: float, seconds: float, *, dbfs: float = -13.0) -> Samples:
    """A sine of ``seconds`` with the given RMS level, in -1..1."""
    amplitude: float = 10 ** (dbfs / 20) * 2**0.5
    wave: Samples = np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)
    return amplitude * wave


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * RATE))


def fitted(samples: Samples, seconds: float) -> Samples:
    """``samples`` cut, or repeated, to exactly ``seconds``."""
    wanted = round(seconds * RATE)
    return np.resize(samples, wanted) if len(samples) else silence(seconds)


def read_mono(path: Path) -> Samples:
    """Any audio file as one channel at 8 kHz.

    :raises InputError: it is no audio
    """
    try:
        samples, rate = soundfile.read(path, dtype="float64", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as exc:
        raise InputError(f"{path} cannot be played: {exc}", hint="a WAV, FLAC, MP3 or Ogg file") from exc
    mono = samples.mean(axis=1)
    return mono if rate == RATE else np.asarray(soxr.resample(mono, rate, RATE), dtype=np.float64)


def write_wav(path: Path, samples: Samples) -> None:
    """Write whole or not at all, so that a reader never meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    os.close(handle)
    try:
        soundfile.write(name, np.clip(samples, -1.0, 1.0), RATE, subtype="PCM_16", format="WAV")
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
