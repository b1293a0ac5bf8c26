"""Speech by piper, a neural engine: more natural than espeak-ng, and slower. It runs as a process of its own."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from callrouter.errors import PromptError
from callrouter.media.speech import Speaker, run_engine, sound_of

if TYPE_CHECKING:
    from callrouter.media.audio import Samples

USUAL_RATE = 150
"""Words a minute that a model speaks by itself, about."""


class PiperSpeaker:
    """One of piper's models.

    :param model: its ``.onnx`` file; its ``.onnx.json`` stands beside it
    :param rate: words per minute, about
    :param program: a name on the PATH, or a path
    :param timeout: seconds; loading a model alone takes some
    """

    def __init__(self, model: Path, rate: int = USUAL_RATE, *, program: str = "piper", timeout: float = 120.0) -> None:
        self.model = model
        self.rate = rate
        self._program = program
        self._timeout = timeout

    @property
    def name(self) -> str:
        return f"piper/{self.model.stem}/{self.rate}"

    def in_language(self, language: str) -> Speaker:
        """:raises PromptError: always; a model speaks the language it was made for"""
        raise PromptError(f"piper's {self.model.stem} cannot be asked for {language!r}")

    def speak(self, text: str) -> tuple[Samples, int]:
        for needed in (self.model, self.model.with_name(f"{self.model.name}.json")):
            if not needed.is_file():
                raise PromptError(f"piper's voice {needed} is not there", hint="piper_voices names the .onnx files")
        # The text goes in on standard input: as an argument, one that begins with "-" would be an option.
        scale = f"{USUAL_RATE / self.rate:.3f}"
        command = [self._program, "--model", str(self.model), "--length-scale", scale, "--output-file", "-"]
        hint = "pipx install piper-tts, and name it in piper_program; or leave piper_voices empty"
        return _samples(sound_of("piper", run_engine("piper", command, text, self._timeout, hint)))


def _samples(wav: bytes) -> tuple[Samples, int]:
    import soundfile

    try:
        samples, rate = soundfile.read(io.BytesIO(wav), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as exc:
        raise PromptError("piper gave no sound", hint="try it by hand: echo hello | piper -m MODEL -f x.wav") from exc
    return samples.mean(axis=1), int(rate)
