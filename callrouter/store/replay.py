"""Logs of calls that are over, for those who run them again."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sqlalchemy.ext.asyncio import AsyncSession

from callrouter.store.calls import CallFilter, CallRow, call_logs, list_calls
from callrouter.store.codec import LogItem, items

PAGE = 500


async def stored_logs(
    session: AsyncSession, wanted: CallFilter, limit: int
) -> AsyncIterator[tuple[CallRow, list[LogItem]]]:
    """Calls with their logs, newest first, a page at a time. Errors as ``list_calls``."""
    before: str | None = None
    while limit > 0:
        rows = await list_calls(session, wanted, min(PAGE, limit), before)
        logs = await call_logs(session, [row.id for row in rows])
        for row in rows:
            yield row, items(logs.get(row.id, ()))
        if len(rows) < PAGE:
            return
        limit -= len(rows)
        before = rows[-1].id
