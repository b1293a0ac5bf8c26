"""Speech by piper. Its program is stood in for by one that takes what piper takes, and gives what piper gives."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from callrouter.config import load_settings
from callrouter.core.flow.nodes import Prompt
from callrouter.errors import PromptError
from callrouter.media.piper import PiperSpeaker
from callrouter.media.prompts import PromptLibrary
from callrouter.media.speech import EspeakSpeaker
from callrouter.media.voices import speaker_of

PIPER = """#!{python}
import argparse, io, sys, wave
import numpy as np
parser = argparse.ArgumentParser()
parser.add_argument("-m", "--model", required=True)
parser.add_argument("--length-scale", type=float, default=1.0)
parser.add_argument("-f", "--output-file", required=True)
given = parser.parse_args()
text = sys.stdin.read()
assert given.output_file == "-" and "\\n" not in text
length = int(22050 * 0.1 * len(text) * given.length_scale)
hz = 500 if "es_" in given.model else 700
samples = 8000 * np.sin(np.arange(length) * 2 * np.pi * hz / 22050)
file = io.BytesIO()
with wave.open(file, "wb") as out:
    out.setnchannels(1), out.setsampwidth(2), out.setframerate(22050)
    out.writeframes(samples.astype("<i2").tobytes())
sys.stdout.buffer.write(file.getvalue())
"""


def program(directory: Path, script: str = PIPER) -> str:
    path = directory / "piper"
    path.write_text(script.replace("{python}", sys.executable))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def model(directory: Path, name: str = "en_US-joe-medium") -> Path:
    path = directory / f"{name}.onnx"
    path.write_bytes(b"model")
    path.with_name(f"{path.name}.json").write_text("{}")
    return path


def test_it_speaks_at_the_rate_that_is_asked_for(tmp_path: Path) -> None:
    usual = PiperSpeaker(model(tmp_path), program=program(tmp_path))
    slow = PiperSpeaker(usual.model, 75, program=program(tmp_path))
    (samples, rate), (longer, _) = usual.speak("-h hello"), slow.speak("-h hello")
    assert rate == 22050
    assert np.abs(samples).max() == pytest.approx(8000 / 32768, abs=0.01)
    assert len(longer) == pytest.approx(2 * len(samples), rel=0.01)
    assert usual.name != slow.name


@pytest.mark.parametrize(
    "script, said",
    [
        ("#!/bin/sh\nexec sleep 60\n", "did not finish within 0.3 s"),
        ("#!/bin/sh\ncat >/dev/null; echo lines >&2; echo broken >&2; exit 3\n", "failed with code 3: broken"),
        ("#!/bin/sh\ncat >/dev/null; echo not a wav\n", "gave no sound"),
    ],
)
def test_a_piper_that_fails_is_an_error_not_a_hang(tmp_path: Path, script: str, said: str) -> None:
    speaker = PiperSpeaker(model(tmp_path), program=program(tmp_path, script), timeout=0.3 if "sleep" in script else 20)
    with pytest.raises(PromptError, match=said):
        speaker.speak("hello")


def test_what_is_absent_is_named(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="is not installed") as caught:
        PiperSpeaker(model(tmp_path), program="/nonexistent/piper").speak("hello")
    assert "pipx install piper-tts" in (caught.value.hint or "")
    with pytest.raises(PromptError, match=r"nobody\.onnx is not there"):
        PiperSpeaker(tmp_path / "nobody.onnx", program=program(tmp_path)).speak("hello")
    lonely = tmp_path / "lonely.onnx"
    lonely.write_bytes(b"model")
    with pytest.raises(PromptError, match=r"lonely\.onnx\.json is not there"):
        PiperSpeaker(lonely, program=program(tmp_path)).speak("hello")


async def test_each_language_has_its_own_engine(tmp_path: Path) -> None:
    english, spanish = model(tmp_path), model(tmp_path, "es_MX-ald-medium")
    settings = load_settings(
        environ={}, home=str(tmp_path), piper_program=program(tmp_path), piper_voices=f"en={english}, es={spanish}"
    )
    speaker = speaker_of(settings)
    assert [
        speaker.name,
        *(speaker.in_language(one).name for one in ("en", "en-gb", "es", "es-mx", "de")),
    ] == [*["piper/en_US-joe-medium/150"] * 3, *["piper/es_MX-ald-medium/150"] * 2, "espeak-ng/de/150"]
    library = PromptLibrary(tmp_path / "prompts", speaker)
    wanted = [
        (None, Prompt(text=text, language=one)) for text, one in (("Hello.", None), ("Hola.", "es"), ("Tag.", "de"))
    ]
    report = await library.render(wanted)
    assert (report.rendered, report.failed) == (3, ())


def test_without_piper_it_is_espeak(tmp_path: Path) -> None:
    assert isinstance(speaker_of(load_settings(environ={}, home=str(tmp_path))), EspeakSpeaker)


def test_a_german_installation_asks_piper_only_where_it_has_a_voice(tmp_path: Path) -> None:
    settings = load_settings(environ={}, home=str(tmp_path), speech_voice="de", piper_voices=f"en={model(tmp_path)}")
    assert speaker_of(settings).name == "espeak-ng/de/150"
    assert speaker_of(settings).in_language("en").name == "piper/en_US-joe-medium/150"
