"""What the database says of calls, for comparing it with other records; repairs of it; and what was found before."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from callrouter.core.events import CallArrived, LedgerClosed
from callrouter.core.reconcile import LoggedCall, OurCall, OurRecording
from callrouter.store.call_save import append_events
from callrouter.store.calls import call_log
from callrouter.store.codec import Line, LogItem, to_builtins
from callrouter.store.drain import FINISH_RECORDING, enqueue_finish, save_folded
from callrouter.store.journal import ENDS, Position, read
from callrouter.store.models import (
    CallEventRow,
    CallRecordRow,
    JobRow,
    JournalPositionRow,
    ReconciliationRow,
    RecordingRow,
)
from callrouter.store.types import now, to_datetime, to_seconds

KEEP_RUNS = 400
"""Older results are dropped: more than a year of nights."""


@dataclass(frozen=True, slots=True)
class Run:
    """One comparison that was made."""

    id: str
    started_at: datetime
    finished_at: datetime | None
    since: datetime
    until: datetime
    sources: tuple[str, ...]
    counts: dict[str, Any]
    findings: tuple[dict[str, Any], ...]


async def our_calls(session: AsyncSession, since: float, until: float, recordings_dir: Path) -> list[OurCall]:
    """Calls that began within a span (seconds since the epoch), with their recordings."""
    window = CallRecordRow.started_at >= to_datetime(since), CallRecordRow.started_at < to_datetime(until)
    rows = list(await session.scalars(select(CallRecordRow).where(*window).execution_options(populate_existing=True)))
    ids = [row.id for row in rows]
    recordings = await _recordings(session, ids, recordings_dir)
    cut = await _cut(session, ids)
    return [
        OurCall(
            id=row.id,
            uniqueid=row.uniqueid,
            did=row.did,
            caller=row.caller,
            trunk=row.trunk,
            started_at=row.started_at.timestamp(),
            ended_at=to_seconds(row.ended_at),
            company_id=row.company_id,
            disposition=row.disposition,
            test=row.test,
            cut=row.id in cut,
            recordings=tuple(recordings.get(row.id, ())),
        )
        for row in rows
    ]


async def logged_calls(session: AsyncSession, since: float, until: float) -> list[LoggedCall]:
    """Calls whose log begins within a span (seconds since the epoch)."""
    arrived = CallEventRow.type == CallArrived.__name__
    window = CallEventRow.at >= to_datetime(since), CallEventRow.at < to_datetime(until)
    rows = (
        await session.execute(select(CallEventRow.call_id, CallEventRow.at, CallEventRow.data).where(arrived, *window))
    ).all()
    over: set[str] = set()
    for some in _chunks([row.call_id for row in rows]):
        ended = select(CallEventRow.call_id).where(CallEventRow.call_id.in_(some), CallEventRow.type.in_(ENDS))
        over |= set(await session.scalars(ended))
    return [
        LoggedCall(row.call_id, str(row.data.get("channel", "")), row.at.timestamp(), row.call_id in over)
        for row in rows
    ]


async def waiting_in_journal(session: AsyncSession, directory: Path) -> tuple[set[str], set[str]]:
    """Ids and unique ids of the calls of which the journal holds something that is not in the database yet."""
    try:
        journal_id = (directory / "id").read_text().strip()
    except OSError:
        return set(), set()
    where = JournalPositionRow.journal == journal_id
    found = (await session.execute(select(JournalPositionRow.segment, JournalPositionRow.offset).where(where))).first()
    position = Position(found[0], found[1]) if found else Position()
    lines = [line for line, _ in read(directory, position) if line is not None]
    channels = {str(line.data.get("channel", "")) for line in lines if line.type == CallArrived.__name__}
    return {line.call for line in lines}, channels


async def add_log(session: AsyncSession, call_id: str, items: Iterable[LogItem]) -> bool:
    """Add entries to a call's log and bring its row up to date.

    :returns: whether there is a row now
    """
    known = await call_log(session, call_id)
    seq = known[-1].seq if known else 0
    lines = [
        Line(call_id, seq + place, item.at, type(item).__name__, to_builtins(item))
        for place, item in enumerate(items, 1)
    ]
    await append_events(session, lines)
    records = await save_folded(session, [[*known, *lines]])
    for recording in (each for record in records for each in record.recordings):
        await finish_again(session, recording.id)
    return bool(records)


async def finish_again(session: AsyncSession, recording_id: str) -> None:
    """Queue the job of a recording that is still not finished, though its job is done or was given up."""
    pending = select(RecordingRow.id).where(RecordingRow.id == recording_id, RecordingRow.status == "pending")
    if await session.scalar(pending) is None:
        return
    await enqueue_finish(session, [recording_id])
    await session.execute(
        update(JobRow)
        .where(JobRow.key == f"{FINISH_RECORDING}:{recording_id}", JobRow.state.in_(("dead", "done")))
        .values(state="queued", attempts=0, run_at=now(), finished_at=None)
        .execution_options(synchronize_session=False)
    )


async def keep_run(session: AsyncSession, run: Run) -> None:
    """Store what a comparison came to."""
    session.add(
        ReconciliationRow(
            id=run.id,
            started_at=run.started_at,
            finished_at=run.finished_at,
            since=run.since,
            until=run.until,
            sources=list(run.sources),
            counts=run.counts,
            findings=list(run.findings),
        )
    )
    await session.flush()
    newest = select(ReconciliationRow.id).order_by(ReconciliationRow.started_at.desc()).limit(KEEP_RUNS)
    await session.execute(
        delete(ReconciliationRow)
        .where(ReconciliationRow.id.not_in(newest.scalar_subquery()))
        .execution_options(synchronize_session=False)
    )


async def last_run(session: AsyncSession) -> Run | None:
    """The newest comparison; None when there was none yet."""
    row = await session.scalar(select(ReconciliationRow).order_by(ReconciliationRow.started_at.desc()).limit(1))
    if row is None:
        return None
    return Run(
        id=row.id,
        started_at=row.started_at,
        finished_at=row.finished_at,
        since=row.since,
        until=row.until,
        sources=tuple(row.sources),
        counts=row.counts,
        findings=tuple(row.findings),
    )


async def _recordings(session: AsyncSession, call_ids: Sequence[str], directory: Path) -> dict[str, list[OurRecording]]:
    """Recordings by their calls, with the state of the jobs that finish them."""
    found: dict[str, list[OurRecording]] = {}
    for some in _chunks(call_ids):
        rows = list(await session.scalars(select(RecordingRow).where(RecordingRow.call_id.in_(some))))
        keys = {f"{FINISH_RECORDING}:{row.id}": row.id for row in rows}
        states: dict[str, str] = {}
        for part in _chunks(keys):
            jobs = await session.execute(select(JobRow.key, JobRow.state).where(JobRow.key.in_(part)))
            states |= {keys[str(key)]: state for key, state in jobs}
        for row in rows:
            file = (directory / row.path).exists() if row.path else None
            found.setdefault(row.call_id, []).append(OurRecording(row.id, row.status, states.get(row.id), file))
    return found


async def _cut(session: AsyncSession, call_ids: Sequence[str]) -> set[str]:
    """Those that ended with Asterisk."""
    cut: set[str] = set()
    for some in _chunks(call_ids):
        closed = select(CallEventRow.call_id, CallEventRow.data).where(
            CallEventRow.call_id.in_(some), CallEventRow.type == LedgerClosed.__name__
        )
        cut |= {call_id for call_id, data in await session.execute(closed) if data.get("asterisk_ended")}
    return cut


def _chunks(ids: Collection[str], size: int = 1000) -> Iterable[list[str]]:
    every = list(ids)
    for start in range(0, len(every), size):
        yield every[start : start + size]
