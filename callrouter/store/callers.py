"""Who called each company, when last, who answered, and what tags the calls bear."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from callrouter.store.models import CallRecordRow, CallTagRow

MOST = 200_000
"""So many callers are told of: those who called last."""
BATCH = 500
DAY = 86400.0


@dataclass(frozen=True, slots=True)
class StoredCaller:
    """A number's calls to a company. Times are seconds since the epoch."""

    company_id: str
    number: str
    calls: int
    last_at: float
    last_target: str | None = None
    """Name of the target that answered last."""
    answered_at: float = 0.0
    tags: tuple[str, ...] = ()
    recent: tuple[float, ...] = ()
    """When those of the day before ``until`` arrived."""


async def stored_callers(session: AsyncSession, since: float, until: float) -> Collection[StoredCaller]:
    """Everybody who called between two moments, in few queries; a long list lets others have their turn.

    :raises DatabaseError: it cannot be read
    """
    call = CallRecordRow
    known = (
        call.company_id.is_not(None),
        call.caller.is_not(None),
        call.started_at >= datetime.fromtimestamp(since, UTC),
        call.started_at < datetime.fromtimestamp(until, UTC),
    )
    found: dict[tuple[str, str], StoredCaller] = {}
    by_target = (
        select(call.company_id, call.caller, call.answered_by, func.count(), func.max(call.started_at))
        .where(*known)
        .group_by(call.company_id, call.caller, call.answered_by)
        .order_by(func.max(call.started_at).desc())
    )
    async for company_id, number, target, calls, last in _rows(session, by_target):
        at = last.timestamp()
        who = found.get((company_id, number))
        if who is None:
            if len(found) >= MOST:
                continue
            who = StoredCaller(company_id, number, 0, at)
        who = replace(who, calls=who.calls + calls)
        if target is not None and at > who.answered_at:
            who = replace(who, last_target=target, answered_at=at)
        found[company_id, number] = who
    tagged = select(call.company_id, call.caller, CallTagRow.tag).join(call, call.id == CallTagRow.call_id)
    async for company_id, number, tag in _rows(session, tagged.where(*known).distinct()):
        if (who := found.get((company_id, number))) is not None:
            found[company_id, number] = replace(who, tags=(*who.tags, tag))
    lately = select(call.company_id, call.caller, call.started_at).where(*known).order_by(call.started_at)
    lately = lately.where(call.started_at >= datetime.fromtimestamp(until - DAY, UTC))
    async for company_id, number, at in _rows(session, lately):
        if (who := found.get((company_id, number))) is not None:
            found[company_id, number] = replace(who, recent=(*who.recent, at.timestamp()))
    return found.values()


async def _rows(session: AsyncSession, statement: Select[*tuple[Any, ...]]) -> AsyncIterator[Row[*tuple[Any, ...]]]:
    """A long answer, by and by, so that calls have their turn."""
    async for rows in (await session.stream(statement)).partitions(BATCH):
        await asyncio.sleep(0)
        for row in rows:
            yield row
