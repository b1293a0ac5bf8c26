"""Odd, hostile and broken input through real SIP: what is said, and that calls go on."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from callrouter.core.disposition import Disposition
from callrouter.store import config
from callrouter.store.calls import CallFilter, StoredCall, get_call, list_calls
from callrouter.testing.carrier_script import Answered, Hangup, Wait, answer
from callrouter.testing.sipp import SippResult, run_sipp
from tests.fixtures.installation import (
    BUSINESS_HZ,
    Business,
    Installation,
    eventually,
)

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="session")]

TALK = (Answered(), Wait(2.0), Hangup())
DESK = {"desk": answer(after=0.2, speak=f"tone:{BUSINESS_HZ}", hang_up_after=1.0)}


def beside(house: Installation, last: int) -> str:
    """Another address of this installation's own network."""
    return f"{house.settings.sip_bind.rpartition('.')[0]}.{last}"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def door(house: Installation) -> AsyncIterator[str]:
    """A trunk that SIPp calls in through: its address."""
    address = beside(house, 50)
    async with house.database.session() as session:
        await config.add_trunk(session, name="raw", host=address, qualify_seconds=0, who="tests")
        await config.add_trunk(
            session, name="by-to", host=beside(house, 51), did_source="to-header", qualify_seconds=0, who="tests"
        )
    await house.in_force()

    async def known() -> bool:
        return "by-to" in await house.asterisk.rx("pjsip show endpoints")

    await eventually(known, "Asterisk knows the trunks")
    yield address


async def raw(house: Installation, address: str, timeout: float = 20.0, **keys: str) -> SippResult:
    """One INVITE as it stands."""
    remote = (house.settings.sip_bind, house.settings.sip_port)
    return await run_sipp("uac_invite_only", remote, local_ip=address, keys=keys, talk_seconds=0.7, timeout=timeout)


def status(result: SippResult) -> int:
    [code] = result.final_status.values()
    return code


async def since(house: Installation, moment: float, count: int) -> list[StoredCall]:
    """Calls that arrived after a moment, oldest first."""
    found: list[StoredCall] = []

    async def there() -> bool:
        nonlocal found
        async with house.database.session() as session:
            rows = [row for row in await list_calls(session, CallFilter(), limit=100) if row.started_at >= moment]
            found = [await get_call(session, row.id) for row in reversed(rows)]
        return len(found) >= count and all(each.record.disposition is not None for each in found)

    await eventually(there, f"{count} new calls")
    assert len(found) == count
    return found


# -- numbers -----------------------------------------------------------------------------------------------------------


async def test_an_unknown_number(house: Installation) -> None:
    seen = await house.call(Business("", "+12025550998", "", {}))
    assert (seen.caller.answered, seen.caller.sip_status) == (False, 404)
    assert seen.call.record.disposition is Disposition.REJECTED
    assert seen.call.record.reason == "+12025550998 is not one of our tracking numbers"
    assert seen.call.record.company_id is None
    assert seen.call.record.legs == ()


async def test_a_number_in_all_its_spellings(house: Installation, door: str) -> None:
    business = await house.business(DESK)
    began = time.time()
    digits = business.did.removeprefix("+")
    spellings = [business.did, digits, digits[1:], f"%2B{digits}", f"{digits[0]}-{digits[1:4]}-{digits[4:]}"]
    for spelling in spellings:
        result = await raw(house, door, uri_user=spelling, to_header=f"<sip:{spelling}@127.0.0.1>")
        assert status(result) == 200, spelling
    result = await raw(house, beside(house, 51), uri_user="trunk-account", to_header=f"<sip:{business.did}@127.0.0.1>")
    assert status(result) == 200, "by the To header"
    calls = await since(house, began, len(spellings) + 1)
    assert {call.record.did for call in calls} == {business.did}
    assert {call.record.disposition for call in calls} == {Disposition.ANSWERED}
    assert [call.record.trunk for call in calls] == ["raw"] * len(spellings) + ["by-to"]
    assert not any(call.record.test for call in calls)


WAS_HERE = Path(tempfile.gettempdir()) / f"callrouter-was-here-{os.getpid()}"
MALFORMED = {
    "header in the URI": "100%0d%0aX-Evil: 1",
    "raw quotes": '"\'`id`"',
    "raw variable": f"${{SHELL(touch%20{WAS_HERE})}}",
    "raw expression": "$[1+1]",
}
"""No SIP at all by RFC 3261: PJSIP may drop it without an answer."""
TRICKS = {
    "line break": "100%0d%0aX-Evil:1",
    "line break in the middle": "1%0a%0d2",
    "quotes": "%22%27%60id%60%22",
    "variable": f"%24%7BSHELL(touch%20{WAS_HERE})%7D",
    "expression": "%24%5B1+1%5D",
    "dialplan": "s,1,System(id)",
    "ampersand": "100&PJSIP/evil",
    "path": "../../etc/passwd",
    "percent": "%25%00%ff",
    "very long": "9" * 700,
    "long letters": "a" * 400,
    "unicode": "%E2%82%AC%F0%9F%93%9E",
    "broken unicode": "%C3%28%FF%FE",
    "extension names": "failsafe",
    "hangup extension": "h",
    "timeout extension": "T",
    "sql": "1'%20OR%20'1'='1",
    "star": "*72%23",
    "plus alone": "+",
}


async def test_what_is_no_sip_makes_no_call(house: Installation, door: str) -> None:
    rows = len(house.ledger())
    # Side by side: where no answer comes, SIPp's own end takes seconds.
    results = await asyncio.gather(*(raw(house, door, timeout=2, uri_user=user) for user in MALFORMED.values()))
    for name, result in zip(MALFORMED, results, strict=True):
        assert all(400 <= code < 700 for code in result.final_status.values()), name
    assert not WAS_HERE.exists()
    assert await house.channels() == 0
    assert len(house.ledger()) == rows


@pytest.mark.parametrize("name", TRICKS)
async def test_a_dialled_number_that_is_none(house: Installation, door: str, name: str) -> None:
    began = time.time()
    rows = len(house.ledger())
    result = await raw(house, door, uri_user=TRICKS[name])
    assert result.final_status, "no final answer at all"
    assert 400 <= status(result) < 700, result.final_status
    assert not WAS_HERE.exists()
    await house.idle()
    if len(house.ledger()) > rows:
        [call] = await since(house, began, 1)
        assert call.record.disposition is Disposition.REJECTED
        assert not set(call.record.did) - set("+0123456789")
        assert len(call.record.did) <= 32
    assert not house.status()["calls"]


async def test_an_empty_number(house: Installation, door: str) -> None:
    result = await run_sipp(
        "uac_invite_only",
        (house.settings.sip_bind, house.settings.sip_port),
        local_ip=door,
        keys={"uri_user": "anonymous", "to_header": "<sip:127.0.0.1>"},
        timeout=20,
    )
    assert 400 <= status(result) < 700


# -- callers -----------------------------------------------------------------------------------------------------------

NAMES = {
    "formula": ("\"=cmd|'/C calc'!A0\" <sip:+12125550142@127.0.0.1>", "=cmd|'/C calc'!A0"),
    "accents": ('"Zoë Ångström" <sip:+12125550142@127.0.0.1>', "Zoë Ångström"),
    "chinese": ('"王小明" <sip:+12125550142@127.0.0.1>', "王小明"),
    "right to left": ('"\u202eevil\u202c" <sip:+12125550142@127.0.0.1>', "evil"),
    "escape": ('"\x1b[31mred\x1b[0m" <sip:+12125550142@127.0.0.1>', "[31mred[0m"),
    "variable": ('"${SHELL(id)}" <sip:+12125550142@127.0.0.1>', "${SHELL(id)}"),
    "markup": ('"<b>bold</b>" <sip:+12125550142@127.0.0.1>', "<b>bold</b>"),
    "comma": ('"Doe, Jane" <sip:+12125550142@127.0.0.1>', "Doe, Jane"),
    "quote": ('"Jane \\"J\\" Doe" <sip:+12125550142@127.0.0.1>', None),
    "long": (f'"{"x" * 600}" <sip:+12125550142@127.0.0.1>', None),
    "no name": ("<sip:+12125550142@127.0.0.1>", None),
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def named(house: Installation, door: str) -> AsyncIterator[Business]:
    yield await house.business(DESK)


@pytest.mark.parametrize("name", NAMES)
async def test_a_callers_odd_name(house: Installation, door: str, named: Business, name: str) -> None:
    header, expected = NAMES[name]
    began = time.time()
    result = await raw(house, door, uri_user=named.did, from_header=header)
    assert status(result) == 200
    [call] = await since(house, began, 1)
    record = call.record
    assert record.caller == "+12125550142"
    assert record.disposition is Disposition.ANSWERED
    if expected is not None:
        assert record.caller_name == expected
    assert record.caller_name is None or (record.caller_name.isprintable() and len(record.caller_name) <= 80)
    row = await house.ledger_of(record.uniqueid)
    assert (row.did, row.caller) == (named.did, "+12125550142")


CALLERS = {
    "anonymous": ('"Anonymous" <sip:anonymous@anonymous.invalid>', None),
    "no user": ("<sip:127.0.0.1>", None),
    "letters": ('"Bob" <sip:bob@127.0.0.1>', None),
    "short": ("<sip:100@127.0.0.1>", "100"),
    "national": ("<sip:2125550142@127.0.0.1>", "+12125550142"),
    "double zero": ("<sip:00442079460018@127.0.0.1>", "+442079460018"),
    "expression": ("<sip:$%7BSHELL(id)%7D@127.0.0.1>", None),
    "line break": ("<sip:1%0d%0aX-Evil:1@127.0.0.1>", None),
}


@pytest.mark.parametrize("name", CALLERS)
async def test_a_callers_odd_number(house: Installation, door: str, named: Business, name: str) -> None:
    header, expected = CALLERS[name]
    began = time.time()
    result = await raw(house, door, uri_user=named.did, from_header=header)
    assert status(result) == 200
    [call] = await since(house, began, 1)
    if expected is not None or name in ("anonymous", "no user", "letters"):
        assert call.record.caller == expected
    assert not set(call.record.caller or "") - set("+0123456789")
    assert call.record.disposition is Disposition.ANSWERED


async def test_headers_of_ours_from_outside_change_nothing(house: Installation, door: str, named: Business) -> None:
    """What a caller writes into headers is not believed."""
    began = time.time()
    extra = "CR_DID: +12025550998\r\nX-CR-TRUNK: simulator\r\nX-Call-ID: x"
    result = await raw(
        house, door, uri_user=named.did, extra=extra.replace("Replaces: abc;to-tag=1;from-tag=2\r\n", "")
    )
    assert status(result) == 200
    [call] = await since(house, began, 1)
    assert (call.record.did, call.record.trunk) == (named.did, "raw")


# -- strangers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", ["nobody", "trunk-raw", "trunk-simulator", "callrouter-uri", "anonymous"])
async def test_a_stranger_is_turned_away(house: Installation, door: str, named: Business, claim: str) -> None:
    """Whoever does not call from a trunk's address, whatever the From header says."""
    stranger = beside(house, 66)
    rows = len(house.ledger())

    def turned_away() -> int:
        return sum(count for who, count in house.status()["ami"]["security"].items() if stranger in who)

    before = turned_away()
    result = await raw(house, stranger, uri_user=named.did, from_header=f"<sip:{claim}@{house.settings.sip_bind}>")
    assert status(result) == 401
    await eventually(lambda: turned_away() > before, "the stranger is counted")
    assert len(house.ledger()) == rows
    assert await house.channels() == 0
