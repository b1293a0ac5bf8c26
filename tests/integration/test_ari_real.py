"""The ARI client and stream against a real Asterisk."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import pytest
import pytest_asyncio

from callrouter.asterisk.ari import AriClient
from callrouter.asterisk.ari_events import (
    EVENT_FILTER,
    ApplicationReplaced,
    CallBroadcast,
    ChannelDestroyed,
    ChannelDtmfReceived,
    ChannelHangupRequest,
    Dial,
    PlaybackFinished,
    RecordingFinished,
    StasisEnd,
    StasisStart,
)
from callrouter.asterisk.ari_stream import AriStream, Connected, Disconnected, StreamItem
from callrouter.errors import AriError
from tests.integration.edge_asterisk import EdgeAsterisk, prompt, until

pytestmark = pytest.mark.asterisk
APP = "callrouter"
T = TypeVar("T")


class Listener:
    """A stream and everything it has delivered."""

    def __init__(self, asterisk: EdgeAsterisk, ari: AriClient, allowed: tuple[str, ...] = EVENT_FILTER) -> None:
        async def on_connect(first: bool) -> None:
            await ari.set_event_filter(APP, allowed)

        self.items: list[StreamItem] = []
        self.stream = AriStream(asterisk.base_url, asterisk.user, asterisk.password, APP, on_connect=on_connect)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Listener:
        async def listen() -> None:
            async for item in self.stream:
                self.items.append(item)

        self.stream.start()
        self._task = asyncio.create_task(listen())
        await self.first(Connected)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stream.close()
        assert self._task is not None
        await self._task
        assert self.stream.malformed == 0

    def of(self, kind: type[T], where: Callable[[T], bool] = lambda _: True) -> list[T]:
        return [item for item in self.items if isinstance(item, kind) and where(item)]

    async def first(self, kind: type[T], where: Callable[[T], bool] = lambda _: True) -> T:
        found: list[T] = await until(lambda: self.of(kind, where), what=f"a {kind.__name__} in {self.items}")
        return found[0]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def asterisk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EdgeAsterisk]:
    private = EdgeAsterisk(tmp_path_factory.mktemp("asterisk"), "127.31.7.1")
    try:
        await private.up()
        yield private
    finally:
        private.stop()


@pytest_asyncio.fixture
async def ari(asterisk: EdgeAsterisk) -> AsyncIterator[AriClient]:
    async with AriClient(asterisk.base_url, asterisk.user, asterisk.password) as client:
        yield client
        with contextlib.suppress(AriError):
            for channel in await client.channels():
                with contextlib.suppress(AriError):
                    await client.hangup(channel.id, 16)


async def enter(ari: AriClient, listener: Listener, channel: str, exten: str = "talk") -> str:
    """A channel that is in the application, its other half in the dialplan."""
    await ari.originate(f"Local/{exten}@callee/n", channel_id=channel, app=APP, app_args="one,two")
    await listener.first(StasisStart, lambda event: event.channel.id == channel)
    return channel


async def test_client_knows_its_asterisk(ari: AriClient):
    assert (await ari.ping()).ping == "pong"
    assert int((await ari.info()).version.split(".")[0]) >= 20
    assert await ari.channels() == []
    assert await ari.bridges() == []


async def test_wrong_password_is_401_for_client_and_stream(asterisk: EdgeAsterisk):
    async with AriClient(asterisk.base_url, asterisk.user, "wrong") as client:
        with pytest.raises(AriError) as caught:
            await client.ping()
        assert caught.value.status == 401
    async with AriStream(asterisk.base_url, asterisk.user, "wrong", APP) as stream:
        async with asyncio.timeout(5):
            item = await anext(stream)
        assert isinstance(item, Disconnected)
        assert item.status == 401
        assert stream.state == "refused"


async def test_local_channel_starts_with_its_arguments_and_ends_with_its_cause(asterisk: EdgeAsterisk, ari: AriClient):
    async with Listener(asterisk, ari) as listener:
        odd = "call/1 ä+b?c#d"
        await enter(ari, listener, odd)
        start = await listener.first(StasisStart)
        assert start.args == ["one", "two"]
        assert start.application == APP
        assert abs(start.timestamp - start.channel.creationtime) < 5
        assert (await ari.channel(odd)).in_stasis
        assert odd in (await ari.application(APP)).channel_ids
        await ari.hangup(odd, 17)
        await listener.first(StasisEnd, lambda event: event.channel.id == odd)
        end = await listener.first(ChannelDestroyed, lambda event: event.channel.id == odd)
        assert end.cause == 17
        with pytest.raises(AriError) as caught:
            await ari.answer(odd)
        assert caught.value.gone


async def test_filter_lets_only_our_events_through(asterisk: EdgeAsterisk, ari: AriClient):
    async with Listener(asterisk, ari) as listener:
        channel = await enter(ari, listener, "filtered")
        await ari.set_variables(channel, {"A": "1"})
        await ari.play(channel, "pb-filter", [f"sound:{prompt('hello-world')}"])
        await listener.first(PlaybackFinished)
        await ari.hangup(channel, 16)
        await listener.first(ChannelDestroyed, lambda event: event.channel.id == channel)
        kinds = {type(item).__name__ for item in listener.items} - {"Connected"}
        assert kinds <= set(EVENT_FILTER)


async def test_unfiltered_events_are_all_understood(asterisk: EdgeAsterisk, ari: AriClient):
    async with Listener(asterisk, ari, ()) as listener:
        channel = await enter(ari, listener, "unfiltered", "digit")
        await ari.set_variables(channel, {"A": "1"})
        await ari.play(channel, "pb-unfiltered", [f"sound:{prompt('hello-world')}"] * 2)
        await ari.record(channel, "unfiltered", max_duration_seconds=1, if_exists="overwrite")
        await listener.first(PlaybackFinished)
        await listener.first(RecordingFinished)
        await ari.hangup(channel, 16)
        await listener.first(ChannelDestroyed, lambda event: event.channel.id == channel)
        assert listener.of(ChannelHangupRequest)


async def test_application_taken_over_is_told_to_the_older_socket(asterisk: EdgeAsterisk, ari: AriClient):
    async with Listener(asterisk, ari) as older, Listener(asterisk, ari) as newer:
        await older.first(ApplicationReplaced)
        assert older.stream.state == "replaced"
        assert newer.stream.state == "connected"
        await enter(ari, newer, "taken-over")
        assert older.of(StasisStart) == []


async def test_what_the_filter_does_not_name_is_kept_back_even_replaced_and_broadcast(
    asterisk: EdgeAsterisk, ari: AriClient
):
    async with Listener(asterisk, ari, ("StasisStart",)) as older, Listener(asterisk, ari, ("StasisStart",)) as newer:
        await ari.originate("Local/broadcast@callee/n", channel_id="silent", context="callee", extension="talk")
        await enter(ari, newer, "marker")
        assert newer.of(CallBroadcast) == []
        assert older.of(ApplicationReplaced) == []


async def test_answer_play_digit_and_record(asterisk: EdgeAsterisk, ari: AriClient):
    async with Listener(asterisk, ari) as listener:
        channel = await enter(ari, listener, "media", "digit")
        await ari.ring(channel)
        await ari.answer(channel)
        playback = await ari.play(
            channel, "pb-1", [f"sound:{prompt('demo-congrats')}", f"sound:{prompt('hello-world')}"]
        )
        assert playback.id == "pb-1"
        digit = await listener.first(ChannelDtmfReceived)
        assert digit.digit == "5"
        await ari.stop_playback("pb-1")
        assert (await listener.first(PlaybackFinished)).playback.id == "pb-1"
        await ari.record(channel, "voicemail-1", max_duration_seconds=1, terminate_on="#")
        recorded = await listener.first(RecordingFinished)
        assert (recorded.recording.name, recorded.recording.duration) == ("voicemail-1", 1)
        await ari.record(channel, "voicemail-2")
        await ari.stop_recording("voicemail-2")
        await listener.first(RecordingFinished, lambda event: event.recording.name == "voicemail-2")
        assert (asterisk.home / "spool/recording/voicemail-1.wav").stat().st_size > 8000


async def test_long_playlist_is_taken_whole(asterisk: EdgeAsterisk, ari: AriClient):
    async with Listener(asterisk, ari) as listener:
        channel = await enter(ari, listener, "long")
        media = ["sound:/no/such/directory/with/a/long/name/in/it, and/a/comma"] * 100 + [
            f"sound:{prompt('hello-world')}"
        ]
        await ari.play(channel, "pb-long", media)
        end = await listener.first(PlaybackFinished, lambda event: event.playback.id == "pb-long")
        assert end.playback.state == "done"


async def test_bulk_variables_in_one_request(asterisk: EdgeAsterisk, ari: AriClient):
    async with Listener(asterisk, ari) as listener:
        channel = await enter(ari, listener, "variables")
        values = {"CR_DEST": "PJSIP/1@a&PJSIP/2@b", "CR_NAME": 'Zoë, "q" =; ${X}', "TIMEOUT(absolute)": "60"}
        await ari.set_variables(channel, values)
        assert ari._bulk_variables
        assert await ari.get_variable(channel, "CR_NAME") == values["CR_NAME"]
        found = await ari.get_variables(channel, ["CR_DEST", "CR_NAME", "NO_SUCH"])
        assert found == {"CR_DEST": values["CR_DEST"], "CR_NAME": values["CR_NAME"]}
        assert await ari.get_variables(channel, ["CR_DEST"]) == {"CR_DEST": values["CR_DEST"]}
        # The older operation, as an Asterisk without the newer one gets it.
        ari._bulk_variables = False
        await ari.set_variables(channel, {"OLD": 'a, "ä"'})
        assert await ari.get_variables(channel, ["OLD", "NO_SUCH"]) == {"OLD": 'a, "ä"'}
        with pytest.raises(AriError, match="channel was not found"):
            await ari.get_variables("nobody", ["OLD"])


async def test_resource_that_asterisk_does_not_have_is_told_from_a_channel_that_is_gone(ari: AriClient):
    with pytest.raises(AriError, match="Resource not found"):
        await ari.request("POST", "channels/nobody/no-such-operation")
    with pytest.raises(AriError, match="channel was not found"):
        await ari.set_variables("nobody", {"A": "1"})
    assert ari._bulk_variables


async def test_call_that_waits_is_claimed_once(asterisk: EdgeAsterisk, ari: AriClient):
    async with Listener(asterisk, ari) as listener:
        await ari.originate("Local/broadcast@callee/n", channel_id="phone", context="callee", extension="talk")
        waiting = await listener.first(CallBroadcast)
        channel = waiting.channel.id
        assert await ari.claim(channel, APP) is True
        await listener.first(StasisStart, lambda event: event.channel.id == channel)
        assert await ari.claim(channel, APP) is False
        assert await ari.claim("nobody", APP) is False


async def test_channel_that_continues_is_still_followed(asterisk: EdgeAsterisk, ari: AriClient):
    async with Listener(asterisk, ari) as listener:
        channel = await enter(ari, listener, "follow")
        await ari.subscribe(APP, f"channel:{channel}")
        await ari.continue_(channel, "back", "s", 1)
        await listener.first(StasisEnd, lambda event: event.channel.id == channel)
        await listener.first(
            Dial, lambda e: e.dialstatus == "ANSWER" and e.caller is not None and e.caller.id == channel
        )
        assert not (await ari.channel(channel)).in_stasis
        await ari.hangup(channel, 16)
        await listener.first(ChannelDestroyed, lambda event: event.channel.id == channel)


async def test_frozen_asterisk_is_noticed_within_3_seconds(asterisk: EdgeAsterisk, ari: AriClient):
    async with Listener(asterisk, ari) as listener:
        asterisk.freeze()
        loop = asyncio.get_running_loop()
        start = loop.time()
        try:
            lost = await listener.first(Disconnected)
            assert loop.time() - start < 3.2
            assert "pong" in lost.reason
        finally:
            asterisk.thaw()
        await listener.first(Connected, lambda item: not item.first)


async def test_restarted_asterisk_is_found_again(asterisk: EdgeAsterisk, ari: AriClient):
    async with Listener(asterisk, ari) as listener:
        asterisk.stop()
        await listener.first(Disconnected)
        with pytest.raises(AriError) as caught:
            await ari.ping()
        assert caught.value.status == 0
        await asterisk.up()
        await listener.first(Connected, lambda item: not item.first)
        await enter(ari, listener, "after-restart")
        events = (await ari.application(APP)).events_allowed
        assert {entry["type"] for entry in events} == set(EVENT_FILTER)
