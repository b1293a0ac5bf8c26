"""Block lists: add, list, remove. In force within a second, as every change of the configuration."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from callrouter.core.blocks import REJECTED, Block, checked_pattern
from callrouter.core.flow.nodes import HANGUP_CAUSES
from callrouter.core.phone import clean_text
from callrouter.errors import ConflictError, InputError, NotFoundError
from callrouter.store import changes as common
from callrouter.store.models import CompanyRow
from callrouter.store.models_blocks import BlockRow
from callrouter.store.types import now, to_datetime, to_seconds

MOST_REASON = 200


@dataclass(frozen=True, slots=True)
class ListedBlock:
    """A block, as a list shows it."""

    block: Block
    company: str | None
    """Name; None: all companies."""
    created_at: float
    """Seconds since the epoch."""
    created_by: str


async def load_blocks(session: AsyncSession) -> tuple[Block, ...]:
    """All of them, those that have expired too."""
    return tuple(_value(row) for row in await session.scalars(select(BlockRow).order_by(BlockRow.id)))


async def list_blocks(session: AsyncSession, company: str | None = None) -> list[ListedBlock]:
    """By company and pattern; those for all companies first.

    :param company: only this one's, and those for all
    :raises NotFoundError: no such company
    """
    wanted = select(BlockRow, CompanyRow.name).outerjoin(CompanyRow, CompanyRow.id == BlockRow.company_id)
    if company is not None:
        owner = await common.company_row(session, company)
        wanted = wanted.where((BlockRow.company_id == owner.id) | BlockRow.company_id.is_(None))
    found = [
        ListedBlock(_value(row), name, row.created_at.timestamp(), row.created_by)
        for row, name in await session.execute(wanted)
    ]
    return sorted(found, key=lambda each: (each.company or "", each.block.pattern))


async def add_block(
    session: AsyncSession,
    *,
    pattern: str,
    company: str | None = None,
    reason: str = "",
    cause: str = REJECTED,
    expires_at: float | None = None,
    country: str = "US",
    who: str,
    why: str = "",
) -> Block:
    """Refuse callers from now on.

    :param pattern: a number, the beginning of numbers ("+1900*"), or "anonymous"
    :param company: None: all companies
    :param reason: stands on the calls that are refused
    :param cause: one of ``nodes.HANGUP_CAUSES``
    :param expires_at: seconds since the epoch; None: never
    :param country: assumed for a number without country code, where no company is named
    :raises InputError: a pattern that is none, a time that is past, an unknown cause
    :raises NotFoundError: no such company
    :raises ConflictError: there is such a block already, and it counts
    """
    owner = await common.company_row(session, company) if company is not None else None
    kept = checked_pattern(pattern, owner.country if owner is not None else country)
    if cause not in HANGUP_CAUSES:
        raise InputError(f"nobody can be refused with {cause!r}", hint=f"one of: {', '.join(HANGUP_CAUSES)}")
    ends = to_datetime(expires_at)
    if ends is not None and ends <= now():
        raise InputError("a block cannot end in the past", hint="like 30d, or a date to come")
    owner_id = owner.id if owner is not None else None
    row = await session.scalar(_at(owner_id, kept))
    if row is not None and _value(row).counts(now().timestamp()):
        whose = company or "all companies"
        raise ConflictError(
            f"{kept} is on the block list of {whose} already", hint="callrouter block list shows since when, and why"
        )
    before = _value(row) if row is not None else None
    if row is None:
        row = BlockRow(company_id=owner_id, pattern=kept)
        session.add(row)
    row.reason, row.cause, row.expires_at = clean_text(reason, MOST_REASON), cause, ends
    common.stamp(row, who)
    await session.flush()
    value = _value(row)
    await common.record_change(session, f"add block {kept}", who=who, why=why, before=before, after=value)
    return value


async def remove_block(
    session: AsyncSession, pattern: str, *, company: str | None = None, country: str = "US", who: str, why: str = ""
) -> Block:
    """Let callers in again.

    :param company: None: the one for all companies
    :raises NotFoundError: no such block; the hint names who has one
    """
    owner = await common.company_row(session, company) if company is not None else None
    kept = checked_pattern(pattern, owner.country if owner is not None else country)
    row = await session.scalar(_at(owner.id if owner is not None else None, kept))
    if row is None:
        others = await session.scalars(
            select(CompanyRow.name)
            .join(BlockRow, BlockRow.company_id == CompanyRow.id)
            .where(BlockRow.pattern == kept)
            .order_by(CompanyRow.name)
        )
        raise _unknown(kept, company, list(others))
    before = _value(row)
    await session.delete(row)
    await session.flush()
    await common.record_change(session, f"remove block {kept}", who=who, why=why, before=before)
    return before


def _unknown(pattern: str, company: str | None, others: Collection[str]) -> NotFoundError:
    hint = "callrouter block list"
    if others:
        hint = "it is on that of " + ", ".join(f"{name} (--company {name})" for name in others)
    return NotFoundError(f"{pattern} is not on the block list of {company or 'all companies'}", hint=hint)


def _at(company_id: str | None, pattern: str) -> Select[BlockRow]:
    owner = BlockRow.company_id.is_(None) if company_id is None else BlockRow.company_id == company_id
    return select(BlockRow).where(owner, BlockRow.pattern == pattern)


def _value(row: BlockRow) -> Block:
    return Block(row.id, row.company_id, row.pattern, row.reason, row.cause, to_seconds(row.expires_at))
