"""Whose turn it is in each group, as far as the journal was drained; and when each target was rung and talked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import case, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from callrouter.core.events import GroupKnown
from callrouter.store.codec import Line, LogItem, Unknown
from callrouter.store.journal import Position, read
from callrouter.store.models import CallRecordRow, LegRow
from callrouter.store.models_groups import GroupTurnRow
from callrouter.store.upsert import insert


@dataclass(frozen=True, slots=True)
class StoredRotation:
    """Times are seconds since the epoch, by the target's id."""

    turns: Mapping[str, int] = field(default_factory=dict)
    """Calls that came to each group, by its id."""
    rung: Mapping[str, float] = field(default_factory=dict)
    talked: Mapping[str, float] = field(default_factory=dict)
    """When each one's last conversation ended."""


async def stored_turns(session: AsyncSession) -> StoredRotation:
    """Whose turn is next, as far as the journal was drained."""
    return StoredRotation(turns={row.group_id: row.turn for row in await session.scalars(select(GroupTurnRow))})


async def stored_times(session: AsyncSession, since: float) -> StoredRotation:
    """When each target was rung and talked last.

    :param since: of calls that began since then; seconds since the epoch
    """
    legs = await session.execute(
        select(
            LegRow.target_id,
            func.max(LegRow.started_at),
            func.max(case((LegRow.answered_at.is_not(None), LegRow.ended_at))),
        )
        .join(CallRecordRow, CallRecordRow.id == LegRow.call_id)
        .where(CallRecordRow.started_at >= datetime.fromtimestamp(since, UTC), LegRow.target_id.is_not(None))
        .group_by(LegRow.target_id)
    )
    rung: dict[str, float] = {}
    talked: dict[str, float] = {}
    for target, last_rung, last_talked in legs:
        rung[target] = last_rung.timestamp()
        if last_talked is not None:
            talked[target] = last_talked.timestamp()
    return StoredRotation(rung=rung, talked=talked)


async def move_turns(session: AsyncSession, lines: Iterable[Line]) -> None:
    """Note whose turn is next, of entries that are drained; in their transaction."""
    turns: dict[str, int] = {}
    for line in lines:
        if line.type == GroupKnown.__name__ and isinstance(known := line.value, GroupKnown):
            turns[known.group_id] = max(turns.get(known.group_id, 0), known.facts.turn + 1)
    for group_id, turn in turns.items():
        statement = insert(session, GroupTurnRow).values(group_id=group_id, turn=turn)
        await session.execute(statement.on_conflict_do_update(index_elements=["group_id"], set_={"turn": turn}))


def journal_items(directory: Path) -> Iterator[tuple[str, LogItem]]:
    """(call id, entry) of everything that the journal still has."""
    for line, _ in read(directory, Position()):
        if line is not None and not isinstance(item := line.value, Unknown):
            yield line.call, item
