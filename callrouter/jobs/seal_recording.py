"""Putting a finished recording on record: its manifest, and the manifest's place in the chain.

    prepare (file, flushed)  →  commit (chain, recording)  →  publish (rename)

Killed before the commit, nothing has happened; killed after it, only the rename is left, which the job does when it
runs again, or housekeeping.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

import callrouter
from callrouter.config import Settings
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.cdr import LogItem, fold
from callrouter.core.model import FlowVersion
from callrouter.core.recording_policy import RECORDED
from callrouter.core.records import CallRecord, Pause, RecordingKind
from callrouter.errors import ServiceError
from callrouter.media import manifest as files
from callrouter.media.manifest import Audio, Link, Manifest
from callrouter.media.recordings import FinishedRecording
from callrouter.store.calls import call_log, get_call
from callrouter.store.codec import items
from callrouter.store.database import Database
from callrouter.store.flows import get_flow_version
from callrouter.store.recording_chain import extend_chain, lock_chain
from callrouter.store.recordings import RecordingFile, StoredRecording, get_recording, recording_finished

DISK_SECONDS = 10.0
"""The chain is locked while a manifest is written: a disk that hangs must not keep others waiting."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Context:
    """What the database knows around a recording."""

    call: CallRecord
    log: Sequence[LogItem]
    flow: FlowVersion | None
    """The version that the call went through."""


async def context_of(session: AsyncSession, stored: StoredRecording) -> Context:
    """Read it.

    :raises NotFoundError: the call is not stored
    """
    call = (await get_call(session, stored.call_id)).record
    flow = await get_flow_version(session, call.flow_version_id) if call.flow_version_id else None
    return Context(call, items(await call_log(session, stored.call_id)), flow)


def manifest_of(stored: StoredRecording, context: Context, done: FinishedRecording) -> Manifest:
    """What is put on record of a finished recording."""
    assert done.path is not None
    flow = context.flow
    ended = _ended_at(stored, context)
    return Manifest(
        recording=stored.id,
        call=stored.call_id,
        leg=stored.leg_id,
        kind=stored.kind,
        started_at=_iso(stored.started_at),
        ended_at=_iso(ended) if ended is not None else None,
        audio=Audio(
            done.path, done.size_bytes, done.sha256, done.format, done.sample_rate, done.channels, done.seconds
        ),
        gaps=tuple(gap.as_json() for gap in done.gaps),
        pauses=tuple(_pause(stored, pause, ended) for pause in _pauses(stored, context)),
        consent=_consent(stored, context),
        flow=f"{flow.name}@{flow.version}" if flow else None,
        flow_version=context.call.flow_version_id,
        policy=_policy(stored, context),
        problems=done.problems,
        tool=f"callrouter {callrouter.__version__}",
    )


async def seal(
    database: Database, settings: Settings, stored: StoredRecording, context: Context, done: FinishedRecording
) -> None:
    """Store the facts of a finished recording and take its manifest into the chain. Safe to run again.

    :raises ServiceError: the recordings directory cannot be written; nothing was stored
    """
    assert done.path is not None
    audio = files.inside(settings.recordings, done.path)
    file = RecordingFile(
        path=done.path,
        format=done.format,
        size_bytes=done.size_bytes,
        sha256=done.sha256,
        seconds=done.seconds,
        left_dbfs=done.left_dbfs,
        right_dbfs=done.right_dbfs,
        gaps=tuple(gap.as_json() for gap in done.gaps),
    )
    manifest = manifest_of(stored, context, done)
    async with database.session() as session:
        head = await lock_chain(session, files.FIRST)
        # Another worker may have been here since this one began.
        sha256 = (await get_recording(session, stored.id)).manifest_sha256
        if sha256 is None:
            data = manifest.encode(Link(head.seq, head.sha256))
            sha256 = files.digest(data)
            await _on_disk(files.prepare, audio, data)
            await recording_finished(session, stored.id, file, problem=done.problem)
            await extend_chain(session, stored.id, head, sha256)
    await _on_disk(_publish, audio, sha256, stored.id)


async def publish(settings: Settings, stored: StoredRecording) -> None:
    """Give the manifest of a recording that is in the chain its name, where that is still to do."""
    assert stored.path is not None
    assert stored.manifest_sha256 is not None
    audio = files.inside(settings.recordings, stored.path)
    await _on_disk(_publish, audio, stored.manifest_sha256, stored.id)


def _publish(audio: Path, sha256: str, recording_id: str) -> None:
    if not files.publish(audio, sha256):
        log.error("manifest_gone", recording=recording_id, hint="callrouter recording verify")


async def _on_disk(work: Callable[..., None], audio: Path, *more: object) -> None:
    where = audio.parent
    try:
        await asyncio.wait_for(asyncio.to_thread(work, audio, *more), DISK_SECONDS)
    except TimeoutError:
        problem, hint = f"the disk of {where} did not answer within {DISK_SECONDS:g} s", "look at the disk"
        raise ServiceError(problem, hint=hint) from None
    except OSError as exc:
        problem = f"the manifest cannot be written to {where}: {exc.strerror or exc}"
        raise ServiceError(problem, hint="make room on that disk, or look at it") from exc


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _ended_at(stored: StoredRecording, context: Context) -> float | None:
    for item in context.log:
        if isinstance(item, e.RecordingEnded) and item.recording_id == stored.id:
            return item.at
    leg = next((leg for leg in context.call.legs if leg.id == stored.leg_id), None)
    return leg.ended_at if leg is not None and leg.ended_at else context.call.ended_at


def _policy(stored: StoredRecording, context: Context) -> str:
    """Why this was recorded, in words. No name in it is a telephone number."""
    if stored.kind is RecordingKind.VOICEMAIL:
        return "a message that the caller left"
    why, planned = "", False
    for item in context.log:
        planned = planned or (isinstance(item, note.LegPlanned) and item.leg_id == stored.leg_id)
        if isinstance(item, note.Decided) and item.what == RECORDED:
            why = item.why
            if planned:
                break
    return why or "the company records its conversations"


def _pauses(stored: StoredRecording, context: Context) -> Sequence[Pause]:
    """As the whole of the call's log tells them."""
    call = fold(context.log)
    return next((ref.pauses for ref in call.recordings if ref.id == stored.id), ()) if call is not None else ()


def _pause(stored: StoredRecording, pause: Pause, ended: float | None) -> dict[str, Any]:
    end = pause.end if pause.end is not None else ended
    start = max(0.0, round(pause.begin - stored.started_at, 3))
    until = None if end is None else round(end - stored.started_at, 3)
    seconds = None if until is None else round(until - start, 3)
    return {"start": start, "end": until, "seconds": seconds, "by": pause.by}


def _consent(stored: StoredRecording, context: Context) -> dict[str, Any] | None:
    """What the caller had said of being recorded when this began."""
    said = [item for item in context.log if isinstance(item, note.Consented) and item.at <= stored.started_at]
    if not said:
        return None
    last = said[-1]
    told = {"at": _iso(last.at), "node": last.path, "mode": last.mode, "response": str(last.response)}
    return {**told, "digit": last.digit or None, "script": last.script}
