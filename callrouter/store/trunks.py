"""Trunks: add, list, get, edit, remove."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from callrouter.core import phone
from callrouter.core.model import CallerIdMode, DidSource, MediaEncryption, NumberFormat, Trunk
from callrouter.core.trunks import SETUP_SECONDS, TRANSPORTS, checked_rates, default_port, protection_fault
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
    "media_encryption",
    "secure_only",
    "trust_identity",
    "next_trunk",
    "setup_seconds",
    "rates",
)
Choice = TypeVar("Choice", bound=StrEnum)


_Next = aliased(TrunkRow)
_WITH_NEXT = select(TrunkRow, _Next.name).outerjoin(_Next, _Next.id == TrunkRow.next_trunk_id).order_by(TrunkRow.name)


def trunk_value(row: TrunkRow, next_trunk: str | None) -> Trunk:
    """
    :param next_trunk: name of the trunk that ``row.next_trunk_id`` means
    """
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
        media_encryption=MediaEncryption(row.media_encryption),
        secure_only=row.secure_only,
        trust_identity=row.trust_identity,
        next_trunk=next_trunk,
        setup_seconds=row.setup_seconds,
        rates=tuple((str(prefix), int(micros)) for prefix, micros in row.rates),
    )


async def add_trunk(
    session: AsyncSession,
    *,
    name: str,
    host: str,
    preset: str = "generic-ip",
    port: int | None = None,
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
    media_encryption: MediaEncryption | str = MediaEncryption.NONE,
    secure_only: bool = False,
    trust_identity: bool = False,
    next_trunk: str | None = None,
    setup_seconds: float = 4.0,
    rates: Sequence[tuple[str, int]] = (),
    who: str,
    why: str = "",
) -> Trunk:
    """Add a trunk. Fields as in :class:`callrouter.core.model.Trunk`; the password is kept outside the database.

    :param port: None: that of the transport
    :raises NotFoundError: no such next trunk
    :raises InputError: a field that cannot be, or that needs another one (``registers`` needs ``username``)
    :raises ConflictError: the name is taken
    """
    given = dict(locals())
    values = _values({key: given[key] for key in FIELDS})
    if await session.scalar(select(TrunkRow.id).where(TrunkRow.name == name)):
        raise ConflictError(
            f"there is a trunk {name!r} already", hint=f"callrouter trunk show {name}, or take another name"
        )
    after = values.pop("next_trunk")
    row = TrunkRow(**values, next_trunk_id=await _next_id(session, name, after))
    common.stamp(row, who)
    session.add(row)
    await session.flush()
    value = trunk_value(row, after)
    await common.record_change(session, f"add trunk {name}", who=who, why=why, after=value)
    return value


async def list_trunks(session: AsyncSession) -> list[Trunk]:
    """By name."""
    return [trunk_value(row, after) for row, after in await session.execute(_WITH_NEXT)]


async def get_trunk(session: AsyncSession, name: str) -> Trunk:
    """:raises NotFoundError: with close names in the hint"""
    return (await _row_and_value(session, name))[1]


async def edit_trunk(session: AsyncSession, name: str, changes: Mapping[str, Any], *, who: str, why: str = "") -> Trunk:
    """Change a trunk.

    :param changes: any field of :func:`add_trunk` but ``name``, which also names the trunk's password file
    :raises InputError: as :func:`add_trunk`; the trunks that follow each other would go round in a circle
    :raises NotFoundError: no such trunk
    """
    row, before = await _row_and_value(session, name)
    merged = common.merged("trunk", {key: getattr(before, key) for key in FIELDS}, changes)
    if "port" not in changes and before.port == default_port(before.transport):
        merged["port"] = None
    values = _values(merged)
    if values["name"] != row.name:
        raise InputError(
            f"trunk {name!r} cannot change its name: its password is kept under it",
            hint="add a trunk of the new name, move the targets to it, then remove this one",
        )
    next_trunk = values.pop("next_trunk")
    row.next_trunk_id = await _next_id(session, name, next_trunk)
    for key, value in values.items():
        setattr(row, key, value)
    common.stamp(row, who)
    await session.flush()
    after = trunk_value(row, next_trunk)
    await common.record_change(session, f"edit trunk {name}", who=who, why=why, before=before, after=after)
    return after


async def remove_trunk(session: AsyncSession, name: str, *, who: str, why: str = "") -> None:
    """Remove a trunk.

    :raises NotFoundError: no such trunk
    :raises ConflictError: targets are dialled through it, or it is the next one of others; the message names them
    """
    row, before = await _row_and_value(session, name)
    used = (
        select(TargetRow.name, CompanyRow.name)
        .join(CompanyRow, CompanyRow.id == TargetRow.company_id)
        .where(TargetRow.trunk_id == row.id)
        .order_by(CompanyRow.name, TargetRow.name)
    )
    uses = [f"target {company}/{target}" for target, company in await session.execute(used)]
    earlier = select(TrunkRow.name).where(TrunkRow.next_trunk_id == row.id).order_by(TrunkRow.name)
    uses += [f"trunk {other}, whose next it is" for other in await session.scalars(earlier)]
    if uses:
        raise common.in_use("trunk", name, uses)
    await session.delete(row)
    await session.flush()
    await common.record_change(session, f"remove trunk {name}", who=who, why=why, before=before)


async def _row_and_value(session: AsyncSession, name: str) -> tuple[TrunkRow, Trunk]:
    found = (await session.execute(_WITH_NEXT.where(TrunkRow.name == name))).one_or_none()
    row, after = found if found is not None else (await common.trunk_row(session, name), None)
    return row, trunk_value(row, after)


async def _next_id(session: AsyncSession, name: str, after: str | None) -> str | None:
    """The id of a trunk's next one.

    :raises NotFoundError: there is no such trunk
    :raises InputError: from there the way leads back
    """
    if after is None:
        return None
    found, way = after, [name]
    rows = {row.name: (row, following) for row, following in await session.execute(_WITH_NEXT)}
    while found and found != name and found in rows:
        way.append(found)
        found = rows[found][1]
    if found == name:
        raise InputError(
            f"trunk {name!r} cannot be followed by {after!r}: {' → '.join([*way, name])} goes round in a circle",
            hint="give another --next-trunk",
        )
    return (await common.trunk_row(session, after)).id


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
    transport = values["transport"]
    if transport not in TRANSPORTS:
        raise InputError(f"transport cannot be {transport!r}", hint=f"one of: {', '.join(TRANSPORTS)}")
    port = default_port(transport) if values["port"] is None else int(values["port"])
    qualify, setup = int(values["qualify_seconds"]), float(values["setup_seconds"])
    if not 1 <= port <= 65535:
        raise InputError(f"port {port} is out of range", hint="1 to 65535; SIP's own is 5060, with TLS 5061")
    if not 0 <= qualify <= 3600:
        raise InputError(f"qualify-seconds {qualify} is out of range", hint="0 (never) to 3600")
    least, most = SETUP_SECONDS
    if not least <= setup <= most:
        raise InputError(f"setup-seconds {setup:g} is out of range", hint=f"{least:g} to {most:g}")
    media, secure_only = (
        MediaEncryption(_one("media-encryption", MediaEncryption, values["media_encryption"])),
        bool(values["secure_only"]),
    )
    if fault := protection_fault(transport, media, secure_only):
        raise InputError(fault[0], hint=fault[1])
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
        "transport": transport,
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
        "media_encryption": media.value,
        "secure_only": secure_only,
        "trust_identity": bool(values["trust_identity"]),
        "next_trunk": str(values["next_trunk"] or "").strip() or None,
        "setup_seconds": setup,
        "rates": [list(rate) for rate in checked_rates(values["rates"] or ())],
    }
