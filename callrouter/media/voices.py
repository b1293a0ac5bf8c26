"""Who speaks the texts of an installation: espeak-ng, or piper in the languages that it has a voice for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from callrouter.media.piper import PiperSpeaker
from callrouter.media.prompts import PromptLibrary
from callrouter.media.speech import EspeakSpeaker, Speaker

if TYPE_CHECKING:
    from callrouter.config import Settings
    from callrouter.media.audio import Samples


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


def prompt_library(settings: Settings) -> PromptLibrary:
    """Where the prompts of an installation are found and made."""
    return PromptLibrary(settings.prompts_dir, speaker_of(settings))
