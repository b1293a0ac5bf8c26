"""The job that finishes a recording after its call: wait until Asterisk has let go of the files, join, check, store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import structlog

from callrouter.config import Settings
from callrouter.core.message import nothing_to_record
from callrouter.core.records import CallRecord, RecordingKind
from callrouter.errors import InputError, NotYetError
from callrouter.jobs.seal_recording import Context, context_of, publish, seal
from callrouter.media.gaps import after_disk_trouble
from callrouter.media.raw_legs import legs_of
from callrouter.media.recordings import FinishedRecording, finish, has_sound, is_finished, settled
from callrouter.store.database import Database
from callrouter.store.recordings import (
    StoredRecording,
    get_recording,
    nothing_recorded,
    recording_failed,
    recording_verified,
)

APPEAR_SECONDS = 30.0
"""No raw file so long after its call: it was never written."""
FLUSH_SECONDS = 10.0
"""No sound in a raw file so long after its call: nothing was heard. Asterisk writes what it held back at the end."""

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
        context = await context_of(session, stored)
    if stored.manifest_sha256 is not None:
        await publish(settings, stored)
        return
    # Minutes of audio are seconds of work: never on the event loop.
    done = await asyncio.to_thread(_finish, settings, stored, context.call, time.time())
    await _store(database, settings, stored, context, done)
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
    if not is_finished(settings.recordings, stored, stored.started_at):
        age = now - call.ended_at
        if age < APPEAR_SECONDS and not all(path.exists() for path in legs_of(spool, stored.id, stored.kind)):
            raise RecordingNotReady(f"the files of recording {stored.id} are not in {spool} yet")
        if age < FLUSH_SECONDS and not has_sound(spool, stored):
            raise RecordingNotReady(f"the files of recording {stored.id} are empty, just after its call")
    expected = _expected_seconds(stored, call)
    done = finish(spool, stored, settings.recordings, settings.recording_format, expected, stored.started_at)
    if call.recording_problem and done.gaps:
        return replace(done, gaps=after_disk_trouble(done.gaps, call.recording_problem))
    return done


def _expected_seconds(stored: StoredRecording, call: CallRecord) -> float | None:
    """Talk time of the leg. A message has none: its length is what the caller said."""
    if stored.kind is not RecordingKind.CONVERSATION:
        return None
    leg = next((leg for leg in call.legs if leg.id == stored.leg_id), None)
    return leg.talk_seconds if leg is not None and leg.answered_at and leg.ended_at else None


async def _store(
    database: Database, settings: Settings, stored: StoredRecording, context: Context, done: FinishedRecording
) -> None:
    if done.path is not None and stored.sha256 in (None, done.sha256):
        await seal(database, settings, stored, context, done)
        return
    nothing = None
    if stored.kind is RecordingKind.VOICEMAIL and stored.path is None:
        nothing = nothing_to_record(context.log, stored.id, begun=done.begun)
    async with database.session() as session:
        if done.path is not None:
            # Finished before there were manifests: what is there now is not put on record as what was made then.
            await recording_verified(session, stored.id, problem="the file is not the one that was stored")
        elif nothing is not None:
            await nothing_recorded(session, stored.id, nothing)
        else:
            await recording_failed(session, stored.id, done.problem or "no file was recorded")
