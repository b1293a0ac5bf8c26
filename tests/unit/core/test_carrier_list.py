"""A carrier's list of calls, however it is written."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from callrouter.core.carrier_list import CarrierFormat, read_carrier_list
from callrouter.core.reconcile import CarrierCall
from callrouter.errors import InputError

NOON = 1763812800.0
"""2025-11-22 12:00 UTC."""
CALL = CarrierCall(2, "+12025550123", "+13125550199", NOON, 75.0)


@pytest.mark.parametrize(
    "text,form",
    [
        ("to,from,start,seconds\n+12025550123,+13125550199,2025-11-22T12:00:00Z,75\n", CarrierFormat({})),
        ("TO;FROM;Start Time;Duration\n2025550123;(312) 555-0199;2025-11-22 12:00:00;1:15\n", CarrierFormat({})),
        ("\ufeffCalled\tCalling\tDate\tBillsec\n0012025550123\t13125550199\t1763812800\t75.0\n", CarrierFormat({})),
        (
            "Nr,A,When,Len\n12025550123,13125550199,11/22/2025 07:00 AM,00:01:15\n",
            CarrierFormat(
                {"did": "nr", "caller": "A", "start": "When", "seconds": "Len"},
                ZoneInfo("America/New_York"),
                "%m/%d/%Y %I:%M %p",
            ),
        ),
        (
            'did,caller,start,seconds,note\n+12025550123,+13125550199,"2025-11-22T12:00:00Z",75,"a, b"\n\n',
            CarrierFormat({}),
        ),
    ],
    ids=["plain", "semicolons", "tabs", "named", "quoted"],
)
def test_one_call_in_many_spellings(text: str, form: CarrierFormat) -> None:
    assert read_carrier_list(text.splitlines(keepends=True), form) == (CALL,)


def test_a_withheld_caller_and_a_call_id() -> None:
    text = "to,from,start,seconds,Call-ID\n+12025550123,anonymous,1763812800,0,abc@host\n"
    [call] = read_carrier_list(text.splitlines(), CarrierFormat({}))
    assert (call.caller, call.seconds, call.sip_call_id) == (None, 0, "abc@host")


@pytest.mark.parametrize(
    "text,columns,message",
    [
        ("", {}, "no column for did; its columns are none"),
        ("a,b\n1,2\n", {}, "no column for did; its columns are a, b"),
        ("to,start,seconds\n", {"did": "Nr"}, "no column for did"),
        ("to,start,seconds\n", {"price": "x"}, "no field price"),
        ("to,start,seconds\n+12025550123,yesterday,1\n", {}, "line 2: 'yesterday' is no time"),
        ("to,start,seconds\n+12025550123,1763812800,long\n", {}, "line 2: 'long' is no duration"),
        ("to,start,seconds\n+12025550123,1763812800,nan\n", {}, "line 2: 'nan' is no duration"),
        ("to,start,seconds\n+12025550123,1763812800,-5\n", {}, "line 2: '-5' is no duration"),
        (
            "to,start,seconds\n+12025550123,1763812800,75\n+12025550123\n",
            {},
            "line 3: it has 1 columns, too few for start",
        ),
        ("to,start,seconds\nnobody,1763812800,75\n", {}, "line 2: 'nobody' is no number"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, columns: dict[str, str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_carrier_list(text.splitlines(keepends=True), CarrierFormat(columns))
    assert message in caught.value.message
    assert caught.value.hint


def test_many_bad_lines_are_counted_not_listed() -> None:
    text = "to,start,seconds\n" + "x,y,z\n" * 30
    with pytest.raises(InputError, match=r"line 11: .*and 20 more"):
        read_carrier_list(text.splitlines(keepends=True), CarrierFormat({}))
