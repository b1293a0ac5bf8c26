"""Calls that go on in another flow: what the caller hears, the record, changes meanwhile, a server that is killed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from callrouter.core.disposition import Disposition
from callrouter.store import config
from callrouter.testing.audio import duration, tone_present
from callrouter.testing.carrier_script import Digits, Hangup, UntilHangup, Wait, answer
from tests.acceptance.listening import part, voice
from tests.fixtures.installation import BUSINESS_HZ, CALLER_HZ, Business, Installation, eventually, installation

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="session")]

BEEP_HZ = 1000
DESK = {"desk": answer(after=0.2, speak=f"tone:{BUSINESS_HZ}", hang_up_after=1.5)}
MAIN = """
start: menu
nodes:
  menu:
    type: menu
    prompt: For service, press one. To leave a message, press two.
    options: {1: dept, 2: after-hours}
    timeout: 10
    on_exhausted: after-hours
  dept: {type: goto_flow, flow: support, node: choose}
  after-hours: {type: goto_flow, flow: night}
"""
SUPPORT = """
start: greet
nodes:
  greet: {type: play, prompt: This is never heard by these callers., next: choose}
  choose:
    type: menu
    prompt: You have come to the service department, which has many words to say. Please press one now.
    options: {1: ring}
    timeout: 8
    on_exhausted: ring
  ring: {type: dial, target: desk, on_busy: late, on_no_answer: late, on_failed: late}
  late: {type: goto_flow, flow: night}
"""
NIGHT = """
start: tagged
nodes:
  tagged: {type: tag, tags: [TAG], next: message}
  message: {type: voicemail, greeting: Please leave a message., silence_seconds: 3, on_failed: end}
  end: {type: hangup}
"""


async def company(place: Installation) -> Business:
    """One whose number's flow goes on in two others."""
    business = await place.business(DESK, flow=NIGHT)
    async with place.database.session() as session:
        for name, text in (("night", NIGHT.replace("TAG", "old")), ("support", SUPPORT)):
            await config.add_flow(session, business.company, name=name, text=text, who="tests")
    await place.edit_flow(business, MAIN)
    await place.in_force()
    return business


async def edit(place: Installation, business: Business, name: str, text: str) -> None:
    async with place.database.session() as session:
        await config.edit_flow(session, name, {"text": text}, company=business.company, who="tests")


async def test_a_call_goes_on_in_another_flow_in_the_version_it_began_with(house: Installation) -> None:
    business = await company(house)
    waits = (Wait(6.0), Digits("2"), Wait(7.0), Hangup())
    running = asyncio.create_task(house.call(business, steps=waits))
    try:

        async def there() -> bool:
            return await house.channels() > 0

        await eventually(there, "the caller is in the first flow's menu")
        await edit(house, business, "night", NIGHT.replace("TAG", "new"))
        await house.in_force(1.5)
        talked, later, message = await asyncio.gather(
            house.call(business, steps=(Wait(1.0), Digits("1"), Wait(1.0), Digits("1"), UntilHangup())),
            house.call(business, steps=(Wait(1.0), Digits("2"), Wait(6.0), Hangup())),
            running,
        )
    finally:
        running.cancel()
    # To a node of one flow, and its destination.
    assert talked.call.record.path == ("menu", "dept", "support/choose", "support/ring")
    assert talked.call.record.disposition is Disposition.ANSWERED
    assert [(leg.target, leg.endpoint != "") for leg in talked.call.record.legs] == [("desk", True)]
    assert talked.caller.heard is not None
    assert tone_present(talked.caller.heard, BUSINESS_HZ, min_seconds=0.8)
    assert tone_present(house.settings.recordings / str(talked.call.recordings[0].path), CALLER_HZ, min_seconds=0.8)
    paths = [one.path for one in talked.call.record.trace if one.what == "reached"]
    assert paths == ["main@2/menu", "main@2/dept", "support@1/choose", "support@1/ring"]
    assert len(voice(message.caller.heard)) == 2, "the menu, and the greeting"
    # To the start of another one, in two versions.
    for seen, tag, number in ((message, "old", 1), (later, "new", 2)):
        assert seen.call.record.path == ("menu", "after-hours", "night/tagged", "night/message")
        assert seen.call.record.tags == (tag,)
        paths = [one.path for one in seen.call.record.trace if one.what == "reached"]
        assert paths[2:] == [f"night@{number}/tagged", f"night@{number}/message"]
        assert seen.call.record.disposition is Disposition.VOICEMAIL
        assert seen.call.record.legs == ()
        heard = voice(seen.caller.heard)
        assert seen.caller.heard is not None
        assert tone_present(part(seen.caller.heard, heard[-1][1] - 0.2), BEEP_HZ, min_seconds=0.1), "no beep"
        [recording] = seen.call.recordings
        file: Path = house.settings.recordings / str(recording.path)
        assert recording.kind == "voicemail"
        assert duration(file) > 2.0
        assert tone_present(file, CALLER_HZ, min_seconds=2.0)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def lone() -> AsyncIterator[Installation]:
    """An installation whose server is a process that may be killed."""
    async with installation() as place:
        await place.spawn_server()
        yield place


async def test_killed_in_the_second_flow(lone: Installation) -> None:
    """The call goes on at its node, by the versions that it began with, though both flows were changed meanwhile."""
    business = await company(lone)
    caller = lone.caller()
    steps = (Wait(1.0), Digits("1"), Wait(11.0), Digits("1"), UntilHangup())
    running = asyncio.create_task(lone.place(business, caller=caller, steps=steps))
    try:
        await asyncio.sleep(4.0)
        await lone.end_child(signal.SIGKILL)
        await edit(lone, business, "support", SUPPORT.replace("options: {1: ring}", "options: {1: late}"))
        await edit(lone, business, "night", NIGHT.replace("TAG", "new"))
        await lone.spawn_server()
        result = await running
    finally:
        running.cancel()
    assert result.heard is not None
    assert tone_present(result.heard, BUSINESS_HZ, min_seconds=0.8)
    [call] = await lone.records_of(business.did, caller)
    assert call.record.path == ("menu", "dept", "support/choose", "support/choose", "support/ring")
    assert call.record.disposition is Disposition.ANSWERED
    reached = [(one.path, one.why) for one in call.record.trace if one.what == "reached"]
    assert ("support@1/choose", "the controller was restarted; the node starts again") in reached
