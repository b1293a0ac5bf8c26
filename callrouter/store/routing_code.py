"""The routing as a whole: as it is, as it was at a version, and changed in one transaction."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from callrouter.core import model
from callrouter.core.routing_code.change import ADD, REMOVE, Change
from callrouter.core.routing_code.fields import Key, Routing, from_parts
from callrouter.errors import CallrouterError, NotFoundError
from callrouter.store import config as store
from callrouter.store.changes import ConfigChange

T = TypeVar("T")
_CLASSES: Mapping[str, type[Any]] = {
    "company": model.Company,
    "campaign": model.Campaign,
    "trunk": model.Trunk,
    "target": model.Target,
    "group": model.TargetGroup,
    "number": model.TrackingNumber,
    "flow": model.FlowVersion,
}
_ENUMS = {
    "caller_id": model.CallerIdMode,
    "did_source": model.DidSource,
    "number_format": model.NumberFormat,
    "media_encryption": model.MediaEncryption,
    "record": model.RecordingPolicy,
    "strategy": model.Strategy,
}


@dataclass(frozen=True, slots=True)
class Past:
    """The routing as it was at a version."""

    version: int
    routing: Routing
    renamed: tuple[tuple[Key, str], ...]
    """What goes on to-day under another name than then: as it is called now, and its name then. Companies first."""
    doubts: tuple[str, ...]
    """What the log of changes does not tell, or not truly."""


async def current_routing(session: AsyncSession) -> tuple[int, Routing]:
    """The configuration's version and its routing, of one moment."""
    while True:
        version = await store.config_version(session)
        parts = await _by_id(session)
        # As load_config: where a transaction does not see one moment only, it may have moved in between.
        if await store.config_version(session) == version:
            return version, _named(parts)


async def routing_at(session: AsyncSession, version: int) -> Past:
    """The routing as it was at a version: what was changed since is taken back, newest first.

    :raises NotFoundError: there was no such version
    """
    now = await store.config_version(session)
    if not 0 <= version <= now:
        raise NotFoundError(f"there is no version {version} of the configuration", hint=f"there are 0 to {now}")
    parts = await _by_id(session)
    names_now = {kind: dict(of_kind) for kind, of_kind in parts.items()}
    doubts: list[str] = []
    undo = [each for each in await store.list_changes(session, now - version) if each.version > version] if now else []
    for change in undo:
        _take_back(change, parts, doubts)
    routing = _named(parts)
    return Past(version, routing, tuple(_renamed(names_now, parts)), tuple(dict.fromkeys(doubts)))


async def apply_changes(
    session: AsyncSession,
    planned: Iterable[Change],
    *,
    who: str,
    why: str,
    explain: Callable[[Change, CallrouterError], CallrouterError] | None = None,
) -> None:
    """Make changes, in order; in the session's transaction, so all of them or none. Flows may go on in one another,
    in any order: they are checked when all of them are there.

    :param explain: says of a refused change where it came from
    :raises CallrouterError: as the functions of :mod:`callrouter.store.config`
    """
    flows: dict[str, dict[str, Change]] = {}
    for change in planned:
        if change.key.kind == "flow":
            flows.setdefault(change.key.company, {}).update(dict.fromkeys(_names(change), change))
        await _explained(_apply(session, change, who, why), change, explain)
    for company, changed in flows.items():
        checked = store.check_flows(session, company, changed)
        await _explained(checked, next(reversed(changed.values())), explain)


def _names(change: Change) -> tuple[str, ...]:
    return (change.key.name, *([str(change.values["name"])] if change.what != ADD and "name" in change.values else []))


async def _explained(
    work: Awaitable[None], change: Change, explain: Callable[[Change, CallrouterError], CallrouterError] | None
) -> None:
    try:
        await work
    except CallrouterError as exc:
        if explain is None:
            raise
        raise explain(change, exc) from exc


async def _apply(session: AsyncSession, change: Change, who: str, why: str) -> None:
    key, values = change.key, change.values
    if key.kind in ("trunk", "company"):
        match key.kind, change.what:
            case "trunk", "add":
                await store.add_trunk(session, name=key.name, **values, who=who, why=why)
            case "trunk", "edit":
                await store.edit_trunk(session, key.name, values, who=who, why=why)
            case "trunk", "remove":
                await store.remove_trunk(session, key.name, who=who, why=why)
            case "company", "add":
                await store.add_company(session, name=key.name, **values, who=who, why=why)
            case "company", "edit":
                await store.edit_company(session, key.name, values, who=who, why=why)
        return
    called = {"number": key.name} if key.kind == "number" else {"name": key.name}
    later = {"check": False} if key.kind == "flow" else {}
    if change.what == ADD:
        add: Any = getattr(store, f"add_{key.kind}")
        await add(session, key.company, **called, **values, who=who, why=why, **later)
    elif change.what == REMOVE:
        remove: Any = getattr(store, f"remove_{key.kind}")
        await remove(session, key.name, company=key.company, who=who, why=why, **later)
    else:
        edit: Any = getattr(store, f"edit_{key.kind}")
        await edit(session, key.name, values, company=key.company, who=who, why=why, **later)


Parts = dict[str, dict[str, Any]]
"""Core values by kind and id; flows by the id of the flow."""


async def _by_id(session: AsyncSession) -> Parts:
    return {
        "company": {one.id: one for one in await store.list_companies(session)},
        "campaign": {one.id: one for one in await store.list_campaigns(session)},
        "trunk": {one.id: one for one in await store.list_trunks(session)},
        "target": {one.id: one for one in await store.list_targets(session)},
        "group": {one.id: one for one in await store.list_groups(session)},
        "flow": {one.flow_id: one for one in await store.list_flows(session)},
        "number": {one.id: one for one in await store.list_numbers(session)},
    }


def _named(parts: Parts) -> Routing:
    order = ("company", "campaign", "trunk", "target", "group", "flow", "number")
    return from_parts(*(parts[kind] for kind in order))


def kind_of(change: ConfigChange) -> str:
    """What a change was made to: "company", "prompt" …"""
    return [*change.what.split(), "", ""][1]


def _take_back(change: ConfigChange, parts: Parts, doubts: list[str]) -> None:
    kind = kind_of(change)
    if kind not in parts:
        what = "a prompt's audio is not part of the routing" if kind == "prompt" else "not part of the routing"
        doubts.append(f"version {change.version}, {change.what}: {what}, it stays as it is")
        return
    ident_of = "flow_id" if kind == "flow" else "id"
    if change.after is not None:
        known = parts[kind].pop(str(change.after[ident_of]), None)
        if known is None or not _same(known, change.after):
            doubts.append(f"version {change.version}, {change.what}: what is in force is not what it left behind")
    if change.before is not None:
        parts[kind][str(change.before[ident_of])] = _revive(_CLASSES[kind], change.before)


def _same(value: Any, logged: Mapping[str, Any]) -> bool:
    """Whether a value is the one that was logged, as far as it was; a flow's text alone counts."""
    names = ["name", "text"] if isinstance(value, model.FlowVersion) else [f.name for f in dataclasses.fields(value)]
    return all(getattr(value, name) == _typed(name, logged[name]) for name in names if name in logged)


def _revive(kind: type[T], logged: Mapping[str, Any]) -> T:
    """A value out of the log; fields that it has not seen yet are at their defaults."""
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: _typed(name, value) for name, value in logged.items() if name in known})


def _typed(name: str, value: Any) -> Any:
    if name in _ENUMS and value is not None:
        return _ENUMS[name](value)
    if name == "members":
        return tuple(model.Member(**each) for each in value)
    if isinstance(value, list):
        return tuple(tuple(each) if isinstance(each, list) else each for each in value)
    return value


def _renamed(now: Parts, then: Parts) -> Iterable[tuple[Key, str]]:
    """Targets and trunks are not among them: those are known by their names, and made anew."""
    companies = {ident: one.name for ident, one in now["company"].items()}
    for kind in ("company", "campaign", "flow", "number"):
        field = "e164" if kind == "number" else "name"
        for ident, before in then[kind].items():
            after = now[kind].get(ident)
            if after is not None and getattr(after, field) != getattr(before, field):
                owner = companies[after.company_id] if kind != "company" else ""
                yield Key(kind, owner, getattr(after, field)), getattr(before, field)
