"""Finished recordings: exported, outlined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from callrouter.errors import InputError, NotFoundError, ServiceError
from callrouter.media.archive import export, peaks
from callrouter.media.recordings import FinishedRecording
from tests.recording_place import RATE, STARTED, Place, noise, sine


class Row:
    started_at = STARTED

    def __init__(self, done: FinishedRecording, name: str = "r1") -> None:
        self.id = name
        self.path = done.path
        self.manifest_sha256: str | None = None


@pytest.mark.parametrize("fmt", ["wav", "flac", "opus", "mp3"])
def test_export_writes_a_copy_people_can_play(place: Place, tmp_path: Path, fmt: str) -> None:
    row = Row(place.finish(place.conversation(sine(2), noise(2))))
    (written,) = export(place.kept, [row], tmp_path / "out", fmt)
    assert written.name == f"2026-11-21T222640Z_r1.{fmt}"
    info = sf.info(written)
    assert (info.channels, info.samplerate) == (2, RATE)
    assert info.duration == pytest.approx(2.0, abs=0.2)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [written.name]


def test_export_refuses_what_it_cannot_do(place: Place, tmp_path: Path) -> None:
    row = Row(place.finish(place.conversation(sine(2), noise(2))))
    with pytest.raises(InputError, match="aiff"):
        export(place.kept, [row], tmp_path / "out", "aiff")
    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceError):
        export(place.kept, [row], tmp_path / "file", "wav")
    row.path = "2026/11/21/none.flac"
    with pytest.raises(NotFoundError):
        export(place.kept, [row], tmp_path / "out", "wav")
    row.path = "../spool/x.flac"
    with pytest.raises(InputError):
        export(place.kept, [row], tmp_path / "out", "wav")


def test_peaks_outline_each_channel(place: Place) -> None:
    caller = np.concatenate((sine(1), np.zeros(RATE)))
    done = place.finish(place.conversation(caller, np.full(2 * RATE, 0.25)))
    left, right = peaks(place.kept / str(done.path), 10)
    assert len(left) == len(right) == 10
    assert left[0] == pytest.approx((-0.3, 0.3), abs=0.01)
    assert left[9] == (0.0, 0.0)
    assert right[5] == pytest.approx((0.0, 0.25), abs=0.01)
