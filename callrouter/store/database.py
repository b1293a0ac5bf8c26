"""One database: its engine, sessions, schema, and what can go wrong with it said in plain words."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from callrouter.errors import ConflictError, DatabaseError
from callrouter.store import migrate, postgres_tools, sqlite_copy
from callrouter.store.faults import explain
from callrouter.store.migrate import SchemaState, SchemaStatus, Upgrade

__all__ = ["Database", "SchemaState", "SchemaStatus", "Upgrade", "locate"]

READ_ONLY = "callrouter_read_only"
BUSY_MS = 5000
"""How long one SQLite writer waits for another."""


def locate(url: str) -> URL:
    """Read a database URL; ``sqlite://`` and ``postgresql://`` get the driver that is used here.

    :raises DatabaseError: no URL, or of another database
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        # The text itself may hold a password: it is not repeated.
        raise DatabaseError(
            "the database URL cannot be read", hint="like postgresql+asyncpg://USER:PASSWORD@HOST/DATABASE"
        ) from None
    drivers = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
    name = drivers.get(parsed.drivername, parsed.drivername)
    if name not in drivers.values():
        raise DatabaseError(
            f"callrouter does not run on {parsed.drivername}", hint="take sqlite+aiosqlite or postgresql+asyncpg"
        )
    return parsed.set(drivername=name)


class Database:
    """A SQLite file or a PostgreSQL database.

    SQLite: WAL, so that readers and the one writer do not wait for each other; foreign keys enforced; a writer waits
    5 s for another; synchronous=FULL, because drained journal segments are deleted: what is committed must survive a
    power failure, and with NORMAL the last commits may not.

    :param url: a SQLAlchemy URL
    :raises DatabaseError: no URL, of another database, or its driver is not installed
    """

    def __init__(self, url: str) -> None:
        self.url = locate(url)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        # Callers' numbers and names do not belong into error messages and logs.
        options: dict[str, Any] = {"hide_parameters": True}
        if self.sqlite and self.path is None:
            raise DatabaseError("a database in memory is lost at exit", hint="give a file: sqlite+aiosqlite:///PATH")
        if not self.sqlite:
            options["pool_pre_ping"] = True
        else:
            options["connect_args"] = {"timeout": BUSY_MS / 1000}
        try:
            self.engine: AsyncEngine = create_async_engine(self._opened, **options)
        except ModuleNotFoundError as exc:
            raise DatabaseError(
                f"the driver for {self.url.drivername} is not installed", hint="pip install 'callrouter[postgres]'"
            ) from exc
        if self.sqlite:
            _prepare_sqlite(self.engine)
        self._writing = async_sessionmaker(self.engine, expire_on_commit=False)
        reading: dict[str, Any] = {READ_ONLY: True} if self.sqlite else {"postgresql_readonly": True}
        self._reader = self.engine.execution_options(**reading)
        self._reading = async_sessionmaker(self._reader, expire_on_commit=False)

    @property
    def path(self) -> Path | None:
        """The SQLite file; None on PostgreSQL."""
        name = self.url.database
        return Path(name).absolute() if self.sqlite and name and name != ":memory:" else None

    @property
    def _opened(self) -> URL:
        """What is opened. SQLite would make an empty database where there is none, in the place of one that is away."""
        if self.path is None:
            return self.url
        only = {"mode": "rw", "uri": "true"}
        return self.url.set(database=f"file:{quote(str(self.path))}", query={**self.url.query, **only})

    @property
    def shown(self) -> str:
        """The database's name for messages; never with a password."""
        return str(self.path) if self.path else self.url.set(password=None, query={}).render_as_string()

    @asynccontextmanager
    async def session(self, *, read_only: bool = False) -> AsyncIterator[AsyncSession]:
        """One transaction: committed at the end of the block, rolled back when it raises.

        :param read_only: nothing is going to be written; on SQLite such a session never waits for a writer, while
            others take the write lock at their first statement, so that they cannot deadlock half-way
        :raises DatabaseError: away, locked, full, read-only, not migrated …
        :raises ConflictError: somebody else took the same name or number in the same moment
        """
        if self.path is not None and not self.path.exists():
            raise self._absent()
        maker = self._reading if read_only else self._writing
        try:
            async with maker() as session, session.begin():
                yield session
        except IntegrityError as exc:
            raise ConflictError(
                f"somebody else made a conflicting change in the same moment ({_constraint(exc)})",
                hint="look at it again, then repeat your change",
            ) from exc
        except (DBAPIError, OSError) as exc:
            problem = self.explain(exc)
            if problem is None:
                raise
            raise problem from exc

    def explain(self, exc: BaseException) -> DatabaseError | None:
        """What went wrong with the database, or None when it is no fault of the database."""
        found = explain(exc, self.shown)
        opened = found is not None and isinstance(exc, DBAPIError)
        return self._absent() if opened and self.path is not None and not self.path.exists() else found

    async def check(self) -> SchemaState:
        """How the schema of the database stands to this program.

        :raises DatabaseError: the database cannot be read
        """
        if self.path is not None and not self.path.exists():
            return SchemaState(SchemaStatus.ABSENT, None, migrate.head(), f"{self.shown} does not exist")
        with self._explained():
            async with self._reader.connect() as connection:
                return await connection.run_sync(migrate.check)

    async def require_current(self) -> None:
        """
        :raises SchemaError: the schema is not the one this program works with
        :raises DatabaseError: the database cannot be read
        """
        if self.path is not None and not self.path.exists():
            raise self._absent()
        state = await self.check()
        if not state.ok:
            raise state.error(self.shown)

    async def upgrade(self, revision: str = "head", *, keep: bool = True, copies: Path | None = None) -> Upgrade:
        """Bring the schema up to date, in one transaction, and keep a copy of a database that is changed.

        :param keep: False: no copy
        :param copies: where a PostgreSQL database is copied to; None: it is not. SQLite's copy lies beside it
        :raises DatabaseError: written by a newer callrouter, half-applied, not writable, full, no program to copy it …
        """
        if self.path is not None:
            self._create_file(self.path)
        state = await self.check()
        if state.ok and revision == "head":
            return Upgrade(state.revision, state.head, None)
        if state.status in (SchemaStatus.NEWER, SchemaStatus.HALF_APPLIED):
            raise state.error(self.shown)
        with self._explained():
            backup = await self._keep_copy(state, copies) if keep and state.status is SchemaStatus.OLD else None
            await self._migrate(lambda connection: migrate.upgrade(connection, revision))
        return Upgrade(state.revision, (await self.check()).revision, backup)

    async def downgrade(self, revision: str, *, copies: Path | None = None) -> Upgrade:
        """Take the schema back to ``revision`` ("base": nothing left), and keep a copy as :meth:`upgrade` does.

        :raises DatabaseError: as :meth:`upgrade`
        """
        state = await self.check()
        if state.status in (SchemaStatus.NEWER, SchemaStatus.HALF_APPLIED, SchemaStatus.ABSENT):
            raise state.error(self.shown)
        with self._explained():
            backup = await self._keep_copy(state, copies)
            await self._migrate(lambda connection: migrate.downgrade(connection, revision))
        return Upgrade(state.revision, (await self.check()).revision, backup)

    async def dispose(self) -> None:
        """Close all connections: idle ones now, one in use as soon as it is given back."""
        pool = self.engine.sync_engine.pool
        await self.engine.dispose()
        # What is in use goes back to this pool, where nobody would ever close it. Not before: the engine's next pool
        # takes over the listeners that this one has.
        event.listen(pool, "checkin", _close)

    # -- within ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, OSError, sqlite3.Error) as exc:
            problem = self.explain(exc)
            if problem is None:
                raise
            raise problem from exc

    def _absent(self) -> DatabaseError:
        return DatabaseError(f"database {self.shown} does not exist", hint="run: callrouter db upgrade")

    def _create_file(self, path: Path) -> None:
        """Calls are private: a new file is for its owner alone."""
        with self._explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    async def _keep_copy(self, state: SchemaState, copies: Path | None) -> Path | None:
        """Copy the database as it is, also while it is used; None where that was not asked for."""
        end = f"before-{datetime.now(UTC).strftime('%Y%m%dT%H%M%S%fZ')}-from-{state.revision}"
        if self.path is not None:
            copy = self.path.with_name(f"{self.path.name}.{end}")
            await asyncio.to_thread(sqlite_copy.copy_file, self.path, copy)
            return copy
        if copies is None:
            return None
        copy = copies / f"{self.url.database}.{end}.pgdump"
        tools = postgres_tools.find(self.url)
        await asyncio.to_thread(tools.dump, copy, lambda _done, _total: None)
        return copy

    async def _migrate(self, action: Callable[[Connection], None]) -> None:
        async with self.engine.connect() as connection:
            if self.sqlite:
                # Altering a table rebuilds it on SQLite, and dropping the old one would delete what refers to it.
                # The pragma does nothing inside a transaction, so it comes before.
                raw = await connection.get_raw_connection()
                await raw.driver_connection.execute("PRAGMA foreign_keys=OFF")  # type: ignore[union-attr]
            try:
                async with connection.begin():
                    await connection.run_sync(action)
                    if self.sqlite:
                        broken = (await connection.execute(text("PRAGMA foreign_key_check"))).first()
                        if broken is not None:
                            raise DatabaseError(
                                f"database {self.shown}: the migration would break rows of table {broken[0]}",
                                hint="nothing was changed; please report this",
                            )
            finally:
                await connection.invalidate()


def _close(_connection: Any, record: ConnectionPoolEntry) -> None:
    record.close()


def _prepare_sqlite(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        # The driver's own idea of transactions commits before DDL and breaks savepoints: BEGIN is ours, below.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (f"busy_timeout={BUSY_MS}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        # A deferred transaction that turns from reading to writing fails at once when another one wrote meanwhile,
        # whatever busy_timeout says. IMMEDIATE waits in turn.
        reading = connection.get_execution_options().get(READ_ONLY, False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _constraint(exc: IntegrityError) -> str:
    """The driver's words without the values, which may be a caller's."""
    name = getattr(getattr(exc.orig, "__cause__", None), "constraint_name", None)
    return str(name or str(exc.orig).splitlines()[0])[:160]
