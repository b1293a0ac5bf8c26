from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callrouter.core.model import NumberFormat
from callrouter.core.phone import clean_name, for_trunk, normalize, normalize_caller, normalize_dialled, pretty
from callrouter.errors import InputError

ANY_TEXT = st.text(st.characters()) | st.from_regex(r"[+0-9 ()#*;a-z-]{0,24}", fullmatch=True)


@pytest.mark.parametrize(
    "written,country,e164",
    [
        ("+12025550123", "US", "+12025550123"),
        ("(202) 555-0123", "US", "+12025550123"),
        ("1 202 555 0123", "US", "+12025550123"),
        ("+1 (202) 555-0123", "DE", "+12025550123"),
        ("0044 20 7946 0018", "DE", "+442079460018"),
        ("020 7946 0018", "GB", "+442079460018"),
        ("030 901820", "DE", "+4930901820"),
        ("1-800-FLOWERS", "US", "+18003569377"),
        ("  +12025550123\n", "US", "+12025550123"),
    ],
)
def test_a_number_a_person_wrote_is_read_as_e164(written, country, e164):
    assert normalize(written, country) == e164


@pytest.mark.parametrize(
    "written,country,says",
    [
        ("", "US", "not a telephone number"),
        ("ana", "US", "not a telephone number"),
        ("911", "US", "not a possible telephone number in US"),
        ("+1202555012345678", "US", "not a"),
        ("+1 202 555 0123 ext. 5", "US", "extension"),
        ("2025550123", "XX", "not a telephone number"),
        ("+", "US", "not a telephone number"),
    ],
)
def test_what_is_no_number_is_refused_with_a_hint(written, country, says):
    with pytest.raises(InputError, match=says) as caught:
        normalize(written, country)
    assert caught.value.hint


def test_a_number_without_its_area_code_is_refused():
    with pytest.raises(InputError, match="not a possible telephone number"):
        normalize("555-0123", "US")


@pytest.mark.parametrize(
    "dialled,country,e164",
    [
        ("+12025550123", "US", "+12025550123"),
        ("12025550123", "US", "+12025550123"),
        ("2025550123", "US", "+12025550123"),
        ("0012025550123", "DE", "+12025550123"),
        ("442079460018", "US", "+442079460018"),
        ("02079460018", "GB", "+442079460018"),
        ("+1-202-555-0123", "US", "+12025550123"),
        ("5550123", "US", "5550123"),
        ("100", "US", "100"),
        ("s", "US", ""),
        ("", "US", ""),
        ("1" * 60, "US", "1" * 32),
        ("${EXTEN}&SIP/5", "US", "5"),
    ],
)
def test_a_did_is_read_however_the_provider_writes_it(dialled, country, e164):
    assert normalize_dialled(dialled, country) == e164


@given(ANY_TEXT, st.sampled_from(["US", "DE", "GB", "XX", ""]))
def test_a_did_is_never_an_error_and_only_digits_remain(text, country):
    read = normalize_dialled(text, country)
    assert len(read) <= 32
    assert set(read) <= set("+0123456789")


@given(ANY_TEXT, st.sampled_from(["US", "DE", "GB", "XX", ""]))
def test_whatever_is_normalised_stays_what_it_is(text, country):
    try:
        read = normalize(text, country)
    except InputError:
        return
    assert normalize(read, country) == read
    assert normalize_dialled(read, country) == read


@pytest.mark.parametrize(
    "shown,caller",
    [
        ("+13125550199", "+13125550199"),
        ("3125550199", "+13125550199"),
        ("anonymous", None),
        ("Anonymous", None),
        ("", None),
        (None, None),
        ("unavailable", None),
        ("+", None),
        ("0000", None),
        ("101", "101"),
        ("asterisk", None),
        ("sip:ana", None),
    ],
)
def test_a_caller_is_e164_short_digits_or_withheld(shown, caller):
    assert normalize_caller(shown, "US") == caller


@given(ANY_TEXT)
def test_a_caller_is_never_an_error(text):
    caller = normalize_caller(text, "US")
    assert caller is None or set(caller) <= set("+0123456789")


@pytest.mark.parametrize(
    "shown,name",
    [
        ("Ana\x00 \x1b[31mLee\n", "Ana [31mLee"),
        ("  ", None),
        (None, None),
        ("anonymous", None),
        ("x" * 200, "x" * 80),
        ("Zoë 李", "Zoë 李"),
        ("\u202eevil", "evil"),
    ],
)
def test_a_callers_name_is_printable_and_short(shown, name):
    assert clean_name(shown) == name


@pytest.mark.parametrize(
    "style,written",
    [
        (NumberFormat.E164, "+12025550123"),
        (NumberFormat.E164_NO_PLUS, "12025550123"),
        (NumberFormat.NATIONAL, "2025550123"),
        (NumberFormat.INTERNATIONAL_00, "0012025550123"),
    ],
)
def test_a_trunk_gets_the_digits_it_wants(style, written):
    assert for_trunk("+12025550123", style) == written


def test_a_number_of_no_country_cannot_be_written_nationally():
    with pytest.raises(InputError, match="no country"):
        for_trunk("+99912345678", NumberFormat.NATIONAL)


def test_numbers_are_pretty_for_people_and_left_alone_when_unreadable():
    assert pretty("+12025550123") == "+1 202-555-0123"
    assert pretty("100") == "100"
    assert pretty("") == ""
