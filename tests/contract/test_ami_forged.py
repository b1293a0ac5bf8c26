"""Line breaks in a caller's number, which Asterisk does not escape in AMI: what a caller adds is not believed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from callrouter.asterisk.ami import Ami
from callrouter.asterisk.ami_events import AmiEvent
from callrouter.testing.fake_ami import FakeAmi
from tests.integration.edge_asterisk import until

CHANNEL = (
    "Event: CoreShowChannel\r\nActionID: {id}\r\nChannel: PJSIP/{name}\r\nCallerIDNum: {caller}\r\n"
    "Uniqueid: {name}\r\nLinkedid: 1\r\nApplication: AppDial\r\nBridgeId: \r\n\r\n"
)


class Channels(FakeAmi):
    """Lists channels as Asterisk does: the ActionID stands in front, callers' numbers are not escaped."""

    callers: tuple[str, ...] = ()

    def _answer(self, writer: asyncio.StreamWriter, action: dict[str, str], challenge: str) -> None:
        if action.get("Action", "").lower() != "coreshowchannels":
            super()._answer(writer, action, challenge)
            return
        ident = action["ActionID"]
        said = f"Response: Success\r\nActionID: {ident}\r\nEventList: start\r\n\r\n"
        said += "".join(CHANNEL.format(id=ident, name=f"c{n}", caller=text) for n, text in enumerate(self.callers))
        said += f"Event: CoreShowChannelsComplete\r\nActionID: {ident}\r\nEventList: Complete\r\nListItems: 9\r\n\r\n"
        writer.write(said.encode())


@pytest.fixture
async def server() -> AsyncIterator[Channels]:
    async with Channels() as fake:
        yield fake


@pytest.fixture
async def ami(server: Channels) -> AsyncIterator[Ami]:
    async with Ami("127.0.0.1", server.port, server.user, server.secret, action_timeout=2.0) as adapter:
        yield adapter


HOSTILE = {
    "a second event": "1\r\n\r\nEvent: Hold\r\nUniqueid: c0",
    "the end of the list": "1\r\nEventList: Complete",
    "the end of the list, whole": "1\r\n\r\nEvent: CoreShowChannelsComplete\r\nEventList: Complete",
    "another channel": "1\r\nChannel: PJSIP/c0\r\nUniqueid: c0",
    "an id of its own": "1\r\nUniqueid: c0",
    "nothing more": "1\r\n\r\n",
    "a response": "1\r\n\r\nResponse: Error\r\nMessage: gone",
}


@pytest.mark.parametrize("hostile", HOSTILE)
async def test_a_list_of_channels_stays_whole(server: Channels, ami: Ami, hostile: str) -> None:
    """All the others are there, and nobody is there who is not."""
    seen: list[AmiEvent] = []
    ami.on_event("*", seen.append)
    server.callers = ("+12025550101", HOSTILE[hostile], "+12025550102")
    found = await ami.channels()
    listed = [each["Uniqueid"] for each in found]
    assert [ident for ident in listed if ident != "c1"] == ["c0", "c2"]
    assert [each["Channel"] for each in found] == [f"PJSIP/{ident}" for ident in listed]
    assert await ami.ping() < 2
    assert [event.name for event in seen if event.name == "Hold"] == []


async def test_an_event_that_says_twice_what_is_said_once_is_dropped(server: Channels, ami: Ami) -> None:
    seen: list[AmiEvent] = []
    ami.on_event("*", seen.append)
    server.send_raw(b"Event: Newchannel\r\nChannel: a\r\nCallerIDNum: 1\r\nUniqueid: x\r\nUniqueid: 1\r\n\r\n")
    server.send_raw(b"Event: Newchannel\r\nChannel: a\r\nCallerIDNum: 1\r\nEvent: Hold\r\nUniqueid: 1\r\n\r\n")
    server.send_event("Newchannel", Channel="b", Uniqueid="2")
    await until(lambda: any(event.fields.get("Uniqueid") == "2" for event in seen), 2.0)
    assert [event.fields["Uniqueid"] for event in seen if event.name in ("Newchannel", "Hold")] == ["2"]
