"""The prompt library: every prompt once as µ-law and once as A-law, under the hash of what it says.

Asterisk is given a path without extension and takes the file in the call's own codec, so that nothing is transcoded.

    home/prompts/<hash>.ulaw, <hash>.alaw     what is played
    home/prompts/originals/<sha256>           uploads as they came
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
import unicodedata
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from callrouter.core.flow import text as placeholders
from callrouter.core.flow.nodes import Prompt
from callrouter.errors import CallrouterError, InputError, PromptError
from callrouter.files import PART_SUFFIX, replace_file

if TYPE_CHECKING:  # numpy, soundfile and soxr take a quarter of a second to load, and looking a prompt up needs none
    from callrouter.media.audio import Samples
    from callrouter.media.speech import Speaker

MAX_TEXT = 1000
"""Characters; about 80 seconds of speech."""
RENDERER = "1"
"""Part of a spoken prompt's name; raise it when trimming or levels change."""
SUFFIXES = (".alaw", ".ulaw")
"""In the order they are put in place: the last one completes the pair."""

_NUMBER = re.compile(r"\+?\d{7,15}")
_E164 = re.compile(r"\+\d{7,15}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Upload(NamedTuple):
    sha256: str
    """Of the file as it came; its name in the library."""
    seconds: float


@dataclass(frozen=True, slots=True)
class RenderReport:
    """What one round of rendering did."""

    rendered: int = 0
    existing: int = 0
    failed: tuple[tuple[str, Prompt, str], ...] = ()
    """(company id, prompt, reason)."""

    @property
    def ok(self) -> bool:
        return not self.failed


def spoken_digits(number: str) -> str:
    """A telephone number as it is read out: digit by digit, with pauses ("1, 2 0 2, 5 5 5, 0 1 2 3")."""
    digits = [char for char in number if char.isdigit()]
    groups = [digits[-4:]]
    rest = digits[:-4]
    while rest:
        groups.insert(0, rest[-3:])
        rest = rest[:-3]
    return ", ".join(" ".join(group) for group in groups)


def fill(text: str, values: Mapping[str, str]) -> str:
    """Put values in the place of {campaign}, {number} … (``core.flow.text``); telephone numbers digit by digit.

    ``{{`` and ``}}`` are literal braces. A known placeholder without a value is read as "unknown".

    :raises PromptError: an unknown placeholder or a lone brace
    """
    known = dict.fromkeys(placeholders.PLACEHOLDERS, "unknown") | {
        name: value for name, value in values.items() if value
    }
    spoken = {name: spoken_digits(value) if _NUMBER.fullmatch(value) else value for name, value in known.items()}
    try:
        return placeholders.fill(text, spoken)
    except InputError as exc:
        raise PromptError(exc.message, hint=exc.hint) from exc


def spoken_form(text: str) -> str:
    """A text as it goes to the speaker: one line, composed Unicode, E.164 numbers digit by digit.

    :raises PromptError: empty, without a letter or digit, or longer than ``MAX_TEXT`` characters
    """
    plain = "".join(" " if unicodedata.category(char) in ("Cc", "Zl", "Zp") else char for char in text)
    plain = " ".join(unicodedata.normalize("NFC", plain).split())
    if not any(char.isalnum() for char in plain):
        raise PromptError("a prompt's text is empty: there is nothing to say")
    if len(plain) > MAX_TEXT:
        raise PromptError(
            f"a prompt's text has {len(plain)} characters; at most {MAX_TEXT} are spoken", hint="split it into several"
        )
    try:
        plain.encode()
    except UnicodeEncodeError as exc:
        raise PromptError("a prompt's text holds a character that is no Unicode (a lone surrogate)") from exc
    return _E164.sub(lambda match: spoken_digits(match[0]), plain)


class PromptLibrary:
    """Prompts by content hash.

    :param directory: ``Settings.prompts_dir``; created when something is first put there
    :param speaker: speaks the texts
    :param uploads: (company id, prompt name) → SHA-256 of the uploaded file. Replace the attribute ``uploads`` whole
        when the configuration changes.
    """

    def __init__(self, directory: Path, speaker: Speaker, uploads: Mapping[tuple[str, str], str] | None = None) -> None:
        self.directory = directory.absolute()
        self.uploads: Mapping[tuple[str, str], str] = uploads or {}
        self._speaker = speaker

    # -- looking up --------------------------------------------------------------------------------------------------

    def path_for(self, prompt: Prompt, company_id: str | None = None) -> Path | None:
        """What Asterisk is to play, without extension; None when it is not rendered. Costs two ``stat`` calls."""
        try:
            path = self.directory / self._key(prompt, company_id)
        except PromptError:
            return None
        return path if _complete(path) else None

    def _key(self, prompt: Prompt, company_id: str | None) -> str:
        if prompt.file is None:
            return _digest("text", RENDERER, self._voice(prompt).name, spoken_form(prompt.text or ""))
        return self._upload_key(self._upload_sha(prompt.file, company_id))

    def _upload_sha(self, name: str, company_id: str | None) -> str:
        sha256 = self.uploads.get((company_id or "", name))
        if sha256 is None:
            raise PromptError(f"there is no uploaded prompt {name!r}")
        return sha256

    @staticmethod
    def _upload_key(sha256: str) -> str:
        from callrouter.media.uploads import CONVERTER

        return _digest("upload", CONVERTER, sha256)

    # -- making ------------------------------------------------------------------------------------------------------

    async def render(self, wanted: Iterable[tuple[str | None, Prompt]]) -> RenderReport:
        """Make what is missing, off the event loop. See ``render_missing``."""
        return await asyncio.to_thread(self.render_missing, list(wanted))

    def render_missing(self, wanted: Iterable[tuple[str | None, Prompt]]) -> RenderReport:
        """Make every (company id, prompt) that does not exist yet; a second run does nothing.

        One bad prompt does not keep the others from being made. Several processes may do this at once: files appear
        whole, by renaming, and what two of them make is the same.
        """
        rendered, existing = 0, 0
        failed: list[tuple[str, Prompt, str]] = []
        self._sweep()
        for company_id, prompt in dict.fromkeys(wanted):
            try:
                path = self.directory / self._key(prompt, company_id)
                if _complete(path):
                    existing += 1
                    continue
                self._put(
                    path,
                    self._speak(prompt) if prompt.file is None else self._original(prompt.file, company_id),
                )
                rendered += 1
            except CallrouterError as exc:
                failed.append((company_id or "", prompt, exc.message))
            except OSError as exc:
                failed.append((company_id or "", prompt, f"{self.directory}: {exc.strerror or exc}"))
        return RenderReport(rendered, existing, tuple(failed))

    async def add_upload(self, source: Path | bytes) -> Upload:
        """Take a sound file into the library, off the event loop. See ``take_upload``."""
        return await asyncio.to_thread(self.take_upload, source)

    def take_upload(self, source: Path | bytes, what: str = "the upload") -> Upload:
        """Keep a sound file and convert it once.

        :param what: what bytes are called in an error
        :raises PromptError: no audio, damaged, silent, too long; says what the file seems to be
        """
        from callrouter.media import uploads
        from callrouter.media.audio import TELEPHONE_RATE

        name = what if isinstance(source, bytes) else source.name
        data = source if isinstance(source, bytes) else uploads.read_upload(source)
        samples = uploads.decode(data, name)
        sha256 = hashlib.sha256(data).hexdigest()
        original = self._original_path(sha256)
        path = self.directory / self._upload_key(sha256)
        try:
            if not original.exists():
                self._write(original, data)
            if not _complete(path):
                self._put(path, samples)
        except OSError as exc:
            raise PromptError(f"{name} cannot be kept in {self.directory}: {exc.strerror or exc}") from exc
        return Upload(sha256, len(samples) / TELEPHONE_RATE)

    def _voice(self, prompt: Prompt) -> Speaker:
        """Who speaks a text: of its language, where it has one.

        :raises PromptError: there is nobody for that language
        """
        return self._speaker.in_language(prompt.language) if prompt.language else self._speaker

    def _speak(self, prompt: Prompt) -> Samples:
        from callrouter.media.audio import normalise, resample, trim_silence

        speaker = self._voice(prompt)
        samples, rate = speaker.speak(spoken_form(prompt.text or ""))
        trimmed = trim_silence(samples, rate)
        if not trimmed.size:
            raise PromptError(f"{prompt.text!r} gives no sound with {speaker.name}")
        return normalise(resample(trimmed, rate), 8000)

    def _original(self, name: str, company_id: str | None) -> Samples:
        from callrouter.media import uploads

        path = self._original_path(self._upload_sha(name, company_id))
        if not path.exists():
            raise PromptError(
                f"the uploaded file of prompt {name!r} is gone from {path.parent}", hint="upload it again"
            )
        return uploads.decode(uploads.read_upload(path), name)

    def _original_path(self, sha256: str) -> Path:
        if not _SHA256.fullmatch(sha256):
            raise PromptError(f"{sha256!r} is no SHA-256")
        return self.directory / "originals" / sha256

    # -- files -------------------------------------------------------------------------------------------------------

    def _put(self, path: Path, samples: Samples) -> None:
        from callrouter.media.audio import encode_g711

        ulaw, alaw = encode_g711(samples)
        for suffix, data in zip(SUFFIXES, (alaw, ulaw), strict=True):
            self._write(path.with_name(path.name + suffix), data)

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data, mode=0o644)  # readable by Asterisk, which may run as another user

    def _sweep(self) -> None:
        """Remove what a killed process left half-written more than an hour ago."""
        for directory in (self.directory, self.directory / "originals"):
            for part in directory.glob(f".*{PART_SUFFIX}"):
                with suppress(OSError):
                    if part.stat().st_mtime < time.time() - 3600:
                        part.unlink()


def _complete(path: Path) -> bool:
    return all(path.with_name(path.name + suffix).exists() for suffix in SUFFIXES)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]
