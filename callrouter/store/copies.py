"""One moment of a database, held while it is copied. Nothing here is asynchronous: it is for commands that do one thing
and may be interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from callrouter.errors import SchemaError
from callrouter.store import postgres_tools, sqlite_copy
from callrouter.store.database import Database
from callrouter.store.journal import Position
from callrouter.store.sqlite_copy import Told

HAS_TABLES = {
    "sqlite": "SELECT name FROM sqlite_master WHERE name = 'alembic_version'",
    "postgresql": "SELECT to_regclass('alembic_version')::text",
}
REVISION = "SELECT version_num FROM alembic_version"
VERSION = "SELECT version FROM config_state WHERE id = 1"
POSITION = 'SELECT segment, "offset" FROM journal_position WHERE journal = :journal'


@dataclass(frozen=True, slots=True)
class Moment:
    """A database as it was at one moment; what others write later is not in it."""

    kind: Literal["sqlite", "postgresql"]
    revision: str
    config_version: int
    position: Position
    """How far the journal was drained."""
    copy: Callable[[Path, Told], None]
    """Write it into a file, for its owner alone. Raises DatabaseError; the file is whole, or not there."""


class _Facts(NamedTuple):
    revision: str
    config_version: int
    position: Position


@contextmanager
def hold(database: Database, journal: str) -> Iterator[Moment]:
    """Hold one moment of a database. Others go on writing.

    :param journal: id of the journal whose position is wanted
    :raises DatabaseError: away, locked, not set up, damaged
    """
    with _hold_sqlite(database, journal) if database.path else _hold_postgres(database, journal) as moment:
        yield moment


@contextmanager
def _hold_sqlite(database: Database, journal: str) -> Iterator[Moment]:
    assert database.path is not None
    if not database.path.exists():
        raise _not_set_up(database)
    with _explained(database):
        source = sqlite_copy.open_existing(database.path)
    with contextlib.closing(source):
        with _explained(database):
            # From its first read to its end a transaction sees the database as it was then (WAL), and so does the
            # backup of its connection.
            source.execute("BEGIN")
            if source.execute(HAS_TABLES["sqlite"]).fetchone() is None:
                raise _not_set_up(database)
            revision = source.execute(REVISION).fetchone()
            version = source.execute(VERSION).fetchone()
            position = source.execute(POSITION, {"journal": journal}).fetchone()
            facts = _facts(database, revision, version, position)

        def copy(target: Path, told: Told) -> None:
            with _explained(database):
                sqlite_copy.copy(source, target, told)

        yield Moment("sqlite", *facts, copy)


@contextmanager
def _hold_postgres(database: Database, journal: str) -> Iterator[Moment]:
    tools = postgres_tools.find(database.url)
    with asyncio.Runner() as runner:
        try:
            with _explained(database):
                connection = runner.run(_connected(database))
                facts, snapshot = runner.run(_looked(database, connection, journal))
            # The snapshot can be taken for as long as this transaction is open.
            yield Moment("postgresql", *facts, lambda target, told: tools.dump(target, told, snapshot))
            runner.run(connection.close())
        finally:
            runner.run(database.dispose())


async def _connected(database: Database) -> AsyncConnection:
    return await database.engine.connect()


async def _looked(database: Database, connection: AsyncConnection, journal: str) -> tuple[_Facts, str]:
    await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    if await connection.scalar(text(HAS_TABLES["postgresql"])) is None:
        raise _not_set_up(database)
    revision = (await connection.execute(text(REVISION))).first()
    version = (await connection.execute(text(VERSION))).first()
    position = (await connection.execute(text(POSITION), {"journal": journal})).first()
    facts = _facts(database, revision, version, position)
    return facts, str(await connection.scalar(text("SELECT pg_export_snapshot()")))


def _facts(database: Database, revision: object, version: object, position: object) -> _Facts:
    if not revision:
        raise _not_set_up(database)
    return _Facts(revision[0], version[0] if version else 0, Position(*position) if position else Position())  # type: ignore[index,misc]


async def count_tables(database: Database) -> int:
    """How many tables a PostgreSQL database has in its schema "public".

    :raises DatabaseError: it does not answer
    """
    with _explained(database):
        async with database.engine.connect() as connection:
            return int(await connection.scalar(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")) or 0)


@contextmanager
def _explained(database: Database) -> Iterator[None]:
    """What a driver complains about inside, in words."""
    try:
        yield
    except (sqlite3.Error, DBAPIError, OSError) as exc:
        problem = database.explain(exc)
        if problem is None:
            raise
        raise problem from exc


def _not_set_up(database: Database) -> SchemaError:
    return SchemaError(f"database {database.shown} is not set up", hint="run: callrouter db upgrade")
