"""The job that finishes recordings, on a real database and real files."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from callrouter.config import Settings
from callrouter.core.disposition import LegResult
from callrouter.core.records import CallRecord, Leg, RecordingKind, RecordingRef, RecordingStatus
from callrouter.errors import InputError, NotFoundError, ServiceError
from callrouter.jobs.finish_recording import (
    RecordingNotReady,
    finish_recording,
)
from callrouter.jobs.queue import Job, Worker, enqueue, list_jobs
from callrouter.media.recordings import finish
from callrouter.store.call_save import save_call
from callrouter.store.database import Database
from callrouter.store.recordings import StoredRecording, get_recording
from tests.kept_recordings import settings

__all__ = ["settings"]

CALL = "0195d3b0-7d3c-7aaa-8bbb-000000000001"
LEG = f"{CALL}-l1"


@pytest.fixture
async def database(settings: Settings, migrated_sqlite: Path) -> AsyncIterator[Database]:
    shutil.copy(migrated_sqlite, settings.home_dir / "callrouter.db")
    database = Database(settings.database)
    yield database
    await database.dispose()


async def a_call(
    database: Database,
    *,
    ended_ago: float | None = 5.0,
    talk: float = 4.0,
    kind: RecordingKind = RecordingKind.CONVERSATION,
) -> RecordingRef:
    ended = time.time() - (ended_ago or 0.0)
    answered = ended - talk
    conversation = kind is RecordingKind.CONVERSATION
    leg = Leg(
        LEG, 1, None, "front-desk", "PJSIP/x", answered - 2, answered - 1, answered, ended, 16, LegResult.ANSWERED
    )
    ref = RecordingRef(LEG if conversation else f"{CALL}-m2", kind, LEG if conversation else None, answered)
    record = CallRecord(
        id=CALL,
        uniqueid="1795300000.1",
        linkedid=None,
        did="+12025550123",
        caller="+12025550199",
        caller_name=None,
        trunk=None,
        started_at=answered - 3,
        answered_at=answered,
        ended_at=None if ended_ago is None else ended,
        legs=(leg,),
        recordings=(ref,),
    )
    async with database.session() as session:
        await save_call(session, record)
    return ref


def write(path: Path, seconds: float, amplitude: float = 0.2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = amplitude * np.sin(2 * np.pi * 440 * np.arange(round(seconds * 8000)) / 8000)
    sf.write(path, tone, 8000, subtype="PCM_16")


async def stored(database: Database, recording_id: str) -> StoredRecording:
    async with database.session(read_only=True) as session:
        return await get_recording(session, recording_id)


async def test_conversation_is_finished_and_its_facts_are_stored(database: Database, settings: Settings) -> None:
    ref = await a_call(database)
    write(settings.recording_spool / f"{LEG}-rx.wav", 4.0)
    write(settings.recording_spool / f"{LEG}-tx.wav", 4.0)
    await finish_recording(database, settings, {"recording_id": ref.id})

    row = await stored(database, ref.id)
    assert (row.status, row.problem, row.format, row.seconds) == (RecordingStatus.OK, None, "flac", 4.0)
    assert row.path is not None
    assert row.path.endswith(f"/{LEG}.flac")
    assert row.sha256 is not None
    assert row.left_dbfs == pytest.approx(-17, abs=0.5)
    file = settings.recordings / row.path
    assert file.stat().st_size == row.size_bytes
    assert sf.info(file).channels == 2
    assert list(settings.recording_spool.iterdir()) == []

    await finish_recording(database, settings, {"recording_id": ref.id})
    again = await stored(database, ref.id)
    assert (again.status, again.sha256, again.path) == (row.status, row.sha256, row.path)


async def test_length_is_checked_against_the_legs_talk_time(database: Database, settings: Settings) -> None:
    ref = await a_call(database, talk=30.0)
    write(settings.recording_spool / f"{LEG}-rx.wav", 4.0)
    write(settings.recording_spool / f"{LEG}-tx.wav", 4.0, amplitude=0.0)
    await finish_recording(database, settings, {"recording_id": ref.id})
    row = await stored(database, ref.id)
    assert row.status is RecordingStatus.SUSPECT
    assert "it lasts 4.0 s, the conversation lasted 30.0 s" in (row.problem or "")
    assert "business (right): silent throughout" in (row.problem or "")


async def test_message_is_finished_with_one_channel(database: Database, settings: Settings) -> None:
    ref = await a_call(database, kind=RecordingKind.VOICEMAIL)
    write(settings.recording_spool / f"{ref.id}.wav", 3.0)
    await finish_recording(database, settings, {"recording_id": ref.id})
    row = await stored(database, ref.id)
    assert (row.status, row.seconds, row.right_dbfs) == (RecordingStatus.OK, 3.0, None)
    assert list(settings.recording_spool.iterdir()) == []


async def test_file_that_is_being_written_is_waited_for(database: Database, settings: Settings) -> None:
    ref = await a_call(database)
    for leg in ("rx", "tx"):
        path = settings.recording_spool / f"{LEG}-{leg}.wav"
        write(path, 4.0)
        data = bytearray(path.read_bytes())
        data[40:44] = bytes(4)  # Asterisk writes the length when it closes the file
        path.write_bytes(data)
    with pytest.raises(RecordingNotReady, match="still being written"):
        await finish_recording(database, settings, {"recording_id": ref.id})
    assert (await stored(database, ref.id)).status is RecordingStatus.PENDING

    for path in settings.recording_spool.iterdir():
        os.utime(path, (time.time() - 120,) * 2)  # Asterisk died: nobody writes any more
    await finish_recording(database, settings, {"recording_id": ref.id})
    row = await stored(database, ref.id)
    assert (row.status, row.seconds) == (RecordingStatus.SUSPECT, 4.0)
    assert "header says 0.0 s" in (row.problem or "")


async def test_call_that_is_not_over_is_waited_for(database: Database, settings: Settings) -> None:
    ref = await a_call(database, ended_ago=None)
    with pytest.raises(RecordingNotReady, match="not over"):
        await finish_recording(database, settings, {"recording_id": ref.id})


async def test_recording_that_never_appears_is_missing_with_a_reason(database: Database, settings: Settings) -> None:
    ref = await a_call(database, ended_ago=5.0)
    with pytest.raises(RecordingNotReady, match=r"not in .* yet"):
        await finish_recording(database, settings, {"recording_id": ref.id})
    ref = await a_call(database, ended_ago=60.0)
    await finish_recording(database, settings, {"recording_id": ref.id})
    row = await stored(database, ref.id)
    assert (row.status, row.path) == (RecordingStatus.MISSING, None)
    assert "no file was recorded" in (row.problem or "")


async def test_one_leg_alone_is_waited_for_then_kept(database: Database, settings: Settings) -> None:
    ref = await a_call(database, ended_ago=5.0)
    write(settings.recording_spool / f"{LEG}-rx.wav", 4.0)
    with pytest.raises(RecordingNotReady):
        await finish_recording(database, settings, {"recording_id": ref.id})
    await a_call(database, ended_ago=60.0)
    await finish_recording(database, settings, {"recording_id": ref.id})
    row = await stored(database, ref.id)
    assert row.status is RecordingStatus.SUSPECT
    assert "business (right): its file is missing" in (row.problem or "")


async def test_missing_recordings_directory_leaves_raw_legs_and_is_tried_again(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    elsewhere = Settings(home=settings.home, recordings_dir=str(tmp_path / "disk"))
    ref = await a_call(database)
    for leg in ("rx", "tx"):
        write(settings.recording_spool / f"{LEG}-{leg}.wav", 4.0)
    with pytest.raises(ServiceError, match="is missing"):
        await finish_recording(database, elsewhere, {"recording_id": ref.id})
    assert (await stored(database, ref.id)).status is RecordingStatus.PENDING
    (tmp_path / "disk").mkdir()
    await finish_recording(database, elsewhere, {"recording_id": ref.id})
    assert (await stored(database, ref.id)).status is RecordingStatus.OK
    assert list(settings.recording_spool.iterdir()) == []


async def test_payload_and_recording_are_checked(database: Database, settings: Settings) -> None:
    with pytest.raises(InputError):
        await finish_recording(database, settings, {})
    with pytest.raises(NotFoundError):
        await finish_recording(database, settings, {"recording_id": "0195d3b0-none"})


async def test_worker_finishes_a_recording(database: Database, settings: Settings) -> None:
    ref = await a_call(database)
    for leg in ("rx", "tx"):
        write(settings.recording_spool / f"{LEG}-{leg}.wav", 4.0)
    async with database.session() as session:
        await enqueue(session, "finish", {"recording_id": ref.id})

    async def run(job: Job) -> None:
        await finish_recording(database, settings, job.payload)

    worker = Worker(database, {"finish": run}, poll_seconds=0.05)
    assert await worker.run_until_empty(30)
    assert (await stored(database, ref.id)).status is RecordingStatus.OK
    async with database.session(read_only=True) as session:
        (job,) = await list_jobs(session)
    assert (job.state, job.attempts) == ("done", 1)


async def test_event_loop_runs_on_while_a_recording_is_encoded(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = await a_call(database)
    for leg in ("rx", "tx"):
        write(settings.recording_spool / f"{LEG}-{leg}.wav", 4.0)
    loop = asyncio.get_running_loop()

    def needs_the_loop(*args: object) -> object:
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(timeout=10)
        return finish(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("callrouter.jobs.finish_recording.finish", needs_the_loop)
    await finish_recording(database, settings, {"recording_id": ref.id})
    assert (await stored(database, ref.id)).status is RecordingStatus.OK
