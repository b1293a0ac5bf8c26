"""Trunks: add, list, get, edit, remove."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from callrouter.core import phone
from callrouter.core.model import CallerIdMode, DidSource, NumberFormat, Trunk
from callrouter.errors import ConflictError, InputError
from callrouter.store import changes as common
from callrouter.store.companies import check_country
from callrouter.store.models import CompanyRow, TargetRow, TrunkRow

LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
FIELDS = (
    "name",
    "preset",
    "host",
    "port",
    "transport",
    "match",
    "registers",
    "username",
    "codecs",
    "caller_id",
    "fixed_caller_id",
    "did_source",
    "number_format",
    "qualify_seconds",
    "country",
)
Choice = TypeVar("Choice", bound=StrEnum)


def trunk_value(row: TrunkRow) -> Trunk:
    return Trunk(
        id=row.id,
        name=row.name,
        preset=row.preset,
        host=row.host,
        port=row.port,
        transport=row.transport,
        match=tuple(row.match),
        registers=row.registers,
        username=row.username,
        codecs=tuple(row.codecs),
        caller_id=CallerIdMode(row.caller_id),
        fixed_caller_id=row.fixed_caller_id,
        did_source=DidSource(row.did_source),
        number_format=NumberFormat(row.number_format),
        qualify_seconds=row.qualify_seconds,
        country=row.country,
    )


async def add_trunk(
    session: AsyncSession,
    *,
    name: str,
    host: str,
    preset: str = "generic-ip",
    port: int = 5060,
    transport: str = "udp",
    match: Sequence[str] = (),
    registers: bool = False,
    username: str | None = None,
    codecs: Sequence[str] = (),
    caller_id: CallerIdMode | str = CallerIdMode.PASS_THROUGH,
    fixed_caller_id: str | None = None,
    did_source: DidSource | str = DidSource.REQUEST_URI,
    number_format: NumberFormat | str = NumberFormat.E164,
    qualify_seconds: int = 60,
    country: str = "US",
    who: str,
    why: str = "",
) -> Trunk:
    """Add a trunk. Fields as in :class:`callrouter.core.model.Trunk`; the password is kept outside the database.

    :raises InputError: a field that cannot be, or that needs another one (``registers`` needs ``username``)
    :raises ConflictError: the name is taken
    """
    given = dict(locals())
    values = _values({key: given[key] for key in FIELDS})
    if await session.scalar(select(TrunkRow.id).where(TrunkRow.name == name)):
        raise ConflictError(
            f"there is a trunk {name!r} already", hint=f"callrouter trunk show {name}, or take another name"
        )
    row = TrunkRow(**values)
    common.stamp(row, who)
    session.add(row)
    await session.flush()
    value = trunk_value(row)
    await common.record_change(session, f"add trunk {name}", who=who, why=why, after=value)
    return value


async def list_trunks(session: AsyncSession) -> list[Trunk]:
    """By name."""
    return [trunk_value(row) for row in await session.scalars(select(TrunkRow).order_by(TrunkRow.name))]


async def get_trunk(session: AsyncSession, name: str) -> Trunk:
    """:raises NotFoundError: with close names in the hint"""
    return trunk_value(await common.trunk_row(session, name))


async def edit_trunk(session: AsyncSession, name: str, changes: Mapping[str, Any], *, who: str, why: str = "") -> Trunk:
    """Change a trunk.

    :param changes: any field of :func:`add_trunk` but ``name``, which also names the trunk's password file
    :raises InputError: as :func:`add_trunk`
    :raises NotFoundError: no such trunk
    """
    row = await common.trunk_row(session, name)
    before = trunk_value(row)
    values = _values(common.merged("trunk", {key: getattr(row, key) for key in FIELDS}, changes))
    if values["name"] != row.name:
        raise InputError(
            f"trunk {name!r} cannot change its name: its password is kept under it",
            hint="add a trunk of the new name, move the targets to it, then remove this one",
        )
    for key, value in values.items():
        setattr(row, key, value)
    common.stamp(row, who)
    await session.flush()
    after = trunk_value(row)
    await common.record_change(session, f"edit trunk {name}", who=who, why=why, before=before, after=after)
    return after


async def remove_trunk(session: AsyncSession, name: str, *, who: str, why: str = "") -> None:
    """Remove a trunk.

    :raises NotFoundError: no such trunk
    :raises ConflictError: targets are dialled through it; the message names them
    """
    row = await common.trunk_row(session, name)
    used = (
        select(TargetRow.name, CompanyRow.name)
        .join(CompanyRow, CompanyRow.id == TargetRow.company_id)
        .where(TargetRow.trunk_id == row.id)
        .order_by(CompanyRow.name, TargetRow.name)
    )
    uses = [f"target {company}/{target}" for target, company in await session.execute(used)]
    if uses:
        raise common.in_use("trunk", name, uses)
    before = trunk_value(row)
    await session.delete(row)
    await session.flush()
    await common.record_change(session, f"remove trunk {name}", who=who, why=why, before=before)


def check_host(host: str) -> str:
    """:raises InputError: neither a host name nor an IP address"""
    text = str(host).strip()
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        # Digits and dots alone are an address that was mistyped, never a host name.
        named = all(LABEL.fullmatch(label) for label in text.removesuffix(".").split("."))
        if named and len(text) <= 253 and not re.fullmatch(r"[0-9.]+", text):
            return text
    raise InputError(f"{host!r} is neither a host name nor an address", hint="give it alone, without sip: and port")


def _one(name: str, kind: type[Choice], value: Any) -> str:
    try:
        return kind(value).value
    except ValueError:
        raise InputError(f"{name} cannot be {value!r}", hint="one of: " + ", ".join(kind)) from None


def _values(values: dict[str, Any]) -> dict[str, Any]:
    name = common.slug("trunk", values["name"])
    country = check_country(values["country"])
    port, qualify = int(values["port"]), int(values["qualify_seconds"])
    if not 1 <= port <= 65535:
        raise InputError(f"port {port} is out of range", hint="1 to 65535; SIP's own is 5060, with TLS 5061")
    if not 0 <= qualify <= 3600:
        raise InputError(f"qualify-seconds {qualify} is out of range", hint="0 (never) to 3600")
    if values["transport"] not in ("udp", "tcp", "tls"):
        raise InputError(f"transport cannot be {values['transport']!r}", hint="one of: udp, tcp, tls")
    matches = []
    for each in values["match"] or ():
        try:
            network = ipaddress.ip_network(str(each).strip(), strict=False)
        except ValueError:
            matches.append(check_host(each))
        else:
            matches.append(str(network.network_address) if network.num_addresses == 1 else str(network))
    codecs = [str(codec).strip().lower() for codec in values["codecs"] or ()]
    for codec in codecs:
        if not re.fullmatch(r"[a-z0-9]{1,20}", codec):
            raise InputError(f"{codec!r} is no codec name", hint="as Asterisk names them: ulaw, alaw, g722, opus")
    username = str(values["username"] or "").strip() or None
    if username and not re.fullmatch(r"[^\s\x00-\x1f;\[\]]{1,128}", username):
        raise InputError(f"{username!r} cannot be a user name", hint="no spaces, semicolons or brackets")
    if values["registers"] and not username:
        raise InputError("a trunk that registers needs a user name", hint="give --username, from your provider")
    mode = _one("caller-id", CallerIdMode, values["caller_id"])
    fixed = phone.normalize(values["fixed_caller_id"], country) if values["fixed_caller_id"] else None
    if mode == CallerIdMode.FIXED and not fixed:
        raise InputError("caller-id fixed needs the number to show", hint="give --fixed-caller-id +12025550123")
    return {
        "name": name,
        "preset": common.slug("preset", values["preset"]),
        "host": check_host(values["host"]),
        "port": port,
        "transport": values["transport"],
        "match": matches,
        "registers": bool(values["registers"]),
        "username": username,
        "codecs": codecs,
        "caller_id": mode,
        "fixed_caller_id": fixed,
        "did_source": _one("did-source", DidSource, values["did_source"]),
        "number_format": _one("number-format", NumberFormat, values["number_format"]),
        "qualify_seconds": qualify,
        "country": country,
    }
