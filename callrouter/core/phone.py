"""Telephone numbers: the one place where they are read, normalised and written for a trunk (E.164, ITU-T)."""

from __future__ import annotations

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumberFormat, PhoneNumberType, ValidationResult

from callrouter.core.model import NumberFormat, NumberKind
from callrouter.errors import InputError

ANONYMOUS = frozenset({"", "anonymous", "restricted", "unavailable", "unknown", "private", "asterisk"})


_KINDS = {
    PhoneNumberType.PREMIUM_RATE: NumberKind.PREMIUM,
    PhoneNumberType.SHARED_COST: NumberKind.SHARED_COST,
    PhoneNumberType.PERSONAL_NUMBER: NumberKind.PERSONAL,
}
_RANGES = (
    ("+870", NumberKind.SATELLITE),
    ("+878", NumberKind.PERSONAL),
    ("+881", NumberKind.SATELLITE),
    ("+882", NumberKind.SATELLITE),
    ("+883", NumberKind.SATELLITE),
    ("+888", NumberKind.SATELLITE),
    ("+979", NumberKind.PREMIUM),
    ("+808", NumberKind.SHARED_COST),
    ("+1900", NumberKind.PREMIUM),
    ("+449", NumberKind.PREMIUM),
    ("+4470", NumberKind.PERSONAL),
)
"""Whole ranges (ITU-T E.164, list of assigned country codes; national plans), whether a number in them is known or
not."""


def kind_of(e164: str) -> NumberKind:
    """What it may cost to dial a number; one that no plan knows is ordinary."""
    for prefix, kind in _RANGES:
        if e164.startswith(prefix):
            return kind
    try:
        return _KINDS.get(phonenumbers.number_type(phonenumbers.parse(e164)), NumberKind.ORDINARY)
    except NumberParseException:
        return NumberKind.ORDINARY


def region_of(e164: str) -> str | None:
    """The country a number belongs to (ISO 3166 alpha-2); None: none, or none is known."""
    try:
        region = phonenumbers.region_code_for_number(phonenumbers.parse(e164))
    except NumberParseException:
        return None
    return region if region and region.isalpha() else None


def normalize(text: str, country: str) -> str:
    """A number a person wrote, as E.164.

    :param text: "+1 (202) 555-0123", "202 555 0123", "0044 20 7946 0018" …
    :param country: ISO 3166 alpha-2, assumed when ``text`` has no country code
    :raises InputError: it is no possible telephone number
    """
    shown = text.strip()
    try:
        number = phonenumbers.parse(_international(shown), country)
    except NumberParseException as exc:
        raise InputError(
            f"{shown!r} is not a telephone number: {str(exc).lower()}",
            hint="write it with country code, like +12025550123",
        ) from exc
    if number.extension:
        raise InputError(f"{shown!r} has an extension", hint="give the number alone")
    # "Possible locally" lacks its area code: as E.164 it would be another number, or none.
    if phonenumbers.is_possible_number_with_reason(number) != ValidationResult.IS_POSSIBLE:
        raise InputError(
            f"{shown!r} is not a possible telephone number in {country}",
            hint="count its digits, or write it with country code, like +12025550123",
        )
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


def normalize_dialled(text: str, country: str) -> str:
    """The DID of an incoming call as E.164; what cannot be read comes back stripped to digits and +, never an error.

    A provider may write it with or without +, with 00, or nationally.
    """
    kept = "".join(ch for ch in text if ch in "+0123456789")
    for candidate in (kept, "+" + kept.lstrip("+")):
        try:
            return normalize(candidate, country)
        except InputError:
            continue
    return kept[:32]


def normalize_caller(text: str | None, country: str) -> str | None:
    """The caller's number as E.164, or None when withheld; short or private numbers stay as their digits."""
    raw = (text or "").strip()
    if raw.lower() in ANONYMOUS:
        return None
    kept = "".join(ch for ch in raw if ch in "+0123456789")
    if not kept.strip("+0"):
        return None
    return normalize_dialled(kept, country) if len(kept.lstrip("+")) >= 7 else kept


def clean_name(text: str | None) -> str | None:
    """A caller's name fit to be stored and shown: control characters gone, at most 80 characters; None when empty."""
    cleaned = "".join(ch for ch in (text or "") if ch.isprintable()).strip()
    if not cleaned or cleaned.lower() in ANONYMOUS:
        return None
    return cleaned[:80]


def for_trunk(e164: str, style: NumberFormat) -> str:
    """An E.164 number in the digits that a trunk expects.

    :raises InputError: it has no country's code, so that it cannot be written nationally
    """
    if style is NumberFormat.E164:
        return e164
    digits = e164.lstrip("+")
    if style is NumberFormat.E164_NO_PLUS:
        return digits
    if style is NumberFormat.INTERNATIONAL_00:
        return "00" + digits
    try:
        number = phonenumbers.parse(e164)
    except NumberParseException as exc:
        raise InputError(f"{e164!r} belongs to no country: it cannot be written nationally") from exc
    return phonenumbers.national_significant_number(number)


def pretty(e164: str) -> str:
    """For people to read: "+1 202-555-0123"; anything unreadable comes back as it is."""
    try:
        return phonenumbers.format_number(phonenumbers.parse(e164), PhoneNumberFormat.INTERNATIONAL)
    except NumberParseException:
        return e164


def _international(text: str) -> str:
    return "+" + text[2:] if text.startswith("00") and len(text) > 9 else text
