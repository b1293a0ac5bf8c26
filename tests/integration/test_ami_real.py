"""The AMI adapter against a real Asterisk."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from callrouter.asterisk.ami import Ami
from callrouter.asterisk.ami_events import AmiEvent
from callrouter.asterisk.ari import AriClient
from callrouter.errors import AmiError
from tests.integration.edge_asterisk import EdgeAsterisk, until

pytestmark = pytest.mark.asterisk


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def asterisk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EdgeAsterisk]:
    private = EdgeAsterisk(tmp_path_factory.mktemp("asterisk"), "127.31.7.2")
    try:
        await private.up()
        yield private
    finally:
        private.stop()


@pytest_asyncio.fixture
async def ami(asterisk: EdgeAsterisk) -> AsyncIterator[Ami]:
    async with Ami(asterisk.address, asterisk.ami_port, asterisk.user, asterisk.password) as adapter:
        yield adapter


async def talk(asterisk: EdgeAsterisk, channel: str) -> None:
    """A call between two Local channel ends."""
    async with AriClient(asterisk.base_url, asterisk.user, asterisk.password) as ari:
        await ari.originate("Local/talk@callee/n", channel_id=channel, context="callee", extension="talk", timeout=5)


async def test_login_ping_command_and_status(ami: Ami):
    assert ami.state.authenticated
    assert await ami.ping() < 1
    lines = await ami.command("core show version")
    assert lines[0].startswith("Asterisk ")
    assert (await ami.core_status())["CoreStartupDate"]
    with pytest.raises(AmiError, match="No such command"):
        await ami.command("no such command")


async def test_wrong_password_is_a_clear_error_within_seconds(asterisk: EdgeAsterisk):
    adapter = Ami(asterisk.address, asterisk.ami_port, asterisk.user, "wrong")
    async with asyncio.timeout(3):
        with pytest.raises(AmiError, match="wrong AMI user or password"):
            await adapter.start()


async def test_refused_login_is_counted_as_a_security_event(asterisk: EdgeAsterisk, ami: Ami):
    with pytest.raises(AmiError):
        await Ami(asterisk.address, asterisk.ami_port, asterisk.user, "wrong").start()
    await until(lambda: ami.state.security)
    ((kind, address),) = ami.state.security
    assert kind == "ChallengeResponseFailed"
    assert address.startswith("127.")


async def test_invite_from_an_unknown_address_is_counted(asterisk: EdgeAsterisk, ami: Ami):
    source = "127.31.7.99"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((source, 0))
        port = sock.getsockname()[1]
        for number in range(3):
            lines = (
                f"INVITE sip:15550100@{asterisk.address}:{asterisk.sip_port} SIP/2.0",
                f"Via: SIP/2.0/UDP {source}:{port};branch=z9hG4bK{number}",
                "Max-Forwards: 70",
                f"From: <sip:nobody@{source}>;tag={number}",
                f"To: <sip:15550100@{asterisk.address}>",
                f"Call-ID: call-{number}@{source}",
                "CSeq: 1 INVITE",
                f"Contact: <sip:nobody@{source}:{port}>",
                "Content-Length: 0",
            )
            sock.sendto(("\r\n".join(lines) + "\r\n\r\n").encode(), (asterisk.address, asterisk.sip_port))
    found = await until(lambda: [key for key in ami.state.security if key[1] == source], what="the address counted")
    assert found[0][0] in ("InvalidAccountID", "ChallengeResponseFailed")


async def test_trunk_registration_and_contact_are_known(ami: Ami):
    trunk = await until(
        lambda: (t := ami.state.trunks.get("spring")) and t.rtt is not None and t, what="spring qualified"
    )
    assert trunk.contact == "Reachable"
    assert 0 < trunk.rtt < 1
    assert trunk.registration in ("Unregistered", "Rejected")
    (registration,) = await ami.registrations()
    assert registration.name == "spring"
    assert await ami.endpoints() == ["spring"]
    (contact,) = await ami.contacts()
    assert contact.endpoint == "spring"


async def test_channels_are_counted_listed_and_ended(asterisk: EdgeAsterisk, ami: Ami):
    ended: list[AmiEvent] = []
    cdrs: list[AmiEvent] = []
    ami.on_event("Hangup", ended.append)
    ami.on_event("Cdr", cdrs.append)
    await until(lambda: ami.state.channels == 0)
    await talk(asterisk, "counted")
    await until(lambda: ami.state.channels == 2)
    channels = {channel["Uniqueid"]: channel["Channel"] for channel in await ami.channels()}
    assert len(channels) == 2
    assert await ami.hangup(channels["counted"], 17) is True
    await until(lambda: ami.state.channels == 0)
    assert {event.fields["Uniqueid"] for event in ended} == set(channels)
    assert [event.fields["Cause"] for event in ended if event.fields["Uniqueid"] == "counted"] == ["17"]
    await until(lambda: cdrs)
    assert await ami.hangup(channels["counted"], 16) is False


async def test_reload_drops_no_channel(asterisk: EdgeAsterisk, ami: Ami):
    await talk(asterisk, "kept")
    await ami.reload("res_pjsip.so")
    kept = [channel["Channel"] for channel in await ami.channels() if channel["Uniqueid"] == "kept"]
    assert len(kept) == 1
    assert await ami.hangup(kept[0]) is True
    with pytest.raises(AmiError):
        await ami.reload("no_such_module.so")


async def test_line_break_cannot_smuggle_an_action(ami: Ami):
    with pytest.raises(AmiError, match="line break"):
        await ami.command("core show version\r\n\r\nAction: Command\r\nCommand: core stop now")
    assert await ami.ping() < 1


async def test_frozen_asterisk_is_noticed_within_4_seconds(asterisk: EdgeAsterisk, ami: Ami):
    asterisk.freeze()
    loop = asyncio.get_running_loop()
    start = loop.time()
    try:
        await until(lambda: not ami.connected, 6)
        assert loop.time() - start < 4.0
        assert "does not answer" in (ami.state.error or "")
    finally:
        asterisk.thaw()
    await until(lambda: ami.connected)


async def test_restarted_asterisk_is_found_again(asterisk: EdgeAsterisk, ami: Ami):
    asterisk.stop()
    await until(lambda: not ami.connected)
    assert ami.state.channels is None
    with pytest.raises(AmiError, match="not connected"):
        await ami.ping()
    await asterisk.up()

    async def answers() -> bool:
        try:
            return await ami.ping() < 1
        except AmiError:  # while it still loads its modules Asterisk may drop a session that it has let in
            return False

    await until(lambda: ami.connected and "spring" in ami.state.trunks)
    await until(answers)
    assert ami.state.sessions > 1
