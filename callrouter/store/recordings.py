"""Recordings and what the recording job found out about their files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from callrouter.core.records import Pause, RecordingKind, RecordingStatus
from callrouter.errors import InputError, NotFoundError
from callrouter.store.models import CallRecordRow, RecordingRow
from callrouter.store.types import now


@dataclass(frozen=True, slots=True)
class StoredRecording:
    """A recording and its file."""

    id: str
    call_id: str
    leg_id: str | None
    kind: RecordingKind
    started_at: float
    """Seconds since the epoch, UTC."""
    status: RecordingStatus
    problem: str | None
    path: str | None
    """Relative to the recordings directory; None while there is no finished file."""
    format: str | None
    size_bytes: int | None
    sha256: str | None
    seconds: float | None
    left_dbfs: float | None
    """Level of the caller's channel (of the only one, for a message), dB below full scale."""
    right_dbfs: float | None
    """Level of the business's channel."""
    verified_at: datetime | None
    """When the file was last found to be as it was stored."""
    gaps: tuple[dict[str, Any], ...] = ()
    """What is missing of it: channel, start and end (seconds from its start; None: not known where), seconds, why."""
    chain_seq: int | None = None
    """Place of its manifest in the chain, from 1; None: it has none yet."""
    manifest_sha256: str | None = None
    pauses: tuple[Pause, ...] = ()


@dataclass(frozen=True, slots=True)
class RecordingFile:
    """What the recording job found out about a finished file."""

    path: str
    format: str
    size_bytes: int
    sha256: str
    seconds: float
    left_dbfs: float | None
    right_dbfs: float | None
    gaps: tuple[dict[str, Any], ...] = ()
    """As in :class:`StoredRecording`."""


def recording_value(row: RecordingRow) -> StoredRecording:
    return StoredRecording(
        id=row.id,
        call_id=row.call_id,
        leg_id=row.leg_id,
        kind=RecordingKind(row.kind),
        started_at=row.started_at.timestamp(),
        status=RecordingStatus(row.status),
        problem=row.problem,
        path=row.path,
        format=row.format,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        seconds=row.seconds,
        left_dbfs=row.left_dbfs,
        right_dbfs=row.right_dbfs,
        verified_at=row.verified_at,
        gaps=tuple(row.gaps or ()),
        chain_seq=row.chain_seq,
        manifest_sha256=row.manifest_sha256,
        pauses=tuple(Pause(**pause) for pause in row.pauses or ()),
    )


async def list_recordings(
    session: AsyncSession,
    *,
    status: RecordingStatus | None = None,
    company_id: str | None = None,
    since: datetime | None = None,
    limit: int | None = 50,
    before: str | None = None,
) -> list[StoredRecording]:
    """Recordings, newest first.

    :param limit: None: all
    :param before: id of a recording: only older ones
    :raises NotFoundError: ``before`` is no recording
    """
    statement = select(RecordingRow).order_by(RecordingRow.started_at.desc(), RecordingRow.id.desc()).limit(limit)
    if status is not None:
        statement = statement.where(RecordingRow.status == status.value)
    if company_id is not None:
        statement = statement.join(CallRecordRow, CallRecordRow.id == RecordingRow.call_id)
        statement = statement.where(CallRecordRow.company_id == company_id)
    if since is not None:
        statement = statement.where(RecordingRow.started_at >= since)
    if before is not None:
        last = await get_recording(session, before)
        start = select(RecordingRow.started_at).where(RecordingRow.id == last.id).scalar_subquery()
        statement = statement.where(
            (RecordingRow.started_at < start) | ((RecordingRow.started_at == start) & (RecordingRow.id < last.id))
        )
    return [recording_value(row) for row in await session.scalars(statement)]


async def recordings_of(session: AsyncSession, call_id: str) -> list[StoredRecording]:
    """A call's recordings, oldest first."""
    statement = select(RecordingRow).where(RecordingRow.call_id == call_id)
    return [recording_value(row) for row in await session.scalars(statement.order_by(RecordingRow.started_at))]


async def get_recording(session: AsyncSession, ref: str) -> StoredRecording:
    """One recording.

    :param ref: its id, or the first or last characters of it (4 at least)
    :raises NotFoundError: no such recording
    :raises InputError: several begin or end so
    """
    rows = list(await session.scalars(select(RecordingRow).where(RecordingRow.id == ref)))
    if not rows and len(ref) >= 4 and ref.replace("-", "").isalnum():
        like = RecordingRow.id.like(f"{ref}%") | RecordingRow.id.like(f"%{ref}")
        rows = list(await session.scalars(select(RecordingRow).where(like).order_by(RecordingRow.id.desc()).limit(6)))
    if not rows:
        raise NotFoundError(f"there is no recording {ref!r}", hint="callrouter recording list shows them")
    if len(rows) > 1:
        shown = ", ".join(row.id for row in rows[:5])
        raise InputError(f"several recordings fit {ref!r}: {shown}", hint="give more of the id")
    return recording_value(rows[0])


async def recording_finished(
    session: AsyncSession, recording_id: str, file: RecordingFile, *, problem: str | None = None
) -> None:
    """Note a finished file; ``problem`` makes it suspect.

    :raises NotFoundError: no such recording
    """
    await _set(
        session,
        recording_id,
        status=(RecordingStatus.SUSPECT if problem else RecordingStatus.OK).value,
        problem=problem,
        path=file.path,
        format=file.format,
        size_bytes=file.size_bytes,
        sha256=file.sha256,
        seconds=file.seconds,
        left_dbfs=file.left_dbfs,
        right_dbfs=file.right_dbfs,
        verified_at=now(),
        gaps=list(file.gaps),
    )


async def recording_failed(session: AsyncSession, recording_id: str, problem: str) -> None:
    """Note that there is no file, and why. What was known of one that was there stays.

    :raises NotFoundError: no such recording
    """
    await _set(session, recording_id, status=RecordingStatus.MISSING.value, problem=problem)


async def nothing_recorded(session: AsyncSession, recording_id: str, why: str) -> None:
    """Note that there was nothing to record.

    :raises NotFoundError: no such recording
    """
    await _set(session, recording_id, status=RecordingStatus.EMPTY.value, problem=why)


async def recording_verified(session: AsyncSession, recording_id: str, *, problem: str | None = None) -> None:
    """Note that a finished file was looked at again; ``problem`` makes it suspect.

    :raises NotFoundError: no such recording
    """
    if problem is None:
        await _set(session, recording_id, verified_at=now())
    else:
        await _set(session, recording_id, status=RecordingStatus.SUSPECT.value, problem=problem)


async def _set(session: AsyncSession, recording_id: str, **values: object) -> None:
    statement = update(RecordingRow).where(RecordingRow.id == recording_id).values(**values)
    found = await session.scalar(statement.returning(RecordingRow.id))
    if found is None:
        raise NotFoundError(f"there is no recording {recording_id!r}", hint="callrouter recording list shows them")


async def pending_recordings(session: AsyncSession) -> set[str]:
    """Ids of recordings whose files are still to be finished."""
    found = await session.scalars(select(RecordingRow.id).where(RecordingRow.status == RecordingStatus.PENDING))
    return set(found)
