"""Opening hours put aside for a time: set, list, clear. In force within a second, as every change of the
configuration; over by itself."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from callrouter.core.model import HOURS_STATES, HoursOverride
from callrouter.errors import InputError, NotFoundError
from callrouter.store import changes as common
from callrouter.store.models import CompanyRow, FlowRow
from callrouter.store.models_hours import HoursOverrideRow
from callrouter.store.types import now, to_datetime

MAX_REASON = 200
"""Characters."""


@dataclass(frozen=True, slots=True)
class ListedOverride:
    """An override, as a list shows it."""

    override: HoursOverride
    company: str
    """Name."""
    timezone: str
    """The company's."""
    created_by: str


async def load_overrides(session: AsyncSession) -> tuple[HoursOverride, ...]:
    """All of them, those that are over too."""
    return tuple(each.override for each in await _all(session))


async def list_overrides(session: AsyncSession, company: str | None = None) -> list[ListedOverride]:
    """Those in force, by company and flow; a company's own first.

    :param company: only this one's
    :raises NotFoundError: no such company
    """
    owner = None if company is None else (await common.company_row(session, company)).id
    found = [
        each
        for each in await _all(session)
        if each.override.until > now().timestamp() and owner in (None, each.override.company_id)
    ]
    return sorted(found, key=lambda each: (each.company, each.override.flow or ""))


async def override_hours(
    session: AsyncSession,
    company: str,
    state: str,
    until: float,
    *,
    flow: str | None = None,
    reason: str = "",
    who: str,
) -> HoursOverride:
    """Put the opening hours of a company, or of one of its flows, aside. One that was there gives way.

    :param state: "open" or "closed"
    :param until: seconds since the epoch
    :param reason: stands in the calls' traces, and in the audit log
    :raises InputError: another state, a time that is past, a reason that is too long
    :raises NotFoundError: no such company or flow
    """
    if state not in HOURS_STATES:
        raise InputError(f"hours cannot be {state!r}", hint=" or ".join(HOURS_STATES))
    if until <= now().timestamp():
        raise InputError("that time is past", hint="--until says when the hours count again")
    if len(reason) > MAX_REASON or not reason.isprintable():
        raise InputError(f"a reason has at most {MAX_REASON} characters, on one line")
    owner, of_flow = await _whose(session, company, flow)
    row = await _row(session, owner, of_flow)
    before = _value(row, flow) if row is not None else None
    if row is None:
        row = HoursOverrideRow(company_id=owner.id, flow_id=of_flow.id if of_flow else None)
        session.add(row)
    moment = to_datetime(until)
    assert moment is not None
    row.state, row.until, row.reason = state, moment, reason.strip()
    common.stamp(row, who)
    await session.flush()
    after = _value(row, flow)
    what = f"override hours {_name(company, flow)}"
    await common.record_change(session, what, who=who, why=reason, before=before, after=after)
    return after


async def clear_hours(
    session: AsyncSession, company: str, *, flow: str | None = None, who: str, why: str = ""
) -> HoursOverride:
    """Let the opening hours count again before the time is over.

    :raises NotFoundError: no such company or flow, or nothing overrides its hours
    """
    owner, of_flow = await _whose(session, company, flow)
    row = await _row(session, owner, of_flow)
    if row is None or row.until <= now():
        raise NotFoundError(f"nothing overrides the hours of {_name(company, flow)}", hint="callrouter hours list")
    before = _value(row, flow)
    await session.delete(row)
    await session.flush()
    await common.record_change(session, f"clear hours {_name(company, flow)}", who=who, why=why, before=before)
    return before


def _name(company: str, flow: str | None) -> str:
    return f"{company}/{flow}" if flow else company


async def _whose(session: AsyncSession, company: str, flow: str | None) -> tuple[CompanyRow, FlowRow | None]:
    if flow is None:
        return await common.company_row(session, company), None
    of_flow, owner = await common.owned_row(session, FlowRow, "flow", company, flow)
    return owner, of_flow


async def _row(session: AsyncSession, owner: CompanyRow, flow: FlowRow | None) -> HoursOverrideRow | None:
    of_flow = HoursOverrideRow.flow_id.is_(None) if flow is None else HoursOverrideRow.flow_id == flow.id
    found = select(HoursOverrideRow).where(HoursOverrideRow.company_id == owner.id, of_flow)
    row: HoursOverrideRow | None = await session.scalar(found.with_for_update())
    return row


async def _all(session: AsyncSession) -> list[ListedOverride]:
    found = await session.execute(
        select(HoursOverrideRow, CompanyRow, FlowRow.name)
        .join(CompanyRow, CompanyRow.id == HoursOverrideRow.company_id)
        .outerjoin(FlowRow, FlowRow.id == HoursOverrideRow.flow_id)
        .order_by(HoursOverrideRow.id)
    )
    return [ListedOverride(_value(row, flow), c.name, c.timezone, row.updated_by) for row, c, flow in found]


def _value(row: HoursOverrideRow, flow: str | None) -> HoursOverride:
    return HoursOverride(
        id=row.id,
        company_id=row.company_id,
        state=row.state,
        until=row.until.timestamp(),
        flow=flow,
        reason=row.reason,
    )
