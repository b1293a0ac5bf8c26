"""What a crash leaves of a raw leg: cut at any byte, with a header that says anything."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from callrouter.core.records import RecordingKind, RecordingRef, RecordingStatus
from callrouter.media.gaps import Gap
from callrouter.media.raw_legs import RawLeg
from tests.recording_place import RATE, STARTED, Place, noise, sine, write_leg

HEADER = 44
SAMPLES = 2000
WHOLE = HEADER + 2 * SAMPLES
PCM = np.round(noise(SAMPLES / RATE) * 32767).astype("int16")


def leg_bytes(folder: Path, declared: int | None) -> bytes:
    path = folder / "leg.wav"
    write_leg(path, noise(SAMPLES / RATE), declared)
    data = path.read_bytes()
    path.unlink()
    assert len(data) == WHOLE
    return data


@settings(deadline=None, max_examples=150)
@given(
    cut=st.integers(0, WHOLE),
    declared=st.one_of(st.none(), st.integers(0, 0xFFFFFFFF)),
    zeros=st.one_of(st.just(0), st.just(4096)),
)
@example(cut=0, declared=0, zeros=0)
@example(cut=3, declared=0, zeros=0)
@example(cut=HEADER - 1, declared=0, zeros=0)
@example(cut=HEADER, declared=0, zeros=0)
@example(cut=HEADER + 1, declared=0, zeros=0)
@example(cut=HEADER + 3, declared=0, zeros=0)
@example(cut=WHOLE - 1, declared=None, zeros=0)
@example(cut=HEADER - 4, declared=None, zeros=4096)
@example(cut=WHOLE, declared=None, zeros=4096)
@example(cut=WHOLE, declared=None, zeros=0)
@example(cut=WHOLE, declared=2 * SAMPLES - 1, zeros=0)
def test_every_sample_that_was_written_is_kept(cut: int, declared: int | None, zeros: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        data = leg_bytes(place.spool, declared)
        # A power failure leaves blocks of the disk unwritten: the first one, here.
        data = bytes(min(zeros, len(data))) + data[zeros:]
        other = SAMPLES / RATE
        ref = place.conversation(None, sine(other))
        (place.spool / "r1-rx.wav").write_bytes(data[:cut])
        frames = max(0, cut - HEADER) // 2
        sound = np.concatenate((np.zeros(min(zeros, HEADER + 2 * SAMPLES) // 2, "int16"), PCM))[: zeros // 2]
        expected = PCM.copy() if not zeros else np.concatenate((sound[22:], PCM[max(0, (zeros - HEADER) // 2) :]))
        expected = expected[:frames]

        done = place.finish(ref)

        assert done.path is not None
        assert place.spooled() == []
        samples, _ = sf.read(place.kept / done.path, dtype="int16")
        assert len(samples) == SAMPLES
        assert np.array_equal(samples[: len(expected), 0], expected)
        assert not samples[frames:, 0].any()
        unhurt = cut == WHOLE and declared in (None, 2 * SAMPLES, 2 * SAMPLES - 1) and not zeros
        assert (done.status is RecordingStatus.OK) is unhurt
        missing = (SAMPLES - frames) / RATE
        if missing > 0.1:
            [gap] = done.gaps
            assert (gap.channel, gap.end) == ("caller", SAMPLES / RATE)
            assert gap.seconds == pytest.approx(missing, abs=0.001)
        else:
            assert done.gaps == ()


@pytest.mark.parametrize("cut", [0, 1, 20, 43, 44, 45])
def test_a_message_cut_before_its_first_sample_is_no_file(place: Place, cut: int) -> None:
    (place.spool / "v1.wav").write_bytes(leg_bytes(place.spool, 0)[:cut])
    done = place.finish(RecordingRef("v1", RecordingKind.VOICEMAIL, None, STARTED))
    assert (done.status, done.path, done.begun) == (RecordingStatus.MISSING, None, True)
    assert "the recording is empty" in (done.problem or "")


def test_both_legs_cut_differently(place: Place) -> None:
    ref = place.conversation(sine(4), sine(4))
    for name, keep in (("r1-rx.wav", HEADER + 2 * 3 * RATE + 1), ("r1-tx.wav", HEADER + 2 * 2 * RATE)):
        path = place.spool / name
        write_leg(path, sine(4), declared=0)
        path.write_bytes(path.read_bytes()[:keep])
    done = place.finish(ref, expected=8.0)
    assert done.status is RecordingStatus.SUSPECT
    assert done.seconds == 3.0
    assert done.gaps == (
        Gap("business", 2.0, 3.0, 1.0, "its file was torn there"),
        Gap("all", 3.0, 8.0, 5.0, "recording stopped before the conversation did"),
    )
    # Told again when the raw legs are gone: the finished file remembers.
    assert place.finish(ref, expected=8.0) == done


def test_a_short_recording_whose_files_are_whole_does_not_say_where(place: Place) -> None:
    done = place.finish(place.conversation(sine(4), sine(4)), expected=10.0)
    assert done.gaps == (Gap("all", None, None, 6.0, "shorter than the conversation; where is not known"),)


def test_a_missing_leg_is_a_gap_of_its_channel(place: Place) -> None:
    done = place.finish(place.conversation(None, sine(4)))
    assert done.gaps == (Gap("caller", 0.0, 4.0, 4.0, "its file is missing"),)
    again = place.finish(place.conversation(sine(4), np.zeros(0), "r2"))
    assert again.gaps == (Gap("business", 0.0, 4.0, 4.0, "its file is empty"),)


def test_few_bytes_that_are_no_header_stay_in_the_spool(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(b"OggS" + bytes(20))
    leg = RawLeg.open(path)
    assert leg is not None
    with leg:
        assert not leg.readable
