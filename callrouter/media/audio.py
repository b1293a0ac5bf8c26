"""Signals: levels, silence, resampling, G.711. Samples are float32 in −1…1, one dimension, unless said otherwise.

Levels are RMS relative to full scale (dBFS): a full-scale square wave is 0, a full-scale sine −3.
"""

from __future__ import annotations

import io
import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import soundfile as sf
import soxr

Samples: TypeAlias = npt.NDArray[np.float32]

TELEPHONE_RATE = 8000
"""Samples a second of G.711, and of what Asterisk records of it."""
SPEECH_DBFS = -20.0
"""RMS that prompts are brought to."""
PEAK_DBFS = -3.0
"""No sample of a prompt goes above this."""
SILENT_DBFS = -60.0
"""Below this there is no voice: A-law's idle pattern is −72, a quiet room on a handset about −55."""
FLOOR_DBFS = -100.0
"""Stands for digital silence, whose level has no number."""


def decibels(power: float) -> float:
    """Mean square → dBFS, not below ``FLOOR_DBFS``."""
    return max(FLOOR_DBFS, 10 * math.log10(power)) if power > 0 else FLOOR_DBFS


def level(samples: npt.NDArray[Any]) -> float:
    """RMS of float samples in dBFS."""
    return decibels(float(np.mean(np.square(samples, dtype=np.float64)))) if samples.size else FLOOR_DBFS


def trim_silence(samples: Samples, rate: int, keep: float = 0.1, below_dbfs: float = -50.0) -> Samples:
    """Cut silence at both ends down to ``keep`` seconds; wholly silent input gives an empty array."""
    frame = max(1, rate // 100)
    count = -(-len(samples) // frame)
    padded = np.zeros(count * frame, np.float32)
    padded[: len(samples)] = samples
    power = np.mean(np.square(padded.reshape(count, frame)), axis=1)
    loud = np.flatnonzero(power > 10 ** (below_dbfs / 10))
    if not loud.size:
        return samples[:0]
    margin = int(keep * rate)
    first = max(0, int(loud[0]) * frame - margin)
    return samples[first : (int(loud[-1]) + 1) * frame + margin]


def normalise(samples: Samples, rate: int) -> Samples:
    """Bring speech to ``SPEECH_DBFS`` where it is active, or as near as ``PEAK_DBFS`` allows."""
    meter = LevelMeter(rate)
    meter.add(samples)
    peak = float(np.max(np.abs(samples), initial=0.0))
    if peak == 0.0:
        return samples
    gain = min(10 ** ((SPEECH_DBFS - meter.active) / 20), 10 ** (PEAK_DBFS / 20) / peak)
    return (samples * np.float32(gain)).astype(np.float32)


def resample(samples: Samples, rate: int, to: int = TELEPHONE_RATE) -> Samples:
    """Band-limited resampling (soxr, high quality)."""
    return samples if rate == to else np.asarray(soxr.resample(samples, rate, to), np.float32)


def encode_g711(samples: Samples) -> tuple[bytes, bytes]:
    """8 kHz samples → raw (µ-law, A-law), one byte a sample (ITU-T G.711)."""
    clipped = np.clip(samples, -1.0, 1.0)
    encoded = []
    for subtype in ("ULAW", "ALAW"):
        out = io.BytesIO()
        sf.write(out, clipped, TELEPHONE_RATE, format="RAW", subtype=subtype)
        encoded.append(out.getvalue())
    return encoded[0], encoded[1]


class LevelMeter:
    """The level of one channel in constant memory, however long it is.

    Frames of 20 ms are counted by level, so that ``active`` is the level of the speech alone: the pauses, which are
    most of one side of a conversation, do not pull it down (method B of ITU-T P.56 with 20 ms frames).
    """

    FRAME_SECONDS = 0.02
    MARGIN_DB = 15.9
    """P.56: frames more than this below the active level are pauses."""
    SPOKEN_FRAMES = 5
    """A click when the call connects is shorter than this; a word is longer."""

    def __init__(self, rate: int) -> None:
        self._frame = max(1, round(rate * self.FRAME_SECONDS))
        self._rest: npt.NDArray[np.float64] = np.zeros(0)
        self._count = np.zeros(int(-FLOOR_DBFS) + 1, np.int64)
        self._power = np.zeros(int(-FLOOR_DBFS) + 1)

    def add(self, samples: npt.NDArray[Any]) -> None:
        """Take the next samples, float in −1…1, in blocks of any length."""
        joined = np.concatenate((self._rest, samples.astype(np.float64)))
        whole = len(joined) // self._frame * self._frame
        self._rest = joined[whole:]
        power = np.mean(np.square(joined[:whole].reshape(-1, self._frame)), axis=1)
        with np.errstate(divide="ignore"):
            bins = np.clip(np.floor(10 * np.log10(power)), FLOOR_DBFS, 0).astype(np.int64) - int(FLOOR_DBFS)
        size = len(self._count)
        self._count += np.bincount(bins, minlength=size)
        self._power += np.bincount(bins, weights=power, minlength=size)

    @property
    def silent(self) -> bool:
        """No speech anywhere: fewer than ``SPOKEN_FRAMES`` frames over ``SILENT_DBFS``."""
        return self._sounding < self.SPOKEN_FRAMES

    @property
    def sound_seconds(self) -> float:
        """Seconds of what is over ``SILENT_DBFS``."""
        return self._sounding * self.FRAME_SECONDS

    @property
    def _sounding(self) -> int:
        return int(self._count[int(SILENT_DBFS - FLOOR_DBFS) :].sum())

    @property
    def active(self) -> float:
        """Level of the active frames in dBFS; ``FLOOR_DBFS`` for digital silence."""
        answer = FLOOR_DBFS
        for at in range(len(self._count)):
            frames = int(self._count[at:].sum())
            if not frames:
                break
            answer = decibels(float(self._power[at:].sum()) / frames)
            if answer - (FLOOR_DBFS + at) <= self.MARGIN_DB:
                break
        return answer
