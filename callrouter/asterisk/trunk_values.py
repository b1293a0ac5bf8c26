"""A trunk as the templates write it: every field checked, so that no value of the database can end its line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import Any

from callrouter.asterisk.secrets import Secret, Secrets, trunk_secret_name
from callrouter.config import Settings
from callrouter.core.model import DidSource, MediaEncryption, Trunk
from callrouter.core.trunks import TRANSPORTS, default_port, protection_fault
from callrouter.errors import ConfigError

SIMULATOR = "simulator"
"""Name of the trunk that the simulated carrier calls through."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")
_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9]([A-Za-z0-9-]{0,62})?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,62})?)*\.?\Z")
_USER = re.compile(r"[A-Za-z0-9+._~-]{1,80}\Z")
_CODEC = re.compile(r"[a-z0-9]{1,16}\Z")


def check_trunk(trunk: Trunk, settings: Settings) -> None:
    """
    :raises ConfigError: a field of the trunk cannot stand in a configuration file
    """
    trunk_values(trunk, settings, None)


def trunk_values(trunk: Trunk, settings: Settings, secrets: Secrets | None) -> dict[str, Any]:
    def refuse(what: str, hint: str) -> ConfigError:
        return ConfigError(f"trunk {trunk.name!r}: {what}", hint=hint)

    edit = f"callrouter trunk edit {trunk.name if _NAME.match(trunk.name) else 'NAME'}"
    if not _NAME.match(trunk.name) or trunk.name == SIMULATOR:
        raise refuse("is no name for a trunk", "small letters, digits and dashes; not 'simulator'")
    if not _is_host(trunk.host):
        raise refuse(f"{trunk.host!r} is no host name or address", f"{edit} --host HOST")
    if not 1 <= trunk.port <= 65535:
        raise refuse(f"port {trunk.port} is not between 1 and 65535", f"{edit} --port {default_port(trunk.transport)}")
    if trunk.transport not in TRANSPORTS:
        raise refuse(f"there is no transport {trunk.transport!r}", f"{edit} --transport udp")
    if fault := protection_fault(trunk.transport, trunk.media_encryption, trunk.secure_only):
        raise refuse(*fault)
    if trunk.registers and not trunk.username:
        raise refuse("it registers, but has no user name", f"{edit} --username NAME")
    if trunk.username is not None and not _USER.match(trunk.username):
        raise refuse(f"{trunk.username!r} is no SIP user name", "letters, digits, + . _ ~ -")
    if not 0 <= trunk.qualify_seconds <= 3600:
        raise refuse("qualify_seconds is not between 0 and 3600", f"{edit} --qualify-seconds 60")
    match = trunk.match or (trunk.host,)
    for address in match:
        if not _is_network(address) and not _is_host(address):
            raise refuse(f"{address!r} is no address, network or host name", f"{edit} --match ADDRESS")
        if _is_network(address) and ip_network(address, strict=False).prefixlen == 0:
            raise refuse(f"{address} matches the whole world", "name the provider's own networks")
        if settings.simulator and _is_network(address) and _covers(address, settings.simulator_address):
            raise refuse(f"{address} covers the simulated carrier's address", "choose another simulator_address")
    password: Secret | None = None
    if trunk.username and secrets is not None:
        password = secrets.trunks.get(trunk.name)
        if password is None:
            raise refuse(
                f"its password is missing from secrets/{trunk_secret_name(trunk.name)}",
                f"callrouter trunk edit {trunk.name} --password",
            )
    host = f"[{trunk.host}]" if ":" in trunk.host else trunk.host
    # Without a port a name is looked up as SRV first (RFC 3263); providers move their gateways that way.
    srv = not is_address(trunk.host) and trunk.port == default_port(trunk.transport)
    where = host if srv else f"{host}:{trunk.port}"
    tail = "" if trunk.transport == "udp" else f";transport={trunk.transport}"
    to_header = trunk.did_source is DidSource.TO_HEADER
    patterns = ["_[+0-9A-Za-z]!", "s"] if to_header else ["_[+0-9]!"]
    return {
        "name": trunk.name,
        "host": trunk.host,
        "transport": trunk.transport,
        "media_encryption": trunk.media_encryption.value,
        "srtp": trunk.media_encryption is not MediaEncryption.NONE,
        "secure_only": trunk.secure_only,
        "trust_identity": trunk.trust_identity,
        "username": trunk.username,
        "registers": trunk.registers,
        "password": password,
        "qualify_seconds": trunk.qualify_seconds,
        "match": match,
        "srv": srv and not trunk.match,
        "codecs": checked_codecs(f"trunk {trunk.name!r}", trunk.codecs or settings.codecs.split(",")),
        "contact": f"sip:{where}{tail}",
        "client_uri": f"sip:{trunk.username}@{where}" if trunk.username else "",
        "to_header": to_header,
        "patterns": patterns,
    }


def checked_codecs(where: str, names: Sequence[str]) -> str:
    cleaned = [name.strip() for name in names if name.strip()]
    for name in cleaned:
        if not _CODEC.match(name):
            raise ConfigError(f"{where}: {name!r} is no codec", hint="for example ulaw,alaw,g722")
    if not cleaned:
        raise ConfigError(f"{where}: no codec is named", hint="for example ulaw,alaw")
    return ",".join(cleaned)


def is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _is_host(text: str) -> bool:
    # Four numbers that are no address (300.1.1.1) are a slip of the hand, not a name.
    return is_address(text) or (bool(_HOST.match(text)) and not re.fullmatch(r"[0-9.]+", text))


def _covers(network: str, address: str) -> bool:
    return ip_address(address) in ip_network(network, strict=False)
