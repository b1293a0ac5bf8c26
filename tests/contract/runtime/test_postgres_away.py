"""No call waits for a PostgreSQL server that is stopped, or that says nothing any more."""

from __future__ import annotations

import asyncio
import os
import select
import shlex
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncpg
import msgspec
import pytest
import structlog

from callrouter.store.database import Database
from tests.contract.runtime.support import until
from tests.contract.runtime.test_database_away import one_call, stored_once
from tests.contract.runtime.world import (  # noqa: F401 - fixtures
    DID,
    World,
    add_acme,
    tones,
    world,
)
from tests.fixtures.postgres import PostgresServer

pytestmark = pytest.mark.postgres


class Switch:
    """Stops the test run's PostgreSQL server and starts it again."""

    def __init__(self, data: Path) -> None:
        self.data = data

    @property
    def pid(self) -> int:
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def processes(self) -> list[int]:
        """The server's, the first one first."""
        found = [self.pid]
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == found[0]:
                found.append(int(stat.parent.name))
        return found

    @contextmanager
    def off(self) -> Iterator[None]:
        pid = self.pid
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
        ending = os.pidfd_open(pid)
        os.kill(pid, signal.SIGINT)  # fast: connections are ended
        # Readable when the process has ended: the kernel tells (pidfd_open(2)).
        ended, _, _ = select.select([ending], [], [], 20)
        os.close(ending)
        assert ended, "PostgreSQL does not stop"
        try:
            yield
        finally:
            as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
            start = [str(Path(argv[0]).with_name("pg_ctl")), "-D", str(self.data), "-o", shlex.join(argv[3:])]
            start += ["-l", str(self.data.parent / "log-again"), "-w", "start"]
            subprocess.run([*as_user, *start], check=True, stdout=subprocess.DEVNULL, cwd="/")

    @contextmanager
    def silent(self) -> Iterator[None]:
        """It stands still: connections are there, and nothing is answered."""
        processes = self.processes()
        # Its parent (runuser) stops when it stops.
        parent = int(Path(f"/proc/{processes[0]}/stat").read_text().rpartition(")")[2].split()[1])
        try:
            for pid in processes:
                with suppress(ProcessLookupError):  # a client's process that was just ending
                    os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in (*processes, parent):
                with suppress(ProcessLookupError):  # who notices first that its client has gone, goes
                    os.kill(pid, signal.SIGCONT)


@pytest.fixture
async def switch(postgres: PostgresServer) -> Switch:
    connection = await asyncpg.connect(postgres.url("postgres").replace("+asyncpg", ""))
    directory = await connection.fetchval("SHOW data_directory")
    await connection.close()
    return Switch(Path(directory))


@pytest.fixture
async def known(world: World, postgres: PostgresServer, migrated_postgres: str) -> AsyncIterator[World]:
    """A server has run here before, on PostgreSQL."""
    url = await postgres.create_database(migrated_postgres)
    database = Database(url)
    await add_acme(database)
    await database.dispose()
    made = World(msgspec.structs.replace(world.settings, database_url=url), world.asterisk, world.ami)
    async with made.server():
        pass
    yield made
    await postgres.drop_database(url)


async def test_stopped_and_started_again_under_calls(known: World, switch: Switch) -> None:
    with structlog.testing.capture_logs() as logged:
        async with known.server() as (server, _):
            assert await one_call(known, server, "before") < 1.0
            with switch.off():
                took = [await one_call(known, server, f"off-{number}") for number in range(5)]
                await until(lambda: known.status()["database"]["problem"], "the status", 10)
                took += [await one_call(known, server, f"later-{number}") for number in range(3)]
                assert max(took) < 1.0, took
                assert known.status()["journal"]["pending"] > 0
                assert str(server.parts.settings.database_url).split(":")[2].split("@")[0] not in str(known.status())
            await until(lambda: server.parts.drain.pending == 0, "the drain", 20)
            await until(lambda: known.status()["database"]["problem"] is None, "the status", 10)
            assert await one_call(known, server, "after") < 1.0
    assert "part_failed" not in [line["event"] for line in logged]
    names = [*(f"off-{number}" for number in range(5)), *(f"later-{number}" for number in range(3))]
    await stored_once(known, "before", *names, "after")


async def test_a_start_while_it_is_stopped(known: World, switch: Switch) -> None:
    with switch.off():
        began = time.monotonic()
        async with known.server() as (server, task):
            assert not task.done()
            assert time.monotonic() - began < 5.0
            assert await one_call(known, server, "a") < 1.0
            assert server.status()["database"]["problem"]
            assert server.status()["config_kept_at"]
    async with known.server() as (server, _):
        await until(lambda: server.status()["config_kept_at"] is None, "the database's routing", 20)
        await until(lambda: server.parts.drain.pending == 0, "the drain", 20)
    await stored_once(known, "a")


async def test_a_server_that_says_nothing_delays_neither_calls_nor_start_nor_stop(known: World, switch: Switch) -> None:
    async with known.server() as (server, task):
        await until(lambda: server.parts.drain.pending == 0, "a quiet start")
        with switch.silent():
            took = [await one_call(known, server, f"silent-{number}") for number in range(5)]
            await until(lambda: "has not answered" in str(known.status()["database"]["problem"]), "the status", 10)
            assert known.status()["journal"]["pending"] > 0
            took += [await one_call(known, server, f"later-{number}") for number in range(3)]
            assert max(took) < 1.0, took
        await until(lambda: server.parts.drain.pending == 0, "the drain", 20)
        await until(lambda: known.status()["database"]["problem"] is None, "the status", 10)
    names = [*(f"silent-{number}" for number in range(5)), *(f"later-{number}" for number in range(3))]
    await stored_once(known, *names)
    with switch.silent():
        began = time.monotonic()
        async with known.server() as (server, task):
            assert time.monotonic() - began < 6.0
            assert await one_call(known, server, "started") < 1.0
            began = time.monotonic()
            server.stop()
            await asyncio.wait({task}, timeout=20)
            assert time.monotonic() - began < 12.0
    async with known.server() as (server, _):
        await until(
            lambda: server.parts.configuration.met.is_set() and server.parts.drain.pending == 0, "the drain", 20
        )
    await stored_once(known, *names, "started")
