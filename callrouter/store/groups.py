"""Groups of targets: add, list, get, edit, remove."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from callrouter.core.groups import checked_members
from callrouter.core.model import Member, Strategy, TargetGroup
from callrouter.errors import InputError
from callrouter.store import changes as common
from callrouter.store.companies import titled
from callrouter.store.flows import flows_using
from callrouter.store.models import CompanyRow, TargetRow
from callrouter.store.models_groups import GroupMemberRow, TargetGroupRow

FIELDS = ("name", "title", "strategy", "members", "stop_on_declined", "stop_on_busy")


async def add_group(
    session: AsyncSession,
    company: str,
    *,
    name: str,
    title: str = "",
    strategy: Strategy | str = Strategy.IN_ORDER,
    members: Sequence[Member] = (),
    stop_on_declined: bool = True,
    stop_on_busy: bool = False,
    who: str,
    why: str = "",
) -> TargetGroup:
    """Add a group of targets.

    :param members: at least one, each a target of the company
    :param stop_on_declined: whether one who refuses a call (603) refuses it for all
    :param stop_on_busy: whether a busy member makes the group busy
    :raises InputError: a strategy that is none, members that cannot be
    :raises NotFoundError: no such company or target
    :raises ConflictError: the company has a group of that name
    """
    owner = await common.company_row(session, company)
    given = {
        "name": name,
        "title": title,
        "strategy": strategy,
        "members": members,
        "stop_on_declined": stop_on_declined,
        "stop_on_busy": stop_on_busy,
    }
    values, checked, targets = await _values(session, owner, given)
    await common.require_free(session, TargetGroupRow, "group", owner, name)
    row = TargetGroupRow(company_id=owner.id, **values)
    common.stamp(row, who)
    session.add(row)
    await session.flush()
    await _set_members(session, row, checked, targets)
    value = _value(row, checked)
    await common.record_change(session, f"add group {company}/{name}", who=who, why=why, after=value)
    return value


async def list_groups(session: AsyncSession, company: str | None = None) -> list[TargetGroup]:
    """By company and name.

    :raises NotFoundError: no such company
    """
    statement = (
        select(TargetGroupRow)
        .join(CompanyRow, CompanyRow.id == TargetGroupRow.company_id)
        .order_by(CompanyRow.name, TargetGroupRow.name)
    )
    if company is not None:
        statement = statement.where(TargetGroupRow.company_id == (await common.company_row(session, company)).id)
    rows = list(await session.scalars(statement))
    members = await _members(session)
    return [_value(row, members.get(row.id, ())) for row in rows]


async def get_group(session: AsyncSession, name: str, company: str | None = None) -> TargetGroup:
    """:param name: the name, or "company/name"; the company may be left out when only one has such a group
    :raises NotFoundError: no such group or company
    :raises InputError: several companies have one of that name
    """
    row, _ = await common.owned_row(session, TargetGroupRow, "group", company, name)
    return _value(row, (await _members(session, row.id)).get(row.id, ()))


async def edit_group(
    session: AsyncSession,
    name: str,
    changes: Mapping[str, Any],
    *,
    company: str | None = None,
    who: str,
    why: str = "",
) -> TargetGroup:
    """Change a group.

    :param changes: any of FIELDS; ``members`` are all of them
    :raises InputError, NotFoundError, ConflictError: as :func:`add_group` and :func:`get_group`; ConflictError also
        when it would change a name that flows mention
    """
    row, owner = await common.owned_row(session, TargetGroupRow, "group", company, name)
    before = _value(row, (await _members(session, row.id)).get(row.id, ()))
    given = common.merged("group", {key: getattr(before, key) for key in FIELDS}, changes)
    values, checked, targets = await _values(session, owner, given)
    if values["name"] != row.name:
        await common.require_free(session, TargetGroupRow, "group", owner, values["name"])
        flows = await flows_using(session, owner, group=row.name)
        if flows:
            raise common.keeps_its_name("group", row.name, flows)
    for key, value in values.items():
        setattr(row, key, value)
    common.stamp(row, who)
    await session.flush()
    await _set_members(session, row, checked, targets)
    after = _value(row, checked)
    what = f"edit group {owner.name}/{before.name}"
    await common.record_change(session, what, who=who, why=why, before=before, after=after)
    return after


async def remove_group(
    session: AsyncSession, name: str, *, company: str | None = None, who: str, why: str = ""
) -> None:
    """Remove a group; its targets stay.

    :raises NotFoundError, InputError: as :func:`get_group`
    :raises ConflictError: flows ring it; the message names them
    """
    row, owner = await common.owned_row(session, TargetGroupRow, "group", company, name)
    uses = [f"flow {flow}" for flow in await flows_using(session, owner, group=row.name)]
    if uses:
        raise common.in_use("group", row.name, uses)
    before = _value(row, (await _members(session, row.id)).get(row.id, ()))
    await session.execute(delete(GroupMemberRow).where(GroupMemberRow.group_id == row.id))
    await session.delete(row)
    await session.flush()
    await common.record_change(session, f"remove group {owner.name}/{before.name}", who=who, why=why, before=before)


def _value(row: TargetGroupRow, members: Sequence[Member]) -> TargetGroup:
    return TargetGroup(
        id=row.id,
        company_id=row.company_id,
        name=row.name,
        title=row.title,
        strategy=Strategy(row.strategy),
        members=tuple(members),
        stop_on_declined=row.stop_on_declined,
        stop_on_busy=row.stop_on_busy,
    )


async def _members(session: AsyncSession, group_id: str | None = None) -> dict[str, list[Member]]:
    """Of all groups or one, by the group's id."""
    statement = (
        select(GroupMemberRow, TargetRow.name)
        .join(TargetRow, TargetRow.id == GroupMemberRow.target_id)
        .order_by(GroupMemberRow.group_id, GroupMemberRow.place)
    )
    if group_id is not None:
        statement = statement.where(GroupMemberRow.group_id == group_id)
    found: dict[str, list[Member]] = {}
    for row, target in await session.execute(statement):
        found.setdefault(row.group_id, []).append(Member(target, row.ring_seconds, row.weight, row.tier))
    return found


async def _set_members(
    session: AsyncSession, row: TargetGroupRow, members: Sequence[Member], targets: Mapping[str, str]
) -> None:
    await session.execute(delete(GroupMemberRow).where(GroupMemberRow.group_id == row.id))
    for place, member in enumerate(members, 1):
        session.add(
            GroupMemberRow(
                group_id=row.id,
                place=place,
                target_id=targets[member.target],
                ring_seconds=member.ring_seconds,
                weight=member.weight,
                tier=member.tier,
            )
        )
    await session.flush()


async def _values(
    session: AsyncSession, owner: CompanyRow, given: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[Member, ...], dict[str, str]]:
    """Columns, members, and the ids of the company's targets by name."""
    name = common.slug("group", given["name"])
    try:
        strategy = Strategy(given["strategy"])
    except ValueError:
        raise InputError(f"there is no strategy {given['strategy']!r}", hint=" or ".join(Strategy)) from None
    members = checked_members(given["members"], strategy)
    rows = await session.scalars(select(TargetRow).where(TargetRow.company_id == owner.id))
    targets = {each.name: each.id for each in rows}
    for member in members:
        if member.target not in targets:
            raise common.unknown("target", member.target, targets, within=owner.name)
    columns = {
        "name": name,
        "title": str(given["title"] or "").strip() or titled(name),
        "strategy": strategy.value,
        "stop_on_declined": bool(given["stop_on_declined"]),
        "stop_on_busy": bool(given["stop_on_busy"]),
    }
    return columns, members, targets


async def groups_with(session: AsyncSession, target_id: str) -> list[str]:
    """Names of the groups that a target is in."""
    statement = (
        select(TargetGroupRow.name)
        .join(GroupMemberRow, GroupMemberRow.group_id == TargetGroupRow.id)
        .where(GroupMemberRow.target_id == target_id)
        .order_by(TargetGroupRow.name)
    )
    return list(await session.scalars(statement))
