"""Speech by piper, a neural engine: more natural than espeak-ng, and slower. It runs as a process of its own."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from callrouter.errors import PromptError
from callrouter.media.speech import EspeakSpeaker, Speaker

if TYPE_CHECKING:
    from callrouter.config import Settings
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
        try:
            done = subprocess.run(  # noqa: PLW1510 - the return code is looked at below
                command, input=text.encode(), capture_output=True, timeout=self._timeout
            )
        except FileNotFoundError as exc:
            raise PromptError(
                f"{self._program} is not installed, so text cannot be spoken by piper",
                hint="pipx install piper-tts, and name it in piper_program; or leave piper_voices empty",
            ) from exc
        except OSError as exc:
            raise PromptError(f"{self._program} cannot be run: {exc.strerror or exc}") from exc
        except subprocess.TimeoutExpired as exc:
            raise PromptError(f"piper did not finish within {self._timeout:g} s") from exc
        if done.returncode:
            complaint = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise PromptError(f"piper failed with code {done.returncode}: {complaint or 'no message'}")
        return _samples(done.stdout)


class ByLanguage:
    """piper where it has a voice, espeak-ng for all other languages.

    :param models: by language ("en", "pt-br")
    """

    def __init__(self, espeak: EspeakSpeaker, models: Mapping[str, PiperSpeaker]) -> None:
        self._espeak = espeak
        self._models = models
        self._usual = self._model_for(espeak.voice.lower()) or espeak

    @property
    def name(self) -> str:
        return self._usual.name

    def in_language(self, language: str) -> Speaker:
        """:raises PromptError: it is no language that could be spoken"""
        return self._model_for(language) or self._espeak.in_language(language)

    def speak(self, text: str) -> tuple[Samples, int]:
        return self._usual.speak(text)

    def _model_for(self, language: str) -> PiperSpeaker | None:
        """Of the language and region; else of the language."""
        return self._models.get(language) or self._models.get(language.partition("-")[0])


def speaker_of(settings: Settings) -> Speaker:
    """Who speaks the texts of an installation."""
    rate = settings.speech_rate
    espeak = EspeakSpeaker(settings.speech_voice, rate, settings.language_voices)
    models = {
        language: PiperSpeaker(path, rate, program=settings.piper_program)
        for language, path in settings.piper_models.items()
    }
    return ByLanguage(espeak, models) if models else espeak


def _samples(wav: bytes) -> tuple[Samples, int]:
    import soundfile

    try:
        samples, rate = soundfile.read(io.BytesIO(wav), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as exc:
        raise PromptError("piper gave no sound", hint="try it by hand: echo hello | piper -m MODEL -f x.wav") from exc
    return samples.mean(axis=1), int(rate)
