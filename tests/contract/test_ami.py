"""The AMI adapter against a small AMI server: the traps, each of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
import structlog

from callrouter.asterisk import ami as ami_module
from callrouter.asterisk.ami import Ami
from callrouter.asterisk.ami_events import (
    MAX_SECURITY_COUNTERS,
    OTHERS,
    AmiEvent,
    AmiState,
    Headers,
    StateFold,
    TrunkState,
    remote_host,
)
from callrouter.errors import AmiError
from callrouter.testing.fake_ami import FakeAmi
from tests.integration.edge_asterisk import until

SECRET = "s3cret-never-shown"


@pytest.fixture
async def server() -> AsyncIterator[FakeAmi]:
    async with FakeAmi(secret=SECRET) as fake:
        yield fake


def ami_of(server: FakeAmi, password: str = SECRET, *, ping: float = 5.0, action_timeout: float = 2.0) -> Ami:
    return Ami(
        "127.0.0.1", server.port, server.user, password,
        action_timeout=action_timeout, ping_interval=ping, ping_timeout=ping, max_retry=0.2,
    )  # fmt: skip


@pytest.fixture
async def ami(server: FakeAmi) -> AsyncIterator[Ami]:
    async with ami_of(server) as adapter:
        yield adapter


def names(server: FakeAmi) -> list[str]:
    return [action["Action"] for action in server.actions]


async def test_login_needs_no_password_on_the_wire(server: FakeAmi, ami: Ami):
    assert ami.state.connected
    assert ami.state.authenticated
    assert ami.state.error is None
    assert await ami.ping() < 2
    assert names(server)[:2] == ["Challenge", "Login"]
    assert SECRET not in repr(server.actions)
    assert SECRET not in repr(ami)


async def test_wrong_password_is_a_clear_error_from_start(server: FakeAmi):
    adapter = ami_of(server, "wr0ng")
    with pytest.raises(AmiError, match="wrong AMI user or password") as caught:
        await adapter.start()
    assert caught.value.hint
    assert "wr0ng" not in str(caught.value)
    assert not adapter.connected


async def test_nobody_listening_is_a_clear_error_from_start(server: FakeAmi):
    await server.stop()
    with pytest.raises(AmiError, match=f"127.0.0.1:{server.port}") as caught:
        await ami_of(server).start()
    assert caught.value.hint


async def test_asterisk_that_comes_later_is_found(server: FakeAmi):
    await server.stop()
    adapter = ami_of(server)
    await adapter.start(required=False)
    with pytest.raises(AmiError, match="not connected"):
        await adapter.ping()
    await until(lambda: adapter.state.error)
    await server.start()
    await until(lambda: adapter.connected)
    assert adapter.state.sessions == 1
    await adapter.stop()
    assert not adapter.connected
    assert not adapter.state.connected
    assert adapter.state.error == "stopped"


@pytest.mark.parametrize("value", ["PJSIP/a\r\nAction: Originate", "a\nb", "a\rb", "a\0b"])
async def test_line_break_in_a_value_is_refused(server: FakeAmi, ami: Ami, value: str):
    before = len(server.actions)
    with pytest.raises(AmiError, match="line break"):
        await ami.hangup(value, 16)
    with pytest.raises(AmiError, match="line break"):
        await ami.action("Setvar", Variable=["good", value])
    await ami.ping()
    assert [name for name in names(server)[before:] if name in ("Hangup", "Setvar", "Originate")] == []


async def test_line_break_in_a_header_name_is_refused(ami: Ami):
    with pytest.raises(AmiError, match="line break"):
        await ami.action("Setvar", timeout=None, **{"A\r\nAction": "x"})
    with pytest.raises(AmiError, match="refused"):
        await ami.action("Setvar", timeout=None, **{"A: b": "x"})


async def test_characters_split_across_reads_are_whole(ami: Ami):
    events: list[AmiEvent] = []
    ami.on_event("Newchannel", events.append)
    data = "Event: Newchannel\r\nCallerIDName: Zoë 😀 Müller\r\nChannel: PJSIP/a\r\n\r\n".encode()
    assert ami._connection is not None
    for byte in data:
        ami._connection.protocol.data_received(bytes([byte]))
    assert events[0].fields["CallerIDName"] == "Zoë 😀 Müller"


async def test_bytes_that_are_no_utf8_are_replaced(server: FakeAmi, ami: Ami):
    events: list[AmiEvent] = []
    ami.on_event("Newchannel", events.append)
    server.send_raw(
        b"Event: Newchannel\r\nCallerIDName: Zo\xeb\r\n\r\nnonsense\r\n\r\n\r\n\r\nEvent: Newchannel\r\nX: \r\n\r\n"
    )
    await until(lambda: len(events) == 2)
    assert events[0].fields["calleridname"] == "Zo\ufffd"
    assert events[1].fields["X"] == ""
    with pytest.raises(KeyError):
        events[1].fields["Channel"]


async def test_list_is_joined_to_its_response(server: FakeAmi, ami: Ami):
    server.reply(
        "CoreShowChannels",
        "Response: Success\nEventList: start\nMessage: Channels will follow",
        "Event: CoreShowChannel\nChannel: PJSIP/a\nUniqueid: call-1",
        "Event: CoreShowChannel\nChannel: PJSIP/b\nUniqueid: call-2",
        "Event: CoreShowChannelsComplete\nEventList: Complete\nListItems: 2",
    )
    assert [channel["Uniqueid"] for channel in await ami.channels()] == ["call-1", "call-2"]


async def test_command_gives_its_lines(server: FakeAmi, ami: Ami):
    server.reply("Command", "Response: Success\nMessage: Command output follows\nOutput: one\nOutput: two: three")
    assert await ami.command("core show uptime") == ["one", "two: three"]
    server.reply("Command", "Response: Success\nMessage: Command output follows\nOutput: one")
    assert await ami.command("x") == ["one"]
    server.reply("Command", "Response: Error\nMessage: Command output follows\nOutput: No such command 'x'")
    with pytest.raises(AmiError, match="No such command"):
        await ami.command("x")


async def test_hangup_of_a_channel_that_is_gone_is_false(server: FakeAmi, ami: Ami):
    server.reply("Hangup", "Response: Error\nMessage: No such channel")
    assert await ami.hangup("PJSIP/gone", 16) is False
    server.reply("Hangup", "Response: Success\nMessage: Channel Hungup")
    assert await ami.hangup("PJSIP/a", 17) is True
    server.reply("Hangup", "Response: Error\nMessage: Permission denied")
    with pytest.raises(AmiError, match="Permission denied"):
        await ami.hangup("PJSIP/a", 17)


async def test_originate_without_async_does_not_break_the_connection(server: FakeAmi, ami: Ami):
    server.reply("Originate", "Response: Success\nMessage: Originate successfully queued")
    assert (await ami.action("Originate", Channel="Local/a@b", Application="Wait", Data="1")).ok
    await ami.ping()
    assert server.logins == 1


async def test_action_that_is_not_answered_times_out_and_its_late_rest_is_no_event(server: FakeAmi, ami: Ami):
    seen: list[str] = []
    ami.on_event("*", lambda event: seen.append(event.name))
    server.reply("Slow")
    with pytest.raises(AmiError, match=r"Slow: no answer from Asterisk within 0\.05 s"):
        await ami.action("Slow", timeout=0.05)
    (action_id,) = (action["ActionID"] for action in server.actions if action["Action"] == "Slow")
    server.send_event("SlowEntry", ActionID=action_id)
    server.send_event("Marker")
    await until(lambda: "Marker" in seen)
    assert "SlowEntry" not in seen


async def test_unanswered_action_fails_and_is_never_sent_again(server: FakeAmi, ami: Ami):
    server.reply("Originate")
    waiting = asyncio.create_task(ami.action("Originate", Channel="Local/a@b"))
    await until(lambda: "Originate" in names(server))
    await server.drop()
    with pytest.raises(AmiError, match="connection was lost"):
        await waiting
    await until(lambda: ami.state.sessions == 2)
    await ami.ping()
    assert names(server).count("Originate") == 1


async def test_frozen_asterisk_is_noticed_by_ping(server: FakeAmi):
    states: list[AmiState] = []
    async with ami_of(server, ping=0.1) as adapter:
        adapter.on_state(states.append)
        server.frozen = True
        await until(lambda: not adapter.connected, 2)
        assert "does not answer" in (adapter.state.error or "")
        assert adapter.state.channels is None
        server.frozen = False
        await server.drop()
        await until(lambda: adapter.connected)
    assert [state.connected for state in states][:1] == [False]
    assert states[-1].connected
    assert ami_module.PING_SECONDS + ami_module.PONG_SECONDS <= 4.0


async def test_a_function_that_fails_costs_neither_the_connection_nor_the_others(server: FakeAmi, ami: Ami):
    seen: list[str] = []

    def broken(event: AmiEvent) -> None:
        raise RuntimeError(event.name)

    async def broken_later(event: AmiEvent) -> None:
        raise RuntimeError(event.name)

    async def good(event: AmiEvent) -> None:
        seen.append(event.fields["Channel"])

    end = ami.on_event("Hold", broken)
    ami.on_event("Hold", broken_later)
    ami.on_event("Hold", good)
    with structlog.testing.capture_logs() as logs:
        server.send_event("Hold", Channel="PJSIP/a")
        await until(lambda: seen)
        await until(lambda: len(logs) == 2)
        end()
        server.send_event("Hold", Channel="PJSIP/b")
        await until(lambda: len(seen) == 2)
    assert seen == ["PJSIP/a", "PJSIP/b"]
    assert server.logins == 1
    assert {entry["event"] for entry in logs} == {"ami_event_function_failed"}


async def test_neither_secret_nor_numbers_are_logged_whatever_fails(server: FakeAmi, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as logs:
        adapter = ami_of(server)
        await adapter.start()
        connection = adapter._connection
        assert connection is not None

        def refuse(data: bytes) -> None:
            raise OSError("cannot write")

        server.send_event("Newchannel", CallerIDNum="+15550100999")
        connection.protocol.transport.write, write = refuse, connection.protocol.transport.write  # a write failure
        with pytest.raises((AmiError, OSError)):
            await adapter.action("Setvar", Value="+15550100999", Secret=SECRET)
        connection.protocol.transport.write = write
        server.reply("Setvar")
        waiting = asyncio.create_task(adapter.action("Setvar", Value="+15550100999", Secret=SECRET))
        await until(lambda: "Setvar" in names(server))
        await server.drop()
        await asyncio.gather(waiting, return_exceptions=True)
        await until(lambda: adapter.state.sessions == 2)
        await adapter.stop()
    text = repr(logs) + caplog.text
    assert SECRET not in text
    assert "+15550100999" not in text
    assert not [record for record in caplog.records if record.name.startswith("panoramisk")]
    assert "ami_disconnected" in text


async def test_trunks_are_asked_for_and_followed_by_events(server: FakeAmi):
    server.reply(
        "PJSIPShowRegistrationsOutbound",
        "Response: Success\nEventList: start\nMessage: Following are Events",
        "Event: OutboundRegistrationDetail\nObjectName: spring\nStatus: Unregistered\nNextReg: 12\n"
        "ClientUri: sip:u@example.net\nServerUri: sip:example.net",
        "Event: OutboundRegistrationDetailComplete\nEventList: Complete",
    )
    server.reply(
        "PJSIPShowEndpoints",
        "Response: Success\nEventList: start",
        "Event: EndpointList\nObjectName: spring",
        "Event: EndpointListComplete\nEventList: Complete",
    )
    server.reply(
        "PJSIPShowEndpoint",
        "Response: Success\nEventList: start",
        "Event: EndpointDetail\nObjectName: spring",
        "Event: ContactStatusDetail\nEndpointName: spring\nURI: sip:192.0.2.1\nStatus: Unreachable\nRoundtripUsec: N/A",
        "Event: EndpointDetailComplete\nEventList: Complete",
    )
    server.reply("CoreStatus", "Response: Success\nCoreCurrentCalls: 3")
    async with ami_of(server) as ami:
        await until(lambda: ami.state.trunks.get("spring") == TrunkState("spring", "Unregistered", "Unreachable", None))
        assert ami.state.channels == 3
        server.send_event("Registry", Username="sip:u@example.net", Domain="sip:example.net", Status="Registered")
        server.send_event(
            "ContactStatus", URI="sip:192.0.2.1", EndpointName="spring", ContactStatus="Reachable", RoundtripUsec="1500"
        )
        server.send_event("Newchannel", Channel="PJSIP/a")
        server.send_event("Newchannel", Channel="PJSIP/b")
        server.send_event("Hangup", Channel="PJSIP/a")
        await until(lambda: ami.state.channels == 4)
        assert ami.state.trunks["spring"] == TrunkState("spring", "Registered", "Reachable", 0.0015)


async def test_unknown_registration_makes_the_lists_be_asked_for_again(server: FakeAmi, ami: Ami):
    await until(lambda: names(server).count("PJSIPShowRegistrationsOutbound") >= 1)
    before = names(server).count("PJSIPShowRegistrationsOutbound")
    server.send_event("Registry", Username="sip:new@example.net", Domain="sip:example.net", Status="Registered")
    await until(lambda: names(server).count("PJSIPShowRegistrationsOutbound") > before)


def test_security_events_are_counted_and_bounded():
    fold = StateFold()
    for number in range(MAX_SECURITY_COUNTERS + 50):
        address = f"IPV4/UDP/10.0.{number // 256}.{number % 256}/5060"
        fold.event(AmiEvent("InvalidAccountID", Headers({"RemoteAddress": address})))
    fold.event(AmiEvent("SuccessfulAuth", Headers({"RemoteAddress": "IPV4/TCP/127.0.0.1/1"})))
    counters = fold.snapshot().security
    assert counters["InvalidAccountID", "10.0.0.7"] == 1
    assert counters["InvalidAccountID", OTHERS] == 50
    assert len(counters) == MAX_SECURITY_COUNTERS + 1
    fold.forget()
    assert fold.snapshot().security == counters


def test_remote_host_is_cut_out():
    assert remote_host("IPV4/UDP/192.0.2.1/5060") == "192.0.2.1"
    assert remote_host("IPV6/TLS/2001:db8::1/5061") == "2001:db8::1"
    assert remote_host("") == ""
