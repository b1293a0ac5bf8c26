"""Hold: a party puts the other on hold in a conversation, by re-INVITE, and takes it back."""

from __future__ import annotations

import asyncio
import socket

import pytest

from callrouter.core.disposition import Disposition
from callrouter.store import config
from callrouter.testing.audio import levels, tone_present
from callrouter.testing.carrier_script import Answered, Hangup, Wait, busy
from callrouter.testing.sipp import SippResult, run_sipp
from tests.acceptance.conversations import speaking
from tests.acceptance.listening import part
from tests.fixtures.installation import CALLER_HZ, Business, Installation, free_port

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="session")]

HOLD = 2.0
"""Seconds of each hold."""


async def sipp_desk(house: Installation) -> tuple[Business, int]:
    """A business whose one phone is SIPp's, on the port that is returned."""
    business = await house.business({"desk": busy()})
    address = house.settings.simulator_address
    port = free_port(address, socket.SOCK_DGRAM)
    async with house.database.session() as session:
        await config.edit_target(
            session, f"{business.company}/desk", {"sip_uri": f"sip:desk@{address}:{port}"}, who="tests", why="sipp"
        )
    await house.in_force()
    return business, port


def holding_phone(house: Installation, port: int, seconds: float) -> asyncio.Task[SippResult]:
    """Talks 1 s, holds (sendonly), talks 1 s, holds (inactive), and talks on. It sends back what it hears."""
    address = house.settings.simulator_address
    return asyncio.create_task(
        run_sipp("uas_hold", local_ip=address, local_port=port, talk_seconds=seconds, rtp_echo=True, timeout=30)
    )


async def test_the_business_holds_and_takes_back(house: Installation) -> None:
    """Hold seconds are those of the far end. The caller hears hold music meanwhile, and the business again after."""
    business, port = await sipp_desk(house)
    phone = holding_phone(house, port, HOLD)
    caller = house.caller()
    result = await house.place(business, caller=caller, steps=(Answered(), Wait(2 * HOLD + 4), Hangup()))
    witness = await phone
    assert witness.succeeded == 1, witness.errors
    assert not [each.start_line for each in witness.messages if (each.status or 0) >= 400]
    [call] = await house.records_of(business.did, caller)
    record = call.record
    assert record.disposition is Disposition.ANSWERED
    assert record.hold_seconds == pytest.approx(2 * HOLD, abs=0.5)
    assert [leg.hold_seconds for leg in record.legs] == [record.hold_seconds]
    assert record.talk_seconds == pytest.approx(2 * HOLD + 4, abs=0.5), "a conversation on hold is a conversation"
    assert result.heard is not None
    # The phone is an echo: what sounds like the caller is the business. It answered at 0.
    for begin, end, held in (
        (0.3, 0.9, False),
        (1.3, 2.8, True),
        (3.3, 3.9, False),
        (4.3, 5.8, True),
        (6.5, 7.8, False),
    ):
        heard = part(result.heard, begin, end)
        # Music may hold that tone for a moment too; the echo never leaves it.
        assert tone_present(heard, CALLER_HZ, min_seconds=end - begin - 0.2) is not held, (begin, end)
        assert not levels(heard)[0].silent, f"hold music from {begin} to {end} s"


async def test_a_hold_that_is_never_taken_back_ends_with_the_call(house: Installation) -> None:
    business, port = await sipp_desk(house)
    phone = holding_phone(house, port, 20.0)
    caller = house.caller()
    await house.place(business, caller=caller, steps=(Answered(), Wait(3.0), Hangup()))
    phone.cancel()
    await asyncio.gather(phone, return_exceptions=True)
    [call] = await house.records_of(business.did, caller)
    assert call.record.disposition is Disposition.ANSWERED
    assert call.record.hold_seconds == pytest.approx(2.0, abs=0.5)


async def test_the_caller_holds(house: Installation) -> None:
    """Told by the event socket and by the manager interface; counted once."""
    business = await house.business({"desk": speaking()})
    caller, settings = house.caller(), house.settings
    result = await run_sipp(
        "uac_hold",
        (settings.sip_bind, settings.sip_port),
        local_ip=settings.simulator_address,
        rows=[(business.did, caller, "")],
        talk_seconds=HOLD,
        rtp_echo=True,
        timeout=30,
    )
    assert result.succeeded == 1, result.errors
    [call] = await house.records_of(business.did, caller)
    assert call.record.disposition is Disposition.ANSWERED
    assert call.record.hold_seconds == pytest.approx(HOLD, abs=0.5)
    assert call.record.legs[0].hold_seconds == call.record.hold_seconds
