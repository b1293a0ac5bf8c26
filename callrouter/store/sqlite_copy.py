"""Copies of a SQLite database while others write to it. Nothing here is asynchronous; ``sqlite3.Error`` and ``OSError``
are let through."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from callrouter.errors import ConflictError, DatabaseError
from callrouter.files import sync

Told = Callable[[int, int], None]
"""(bytes done, bytes in all; 0: not known); may raise to stop the work."""

PAGES = 2048
"""Copied between two tellings: 8 MB."""


def open_existing(path: Path) -> sqlite3.Connection:
    """A connection whose transactions are ours; a file that is missing is not made."""
    return sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=5.0, isolation_level=None)


def copy_file(path: Path, target: Path) -> None:
    """Copy a database, as it is now, as :func:`copy` does."""
    with contextlib.closing(open_existing(path)) as source:
        copy(source, target, lambda _done, _total: None)


def copy(source: sqlite3.Connection, target: Path, told: Told) -> None:
    """Copy a database to a file of its owner's alone, which is whole and on disk on return, or not there.

    :param source: in a transaction that has read something: as it was then, else as it is now
    :raises DatabaseError: the source is damaged
    """
    (page,) = source.execute("PRAGMA page_size").fetchone()
    temporary = target.with_name(f".{target.name}.part")
    _remove(temporary)
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with contextlib.closing(sqlite3.connect(temporary, isolation_level=None)) as made:
            made.execute("PRAGMA synchronous=OFF")  # forced to disk below, once
            source.backup(
                made, pages=PAGES, progress=lambda _status, left, total: told((total - left) * page, total * page)
            )
            single_file(made)
            require_sound(made, target.name)
        sync(temporary)
        temporary.replace(target)
        sync(target.parent)
    except BaseException:
        _remove(temporary)
        raise


def single_file(connection: sqlite3.Connection) -> None:
    """Bring all of a database into its one file, with nothing beside it.

    :raises sqlite3.OperationalError: somebody else has it open
    """
    connection.execute("PRAGMA journal_mode=DELETE").fetchone()


def require_sound(connection: sqlite3.Connection, name: str) -> None:
    """:raises DatabaseError: the database is damaged"""
    try:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as exc:
        found = str(exc)
    if found != "ok":
        raise DatabaseError(f"database {name} is damaged: {found}", hint="restore a backup")


def refuse_while_open(path: Path) -> None:
    """
    :raises ConflictError: another process has this database open
    """
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=0.5, isolation_level=None)) as connection:
            # Leaving WAL mode needs the file for oneself, even when the others do nothing just now.
            connection.execute("PRAGMA journal_mode=WAL").fetchone()
            single_file(connection)
    except sqlite3.DatabaseError as exc:
        if "locked" in str(exc):
            hint = "stop the server and the worker first"
            raise ConflictError(f"{path} is open in another process", hint=hint) from exc
        # Whatever else is wrong with it: it is about to be replaced.


def _remove(temporary: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        temporary.with_name(temporary.name + suffix).unlink(missing_ok=True)
