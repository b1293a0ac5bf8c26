"""Telephone numbers: the one place where they are read, normalised and written for a trunk (E.164, ITU-T)."""

from __future__ import annotations

from collections.abc import Iterator

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumberFormat, PhoneNumberType, ValidationResult
from phonenumbers.phonenumberutil import ndd_prefix_for_region

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


def is_country(code: str) -> bool:
    """Whether it is a country (ISO 3166 alpha-2) with telephone numbers."""
    return code in phonenumbers.SUPPORTED_REGIONS


def has_area_code(e164: str, country: str, code: str) -> bool:
    """Whether a number of a country begins with an area code, written with or without the digit that is dialled before
    it within the country ("020" and "20").

    :param country: that the number is of; ISO 3166 alpha-2
    """
    try:
        national = phonenumbers.national_significant_number(phonenumbers.parse(e164))
    except NumberParseException:
        return False
    short = code.removeprefix(ndd_prefix_for_region(country, True) or "")
    return national.startswith(code) or bool(short and national.startswith(short))


def examples(country: str, code: str = "") -> Iterator[str]:
    """Numbers of a country, E.164, such as there might be; none where it has no telephone numbers.

    :param code: that they begin with, with or without the digit that is dialled before it within the country
    """
    kinds = (PhoneNumberType.FIXED_LINE, PhoneNumberType.MOBILE, PhoneNumberType.TOLL_FREE)
    for kind in kinds[:2] if code else kinds:
        made = phonenumbers.example_number_for_type(country, kind)
        if made is None:
            continue
        national = phonenumbers.national_significant_number(made)
        short = code.removeprefix(ndd_prefix_for_region(country, True) or "") or code
        for begin in dict.fromkeys((code, short)):
            yield from _varied(f"+{made.country_code}{begin}", national[len(begin) :])


def examples_with(prefix: str) -> Iterator[str]:
    """Numbers that begin with a prefix of E.164 numbers."""
    for length in range(4, 1, -1):
        region = region_of_code(prefix[1:length]) if len(prefix) >= length else None
        if region is not None:
            made = phonenumbers.example_number(region)
            whole = f"+{made.country_code}{phonenumbers.national_significant_number(made)}" if made else ""
            yield from _varied(prefix, whole[len(prefix) :])
            return
    yield from _varied(prefix, "5550123")


def region_of_code(code: str) -> str | None:
    """The country of a country code ("44"), the largest where several share it."""
    region = phonenumbers.region_code_for_country_code(int(code)) if code.isdecimal() else "ZZ"
    return region if region.isalpha() and region != "ZZ" else None


def _varied(begin: str, rest: str) -> Iterator[str]:
    yield begin + rest
    if rest:
        yield from (f"{begin}{digit}{rest[1:]}" for digit in "23456789")


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
    """The caller's number as E.164, or None when withheld; short or private numbers stay as their digits.

    Parameters that a trunk puts behind the number ("+12025550123;verstat=…", RFC 3966) are no part of it.
    """
    raw = (text or "").partition(";")[0].strip()
    if raw.lower() in ANONYMOUS:
        return None
    kept = "".join(ch for ch in raw if ch in "+0123456789")
    if not kept.strip("+0"):
        return None
    return normalize_dialled(kept, country) if len(kept.lstrip("+")) >= 7 else kept


def clean_name(text: str | None) -> str | None:
    """A caller's name fit to be stored and shown: control characters gone, at most 80 characters; None when empty."""
    cleaned = clean_text(text or "", 80)
    return None if not cleaned or cleaned.lower() in ANONYMOUS else cleaned


def clean_text(text: str, most: int) -> str:
    """Text without control characters, of at most so many."""
    return "".join(ch for ch in text if ch.isprintable()).strip()[:most]


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
