"""Measuring what was heard: level, tones and speech per channel of an audio file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from callrouter.errors import InputError

FLOOR_DBFS = -120.0
ACTIVE_DBFS = -45.0
_TONE_FRAME = 0.1
_TONE_SHARE = 0.35

Samples = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ChannelLevel:
    """Level of one channel.

    :param rms_dbfs: over the whole channel; digital silence is -120
    :param peak_dbfs: loudest sample
    :param active_seconds: sum of 20 ms frames above -45 dBFS
    :param duration: seconds
    """

    rms_dbfs: float
    peak_dbfs: float
    active_seconds: float
    duration: float

    @property
    def silent(self) -> bool:
        """No frame is loud enough to be a voice or tone."""
        return self.active_seconds == 0.0


def duration(path: Path) -> float:
    """Seconds of audio in a file.

    :raises InputError: absent, or no audio
    """
    try:
        info = soundfile.info(path)
    except (soundfile.LibsndfileError, OSError) as exc:
        raise _unreadable(path, exc) from exc
    return float(info.frames) / float(info.samplerate)


def levels(path: Path) -> list[ChannelLevel]:
    """The level of every channel, left first.

    :raises InputError: absent, or no audio
    """
    samples, rate = _read(path)
    found = []
    for number in range(samples.shape[1]):
        one = samples[:, number]
        frames = _frames(one, round(rate * 0.02), round(rate * 0.02))
        active = int(np.count_nonzero(_dbfs(np.mean(frames**2, axis=1)) > ACTIVE_DBFS))
        found.append(
            ChannelLevel(
                rms_dbfs=float(_dbfs(np.mean(one**2))) if len(one) else FLOOR_DBFS,
                peak_dbfs=float(_dbfs(np.max(one**2))) if len(one) else FLOOR_DBFS,
                active_seconds=round(active * 0.02, 3),
                duration=len(one) / rate,
            )
        )
    return found


def tone_present(path: Path, hz: float, channel: int = 0, min_seconds: float = 0.3) -> bool:
    """Whether a tone of ``hz`` (± 7 Hz) sounds for ``min_seconds`` without a pause; a lost packet is none.

    In every 100 ms frame the tone must hold 35 % of the energy: it is found beside one other tone as loud, not below
    speech that is louder.

    :raises InputError: absent, no audio, or no such channel
    """
    one, rate = _channel(path, channel)
    length = round(rate * _TONE_FRAME)
    hop = length // 2
    frames = _frames(one, length, hop)
    if not len(frames):
        return False
    window = np.hanning(length)
    wave = np.exp(-2j * np.pi * hz * np.arange(length) / rate)
    tone = 2 * np.abs((frames * window) @ wave) ** 2 / window.sum() ** 2
    power = ((frames * window) ** 2).sum(axis=1) / (window**2).sum()
    loud = _dbfs(power) > ACTIVE_DBFS
    there = loud & (tone > _TONE_SHARE * power)
    # A lost packet makes the tone's phase jump, which spoils a frame or two without being a pause.
    gap = ~there & loud
    for width in (1, 2):
        for start in np.flatnonzero(there[: -width - 1] & there[width + 1 :]):
            inner = slice(start + 1, start + 1 + width)
            if gap[inner].all():
                there[inner] = True
    run = _longest_run(there)
    return run > 0 and (length + (run - 1) * hop) / rate >= min_seconds - 1e-9


def speech_present(path: Path, channel: int = 0, min_seconds: float = 0.5) -> bool:
    """Whether somebody speaks: ``min_seconds`` of loud frames whose level moves and that are not single tones.

    Steady noise, hum, dial and ringing tones and silence are not speech.

    :raises InputError: absent, no audio, or no such channel
    """
    one, rate = _channel(path, channel)
    length = round(rate * 0.032)
    frames = _frames(one, length, length)
    if not len(frames):
        return False
    level = _dbfs(np.mean(frames**2, axis=1))
    active = level > ACTIVE_DBFS
    if np.count_nonzero(active) * length / rate < min_seconds:
        return False
    window = np.hanning(length)
    spectrum = np.abs(np.fft.rfft(frames[active] * window, axis=1)) ** 2
    strongest = np.sort(spectrum, axis=1)[:, ::-1]
    # A sine fills three bins of a Hann window, a pair of sines (ringing, busy, DTMF) six.
    tonal = strongest[:, :6].sum(axis=1) > 0.98 * spectrum.sum(axis=1)
    return bool(np.std(level[active]) > 3.0 and np.mean(tonal) < 0.5)


def _read(path: Path) -> tuple[Samples, int]:
    try:
        samples, rate = soundfile.read(path, dtype="float64", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as exc:
        raise _unreadable(path, exc) from exc
    return samples, int(rate)


def _channel(path: Path, channel: int) -> tuple[Samples, int]:
    samples, rate = _read(path)
    if not 0 <= channel < samples.shape[1]:
        raise InputError(f"{path} has {samples.shape[1]} channel(s), no number {channel}", hint="0 is the left one")
    return samples[:, channel], rate


def _unreadable(path: Path, exc: Exception) -> InputError:
    return InputError(f"{path} cannot be measured: {exc}", hint="is it there, and an audio file?")


def _frames(samples: Samples, length: int, hop: int) -> Samples:
    """Whole frames of ``length`` samples, every ``hop`` samples; shape (count, length)."""
    if len(samples) < length:
        return np.empty((0, length))
    return np.lib.stride_tricks.sliding_window_view(samples, length)[::hop]


def _dbfs(power: Samples | np.floating) -> Samples:
    return 10 * np.log10(np.maximum(power, 10 ** (FLOOR_DBFS / 10)))


def _longest_run(flags: NDArray[np.bool_]) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return int((edges[1::2] - edges[::2]).max()) if len(edges) else 0
