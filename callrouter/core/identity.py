"""Who calls: what a trunk sent, normalised in one place.

Asterisk has chosen the number by then: P-Asserted-Identity, Remote-Party-ID or From (``Trunk.trust_identity``), and has
dropped one that is withheld.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from callrouter.core.phone import clean_name, normalize_caller

_PRIVACY = re.compile(r"[a-z]{1,20}(;[a-z]{1,20}){0,5}")
_URI_USER = re.compile(r"(?:sips?|tel):([^@;>\s]*)", re.IGNORECASE)
_REASON = re.compile(r";\s*reason\s*=\s*([A-Za-z0-9-]{1,32})", re.IGNORECASE)
_VERSTAT = re.compile(r"(?:TN-Validation-(?:Passed|Failed)|No-TN-Validation)(?:-[A-Za-z]{1,12}){0,2}")


@dataclass(frozen=True, slots=True)
class Sent:
    """Of a call's INVITE; the headers as the dialplan hands them on, in few characters and cut short."""

    number: str = ""
    name: str = ""
    privacy: str = ""
    """Privacy (RFC 3323) of a number that is withheld; empty: it is not."""
    diversion: str = ""
    """The first Diversion (RFC 5806): who diverted the call last."""
    verstat: str = ""
    """Where a trunk may have written its verdict on the number's signature; the first one that is found counts."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Of a call's record."""

    number: str | None
    """E.164 where it could be read; None: withheld."""
    name: str | None
    privacy: str | None = None
    """What the caller asked for, like "id"; None: nothing."""
    diverted_from: str | None = None
    """Number that diverted the call to us, E.164 where it could be read, with its reason: "+12025550123 (away)"."""
    verstat: str | None = None
    """The trunk's word on the number (STIR/SHAKEN): "TN-Validation-Passed-A", "No-TN-Validation" …; None: it said
    nothing, or is not trusted."""


def identify(sent: Sent, country: str) -> Identity:
    """Whatever stands in the headers, never an error.

    :param country: ISO 3166 alpha-2, assumed for numbers without country code
    """
    privacy = _privacy(sent.privacy)
    return Identity(
        number=None if privacy else normalize_caller(sent.number, country),
        name=None if privacy else clean_name(sent.name),
        privacy=privacy,
        diverted_from=_diverted(sent.diversion, country),
        verstat=found[0] if (found := _VERSTAT.search(sent.verstat)) else None,
    )


def _privacy(text: str) -> str | None:
    asked = text.strip().lower()
    if not asked:
        return None
    return asked if _PRIVACY.fullmatch(asked) else "id"


def _diverted(text: str, country: str) -> str | None:
    if (user := _URI_USER.search(text)) is None:
        return None
    number = normalize_caller(user[1], country)
    if number is None:
        return None
    # Of this diversion, not of one before it in the same header.
    reason = _REASON.search(text[user.end() :].partition("<")[0])
    return f"{number} ({reason[1].lower()})" if reason else number


@dataclass(frozen=True, slots=True)
class CallerHistory:
    """What is known of a caller's earlier calls to the same company when a call arrives."""

    calls: int = 0
    last_at: float | None = None
    """When the last one came, seconds since the epoch; None: there was none."""
    last_target: str | None = None
    """The target that answered this caller last."""
    tags: tuple[str, ...] = ()
    """Of all earlier calls."""
    recent: int = 0
    """Calls within the company's ``caller_window``."""


NO_CALLS = CallerHistory()
