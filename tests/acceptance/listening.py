"""What a recording holds, and when: for ends that hear first one thing, then another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

LOUD = 10 ** (-45 / 20)
FRAME = 0.032


def voice(path: Path | None, channel: int = 0, *, pause: float = 0.6, least: float = 0.3) -> list[tuple[float, float]]:
    """When somebody speaks: (begin, end) in seconds from the file's begin. Tones and keys pressed are no voice.

    :param pause: a shorter silence does not end it
    :param least: what is shorter is none
    """
    assert path is not None, "nothing was heard at all"
    samples, rate = soundfile.read(path, dtype="float64", always_2d=True)
    length = round(rate * FRAME)
    usable = len(samples) // length * length
    frames = samples[:usable, channel].reshape(-1, length)
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(length), axis=1)) ** 2
    strongest = np.sort(spectrum, axis=1)[:, ::-1][:, :6].sum(axis=1)
    loud = np.sqrt(np.mean(frames**2, axis=1)) > LOUD
    spoken = np.flatnonzero(loud & (strongest < 0.97 * spectrum.sum(axis=1)))
    spans: list[tuple[float, float]] = []
    begin = last = -1
    for frame in [*spoken.tolist(), 10**9]:
        if begin >= 0 and (frame - last) * FRAME > pause:
            # Voiced sounds look like tones now and then: a voice is what keeps changing.
            if (last - begin) * FRAME >= least and np.count_nonzero((spoken >= begin) & (spoken <= last)) >= 5:
                spans.append((begin * FRAME, (last + 1) * FRAME))
            begin = frame
        elif begin < 0:
            begin = frame
        last = frame
    return spans


def voice_seconds(path: Path | None, channel: int = 0) -> float:
    """How long somebody speaks in all."""
    return sum(end - begin for begin, end in voice(path, channel))


def part(path: Path | None, begin: float, end: float | None = None) -> Path:
    """A piece of a recording, as a file beside it."""
    assert path is not None, "nothing was heard at all"
    samples, rate = soundfile.read(path, dtype="int16", always_2d=True)
    piece = samples[round(begin * rate) : None if end is None else round(end * rate)]
    file = path.with_name(f"{path.stem}-{begin:g}-{end}.wav")
    soundfile.write(file, piece, rate, subtype="PCM_16")
    return file
