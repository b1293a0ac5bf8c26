"""The prompt library with a speaker that makes tones, and uploads of every kind, good and bad."""

from __future__ import annotations

import asyncio
import io
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from callrouter.core.flow.nodes import Prompt
from callrouter.core.flow.text import PLACEHOLDERS
from callrouter.errors import PromptError
from callrouter.media import prompts as prompts_module
from callrouter.media.audio import LevelMeter, encode_g711, level, trim_silence
from callrouter.media.prompts import MAX_TEXT, PromptLibrary, RenderReport, fill, spoken_digits, spoken_form
from callrouter.media.speech import EspeakSpeaker
from callrouter.media.uploads import decode, join, seems_to_be

ACME = "company-1"


class ToneSpeaker:
    """Speaks a tone whose pitch is the text's length, with silence around it."""

    def __init__(self, name: str = "tone") -> None:
        self.name = name
        self.spoken: list[str] = []

    def in_language(self, language: str) -> ToneSpeaker:
        other = ToneSpeaker(f"{self.name}/{language}")
        other.spoken = self.spoken
        return other

    def speak(self, text: str) -> tuple[np.ndarray, int]:
        self.spoken.append(text)
        if "unspeakable" in text:
            raise PromptError("the tone is broken")
        tone = 0.05 * np.sin(2 * np.pi * (300 + len(text)) * np.arange(22050) / 22050)
        return np.concatenate((np.zeros(11025), tone, np.zeros(22050))).astype(np.float32), 22050


def sound(
    seconds: float = 1.0, rate: int = 44100, channels: int = 2, fmt: str = "WAV", subtype: str | None = None
) -> bytes:
    tone = 0.5 * np.sin(2 * np.pi * 700 * np.arange(round(seconds * rate)) / rate)
    out = io.BytesIO()
    sf.write(out, np.stack([tone] * channels, axis=1), rate, format=fmt, subtype=subtype)
    return out.getvalue()


def play(path: Path, suffix: str) -> np.ndarray:
    subtype = {".ulaw": "ULAW", ".alaw": "ALAW"}[suffix]
    samples, _ = sf.read(path.with_name(path.name + suffix), samplerate=8000, channels=1, format="RAW", subtype=subtype)
    return np.asarray(samples)


def pitch(samples: np.ndarray, rate: int = 8000) -> float:
    return float(np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples))


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*") if path.is_file())


@pytest.fixture
def speaker() -> ToneSpeaker:
    return ToneSpeaker()


@pytest.fixture
def library(tmp_path: Path, speaker: ToneSpeaker) -> PromptLibrary:
    return PromptLibrary(tmp_path / "prompts", speaker)


def test_a_language_has_a_voice_of_its_own(library: PromptLibrary, speaker: ToneSpeaker) -> None:
    spanish, plain = Prompt("Hola", language="es"), Prompt("Hola")
    report = library.render_missing([(None, spanish), (None, plain)])
    assert (report.rendered, speaker.spoken) == (2, ["Hola", "Hola"])
    paths = {library.path_for(each) for each in (spanish, plain, Prompt("Hola", language="pt"))}
    assert len(paths) == 3
    assert None in paths  # nobody asked for that one


@pytest.mark.parametrize(
    "voice, voices, language, spoken_by",
    [
        ("en-us", {}, "en", "en-us"),
        ("en-us", {}, "es", "es"),
        ("en-us", {}, "en-gb", "en-gb"),
        ("en-us", {"es": "es-419"}, "es", "es-419"),
        ("en-us", {"en": "en-gb-x-rp"}, "en", "en-gb-x-rp"),
        ("de", {}, "de", "de"),
        ("de", {}, "da", "da"),
    ],
)
def test_the_voice_for_a_language(voice: str, voices: dict[str, str], language: str, spoken_by: str) -> None:
    found = EspeakSpeaker(voice, 160, voices).in_language(language)
    assert (found.voice, found.rate) == (spoken_by, 160)


async def test_text_is_spoken_once_into_both_codecs(library: PromptLibrary, speaker: ToneSpeaker) -> None:
    prompt = Prompt(text="Welcome to Acme.")
    assert library.path_for(prompt) is None

    assert await library.render([(ACME, prompt), (None, Prompt(text="Goodbye."))]) == RenderReport(rendered=2)
    path = library.path_for(prompt)
    assert path is not None
    assert path.is_absolute()
    assert path.suffix == ""
    for suffix in (".ulaw", ".alaw"):
        samples = play(path, suffix)
        assert pitch(samples) == pytest.approx(316, abs=2)
        assert len(samples) / 8000 == pytest.approx(1.2, abs=0.03)  # silence cut to a tenth of a second at both ends
        assert level(samples[1600:8000]) == pytest.approx(-20, abs=0.5)
    assert os.access(path.with_name(path.name + ".ulaw"), os.R_OK)
    assert path.with_name(path.name + ".ulaw").stat().st_mode & 0o777 == 0o644

    assert await library.render([(ACME, prompt), (None, Prompt(text="Goodbye."))]) == RenderReport(existing=2)
    assert len(speaker.spoken) == 2
    assert len(names(library.directory)) == 4


def test_voice_and_text_make_the_name(tmp_path: Path, library: PromptLibrary) -> None:
    other = PromptLibrary(library.directory, ToneSpeaker("another"))
    library.render_missing([(None, Prompt(text="Hello  there\n"))])
    assert library.path_for(Prompt(text=" Hello there")) is not None
    assert library.path_for(Prompt(text="Hello thera")) is None
    assert other.path_for(Prompt(text="Hello there")) is None


def test_half_a_pair_is_no_prompt_and_is_made_again(library: PromptLibrary) -> None:
    prompt = Prompt(text="Hello")
    library.render_missing([(None, prompt)])
    path = library.path_for(prompt)
    assert path is not None
    path.with_name(path.name + ".alaw").unlink()
    assert library.path_for(prompt) is None
    assert library.render_missing([(None, prompt)]) == RenderReport(rendered=1)
    assert library.path_for(prompt) == path


def test_one_bad_prompt_does_not_stop_the_others(library: PromptLibrary) -> None:
    bad, empty, absent = Prompt(text="unspeakable"), Prompt(text=" … "), Prompt(file="holiday")
    report = library.render_missing([(ACME, bad), (ACME, empty), (ACME, absent), (ACME, Prompt(text="fine"))])
    assert report.rendered == 1
    assert not report.ok
    assert [(who, prompt) for who, prompt, _ in report.failed] == [(ACME, bad), (ACME, empty), (ACME, absent)]
    reasons = [why for _, _, why in report.failed]
    assert reasons[0] == "the tone is broken"
    assert "nothing to say" in reasons[1]
    assert "no uploaded prompt 'holiday'" in reasons[2]
    assert library.path_for(absent, ACME) is None
    assert library.path_for(empty) is None


def test_directory_that_cannot_be_written_is_a_failure_of_the_prompt(tmp_path: Path, speaker: ToneSpeaker) -> None:
    (tmp_path / "file").write_text("")
    report = PromptLibrary(tmp_path / "file" / "prompts", speaker).render_missing([(None, Prompt(text="hi"))])
    assert "Not a directory" in report.failed[0][2]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_interrupt_or_full_disk_leaves_nothing_half_written(
    library: PromptLibrary, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fails(fd: int) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        if isinstance(error, OSError):
            report = library.render_missing([(None, Prompt(text="hi"))])
            assert "No space left on device" in report.failed[0][2]
        else:
            with pytest.raises(KeyboardInterrupt):
                library.render_missing([(None, Prompt(text="hi"))])
    assert names(library.directory) == []
    assert library.render_missing([(None, Prompt(text="hi"))]).ok


def test_left_over_parts_of_killed_processes_are_swept(library: PromptLibrary) -> None:
    library.directory.mkdir()
    old, fresh = library.directory / ".a.part", library.directory / ".b.part"
    for part in (old, fresh):
        part.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    library.render_missing([])
    assert names(library.directory) == [".b.part"]


def _render_in_process(directory: str, wanted: list[str]) -> bool:
    library = PromptLibrary(Path(directory), ToneSpeaker())
    return library.render_missing([(None, Prompt(text=text)) for text in wanted]).ok


def test_processes_render_the_same_prompts_at_once(library: PromptLibrary) -> None:
    wanted = [f"text {at}" for at in range(20)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.starmap(_render_in_process, [(str(library.directory), wanted)] * 2) == [True, True]
    assert all(library.path_for(Prompt(text=text)) for text in wanted)
    assert len(names(library.directory)) == 40


async def test_render_does_not_block_the_event_loop(library: PromptLibrary, speaker: ToneSpeaker) -> None:
    loop_ran = asyncio.Event()
    loop = asyncio.get_running_loop()
    speak = speaker.speak

    def waits_for_the_loop(text: str) -> tuple[np.ndarray, int]:
        asyncio.run_coroutine_threadsafe(_set(loop_ran), loop).result(timeout=10)
        return speak(text)

    speaker.speak = waits_for_the_loop  # type: ignore[method-assign]
    assert (await library.render([(None, Prompt(text="hi"))])).ok
    assert loop_ran.is_set()


async def _set(event: asyncio.Event) -> None:
    event.set()


# -- texts ------------------------------------------------------------------------------------------------------------


def test_placeholders_are_filled_and_numbers_are_read_digit_by_digit() -> None:
    values = {"campaign": "Spring radio", "number": "+12025550123", "company": ""}
    assert fill("Call from {campaign}", values) == "Call from Spring radio"
    assert fill("{number}", values) == "1, 2 0 2, 5 5 5, 0 1 2 3"
    assert fill("{{{campaign}}} of {company}", values) == "{Spring radio} of unknown"


@pytest.mark.parametrize("text", ["{what}", "{", "}", "{campaign", "{}", "{0}", "{campaign.__class__}"])
def test_unknown_placeholders_and_lone_braces_are_refused(text: str) -> None:
    with pytest.raises(PromptError) as caught:
        fill(text, {"campaign": "x"})
    for name in PLACEHOLDERS:
        assert f"{{{name}}}" in (caught.value.hint or "")


def test_spoken_form_is_one_line_with_numbers_as_digits() -> None:
    assert spoken_form("Call\n\t us on\x00 +4930123456!") == "Call us on 4 9 3, 0 1 2, 3 4 5 6!"
    assert spoken_digits("+4930123456") == "4 9 3, 0 1 2, 3 4 5 6"
    assert spoken_digits("911") == "9 1 1"
    assert spoken_form("Zoe\u0308") == "Zoë"
    assert len(spoken_form("x" * MAX_TEXT)) == MAX_TEXT


@pytest.mark.parametrize("text", ["", "  \n", "...", "\u200b", "x" * (MAX_TEXT + 1), "a\ud800"])
def test_texts_that_cannot_be_spoken_are_refused(text: str) -> None:
    with pytest.raises(PromptError):
        spoken_form(text)


# -- uploads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fmt,subtype", [("WAV", None), ("FLAC", None), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None), ("AIFF", None)]
)
async def test_upload_is_converted_once(library: PromptLibrary, fmt: str, subtype: str | None) -> None:
    rate = 48000
    data = sound(2.0, rate, 2, fmt, subtype)
    upload = await library.add_upload(data)
    assert upload.seconds == pytest.approx(2.0, abs=0.1)
    library.uploads = {(ACME, "greeting"): upload.sha256}
    path = library.path_for(Prompt(file="greeting"), ACME)
    assert path is not None
    assert library.path_for(Prompt(file="greeting"), "another company") is None
    for suffix in (".ulaw", ".alaw"):
        samples = play(path, suffix)
        assert pitch(samples) == pytest.approx(700, abs=3)
        assert level(samples[2000:-2000]) == pytest.approx(-9, abs=0.7)
    before = names(library.directory)
    assert await library.add_upload(data) == upload
    assert names(library.directory) == before
    assert library.render_missing([(ACME, Prompt(file="greeting"))]) == RenderReport(existing=1)


async def test_upload_is_converted_anew_from_its_original(library: PromptLibrary, tmp_path: Path) -> None:
    file = tmp_path / "hold on.wav"
    file.write_bytes(sound())
    upload = await library.add_upload(file)
    library.uploads = {(ACME, "hold"): upload.sha256}
    for converted in library.directory.glob("*.?law"):
        converted.unlink()
    assert library.path_for(Prompt(file="hold"), ACME) is None
    assert library.render_missing([(ACME, Prompt(file="hold"))]) == RenderReport(rendered=1)
    assert library.path_for(Prompt(file="hold"), ACME) is not None
    (library.directory / "originals" / upload.sha256).unlink()
    library.directory.joinpath(next(library.directory.glob("*.ulaw"))).unlink()
    assert "is gone" in library.render_missing([(ACME, Prompt(file="hold"))]).failed[0][2]


@pytest.mark.parametrize(
    "data,said",
    [
        (b"", "an empty file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "a PNG picture"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "a JPEG picture"),
        (b"%PDF-1.7\n" + bytes(100), "a PDF document"),
        (b"PK\x03\x04" + bytes(100), "a ZIP archive or an office document"),
        (b"<!DOCTYPE html><html>", "an HTML or XML page"),
        ("Grüße aus München".encode() * 60, "a text file"),
        (b"#EXTM3U\nfile:///etc/passwd\n", "a text file"),
        (bytes(range(256)) * 4, "no sound format we know"),
    ],
)
def test_what_is_no_audio_is_named(library: PromptLibrary, data: bytes, said: str) -> None:
    with pytest.raises(PromptError) as caught:
        library.take_upload(data)
    assert caught.value.message == f"the upload is {said}, not audio"
    assert "accepted: WAV" in (caught.value.hint or "")
    assert not library.directory.exists()


@pytest.mark.parametrize(
    "data,said",
    [
        (sound()[:30], "seems to be a WAV file but cannot be read"),
        (b"OggS" + bytes(200), "seems to be an Ogg file but cannot be read"),
        (b"ID3\x04\0\0\0\0\0\0" + bytes(3000), "MP3 file but cannot be read"),
        (sound(601, 8000, 1), "longer than 10 minutes"),
        (sound(0.2, 8000, 9), "9 channels"),
    ],
)
def test_damaged_or_excessive_audio_is_refused(library: PromptLibrary, data: bytes, said: str) -> None:
    with pytest.raises(PromptError, match=said):
        library.take_upload(data)


def test_silence_is_refused(library: PromptLibrary) -> None:
    out = io.BytesIO()
    sf.write(out, np.zeros(8000), 8000, format="WAV")
    with pytest.raises(PromptError, match=r"silent throughout \(1.0 s\)"):
        library.take_upload(out.getvalue())


def test_absent_file_and_directory_are_refused(library: PromptLibrary, tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="No such file"):
        library.take_upload(tmp_path / "none.wav")
    with pytest.raises(PromptError, match="Is a directory"):
        library.take_upload(tmp_path)


def test_ffmpeg_formats_name_ffmpeg_when_it_is_absent(library: PromptLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(PromptError, match="is an MP4 or M4A file, which needs ffmpeg") as caught:
        library.take_upload(b"\0\0\0\x20ftypM4A " + bytes(100))
    assert "apt-get install ffmpeg" in (caught.value.hint or "")


def test_channels_in_opposite_phase_do_not_cancel_out() -> None:
    tone = 0.3 * np.sin(2 * np.pi * 700 * np.arange(8000) / 8000)
    out = io.BytesIO()
    sf.write(out, np.stack([tone, -tone], axis=1), 8000, format="WAV")
    assert level(decode(out.getvalue())) == pytest.approx(-13.5, abs=0.5)


def test_resampling_leaves_no_alias() -> None:
    # 6 kHz would come back as 2 kHz if every sixth sample were simply taken.
    high = 0.5 * np.sin(2 * np.pi * 6000 * np.arange(48000) / 48000)
    low = 0.05 * np.sin(2 * np.pi * 700 * np.arange(48000) / 48000)
    out = io.BytesIO()
    sf.write(out, high + low, 48000, format="WAV", subtype="FLOAT")
    spectrum = np.abs(np.fft.rfft(decode(out.getvalue())[:8000]))
    assert spectrum[2000] < spectrum[700] / 300


def test_clips_are_joined_with_a_pause(library: PromptLibrary, tmp_path: Path) -> None:
    first = tmp_path / "a.mp3"
    first.write_bytes(sound(1.0, 44100, 2, "MP3"))
    joined = join([first, sound(0.5, 8000, 1)], gap_seconds=0.5)
    samples, rate = sf.read(io.BytesIO(joined))
    assert (rate, samples.ndim) == (8000, 1)
    assert len(samples) / rate == pytest.approx(2.0, abs=0.1)
    pause = samples[len(samples) - 8000 + 400 : len(samples) - 4000 - 400]
    assert level(pause) < -60
    assert library.take_upload(joined).seconds == pytest.approx(2.0, abs=0.1)
    with pytest.raises(PromptError, match="piece 2 is a text file"):
        join([sound(0.1), b"hello"])
    with pytest.raises(PromptError, match="nothing to join"):
        join([])


def test_mp3_frames_without_a_tag_are_recognised() -> None:
    assert seems_to_be(b"\xff\xfb\x90\x64" + bytes(20)) == ("an MP3 file", "sndfile")
    assert seems_to_be(b"\xff\xf1\x50\x80" + bytes(20)) == ("an AAC file", "ffmpeg")


# -- signals ----------------------------------------------------------------------------------------------------------


def test_g711_is_one_byte_a_sample_with_the_standards_silence() -> None:
    ulaw, alaw = encode_g711(np.zeros(160, np.float32))
    assert (ulaw, alaw) == (b"\xff" * 160, b"\xd5" * 160)


def test_level_of_speech_does_not_depend_on_its_pauses() -> None:
    rng = np.random.default_rng(1)
    burst, pause = 0.1 * rng.standard_normal(16000), 0.0003 * rng.standard_normal(64000)
    sparse, dense = LevelMeter(8000), LevelMeter(8000)
    for at in range(0, 16000, 333):
        dense.add(burst[at : at + 333])
    for _ in range(3):
        sparse.add(np.concatenate((burst, pause)))
    assert dense.active == pytest.approx(-20, abs=0.3)
    assert sparse.active == pytest.approx(-20, abs=0.3)
    assert not sparse.silent
    assert LevelMeter(8000).silent


def test_trimming_silence_gives_nothing_for_silence() -> None:
    assert trim_silence(np.zeros(8000, np.float32), 8000).size == 0
    assert trim_silence(np.zeros(0, np.float32), 8000).size == 0


def test_looking_up_loads_no_audio_library() -> None:
    heavy = ("numpy", "soundfile", "soxr", "pydub")
    code = f"import sys, {prompts_module.__name__}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
