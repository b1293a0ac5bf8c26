"""What holds of a trunk by itself: its port, how it may be protected, what calls over it cost."""

from __future__ import annotations

import re
from collections.abc import Iterable

from callrouter.core.model import MediaEncryption
from callrouter.errors import InputError

TRANSPORTS = ("udp", "tcp", "tls")
SETUP_SECONDS = (0.5, 30.0)
"""Least and most that a call is given to show a sign of life before the next trunk is tried."""
MICROS = 1_000_000
"""Millionths in one currency unit."""
_PREFIX = re.compile(r"\+[1-9][0-9]{0,14}")
_RATE = re.compile(r"\s*([^=\s]+)\s*=\s*([0-9]{1,4})(?:\.([0-9]{1,6}))?\s*")
_MOST = 1000 * MICROS

Rate = tuple[str, int]
"""Prefix, and millionths of the currency unit a minute."""


def default_port(transport: str) -> int:
    """SIP's own port: 5061 over TLS, else 5060 (RFC 3261, 19.1.2)."""
    return 5061 if transport == "tls" else 5060


def protection_fault(transport: str, media: MediaEncryption, secure_only: bool) -> tuple[str, str] | None:
    """Why a trunk's protection would be none, and what to do; None when it holds."""
    if media is MediaEncryption.SDES and transport != "tls":
        return (
            f"media encryption sdes over {transport} would send its keys in clear",
            "--transport tls, or --media-encryption dtls",
        )
    if secure_only and transport != "tls":
        return (f"secure-only refuses what comes over {transport}, its own calls too", "--transport tls")
    return None


def parse_rate(text: str) -> Rate:
    """``+44=0.012``: what a minute to numbers that begin with +44 costs, in the company's currency unit.

    :raises InputError: no such rate
    """
    found = _RATE.fullmatch(text)
    if found is None:
        raise InputError(f"{text!r} is no rate", hint="prefix and price of a minute, six decimals at most: +44=0.012")
    prefix, whole, rest = found.groups()
    return prefix, int(whole) * MICROS + int((rest or "").ljust(6, "0"))


def checked_rates(rates: Iterable[Iterable[object]]) -> tuple[Rate, ...]:
    """Rates by prefix.

    :raises InputError: a prefix that is none or stands twice, or a price that cannot be
    """
    found: dict[str, int] = {}
    for prefix, micros in rates:
        if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
            raise InputError(f"{prefix!r} is no prefix of telephone numbers", hint="with + and country code: +1, +4420")
        if not isinstance(micros, int) or not 0 <= micros <= _MOST:
            raise InputError(f"a minute to {prefix} cannot cost {micros!r} millionths", hint="0 to 1000 units")
        if prefix in found:
            raise InputError(f"there are two rates for {prefix}", hint="give it once")
        found[prefix] = micros
    return tuple(sorted(found.items()))


def rate_text(rate: Rate) -> str:
    """``+44 0.012``"""
    prefix, micros = rate
    whole, rest = divmod(micros, MICROS)
    return f"{prefix} {whole}." + (f"{rest:06d}".rstrip("0").ljust(2, "0"))
