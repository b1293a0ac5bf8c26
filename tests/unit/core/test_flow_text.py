from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callrouter.core.flow.text import PLACEHOLDERS, check, fill
from callrouter.errors import InputError

VALUES = {"campaign": "Spring radio", "number": "billboard", "company": "{odd} & Sons"}


@pytest.mark.parametrize(
    "text,spoken",
    [
        ("Call from {campaign}", "Call from Spring radio"),
        ("{number}{number}", "billboardbillboard"),
        ("plain", "plain"),
        ("", ""),
        ("{{campaign}}", "{campaign}"),
        ("{company}", "{odd} & Sons"),
        ("100 %s $x", "100 %s $x"),
    ],
)
def test_placeholders_are_replaced_once(text, spoken):
    assert fill(text, VALUES) == spoken


@pytest.mark.parametrize("text", ["{caller}", "{}", "{campaign", "}", "{ campaign }", "{campaign.title}", "{0}"])
def test_unknown_placeholders_and_lone_braces_are_refused(text):
    with pytest.raises(InputError, match="no placeholder") as caught:
        check(text)
    assert all(f"{{{name}}}" in (caught.value.hint or "") for name in PLACEHOLDERS)


@given(st.text("{}ab"))
def test_what_check_accepts_can_be_filled(text):
    try:
        check(text)
    except InputError:
        with pytest.raises(InputError):
            fill(text, VALUES)
    else:
        fill(text, VALUES)
