"""Targets: add, list, get, edit, remove."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from callrouter.core import phone
from callrouter.core.model import RecordingPolicy, Target
from callrouter.core.outbound import called, refused_number
from callrouter.errors import InputError
from callrouter.store import changes as common
from callrouter.store.companies import edit_company, titled
from callrouter.store.flows import flows_using
from callrouter.store.groups import groups_with
from callrouter.store.models import CompanyRow, TargetRow, TrackingNumberRow, TrunkRow
from callrouter.store.trunks import check_host

FIELDS = ("name", "title", "number", "trunk", "sip_uri", "ring_seconds", "whisper", "record")
SIP_URI = re.compile(
    r"sips?:(?P<user>[A-Za-z0-9+_.!~*'()&=$,%-]{1,128})"
    r"@(?P<host>\[[0-9A-Fa-f:.]+\]|[^:;?\[\]@\s]+)(?P<port>:\d{1,5})?"
)
"""RFC 3261, 19.1.1, without password, parameters and headers."""


def target_value(row: TargetRow, trunk: str | None) -> Target:
    return Target(
        id=row.id,
        company_id=row.company_id,
        name=row.name,
        title=row.title,
        number=row.number,
        trunk=trunk,
        sip_uri=row.sip_uri,
        ring_seconds=row.ring_seconds,
        whisper=row.whisper,
        record=RecordingPolicy(row.record),
    )


async def add_target(
    session: AsyncSession,
    company: str,
    *,
    name: str,
    title: str = "",
    number: str | None = None,
    trunk: str | None = None,
    sip_uri: str | None = None,
    ring_seconds: int = 25,
    whisper: str | None = None,
    record: RecordingPolicy | str | bool = RecordingPolicy.INHERIT,
    allow_premium: bool = False,
    who: str,
    why: str = "",
) -> Target:
    """Add a business line: either ``number`` with ``trunk``, or ``sip_uri``.

    :param number: any spelling; read with the company's country
    :param trunk: name of the trunk the number is dialled through
    :param sip_uri: sip:user@host[:port]
    :param ring_seconds: 1 to 300
    :param whisper: spoken to the business first; may hold {campaign}, {number}, {company}
    :param allow_premium: also allow the company this number, should it be of a premium-rate, satellite or such range
    :raises InputError: no number, both destinations or none, a bad SIP URI, a number that may cost much
    :raises NotFoundError: no such company or trunk
    :raises ConflictError: the company has a target of that name
    """
    owner = await common.company_row(session, company)
    given = {
        "name": name,
        "title": title,
        "number": number,
        "trunk": trunk,
        "sip_uri": sip_uri,
        "ring_seconds": ring_seconds,
        "whisper": whisper,
        "record": record,
    }
    values, trunk_name = await _values(session, owner, given)
    await common.require_free(session, TargetRow, "target", owner, name)
    await _check_cost(session, owner, values["number"], allow_premium, who=who, why=why)
    row = TargetRow(company_id=owner.id, **values)
    common.stamp(row, who)
    session.add(row)
    await session.flush()
    value = target_value(row, trunk_name)
    await common.record_change(session, f"add target {company}/{name}", who=who, why=why, after=value)
    return value


async def list_targets(session: AsyncSession, company: str | None = None) -> list[Target]:
    """By company and name.

    :raises NotFoundError: no such company
    """
    statement = (
        select(TargetRow, TrunkRow.name)
        .join(CompanyRow, CompanyRow.id == TargetRow.company_id)
        .outerjoin(TrunkRow, TrunkRow.id == TargetRow.trunk_id)
        .order_by(CompanyRow.name, TargetRow.name)
    )
    if company is not None:
        statement = statement.where(TargetRow.company_id == (await common.company_row(session, company)).id)
    return [target_value(row, trunk) for row, trunk in await session.execute(statement)]


async def get_target(session: AsyncSession, name: str, company: str | None = None) -> Target:
    """:param name: the name, or "company/name"; the company may be left out when only one has such a target
    :raises NotFoundError: no such target or company
    :raises InputError: several companies have one of that name
    """
    row, _ = await common.owned_row(session, TargetRow, "target", company, name)
    return target_value(row, await _trunk_name(session, row))


async def edit_target(
    session: AsyncSession,
    name: str,
    changes: Mapping[str, Any],
    *,
    company: str | None = None,
    allow_premium: bool = False,
    who: str,
    why: str = "",
) -> Target:
    """Change a target. Giving only ``sip_uri`` drops number and trunk, and the other way round.

    :param changes: any of name, title, number, trunk, sip_uri, ring_seconds, whisper, record
    :raises InputError, NotFoundError, ConflictError: as :func:`add_target` and :func:`get_target`; ConflictError also
        when it would change a name that flows mention
    """
    row, owner = await common.owned_row(session, TargetRow, "target", company, name)
    trunk = await _trunk_name(session, row)
    before = target_value(row, trunk)
    given = common.merged("target", {**{key: getattr(before, key) for key in FIELDS}, "trunk": trunk}, changes)
    if changes.get("sip_uri") and not changes.get("number"):
        given.update(number=None, trunk=None)
    elif changes.get("number") and not changes.get("sip_uri"):
        given.update(sip_uri=None)
    values, trunk = await _values(session, owner, given)
    if values["number"] != before.number or allow_premium:
        await _check_cost(session, owner, values["number"], allow_premium, who=who, why=why)
    if values["name"] != row.name:
        await common.require_free(session, TargetRow, "target", owner, values["name"])
        flows = await flows_using(session, owner, target=row.name)
        if flows:
            raise common.keeps_its_name("target", row.name, flows)
    for key, value in values.items():
        setattr(row, key, value)
    common.stamp(row, who)
    await session.flush()
    after = target_value(row, trunk)
    what = f"edit target {owner.name}/{before.name}"
    await common.record_change(session, what, who=who, why=why, before=before, after=after)
    return after


async def remove_target(
    session: AsyncSession, name: str, *, company: str | None = None, who: str, why: str = ""
) -> None:
    """Remove a target.

    :raises NotFoundError, InputError: as :func:`get_target`
    :raises ConflictError: numbers, groups or flows ring it; the message names them
    """
    row, owner = await common.owned_row(session, TargetRow, "target", company, name)
    used = (
        select(TrackingNumberRow)
        .where(or_(TrackingNumberRow.target_id == row.id, TrackingNumberRow.backup_id == row.id))
        .order_by(TrackingNumberRow.name)
    )
    uses = [
        f"number {number.name} ({number.e164}{', as backup' if number.target_id != row.id else ''})"
        for number in await session.scalars(used)
    ]
    uses += [f"group {group}" for group in await groups_with(session, row.id)]
    uses += [f"flow {flow}" for flow in await flows_using(session, owner, target=row.name)]
    if uses:
        raise common.in_use("target", row.name, uses)
    before = target_value(row, await _trunk_name(session, row))
    await session.delete(row)
    await session.flush()
    await common.record_change(session, f"remove target {owner.name}/{before.name}", who=who, why=why, before=before)


async def _check_cost(
    session: AsyncSession, owner: CompanyRow, number: str | None, allow: bool, *, who: str, why: str
) -> None:
    """
    :param allow: put the number on the company's list of what may be dialled
    :raises InputError: it may cost much to dial it, and nobody said that it may
    """
    if number is None:
        return
    what = called(number)
    if refused_number(what, True, owner.allowed_destinations) is None:
        return
    if not allow:
        raise InputError(
            f"{number} is a {what.kind} number: each minute to it may cost dearly",
            hint="--allow-premium if that is meant; it lets this company dial this one number",
        )
    changed = {"allowed_destinations": [*owner.allowed_destinations, number]}
    await edit_company(session, owner.name, changes=changed, who=who, why=why or f"a target rings {number}")


def check_sip_uri(uri: str) -> str:
    """:raises InputError: not sip:user@host[:port]"""
    text = str(uri).strip()
    found = SIP_URI.fullmatch(text)
    if not found or (found["port"] and not 1 <= int(found["port"][1:]) <= 65535):
        raise InputError(f"{uri!r} is no SIP URI", hint="sip:user@host or sip:user@host:port, without parameters")
    check_host(found["host"])
    return text


async def _trunk_name(session: AsyncSession, row: TargetRow) -> str | None:
    return await session.scalar(select(TrunkRow.name).where(TrunkRow.id == row.trunk_id)) if row.trunk_id else None


async def _values(
    session: AsyncSession, owner: CompanyRow, given: Mapping[str, Any]
) -> tuple[dict[str, Any], str | None]:
    name = common.slug("target", given["name"])
    number, trunk, sip_uri = given["number"] or None, given["trunk"] or None, given["sip_uri"] or None
    if (number is None) == (sip_uri is None):
        what = "nowhere to ring" if number is None else "both a number and a SIP URI"
        raise InputError(
            f"target {name!r} has {what}", hint="give a number with a trunk, or a SIP URI like sip:desk@192.0.2.10"
        )
    if number and not trunk:
        raise InputError(f"target {name!r} has a number but no trunk to dial it through", hint="give --trunk NAME")
    if trunk and not number:
        raise InputError(f"target {name!r} has a trunk but no number", hint="a SIP URI is dialled without a trunk")
    ring = int(given["ring_seconds"])
    if not 1 <= ring <= 300:
        raise InputError(f"ring-seconds {ring} is out of range", hint="1 to 300")
    trunk_row = await common.trunk_row(session, trunk) if trunk else None
    return {
        "name": name,
        "title": str(given["title"] or "").strip() or titled(name),
        "number": phone.normalize(number, owner.country) if number else None,
        "trunk_id": trunk_row.id if trunk_row else None,
        "sip_uri": check_sip_uri(sip_uri) if sip_uri else None,
        "ring_seconds": ring,
        "whisper": str(given["whisper"] or "").strip() or None,
        "record": common.recording(given["record"]),
    }, trunk
