"""A file is replaced whole, or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from callrouter import files
from callrouter.files import replace_file, sync, whole_lines


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_the_mode_is_the_one_that_was_asked_for(tmp_path: Path, umask: int, mode: int) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    path.chmod(0o640)
    before = os.umask(umask)
    try:
        replace_file(path, b"now", mode=mode)
    finally:
        os.umask(before)
    assert path.read_bytes() == b"now"
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert list(tmp_path.iterdir()) == [path]


def test_its_content_then_its_name_are_forced_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    forced: list[tuple[str, str]] = []
    fsync = os.fsync

    def watched(handle: int) -> None:
        there = Path(f"/proc/self/fd/{handle}").readlink()
        forced.append(("directory" if there.is_dir() else there.read_text(), path.read_text()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    replace_file(path, b"now")
    assert forced == [("now", "before"), ("directory", "now")]


@pytest.mark.parametrize("where", ["fsync", "replace", "prepare"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_fails_leaves_all_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: BaseException
) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def fail(*_: object) -> None:
        raise error

    if where == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    elif where == "replace":
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(type(error)):
        replace_file(path, b"now", prepare=fail if where == "prepare" else None)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_without_a_directory_it_fails(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        replace_file(tmp_path / "none" / "file", b"now")


def test_it_is_prepared_before_it_has_its_name(tmp_path: Path) -> None:
    path = tmp_path / ".hidden"
    seen: list[str] = []

    def look(part: Path) -> None:
        assert not path.exists()
        assert part.read_bytes() == b"now"
        seen.append(part.name)

    replace_file(path, b"now", prepare=look)
    [name] = seen
    assert name.startswith(".hidden.")
    assert name.endswith(files.PART_SUFFIX)


def test_a_directory_can_be_forced_to_disk(tmp_path: Path) -> None:
    sync(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync(tmp_path / "none")


def test_lines_are_read_as_far_as_they_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert list(whole_lines(path)) == []
    path.write_bytes(b"one\n\ntwo\nthr")
    assert list(whole_lines(path)) == [(b"one\n", 4), (b"\n", 5), (b"two\n", 9)]
    assert list(whole_lines(path, 5)) == [(b"two\n", 9)]
    with path.open("ab") as file:
        file.write(b"ee\n")
    assert list(whole_lines(path, 9)) == [(b"three\n", 15)]
    with pytest.raises(IsADirectoryError):
        next(whole_lines(tmp_path))
