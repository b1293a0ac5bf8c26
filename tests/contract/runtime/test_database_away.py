"""No call waits for the database: away at the start, away meanwhile, and a disk that takes nothing."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest
import structlog
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from callrouter.bootstrap import make_worker, work
from callrouter.core.disposition import Disposition
from callrouter.core.records import CallRecord
from callrouter.errors import SchemaError
from callrouter.runtime.service import Server
from callrouter.store import drain as drain_module
from callrouter.store.call_save import save_calls
from callrouter.store.calls import call_log, list_calls
from callrouter.store.database import Database
from callrouter.store.drain import FINISH_RECORDING
from callrouter.store.jobs import enqueue
from callrouter.store.journal import Position, read
from callrouter.store.migrate import head
from callrouter.store.snapshot_file import SNAPSHOT_FILE
from tests.contract.runtime.support import until
from tests.contract.runtime.world import (  # noqa: F401 - fixtures
    DID,
    DIRECT,
    World,
    in_menu,
    talking,
    tones,
    waits,
    world,
)

TOMORROW = "UPDATE alembic_version SET version_num = 'of-tomorrow'"


def database_file(world: World) -> Path:
    path = Database(world.settings.database).path
    assert path is not None
    return path


def snapshot_file(world: World) -> Path:
    return world.settings.home_dir / SNAPSHOT_FILE


@pytest.fixture
async def known(world: World) -> World:
    """A server has run here before."""
    async with world.server():
        pass
    return world


def remove(path: Path) -> None:
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink()


@contextmanager
def locked(path: Path, *, readers: bool) -> Iterator[None]:
    """Somebody else has the database for himself.

    :param readers: those who read are kept out too
    """
    holder = sqlite3.connect(path, isolation_level=None)
    try:
        if readers:
            holder.execute("PRAGMA locking_mode=EXCLUSIVE")
        holder.execute("BEGIN EXCLUSIVE")
        holder.execute("UPDATE config_state SET version = version")
        yield
        holder.execute("ROLLBACK")
    finally:
        holder.close()


async def one_call(world: World, server: Server, channel: str) -> float:
    """A caller who is connected and hangs up; the seconds until the talk phase began."""
    began = time.monotonic()
    world.asterisk.call(channel, did=DIRECT)
    await until(lambda: "continue cr-dial" in world.asterisk.of(channel), "the talk phase")
    took = time.monotonic() - began
    for status in ("", "ANSWER"):
        world.asterisk.dial(channel, f"peer-{channel}", status)
    call = server.parts.dispatcher.get(channel)
    assert call is not None
    await until(lambda: call.session.wait.answered_at is not None, "the answer")  # type: ignore[union-attr]
    world.asterisk.hangup(channel)
    await until(lambda: server.parts.dispatcher.get(channel) is None, "the end")
    return took


async def stored_once(world: World, *channels: str) -> None:
    """Every call, and every entry of its log as the journal has it, is in the database once."""
    journal = [line for line, _ in read(world.settings.journal_dir, Position()) if line is not None]
    database = Database(world.settings.database)
    try:
        async with database.session(read_only=True) as session:
            rows = await list_calls(session)
            logs = {row.id: await call_log(session, row.id) for row in rows}
    finally:
        await database.dispose()
    assert sorted(record.uniqueid for record in await world.stored()) == sorted(channels)
    assert {row.disposition for row in rows} == {Disposition.ANSWERED}
    for call_id, lines in logs.items():
        assert [line.seq for line in lines] == list(range(1, len(lines) + 1))
        assert [line.type for line in lines] == [line.type for line in journal if line.call == call_id]


# -- at the start ------------------------------------------------------------------------------------------------------


@contextmanager
def absent(path: Path) -> Iterator[None]:
    aside = path.with_name("aside")
    aside.mkdir()
    for each in path.parent.glob(f"{path.name}*"):
        shutil.move(each, aside)
    yield
    for each in aside.iterdir():
        shutil.move(each, path.parent)


@contextmanager
def exclusively_locked(path: Path) -> Iterator[None]:
    with locked(path, readers=True):
        yield


@contextmanager
def damaged(path: Path) -> Iterator[None]:
    whole = path.read_bytes()
    path.write_bytes(b"something else" * 1000)
    yield
    remove(path)
    path.write_bytes(whole)


@asynccontextmanager
async def started(
    world: World, trouble: Callable[[Path], AbstractContextManager[None]] = absent
) -> AsyncIterator[tuple[Server, ExitStack]]:
    """A server that was started in trouble with its database, and what ends the trouble."""
    with ExitStack() as over:
        over.enter_context(trouble(database_file(world)))
        async with world.server() as (server, task):
            if task.done():
                task.result()
            yield server, over


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


@pytest.mark.parametrize(
    "trouble, said",
    [
        (absent, "does not exist"),
        (exclusively_locked, "(is locked|has not answered)"),
        (damaged, "is no SQLite database"),
    ],
    ids=["absent", "locked", "damaged"],
)
async def test_a_start_without_the_database_takes_calls_and_stores_them_later(
    known: World, trouble: Callable[[Path], AbstractContextManager[None]], said: str
) -> None:
    before = snapshot_file(known).read_bytes()
    with structlog.testing.capture_logs() as logged:
        async with started(known, trouble) as (server, over):
            for each in ("a", "b"):
                assert await one_call(known, server, each) < 1.0
            await in_menu(known, server, "c")
            await until(lambda: known.status().get("journal", {}).get("pending"), "the backlog in the status")
            status = known.status()
            assert re.search(said, status["database"]["problem"])
            assert pytest.approx(time.time(), abs=60) == status["config_kept_at"]
            assert status["config_version"] == 6
            assert status["journal"]["problem"] is None
            over.close()
            await until(lambda: server.status()["database"]["problem"] is None, "the database", 20)
            await until(lambda: server.status()["config_kept_at"] is None, "the database's routing", 10)
            known.asterisk.digit("c", "1")
            await until(lambda: "continue cr-dial" in known.asterisk.of("c"), "the choice")
            for dialled in ("", "ANSWER"):
                known.asterisk.dial("c", "peer-c", dialled)
            known.asterisk.hangup("c")
            await until(lambda: server.parts.dispatcher.active == 0, "the end")
            await until(lambda: server.parts.drain.pending == 0, "the drain", 20)
            await stored_once(known, "a", "b", "c")
    events = [line["event"] for line in logged]
    (away,) = [line for line in logged if line["event"] == "database_away"][:1]
    assert re.search(said, away["problem"])
    assert events.index("database_away") < events.index("routing_from_snapshot") < events.index("database_back")
    assert "part_failed" not in events
    assert snapshot_file(known).read_bytes() != before, "it is written anew"


async def test_after_a_start_from_the_file_everything_is_read_anew(known: World) -> None:
    """A database that was restored meanwhile may count its versions as the one before did."""
    path = database_file(known)
    async with started(known) as (server, over):
        assert server.parts.configuration.table is not None
        change(path.with_name("aside") / path.name, "UPDATE target SET ring_seconds = 41")
        over.close()
        await until(lambda: server.status()["config_kept_at"] is None, "the database's routing", 10)
        entry = server.parts.configuration.table.entries[DIRECT]
        assert entry.destinations["ana"].target.ring_seconds == 41
        assert server.parts.configuration.table.version == 6


async def test_a_database_of_another_version_stays_an_error(known: World) -> None:
    change(database_file(known), TOMORROW)
    with pytest.raises(SchemaError, match="newer callrouter"):
        async with known.server(ready=False) as (_, task):
            await task


async def test_a_database_that_comes_back_in_another_version_is_not_written_to(known: World) -> None:
    path = database_file(known)
    async with started(known) as (server, over):
        change(path.with_name("aside") / path.name, TOMORROW)
        await one_call(known, server, "a")
        over.close()
        await until(lambda: "newer callrouter" in str(server.status()["database"]["problem"]), "the problem", 10)
        assert await one_call(known, server, "b") < 1.0
        assert server.status()["journal"]["pending"] > 0
        with closing(sqlite3.connect(path)) as holder:
            assert holder.execute("SELECT count(*) FROM call_event").fetchone() == (0,)
        change(path, f"UPDATE alembic_version SET version_num = '{head()}'")
        await until(lambda: server.parts.drain.pending == 0, "the drain", 20)
    await stored_once(known, "a", "b")


async def test_calls_in_progress_are_taken_up_without_the_database(known: World) -> None:
    async with known.server() as (server, task):
        await talking(known, server, "call-1")
        server.stop()
        await asyncio.wait_for(task, 20)
    async with started(known) as (server, over):
        await until(lambda: server.parts.dispatcher.channels == {"call-1"}, "the adoption")
        known.asterisk.hangup("call-1")
        await until(lambda: server.parts.dispatcher.active == 0, "the end")
        over.close()
        await until(lambda: server.parts.drain.pending == 0, "the drain", 20)
    await stored_once(known, "call-1")


# -- meanwhile ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["locked", "gone", "read-only", "full"])
async def test_no_call_waits_for_a_database_in_trouble(known: World, how: str) -> None:
    async with known.server() as (server, _):
        path = database_file(known)
        aside = path.with_name("aside")
        engine = server.parts.database.engine.sync_engine
        pragma = {"read-only": "PRAGMA query_only=ON", "full": "PRAGMA max_page_count=1"}.get(how, "")
        await until(lambda: server.parts.drain.pending == 0, "a quiet start")

        def spoil(connection: object, *_: object) -> None:
            cursor = connection.cursor()  # type: ignore[attr-defined]
            cursor.execute(pragma)
            cursor.close()

        holder = None
        if how == "locked":
            holder = sqlite3.connect(path, isolation_level=None)
            holder.execute("BEGIN EXCLUSIVE")
        elif how == "gone":
            path.rename(aside)
        else:
            event.listen(engine, "checkout", spoil)
        took = [await one_call(known, server, f"{how}-{number}") for number in range(6)]
        assert max(took) < 1.0, took
        await until(lambda: known.status()["database"]["problem"], "the status", 10)
        assert known.status()["journal"]["pending"] > 0
        # More calls while the drain tries again and again.
        took = [await one_call(known, server, f"{how}-{number}") for number in range(6, 10)]
        assert max(took) < 1.0, took
        if holder is not None:
            holder.execute("ROLLBACK")
            holder.close()
        elif how == "gone":
            aside.rename(path)
        else:
            pragma = {"read-only": "PRAGMA query_only=OFF", "full": "PRAGMA max_page_count=1000000"}[how]
        await until(lambda: server.parts.drain.pending == 0, "the drain", 20)
        await until(lambda: known.status()["database"]["problem"] is None, "the status", 10)
    await stored_once(known, *(f"{how}-{number}" for number in range(10)))


async def test_while_somebody_writes_for_long_changes_of_the_routing_are_still_read(known: World) -> None:
    """To look at the configuration takes no lock: in a locked database the watch goes on without a complaint."""
    async with known.server() as (server, _):
        with locked(database_file(known), readers=False):
            for _ in range(5):
                assert await server.parts.configuration._ask() is None


async def test_a_full_disk_of_the_journal_keeps_no_call_waiting_and_nothing_is_lost(
    known: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with known.server() as (server, _):
        journal = server.parts.journal
        await one_call(known, server, "before")
        room = 700

        def nearly_full(fd: int, data: bytes) -> int:
            nonlocal room
            if room <= 0:
                raise OSError(28, "No space left on device")
            taken = os.write(fd, data[:room])
            room -= taken
            return taken

        monkeypatch.setattr(journal, "_write", nearly_full)
        took = [await one_call(known, server, f"full-{number}") for number in range(5)]
        assert max(took) < 1.0, took
        began = time.monotonic()
        await until(lambda: "No space left" in str(known.status()["journal"]["problem"]), "the status", 5)
        assert time.monotonic() - began < 3.0
        assert known.status()["journal"]["pending"] > 0
        monkeypatch.setattr(journal, "_write", os.write)
        await until(lambda: known.status()["journal"] == {"pending": 0, "problem": None}, "the drain", 10)
        assert journal.lost_entries == 0
    await stored_once(known, "before", *(f"full-{number}" for number in range(5)))


async def test_a_transaction_that_sqlite_takes_back_by_itself_is_not_half_stored(
    known: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk or a failed write ends the whole transaction, savepoints too; what follows must not go in alone."""
    async with known.server() as (server, _):
        await until(lambda: server.parts.drain.pending == 0, "a quiet start")
        times = 0

        async def full(session: AsyncSession, records: Sequence[CallRecord]) -> list[str]:
            nonlocal times
            times += 1
            if times > 3:
                return await save_calls(session, records)
            await session.execute(text("ROLLBACK"))
            raise OperationalError("INSERT", {}, sqlite3.OperationalError("disk I/O error"))

        monkeypatch.setattr(drain_module, "save_calls", full)
        with structlog.testing.capture_logs() as logged:
            for number in range(4):
                await one_call(known, server, f"a-{number}")
            await until(lambda: times > 3 and server.parts.drain.pending == 0, "the drain", 20)
        assert "call_not_stored" not in [line["event"] for line in logged]
        assert "drain_waits" in [line["event"] for line in logged]
    await stored_once(known, *(f"a-{number}" for number in range(4)))


# -- worker, Asterisk --------------------------------------------------------------------------------------------------


async def test_the_worker_waits_for_the_database_and_goes_on(known: World) -> None:
    with structlog.testing.capture_logs() as logged:
        with absent(database_file(known)):
            task = asyncio.create_task(work(known.settings))
            await until(lambda: "jobs_wait" in [line["event"] for line in logged], "the worker's complaint")
            assert not task.done()
        database = Database(known.settings.database)
        async with database.session() as session:
            await enqueue(session, FINISH_RECORDING, {"recording_id": "none"})
        await until(lambda: "job_failed" in [line["event"] for line in logged], "the job's first attempt", 20)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(task, 10)
        await database.dispose()


async def test_a_worker_that_waits_can_be_stopped(world: World) -> None:
    remove(database_file(world))
    worker = make_worker(world.settings, Database(world.settings.database))
    waiting = asyncio.create_task(worker.database_there())
    await asyncio.sleep(0)
    worker.stop()
    assert await asyncio.wait_for(waiting, 5) is False
