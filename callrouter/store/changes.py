"""What every change of the configuration has in common: the audit log, names, lookups, refusals."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from callrouter.core.model import RecordingPolicy
from callrouter.errors import ConflictError, DatabaseError, InputError, NotFoundError
from callrouter.store.models import (
    CampaignRow,
    CompanyRow,
    ConfigChangeRow,
    ConfigStateRow,
    FlowRow,
    PromptRow,
    TargetRow,
    TrackingNumberRow,
    TrunkRow,
)
from callrouter.store.models_blocks import BlockRow
from callrouter.store.models_groups import TargetGroupRow
from callrouter.store.models_hours import HoursOverrideRow
from callrouter.store.types import now

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
Owned = TypeVar("Owned", CampaignRow, TargetRow, TargetGroupRow, TrackingNumberRow, FlowRow, PromptRow)
AnyRow = (
    BlockRow
    | CampaignRow
    | CompanyRow
    | FlowRow
    | HoursOverrideRow
    | PromptRow
    | TargetGroupRow
    | TargetRow
    | TrackingNumberRow
    | TrunkRow
)


@dataclass(frozen=True, slots=True)
class ConfigChange:
    """One line of the audit log."""

    version: int
    at: datetime
    who: str
    what: str
    """ "add company acme", "edit number +12025550123" …"""
    why: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


async def config_version(session: AsyncSession) -> int:
    """The number of the configuration in force; one primary-key read."""
    return await _state(select(ConfigStateRow.version).where(ConfigStateRow.id == 1), session)


async def lock_config(session: AsyncSession, expected: int | None = None) -> int:
    """Keep others from changing the configuration until this transaction ends.

    :param expected: the version that the change was prepared on
    :returns: the version in force
    :raises ConflictError: somebody changed the configuration since ``expected``
    """
    state = select(ConfigStateRow.version).where(ConfigStateRow.id == 1)
    version = await _state(state.with_for_update(), session)
    if expected is not None and version != expected:
        raise ConflictError(
            f"the configuration was changed meanwhile (version {version}, yours was {expected})",
            hint="look at it again, then repeat your change",
        )
    return version


async def list_changes(session: AsyncSession, limit: int = 50) -> list[ConfigChange]:
    """The audit log, newest first."""
    rows = await session.scalars(select(ConfigChangeRow).order_by(ConfigChangeRow.version.desc()).limit(limit))
    return [ConfigChange(r.version, r.at, r.who, r.what, r.why, r.before, r.after) for r in rows]


async def record_change(
    session: AsyncSession, what: str, *, who: str, why: str, before: Any = None, after: Any = None
) -> int:
    """Move the configuration's version and write the audit log. Every change passes here, in its own transaction.

    :param before: the core value as it was; None for an addition
    :param after: the core value as it is; None for a removal
    :returns: the new version
    """
    move = update(ConfigStateRow).where(ConfigStateRow.id == 1).values(version=ConfigStateRow.version + 1)
    version = await _state(move.returning(ConfigStateRow.version), session)
    session.add(
        ConfigChangeRow(
            version=version, at=now(), who=who, what=what, why=why, before=_plain(before), after=_plain(after)
        )
    )
    await session.flush()
    return version


def stamp(row: AnyRow, who: str) -> None:
    """Set the audit columns of a row that is new or was changed."""
    at = now()
    if not row.created_by:
        row.created_at, row.created_by = at, who
    row.updated_at, row.updated_by = at, who


def slug(noun: str, name: str) -> str:
    """Check a name.

    :raises InputError: it is no slug; the hint suggests one
    """
    if NAME.fullmatch(name):
        return name
    suggestion = re.sub(r"[^a-z0-9]+", "-", name.strip().lower()).strip("-")[:63].strip("-")
    raise InputError(
        f"{name!r} cannot be the name of a {noun}: lower-case letters, digits and hyphens, at most 63",
        hint=f"take {suggestion!r}" if NAME.fullmatch(suggestion) else "for example 'spring-radio'",
    )


def recording(said: object) -> str:
    """What one part of the routing says of recording, as it is stored; true and false are force and never.

    :raises InputError: none of the words
    """
    try:
        return RecordingPolicy.of(said).value
    except ValueError:
        raise InputError(f"{said!r} says nothing of recording", hint=" or ".join(RecordingPolicy)) from None


def merged(noun: str, current: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``current`` with ``changes``; refuses what is not among the keys of ``current``.

    :raises InputError: nothing to change, or an unknown field
    """
    if not changes:
        raise InputError(f"nothing to change on this {noun}", hint=f"one of: {', '.join(current)}")
    for key in changes:
        if key not in current:
            raise InputError(f"a {noun} has no {key!r}", hint=f"one of: {', '.join(current)}")
    return {**current, **changes}


def unknown(noun: str, name: str, existing: Iterable[str], *, within: str | None = None) -> NotFoundError:
    """The error for a name that does not exist, with the closest ones that do."""
    names = sorted(set(existing))
    close = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    where = f" in company {within!r}" if within else ""
    if close:
        hint = "did you mean " + " or ".join(close) + "?"
    elif names:
        listed = ", ".join(names[:10]) + (" …" if len(names) > 10 else "")
        hint = f"there {'is' if len(names) == 1 else 'are'}: {listed}"
    else:
        hint = f"there is none yet; callrouter {noun} add makes one"
    return NotFoundError(f"there is no {noun} {name!r}{where}", hint=hint)


def in_use(noun: str, name: str, uses: Sequence[str]) -> ConflictError:
    """The refusal to remove what something else needs."""
    shown = ", ".join(uses[:8]) + (f" and {len(uses) - 8} more" if len(uses) > 8 else "")
    return ConflictError(f"{noun} {name!r} is in use by {shown}", hint="change or remove those first")


def keeps_its_name(noun: str, name: str, flows: Sequence[str], does: str = "rings") -> ConflictError:
    """The refusal to rename what flows mention by name.

    :param does: what they do with it
    """
    return ConflictError(
        f"{noun} {name!r} cannot change its name: flow {', '.join(flows)} {does} it by name",
        hint=f"add a {noun} of the new name, edit the flows, then remove this one",
    )


async def company_row(session: AsyncSession, name: str) -> CompanyRow:
    """:raises NotFoundError:"""
    row = await session.scalar(select(CompanyRow).where(CompanyRow.name == name))
    if row is None:
        raise unknown("company", name, await session.scalars(select(CompanyRow.name)))
    return row


async def trunk_row(session: AsyncSession, name: str) -> TrunkRow:
    """:raises NotFoundError:"""
    row = await session.scalar(select(TrunkRow).where(TrunkRow.name == name))
    if row is None:
        raise unknown("trunk", name, await session.scalars(select(TrunkRow.name)))
    return row


async def owned_row(
    session: AsyncSession, model: type[Owned], noun: str, company: str | None, name: str
) -> tuple[Owned, CompanyRow]:
    """What a company owns, by name: ``company`` and name, or "company/name", or a name that only one company has.

    :raises NotFoundError: no such company or name
    :raises InputError: several companies have that name
    """
    before, slash, after = name.partition("/")
    if slash and company in (None, before):
        company, name = before, after
    live = _live(model)
    table: Any = model
    if company is not None:
        owner = await company_row(session, company)
        named = select(table).where(table.company_id == owner.id, table.name == name, *live)
        row: Owned | None = await session.scalar(named)
        if row is None:
            names = await session.scalars(select(model.name).where(model.company_id == owner.id, *live))
            raise unknown(noun, name, names, within=company)
        return row, owner
    found = (
        await session.execute(
            select(model, CompanyRow)
            .join(CompanyRow, CompanyRow.id == model.company_id)
            .where(model.name == name, *live)
            .order_by(CompanyRow.name)
        )
    ).all()
    if not found:
        raise unknown(noun, name, await session.scalars(select(model.name).where(*live)))
    if len(found) > 1:
        raise InputError(
            f"several companies have a {noun} {name!r}",
            hint="say which: " + " or ".join(f"{owner.name}/{name}" for _, owner in found),
        )
    return found[0][0], found[0][1]


async def require_free(session: AsyncSession, model: type[Owned], noun: str, owner: CompanyRow, name: str) -> None:
    """:raises ConflictError: the company has something of that name already"""
    table: Any = model
    taken = await session.scalar(
        select(table.id).where(table.company_id == owner.id, table.name == name, *_live(model))
    )
    if taken is not None:
        raise ConflictError(
            f"company {owner.name!r} has a {noun} {name!r} already",
            hint=f"callrouter {noun} show {owner.name}/{name}, or take another name",
        )


async def _state(statement: Any, session: AsyncSession) -> int:
    version: int | None = await session.scalar(statement)
    if version is None:
        raise DatabaseError("the database holds no configuration state", hint="callrouter db check")
    return version


def _live(model: type[Any]) -> list[ColumnElement[bool]]:
    """Conditions that leave out what was removed and is only kept for the record."""
    return [model.removed_at.is_(None)] if hasattr(model, "removed_at") else []


def _plain(value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    return {key: list(item) if isinstance(item, tuple) else item for key, item in dataclasses.asdict(value).items()}
