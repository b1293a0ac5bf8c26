"""Is there room for recordings?"""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from callrouter.media.store_health import StoreWatch, check_store


def test_good_directory_is_no_problem_and_stays_empty(tmp_path: Path) -> None:
    assert check_store(tmp_path, 1) is None
    assert list(tmp_path.iterdir()) == []


def test_missing_directory_and_a_file_in_its_place_are_said(tmp_path: Path) -> None:
    assert check_store(tmp_path / "none", 1) == f"the recording directory {tmp_path / 'none'} is missing"
    (tmp_path / "file").write_text("")
    assert "should be the recording directory" in (check_store(tmp_path / "file", 1) or "")


def test_read_only_directory_is_found_by_writing() -> None:
    # The kernel's own: nobody, root included, makes a file there.
    assert "cannot be written" in (check_store(Path("/proc/self"), 1) or "")


def test_disk_that_takes_no_more_bytes_is_found_by_writing(tmp_path: Path) -> None:
    code = f"""
import resource
from pathlib import Path
from callrouter.media.store_health import check_store
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
print(check_store(Path({str(tmp_path)!r}), 1))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == f"the recording directory {tmp_path} cannot be written: File too large"
    assert list(tmp_path.iterdir()) == []


def test_error_of_the_disk_shows_at_the_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fails)
    assert (check_store(tmp_path, 1) or "").endswith("cannot be written: No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_limit_of_free_space_is_held(tmp_path: Path) -> None:
    room = os.statvfs(tmp_path)
    free_mb = room.f_bavail * room.f_frsize // 1_000_000
    problem = check_store(tmp_path, free_mb + 100_000)
    assert problem is not None
    assert f"below the limit of {free_mb + 100_000} MB" in problem


@pytest.mark.parametrize("files,free,problem", [(1000, 10, True), (1000, 500, False), (0, 0, False)])
def test_inodes_can_run_out_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int, free: int, problem: bool
) -> None:
    room = SimpleNamespace(f_bavail=10**9, f_frsize=4096, f_files=files, f_favail=free)
    monkeypatch.setattr(os, "statvfs", lambda path: room)
    assert ("inodes" in (check_store(tmp_path, 1) or "")) is problem


async def test_watch_tells_each_change_once(tmp_path: Path) -> None:
    store = tmp_path / "spool"
    store.mkdir()
    told: list[str | None] = []
    changed = asyncio.Event()

    def tell(problem: str | None) -> None:
        told.append(problem)
        changed.set()

    watch = StoreWatch([tmp_path, store], 1, tell, interval=0.01)
    task = asyncio.create_task(watch.run())
    try:
        store.rmdir()
        await asyncio.wait_for(changed.wait(), 10)
        assert told == [f"the recording directory {store} is missing"]
        changed.clear()
        store.mkdir()
        await asyncio.wait_for(changed.wait(), 10)
    finally:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told == [f"the recording directory {store} is missing", None]
    assert watch.problem is None


async def test_disk_that_hangs_is_a_problem_and_takes_one_thread_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StoreWatch, "ANSWER_SECONDS", 0.05)
    release, looks = threading.Event(), []

    def hangs(path: Path, min_free_mb: int) -> str | None:
        looks.append(path)
        release.wait(30)
        return None

    watch = StoreWatch([tmp_path], 1, check=hangs)
    try:
        for _ in range(3):
            assert "did not answer" in (await watch.check_now() or "")
        assert len(looks) == 1
    finally:
        release.set()
    monkeypatch.setattr(StoreWatch, "ANSWER_SECONDS", 10)
    assert await watch.check_now() is None


async def test_a_process_that_stood_still_does_not_blame_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped longer than a disk may take: on waking up, the answer that came meanwhile counts."""
    monkeypatch.setattr(StoreWatch, "ANSWER_SECONDS", 0.5)
    begun, stopped = threading.Event(), threading.Event()
    told: list[str | None] = []

    def answers(path: Path, min_free_mb: int) -> str | None:
        begun.set()
        stopped.wait(10)
        return None

    watch = StoreWatch([tmp_path], 1, told.append, check=answers)
    looking = asyncio.create_task(watch.check_now())
    while not begun.is_set():
        await asyncio.sleep(0)
    stopped.set()
    time.sleep(0.8)  # noqa: ASYNC251 - what a stopped process does
    assert await looking is None
    assert told == []
