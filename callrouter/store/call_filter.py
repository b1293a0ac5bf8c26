"""Which calls: what a list of calls may be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncSession

from callrouter.core import phone
from callrouter.core.disposition import Disposition
from callrouter.errors import InputError, NotFoundError
from callrouter.store import changes as common
from callrouter.store.models import CallRecordRow, CampaignRow
from callrouter.store.numbers import find_number

IN_PROGRESS = "in-progress"
"""Stands for "no disposition yet" where a disposition may be asked for."""


@dataclass(frozen=True, slots=True)
class CallFilter:
    """Which calls; what is None does not matter."""

    company: str | None = None
    """Name."""
    campaign: str | None = None
    """Name, or "company/name"; also one that was removed."""
    number: str | None = None
    """A tracking number in any spelling, or its name."""
    caller: str | None = None
    """In any spelling."""
    disposition: str | None = None
    """A Disposition, or "in-progress"."""
    since: datetime | None = None
    """Calls that began at this moment or later (aware)."""
    until: datetime | None = None
    """Calls that began before this moment (aware)."""
    test: bool | None = None
    handled_by: str | None = None
    """"controller" or "failsafe"."""


async def conditions(session: AsyncSession, wanted: CallFilter) -> list[ColumnElement[bool]]:
    """A filter as conditions on the call table.

    :raises NotFoundError: a company, campaign or number that never was
    :raises InputError: a disposition that is none
    """
    found: list[ColumnElement[bool]] = []
    country, company_id = "US", None
    if wanted.company is not None:
        owner = await common.company_row(session, wanted.company)
        country, company_id = owner.country, owner.id
        found.append(CallRecordRow.company_id == company_id)
    if wanted.campaign is not None:
        found.append(CallRecordRow.campaign_id.in_(await _campaign_ids(session, wanted.campaign, company_id)))
    if wanted.number is not None:
        found.append(CallRecordRow.did == await _did(session, wanted.number, wanted.company, country))
    if wanted.caller is not None:
        found.append(CallRecordRow.caller == phone.normalize_caller(wanted.caller, country))
    if wanted.disposition is not None:
        if wanted.disposition != IN_PROGRESS and wanted.disposition not in set(Disposition):
            raise InputError(
                f"{wanted.disposition!r} is no disposition", hint="one of: " + ", ".join([*Disposition, IN_PROGRESS])
            )
        value = None if wanted.disposition == IN_PROGRESS else str(wanted.disposition)
        found.append(CallRecordRow.disposition.is_(None) if value is None else CallRecordRow.disposition == value)
    if wanted.since is not None:
        found.append(CallRecordRow.started_at >= wanted.since)
    if wanted.until is not None:
        found.append(CallRecordRow.started_at < wanted.until)
    if wanted.test is not None:
        found.append(CallRecordRow.test.is_(wanted.test))
    if wanted.handled_by is not None:
        found.append(CallRecordRow.handled_by == wanted.handled_by)
    return found


async def _campaign_ids(session: AsyncSession, name: str, company_id: str | None) -> list[str]:
    within = [CampaignRow.company_id == company_id] if company_id else []
    if "/" in name:
        company, name = name.split("/", 1)
        within.append(CampaignRow.company_id == (await common.company_row(session, company)).id)
    ids = list(await session.scalars(select(CampaignRow.id).where(CampaignRow.name == name, *within)))
    if not ids:
        raise common.unknown("campaign", name, await session.scalars(select(CampaignRow.name).where(*within)))
    return ids


async def _did(session: AsyncSession, number: str, company: str | None, country: str) -> str:
    try:
        return (await find_number(session, number, company))[0].e164
    except NotFoundError:
        if any(ch.isalpha() for ch in number):
            raise
        # It may have been a tracking number once.
        return phone.normalize(number, country)
