"""Which recording a file belongs to, by its name."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from callrouter.media.manifest import part_path
from callrouter.media.verification import kept_files, owner_of, stale_parts

FAILSAFE = "fs-callrouter-1795315040.3-1"
DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize("recording", ["c1-l1", FAILSAFE])
def test_every_kind_of_file_names_its_recording(recording: str) -> None:
    audio = Path(f"2026/11/21/{recording}.flac")
    waiting = part_path(audio, DIGEST)
    for path in (audio, audio.with_suffix(".opus"), audio.with_suffix(".json"), waiting):
        assert owner_of(path.as_posix()) == recording
    assert owner_of(f"2026/11/21/.{recording}.x7_abc.part") == recording


def test_only_days_are_looked_into_and_only_what_recordings_are_made_of(tmp_path: Path) -> None:
    for name in ("2026/11/20/a.flac", "2026/11/21/b.json", "2026/11/21/.b.x.part", "2026/12/01/c.opus"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("2026/11/21/readme.txt", "spool/recording/x.flac", "2026/notes/y/z.flac"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [sorted(some) for some in kept_files(tmp_path)]
    assert found == [["2026/11/20/a.flac", "2026/11/21/.b.x.part", "2026/11/21/b.json", "2026/12/01/c.opus"]]
    since = datetime(2026, 11, 21, 23, tzinfo=UTC)
    assert sorted(*kept_files(tmp_path, since)) == ["2026/11/21/.b.x.part", "2026/11/21/b.json", "2026/12/01/c.opus"]
    assert [len(some) for some in kept_files(tmp_path, most=3)] == [3, 1]
    assert list(kept_files(tmp_path / "absent")) == []
    assert list(stale_parts(tmp_path, 0.0)) == []
    assert list(stale_parts(tmp_path, 4e9)) == ["2026/11/21/.b.x.part"]
