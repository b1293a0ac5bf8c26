"""What Asterisk's Dial() is given for a destination. The one place where a number or URI becomes a dial string.

A dial string is taken apart by Asterisk at ``& , ( ) ^ | $ { }``; a URI that held one could ring, or pay for,
something else.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address

from callrouter.core.model import Target, Trunk
from callrouter.core.phone import for_trunk
from callrouter.errors import InputError

_URI = re.compile(
    r"sip:(?P<user>[A-Za-z0-9+._~*-]{1,64})@(?P<host>[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?\Z"
)
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\Z")
_E164 = re.compile(r"\+[1-9][0-9]{4,14}\Z")
_TRUNK = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")
_DIAL_STRING = re.compile(r"PJSIP/([0-9+]{3,32}@trunk-[a-z0-9][a-z0-9_-]{0,62}|callrouter-uri/(?P<uri>sip:.+))\Z")


def check_sip_uri(text: str) -> str:
    """A SIP URI that may be dialled: ``sip:user@host[:port]``, nothing more (RFC 3261 19.1, without parameters).

    :return: the URI
    :raises InputError: it is no such URI
    """
    found = _URI.match(text)
    if found is None:
        raise InputError(
            f"{text!r} is not a SIP URI that can be dialled", hint="write it like sip:reception@203.0.113.5:5060"
        )
    host, port = found["host"], found["port"]
    if port is not None and not 1 <= int(port) <= 65535:
        raise InputError(f"{text!r}: port {port} is not between 1 and 65535")
    if host.startswith("["):
        try:
            IPv6Address(host[1:-1])
        except ValueError as exc:
            raise InputError(f"{text!r}: {host} is no IPv6 address") from exc
    elif not all(_LABEL.match(label) for label in host.removesuffix(".").split(".")):
        raise InputError(f"{text!r}: {host!r} is no host name")
    return text


def dial_string(target: Target, trunk: Trunk | None) -> str:
    """Asterisk's dial string of a target.

    :param trunk: the trunk that ``target.number`` is dialled through; None for a target with a SIP URI
    :raises InputError: the target has no destination, or one that cannot be dialled
    """
    if target.sip_uri:
        return f"PJSIP/callrouter-uri/{check_sip_uri(target.sip_uri)}"
    if not target.number:
        raise InputError(f"target {target.name!r} has neither a number nor a SIP URI")
    if trunk is None:
        raise InputError(
            f"target {target.name!r}: {target.number} needs a trunk to be dialled through",
            hint=f"callrouter target edit {target.name} --trunk NAME",
        )
    if not _E164.match(target.number):
        raise InputError(f"target {target.name!r}: {target.number!r} is not an E.164 number")
    if not _TRUNK.match(trunk.name):
        raise InputError(f"{trunk.name!r} is no name of a trunk")
    return f"PJSIP/{for_trunk(target.number, trunk.number_format)}@trunk-{trunk.name}"


def check_dial_string(text: str) -> str:
    """A dial string as ``dial_string`` makes them.

    :raises InputError: it is not
    """
    found = _DIAL_STRING.match(text)
    if found is None:
        raise InputError(f"{text!r} is not a dial string of ours")
    if found["uri"]:
        check_sip_uri(found["uri"])
    return text
