"""Finishing recordings, on synthesised legs: which channel is which, what a crash leaves, what a full disk does."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from callrouter.core.records import RecordingKind, RecordingRef, RecordingStatus
from callrouter.errors import InputError, ServiceError
from callrouter.media import encoding
from callrouter.media.raw_legs import RawLeg
from callrouter.media.recordings import relative_path, settled
from tests.recording_place import DAY, RATE, STARTED, Place, noise, sine, write_leg


def test_caller_is_left_and_business_is_right_bit_for_bit(place: Place) -> None:
    caller, business = sine(5), noise(5)
    done = place.finish(place.conversation(caller, business), expected=5.0)

    assert done.status is RecordingStatus.OK
    assert done.path == f"{DAY}/r1.flac"
    assert (done.format, done.seconds, done.problems, done.problem) == ("flac", 5.0, (), None)
    file = place.kept / done.path
    samples, rate = sf.read(file, dtype="int16")
    assert rate == RATE
    assert np.array_equal(samples[:, 0], np.round(caller * 32767).astype("int16"))
    assert np.array_equal(samples[:, 1], np.round(business * 32767).astype("int16"))
    assert done.size_bytes == file.stat().st_size
    assert done.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert done.left_dbfs == pytest.approx(20 * np.log10(0.3 / np.sqrt(2)), abs=0.2)
    assert done.right_dbfs == pytest.approx(20 * np.log10(0.05), abs=0.5)
    assert place.spooled() == []
    assert place.files() == [done.path]


def test_opus_keeps_channels_and_length(place: Place) -> None:
    done = place.finish(place.conversation(sine(6, 0.3, 500), sine(6, 0.1, 1500)), 6.0, "opus")

    assert (done.status, done.path, done.seconds) == (RecordingStatus.OK, f"{DAY}/r1.opus", 6.0)
    samples, rate = sf.read(place.kept / f"{DAY}/r1.opus")
    spectrum = np.abs(np.fft.rfft(samples, axis=0))
    hertz = np.fft.rfftfreq(len(samples), 1 / rate)
    assert hertz[spectrum[:, 0].argmax()] == pytest.approx(500, abs=2)
    assert hertz[spectrum[:, 1].argmax()] == pytest.approx(1500, abs=2)
    # Each channel holds less than a hundredth (−40 dB) of the other.
    at_500, at_1500 = np.abs(hertz - 500).argmin(), np.abs(hertz - 1500).argmin()
    assert spectrum[at_1500, 0] < spectrum[at_1500, 1] / 100
    assert spectrum[at_500, 1] < spectrum[at_500, 0] / 100
    assert place.spooled() == []


def test_voicemail_has_one_channel(place: Place) -> None:
    write_leg(place.spool / "v1.wav", sine(3))
    done = place.finish(RecordingRef("v1", RecordingKind.VOICEMAIL, None, STARTED))

    assert (done.status, done.seconds, done.right_dbfs) == (RecordingStatus.OK, 3.0, None)
    assert sf.info(place.kept / f"{DAY}/v1.flac").channels == 1
    assert place.spooled() == []


@pytest.mark.parametrize("fmt", ["flac", "opus"])
def test_finishing_twice_gives_the_same_facts(place: Place, fmt: str) -> None:
    ref = place.conversation(sine(3), None)
    first = place.finish(ref, 10.0, fmt)
    assert first.status is RecordingStatus.SUSPECT
    assert len(first.problems) == 2  # a missing leg, and the wrong duration
    assert place.finish(ref, 10.0, fmt) == first


def test_a_leg_left_by_a_crash_after_finishing_is_only_removed(place: Place) -> None:
    ref = place.conversation(sine(3), noise(3))
    first = place.finish(ref)
    place.conversation(None, noise(3))
    assert place.finish(ref) == first
    assert place.spooled() == []


def test_both_legs_left_by_a_crash_are_finished_again(place: Place) -> None:
    ref = place.conversation(sine(3), noise(3))
    first = place.finish(ref)
    place.conversation(sine(3), noise(3))
    assert place.finish(ref) == first
    assert place.spooled() == []


def test_another_format_set_meanwhile_does_not_lose_or_double_the_recording(place: Place) -> None:
    ref = place.conversation(sine(3), noise(3))
    first = place.finish(ref)
    assert place.finish(ref, fmt="opus") == first
    place.conversation(sine(3), noise(3))
    assert place.finish(ref, fmt="opus").path == f"{DAY}/r1.opus"
    assert place.files() == [f"{DAY}/r1.opus"]


def test_shorter_leg_is_padded_and_a_large_difference_is_said(place: Place) -> None:
    slightly = place.finish(place.conversation(sine(5), sine(4.5)))
    assert slightly.status is RecordingStatus.OK
    assert slightly.seconds == 5.0

    largely = place.finish(place.conversation(sine(5), sine(3), "r2"))
    assert largely.status is RecordingStatus.SUSPECT
    assert "differ in length by 2.0 s" in largely.problems[0]
    samples, _ = sf.read(place.kept / f"{DAY}/r2.flac", dtype="int16")
    assert len(samples) == 5 * RATE
    assert not samples[3 * RATE :, 1].any()


@pytest.mark.parametrize(
    "expected,suspect", [(10.0, False), (11.9, False), (8.1, False), (12.1, True), (7.9, True), (None, False)]
)
def test_duration_is_checked_against_talk_time(place: Place, expected: float | None, suspect: bool) -> None:
    done = place.finish(place.conversation(sine(10), noise(10)), expected)
    assert (done.status is RecordingStatus.SUSPECT) is suspect
    if suspect:
        assert done.problems == (f"it lasts 10.0 s, the conversation lasted {expected:.1f} s",)


def test_silent_channel_is_named(place: Place) -> None:
    done = place.finish(place.conversation(sine(5), noise(5, 0.0002)))
    assert done.status is RecordingStatus.SUSPECT
    assert done.problems == ("business (right): silent throughout (-74 dBFS)",)


def test_one_word_in_a_long_silence_is_no_silent_channel_and_its_level_is_the_words(place: Place) -> None:
    caller = np.zeros(300 * RATE)
    caller[100 * RATE : 101 * RATE] = sine(1)
    done = place.finish(place.conversation(caller, noise(300)))
    assert done.status is RecordingStatus.OK
    assert done.left_dbfs == pytest.approx(20 * np.log10(0.3 / np.sqrt(2)), abs=1)


def test_a_click_is_not_speech(place: Place) -> None:
    caller = np.zeros(5 * RATE)
    caller[:40] = 0.5
    done = place.finish(place.conversation(caller, noise(5)))
    assert "caller (left): silent throughout but for 0.02 s" in (done.problem or "")


@pytest.mark.parametrize(
    "declared,said",
    [
        (0, "header says 0.0 s; 4.0 s are there"),
        (RATE * 2, "header says 1.0 s; 4.0 s are there"),
        (RATE * 20, "cut short: 4.0 s of 10.0 s are there"),
        (0xFFFFFFDB, "cut short: 4.0 s of"),
    ],
)
def test_torn_header_is_mended_from_the_size(place: Place, declared: int, said: str) -> None:
    ref = place.conversation(None, noise(4))
    write_leg(place.spool / "r1-rx.wav", sine(4), declared)
    done = place.finish(ref, 4.0)
    assert done.status is RecordingStatus.SUSPECT
    assert len(done.problems) == 1
    assert done.problems[0].startswith("caller (left): ")
    assert said in done.problems[0]
    assert done.seconds == 4.0
    assert done.left_dbfs == pytest.approx(-13.5, abs=0.5)
    assert place.spooled() == []


def test_header_of_zeros_and_an_odd_last_byte_are_read(place: Place) -> None:
    ref = place.conversation(sine(4), noise(4))
    leg = place.spool / "r1-rx.wav"
    leg.write_bytes(bytes(44) + bytes(5000) + leg.read_bytes()[44 + 5000 :] + b"\x01")
    done = place.finish(ref)
    assert done.problems == ("caller (left): its header was never written; read as 8 kHz",)
    assert done.seconds == 4.0


def test_odd_sample_bytes_in_the_header_are_no_problem(place: Place) -> None:
    ref = place.conversation(sine(4), noise(4))
    leg = place.spool / "r1-rx.wav"
    leg.write_bytes(leg.read_bytes() + b"\0")  # Asterisk pads an odd length
    assert place.finish(ref).status is RecordingStatus.OK


def test_missing_leg_keeps_the_other(place: Place) -> None:
    done = place.finish(place.conversation(sine(4), None))
    assert done.status is RecordingStatus.SUSPECT
    assert done.problems == ("business (right): its file is missing, the channel is silent",)
    samples, _ = sf.read(place.kept / f"{DAY}/r1.flac")
    assert samples.shape == (4 * RATE, 2)
    assert samples[:, 0].any()
    assert place.spooled() == []


def test_empty_leg_keeps_the_other(place: Place) -> None:
    done = place.finish(place.conversation(sine(4), np.zeros(0)))
    assert done.problems == ("business (right): its file is empty, the channel is silent",)


def test_leg_that_is_no_wav_stays_in_the_spool(place: Place) -> None:
    ref = place.conversation(sine(4), None)
    (place.spool / "r1-tx.wav").write_bytes(b"not at all a WAV file, but longer than its header would be")
    done = place.finish(ref)
    assert "no WAV file" in (done.problem or "")
    assert done.seconds == 4.0
    assert "r1-tx.wav" in place.spooled()
    assert place.finish(ref) == done


def test_leg_that_cannot_be_opened_is_an_error_and_nothing_is_touched(place: Place) -> None:
    ref = place.conversation(sine(1), None)
    (place.spool / "r1-tx.wav").mkdir()
    with pytest.raises(ServiceError, match="cannot be read"):
        place.finish(ref)
    assert place.spooled() == ["r1-rx.wav", "r1-tx.wav"]
    assert place.files() == []


def test_nothing_there_is_missing_with_a_reason(place: Place) -> None:
    done = place.finish(RecordingRef("r1", RecordingKind.CONVERSATION, "leg", STARTED))
    assert (done.status, done.path, done.size_bytes) == (RecordingStatus.MISSING, None, 0)
    assert done.problem == f"no file was recorded: r1-rx.wav, r1-tx.wav not found in {place.spool}"
    assert place.files() == []


def test_both_legs_empty_are_missing(place: Place) -> None:
    done = place.finish(place.conversation(np.zeros(0), np.zeros(0)))
    assert done.status is RecordingStatus.MISSING
    assert done.problem == "the recording is empty: no audio arrived"


def test_damaged_finished_file_is_reported_and_kept(place: Place) -> None:
    ref = place.conversation(sine(4), noise(4))
    place.finish(ref)
    (place.kept / f"{DAY}/r1.flac").write_bytes(b"fLaC and nothing else")
    done = place.finish(ref)
    assert done.status is RecordingStatus.SUSPECT
    assert "damaged" in (done.problem or "")
    assert place.files() == [f"{DAY}/r1.flac"]


def test_missing_destination_leaves_the_raw_legs(place: Place) -> None:
    ref = place.conversation(sine(1), noise(1))
    place.kept.rmdir()
    with pytest.raises(ServiceError, match="is missing") as caught:
        place.finish(ref)
    assert "mounted" in (caught.value.hint or "")
    assert place.spooled() == ["r1-rx.wav", "r1-tx.wav"]
    assert not place.kept.exists()


@pytest.mark.parametrize("fmt", ["flac", "opus"])
def test_full_disk_leaves_raw_legs_whole_and_nothing_half_written(place: Place, fmt: str) -> None:
    ref = place.conversation(noise(20), noise(20))
    before = {path.name: path.read_bytes() for path in place.spool.iterdir()}
    # The kernel refuses to let any file grow beyond 20 kB.
    code = f"""
import resource, sys
from pathlib import Path
from callrouter.core.records import RecordingKind, RecordingRef
from callrouter.errors import ServiceError
from callrouter.media.recordings import finish
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
ref = RecordingRef("r1", RecordingKind.CONVERSATION, "leg", 0.0)
try:
    finish(Path({str(place.spool)!r}), ref, Path({str(place.kept)!r}), {fmt!r}, None, {STARTED})
except ServiceError as exc:
    print(exc.message)
    sys.exit(exc.exit_code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (3, "")
    assert "File too large" in done.stdout
    assert {path.name: path.read_bytes() for path in place.spool.iterdir()} == before
    assert place.files() == []
    assert place.finish(ref, fmt=fmt).path == f"{DAY}/r1.{fmt}"


def test_disk_that_does_not_keep_what_was_written_is_found_out(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = place.conversation(sine(2), noise(2))
    read_back = encoding.read_back

    def another_sample(path: Path) -> object:
        samples, rate = sf.read(path, dtype="int16")
        samples[1000, 1] ^= 1
        sf.write(path, samples, rate, format="FLAC")
        return read_back(path)

    monkeypatch.setattr(encoding, "read_back", another_sample)
    with pytest.raises(ServiceError, match="differs from what was written"):
        place.finish(ref)
    assert place.spooled() == ["r1-rx.wav", "r1-tx.wav"]
    assert place.files() == []


def test_interrupt_leaves_nothing_half_written(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(fd: int) -> None:
        raise KeyboardInterrupt

    ref = place.conversation(sine(2), noise(2))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            place.finish(ref)
    assert place.files() == []
    assert place.finish(ref).status is RecordingStatus.OK


def test_half_written_file_of_a_killed_process_is_swept(place: Place) -> None:
    ref = place.conversation(sine(2), noise(2))
    old = place.kept / DAY / ".r1.abc.part"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    place.finish(ref)
    assert place.files() == [f"{DAY}/r1.flac"]


def test_date_is_utc_and_odd_ids_and_formats_are_refused() -> None:
    assert relative_path("a", 1_795_305_599.0, "flac") == "2026/11/21/a.flac"
    assert relative_path("a", 1_795_305_600.0, "opus") == "2026/11/22/a.opus"
    for name in ("", "../a", "a/b", ".a", "a\n"):
        with pytest.raises(InputError):
            relative_path(name, 0.0, "flac")
    with pytest.raises(InputError):
        relative_path("a", 0.0, "mp3")


def test_legs_are_settled_when_closed_or_long_quiet(place: Place) -> None:
    ref = place.conversation(sine(1), noise(1))
    now = (place.spool / "r1-tx.wav").stat().st_mtime
    assert settled(place.spool, ref, now)
    write_leg(place.spool / "r1-tx.wav", noise(1), declared=0)
    now = (place.spool / "r1-tx.wav").stat().st_mtime
    assert not settled(place.spool, ref, now + 1)
    assert settled(place.spool, ref, now + 61)
    (place.spool / "r1-rx.wav").unlink()
    (place.spool / "r1-tx.wav").unlink()
    assert settled(place.spool, ref, now)


def test_raw_leg_skips_chunks_it_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    sf.write(path, sine(1), 16000, subtype="PCM_16")
    data = path.read_bytes()
    path.write_bytes(data[:36] + b"junk" + struct.pack("<I", 3) + b"abc\0" + data[36:])
    leg = RawLeg.open(path)
    assert leg is not None
    with leg:
        assert (leg.rate, leg.frames, leg.notes, leg.closed_properly) == (16000, RATE, [], True)
        assert len(leg.read(10**6)) == RATE
