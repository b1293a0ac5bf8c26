"""The ARI client against FakeAsterisk: what goes on the wire, what comes back, and how it fails."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from callrouter.asterisk.ari import AriClient
from callrouter.asterisk.ari_events import Channel
from callrouter.errors import AriError
from callrouter.testing.fake_asterisk import FakeAsterisk

PASSWORD = "s3cret-never-shown"

CALLS: dict[str, Callable[[AriClient], Awaitable[object]]] = {
    "channels": lambda c: c.channels(),
    "channel": lambda c: c.channel("call-1"),
    "answer": lambda c: c.answer("call-1"),
    "ring": lambda c: c.ring("call-1"),
    "play": lambda c: c.play("call-1", "pb-1", ["sound:/abs/a", "sound:/abs/b"], lang="en"),
    "stop_playback": lambda c: c.stop_playback("pb-1"),
    "delete_playback": lambda c: c.delete_playback("pb-1"),
    "record": lambda c: c.record("call-1", "rec-1", max_duration_seconds=60, max_silence_seconds=5, terminate_on="#"),
    "stop_recording": lambda c: c.stop_recording("rec-1"),
    "set_variables": lambda c: c.set_variables("call-1", {"CR_DEST": "PJSIP/100@spring", "CR_TIMEOUT": "20"}),
    "get_variable": lambda c: c.get_variable("call-1", "CR_DEST"),
    "get_variables": lambda c: c.get_variables("call-1", ["CR_DEST", "CR_TIMEOUT"]),
    "originate": lambda c: c.originate(
        "Local/100@x", channel_id="call-2", app="callrouter", app_args="a,b", context="c", extension="e", priority=1,
        caller_id="+15550100", timeout=20, variables={"A": "b"}, other_channel_id="call-3", originator="call-1",
        formats="ulaw",
    ),
    "bridges": lambda c: c.bridges(),
    "delete_bridge": lambda c: c.delete_bridge("bridge-1"),
    "application": lambda c: c.application("callrouter"),
    "subscribe": lambda c: c.subscribe("callrouter", "channel:call-1"),
    "unsubscribe": lambda c: c.unsubscribe("callrouter", "channel:call-1"),
    "set_event_filter": lambda c: c.set_event_filter("callrouter", ["StasisStart"]),
    "claim": lambda c: c.claim("call-1", "callrouter"),
    "ping": lambda c: c.ping(),
    "info": lambda c: c.info(),
    "continue_": lambda c: c.continue_("call-1", "cr-dial", "s", 1),
    "hangup": lambda c: c.hangup("call-1", 17),
}  # fmt: skip

NOT_OPERATIONS = {"start", "close", "request"}


@pytest.fixture
async def asterisk() -> AsyncIterator[FakeAsterisk]:
    async with FakeAsterisk(password=PASSWORD, finish_playbacks=False) as fake:
        yield fake


@pytest.fixture
async def ari(asterisk: FakeAsterisk) -> AsyncIterator[AriClient]:
    async with AriClient(asterisk.base_url, asterisk.user, PASSWORD, timeout=2.0) as client:
        yield client


def test_table_of_calls_names_every_operation():
    operations = {
        name for name, value in inspect.getmembers(AriClient, inspect.iscoroutinefunction) if not name.startswith("_")
    }
    assert operations - NOT_OPERATIONS == set(CALLS)


async def test_ids_are_percent_encoded_in_the_path(asterisk: FakeAsterisk, ari: AriClient):
    odd = "a/b c+d?e#ö%2F"
    asterisk.enter(odd)
    await ari.answer(odd)
    assert asterisk.requests[-1].segments == ("channels", odd, "answer")
    await ari.hangup(odd, 17)
    assert asterisk.requests[-1].args == {"reason_code": "17"}
    assert odd not in asterisk.channels


async def test_credentials_travel_in_the_header_only(asterisk: FakeAsterisk, ari: AriClient):
    await ari.ping()
    request = asterisk.requests[-1]
    assert request.headers["Authorization"].startswith("Basic ")
    assert PASSWORD not in json.dumps([request.path, request.args])
    assert PASSWORD not in repr(ari)
    with pytest.raises(ValueError, match="URL"):
        AriClient("http://user:pass@127.0.0.1:8088", "user", "pass")


async def test_wrong_password_is_an_ari_error_with_a_hint(asterisk: FakeAsterisk):
    async with AriClient(asterisk.base_url, asterisk.user, "other") as client:
        with pytest.raises(AriError) as caught:
            await client.ping()
    assert caught.value.status == 401
    assert caught.value.hint
    assert "other" not in str(caught.value)


async def test_refusal_carries_asterisks_message(ari: AriClient):
    with pytest.raises(AriError, match="Provided channel was not found") as caught:
        await ari.answer("gone")
    assert caught.value.status == 404
    assert caught.value.gone


async def test_nobody_listening_is_status_0(asterisk: FakeAsterisk, ari: AriClient):
    await asterisk.stop()
    with pytest.raises(AriError) as caught:
        await ari.ping()
    assert caught.value.status == 0
    assert caught.value.hint


async def test_no_answer_in_time_is_status_0():
    ended = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        ended.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with AriClient(f"http://127.0.0.1:{port}", "u", "p", timeout=0.1) as client:
        with pytest.raises(AriError, match=r"within 0\.1 s") as caught:
            await client.ping()
    assert caught.value.status == 0
    await ended.wait()
    server.close()
    await server.wait_closed()


async def test_answer_that_is_no_json_is_an_ari_error(asterisk: FakeAsterisk, ari: AriClient):
    asterisk.reply("GET", "^channels$", 200, {"not": "a list"})
    with pytest.raises(AriError, match="not understood"):
        await ari.channels()


async def test_client_that_is_not_started_says_so():
    with pytest.raises(AriError, match="not started"):
        await AriClient("http://127.0.0.1:1", "u", "p").ping()


async def test_variables_go_in_one_request(asterisk: FakeAsterisk, ari: AriClient):
    asterisk.enter("call-1")
    await ari.set_variables("call-1", {"A": "1", "B": 'zwölf, "q" \n', "N": "a\0b\ud800c"})
    assert [request.path for request in asterisk.requests] == ["channels/call-1/variables"]
    assert asterisk.channels["call-1"].variables == {"A": "1", "B": 'zwölf, "q" \n', "N": "ab?c"}
    assert await ari.get_variables("call-1", ["A", "MISSING"]) == {"A": "1"}
    await ari.set_variables("call-1", {})


async def test_older_asterisk_gets_variables_one_by_one_and_is_remembered(asterisk: FakeAsterisk, ari: AriClient):
    asterisk.bulk_variables = False
    asterisk.enter("call-1")
    await ari.set_variables("call-1", {"A": "1", "B": "2"})
    assert asterisk.channels["call-1"].variables == {"A": "1", "B": "2"}
    asterisk.requests.clear()
    await ari.set_variables("call-1", {"A": "3"})
    assert [request.path for request in asterisk.requests] == ["channels/call-1/variable"]
    assert await ari.get_variables("call-1", ["A", "B", "C"]) == {"A": "3", "B": "2"}


async def test_missing_channel_is_no_reason_to_fall_back(asterisk: FakeAsterisk, ari: AriClient):
    with pytest.raises(AriError, match="channel"):
        await ari.set_variables("gone", {"A": "1"})
    assert len(asterisk.requests) == 1
    with pytest.raises(AriError, match="channel"):
        await ari.get_variables("gone", ["A"])


async def test_claim_is_won_once(asterisk: FakeAsterisk, ari: AriClient):
    asterisk.broadcast("call-1", exten="15550100")
    assert await ari.claim("call-1", "callrouter") is True
    assert await ari.claim("call-1", "callrouter") is False
    assert await ari.claim("never", "callrouter") is False


async def test_long_playlist_is_played_whole_and_in_order(asterisk: FakeAsterisk, ari: AriClient):
    asterisk.enter("call-1")
    media = [f"sound:/a/very/long/directory/of/prompts, with comma/{number:04}" for number in range(200)]
    playback = await ari.play("call-1", "pb-1", media)
    assert playback.id == "pb-1"
    assert asterisk.requests[-1].args["media"] == media


async def test_channels_are_structs(asterisk: FakeAsterisk, ari: AriClient):
    asterisk.enter("call-1", number="+15550100", name="Zoë")
    (channel,) = await ari.channels()
    assert isinstance(channel, Channel)
    assert (channel.id, channel.caller.number, channel.caller.name, channel.in_stasis) == (
        "call-1", "+15550100", "Zoë", True,
    )  # fmt: skip
