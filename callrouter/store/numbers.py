"""Tracking numbers: add, list, get, edit, remove."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from callrouter.core import phone
from callrouter.core.model import RecordingPolicy, TrackingNumber
from callrouter.errors import ConflictError, InputError
from callrouter.store import changes as common
from callrouter.store.models import CampaignRow, CompanyRow, FlowRow, TargetRow, TrackingNumberRow

Names = tuple[str | None, str | None, str | None, str | None]
"""Campaign, flow, target, backup."""
Backup = aliased(TargetRow)


def number_value(row: TrackingNumberRow, flow: str | None, target: str | None, backup: str | None) -> TrackingNumber:
    return TrackingNumber(
        id=row.id,
        company_id=row.company_id,
        e164=row.e164,
        name=row.name,
        campaign_id=row.campaign_id,
        flow=flow,
        target=target,
        backup=backup,
        active=row.active,
        record=RecordingPolicy(row.record),
    )


async def add_number(
    session: AsyncSession,
    company: str,
    *,
    number: str,
    name: str,
    campaign: str | None = None,
    flow: str | None = None,
    target: str | None = None,
    backup: str | None = None,
    active: bool = True,
    record: RecordingPolicy | str | bool = RecordingPolicy.INHERIT,
    who: str,
    why: str = "",
) -> TrackingNumber:
    """Add a tracking number. Exactly one of ``flow`` and ``target`` answers it. All names are the company's.

    :param number: any spelling; read with the company's country
    :param backup: target that the failsafe rings; None: the target, or the first one the flow dials
    :raises InputError: no telephone number, a name that is no slug, no destination or two
    :raises NotFoundError: no such company, campaign, flow or target
    :raises ConflictError: the DID is taken (the message says by whom), or the name
    """
    owner = await common.company_row(session, company)
    given = {
        "number": number,
        "name": name,
        "campaign": campaign,
        "flow": flow,
        "target": target,
        "backup": backup,
        "active": active,
        "record": record,
    }
    values = await _values(session, owner, given)
    await _e164_free(session, values["e164"])
    await common.require_free(session, TrackingNumberRow, "number", owner, name)
    row = TrackingNumberRow(company_id=owner.id, **values)
    common.stamp(row, who)
    session.add(row)
    await session.flush()
    value = number_value(row, flow or None, target or None, backup or None)
    await common.record_change(session, f"add number {company}/{name} {row.e164}", who=who, why=why, after=value)
    return value


async def list_numbers(
    session: AsyncSession, company: str | None = None, *, campaign: str | None = None
) -> list[TrackingNumber]:
    """By company and name.

    :param campaign: only those of this campaign
    :raises NotFoundError: no such company or campaign
    """
    statement = _select().join(CompanyRow, CompanyRow.id == TrackingNumberRow.company_id)
    statement = statement.order_by(CompanyRow.name, TrackingNumberRow.name)
    if company is not None:
        statement = statement.where(TrackingNumberRow.company_id == (await common.company_row(session, company)).id)
    if campaign is not None:
        wanted, _ = await common.owned_row(session, CampaignRow, "campaign", company, campaign)
        statement = statement.where(TrackingNumberRow.campaign_id == wanted.id)
    found = await session.execute(statement)
    return [number_value(row, flow, target, backup) for row, _, flow, target, backup in found]


async def get_number(session: AsyncSession, number: str, company: str | None = None) -> TrackingNumber:
    """:param number: the number in any spelling, or its name, or "company/name"
    :raises NotFoundError: no such number or company
    :raises InputError: several companies have one of that name
    """
    row, _ = await find_number(session, number, company)
    _, flow, target, backup = await _names(session, row)
    return number_value(row, flow, target, backup)


async def edit_number(
    session: AsyncSession,
    number: str,
    changes: Mapping[str, Any],
    *,
    company: str | None = None,
    who: str,
    why: str = "",
) -> TrackingNumber:
    """Change a tracking number. Giving only ``target`` drops the flow, and the other way round.

    :param changes: any of number, name, campaign, flow, target, backup, active, record
    :raises InputError, NotFoundError, ConflictError: as :func:`add_number` and :func:`get_number`
    """
    row, owner = await find_number(session, number, company)
    campaign, flow, target, backup = await _names(session, row)
    before = number_value(row, flow, target, backup)
    current = {
        "number": row.e164,
        "name": row.name,
        "campaign": campaign,
        "flow": flow,
        "target": target,
        "backup": backup,
        "active": row.active,
        "record": row.record,
    }
    given = common.merged("number", current, changes)
    if changes.get("target") and not changes.get("flow"):
        given["flow"] = None
    elif changes.get("flow") and not changes.get("target"):
        given["target"] = None
    values = await _values(session, owner, given)
    if values["e164"] != row.e164:
        await _e164_free(session, values["e164"])
    if values["name"] != row.name:
        await common.require_free(session, TrackingNumberRow, "number", owner, values["name"])
    for key, value in values.items():
        setattr(row, key, value)
    common.stamp(row, who)
    await session.flush()
    after = number_value(row, given["flow"] or None, given["target"] or None, given["backup"] or None)
    what = f"edit number {owner.name}/{before.name} {before.e164}"
    await common.record_change(session, what, who=who, why=why, before=before, after=after)
    return after


async def remove_number(
    session: AsyncSession, number: str, *, company: str | None = None, who: str, why: str = ""
) -> None:
    """Remove a tracking number. Calls to it keep the DID and their campaign.

    :raises NotFoundError, InputError: as :func:`get_number`
    """
    row, owner = await find_number(session, number, company)
    _, flow, target, backup = await _names(session, row)
    before = number_value(row, flow, target, backup)
    await session.delete(row)
    await session.flush()
    what = f"remove number {owner.name}/{before.name} {before.e164}"
    await common.record_change(session, what, who=who, why=why, before=before)


async def find_number(
    session: AsyncSession, number: str, company: str | None = None
) -> tuple[TrackingNumberRow, CompanyRow]:
    """A number's row and its company's, as :func:`get_number` finds it."""
    text = number.strip()
    if sum(ch.isdigit() for ch in text) >= 7 and not any(ch.isalpha() for ch in text):
        wanted = select(CompanyRow.country).distinct()
        if company is not None:
            wanted = wanted.where(CompanyRow.name == company)
        spellings = set()
        for country in await session.scalars(wanted):
            try:
                spellings.add(phone.normalize(text, country))
            except InputError:
                continue
        statement = (
            select(TrackingNumberRow, CompanyRow)
            .join(CompanyRow, CompanyRow.id == TrackingNumberRow.company_id)
            .where(TrackingNumberRow.e164.in_(spellings))
        )
        if company is not None:
            statement = statement.where(CompanyRow.name == company)
        found = (await session.execute(statement)).all()
        if len(found) == 1:
            return found[0][0], found[0][1]
        if len(found) > 1:
            candidates = " or ".join(sorted(row.e164 for row, _ in found))
            raise InputError(f"{text!r} may be {candidates}", hint="write it with country code")
        known = await session.scalars(select(TrackingNumberRow.e164))
        raise common.unknown("number", min(spellings, default=text), known)
    return await common.owned_row(session, TrackingNumberRow, "number", company, text)


def _select() -> Select[TrackingNumberRow, str, str, str, str]:
    return (
        select(TrackingNumberRow, CampaignRow.name, FlowRow.name, TargetRow.name, Backup.name)
        .outerjoin(CampaignRow, CampaignRow.id == TrackingNumberRow.campaign_id)
        .outerjoin(FlowRow, FlowRow.id == TrackingNumberRow.flow_id)
        .outerjoin(TargetRow, TargetRow.id == TrackingNumberRow.target_id)
        .outerjoin(Backup, Backup.id == TrackingNumberRow.backup_id)
    )


async def _names(session: AsyncSession, row: TrackingNumberRow) -> Names:
    _, campaign, flow, target, backup = (await session.execute(_select().where(TrackingNumberRow.id == row.id))).one()
    return campaign, flow, target, backup


async def _e164_free(session: AsyncSession, e164: str) -> None:
    found = (
        await session.execute(
            select(TrackingNumberRow.name, CompanyRow.name)
            .join(CompanyRow, CompanyRow.id == TrackingNumberRow.company_id)
            .where(TrackingNumberRow.e164 == e164)
        )
    ).first()
    if found is not None:
        raise ConflictError(
            f"{e164} is taken already: it is number {found[0]!r} of company {found[1]!r}",
            hint=f"callrouter number show {e164}",
        )


async def _values(session: AsyncSession, owner: CompanyRow, given: Mapping[str, Any]) -> dict[str, Any]:
    name = common.slug("number", given["name"])
    e164 = phone.normalize(given["number"], owner.country)
    if bool(given["flow"]) == bool(given["target"]):
        what = "both a flow and a target" if given["flow"] else "neither a flow nor a target"
        raise InputError(f"number {name!r} has {what} to answer it", hint="give one of --flow and --target")

    async def id_of(model: Any, noun: str, wanted: str | None) -> str | None:
        if not wanted:
            return None
        row: Any = (await common.owned_row(session, model, noun, owner.name, wanted))[0]
        return str(row.id)

    return {
        "e164": e164,
        "name": name,
        "campaign_id": await id_of(CampaignRow, "campaign", given["campaign"]),
        "flow_id": await id_of(FlowRow, "flow", given["flow"]),
        "target_id": await id_of(TargetRow, "target", given["target"]),
        "backup_id": await id_of(TargetRow, "target", given["backup"]),
        "active": bool(given["active"]),
        "record": common.recording(given["record"]),
    }
