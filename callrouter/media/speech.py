"""Text to speech. A speaker turns one text into samples; what telephones need of them is done in ``prompts``."""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from callrouter.errors import PromptError

if TYPE_CHECKING:  # numpy takes long to load, and a server whose prompts are all there needs none
    from callrouter.media.audio import Samples

VOICE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+/-]*")


class Speaker(Protocol):
    """A text-to-speech engine with its voice chosen."""

    @property
    def name(self) -> str:
        """Engine, voice and rate: whatever changes the sound changes the name, for prompts are cached by it."""
        ...

    def in_language(self, language: str) -> Speaker:
        """The one for a language ("es", "pt-br").

        :raises PromptError: it is no language that could be spoken
        """
        ...

    def speak(self, text: str) -> tuple[Samples, int]:
        """Samples (mono) and their rate in hertz. Blocks; never call it on the event loop.

        :raises PromptError: the engine is absent, does not know the voice, or failed
        """
        ...


class EspeakSpeaker:
    """espeak-ng, as a process of its own for each text.

    :param voice: as ``espeak-ng --voices`` lists them: "en-us", "de", "en-gb+f3"
    :param rate: words per minute
    :param voices: the voice for a language, like {"es": "es-419"}; for one that is not among them it is ``voice``,
        where that is of the language, else the voice that has the language's name
    :param timeout: seconds; a text of 1000 characters takes well under one
    """

    def __init__(
        self,
        voice: str = "en-us",
        rate: int = 150,
        voices: Mapping[str, str] = MappingProxyType({}),
        *,
        program: str = "espeak-ng",
        timeout: float = 20.0,
    ) -> None:
        if not VOICE_NAME.fullmatch(voice):
            raise PromptError(f"{voice!r} is no espeak-ng voice", hint="espeak-ng --voices lists them")
        self.voice = voice
        self.rate = rate
        self._voices = voices
        self._program = program
        self._timeout = timeout

    @property
    def name(self) -> str:
        return f"espeak-ng/{self.voice}/{self.rate}"

    def in_language(self, language: str) -> EspeakSpeaker:
        """:raises PromptError: it is no name that a voice could have"""
        own = self.voice.lower()
        usual = self.voice if own == language or own.startswith(f"{language}-") else language
        voice = self._voices.get(language, usual)
        return EspeakSpeaker(voice, self.rate, self._voices, program=self._program, timeout=self._timeout)

    def speak(self, text: str) -> tuple[Samples, int]:
        # The text goes in on standard input: as an argument, one that begins with "-" would be an option.
        command = [self._program, "-v", self.voice, "-s", str(self.rate), "-b", "1", "--stdin", "--stdout"]
        # "[[" would switch espeak-ng to phoneme codes.
        spoken = text.replace("[[", "[ [")
        hint = "./dev setup installs it; or: apt-get install espeak-ng"
        done = run_engine("espeak-ng", command, spoken, self._timeout, hint)
        if b"voice does not exist" in done.stderr:
            raise PromptError(f"espeak-ng has no voice {self.voice!r}", hint="espeak-ng --voices lists them")
        return _samples(sound_of("espeak-ng", done))


def run_engine(
    name: str, command: Sequence[str], text: str, timeout: float, hint: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a program that reads a text and writes a sound.

    :param timeout: seconds
    :param hint: what to do when it is not installed
    :raises PromptError: it cannot be run, or did not finish in time
    """
    try:
        return subprocess.run(  # noqa: PLW1510 - the return code is looked at in sound_of
            command, input=text.encode(), capture_output=True, timeout=timeout
        )
    except FileNotFoundError as exc:
        raise PromptError(f"{command[0]} is not installed, so text cannot be spoken", hint=hint) from exc
    except OSError as exc:
        raise PromptError(f"{command[0]} cannot be run: {exc.strerror or exc}") from exc
    except subprocess.TimeoutExpired as exc:
        raise PromptError(f"{name} did not finish within {timeout:g} s") from exc


def sound_of(name: str, done: subprocess.CompletedProcess[bytes]) -> bytes:
    """What such a program wrote.

    :raises PromptError: it failed
    """
    if done.returncode:
        complaint = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise PromptError(f"{name} failed with code {done.returncode}: {complaint or 'no message'}")
    return done.stdout


def _samples(wav: bytes) -> tuple[Samples, int]:
    """The samples of espeak-ng's WAV, whose header is written before the length is known and so lies about it."""
    import numpy as np

    start = wav.find(b"data", 12)
    if wav[:4] != b"RIFF" or wav[8:16] != b"WAVEfmt " or start < 0:
        raise PromptError("espeak-ng gave no sound", hint="try it by hand: echo hello | espeak-ng --stdin --stdout")
    channels, rate = struct.unpack_from("<HI", wav, 22)
    bits = struct.unpack_from("<H", wav, 34)[0]
    if (channels, bits) != (1, 16):
        raise PromptError(f"espeak-ng gave {channels} channels of {bits} bits; one of 16 was expected")
    body = wav[start + 8 :]
    return np.frombuffer(body[: len(body) // 2 * 2], "<i2").astype(np.float32) / np.float32(32768), int(rate)
