"""The directory a backup or restore works in."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from callrouter.errors import ConflictError, ServiceError

NAME = ".backup-work"
AT_WORK = "another backup or restore is at work in this home"


@contextmanager
def work_directory(home: Path) -> Iterator[Path]:
    """A directory in home, where a copy of the database is as safe as the database: ours alone, empty, gone afterwards.

    :raises ConflictError: another process has it
    :raises ServiceError: home is missing, or cannot be written
    """
    directory = home / NAME
    try:
        handle = _take(directory)
    except BlockingIOError as exc:
        raise ConflictError(AT_WORK, hint="wait until it is done") from exc
    except OSError as exc:
        hint = "is this the right --home? run it as the server's user"
        raise ServiceError(f"{directory} cannot be made: {exc.strerror}", hint=hint) from exc
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(handle)


def _take(directory: Path) -> int:
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if directory.stat().st_ino != os.fstat(handle).st_ino:
            raise BlockingIOError
        for left in directory.iterdir():  # by one that was killed
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()
    except BaseException:
        os.close(handle)
        raise
    return handle
