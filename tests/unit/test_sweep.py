"""Empty raw files go, whatever holds sound stays."""

from __future__ import annotations

import os
import wave
from pathlib import Path

from callrouter.media.sweep import QUIET_SECONDS, left_with_sound, sweep_spool

NOW = 1_800_000_000.0


def raw(spool: Path, name: str, samples: int, age: float) -> Path:
    path = spool / name
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\1\0" * samples)
    os.utime(path, (NOW - age, NOW - age))
    return path


def test_only_old_empty_files_that_nobody_waits_for_are_removed(tmp_path: Path):
    old = QUIET_SECONDS + 1
    gone = [raw(tmp_path, "a-l1-rx.wav", 0, old), raw(tmp_path, "a-l1-tx.wav", 0, old)]
    kept = [
        raw(tmp_path, "b-l1-rx.wav", 1, old),
        raw(tmp_path, "c-l1-rx.wav", 0, 1.0),
        raw(tmp_path, "d-m1.wav", 0, old),
    ]
    foreign = tmp_path / "notes.txt"
    foreign.write_text("not ours")
    torn = raw(tmp_path, "f-l1-rx.wav", 0, old)
    torn.write_bytes(torn.read_bytes()[:20])
    os.utime(torn, (NOW - old, NOW - old))
    gone.append(torn)
    no_wav = tmp_path / "e-l1-rx.wav"
    no_wav.write_bytes(b"something else entirely, and long enough to be looked at as a header")
    os.utime(no_wav, (NOW - old, NOW - old))

    assert list(left_with_sound(tmp_path, NOW)) == [tmp_path / "b-l1-rx.wav"]
    assert sweep_spool(tmp_path, {"d-m1"}, NOW) == 3

    assert [path.exists() for path in gone] == [False, False, False]
    assert all(path.exists() for path in [*kept, foreign, no_wav])


def test_a_missing_spool_is_nothing_to_sweep(tmp_path: Path):
    assert sweep_spool(tmp_path / "absent", set(), NOW) == 0
