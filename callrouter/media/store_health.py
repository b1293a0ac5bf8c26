"""Is there room for recordings? Looked at before and while calls are recorded."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

MIN_FREE_INODES = 100
"""Fewer free inodes than this, and new files soon cannot be made though megabytes are free."""


def check_store(path: Path, min_free_mb: int) -> str | None:
    """Why recordings cannot be kept in ``path``, as a sentence; None when they can. Blocks on the disk.

    A file is really written, flushed to the disk and removed: a full or read-only disk shows itself only then.
    """
    probe = path / f".probe-{uuid.uuid4().hex}"
    try:
        if not path.exists():
            return f"the recording directory {path} is missing"
        if not path.is_dir():
            return f"{path} should be the recording directory and is none"
        try:
            with probe.open("xb") as file:
                file.write(b"\0" * 4096)
                file.flush()
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)
        room = os.statvfs(path)
    except OSError as exc:
        return f"the recording directory {path} cannot be written: {exc.strerror or exc}"
    free_mb = room.f_bavail * room.f_frsize // 1_000_000
    if free_mb < min_free_mb:
        return f"the disk of the recording directory {path} has {free_mb} MB free, below the limit of {min_free_mb} MB"
    if room.f_files and room.f_favail < MIN_FREE_INODES:  # file systems without inodes report none at all
        return f"the disk of the recording directory {path} has no inodes left for new files"
    return None


class StoreWatch:
    """Looks at the recording directories every few seconds.

    :param paths: all of them must be well: the raw legs' spool, and where finished recordings go
    :param on_change: called on the event loop with the new problem, or None when it is gone
    :param check: replaces ``check_store``, for tests
    """

    ANSWER_SECONDS = 5.0
    """A disk that takes longer than this (a network share that hangs) is a problem of its own."""
    _LOOKS = 10
    """The wait is in so many parts: a process that was stopped meanwhile wakes up in one of them, and in the others the
    disk still has its time. Else all calls that came while it stood still would go unrecorded."""

    def __init__(
        self,
        paths: Sequence[Path],
        min_free_mb: int,
        on_change: Callable[[str | None], None] | None = None,
        *,
        interval: float = 2.0,
        check: Callable[[Path, int], str | None] = check_store,
    ) -> None:
        self._paths = tuple(paths)
        self._min_free_mb = min_free_mb
        self._on_change = on_change
        self._interval = interval
        self._check = check
        self._problem: str | None = None
        self._pending: asyncio.Future[str | None] | None = None

    @property
    def problem(self) -> str | None:
        """Why nothing can be recorded now; None when all is well (and before the first check)."""
        return self._problem

    async def check_now(self) -> str | None:
        """Look once, and tell ``on_change`` if the answer is new."""
        # A check that hangs keeps its thread; another one is not started behind it.
        if self._pending is None or self._pending.done():
            self._pending = asyncio.ensure_future(asyncio.to_thread(self._look))
        problem = await self._answer(self._pending)
        if problem != self._problem:
            self._problem = problem
            if self._on_change is not None:
                self._on_change(problem)
        return problem

    async def _answer(self, pending: asyncio.Future[str | None]) -> str | None:
        for _ in range(self._LOOKS):
            if (await asyncio.wait({pending}, timeout=self.ANSWER_SECONDS / self._LOOKS))[0]:
                return pending.result()
        where = ", ".join(str(path) for path in self._paths)
        return f"the disk of {where} did not answer within {self.ANSWER_SECONDS:g} s"

    def _look(self) -> str | None:
        try:
            return next((problem for path in self._paths if (problem := self._check(path, self._min_free_mb))), None)
        except OSError as exc:
            return f"the recording directory cannot be looked at: {exc}"

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            while True:
                await self.check_now()
                await asyncio.sleep(self._interval)
        finally:
            if self._pending is not None:
                with suppress(asyncio.CancelledError):
                    self._pending.cancel()
