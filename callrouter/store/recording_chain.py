"""The chain of manifests: its newest link, the recordings in its order, and how one is added."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from callrouter.errors import ConflictError
from callrouter.store.models import RecordingChainRow, RecordingRow
from callrouter.store.recordings import StoredRecording, recording_value
from callrouter.store.upsert import insert

_ROW = 1


@dataclass(frozen=True, slots=True)
class ChainHead:
    """The newest link; ``seq`` 0 and ``sha256`` as given to :func:`lock_chain` before the first."""

    seq: int
    sha256: str


async def lock_chain(session: AsyncSession, first: str) -> ChainHead:
    """The newest link, kept from changing until this transaction ends: a row's lock on PostgreSQL; on SQLite there
    is one writer at a time anyway.

    :param first: stands for the link before the first
    """
    begun = insert(session, RecordingChainRow).values(id=_ROW, seq=0, sha256=first)
    await session.execute(begun.on_conflict_do_nothing(index_elements=["id"]))
    statement = select(RecordingChainRow.seq, RecordingChainRow.sha256).where(RecordingChainRow.id == _ROW)
    seq, sha256 = (await session.execute(statement.with_for_update())).one()
    return ChainHead(seq, sha256)


async def extend_chain(session: AsyncSession, recording_id: str, after: ChainHead, sha256: str) -> None:
    """Make a recording's manifest the newest link, in the transaction that locked the chain.

    :param after: the newest link so far
    :param sha256: of the manifest
    :raises ConflictError: the chain has moved on, or the recording is in it already
    """
    moved = await session.scalar(
        update(RecordingChainRow)
        .where(RecordingChainRow.id == _ROW, RecordingChainRow.seq == after.seq)
        .values(seq=after.seq + 1, sha256=sha256)
        .returning(RecordingChainRow.seq)
    )
    put = await session.scalar(
        update(RecordingRow)
        .where(RecordingRow.id == recording_id, RecordingRow.chain_seq.is_(None))
        .values(chain_seq=after.seq + 1, manifest_sha256=sha256)
        .returning(RecordingRow.id)
    )
    if moved is None or put is None:
        raise ConflictError(f"recording {recording_id} cannot become link {after.seq + 1} of the chain")


async def chain_head(session: AsyncSession) -> ChainHead | None:
    """The newest link; None: no recording was ever put in."""
    row = await session.get(RecordingChainRow, _ROW, populate_existing=True)
    return ChainHead(row.seq, row.sha256) if row is not None and row.seq else None


async def links(session: AsyncSession, after: int, until: int, limit: int = 500) -> list[StoredRecording]:
    """Recordings in the chain's order.

    :param after: only those behind this place
    :param until: up to this place
    """
    statement = select(RecordingRow).where(RecordingRow.chain_seq > after, RecordingRow.chain_seq <= until)
    rows = await session.scalars(statement.order_by(RecordingRow.chain_seq).limit(limit))
    return [recording_value(row) for row in rows]


async def link(session: AsyncSession, seq: int) -> ChainHead | None:
    """One link of the chain; None: it is not there."""
    statement = select(RecordingRow.manifest_sha256).where(RecordingRow.chain_seq == seq)
    sha256 = await session.scalar(statement)
    return ChainHead(seq, sha256) if sha256 is not None else None


async def first_link_since(session: AsyncSession, since: datetime) -> int | None:
    """Place of the first link whose recording began then or later; None: there is none."""
    statement = select(func.min(RecordingRow.chain_seq)).where(RecordingRow.started_at >= since)
    found: int | None = await session.scalar(statement)
    return found


async def last_link(session: AsyncSession) -> int:
    """The greatest place that any recording has; 0: none has one."""
    return await session.scalar(select(func.max(RecordingRow.chain_seq))) or 0


async def unlinked(
    session: AsyncSession, after: str = "", since: datetime | None = None, limit: int = 500
) -> list[StoredRecording]:
    """Finished recordings that are not in the chain: those from before there was one. By id.

    :param after: only those with a greater id
    """
    statement = select(RecordingRow).where(
        RecordingRow.path.is_not(None), RecordingRow.chain_seq.is_(None), RecordingRow.id > after
    )
    if since is not None:
        statement = statement.where(RecordingRow.started_at >= since)
    return [recording_value(row) for row in await session.scalars(statement.order_by(RecordingRow.id).limit(limit))]


async def recordings_by_id(session: AsyncSession, ids: Collection[str]) -> dict[str, StoredRecording]:
    """Those of ``ids`` that there are."""
    rows = await session.scalars(select(RecordingRow).where(RecordingRow.id.in_(ids)))
    return {row.id: recording_value(row) for row in rows}
