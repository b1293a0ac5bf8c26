"""Legs that were dialled over trunks, for the limits: from the database, or from the journal while that is away."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from callrouter.core.cdr import fold
from callrouter.core.records import CallRecord
from callrouter.store.codec import Line, items
from callrouter.store.journal import Position, read
from callrouter.store.models import CallRecordRow, LegRow


@dataclass(frozen=True, slots=True)
class StoredLeg:
    """A leg over a trunk."""

    id: str
    company_id: str
    started_at: float
    """Seconds since the epoch."""
    cost: int
    """Millionths of the company's currency unit; 0 when none is known, or it has not ended."""


async def outbound_legs(session: AsyncSession, since: float, changed: float = 0.0) -> list[StoredLeg]:
    """Legs over trunks of calls that began since then.

    :param changed: only those that began or ended since
    """
    after = datetime.fromtimestamp(changed, UTC)
    rows = await session.execute(
        select(LegRow.id, CallRecordRow.company_id, LegRow.started_at, LegRow.cost_micros)
        .join(CallRecordRow, CallRecordRow.id == LegRow.call_id)
        .where(
            CallRecordRow.started_at >= datetime.fromtimestamp(since, UTC),
            CallRecordRow.company_id.is_not(None),
            LegRow.trunk.is_not(None),
            or_(LegRow.started_at >= after, LegRow.ended_at >= after),
        )
        .order_by(LegRow.started_at)
    )
    return [StoredLeg(leg, company or "", at.timestamp(), cost or 0) for leg, company, at, cost in rows]


def journal_legs(directory: Path) -> list[StoredLeg]:
    """Legs over trunks of every call that the journal still has."""
    calls: dict[str, list[Line]] = {}
    for line, _ in read(directory, Position()):
        if line is not None:
            calls.setdefault(line.call, []).append(line)
    found = [record for lines in calls.values() if (record := fold(items(lines))) is not None]
    return list(_legs(found))


def _legs(records: Iterable[CallRecord]) -> Iterable[StoredLeg]:
    for record in records:
        for leg in record.legs:
            if leg.trunk is not None and record.company_id is not None:
                yield StoredLeg(leg.id, record.company_id, leg.started_at, leg.cost_micros or 0)
