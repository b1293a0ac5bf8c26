"""Files that are replaced whole, and outlast a power failure; and those that are written line by line meanwhile."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

PART_SUFFIX = ".part"
"""Ends the name of a file that is not whole yet. A process killed while it writes leaves one, begun with a dot."""


def replace_file(
    path: Path, content: bytes, *, mode: int = 0o600, prepare: Callable[[Path], object] | None = None
) -> None:
    """Write a file, or replace it; a reader finds the one before or this one, also after a power failure.

    :param path: in a directory that is there
    :param mode: permissions, whatever the umask
    :param prepare: given the file before it gets its name
    :raises OSError: it cannot be written; what stood there before stays, and nothing is left behind
    """
    # The dot of a hidden file is not doubled: who sweeps up parts goes by the name behind it.
    prefix = f".{path.name.removeprefix('.')}."
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=PART_SUFFIX)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if prepare is not None:
            prepare(temporary)
        temporary.replace(path)
    except BaseException:  # Ctrl-C as well
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync(path.parent)


def whole_lines(path: Path, offset: int = 0) -> Iterator[tuple[bytes, int]]:
    """Lines of a file from byte ``offset`` on, each with the offset behind it; none of a file that is not there.

    A last line without its end was cut off, or is being written still: it is left out.

    :raises OSError: it cannot be read
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield line, offset


def sync(path: Path) -> None:
    """Force a file to disk; or a directory, with the names that were given in it.

    :raises OSError: the disk refuses
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
