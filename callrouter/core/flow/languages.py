"""Prompts in several languages: how languages are written, and which text a caller hears."""

from __future__ import annotations

import re
from collections.abc import Iterable

from callrouter.core.flow.nodes import Prompt
from callrouter.errors import InputError

LANGUAGE = re.compile(r"([a-z]{2}|cmn|fil|haw|yue)(-[a-z0-9]{2,8}){0,2}")
"""A tag of BCP 47, in small letters; of the languages without a code of two letters only those that many speak."""


def check_language(text: str) -> str:
    """A language as it is kept, in small letters.

    :raises InputError: no language tag (BCP 47)
    """
    language = text.strip().lower()
    if not LANGUAGE.fullmatch(language):
        raise InputError(f"{text!r} is no language", hint="like en, es, de or pt-br")
    return language


def are_languages(names: Iterable[str]) -> bool:
    """Whether all of some names, and at least one, are languages."""
    given = list(names)
    return bool(given) and all(LANGUAGE.fullmatch(name) for name in given)


def languages(prompt: Prompt) -> tuple[str, ...]:
    """The languages that a prompt is in; none for one that does not say."""
    return tuple(one.language for one in (prompt, *prompt.others) if one.language)


def in_language(prompt: Prompt, *wanted: str | None) -> Prompt:
    """The text or file that is heard: in the first of some languages that the prompt has, else its first one.

    A language that is not there as it was asked for is looked for without its region, and in another one: "es-mx"
    finds "es", and "es" finds "es-419".
    """
    known = (prompt, *prompt.others)
    for language in wanted:
        if language is None:
            continue
        short = language.partition("-")[0]
        for fits in (language, short):
            if (found := next((one for one in known if one.language == fits), None)) is not None:
                return found
        if (found := next((one for one in known if (one.language or "").partition("-")[0] == short), None)) is not None:
            return found
    return prompt
