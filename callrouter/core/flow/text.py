"""Placeholders in spoken texts: ``Call from {campaign}``."""

from __future__ import annotations

import re
from collections.abc import Mapping

from callrouter.errors import InputError

PLACEHOLDERS: tuple[str, ...] = ("campaign", "number", "company")
_PLACE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def fill(text: str, values: Mapping[str, str]) -> str:
    """Put values in the place of ``{name}``; ``{{`` and ``}}`` are literal braces.

    :raises InputError: a placeholder that is not among ``values``, or a lone brace
    """

    def put(match: re.Match[str]) -> str:
        found = match[0]
        if found in ("{{", "}}"):
            return found[0]
        name = match[1]
        if name is None or name not in values:
            raise InputError(
                f"{text!r}: there is no placeholder {found}",
                hint="known: " + ", ".join(f"{{{known}}}" for known in values),
            )
        return values[name]

    return _PLACE.sub(put, text)


def check(text: str) -> None:
    """Refuse unknown placeholders.

    :raises InputError: as ``fill``
    """
    fill(text, dict.fromkeys(PLACEHOLDERS, ""))
