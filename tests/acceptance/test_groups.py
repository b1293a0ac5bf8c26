"""Ring groups on real Asterisk: who is rung, in which order, and whom the caller hears."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from typing import Any

import pytest

from callrouter.core.disposition import Disposition, LegResult
from callrouter.core.groups import parse_member
from callrouter.store import config
from callrouter.testing.audio import tone_present
from callrouter.testing.carrier_script import (
    Behaviour,
    Hangup,
    Phone,
    UntilHangup,
    Wait,
    answer,
    busy,
    no_answer,
    reject,
)
from tests.acceptance.listening import voice
from tests.fixtures.installation import CALLER_HZ, Business, Installation, Seen, eventually, installation

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="session")]

FLOW = """
start: ring
nodes:
  ring: {type: dial, group: team, on_busy: busy, on_no_answer: nobody, on_failed: failed}
  busy: {type: hangup, cause: busy}
  nobody: {type: hangup, cause: no-answer}
  failed: {type: hangup, cause: congestion}
"""
HZ = {"ana": 660, "bob": 880, "carl": 1320}
SAID: dict[str, Any] = {"who": "tests", "why": "acceptance"}


def talks(name: str, after: float = 0.2, seconds: float = 1.2) -> Behaviour:
    """Answers, sounds like itself, and hangs up."""
    return answer(after=after, speak=f"tone:{HZ[name]}", hang_up_after=seconds)


async def team(
    house: Installation, phones: Mapping[str, Behaviour], strategy: str, *members: str, **more: Any
) -> Business:
    """A business whose number rings a group."""
    group: dict[str, Any] = {"strategy": strategy, "members": [parse_member(each) for each in members or phones]}
    kept = {key: more.pop(key) for key in ("stop_on_busy", "stop_on_declined") if key in more}
    business = await house.business(phones, **more)
    async with house.database.session() as session:
        await config.add_group(session, business.company, name="team", **group, **kept, **SAID)
        await config.add_flow(session, business.company, name="main", text=FLOW, **SAID)
        await config.edit_number(session, business.did, {"flow": "main"}, **SAID)
    await house.in_force()
    return business


def heard(seen: Seen) -> set[str]:
    """Whose tone the caller heard."""
    assert seen.caller.heard is not None
    return {name for name, hz in HZ.items() if tone_present(seen.caller.heard, hz, min_seconds=0.6)}


def legs(seen: Seen) -> list[tuple[str, LegResult | None]]:
    return [(leg.target, leg.result) for leg in seen.call.record.legs]


async def calls(house: Installation, business: Business, count: int) -> list[str | None]:
    """Who answers calls that come one after another; each is who the caller heard, too."""
    found = []
    for _ in range(count):
        seen = await house.call(business)
        who = seen.call.record.answered_by
        assert heard(seen) == {who}, seen.trace
        found.append(who)
    return found


ALL = {name: talks(name) for name in HZ}


async def test_one_after_another(house: Installation) -> None:
    async def in_order() -> None:
        phones = {"ana": busy(), "bob": no_answer(), "carl": talks("carl")}
        seen = await house.call(await team(house, phones, "in-order", "ana", "bob:ring=2", "carl"))
        assert legs(seen) == [
            ("ana", LegResult.BUSY),
            ("bob", LegResult.NO_ANSWER),
            ("carl", LegResult.ANSWERED),
        ], seen.trace
        assert heard(seen) == {"carl"}
        assert "group team: in-order: ana, bob, carl" in seen.trace

    async def declined() -> None:
        seen = await house.call(await team(house, {"ana": reject(), "bob": talks("bob")}, "in-order"))
        assert legs(seen) == [("ana", LegResult.FAILED)], seen.trace
        assert "stopped: ana: declined for all" in seen.trace
        assert seen.call.record.disposition is Disposition.FAILED

    async def goes_on() -> None:
        phones = {"ana": reject(), "bob": talks("bob")}
        seen = await house.call(await team(house, phones, "in-order", stop_on_declined=False))
        assert legs(seen) == [("ana", LegResult.FAILED), ("bob", LegResult.ANSWERED)], seen.trace
        assert heard(seen) == {"bob"}

    async def tiers() -> None:
        phones = {"ana": talks("ana"), "bob": busy()}
        seen = await house.call(await team(house, phones, "tiers", "ana:tier=2", "bob"))
        assert legs(seen) == [("bob", LegResult.BUSY), ("ana", LegResult.ANSWERED)], seen.trace

    async def nobody() -> None:
        phones = {"ana": busy(), "bob": no_answer()}
        seen = await house.call(await team(house, phones, "in-order", ring=2))
        assert seen.call.record.disposition is Disposition.NO_ANSWER
        assert seen.call.record.reason == "nobody in team answered: ana was busy; bob did not answer"

    await asyncio.gather(in_order(), declined(), goes_on(), tiers(), nobody())


async def test_in_turns(house: Installation) -> None:
    robin, weighted, recent, idle = await asyncio.gather(
        team(house, ALL, "round-robin"),
        team(house, ALL, "weighted", "ana:weight=2", "bob:weight=1"),
        team(house, ALL, "least-recent"),
        team(house, ALL, "longest-idle"),
    )
    turns = await asyncio.gather(
        calls(house, robin, 4), calls(house, weighted, 3), calls(house, recent, 3), calls(house, idle, 3)
    )
    assert turns[0] == ["ana", "bob", "carl", "ana"]
    assert sorted(turns[1], key=str) == ["ana", "ana", "bob"]
    assert turns[2] == turns[3] == ["ana", "bob", "carl"]


async def test_ring_all(house: Installation) -> None:
    async def first_wins() -> None:
        phones = {"ana": talks("ana", after=3.0), "bob": talks("bob", 1.0, 4.0), "carl": busy()}
        seen = await house.call(await team(house, phones, "ring-all", whisper="Call from {campaign}."))
        assert legs(seen) == [
            ("ana", LegResult.CANCELLED),
            ("bob", LegResult.ANSWERED),
            ("carl", LegResult.BUSY),
        ], seen.trace
        assert [leg.cause for leg in seen.call.record.legs][::2] == [26, 17]
        assert heard(seen) == {"bob"}
        assert seen.call.record.answered_by == "bob"
        [recording] = seen.call.recordings
        assert (recording.kind, recording.status) == ("conversation", "ok"), recording
        assert recording.leg_id == seen.call.record.legs[1].id
        [there] = seen.phones["bob"]
        assert voice(there.heard)[0][0] < 2.0, "the whisper"
        assert there.heard is not None
        assert tone_present(there.heard, CALLER_HZ, min_seconds=0.6)
        assert [each.heard is None or not tone_present(each.heard, CALLER_HZ, min_seconds=0.2)
                for each in seen.phones["ana"]] == [True]  # fmt: skip

    async def at_the_same_moment() -> None:
        business = await team(house, {name: talks(name, after=0.6) for name in HZ}, "ring-all")
        seen = await house.call(business)
        results = [str(result) for _, result in legs(seen)]
        assert sorted(results) == [LegResult.ANSWERED, LegResult.CANCELLED, LegResult.CANCELLED], seen.trace
        assert heard(seen) == {seen.call.record.answered_by}
        assert len(seen.call.recordings) == 1

    async def nobody() -> None:
        seen = await house.call(await team(house, {"ana": busy(), "bob": no_answer()}, "ring-all", ring=3))
        assert legs(seen) == [("ana", LegResult.BUSY), ("bob", LegResult.NO_ANSWER)], seen.trace
        assert seen.call.record.disposition is Disposition.NO_ANSWER

    async def gives_up() -> None:
        business = await team(house, {"ana": no_answer(), "bob": no_answer()}, "ring-all")
        seen = await house.call(business, steps=(Wait(1.5), Hangup()))
        assert legs(seen) == [("ana", LegResult.CANCELLED), ("bob", LegResult.CANCELLED)], seen.trace
        assert seen.call.record.disposition is Disposition.ABANDONED
        assert seen.call.recordings == ()

    await asyncio.gather(first_wins(), at_the_same_moment(), nobody(), gives_up())
    await house.idle()


async def over_a_trunk(place: Installation, business: Business) -> str:
    """A third member, reached over a trunk that wants the number dialled to be shown; gives its phone's name."""
    number = "+442079460999"
    await place.carrier.add_phone(Phone(number, no_answer()))
    async with place.database.session() as session:
        await config.add_trunk(
            session,
            name="out",
            host=place.settings.simulator_address,
            port=place.carrier.sip_port,
            match=["127.3.3.3"],
            qualify_seconds=0,
            caller_id="tracking-number",
            **SAID,
        )
        await config.add_target(session, business.company, name="dan", number=number, trunk="out", **SAID)
        members = [parse_member(each) for each in ("ana", "bob", "dan")]
        await config.edit_group(session, "team", {"members": members}, company=business.company, **SAID)
    await place.in_force()
    return number


async def test_a_server_that_is_killed_while_all_ring() -> None:
    async with installation() as place:
        await place.spawn_server()
        business = await team(place, {"ana": no_answer(), "bob": talks("bob", 3.0, 4.0)}, "ring-all")
        abroad = await over_a_trunk(place, business)
        ringing = asyncio.create_task(place.call(business, steps=(UntilHangup(),)))
        await eventually(lambda: place.status().get("calls") == 1, "the call")
        await place.carrier.wait_phone_calls(business.phones["bob"], 1)
        await place.end_child(signal.SIGKILL)
        await place.spawn_server()
        seen = await ringing
        assert legs(seen) == [
            ("ana", LegResult.CANCELLED),
            ("bob", LegResult.ANSWERED),
            ("dan", LegResult.CANCELLED),
        ], seen.trace
        assert heard(seen) == {"bob"}
        assert seen.call.record.answered_by == "bob"
        assert len(seen.call.recordings) == 1
        # Each leg is shown the number that its trunk wants, though one Dial() rang them all.
        [shown] = await place.carrier.phone_calls(abroad)
        assert shown.from_number.lstrip("+") == business.did.lstrip("+")
        assert {each.from_number for each in seen.phones["ana"]} == {seen.call.record.caller}
        # The slot of the leg over a trunk was free again as soon as another one had answered.
        assert place.status().get("outbound_calls") == 0
