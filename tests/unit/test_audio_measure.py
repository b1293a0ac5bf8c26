"""Measuring levels, tones and speech on signals whose truth is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from callrouter.errors import InputError
from callrouter.testing.audio import duration, levels, speech_present, tone_present
from callrouter.testing.speech import RATE, fitted, read_mono, silence, spoken, tone, write_wav

RNG = np.random.default_rng(7)


def saved(directory: Path, *channels: np.ndarray, rate: int = RATE) -> Path:
    path = directory / "signal.wav"
    soundfile.write(path, np.stack(channels, axis=1), rate, subtype="PCM_16")
    return path


def ulaw(samples: np.ndarray) -> np.ndarray:
    """What a telephone line makes of it: 8 bit µ-law, roughly."""
    pressed = np.sign(samples) * np.log1p(255 * np.abs(samples)) / np.log(256)
    rounded = np.round(pressed * 127) / 127
    return np.sign(rounded) * (256 ** np.abs(rounded) - 1) / 255


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    directory = tmp_path_factory.mktemp("voice")
    return read_mono(spoken("Good afternoon, thank you for calling. How can I help you?", directory))


def test_levels_of_a_full_scale_sine(tmp_path: Path) -> None:
    [level] = levels(saved(tmp_path, tone(1000, 2, dbfs=-3.01)))
    assert level.rms_dbfs == pytest.approx(-3.01, abs=0.05)
    assert level.peak_dbfs == pytest.approx(0, abs=0.05)
    assert level.active_seconds == pytest.approx(2)
    assert level.duration == pytest.approx(2)


def test_levels_tell_channels_apart(tmp_path: Path) -> None:
    half = np.concatenate([tone(440, 1), silence(1)])
    left, right = levels(saved(tmp_path, half, silence(2)))
    assert left.active_seconds == pytest.approx(1, abs=0.021)
    assert not left.silent
    assert right.silent
    assert right.rms_dbfs == right.peak_dbfs == -120


def test_noise_of_an_idle_line_is_not_active(tmp_path: Path) -> None:
    [level] = levels(saved(tmp_path, RNG.normal(0, 10 ** (-60 / 20), RATE)))
    assert level.silent
    assert level.rms_dbfs == pytest.approx(-60, abs=1)


def test_a_file_without_samples_is_silent(tmp_path: Path) -> None:
    path = saved(tmp_path, silence(0))
    [level] = levels(path)
    assert level.silent
    assert level.duration == duration(path) == 0
    assert not tone_present(path, 440)
    assert not speech_present(path)


@pytest.mark.parametrize("hz", [100, 440, 660, 1000, 3400])
def test_a_tone_through_a_telephone_line_is_found(tmp_path: Path, hz: int) -> None:
    signal = ulaw(np.concatenate([silence(0.5), tone(hz, 1.0), silence(0.5)])) + RNG.normal(0, 0.001, 2 * RATE)
    path = saved(tmp_path, signal)
    assert tone_present(path, hz)
    assert tone_present(path, hz, min_seconds=0.9)
    assert not tone_present(path, hz, min_seconds=1.3)


@pytest.mark.parametrize("other", [420, 430, 450, 460, 480, 880, 220])
def test_a_neighbouring_tone_is_not_taken_for_it(tmp_path: Path, other: int) -> None:
    assert not tone_present(saved(tmp_path, tone(other, 2)), 440)


@pytest.mark.parametrize("off", [-5, -3, 3, 5])
def test_a_slightly_detuned_tone_is_found(tmp_path: Path, off: int) -> None:
    assert tone_present(saved(tmp_path, tone(440 + off, 1)), 440)


def test_a_tone_on_the_other_channel_is_not_found(tmp_path: Path) -> None:
    path = saved(tmp_path, tone(440, 1), tone(660, 1))
    assert tone_present(path, 440, channel=0)
    assert tone_present(path, 660, channel=1)
    assert not tone_present(path, 440, channel=1)
    assert not tone_present(path, 660, channel=0)


def test_both_tones_of_a_mix_are_found(tmp_path: Path) -> None:
    path = saved(tmp_path, tone(440, 1) + tone(660, 1))
    assert tone_present(path, 440)
    assert tone_present(path, 660)
    assert not tone_present(path, 550)


def test_a_tone_too_short_too_faint_or_broken_is_not_found(tmp_path: Path) -> None:
    assert not tone_present(saved(tmp_path, np.concatenate([tone(440, 0.15), silence(1)])), 440)
    assert not tone_present(saved(tmp_path, tone(440, 1, dbfs=-55)), 440)
    beeps = np.concatenate([tone(440, 0.2), silence(0.3)])
    assert not tone_present(saved(tmp_path, fitted(beeps, 3)), 440, min_seconds=0.35)


@pytest.mark.parametrize("lost", [80, 160, 247])
def test_a_lost_packet_does_not_break_a_tone(tmp_path: Path, lost: int) -> None:
    whole = tone(660, 2)
    path = saved(tmp_path, np.concatenate([whole[:8003], whole[8003 + lost :]]))
    assert tone_present(path, 660, min_seconds=1.9)


def test_tones_taking_turns_are_each_only_as_long_as_they_sound(tmp_path: Path) -> None:
    path = saved(tmp_path, fitted(np.concatenate([tone(440, 0.4), tone(660, 0.4)]), 4))
    assert tone_present(path, 440)
    assert not tone_present(path, 440, min_seconds=0.6)


def test_noise_and_speech_are_no_tone(tmp_path: Path, voice: np.ndarray) -> None:
    assert not tone_present(saved(tmp_path, RNG.normal(0, 0.1, 2 * RATE)), 440)
    path = saved(tmp_path, voice)
    assert not any(tone_present(path, hz) for hz in (350, 440, 620, 660, 1000))


def test_a_tone_at_another_sample_rate_is_found(tmp_path: Path) -> None:
    signal = 0.3 * np.sin(2 * np.pi * 440 * np.arange(48000) / 48000)
    assert tone_present(saved(tmp_path, signal, rate=48000), 440)


def test_speech_is_found_on_its_channel(tmp_path: Path, voice: np.ndarray) -> None:
    path = saved(tmp_path, silence(len(voice) / RATE), ulaw(voice))
    assert speech_present(path, channel=1)
    assert not speech_present(path, channel=0)


def test_quiet_speech_after_a_long_silence_is_found(tmp_path: Path, voice: np.ndarray) -> None:
    path = saved(tmp_path, np.concatenate([silence(20), 0.2 * voice]))
    assert speech_present(path)


@pytest.mark.parametrize("kind", ["tone", "ringing", "busy", "noise", "hum", "keys", "a click"])
def test_what_is_no_speech(tmp_path: Path, kind: str) -> None:
    match kind:
        case "tone":
            signal = tone(440, 4)
        case "ringing":
            signal = fitted(np.concatenate([tone(440, 2) + tone(480, 2), silence(4)]), 12)
        case "busy":
            signal = fitted(np.concatenate([tone(480, 0.5) + tone(620, 0.5), silence(0.5)]), 4)
        case "noise":
            signal = RNG.normal(0, 0.05, 4 * RATE)
        case "hum":
            signal = tone(50, 4, dbfs=-20)
        case "keys":
            signal = fitted(np.concatenate([tone(697, 0.1) + tone(1209, 0.1), silence(0.1)]), 4)
        case _:
            signal = np.concatenate([silence(1), RNG.normal(0, 0.3, RATE // 10), silence(1)])
    assert not speech_present(saved(tmp_path, ulaw(np.clip(signal, -1, 1))))


def test_duration_is_read_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "made.wav"
    write_wav(path, tone(440, 1.25))
    assert duration(path) == pytest.approx(1.25)
    assert soundfile.info(path).samplerate == 8000
    assert soundfile.info(path).subtype == "PCM_16"


def test_what_cannot_be_measured_is_named(tmp_path: Path) -> None:
    text = tmp_path / "notes.wav"
    text.write_text("no audio at all")
    for wrong in (text, tmp_path / "absent.wav"):
        for measure in (duration, levels, speech_present):
            with pytest.raises(InputError, match=wrong.name):
                measure(wrong)
    with pytest.raises(InputError, match="no number 1"):
        tone_present(saved(tmp_path, tone(440, 1)), 440, channel=1)
