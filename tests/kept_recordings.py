"""Calls that are over, what Asterisk left of them, and what verification says of it."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from callrouter.config import Settings
from callrouter.core.disposition import LegResult
from callrouter.core.records import CallRecord, Leg, RecordingKind, RecordingRef
from callrouter.jobs.finish_recording import finish_recording
from callrouter.jobs.verify_recordings import Progress, verify_all
from callrouter.media import manifest
from callrouter.media.manifest import digest
from callrouter.media.verification import Finding
from callrouter.store.call_save import save_call
from callrouter.store.database import Database
from callrouter.store.recordings import StoredRecording, get_recording

ENDED = 1_795_300_000.0
DID, CALLER = "+12025550123", "+12025550199"


class Killed(BaseException):
    """The worker is gone: nothing after this runs in it."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(home=str(tmp_path / "home"))
    settings.recording_spool.mkdir(parents=True)
    settings.recordings.mkdir()
    return settings


async def a_recording(
    database: Database, settings: Settings, *, kind: RecordingKind = RecordingKind.CONVERSATION, talk: float = 1.0
) -> str:
    """A call that is over, and what Asterisk left of it in the spool."""
    call = str(uuid.uuid4())
    conversation = kind is RecordingKind.CONVERSATION
    recording = f"{call}-l1" if conversation else f"{call}-m2"
    started = ENDED - talk
    leg = Leg(
        f"{call}-l1", 1, None, "desk", "PJSIP/x", started - 2, started - 1, started, ENDED, 16, LegResult.ANSWERED
    )
    record = CallRecord(
        id=call,
        uniqueid=call,
        linkedid=None,
        did=DID,
        caller=CALLER,
        caller_name="Eve",
        trunk="main",
        started_at=started - 3,
        ended_at=ENDED,
        legs=(leg,) if conversation else (),
        recordings=(RecordingRef(recording, kind, leg.id if conversation else None, started),),
    )
    async with database.session() as session:
        await save_call(session, record)
    for name in ("-rx", "-tx") if conversation else ("",):
        # Each its own sound, so that no two recordings are the same file.
        tone = 0.2 * np.sin(2 * np.pi * (300 + int(call[:2], 16)) * np.arange(round(talk * 8000)) / 8000)
        sf.write(settings.recording_spool / f"{recording}{name}.wav", tone, 8000, subtype="PCM_16")
    return recording


async def stored(database: Database, recording_id: str) -> StoredRecording:
    async with database.session(read_only=True) as session:
        return await get_recording(session, recording_id)


async def finish(database: Database, settings: Settings, *ids: str) -> None:
    for recording_id in ids:
        await finish_recording(database, settings, {"recording_id": recording_id})


async def findings(database: Database, settings: Settings, **options: object) -> list[Finding]:
    progress = Progress()
    return [each async for each in verify_all(database, settings.recordings, progress, **options)]  # type: ignore[arg-type]


async def faults(database: Database, settings: Settings, **options: object) -> list[tuple[str, str]]:
    return sorted((str(each.fault), each.where) for each in await findings(database, settings, **options))


def files(settings: Settings) -> list[str]:
    found = (path for path in settings.recordings.rglob("*") if path.is_file())
    return sorted(path.relative_to(settings.recordings).as_posix() for path in found)


def told(settings: Settings, row: StoredRecording) -> dict[str, object]:
    assert row.path is not None
    data = (settings.recordings / row.path).with_suffix(".json").read_bytes()
    assert digest(data) == row.manifest_sha256
    return manifest.decode(data)
