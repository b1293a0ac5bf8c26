"""The chain of manifests on each database: killed anywhere, workers at once, it stays one chain."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from typing import Any

import pytest
import soundfile as sf
from sqlalchemy import text

from callrouter.config import Settings
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.events import CallArrived
from callrouter.core.records import ConsentResponse, RecordingKind, RecordingStatus
from callrouter.errors import ConflictError, ServiceError
from callrouter.jobs import finish_recording as job
from callrouter.jobs import seal_recording
from callrouter.jobs.finish_recording import finish_recording
from callrouter.jobs.queue import Job, Worker, list_jobs
from callrouter.media import manifest
from callrouter.media.manifest import FIRST
from callrouter.store import config, flows
from callrouter.store.call_save import append_events
from callrouter.store.codec import Line, to_builtins
from callrouter.store.database import Database
from callrouter.store.drain import FINISH_RECORDING
from callrouter.store.jobs import enqueue
from callrouter.store.recording_chain import chain_head, extend_chain, lock_chain
from callrouter.store.recordings import get_recording
from tests.kept_recordings import (
    CALLER,
    DID,
    ENDED,
    Killed,
    a_recording,
    files,
    findings,
    finish,
    settings,
    stored,
    told,
)

__all__ = ["settings"]


async def test_each_recording_follows_the_one_before_it(database: Database, settings: Settings) -> None:
    ids = [await a_recording(database, settings) for _ in range(2)]
    ids.append(await a_recording(database, settings, kind=RecordingKind.VOICEMAIL))
    await finish(database, settings, *ids)
    rows = [await stored(database, each) for each in ids]
    manifests = [told(settings, row) for row in rows]
    assert [each["seq"] for each in manifests] == [1, 2, 3]
    assert [each["previous_sha256"] for each in manifests] == [FIRST, rows[0].manifest_sha256, rows[1].manifest_sha256]
    first, _, message = manifests
    assert (first["recording"], first["call"], first["leg"]) == (ids[0], rows[0].call_id, rows[0].leg_id)
    assert (first["started_at"], first["ended_at"]) == ("2026-11-21T22:26:39.000Z", "2026-11-21T22:26:40.000Z")
    assert first["audio"] == {
        "path": rows[0].path, "size_bytes": rows[0].size_bytes, "sha256": rows[0].sha256, "format": "flac",
        "sample_rate": 8000, "channels": 2, "seconds": 1.0,
    }  # fmt: skip
    assert (first["gaps"], first["pauses"], first["consent"], first["flow"]) == ([], [], None, None)
    assert first["policy"] == "the company records its conversations"
    assert (message["kind"], message["leg"], message["policy"]) == ("voicemail", None, "a message that the caller left")
    async with database.session(read_only=True) as session:
        head = await chain_head(session)
    assert head is not None
    assert (head.seq, head.sha256) == (3, rows[2].manifest_sha256)
    assert await findings(database, settings) == []
    # Who called whom stands in the database only.
    for path in settings.recordings.rglob("*.json"):
        assert not any(number in path.read_text() for number in ("5550123", "5550199", "Eve"))
    # Once more changes nothing.
    before = files(settings)
    await finish(database, settings, *ids)
    assert files(settings) == before
    assert [await stored(database, each) for each in ids] == rows


async def test_what_the_calls_log_and_flow_say_is_put_on_record(database: Database, settings: Settings) -> None:
    recording = await a_recording(database, settings, talk=1.0)
    text_of_flow = """
start: dial
nodes:
  dial: {type: dial, target: desk, record: yes, on_busy: end, on_no_answer: end, on_failed: end}
  end: {type: hangup}
"""
    async with database.session() as session:
        await config.add_company(session, name="acme", timezone="UTC", who="test")
        await config.add_target(session, "acme", name="desk", sip_uri="sip:desk@192.0.2.1", who="test")
        version = await flows.add_flow(session, "acme", name="front", text=text_of_flow, who="test")
        call = (await get_recording(session, recording)).call_id
        await session.execute(text("UPDATE call SET flow_version_id = :v WHERE id = :c"), {"v": version.id, "c": call})
        said: list[note.Note] = [
            note.Consented(ENDED - 4, "front@1/ask", "opt_in", ConsentResponse.AGREED, "ab" * 32, "1"),
            note.LegPlanned(ENDED - 3, "front@1/dial", recording, "", "desk", "PJSIP/x", 20, "rings"),
            note.Decided(ENDED - 3, "front@1/dial", "recorded", "node dial says force"),
            note.Decided(ENDED - 2, "front@1/other", "recorded", "of another leg"),
        ]
        lines = [Line(call, seq, each.at, type(each).__name__, to_builtins(each)) for seq, each in enumerate(said, 1)]
        await append_events(session, lines)
    await finish(database, settings, recording)
    found = told(settings, await stored(database, recording))
    assert (found["flow"], found["flow_version"]) == ("front@1", version.id)
    assert found["policy"] == "node dial says force"
    consent: Any = found["consent"]
    assert {name: consent[name] for name in ("node", "mode", "response", "digit", "script")} == {
        "node": "front@1/ask",
        "mode": "opt_in",
        "response": "agreed",
        "digit": "1",
        "script": "ab" * 32,
    }


async def test_gaps_are_stored_and_put_on_record(database: Database, settings: Settings) -> None:
    recording = await a_recording(database, settings, talk=2.0)
    short = settings.recording_spool / f"{recording}-tx.wav"
    sf.write(short, sf.read(short)[0][:8000], 8000, subtype="PCM_16")
    await finish(database, settings, recording)
    row = await stored(database, recording)
    gap = {"channel": "business", "start": 1.0, "end": 2.0, "seconds": 1.0, "why": "its file ends there"}
    assert row.gaps == (gap,)
    assert told(settings, row)["gaps"] == [gap]
    assert await findings(database, settings) == []


async def test_what_a_failing_disk_did_not_take_may_be_missing_anywhere(database: Database, settings: Settings) -> None:
    recording = await a_recording(database, settings, talk=2.0)
    short = settings.recording_spool / f"{recording}-tx.wav"
    sf.write(short, sf.read(short)[0][:8000], 8000, subtype="PCM_16")
    async with database.session() as session:
        await session.execute(text("UPDATE call SET recording_problem = 'may be incomplete: the disk is full'"))
    await finish(database, settings, recording)
    [gap] = (await stored(database, recording)).gaps
    assert (gap["channel"], gap["start"], gap["end"], gap["seconds"]) == ("business", None, None, 1.0)
    assert gap["why"] == "where is not known: may be incomplete: the disk is full"


# -- killed ------------------------------------------------------------------------------------------------------------

STEPS = {
    "the audio is in place": (job, "seal"),
    "the chain is locked": (manifest.Manifest, "encode"),
    "before the manifest is flushed": (os, "fchmod"),
    "the manifest waits": (seal_recording, "recording_finished"),
    "the facts are stored": (seal_recording, "extend_chain"),
    "committed": (seal_recording, "_publish"),
    "before the rename": (manifest, "publish"),
}


@pytest.mark.parametrize("step", STEPS)
async def test_killed_anywhere_it_resumes_and_the_chain_holds(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before, hurt, other = [await a_recording(database, settings) for _ in range(3)]
    await finish(database, settings, before)

    def killed(*_: object, **__: object) -> None:
        raise Killed

    where, name = STEPS[step]
    with monkeypatch.context() as patch:
        patch.setattr(where, name, killed)
        with pytest.raises(Killed):
            await finish(database, settings, hurt)
    assert await findings(database, settings) == [], "as it was left"
    await finish(database, settings, other)
    assert await findings(database, settings) == [], "after another one"
    await finish(database, settings, hurt)
    assert await findings(database, settings) == []
    rows = [await stored(database, each) for each in (before, hurt, other)]
    assert sorted(row.chain_seq or 0 for row in rows) == [1, 2, 3]
    for row in rows:
        assert row.status is RecordingStatus.OK
        assert told(settings, row)["seq"] == row.chain_seq
    assert [path for path in files(settings) if path.endswith(".part")] == []
    assert list(settings.recording_spool.iterdir()) == []


async def test_a_disk_that_refuses_changes_nothing(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = await a_recording(database, settings)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "prepare", full)
        with pytest.raises(ServiceError, match="No space left"):
            await finish(database, settings, recording)
    assert (await stored(database, recording)).status is RecordingStatus.PENDING
    async with database.session(read_only=True) as session:
        assert await chain_head(session) is None
    assert await findings(database, settings) == []
    await finish(database, settings, recording)
    assert (await stored(database, recording)).chain_seq == 1


async def test_a_disk_that_hangs_does_not_keep_the_chain_locked(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    recording, other = [await a_recording(database, settings) for _ in range(2)]
    answers = threading.Event()
    prepare = manifest.prepare
    with monkeypatch.context() as patch:
        patch.setattr(seal_recording, "DISK_SECONDS", 0.2)
        patch.setattr(manifest, "prepare", lambda audio, data: (answers.wait(30), prepare(audio, data)))
        with pytest.raises(ServiceError, match="did not answer"):
            await finish(database, settings, recording)
    await finish(database, settings, other)
    answers.set()  # what comes too late is in nobody's way
    await finish(database, settings, recording)
    assert [(await stored(database, each)).chain_seq for each in (other, recording)] == [1, 2]
    assert await findings(database, settings) == []


async def test_workers_at_once_make_one_chain(database: Database, settings: Settings) -> None:
    ids = [await a_recording(database, settings) for _ in range(12)]
    async with database.session() as session:
        for number, each in enumerate([*ids, *ids]):  # each twice: a worker whose lease was lost goes on
            await enqueue(session, FINISH_RECORDING, {"recording_id": each}, key=f"{number}")
    others = [Database(database.url.render_as_string(hide_password=False)) for _ in range(2)]

    def work(own: Database) -> Worker:
        async def run(what: Job) -> None:
            await finish_recording(own, settings, what.payload)

        return Worker(own, {FINISH_RECORDING: run}, 3, poll_seconds=0.05)

    try:
        assert await asyncio.gather(*(work(own).run_until_empty(60) for own in others)) == [True, True]
    finally:
        for own in others:
            await own.dispose()
    async with database.session(read_only=True) as session:
        jobs = await list_jobs(session)
    assert [(each.state, each.last_error) for each in jobs] == [("done", None)] * 24
    rows = [await stored(database, each) for each in ids]
    assert sorted(row.chain_seq or 0 for row in rows) == list(range(1, 13))
    assert await findings(database, settings) == []


async def test_a_link_is_not_put_in_twice_nor_after_another_one(database: Database, settings: Settings) -> None:
    first, second = [await a_recording(database, settings) for _ in range(2)]

    async def extend(recording: str, fresh: bool) -> None:
        async with database.session() as session:
            head = await lock_chain(session, FIRST)
            await extend_chain(session, recording, head if fresh else type(head)(7, "x"), "ab" * 32)

    await extend(first, fresh=True)
    for recording, fresh in ((first, True), (second, False)):
        with pytest.raises(ConflictError):
            await extend(recording, fresh)
    async with database.session(read_only=True) as session:
        head = await chain_head(session)
    assert head is not None
    assert head.seq == 1


# -- messages that were never begun ------------------------------------------------------------------------------------


async def test_a_message_that_never_began_is_not_missing(database: Database, settings: Settings) -> None:
    told_by: dict[str, str] = {}
    for after in ([e.CallerHungUp(ENDED, 16)], [e.Resumed(ENDED + 9, inside=True), e.CallerHungUp(ENDED + 20, 16)], []):
        recording = await a_recording(database, settings, kind=RecordingKind.VOICEMAIL, talk=1.0)
        (settings.recording_spool / f"{recording}.wav").unlink()
        call = (await stored(database, recording)).call_id
        planned = note.RecordingPlanned(ENDED - 1, recording, RecordingKind.VOICEMAIL)
        arrived = CallArrived(ENDED - 5, call, call, DID, CALLER, None, "main", None)
        log = [arrived, planned, *after]
        lines = [Line(call, n, each.at, type(each).__name__, to_builtins(each)) for n, each in enumerate(log, 1)]
        async with database.session() as session:
            await append_events(session, lines)
        await finish(database, settings, recording)
        row = await stored(database, recording)
        told_by[str(row.status)] = str(row.problem)
        assert row.path is None
    assert told_by["empty"].startswith("the controller was killed before the message began")
    assert told_by["missing"].startswith("no file was recorded")
    assert await findings(database, settings) == []


# -- a worker that is really killed ------------------------------------------------------------------------------------

WORKER = """
import asyncio, signal, sys
from callrouter.bootstrap import make_worker, open_database
from callrouter.config import Settings

async def work(home: str, url: str, seconds: float) -> None:
    settings = Settings(home=home, database_url=url)
    async with open_database(settings) as database:
        worker = make_worker(settings, database)
        # SIGALRM ends the process at once: no exception, no clean-up, nothing flushed.
        signal.setitimer(signal.ITIMER_REAL, seconds)
        await worker.run_until_empty(60)

asyncio.run(work(sys.argv[1], sys.argv[2], float(sys.argv[3])))
"""
KILLS = 5


async def test_a_worker_killed_again_and_again_loses_nothing(database: Database, settings: Settings) -> None:
    chance = random.Random(20261122)
    ids = [await a_recording(database, settings, talk=8.0) for _ in range(KILLS * 2)]
    async with database.session() as session:
        for each in ids:
            await enqueue(session, FINISH_RECORDING, {"recording_id": each}, max_attempts=100)
    url = database.url.render_as_string(hide_password=False)
    killed = 0
    for number in range(KILLS + 1):
        # Nobody waits a minute here for the leases of the dead.
        async with database.session() as session:
            await session.execute(text("UPDATE job SET state = 'queued', leased_by = NULL WHERE state = 'running'"))
        seconds = chance.uniform(0.05, 0.4) if number < KILLS else 60.0
        line = (sys.executable, "-c", WORKER, settings.home, url, str(seconds))
        process = await asyncio.create_subprocess_exec(*line, stdout=asyncio.subprocess.DEVNULL)
        killed += await process.wait() == -signal.SIGALRM
        assert await findings(database, settings) == [], f"after {killed} kills"
    assert killed >= KILLS // 2
    rows = [await stored(database, each) for each in ids]
    assert sorted(row.chain_seq or 0 for row in rows) == list(range(1, len(ids) + 1))
    assert {row.status for row in rows} == {RecordingStatus.OK}
    assert list(settings.recording_spool.iterdir()) == []
