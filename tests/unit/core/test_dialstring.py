from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callrouter.core.dialstring import check_dial_string, check_sip_uri, dial_string
from callrouter.core.model import NumberFormat
from callrouter.errors import InputError
from tests.builders import target, trunk

SPECIAL = set("&,()^|${}\\;\"' \t\r\n<>")


@pytest.mark.parametrize(
    "uri",
    [
        "sip:ana@192.0.2.7",
        "sip:ana@192.0.2.7:5062",
        "sip:+12025550123@pbx.example.com",
        "sip:a.b_c~d*e-f@x.example.",
        "sip:100@[2001:db8::1]:5060",
    ],
)
def test_a_plain_sip_uri_may_be_dialled(uri):
    assert check_sip_uri(uri) == uri
    built = dial_string(target(sip_uri=uri), None)
    assert built == f"PJSIP/callrouter-uri/{uri}"
    assert check_dial_string(built) == built


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "ana@192.0.2.7",
        "sips:ana@192.0.2.7",
        "sip:192.0.2.7",
        "sip:@192.0.2.7",
        "sip:ana@",
        "sip:ana@192.0.2.7:0",
        "sip:ana@192.0.2.7:65536",
        "sip:ana@192.0.2.7;transport=tcp",
        "sip:ana@192.0.2.7?Subject=x",
        "sip:ana:secret@192.0.2.7",
        "sip:ana@192.0.2.7&PJSIP/900123@carrier",
        "sip:${EXTEN}@192.0.2.7",
        "sip:ana@192.0.2.7,30,U(evil)",
        "sip:ana@192.0.2.7\n",
        "sip:ana@-bad-.example",
        "sip:ana@a..b",
        "sip:ana@[2001:db8::zz]",
        "sip:ana@[::::]",
        " sip:ana@192.0.2.7",
        "sip:änna@192.0.2.7",
    ],
)
def test_anything_else_is_no_uri_that_can_be_dialled(uri):
    with pytest.raises(InputError):
        check_sip_uri(uri)
    with pytest.raises(InputError):
        dial_string(target(sip_uri=uri), None)


@pytest.mark.parametrize(
    "style,digits",
    [
        (NumberFormat.E164, "+12025550123"),
        (NumberFormat.E164_NO_PLUS, "12025550123"),
        (NumberFormat.NATIONAL, "2025550123"),
        (NumberFormat.INTERNATIONAL_00, "0012025550123"),
    ],
)
def test_a_number_is_dialled_through_its_trunk_in_the_trunks_format(style, digits):
    ana = target(sip_uri=None, number="+12025550123", trunk="carrier")
    built = dial_string(ana, trunk(number_format=style))
    assert built == f"PJSIP/{digits}@trunk-carrier"
    assert check_dial_string(built) == built


@pytest.mark.parametrize(
    "changes,through,says",
    [
        ({}, None, "neither a number nor a SIP URI"),
        ({"number": "+12025550123"}, None, "needs a trunk"),
        ({"number": "2025550123"}, trunk(), "not an E.164 number"),
        ({"number": "+1202555&0123"}, trunk(), "not an E.164 number"),
        ({"number": "+12025550123"}, trunk("carrier,30"), "no name of a trunk"),
        ({"number": "+99912345678"}, trunk(number_format=NumberFormat.NATIONAL), "no country"),
    ],
)
def test_a_target_that_cannot_be_dialled_is_refused(changes, through, says):
    with pytest.raises(InputError, match=says):
        dial_string(target(sip_uri=None, **changes), through)


@given(st.text(st.characters()) | st.text("sip:@a1.[]&,${}();-").map("sip:a".__add__))
def test_no_accepted_uri_holds_a_character_that_asterisk_takes_apart(text):
    try:
        built = dial_string(target(sip_uri=text), None)
    except InputError:
        return
    assert not SPECIAL & set(built)
    assert check_dial_string(built) == built


@pytest.mark.parametrize(
    "text",
    ["", "PJSIP/", "PJSIP/x@trunk-a", "PJSIP/123@other", "Local/123@default", "PJSIP/123@trunk-a&PJSIP/1@trunk-a",
     "PJSIP/callrouter-uri/sip:a@b&c", "PJSIP/callrouter-uri/123", "PJSIP/123@trunk-a\n"],
)  # fmt: skip
def test_a_foreign_dial_string_is_refused(text):
    with pytest.raises(InputError):
        check_dial_string(text)
