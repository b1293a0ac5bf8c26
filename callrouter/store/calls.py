"""Calls: stored from the records the core folds, listed and found for those who ask."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from callrouter.core.disposition import Disposition, LegResult
from callrouter.core.records import (
    CallRecord,
    Consent,
    ConsentResponse,
    Leg,
    RecordingRef,
    TraceStep,
)
from callrouter.errors import InputError, NotFoundError
from callrouter.store.call_filter import IN_PROGRESS, CallFilter, conditions
from callrouter.store.codec import Line
from callrouter.store.models import (
    CallEventRow,
    CallRecordRow,
    CallTagRow,
    CampaignRow,
    CompanyRow,
    LegRow,
    RecordingRow,
    TrackingNumberRow,
)
from callrouter.store.recordings import StoredRecording, recording_value
from callrouter.store.types import to_seconds

__all__ = [
    "IN_PROGRESS",
    "CallFilter",
    "CallRow",
    "StoredCall",
    "call_log",
    "call_logs",
    "count_calls",
    "get_call",
    "known_uniqueids",
    "list_calls",
    "open_calls",
]

TIMES = ("started_at", "answered_at", "ended_at")
PLAIN = (
    "id",
    "uniqueid",
    "linkedid",
    "did",
    "caller",
    "caller_name",
    "trunk",
    "test",
    "company_id",
    "campaign_id",
    "number_id",
    "source",
    "medium",
    "flow_version_id",
    "config_version",
    "ring_seconds",
    "talk_seconds",
    "hold_seconds",
    "answered_by",
    "cause",
    "reason",
    "handled_by",
    "recording_problem",
    "language",
    "privacy",
    "diverted_from",
    "verstat",
)


@dataclass(frozen=True, slots=True)
class CallRow:
    """A call as a list shows it. Times are seconds since the epoch, UTC."""

    id: str
    uniqueid: str
    started_at: float
    answered_at: float | None
    ended_at: float | None
    did: str
    caller: str | None
    caller_name: str | None
    company: str | None
    """Name."""
    campaign: str | None
    """Name."""
    number: str | None
    """Name of the tracking number."""
    source: str | None
    medium: str | None
    disposition: Disposition | None
    """None while the call is in progress."""
    reason: str
    answered_by: str | None
    ring_seconds: float
    talk_seconds: float
    handled_by: str
    test: bool
    path: tuple[str, ...]
    recording_problem: str | None
    recordings: tuple[StoredRecording, ...] = ()
    privacy: str | None = None
    diverted_from: str | None = None
    verstat: str | None = None
    tags: tuple[str, ...] = ()
    values: tuple[tuple[str, str], ...] = ()
    language: str | None = None
    consent: Consent | None = None

    @property
    def duration(self) -> float:
        """Seconds from arrival to end."""
        return max(0.0, self.ended_at - self.started_at) if self.ended_at else 0.0


@dataclass(frozen=True, slots=True)
class StoredCall:
    """A call with all that belongs to it."""

    record: CallRecord
    company: str | None
    """Name."""
    campaign: str | None
    """Name."""
    number: str | None
    """Name of the tracking number."""
    recordings: tuple[StoredRecording, ...]
    currency: str | None = None
    """The company's, of the legs' costs."""


async def call_log(session: AsyncSession, call_id: str) -> list[Line]:
    """A call's log, oldest first; ``Line.value`` is the event or note."""
    return (await call_logs(session, [call_id])).get(call_id, [])


async def call_logs(session: AsyncSession, call_ids: Collection[str]) -> dict[str, list[Line]]:
    """The logs of several calls in one query."""
    logs: dict[str, list[Line]] = {}
    entry = CallEventRow
    rows = await session.execute(
        select(entry.call_id, entry.seq, entry.at, entry.type, entry.data)
        .where(entry.call_id.in_(call_ids))
        .order_by(entry.call_id, entry.seq)
    )
    for call_id, seq, at, kind, data in rows:
        logs.setdefault(call_id, []).append(Line(call_id, seq, at.timestamp(), kind, data))
    return logs


async def list_calls(
    session: AsyncSession, wanted: CallFilter | None = None, limit: int = 50, before: str | None = None
) -> list[CallRow]:
    """Calls, newest first.

    :param before: id of a call: only older ones (the last id of one page asks for the next)
    :raises NotFoundError: a company, campaign or number that never was, or ``before`` is no call
    :raises InputError: a disposition that is none
    """
    statement = _listing().order_by(CallRecordRow.started_at.desc(), CallRecordRow.id.desc()).limit(limit)
    statement = statement.where(*await conditions(session, wanted or CallFilter()))
    if before is not None:
        start = await session.scalar(select(CallRecordRow.started_at).where(CallRecordRow.id == before))
        if start is None:
            raise NotFoundError(f"there is no call {before!r}", hint="callrouter call list")
        older = and_(CallRecordRow.started_at == start, CallRecordRow.id < before)
        statement = statement.where(or_(CallRecordRow.started_at < start, older))
    return await _rows(session, statement)


async def open_calls(session: AsyncSession) -> list[CallRow]:
    """Calls in progress, oldest first."""
    return await _rows(session, _listing().where(CallRecordRow.ended_at.is_(None)).order_by(CallRecordRow.started_at))


async def get_call(session: AsyncSession, ref: str) -> StoredCall:
    """One call with everything that belongs to it.

    :param ref: its id, the first or last characters of it (4 at least), or Asterisk's unique id
    :raises NotFoundError: no such call
    :raises InputError: several calls begin or end so
    """
    call_id = await _find(session, ref.strip())
    found = (await session.execute(_listing().where(CallRecordRow.id == call_id))).one()
    row: CallRecordRow = found[0]
    legs = await session.scalars(select(LegRow).where(LegRow.call_id == call_id).order_by(LegRow.seq))
    recordings = (await _recordings(session, [call_id])).get(call_id, [])
    record = CallRecord(
        **{name: getattr(row, name) for name in PLAIN},
        started_at=row.started_at.timestamp(),
        answered_at=to_seconds(row.answered_at),
        ended_at=to_seconds(row.ended_at),
        disposition=Disposition(row.disposition) if row.disposition else None,
        consent=_consent_value(row.consent),
        tags=tuple((await _tags(session, [call_id])).get(call_id, ())),
        values=tuple((row.set_values or {}).items()),
        path=tuple(row.path),
        legs=tuple(_leg_value(leg) for leg in legs),
        recordings=tuple(
            RecordingRef(each.id, each.kind, each.leg_id, each.started_at, each.status, each.problem, each.pauses)
            for each in recordings
        ),
        trace=tuple(TraceStep(**step) for step in row.trace),
    )
    currency = await session.scalar(select(CompanyRow.currency).where(CompanyRow.id == row.company_id))
    return StoredCall(record, found[1], found[2], found[3], tuple(recordings), currency)


def _consent_value(stored: dict[str, Any] | None) -> Consent | None:
    return Consent(**{**stored, "response": ConsentResponse(stored["response"])}) if stored else None


async def known_uniqueids(session: AsyncSession, uniqueids: Collection[str]) -> set[str]:
    """Those of ``uniqueids`` that are stored calls."""
    known: set[str] = set()
    pending = list(uniqueids)
    for start in range(0, len(pending), 1000):
        some = pending[start : start + 1000]
        known |= set(await session.scalars(select(CallRecordRow.uniqueid).where(CallRecordRow.uniqueid.in_(some))))
    return known


async def count_calls(session: AsyncSession, wanted: CallFilter | None = None) -> dict[str, int]:
    """How many calls, by disposition ("in-progress" for those without). Errors as :func:`list_calls`."""
    statement = select(CallRecordRow.disposition, func.count()).group_by(CallRecordRow.disposition)
    statement = statement.where(*await conditions(session, wanted or CallFilter()))
    return {disposition or IN_PROGRESS: count for disposition, count in await session.execute(statement)}


# -- within ------------------------------------------------------------------------------------------------------------


def _leg_value(row: LegRow) -> Leg:
    return Leg(
        id=row.id,
        seq=row.seq,
        target_id=row.target_id,
        target=row.target,
        endpoint=row.endpoint,
        started_at=row.started_at.timestamp(),
        ringing_at=to_seconds(row.ringing_at),
        answered_at=to_seconds(row.answered_at),
        ended_at=to_seconds(row.ended_at),
        cause=row.cause,
        result=LegResult(row.result) if row.result else None,
        hold_seconds=row.hold_seconds,
        trunk=row.trunk,
        cost_micros=row.cost_micros,
    )


def _listing() -> Select[CallRecordRow, str, str, str]:
    return (
        select(CallRecordRow, CompanyRow.name, CampaignRow.name, TrackingNumberRow.name)
        .outerjoin(CompanyRow, CompanyRow.id == CallRecordRow.company_id)
        .outerjoin(CampaignRow, CampaignRow.id == CallRecordRow.campaign_id)
        .outerjoin(TrackingNumberRow, TrackingNumberRow.id == CallRecordRow.number_id)
        .execution_options(populate_existing=True)
    )


async def _rows(session: AsyncSession, statement: Select[CallRecordRow, str, str, str]) -> list[CallRow]:
    found = (await session.execute(statement)).all()
    ids = [row.id for row, *_ in found]
    recordings, tags = await _recordings(session, ids), await _tags(session, ids)
    return [
        CallRow(
            id=row.id,
            uniqueid=row.uniqueid,
            started_at=row.started_at.timestamp(),
            answered_at=to_seconds(row.answered_at),
            ended_at=to_seconds(row.ended_at),
            did=row.did,
            caller=row.caller,
            caller_name=row.caller_name,
            company=company,
            campaign=campaign,
            number=number,
            source=row.source,
            medium=row.medium,
            disposition=Disposition(row.disposition) if row.disposition else None,
            reason=row.reason,
            answered_by=row.answered_by,
            ring_seconds=row.ring_seconds,
            talk_seconds=row.talk_seconds,
            handled_by=row.handled_by,
            test=row.test,
            path=tuple(row.path),
            recording_problem=row.recording_problem,
            recordings=tuple(recordings.get(row.id, ())),
            privacy=row.privacy,
            diverted_from=row.diverted_from,
            verstat=row.verstat,
            tags=tuple(tags.get(row.id, ())),
            values=tuple((row.set_values or {}).items()),
            language=row.language,
            consent=_consent_value(row.consent),
        )
        for row, company, campaign, number in found
    ]


async def _recordings(session: AsyncSession, call_ids: Sequence[str]) -> dict[str, list[StoredRecording]]:
    if not call_ids:
        return {}
    rows = await session.scalars(
        select(RecordingRow)
        .where(RecordingRow.call_id.in_(call_ids))
        .order_by(RecordingRow.started_at, RecordingRow.id)
        .execution_options(populate_existing=True)
    )
    found: dict[str, list[StoredRecording]] = {}
    for row in rows:
        found.setdefault(row.call_id, []).append(recording_value(row))
    return found


async def _tags(session: AsyncSession, call_ids: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    if call_ids:
        wanted = select(CallTagRow.call_id, CallTagRow.tag).where(CallTagRow.call_id.in_(call_ids))
        for call_id, tag in await session.execute(wanted.order_by(CallTagRow.tag)):
            found.setdefault(call_id, []).append(tag)
    return found


async def _find(session: AsyncSession, ref: str) -> str:
    exact = select(CallRecordRow.id).where(or_(CallRecordRow.id == ref, CallRecordRow.uniqueid == ref))
    found = list(await session.scalars(exact))
    if not found and len(ref) >= 4 and not set(ref.lower()) - set("0123456789abcdef-"):
        part = ref.lower()
        like = or_(CallRecordRow.id.like(f"{part}%"), CallRecordRow.id.like(f"%{part}"))
        found = list(
            await session.scalars(select(CallRecordRow.id).where(like).order_by(CallRecordRow.id.desc()).limit(6))
        )
    if not found:
        raise NotFoundError(f"there is no call {ref!r}", hint="callrouter call list shows the calls and their ids")
    if len(found) > 1:
        raise InputError(f"several calls fit {ref!r}: {', '.join(found[:5])}", hint="give more of the id")
    return found[0]
