"""What every command is given: the settings, the database, and who is asking."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from callrouter.config import Settings
    from callrouter.store.database import Database

T = TypeVar("T")


class App:
    """One run of the command line. Filled by the global options, wherever on the line they stand."""

    def __init__(self) -> None:
        self.home: str | None = None
        self.config: Path | None = None
        self.json = False
        self.verbose = 0

    @cached_property
    def settings(self) -> Settings:
        """:raises ConfigError: unreadable or wrong settings"""
        from callrouter.config import load_settings

        return load_settings(self.config, home=self.home) if self.home else load_settings(self.config)

    @cached_property
    def who(self) -> str:
        """Who changes something: CALLROUTER_USER, else the login name."""
        if name := os.environ.get("CALLROUTER_USER", "").strip():
            return name
        import getpass

        try:
            return getpass.getuser()
        except (KeyError, OSError):  # no such account, and no LOGNAME or USER
            return f"uid {os.getuid()}"

    # -- database ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Database]:
        """The database, of the version this program works with.

        :raises DatabaseError: absent, old, newer, locked …
        """
        from callrouter.store.database import Database

        database = Database(self.settings.database)
        try:
            await database.require_current()
            yield database
        finally:
            await database.dispose()

    def read(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """Run a reading transaction to its end."""
        return self._transaction(work, read_only=True)

    def write(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """Run a transaction that changes something, and commit it."""
        return self._transaction(work, read_only=False)

    def _transaction(self, work: Callable[[AsyncSession], Awaitable[T]], *, read_only: bool) -> T:
        from callrouter.cli import interrupt

        async def run() -> T:
            async with self.database() as database, database.session(read_only=read_only) as session:
                return await work(session)

        return interrupt.run(run)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """While inside, the parts' own log lines are kept back: the command says what it found. Not with -v."""
        if self.verbose:
            yield
            return
        import logging

        import structlog

        before = structlog.get_config()
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        try:
            yield
        finally:
            structlog.configure(**before)

    # -- the running server ------------------------------------------------------------------------------------------

    @cached_property
    def status(self) -> dict[str, Any] | None:
        """What the running server says of itself; None when none runs."""
        from callrouter.doctor.server import fresh_status

        return fresh_status(self.settings)

    def when(self) -> str:
        """When a change is going to count, for people."""
        return "live within a second" if self.status else "takes effect when the server runs"


pass_app = click.make_pass_decorator(App, ensure=True)
