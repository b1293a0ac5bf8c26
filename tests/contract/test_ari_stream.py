"""The event socket: order, reconnecting, refusals, half-open peers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import structlog

from callrouter.asterisk import ari_stream
from callrouter.asterisk.ari_events import ApplicationReplaced, ChannelDtmfReceived, StasisStart, UnknownEvent
from callrouter.asterisk.ari_stream import AriStream, Connected, Disconnected, StreamItem
from callrouter.errors import AriError
from callrouter.testing.fake_asterisk import FakeAsterisk
from tests.integration.edge_asterisk import until


@pytest.fixture
async def asterisk() -> AsyncIterator[FakeAsterisk]:
    async with FakeAsterisk(password="s3cret-never-shown") as fake:
        yield fake


def stream_of(
    fake: FakeAsterisk,
    *,
    password: str | None = None,
    on_connect: Callable[[bool], Awaitable[None]] | None = None,
    heartbeat: float = 1.8,
    max_retry: float = 0.2,
    connect_timeout: float = 1.0,
) -> AriStream:
    return AriStream(
        fake.base_url, fake.user, password or fake.password, fake.app,
        on_connect=on_connect, heartbeat=heartbeat, max_retry=max_retry, connect_timeout=connect_timeout,
    )  # fmt: skip


async def take(stream: AriStream, number: int) -> list[StreamItem]:
    items: list[StreamItem] = []
    async with asyncio.timeout(5):
        while len(items) < number:
            items.append(await anext(stream))
    return items


async def test_events_come_in_order_after_connected(asterisk: FakeAsterisk):
    async with stream_of(asterisk) as stream:
        assert await take(stream, 1) == [Connected(first=True)]
        assert stream.connected
        assert stream.error is None
        asterisk.enter("call-1", "new", number="+15550100")
        for digit in "0123456789":
            asterisk.digit("call-1", digit)
        items = await take(stream, 11)
    assert isinstance(items[0], StasisStart)
    assert [item.digit for item in items[1:] if isinstance(item, ChannelDtmfReceived)] == list("0123456789")
    assert stream.state == "closed"


async def test_iteration_ends_when_closed_and_read_out(asterisk: FakeAsterisk):
    stream = stream_of(asterisk)
    async with stream:
        await take(stream, 1)
        asterisk.enter("call-1")
        await until(lambda: stream.depth >= 1)
    assert [type(item) async for item in stream] == [StasisStart]


async def test_events_during_on_connect_are_kept_in_order(asterisk: FakeAsterisk):
    gate = asyncio.Event()
    connections: list[bool] = []

    async def on_connect(first: bool) -> None:
        connections.append(first)
        asterisk.enter("call-1")
        asterisk.digit("call-1", "1")
        await gate.wait()

    async with stream_of(asterisk, on_connect=on_connect) as stream:
        await until(lambda: stream.depth >= 2)
        assert not stream.connected
        gate.set()
        items = await take(stream, 3)
    assert [type(item) for item in items] == [Connected, StasisStart, ChannelDtmfReceived]
    assert connections == [True]


async def test_events_survive_a_socket_lost_during_on_connect(asterisk: FakeAsterisk):
    connections: list[bool] = []

    async def on_connect(first: bool) -> None:
        connections.append(first)
        if len(connections) == 1:
            asterisk.enter("call-1")
            await until(lambda: stream.depth >= 1)
            await asterisk.drop_sockets()
            await asyncio.Event().wait()

    stream = stream_of(asterisk, on_connect=on_connect)
    async with stream:
        items = await take(stream, 3)
    assert [type(item) for item in items] == [Disconnected, Connected, StasisStart]
    assert connections == [True, True]


async def test_on_connect_that_fails_is_tried_again(asterisk: FakeAsterisk):
    attempts = 0

    async def on_connect(first: bool) -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise AriError("no filter today", status=500)

    async with stream_of(asterisk, on_connect=on_connect) as stream:
        items = await take(stream, 2)
    assert isinstance(items[0], Disconnected)
    assert "no filter today" in items[0].reason
    assert items[1] == Connected(first=True)
    assert attempts == 3


async def test_lost_socket_is_reported_and_reconnected(asterisk: FakeAsterisk):
    async with stream_of(asterisk) as stream:
        await take(stream, 1)
        await asterisk.drop_sockets()
        lost, again = await take(stream, 2)
        assert isinstance(lost, Disconnected)
        assert again == Connected(first=False)
        assert stream.connections == 2


async def test_asterisk_that_comes_later_is_found(asterisk: FakeAsterisk):
    await asterisk.stop()
    async with stream_of(asterisk) as stream:
        (absent,) = await take(stream, 1)
        assert isinstance(absent, Disconnected)
        assert stream.error is not None
        assert stream.error.hint
        await asterisk.start()
        # The same reason is not reported over and over.
        assert await take(stream, 1) == [Connected(first=True)]


async def test_wrong_password_is_reported_once_and_retried_slowly(asterisk: FakeAsterisk):
    with structlog.testing.capture_logs() as logs:
        async with stream_of(asterisk, password="wr0ng-never-shown", max_retry=0.1) as stream:
            (refused,) = await take(stream, 1)
            await until(lambda: asterisk.refused >= 3)
            assert stream.state == "refused"
            assert stream.error is not None
            assert stream.error.status == 401
            assert stream.depth == 0
    assert isinstance(refused, Disconnected)
    assert refused.status == 401
    assert "password" in refused.reason
    assert [entry["event"] for entry in logs] == ["ari_disconnected"]
    assert "never-shown" not in repr(logs)


def test_pauses_grow_to_the_limit_and_a_refusal_takes_the_longest(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    stream = AriStream("http://127.0.0.1:1", "u", "p", "callrouter")
    assert [round(stream._next_pause(), 1) for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    stream._state = "refused"
    assert stream._next_pause() == 5.0


async def test_half_open_socket_is_noticed(asterisk: FakeAsterisk):
    asterisk.frozen = True
    async with stream_of(asterisk, heartbeat=0.2) as stream:
        await take(stream, 1)
        loop = asyncio.get_running_loop()
        start = loop.time()
        (lost,) = await take(stream, 1)
        assert isinstance(lost, Disconnected)
        assert "pong" in lost.reason
        assert loop.time() - start < 1.0
    assert ari_stream.HEARTBEAT_SECONDS * 1.5 <= 3.0


async def test_replaced_application_is_an_event_and_not_fought_over(asterisk: FakeAsterisk):
    async with stream_of(asterisk) as old:
        await take(old, 1)
        new = stream_of(asterisk)
        new.start()
        await take(new, 1)
        assert isinstance((await take(old, 1))[0], ApplicationReplaced)
        assert old.state == "replaced"
        asterisk.enter("call-1")
        assert isinstance((await take(new, 1))[0], StasisStart)
        assert asterisk.connections == 2
        await new.close()


async def test_bad_frames_cost_neither_the_connection_nor_an_event(asterisk: FakeAsterisk):
    async with stream_of(asterisk) as stream:
        await take(stream, 1)
        asterisk.send(b"\xff\xfe")
        asterisk.send("no json")
        asterisk.send(b'{"type":"Zo\xeb"}')
        asterisk.send({"type": "TomorrowsEvent"})
        asterisk.enter("call-1")
        items = await take(stream, 3)
    assert [type(item) for item in items] == [UnknownEvent, UnknownEvent, StasisStart]
    assert stream.malformed == 2
    assert stream.connections == 1


async def test_slow_consumer_does_not_slow_the_reader(asterisk: FakeAsterisk):
    async with stream_of(asterisk) as stream:
        await take(stream, 1)
        asterisk.enter("call-1")
        for _ in range(2000):
            asterisk.digit("call-1", "5")
        await until(lambda: stream.depth >= 2001)
    assert len([item async for item in stream]) == 2001
