"""FakeAsterisk: an ARI server in the test's own event loop, for tests without Asterisk.

It answers the REST operations of :class:`callrouter.asterisk.ari.AriClient` as Asterisk 22 does, statuses and messages
included, keeps channels, playbacks and recordings, and sends events over the event socket::

    async with FakeAsterisk() as asterisk:
        async with AriStream(asterisk.base_url, asterisk.user, asterisk.password, "callrouter") as stream:
            ...
            channel = asterisk.enter("call-1", number="+15550100")   # StasisStart
            asterisk.digit("call-1", "1")                            # ChannelDtmfReceived
            asterisk.hangup("call-1", 16)                            # StasisEnd, ChannelDestroyed

Every request is kept in ``requests``. It does not run a dialplan and carries no audio.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

from aiohttp import WSMsgType, web

from callrouter.asterisk.ari import authorization
from callrouter.asterisk.ari_events import iso

Answer = tuple[int, Any]


@dataclass(frozen=True, slots=True)
class FakeRequest:
    """One REST request: the path below /ari, decoded by segment; ``args`` is query and body together."""

    method: str
    segments: tuple[str, ...]
    args: dict[str, Any]
    headers: dict[str, str]

    @property
    def path(self) -> str:
        return "/".join(self.segments)


@dataclass(slots=True)
class _Socket:
    app: str
    response: web.WebSocketResponse
    transport: asyncio.Transport | None
    outbox: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def write(self) -> None:
        while True:
            # Bytes that are no UTF-8 still go out as a text frame, as a C program sends them.
            await self.response.send_frame(await self.outbox.get(), WSMsgType.TEXT)


@dataclass(slots=True)
class FakeChannel:
    id: str
    number: str = ""
    name: str = ""
    state: str = "Ring"
    in_stasis: bool = False
    variables: dict[str, str] = field(default_factory=dict)
    exten: str = "s"
    context: str = "from-trunk"
    priority: int = 1

    def to_json(self) -> dict[str, Any]:
        """The channel as Asterisk describes it."""
        return {
            "id": self.id,
            "name": f"PJSIP/fake-{self.id}",
            "state": self.state,
            "protocol_id": f"{self.id}@fake",
            "caller": {"name": self.name, "number": self.number},
            "connected": {"name": "", "number": ""},
            "accountcode": "",
            "dialplan": {
                "context": self.context,
                "exten": self.exten,
                "priority": self.priority,
                "app_name": "Stasis" if self.in_stasis else "",
                "app_data": "",
            },
            "creationtime": iso(time.time()),
            "language": "en",
        }


class FakeAsterisk:
    """An ARI server on a free loopback port.

    :param finish_playbacks: playbacks end at once; False: :meth:`finish_playback` ends them
    :param bulk_variables: False behaves as an Asterisk without ``/channels/{id}/variables``
    """

    def __init__(
        self,
        user: str = "callrouter",
        password: str = "secret",  # noqa: S107 - a fake's
        app: str = "callrouter",
        *,
        finish_playbacks: bool = True,
        bulk_variables: bool = True,
        version: str = "22.10.1",
    ) -> None:
        self.user = user
        self.password = password
        self.app = app
        self.version = version
        self.finish_playbacks = finish_playbacks
        self.bulk_variables = bulk_variables
        self.requests: list[FakeRequest] = []
        self.channels: dict[str, FakeChannel] = {}
        self.playbacks: dict[str, dict[str, Any]] = {}
        self.recordings: dict[str, dict[str, Any]] = {}
        self.bridges: dict[str, list[str]] = {}
        self.subscriptions: set[str] = set()
        self.waiting: set[str] = set()
        """Channels in StasisBroadcast that nobody has claimed."""
        self.allowed: set[str] = set()
        self.connections = 0
        self.refused = 0
        self.port = 0
        self.frozen = False
        """New sockets get no answer to their pings: a peer that is there but hangs."""
        self._overrides: list[tuple[str, re.Pattern[str], Answer]] = []
        self._sockets: list[_Socket] = []
        self._runner: web.AppRunner | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; a stopped one listens on the port it had."""
        application = web.Application()
        application.router.add_get("/ari/events", self._events)
        application.router.add_route("*", "/ari/{path:.*}", self._rest)
        self._runner = web.AppRunner(application, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Close every socket and stop listening; channels stay as they were."""
        await self.drop_sockets()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    # -- what a test says ----------------------------------------------------------------------------------------------

    def reply(self, method: str, path: str, status: int, body: Any = None) -> None:
        """Answer requests whose path matches the regular expression so, from now on; the last such rule wins."""
        self._overrides.insert(0, (method, re.compile(path), (status, body)))

    def send(self, event: dict[str, Any] | bytes | str, *, app: str | None = None) -> None:
        """Send an event, subject to the event filter, to the newest socket of the application.

        Bytes and text are sent as they are: a frame that is no event is Asterisk's right too.
        """
        app = app or self.app
        if isinstance(event, dict):
            event = {"application": app, "timestamp": iso(time.time()), "asterisk_id": "fake", **event}
            if self.allowed and event["type"] not in self.allowed:
                return
            data = json.dumps(event).encode()
        else:
            data = event.encode() if isinstance(event, str) else event
        for socket in reversed(self._sockets):
            if socket.app == app:
                socket.outbox.put_nowait(data)
                return

    def enter(self, channel: str, *args: str, number: str = "", name: str = "", exten: str = "s") -> FakeChannel:
        """A channel enters the application: StasisStart."""
        entry = self.channels.setdefault(channel, FakeChannel(channel, number=number, name=name, exten=exten))
        entry.in_stasis = True
        self._about(entry, "StasisStart", args=list(args))
        return entry

    def broadcast(self, channel: str, *, number: str = "", exten: str = "s") -> FakeChannel:
        """A channel waits in StasisBroadcast: CallBroadcast; a claim makes it enter with its extension as argument."""
        entry = self.channels.setdefault(channel, FakeChannel(channel, number=number, exten=exten))
        self.waiting.add(channel)
        self._about(entry, "CallBroadcast", caller=number, called=exten)
        return entry

    def digit(self, channel: str, digit: str) -> None:
        self._about(self.channels[channel], "ChannelDtmfReceived", digit=digit, duration_ms=100)

    def dial(self, channel: str, peer: str, status: str) -> None:
        """A Dial() of the channel moves on: ``status`` is "", RINGING, ANSWER, BUSY …"""
        peer_json = self.channels.setdefault(peer, FakeChannel(peer)).to_json()
        self.send({"type": "Dial", "caller": self.channels[channel].to_json(), "peer": peer_json, "dialstatus": status})

    def hangup(self, channel: str, cause: int = 16) -> None:
        """The channel ends, its playbacks and recordings first: StasisEnd if it was inside, ChannelDestroyed."""
        entry = self.channels.pop(channel)
        self.waiting.discard(channel)
        target = f"channel:{channel}"
        for playback in [key for key, value in self.playbacks.items() if value["target_uri"] == target]:
            self.finish_playback(playback)
        for recording in [key for key, value in self.recordings.items() if value["target_uri"] == target]:
            self.finish_recording(recording)
        if entry.in_stasis:
            entry.in_stasis = False
            self._about(entry, "StasisEnd")
        self._about(entry, "ChannelDestroyed", cause=cause, cause_txt="")

    def finish_playback(self, playback: str, state: str = "done") -> None:
        value = self.playbacks.pop(playback)
        self.send({"type": "PlaybackFinished", "playback": {**value, "state": state}})

    def finish_recording(self, name: str, *, duration: int = 1) -> None:
        value = self.recordings.pop(name)
        self.send({"type": "RecordingFinished", "recording": {**value, "state": "done", "duration": duration}})

    async def drop_sockets(self) -> None:
        """Cut every event socket without a closing handshake, as a crash does."""
        sockets = list(self._sockets)
        for socket in sockets:
            if socket.transport is not None:
                socket.transport.abort()
        for socket in sockets:
            await socket.gone.wait()

    @property
    def sockets(self) -> int:
        """Open event sockets."""
        return len(self._sockets)

    # -- sockets -------------------------------------------------------------------------------------------------------

    def _about(self, channel: FakeChannel, kind: str, **fields: Any) -> None:
        self.send({"type": kind, "channel": channel.to_json(), **fields})

    def _allowed_in(self, request: web.Request) -> bool:
        expected = authorization(self.user, self.password)["Authorization"]
        granted = request.headers.get("Authorization") == expected
        self.refused += not granted
        return granted

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if not self._allowed_in(request):
            return web.json_response({"message": "Authentication required"}, status=401)
        response = web.WebSocketResponse(autoping=not self.frozen)
        socket = _Socket(request.query["app"], response, request.transport)
        if any(other.app == socket.app for other in self._sockets):
            self.send({"type": "ApplicationReplaced"}, app=socket.app)
        # Registered before the handshake's end, as Asterisk does: events meanwhile wait for the socket.
        self._sockets.append(socket)
        self.connections += 1
        writer: asyncio.Task[None] | None = None
        try:
            await response.prepare(request)
            writer = asyncio.create_task(socket.write())
            async for _ in response:
                pass
        finally:
            self._sockets.remove(socket)
            socket.gone.set()
            if writer is not None:
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)
        return response

    # -- REST ----------------------------------------------------------------------------------------------------------

    async def _rest(self, request: web.Request) -> web.Response:
        if not self._allowed_in(request):
            return web.json_response({"message": "Authentication required"}, status=401)
        raw = request.url.raw_path.removeprefix("/ari/")
        segments = tuple(unquote(part) for part in raw.split("/"))
        args: dict[str, Any] = dict(request.query)
        if request.can_read_body:
            args |= await request.json()
        seen = FakeRequest(request.method, segments, args, dict(request.headers))
        self.requests.append(seen)
        for method, pattern, answer in self._overrides:
            if method == seen.method and pattern.search(seen.path):
                status, body = answer
                break
        else:
            status, body = self._answer(seen)
        if status == 204:
            return web.Response(status=204)
        return web.json_response(body if body is not None else {}, status=status)

    def _answer(self, request: FakeRequest) -> Answer:
        match request.segments:
            case ("asterisk", "ping"):
                return 200, {"asterisk_id": "fake", "ping": "pong", "timestamp": iso(time.time())}
            case ("asterisk", "info"):
                return 200, {"system": {"version": self.version, "entity_id": "fake"}}
            case ("channels",):
                return 200, [channel.to_json() for channel in self.channels.values()]
            case ("channels", channel, *rest):
                return self._channel(request, channel, rest)
            case ("playbacks", playback) if playback in self.playbacks:
                self.finish_playback(playback)
                return 204, None
            case ("recordings", "live", name, "stop") if name in self.recordings:
                self.finish_recording(name)
                return 204, None
            case ("bridges",):
                return 200, [_bridge(name, members) for name, members in self.bridges.items()]
            case ("bridges", bridge) if self.bridges.pop(bridge, None) is not None:
                return 204, None
            case ("applications", app, *rest):
                return self._application(request, app, rest)
            case ("events", "claim"):
                return self._claim(request.args["channelId"])
        return 404, {"message": "Resource not found"}

    def _application(self, request: FakeRequest, app: str, rest: list[str]) -> Answer:
        if not any(socket.app == app for socket in self._sockets):
            return 404, {"message": "Application not found"}
        if rest == ["subscription"]:
            change: Callable[[str], None] = self.subscriptions.add
            if request.method == "DELETE":
                change = self.subscriptions.discard
            change(request.args["eventSource"])
        elif rest == ["eventFilter"]:
            self.allowed = {entry["type"] for entry in request.args.get("allowed", [])}
        inside = [channel.id for channel in self.channels.values() if channel.in_stasis]
        watched = [source.removeprefix("channel:") for source in self.subscriptions if source.startswith("channel:")]
        answer = {
            "name": app,
            "channel_ids": sorted({*inside, *watched}),
            "bridge_ids": [],
            "endpoint_ids": [],
            "device_names": [],
            "events_allowed": [{"type": name} for name in sorted(self.allowed)],
            "events_disallowed": [],
        }
        return 200, answer

    def _claim(self, channel: str) -> Answer:
        if channel in self.waiting:
            self.waiting.discard(channel)
            self.enter(channel, self.channels[channel].exten)
            return 204, None
        return (409, {"message": "Claimed"}) if channel in self.channels else (404, {"message": "Channel not found"})

    def _channel(self, request: FakeRequest, channel: str, rest: list[str]) -> Answer:
        args = request.args
        entry = self.channels.get(channel)
        if request.method == "POST" and not rest:
            entry = self.enter(channel, *str(args.get("appArgs") or "").split(","))
            entry.state = "Up"
            return 200, entry.to_json()
        if rest == ["variables"] and not self.bulk_variables:
            return 404, {"message": "Resource not found"}
        if entry is None:
            return 404, {"message": "Provided channel was not found"}
        if rest in (["variable"], ["variables"]):
            return self._variables(request, entry, rest)
        if not rest:
            if request.method == "DELETE":
                self.hangup(channel, int(args.get("reason_code", 16)))
                return 204, None
            return 200, entry.to_json()
        if not entry.in_stasis:
            return 409, {"message": "Channel not in Stasis application"}
        match rest:
            case ["answer"]:
                entry.state = "Up"
            case ["ring"]:
                entry.state = "Ringing"
            case ["continue"]:
                entry.in_stasis = False
                entry.context, entry.exten = args.get("context", ""), args.get("extension", "")
                self._about(entry, "StasisEnd")
            case ["play", playback]:
                return self._play(channel, playback, args["media"])
            case ["record"]:
                return self._record(channel, args)
            case _:
                return 404, {"message": "Resource not found"}
        return 204, None

    def _variables(self, request: FakeRequest, entry: FakeChannel, rest: list[str]) -> Answer:
        args = request.args
        if request.method == "POST":
            entry.variables |= args["variables"] if rest == ["variables"] else {args["variable"]: args["value"]}
            return 204, None
        names = str(args[rest[0]]).split(",")
        if missing := [name for name in names if name not in entry.variables]:
            return 404, {"message": "Provided variable was not found", "missing": missing}
        if rest == ["variable"]:
            return 200, {"value": entry.variables[names[0]]}
        return 200, {"variables": {name: entry.variables[name] for name in names}}

    def _play(self, channel: str, playback: str, media: str | list[str]) -> Answer:
        uris = media if isinstance(media, list) else media.split(",")
        value = {"id": playback, "media_uri": uris[0], "target_uri": f"channel:{channel}", "language": "en"}
        self.playbacks[playback] = value
        self.send({"type": "PlaybackStarted", "playback": {**value, "state": "playing"}})
        if self.finish_playbacks:
            self.finish_playback(playback)
        return 201, {**value, "state": "queued"}

    def _record(self, channel: str, args: dict[str, Any]) -> Answer:
        name = args["name"]
        if name in self.recordings:
            return 409, {"message": f"Recording '{name}' already in progress"}
        value = {"name": name, "format": args["format"], "target_uri": f"channel:{channel}"}
        self.recordings[name] = value
        self.send({"type": "RecordingStarted", "recording": {**value, "state": "recording"}})
        return 201, {**value, "state": "queued"}


def _bridge(name: str, members: list[str]) -> dict[str, Any]:
    return {
        "id": name,
        "technology": "simple_bridge",
        "bridge_type": "mixing",
        "bridge_class": "stasis",
        "creator": "Stasis",
        "name": name,
        "channels": members,
        "creationtime": iso(time.time()),
    }
