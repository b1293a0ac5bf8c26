"""Addresses of web services, and which of them may be asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from callrouter.errors import InputError

MAX_URL = 2000
_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]"
_URL = re.compile(rf"(https?)://({_HOST})(?::([0-9]{{1,5}}))?(?:[/?][!-\[\]-~]*)?")
_LISTED = re.compile(rf"(?:(https?)://)?({_HOST})(?::([0-9]{{1,5}}))?")
_LOOPBACK = re.compile(r"localhost|127(\.[0-9]{1,3}){3}|\[::1\]")
_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Listed:
    """A service that may be asked."""

    host: str
    port: int | None
    """None: that of the scheme."""
    scheme: str | None
    """None: https; http as well where the host is this machine."""


Hosts = Sequence[Listed]


def parse_hosts(text: str) -> tuple[Listed, ...]:
    """The setting ``webhook_hosts``: ``crm.example.com, 127.0.0.1:9000, http://10.0.0.5``.

    :raises InputError: one is no host
    """
    found = []
    for each in filter(None, (part.strip() for part in text.split(","))):
        match = _LISTED.fullmatch(each)
        if match is None:
            raise InputError(f"{each!r} is no host", hint="for example crm.example.com or 127.0.0.1:9000")
        found.append(Listed(match[2].lower(), int(match[3]) if match[3] else None, match[1]))
    return tuple(found)


def check_url(url: str) -> str:
    """An address that could be asked.

    :raises InputError: another scheme, a user name or password in it, no host, characters that are to be escaped
    """
    if len(url) > MAX_URL:
        raise InputError(f"the address is longer than {MAX_URL} characters")
    if "@" in url.partition("://")[2].partition("/")[0]:
        hint = "requests are signed instead; see the guide 'web services'"
        raise InputError("the address holds a user name or password, which would be written into logs", hint=hint)
    match = _URL.fullmatch(url)
    if match is None or not 0 < int(match[3] or 1) < 65536 or "#" in url or not _is_host(match[2]):
        raise InputError(f"{url!r} is no address of a service", hint="for example https://crm.example.com/callrouter")
    return url


def _is_host(text: str) -> bool:
    if not text.startswith("["):
        return True
    try:
        ip_address(text[1:-1])
    except ValueError:
        return False
    return True


def host_of(url: str) -> str:
    """The host of an address, with its port where it names one."""
    return url.partition("://")[2].partition("/")[0].partition("?")[0]


def refused(url: str, hosts: Hosts) -> tuple[str, str] | None:
    """Why a service may not be asked, and what can be done; None: it may.

    :param hosts: those that the settings name
    """
    match = _URL.fullmatch(url)
    if match is None:
        return "its address is none", "for example https://crm.example.com/callrouter"
    scheme, host, port = match[1], match[2].lower(), int(match[3] or _PORTS[match[1]])
    local = _LOOPBACK.fullmatch(host) is not None
    for each in hosts:
        allowed = each.scheme == scheme or (each.scheme is None and (scheme == "https" or local))
        if allowed and each.host == host and (each.port or _PORTS[scheme]) == port:
            return None
    written = host_of(url).lower()
    if scheme == "http" and not local:
        hint = f"write https://, or add http://{written} to webhook_hosts in callrouter.toml"
        return f"{written} would be asked without encryption", hint
    return f"{written} is not among webhook_hosts", f'in callrouter.toml: webhook_hosts = "{written}"'
