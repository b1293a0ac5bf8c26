"""Whose number the business sees, and changes made while calls run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable

import pytest
import pytest_asyncio

from callrouter.core.disposition import Disposition
from callrouter.store import config
from callrouter.testing.audio import tone_present
from callrouter.testing.carrier_script import (
    Answered,
    Hangup,
    Phone,
    UntilHangup,
    Wait,
    busy,
)
from tests.acceptance.conversations import check_recording, speaking
from tests.fixtures.installation import CALLER_HZ, Business, Installation, Seen, eventually

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="session")]

TALK = (Answered(), Wait(2.0), Hangup())


# -- whose number is shown ---------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def trunks(house: Installation) -> AsyncIterator[dict[str, str]]:
    """A trunk for each way to show a number; all lead to the carrier's phones."""
    address, _, _ = house.settings.simulator_address.rpartition(".")
    names = {"pass-through": "through", "tracking-number": "tracking", "fixed": "fixed"}
    async with house.database.session() as session:
        for order, (mode, name) in enumerate(names.items()):
            await config.add_trunk(
                session,
                name=name,
                host=house.settings.simulator_address,
                port=house.carrier.sip_port,
                match=[f"{address}.{20 + order}"],
                caller_id=mode,
                fixed_caller_id="+12025550177" if mode == "fixed" else None,
                qualify_seconds=0,
                who="tests",
            )
    await house.in_force()
    yield names


async def test_the_number_that_the_business_sees(house: Installation, trunks: dict[str, str]) -> None:
    made: dict[str, Business] = {
        mode: await house.business({"desk": speaking()}, trunk=name) for mode, name in trunks.items()
    }
    callers = {mode: house.caller() for mode in made}
    calls: list[Awaitable[Seen]] = [
        house.call(business, caller=callers[mode], caller_name="Zoë Ångström", steps=TALK)
        for mode, business in made.items()
    ]
    seen = dict(zip(made, await asyncio.gather(*calls), strict=True))
    shown = {
        "pass-through": callers["pass-through"],
        "tracking-number": made["tracking-number"].did,
        "fixed": "+12025550177",
    }
    for mode, number in shown.items():
        headers = seen[mode].phone
        assert f"<sip:{number}@" in headers.header("From"), mode
        assert f"sip:{made[mode].phones['desk']}@" in headers.header("To")
        if mode != "pass-through":
            assert callers[mode] not in str(headers.headers), "the caller's number leaks"
        # Whatever the business sees, the record has the caller.
        assert seen[mode].call.record.caller == callers[mode]
        assert seen[mode].call.record.caller_name == "Zoë Ångström"
        assert seen[mode].ledger.caller == callers[mode]
        assert tone_present(headers.heard or seen[mode].phone.headers["-"], CALLER_HZ)  # type: ignore[arg-type]
    assert "Zoë Ångström" in seen["pass-through"].phone.header("From")


async def test_a_withheld_number_stays_withheld(house: Installation) -> None:
    seen = await house.call(await house.business({"desk": speaking()}), anonymous=True, steps=TALK)
    assert seen.call.record.caller is None
    assert seen.call.record.caller_name is None
    assert seen.call.record.disposition is Disposition.ANSWERED
    assert seen.phone.from_number in ("anonymous", "")
    check_recording(house, seen)


# -- changes while running ---------------------------------------------------------------------------------------------


async def test_a_change_is_live_within_a_second_and_touches_no_call(house: Installation) -> None:
    flow = """
start: dial
nodes:
  dial: {type: dial, target: TARGET, on_answered: after, on_busy: end, on_no_answer: end, on_failed: end}
  after: {type: tag, tags: [TARGET], next: end}
  end: {type: hangup}
"""
    phones = {"old": speaking(hang_up_after=5.0), "new": speaking(hang_up_after=1.0)}
    business = await house.business(phones, flow=flow.replace("TARGET", "old"))
    async with house.database.session() as session:
        before = await config.get_flow(session, f"{business.company}/main")
    first, second = house.caller(), house.caller()
    running = asyncio.create_task(house.call(business, caller=first))
    try:

        async def talking() -> bool:
            return bool(await house.carrier.phone_calls(business.phones["old"]))

        await eventually(talking, "the old phone rings")
        await house.edit_flow(business, flow.replace("TARGET", "new"))
        await house.in_force(1.5)
        later = await house.call(business, caller=second)
        earlier = await running
    finally:
        running.cancel()
    async with house.database.session() as session:
        after = await config.get_flow(session, f"{business.company}/main")
    assert (before.version, after.version) == (1, 2)
    assert [leg.target for leg in earlier.call.record.legs] == ["old"]
    assert [leg.target for leg in later.call.record.legs] == ["new"]
    # The first call went on by the flow that it had started with, after the change too.
    assert earlier.call.record.tags == ("old",)
    assert earlier.call.record.flow_version_id == before.id
    assert later.call.record.flow_version_id == after.id
    assert later.call.record.tags == ("new",)


async def test_trunks_change_without_dropping_a_call(house: Installation) -> None:
    business = await house.business({"desk": speaking()})
    running = asyncio.create_task(house.call(business, steps=(Answered(), Wait(5.0), Hangup())))
    try:

        async def answered() -> bool:
            calls = await house.carrier.phone_calls(business.phones["desk"])
            return bool(calls and calls[0].answered)

        await eventually(answered, "the conversation")
        async with house.database.session() as session:
            await config.add_trunk(session, name="added-later", host="127.99.99.98", qualify_seconds=0, who="tests")
        await house.in_force()

        async def known() -> bool:
            return "trunk-added-later" in await house.asterisk.rx("pjsip show endpoints")

        await eventually(known, "Asterisk knows the new trunk")
        seen = await running
    finally:
        running.cancel()
    assert seen.call.record.talk_seconds == pytest.approx(5.0, abs=0.5)
    assert seen.phone.heard is not None
    # Not a packet was lost to the reload.
    assert tone_present(seen.phone.heard, CALLER_HZ, min_seconds=4.0)
    check_recording(house, seen)


async def test_a_phone_that_moved_is_found(house: Installation) -> None:
    business = await house.business({"desk": busy()})
    async with house.database.session() as session:
        uri = await house.carrier.add_phone(Phone(f"{business.company}-moved", speaking()))
        await config.edit_target(session, f"{business.company}/desk", {"sip_uri": uri}, who="tests")
    await house.in_force(1.5)
    result = await house.place(business, steps=(UntilHangup(),), max_seconds=1.0)
    assert result.answered
