"""The job that finishes a recording after its call: wait until Asterisk has let go of the files, join, check, store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from callrouter.config import Settings
from callrouter.core.records import CallRecord, RecordingKind, RecordingStatus
from callrouter.errors import InputError, NotYetError
from callrouter.media.raw_legs import legs_of
from callrouter.media.recordings import FinishedRecording, finish, is_finished, settled
from callrouter.store.calls import get_call
from callrouter.store.database import Database
from callrouter.store.recordings import (
    RecordingFile,
    StoredRecording,
    get_recording,
    recording_failed,
    recording_finished,
)

APPEAR_SECONDS = 30.0
"""No raw file so long after its call: it was never written."""

log = structlog.get_logger(__name__)


class RecordingNotReady(NotYetError):
    """Asterisk still has the files, or the call is not over. Try again later."""


async def finish_recording(database: Database, settings: Settings, payload: Mapping[str, Any]) -> None:
    """Finish one recording and store the facts. Safe to run again.

    :param payload: ``{"recording_id": id}``
    :raises RecordingNotReady: try again later
    :raises ServiceError: the recordings directory is missing, full or not writable; the raw legs are untouched
    :raises NotFoundError: the recording is not in the database (yet)
    """
    recording_id = payload.get("recording_id")
    if not isinstance(recording_id, str):
        raise InputError(f"finishing a recording needs a recording_id, not {dict(payload)!r}")
    async with database.session(read_only=True) as session:
        stored = await get_recording(session, recording_id)
        call = (await get_call(session, stored.call_id)).record
    # Minutes of audio are seconds of work: never on the event loop.
    done = await asyncio.to_thread(_finish, settings, stored, call, time.time())
    async with database.session() as session:
        await _store(session, stored.id, done)
    log.info(
        "recording_finished",
        recording=stored.id,
        status=str(done.status),
        seconds=done.seconds,
        bytes=done.size_bytes,
        problem=done.problem,
    )


def _finish(settings: Settings, stored: StoredRecording, call: CallRecord, now: float) -> FinishedRecording:
    if call.ended_at is None:
        raise RecordingNotReady(f"the call of recording {stored.id} is not over")
    spool = settings.recording_spool
    if not settled(spool, stored, now):
        raise RecordingNotReady(f"recording {stored.id} is still being written")
    if (
        now - call.ended_at < APPEAR_SECONDS
        and not all(path.exists() for path in legs_of(spool, stored.id, stored.kind))
        and not is_finished(settings.recordings, stored, stored.started_at)
    ):
        raise RecordingNotReady(f"the files of recording {stored.id} are not in {spool} yet")
    return finish(
        spool,
        stored,
        settings.recordings,
        settings.recording_format,
        _expected_seconds(stored, call),
        stored.started_at,
    )


def _expected_seconds(stored: StoredRecording, call: CallRecord) -> float | None:
    """Talk time of the leg. A message has none: its length is what the caller said."""
    if stored.kind is not RecordingKind.CONVERSATION:
        return None
    leg = next((leg for leg in call.legs if leg.id == stored.leg_id), None)
    return leg.talk_seconds if leg is not None and leg.answered_at and leg.ended_at else None


async def _store(session: AsyncSession, recording_id: str, done: FinishedRecording) -> None:
    if done.status is RecordingStatus.MISSING or done.path is None:
        await recording_failed(session, recording_id, done.problem or "no file was recorded")
        return
    file = RecordingFile(
        path=done.path,
        format=done.format,
        size_bytes=done.size_bytes,
        sha256=done.sha256,
        seconds=done.seconds,
        left_dbfs=done.left_dbfs,
        right_dbfs=done.right_dbfs,
    )
    await recording_finished(session, recording_id, file, problem=done.problem)
