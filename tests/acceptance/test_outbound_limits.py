"""Nobody but the routing makes us dial, and the routing only within the company's limits."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from callrouter.core.disposition import Disposition, LegResult
from callrouter.core.outbound import cost_micros
from callrouter.store import config
from callrouter.testing.carrier_script import Answered, Digits, Hangup, Phone, UntilHangup, Wait, answer_then_press
from callrouter.testing.sipp import run_sipp
from tests.acceptance.conversations import speaking
from tests.acceptance.raw_sip import Attempt, Odd
from tests.fixtures.installation import Business, Installation, eventually, free_port, installation

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="session")]

TALK = (Answered(), Wait(2.0), Hangup())
FOREIGN = "+881612345678"
"""A number that costs dearly; the carrier would take a call to it."""
FLOW = """
start: dial
nodes:
  dial: {type: dial, target: cell, on_busy: end, on_no_answer: end, on_failed: refused}
  refused: {type: tag, tags: [refused], next: end}
  end: {type: hangup, cause: congestion}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def place() -> AsyncIterator[Installation]:
    async with installation() as made:
        async with made.database.session() as session:
            await config.add_trunk(
                session,
                name="out",
                host=made.settings.simulator_address,
                port=made.carrier.sip_port,
                match=["127.3.3.3"],
                qualify_seconds=0,
                rates=[("+44", 600_000)],
                who="tests",
            )
        await made.carrier.add_phone(Phone(FOREIGN, speaking()))
        await made.spawn_server()
        await eventually(lambda: made.status().get("ami", {}).get("authenticated"), "the manager interface")
        yield made


async def limited(place: Installation, **caps: Any) -> Business:
    business = await place.business({"cell": speaking(after=0.2)}, flow=FLOW, trunk="out")
    async with place.database.session() as session:
        await config.edit_company(session, business.company, caps, who="tests")
    await place.in_force()
    return business


async def nothing_foreign(place: Installation) -> None:
    assert await place.carrier.phone_calls(FOREIGN) == []


# -- caps --------------------------------------------------------------------------------------------------------------


async def test_a_cap_trips_tells_and_gives_way_again(place: Installation) -> None:
    business = await limited(place, max_outbound_calls=1)
    first, second, third = place.caller(), place.caller(), place.caller()
    talking = asyncio.create_task(place.place(business, caller=first, steps=(Answered(), Wait(4.0), Hangup())))

    async def talks() -> bool:
        calls = await place.carrier.phone_calls(business.phones["cell"])
        return bool(calls) and calls[-1].answered

    await eventually(talks, "the first call is answered")
    refused = await place.place(business, caller=second)
    assert refused.sip_status == 503
    [record] = [call.record for call in await place.records_of(business.did, second)]
    assert record.tags == ("refused",)
    assert record.disposition is Disposition.FAILED
    assert record.reason == "cell was not dialled: 1 calls over trunks at once; the company may have 1"
    assert [(leg.trunk, leg.result, leg.cost_micros) for leg in record.legs] == [(None, LegResult.FAILED, None)]
    assert any(step.what == "refused: calls" for step in record.trace)

    def alarmed() -> bool:
        found = [each for each in place.status().get("alarms", []) if each["company"] == business.company]
        return [(each["cap"], each["count"]) for each in found] == [("calls", 1)]

    await eventually(alarmed, "the alarm in the status")
    assert f"outbound: {business.company}: calls kept 1 call from being dialled" in await callrouter(place, "status")
    errors = [json.loads(line) for line in place.server_log().splitlines() if '"outbound_refused"' in line]
    assert [(each["level"], each["cap"]) for each in errors if each["company"] == business.company] == [
        ("error", "calls")
    ]
    await talking
    assert (await place.place(business, caller=third, steps=TALK)).answered
    assert len(await place.carrier.phone_calls(business.phones["cell"])) == 2


async def test_after_a_kill_the_slots_are_still_taken(place: Installation) -> None:
    business = await limited(place, max_outbound_calls=1, max_outbound_per_hour=2)
    first = place.caller()
    talking = asyncio.create_task(place.place(business, caller=first, steps=(Answered(), UntilHangup())))

    async def talks() -> bool:
        calls = await place.carrier.phone_calls(business.phones["cell"])
        return bool(calls) and calls[-1].answered

    await eventually(talks, "the first call is answered")
    await place.end_child(signal.SIGKILL)
    await place.spawn_server()
    await eventually(lambda: place.status().get("outbound_calls") == 1, "the adopted leg is counted")
    assert (await place.place(business, caller=place.caller())).sip_status == 503
    await place.asterisk.rx("channel request hangup all")
    await talking
    await eventually(lambda: place.status().get("outbound_calls") == 0, "the slot is free")
    assert (await place.place(business, caller=place.caller(), steps=TALK)).answered
    last = place.caller()
    assert (await place.place(business, caller=last)).sip_status == 503
    [call] = await place.records_of(business.did, last)
    assert "in an hour" in call.record.reason
    assert len(await place.carrier.phone_calls(business.phones["cell"])) == 2


async def test_what_a_call_cost_is_in_its_record_and_ends_the_spending(place: Installation) -> None:
    business = await limited(place, max_spend_per_day=0)
    assert (await place.place(business, caller=place.caller())).sip_status == 503
    async with place.database.session() as session:
        await config.edit_company(session, business.company, {"max_spend_per_day": 1}, who="tests")
    await place.in_force()
    caller = place.caller()
    seen = await place.call(business, caller=caller, steps=(Answered(), Wait(2.0), Hangup()))
    [leg] = seen.call.record.legs
    assert leg.cost_micros == cost_micros(600_000, leg.talk_seconds)
    assert leg.cost_micros >= 10_000
    shown = json.loads(await callrouter(place, "--json", "call", "show", seen.call.record.id))
    assert (shown["cost_micros"], shown["currency"], shown["legs"][0]["trunk"]) == (leg.cost_micros, "USD", "out")
    assert (await place.place(business, caller=place.caller())).sip_status == 503, "a cent is spent"


async def test_the_dialplan_alone_keeps_the_cap_too(place: Installation) -> None:
    business = await limited(place, max_outbound_calls=1)
    await place.end_child()
    try:
        talking = asyncio.create_task(
            place.place(business, caller=place.caller(), steps=(Answered(), Wait(3.0), Hangup()))
        )

        async def talks() -> bool:
            calls = await place.carrier.phone_calls(business.phones["cell"])
            return bool(calls) and calls[-1].answered

        await eventually(talks, "the first call is answered")
        assert (await place.place(business, caller=place.caller())).sip_status == 503
        assert (await talking).answered
        assert (await place.place(business, caller=place.caller(), steps=TALK)).answered
        assert len(await place.carrier.phone_calls(business.phones["cell"])) == 2
    finally:
        await place.spawn_server()


async def callrouter(place: Installation, *words: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "callrouter", "--home", str(place.settings.home_dir), *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return out.decode()


# -- nobody else makes us dial -----------------------------------------------------------------------------------------


def foreign_uri(place: Installation) -> str:
    return f"sip:{FOREIGN}@{place.settings.simulator_address}:{place.carrier.sip_port}"


@pytest.mark.parametrize("kind", ["blind", "attended"])
async def test_a_caller_who_asks_for_a_transfer_gets_none(place: Installation, kind: str) -> None:
    business = await place.business({"desk": speaking()})
    caller = place.caller()
    uri = foreign_uri(place)
    result = await run_sipp(
        "uac_refer",
        (place.settings.sip_bind, place.settings.sip_port),
        local_ip=place.settings.simulator_address,
        rows=[(business.did, caller, "")],
        keys={"refer_to": uri if kind == "blind" else f"{uri}?Replaces=abc%40example%3Bto-tag%3D1%3Bfrom-tag%3D2"},
        talk_seconds=1.5,
        timeout=20,
    )
    assert result.succeeded == 1, [message.start_line for message in result.messages]
    assert [message.start_line for message in result.messages if message.method == "REFER" and message.status] == []
    [call] = await place.records_of(business.did, caller)
    assert [leg.target for leg in call.record.legs] == ["desk"]
    assert call.record.talk_seconds == pytest.approx(2.0, abs=0.6), "the conversation went on"
    assert len(await place.carrier.phone_calls(business.phones["desk"])) == 1
    await nothing_foreign(place)


async def test_a_business_that_asks_for_a_transfer_gets_none(place: Installation) -> None:
    port = free_port(place.settings.simulator_address, socket.SOCK_DGRAM)
    business = await place.business({"desk": speaking()})
    await ring_at(place, business, port)
    phone = asyncio.create_task(
        run_sipp(
            "uas_refer",
            local_ip=place.settings.simulator_address,
            local_port=port,
            keys={"refer_to": foreign_uri(place)},
            timeout=20,
        )
    )
    seen = await place.call(business, steps=TALK)
    result = await phone
    assert result.succeeded == 1, [message.start_line for message in result.messages]
    assert [message.start_line for message in result.messages if message.method == "REFER" and message.status] == []
    assert [leg.target for leg in seen.call.record.legs] == ["desk"]
    assert seen.call.record.talk_seconds == pytest.approx(2.0, abs=0.6)
    await nothing_foreign(place)


async def test_an_invite_that_would_replace_a_call_is_a_call_of_its_own(place: Installation) -> None:
    """RFC 3891, with the true ids of a conversation: from a trunk, which is the most that anybody outside can be."""
    business = await place.business({"desk": speaking()})
    caller = place.caller()
    talking = asyncio.create_task(place.place(business, caller=caller, steps=(Answered(), Wait(3.0), Hangup())))
    ids: dict[str, str] = {}
    names = {name: f"CHANNEL(pjsip,{name})" for name in ("call-id", "local_tag", "remote_tag")}
    async with place.ari() as ari:

        async def connected() -> bool:
            for channel in await ari.channels():
                if channel.caller.number == caller and channel.state == "Up":
                    ids.update(await ari.get_variables(channel.id, list(names.values())))
            return bool(ids)

        await eventually(connected, "the conversation")
    call_id, ours, theirs = (ids[name] for name in names.values())
    odd = Odd("", "", "", add=(f"Replaces: {call_id};to-tag={ours};from-tag={theirs}", "Require: replaces"))
    plain = Odd("", "", "", add=odd.add[:1])
    server = (place.settings.sip_bind, place.settings.sip_port)
    attempts = [Attempt(each, n, place.settings.simulator_address, server, business.did)
                for n, each in enumerate((odd, plain))]  # fmt: skip
    try:
        for each in attempts:
            await each.send()
        await eventually(lambda: all(each.final for each in attempts), "an answer to both")
        assert (await talking).answered
        assert [each.final for each in attempts] == [420, 200], "not understood; a call like any other"
    finally:
        for each in attempts:
            await each.close()
    await place.asterisk.rx("channel request hangup all")
    [call] = await place.records_of(business.did, caller)
    assert call.record.talk_seconds == pytest.approx(3.0, abs=0.6), "the conversation went on"
    assert [leg.target for leg in call.record.legs] == ["desk"]
    [other] = await place.records_of(business.did, attempts[1].caller)
    assert (other.record.disposition, len(other.record.legs)) == (Disposition.ANSWERED, 1)
    assert len(await place.carrier.phone_calls(business.phones["desk"])) == 2


@pytest.mark.parametrize("host", ["elsewhere", "itself"])
async def test_a_redirecting_target_is_not_followed(place: Installation, host: str) -> None:
    port = free_port(place.settings.simulator_address, socket.SOCK_DGRAM)
    business = await place.business({"desk": speaking()})
    await ring_at(place, business, port)
    own = f"sip:{FOREIGN}@{place.settings.simulator_address}:{port}"
    contact = foreign_uri(place) if host == "elsewhere" else own
    phone = asyncio.create_task(
        run_sipp(
            "uas_status",
            local_ip=place.settings.simulator_address,
            local_port=port,
            status=f"302 Moved Temporarily\nContact: <{contact}>",
            timeout=10,
        )
    )
    seen = await place.call(business)
    result = await phone
    assert len(result.invites) == 1
    assert not seen.caller.answered
    # As busy, so that the flow's exit for that is taken.
    assert [leg.result for leg in seen.call.record.legs] == [LegResult.BUSY]
    assert seen.phones["desk"] == []
    await nothing_foreign(place)


async def ring_at(place: Installation, business: Business, port: int) -> None:
    uri = f"sip:desk@{place.settings.simulator_address}:{port}"
    async with place.database.session() as session:
        await config.edit_target(session, f"{business.company}/desk", {"sip_uri": uri}, who="tests")
    await place.in_force()


async def test_no_key_makes_us_dial(place: Installation) -> None:
    keys = f"*2{FOREIGN[1:7]}#"
    by_caller = await place.business({"desk": speaking()})
    presses = answer_then_press(f"##{keys}", after=0.3, wait=1.0, speak="tone:660", hang_up_after=5.0)
    by_desk = await place.business({"desk": presses})
    pressing = (Answered(), Wait(0.5), Digits(f"##{keys}*1*8#1"), Wait(1.0), Hangup())
    one, other = await asyncio.gather(
        place.call(by_caller, steps=pressing), place.call(by_desk, steps=(Answered(), UntilHangup()))
    )
    assert one.phone.digits == f"##{keys}*1*8#1", "they are the other side's to hear"
    assert other.caller.digits == f"##{keys}"
    for seen in (one, other):
        assert [leg.target for leg in seen.call.record.legs] == ["desk"]
        assert seen.call.record.disposition is Disposition.ANSWERED
    await nothing_foreign(place)
