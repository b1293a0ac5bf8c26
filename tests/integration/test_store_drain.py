"""From the journal into the database: every entry once, whatever fails when; on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text

from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.disposition import Disposition
from callrouter.core.records import RecordingKind
from callrouter.errors import CallrouterError, DatabaseError
from callrouter.store import calls, drain, recordings
from callrouter.store.call_save import save_calls
from callrouter.store.database import Database
from callrouter.store.drain import Drain, LedgerPosition, get_ledger_position, open_logs, set_ledger_position
from callrouter.store.jobs import list_jobs
from callrouter.store.journal import Journal, Position
from callrouter.store.models import CallEventRow
from callrouter.store.recordings import RecordingFile
from callrouter.store.upsert import insert

T = 1_800_000_000.0


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "journal", fsync_interval=1000, segment_bytes=1500)
    yield made
    made.close()


def begin(journal: Journal, call: str) -> None:
    journal.append(call, e.CallArrived(T, call, f"chan-{call}", "+12025550100", "+12025550101", None, "t"))
    journal.append(call, note.Routed(T + 0.1, "it is ours", config_version=1))


def talk(journal: Journal, call: str) -> None:
    journal.append(call, note.LegPlanned(T + 1, "target", f"{call}-leg", "t1", "desk", "PJSIP/desk", 25, "it is so"))
    journal.append(call, e.LegStarted(T + 1, f"{call}-leg", "chan-b"))
    journal.append(call, e.LegRinging(T + 2, f"{call}-leg"))
    journal.append(call, note.RecordingPlanned(T + 5, f"{call}-rec", RecordingKind.CONVERSATION, f"{call}-leg"))
    journal.append(call, e.LegAnswered(T + 5, f"{call}-leg"))


def end(journal: Journal, call: str) -> None:
    journal.append(call, e.DialReturned(T + 65, f"{call}-leg", "ANSWER", 16))
    journal.append(call, e.CallerHungUp(T + 65.5))
    journal.append(call, note.Concluded(T + 65.5, Disposition.ANSWERED, "desk answered"))


def whole(journal: Journal, call: str) -> None:
    for part in (begin, talk, end):
        part(journal, call)


async def stored(database: Database) -> list[calls.CallRow]:
    async with database.session(read_only=True) as session:
        return await calls.list_calls(session)


async def events(database: Database) -> int:
    async with database.session(read_only=True) as session:
        return await session.scalar(select(func.count()).select_from(CallEventRow)) or 0


async def test_a_finished_call_has_its_record_its_log_and_its_job(database: Database, journal: Journal) -> None:
    whole(journal, "a")
    assert await Drain(journal, database).flush(10)
    async with database.session(read_only=True) as session:
        call = await calls.get_call(session, "a")
        log = await calls.call_log(session, "a")
        jobs = await list_jobs(session)
    assert call.record.disposition is Disposition.ANSWERED
    assert (call.record.answered_by, call.record.talk_seconds, call.record.ring_seconds) == ("desk", 60.0, 3.0)
    assert [leg.target for leg in call.record.legs] == ["desk"]
    assert [line.seq for line in log] == list(range(1, 11))
    assert log[2].value == note.LegPlanned(T + 1, "target", "a-leg", "t1", "desk", "PJSIP/desk", 25, "it is so")
    assert [(job.kind, job.payload) for job in jobs] == [("finish_recording", {"recording_id": "a-rec"})]


async def test_a_call_in_progress_is_listed_and_has_no_job_yet(database: Database, journal: Journal) -> None:
    begin(journal, "a")
    drained = Drain(journal, database)
    assert await drained.flush(10)
    assert [(call.id, call.disposition) for call in await stored(database)] == [("a", None)]
    talk(journal, "a")
    assert await drained.flush(10)
    async with database.session(read_only=True) as session:
        assert [call.id for call in await calls.open_calls(session)] == ["a"]
        assert await list_jobs(session) == []
    end(journal, "a")
    assert await drained.flush(10)
    assert [call.disposition for call in await stored(database)] == [Disposition.ANSWERED]


async def test_an_entry_after_the_end_is_in_the_record(database: Database, journal: Journal) -> None:
    whole(journal, "a")
    drained = Drain(journal, database)
    assert await drained.flush(10)
    async with database.session() as session:
        file = RecordingFile("p", "flac", 1, "a" * 64, 60.0, -20.0, -20.0)
        await recordings.recording_finished(session, "a-rec", file)
    journal.append("a", note.Tagged(T + 70, "x", ("late",)))
    assert await drained.flush(10)
    async with database.session(read_only=True) as session:
        call = await calls.get_call(session, "a")
        assert call.record.tags == ("late",)
        assert call.recordings[0].path == "p"
        assert len(await list_jobs(session)) == 1


STEPS: list[tuple[str, str]] = [
    ("append_events", "before the entries"),
    ("save_calls", "before the record"),
    ("enqueue_all", "before the job"),
    ("_move", "before the position"),
    ("commit", "before the commit"),
    ("after", "after the commit"),
]


@pytest.mark.parametrize("where", [step for step, _ in STEPS], ids=[name for _, name in STEPS])
@pytest.mark.parametrize("batch", [1, 3, 500])
async def test_killed_at_any_step_every_entry_is_stored_once(
    database: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch, where: str, batch: int
) -> None:
    """The drain dies at that step again and again; each time a new one goes on."""
    for call in "abc":
        whole(journal, call)
    journal.sync()

    class Killed(BaseException):
        pass

    times = 0

    def dies() -> None:
        nonlocal times
        times += 1
        if times in (1, 2, 4, 7, 11, 16, 22, 29):
            raise Killed

    def deadly(original: Callable[..., Any]) -> Callable[..., Any]:
        async def die_first(*args: Any, **kwargs: Any) -> Any:
            result = await original(*args, **kwargs) if where == "after" else None
            dies()
            return result if where == "after" else await original(*args, **kwargs)

        return die_first

    if where == "_move":
        monkeypatch.setattr(Drain, "_move", deadly(Drain._move))
    elif where == "commit":
        kept = Drain._move

        async def move(self: Drain, session: Any, position: Position) -> None:
            await kept(self, session, position)
            await session.flush()
            dies()

        monkeypatch.setattr(Drain, "_move", move)
    elif where == "after":
        monkeypatch.setattr(Drain, "step", deadly(Drain.step))
    else:
        monkeypatch.setattr(drain, where, deadly(getattr(drain, where)))
    for _ in range(20):
        one = Drain(journal, database, batch=batch)
        try:
            while one.position < journal.end:
                await one.step()
            break
        except Killed:
            continue
    else:
        pytest.fail("the drain never came to an end")
    assert times > 2
    assert await events(database) == 30
    assert sorted(call.id for call in await stored(database)) == ["a", "b", "c"]
    async with database.session(read_only=True) as session:
        assert len(await list_jobs(session)) == 3
        for call in "abc":
            assert [line.seq for line in await calls.call_log(session, call)] == list(range(1, 11))


async def test_two_drains_at_once_store_everything_once(database: Database, journal: Journal) -> None:
    for number in range(10):
        whole(journal, f"c{number}")
    journal.sync()

    async def work() -> None:
        one = Drain(journal, database, batch=7)
        while one.position < journal.end:
            try:
                await one.step()
            except CallrouterError:
                await asyncio.sleep(0)

    await asyncio.wait_for(asyncio.gather(work(), work()), 30)
    assert await events(database) == 100
    assert len(await stored(database)) == 10


async def test_drained_segments_go(database: Database, journal: Journal) -> None:
    for number in range(10):
        whole(journal, f"c{number}")
    journal.sync()
    assert len(list(journal.directory.glob("*.jsonl"))) > 3
    assert await Drain(journal, database, batch=5).flush(20)
    assert len(list(journal.directory.glob("*.jsonl"))) == 1


async def test_a_restart_goes_on_where_the_last_one_stopped(database: Database, journal: Journal) -> None:
    begin(journal, "a")
    assert await Drain(journal, database).flush(10)
    journal.close()
    again = Journal(journal.directory)
    try:
        talk(again, "a")
        end(again, "a")
        drained = Drain(again, database)
        assert await drained.flush(10)
        assert await events(database) == 10
        assert drained.pending == 0
    finally:
        again.close()


async def test_a_journal_that_was_thrown_away_begins_anew(database: Database, journal: Journal) -> None:
    whole(journal, "a")
    assert await Drain(journal, database).flush(10)
    journal.close()
    shutil.rmtree(journal.directory)
    again = Journal(journal.directory)
    try:
        whole(again, "b")
        assert await Drain(again, database).flush(10)
        assert sorted(call.id for call in await stored(database)) == ["a", "b"]
    finally:
        again.close()


async def test_a_database_that_is_away_is_waited_for(tmp_path: Path, journal: Journal) -> None:
    database = Database(f"sqlite:///{tmp_path / 'late.db'}")
    whole(journal, "a")
    journal.sync()
    waiting = Drain(journal, database, interval=0.01)
    assert not await waiting.flush(0.05)
    running = asyncio.create_task(waiting.run())
    async with asyncio.timeout(20):
        while "does not exist" not in (waiting.problem or ""):
            await asyncio.sleep(0.01)
        assert waiting.pending > 0
        await database.upgrade()
        while waiting.pending:
            await asyncio.sleep(0.01)
    assert waiting.problem is None
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [call.id for call in await stored(database)] == ["a"]
    await database.dispose()


async def test_one_call_that_cannot_be_stored_keeps_no_other_out(
    database: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole(journal, "bad")
    whole(journal, "good")

    async def refuse(session: Any, records: Any) -> list[str]:
        if "bad" in [record.id for record in records]:
            await session.execute(
                insert(session, CallEventRow).values(call_id=None, seq=None, at=None, type=None, data={})
            )
        return await save_calls(session, records)

    monkeypatch.setattr(drain, "save_calls", refuse)
    assert await Drain(journal, database).flush(10)
    assert [call.id for call in await stored(database)] == ["good"]
    assert await events(database) == 20


async def test_entries_of_another_version_are_kept(database: Database, journal: Journal) -> None:
    begin(journal, "a")
    journal.sync()
    segment = next(journal.directory.glob("*.jsonl"))
    with segment.open("ab") as file:
        file.write(b'{"call":"a","seq":3,"at":1.0,"type":"FromTheFuture","data":{"x":1}}\n')
    journal.close()
    again = Journal(journal.directory)
    try:
        end(again, "a")
        assert await Drain(again, database).flush(10)
    finally:
        again.close()
    async with database.session(read_only=True) as session:
        assert [line.type for line in await calls.call_log(session, "a")][2] == "FromTheFuture"
    assert [call.disposition for call in await stored(database)] == [Disposition.ANSWERED]


async def test_recovery_finds_calls_in_the_journal_and_in_the_database(database: Database, journal: Journal) -> None:
    begin(journal, "lost")
    whole(journal, "over")
    assert await Drain(journal, database).flush(10)
    journal.close()
    shutil.rmtree(journal.directory)
    again = Journal(journal.directory)
    try:
        begin(again, "here")
        again.sync()
        found = await open_logs(again, database)
        assert sorted(found) == ["here", "lost"]
        assert [type(entry).__name__ for entry in found["lost"]] == ["CallArrived", "Routed"]
        assert again.append("lost", e.CallerHungUp(T + 9)) == 3
        # A call that has ended in the journal is not open, whatever the database still says.
        assert await Drain(again, database).flush(10)
        end(again, "here")
        again.append("lost", note.Concluded(T + 9, Disposition.ABANDONED, "hung up"))
        assert await open_logs(again, database) == {}
    finally:
        again.close()


async def test_recovery_does_without_a_database(tmp_path: Path, journal: Journal) -> None:
    begin(journal, "a")
    journal.sync()
    assert list(await open_logs(journal, Database(f"sqlite:///{tmp_path / 'none.db'}"))) == ["a"]


async def test_a_full_disk_delays_and_loses_nothing(database: Database, tmp_path: Path) -> None:
    room = 700

    def write(fd: int, data: bytes) -> int:
        nonlocal room
        if room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room -= len(data)
        return os.write(fd, data)

    full = Journal(tmp_path / "full", fsync_interval=0.01, write=write)
    try:
        whole(full, "a")
        assert full.problem is not None
        drained = Drain(full, database)
        assert not await drained.flush(0.2)
        room = 1_000_000
        assert await drained.flush(10)
    finally:
        full.close()
    assert await events(database) == 10
    assert [call.disposition for call in await stored(database)] == [Disposition.ANSWERED]


async def test_a_database_that_loses_its_tables_is_reported(database: Database, journal: Journal) -> None:
    whole(journal, "a")
    journal.sync()
    async with database.session() as session:
        await session.execute(text("DROP TABLE call_event"))
    with pytest.raises(DatabaseError, match="is not set up"):
        await Drain(journal, database).step()


async def test_the_ledgers_position_is_kept(database: Database) -> None:
    for position in (LedgerPosition("1", 10), LedgerPosition("2", 2**40)):
        async with database.session() as session:
            await set_ledger_position(session, "cdr", position)
        async with database.session(read_only=True) as session:
            assert await get_ledger_position(session, "cdr") == position
            assert await get_ledger_position(session, "other") is None


async def test_an_earlier_state_of_the_journal_in_its_place_is_drained_too(database: Database, tmp_path: Path) -> None:
    """Its disk was restored, and the database is further: what comes now must not be taken for what was stored."""
    with contextlib.closing(Journal(tmp_path / "j")) as before:
        whole(before, "a")
        assert await Drain(before, database).flush(10)
    shutil.copytree(tmp_path / "j", tmp_path / "kept")
    with contextlib.closing(Journal(tmp_path / "j")) as later:
        whole(later, "b")
        assert await Drain(later, database).flush(10)
    shutil.rmtree(tmp_path / "j")
    (tmp_path / "kept").rename(tmp_path / "j")
    with contextlib.closing(Journal(tmp_path / "j")) as restored:
        begin(restored, "c")
        assert await Drain(restored, database).flush(10)
        talk(restored, "c")
        end(restored, "c")
        assert await Drain(restored, database).flush(10)
    assert sorted(row.id for row in await stored(database)) == ["a", "b", "c"]
