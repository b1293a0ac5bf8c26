"""Calls written: the records that the core folds, and their logs. Many in few statements: round trips cost most."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from callrouter.core.records import CallRecord, Leg, RecordingKind, RecordingRef, RecordingStatus
from callrouter.store.calls import PLAIN, TIMES
from callrouter.store.codec import Line
from callrouter.store.models import CallEventRow, CallRecordRow, CallTagRow, LegRow, RecordingRow
from callrouter.store.types import Base, to_datetime
from callrouter.store.upsert import dialect_of, insert, insert_of


async def save_call(session: AsyncSession, record: CallRecord) -> str:
    """As :func:`save_calls`, of one call.

    :returns: the id it is stored under
    """
    return (await save_calls(session, [record]))[0]


async def save_calls(session: AsyncSession, records: Sequence[CallRecord]) -> list[str]:
    """Store calls, or bring them up to date; the same record again changes nothing.

    What the recording job found out about a recording is kept. One that was planned, but turned out not to be made (the
    destination hung up on the whisper), goes. A call that is known under another id (by its
    ``uniqueid``) keeps that id.

    :returns: the ids they are stored under, in the same order
    """
    if not records:
        return []
    known = await _known(session, {record.uniqueid for record in records})
    records = [replace(record, id=known.setdefault(record.uniqueid, record.id)) for record in records]
    await _upsert(session, CallRecordRow, [_call_values(record) for record in records])
    await _upsert(session, LegRow, [_leg_values(record.id, leg) for record in records for leg in record.legs])
    recordings = [_recording_values(record.id, ref) for record in records for ref in record.recordings]
    await _upsert(session, RecordingRow, recordings)
    await session.execute(
        delete(RecordingRow).where(
            RecordingRow.call_id.in_([record.id for record in records]),
            RecordingRow.status == RecordingStatus.PENDING.value,
            RecordingRow.id.not_in([each["id"] for each in recordings]),
        )
    )
    if tags := [{"call_id": record.id, "tag": _text(tag)} for record in records for tag in record.tags]:
        await session.execute(insert(session, CallTagRow.__table__).on_conflict_do_nothing(), tags)
    return [record.id for record in records]


async def append_events(session: AsyncSession, rows: Sequence[Line]) -> None:
    """Add entries to the calls' logs; those that are there already stay as they are."""
    for start in range(0, len(rows), 1000):
        values = [
            {"call_id": row.call, "seq": row.seq, "at": _moment(row.at), "type": row.type, "data": row.data}
            for row in rows[start : start + 1000]
        ]
        await session.execute(insert(session, CallEventRow.__table__).on_conflict_do_nothing(), values)


# -- within ------------------------------------------------------------------------------------------------------------


async def _known(session: AsyncSession, uniqueids: Collection[str]) -> dict[str, str]:
    """Ids of the calls that are stored already, by ``uniqueid``."""
    wanted = select(CallRecordRow.uniqueid, CallRecordRow.id).where(CallRecordRow.uniqueid.in_(uniqueids))
    return {row.uniqueid: row.id for row in await session.execute(wanted)}


async def _upsert(session: AsyncSession, model: type[Base], rows: list[dict[str, Any]]) -> None:
    """Insert rows; those whose id is there are changed."""
    if rows:
        await session.execute(_upserting(dialect_of(session), model, tuple(rows[0])), rows)


@cache
def _upserting(dialect: str, model: type[Base], names: tuple[str, ...]) -> Any:
    """The statement of :func:`_upsert`; making one takes longer than running it."""
    statement = insert_of(dialect, model.__table__)
    changed = {name: statement.excluded[name] for name in names if name != "id"}
    # Once the job has looked at the files of a recording, it knows better than the call's log.
    where = RecordingRow.status == RecordingStatus.PENDING.value if model is RecordingRow else None
    return statement.on_conflict_do_update(index_elements=["id"], set_=changed, where=where)


def _call_values(record: CallRecord) -> dict[str, Any]:
    values: dict[str, Any] = {name: _text(getattr(record, name)) for name in PLAIN}
    values.update({name: to_datetime(getattr(record, name)) for name in TIMES})
    values.update(
        disposition=record.disposition.value if record.disposition else None,
        consent=asdict(record.consent) if record.consent else None,
        set_values={name: _text(value) for name, value in record.values} or None,
        path=[_text(name) for name in record.path],
        trace=[{"at": s.at, "path": _text(s.path), "what": _text(s.what), "why": _text(s.why)} for s in record.trace],
    )
    return values


def _leg_values(call_id: str, leg: Leg) -> dict[str, Any]:
    return {
        "id": leg.id,
        "call_id": call_id,
        "seq": leg.seq,
        "target_id": leg.target_id,
        "target": leg.target,
        "endpoint": leg.endpoint,
        "started_at": to_datetime(leg.started_at),
        "ringing_at": to_datetime(leg.ringing_at),
        "answered_at": to_datetime(leg.answered_at),
        "ended_at": to_datetime(leg.ended_at),
        "cause": leg.cause,
        "result": leg.result.value if leg.result else None,
        "hold_seconds": leg.hold_seconds,
        "trunk": leg.trunk,
        "cost_micros": leg.cost_micros,
    }


def _recording_values(call_id: str, ref: RecordingRef) -> dict[str, Any]:
    return {
        "id": ref.id,
        "call_id": call_id,
        "leg_id": ref.leg_id,
        "kind": RecordingKind(ref.kind).value,
        "started_at": to_datetime(ref.started_at),
        "status": RecordingStatus(ref.status).value,
        "problem": _text(ref.problem),
        "pauses": [asdict(pause) for pause in ref.pauses] or None,
    }


def _moment(at: float) -> datetime:
    try:
        return datetime.fromtimestamp(at, UTC)
    except (OverflowError, ValueError, OSError):
        # A damaged time must not keep the entry out; the exact one is in its data.
        return datetime.fromtimestamp(0, UTC)


def _text(value: Any) -> Any:
    """PostgreSQL keeps no NUL and no half surrogate pair."""
    if isinstance(value, str) and ("\x00" in value or not value.isascii()):
        return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")
    return value
