"""Speech with the real espeak-ng."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from callrouter.core.flow.nodes import Prompt
from callrouter.errors import PromptError
from callrouter.media.audio import level
from callrouter.media.prompts import PromptLibrary
from callrouter.media.speech import EspeakSpeaker


def test_text_becomes_speech() -> None:
    samples, rate = EspeakSpeaker().speak("Thank you for calling Acme. For sales press one.")
    assert rate == 22050
    assert 2.0 < len(samples) / rate < 6.0
    assert level(samples) > -35


def test_rate_and_voice_change_the_sound_and_the_name() -> None:
    slow, fast = EspeakSpeaker(rate=100), EspeakSpeaker(rate=300)
    assert len(slow.speak("One two three four")[0]) > 1.5 * len(fast.speak("One two three four")[0])
    assert len({slow.name, fast.name, EspeakSpeaker("de", 100).name}) == 3


@pytest.mark.parametrize(
    "text", ["-h", "--version", "'; touch pwned; '", "$(touch pwned)", "[[h@l@U]]", "<speak>hi</speak>", "Zoë und 東京"]
)
def test_text_is_only_ever_spoken(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    samples, _ = EspeakSpeaker().speak(text)
    assert level(samples) > -40
    assert list(tmp_path.iterdir()) == []


def test_longest_text_is_spoken_whole() -> None:
    words = " ".join(["seven"] * 166)
    assert len(words) <= 1000
    samples, rate = EspeakSpeaker().speak(words)
    assert len(samples) / rate > 40


def test_unknown_voice_and_bad_voice_name_are_said() -> None:
    with pytest.raises(PromptError, match="no voice 'klingon-high'"):
        EspeakSpeaker("klingon-high").speak("hello")
    for name in ("--help", "", "../../etc/passwd", "en us"):
        with pytest.raises(PromptError, match="no espeak-ng voice"):
            EspeakSpeaker(name)


def test_absent_espeak_says_how_to_get_it() -> None:
    with pytest.raises(PromptError, match="is not installed") as caught:
        EspeakSpeaker(program="/nonexistent/espeak-ng").speak("hello")
    assert "apt-get install espeak-ng" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "script,said",
    [
        ("exec sleep 60", "did not finish within 0.3 s"),
        ("echo broken >&2; exit 3", "failed with code 3: broken"),
        ("echo not a wav", "gave no sound"),
    ],
)
def test_failing_espeak_is_an_error_not_a_hang(tmp_path: Path, script: str, said: str) -> None:
    program = tmp_path / "espeak"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(PromptError, match=said):
        EspeakSpeaker(program=str(program), timeout=0.3 if "sleep" in script else 20).speak("hello")


async def test_spoken_prompt_is_ready_for_the_telephone(tmp_path: Path) -> None:
    library = PromptLibrary(tmp_path, EspeakSpeaker())
    prompt = Prompt(text="Thank you for calling. Call us back on +12025550123.")
    assert (await library.render([(None, prompt)])).rendered == 1
    path = library.path_for(prompt)
    assert path is not None
    decoded = []
    for suffix, subtype in ((".ulaw", "ULAW"), (".alaw", "ALAW")):
        samples, _ = sf.read(
            path.with_name(path.name + suffix), samplerate=8000, channels=1, format="RAW", subtype=subtype
        )
        decoded.append(samples)
        assert np.abs(samples).max() <= 10 ** (-3 / 20) * 1.05
        assert -30 < level(samples) < -17
        assert level(samples[:400]) < -40  # a tenth of a second of silence before the first word
    assert len(decoded[0]) == len(decoded[1])
    # Eleven digits one by one take about five seconds; "twelve billion …" or nothing would not.
    assert 5 < len(decoded[0]) / 8000 < 12


async def test_prompts_are_the_same_every_time(tmp_path: Path) -> None:
    files = []
    for place in ("a", "b"):
        library = PromptLibrary(tmp_path / place, EspeakSpeaker())
        await library.render([(None, Prompt(text="Goodbye."))])
        files.append({path.name: path.read_bytes() for path in (tmp_path / place).iterdir()})
    assert files[0] == files[1]
    assert len(files[0]) == 2
