"""Doors that must not stand open: control interfaces for others, weak passwords, an Asterisk that runs commands.

Looked at before a configuration is rendered, when the server starts, and by doctor.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from ipaddress import ip_address
from pathlib import Path

from callrouter.config import Settings
from callrouter.errors import ConfigError

MIN_SECRET_LENGTH = 16
MIN_SECRET_BITS = 50.0
_KNOWN = (
    "asterisk", "callrouter", "password", "passwort", "secret", "changeme", "default", "letmein", "welcome", "admin",
    "qwerty", "example", "test", "manager", "amp111", "mysecretpassword", "abcdefghij", "0123456789", "1234567890",
)  # fmt: skip
"""What passwords are made of that people leave as they found them."""


def weakness(secret: str) -> str | None:
    """Why a password that guards a control interface can be guessed; None when it cannot.

    What is repeated and what is known counts for nothing; the rest by how varied it is (Shannon).
    """
    if len(secret) < MIN_SECRET_LENGTH:
        return f"shorter than {MIN_SECRET_LENGTH} characters"
    rest = secret.lower()
    for word in _KNOWN:
        rest = rest.replace(word, "")
    if len(rest) < MIN_SECRET_LENGTH // 2:
        return "made of words that are tried first"
    if re.fullmatch(r"(.{1,16}?)\1+", secret):
        return "the same over and over"
    counts = Counter(rest)
    bits = sum(-count * math.log2(count / len(rest)) for count in counts.values())
    return "too regular" if bits < MIN_SECRET_BITS else None


def refuse_weak(name: str, secret: str, path: Path) -> None:
    """
    :param name: of the secret, for the message; the secret itself is not shown
    :raises ConfigError: it can be guessed
    """
    why = weakness(secret)
    if why is not None:
        raise ConfigError(
            f"{name} is a weak password: {why}",
            hint=f"rm {path}; callrouter init makes a new one; then callrouter asterisk render, and restart Asterisk",
        )


def refuse_open_doors(settings: Settings) -> None:
    """ARI and AMI have no TLS here and are the keys to everything: this machine alone may reach them.

    :raises ConfigError: an address that other machines reach
    """
    for name in ("ari_host", "ami_host"):
        address = getattr(settings, name)
        try:
            outside = not ip_address(address).is_loopback
        except ValueError as exc:
            raise ConfigError(f"{name}: {address!r} is no IP address", hint="write an address") from exc
        if outside:
            raise ConfigError(
                f"{name}: {address} can be reached from other machines, unencrypted",
                hint=f"set {name} to a loopback address, like 127.0.0.1; for another machine use an SSH or VPN tunnel",
            )


def dangerous_option(etc_dir: Path) -> str | None:
    """The line of ``asterisk.conf`` that lets ARI, AMI and callers' data reach files and the shell; None without one.

    An unreadable or absent file says nothing.
    """
    try:
        text = (etc_dir / "asterisk.conf").read_text("utf-8", errors="replace")
    except OSError:
        return None
    found = re.findall(r"^\s*(live_dangerously\s*=>?\s*(\w+)).*$", text, re.MULTILINE | re.IGNORECASE)
    if found and found[-1][1].lower() in ("yes", "true", "y", "t", "1", "on"):
        return str(found[-1][0]).strip()
    return None


def refuse_danger(settings: Settings) -> None:
    """What the server does not start with.

    :raises ConfigError: a control interface for other machines, or ``live_dangerously``
    """
    refuse_open_doors(settings)
    line = dangerous_option(settings.asterisk_etc_dir)
    if line is not None:
        raise ConfigError(
            f"{settings.asterisk_etc_dir / 'asterisk.conf'} has {line}: dialplan could run commands of this machine",
            hint="set live_dangerously = no there and restart Asterisk",
        )
