"""What a database driver complains about, in words that say what to do. Passwords never appear."""

from __future__ import annotations

import errno

from sqlalchemy.exc import DBAPIError

from callrouter.errors import DatabaseError

SQLITE = (
    ("database is locked", "is locked by another program", "end the other program, or wait until it is done"),
    ("database table is locked", "is locked by another program", "end the other program, or wait until it is done"),
    ("readonly database", "is read-only", "make the file and its directory writable for this user"),
    ("unable to open database file", "cannot be opened", "is the disk full, or read-only? May this user write there?"),
    ("disk is full", "cannot grow: the disk is full", "free some space; calls go on and are written down meanwhile"),
    ("disk i/o error", "cannot be read or written: disk I/O error", "look at the disk, and whether it is full"),
    # A full disk makes SQLite roll back the whole transaction by itself; then there is nothing to roll back to.
    ("no such savepoint", "took back the transaction by itself", "look at the disk, and whether it is full"),
    ("no transaction is active", "took back the transaction by itself", "look at the disk, and whether it is full"),
    ("malformed", "is damaged", "restore a backup"),
    ("not a database", "is no SQLite database", "look at the database_url setting"),
    ("no such table", "is not set up", "run: callrouter db upgrade"),
    ("no such column", "is not up to date", "run: callrouter db upgrade"),
    ("has no column", "is not up to date", "run: callrouter db upgrade"),
)
"""(part of SQLite's message, what is wrong, hint)"""

POSTGRES = {
    "28P01": ("refuses the password", "correct the password in the database_url setting"),
    "28000": ("refuses this user", "look at the user in the database_url setting, and at the server's pg_hba.conf"),
    "3D000": ("does not exist on the server", "create it: createdb NAME"),
    "42P01": ("is not set up", "run: callrouter db upgrade"),
    "42703": ("is not up to date", "run: callrouter db upgrade"),
    "42501": ("refuses this user: no permission", "grant the user all rights on the database and its schema"),
    "53100": ("cannot grow: the server's disk is full", "free some space; calls go on and are written down meanwhile"),
    "53300": ("has no free connection", "raise the server's max_connections"),
    "55P03": ("is locked by another program", "end the other program, or wait until it is done"),
    "57P01": ("was shut down", "start the server"),
    "57P02": ("went down", "start the server"),
    "57P03": ("is not ready: the server is starting or stopping", "try again in a moment"),
    "25006": ("is read-only", "connect to the primary server"),
}
"""SQLSTATE: (what is wrong, hint); PostgreSQL documentation, appendix A."""


def explain(exc: BaseException, name: str) -> DatabaseError | None:
    """The fault behind an exception of SQLAlchemy or a driver.

    :param name: the database's name, without password
    :returns: None when it is not about the database's state (a mistake in a statement, say)
    """
    causes: list[BaseException] = []
    current: BaseException | None = exc.orig if isinstance(exc, DBAPIError) and exc.orig else exc
    while current is not None and current not in causes and len(causes) < 10:
        causes.append(current)
        current = current.__cause__ or current.__context__
    for cause in causes:
        state = getattr(cause, "sqlstate", None)
        if state in POSTGRES:
            what, hint = POSTGRES[state]
            return DatabaseError(f"database {name} {what}", hint=hint)
        if type(cause).__module__.split(".")[0] in ("sqlite3", "aiosqlite"):
            text = str(cause).lower()
            for part, what, hint in SQLITE:
                if part in text:
                    return DatabaseError(f"database {name} {what}", hint=hint)
    for cause in causes:
        if isinstance(cause, OSError):
            if cause.errno in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM):
                return DatabaseError(f"database {name}: {cause.strerror}", hint="look at the disk and its permissions")
            return _away(name, cause)
    disconnected = isinstance(exc, DBAPIError) and exc.connection_invalidated
    for cause in causes:
        # asyncpg: the connection broke under a statement, or the server hung up while connecting.
        if type(cause).__name__ in ("ConnectionDoesNotExistError", "ConnectionFailureError", "InterfaceError"):
            return _away(name, cause)
    return _away(name, causes[0]) if disconnected else None


def _away(name: str, cause: BaseException) -> DatabaseError:
    detail = str(cause).strip().splitlines()[0][:160] if str(cause).strip() else type(cause).__name__
    return DatabaseError(
        f"database {name} does not answer: {detail}", hint="is the server running, and database_url right?"
    )
