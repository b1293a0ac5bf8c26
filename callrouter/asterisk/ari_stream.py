"""ARI's event socket: connected for as long as the stream is open, read as fast as Asterisk writes.

Asterisk drops a socket with some 650 unread events, and a slow reader holds up its task processors; so one task does
nothing but read, into an unbounded queue. What the consumer sees is one ordered sequence::

    Connected(first=True), event, event, …, Disconnected(reason), Connected(first=False), event, …

Events are not replayed by Asterisk: what happened between Disconnected and Connected must be asked for, and
``on_connect`` is the place. While it runs, events already arrive and are kept; they follow after Connected. They may
thus be older than what ``on_connect`` has seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlencode

import aiohttp
import structlog
from yarl import URL

from callrouter.asterisk.ari import ABSENT_HINT, PASSWORD_HINT, authorization, reason_of, rest_url
from callrouter.asterisk.ari_events import ApplicationReplaced, AriEvent, EventDecoder
from callrouter.errors import AriError, CallrouterError

log = structlog.get_logger(__name__)

FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 5.0
# A ping goes out after so much silence, and half of it later the peer counts as dead: 2.7 s in all.
HEARTBEAT_SECONDS = 1.8
CONNECT_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Connected:
    """The socket is up and ``on_connect`` has ended well.

    :param first: False after a reconnect
    """

    first: bool


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The socket was lost, or could not be had for a reason not reported before. It is being tried again.

    :param reason: in words, for a log and for ``callrouter status``
    :param status: HTTP status when Asterisk refused (401: wrong password), else 0
    """

    reason: str
    status: int = 0


StreamItem = Connected | Disconnected | AriEvent
State = Literal["closed", "connecting", "connected", "refused", "replaced"]
OnConnect = Callable[[bool], Awaitable[None]]


class AriStream:
    """The events of one Stasis application, for ever.

    :param base_url: ``http://host:port``
    :param app: Stasis application; the socket's being there is what registers it in Asterisk
    :param on_connect: awaited after each connection, with True the first time, before any event is delivered. If it
        raises, the socket is closed and tried again.
    :param heartbeat: seconds of silence before a ping; a dead peer is noticed after 1.5 times this
    :param max_retry: longest pause between attempts, seconds; also the pause after a refusal

    Use as ``async with AriStream(…) as stream: async for item in stream: …``; the iteration ends after :meth:`close`
    when all that was received has been delivered.
    """

    def __init__(
        self,
        base_url: str,
        user: str,
        password: str,
        app: str,
        *,
        on_connect: OnConnect | None = None,
        heartbeat: float = HEARTBEAT_SECONDS,
        connect_timeout: float = CONNECT_SECONDS,
        max_retry: float = LAST_RETRY_SECONDS,
    ) -> None:
        self.app = app
        self._url = URL(f"{rest_url(base_url)}/events?{urlencode({'app': app})}", encoded=True)
        self._headers = authorization(user, password)
        self._on_connect = on_connect
        self._heartbeat = heartbeat
        self._connect_timeout = connect_timeout
        self._max_retry = max_retry
        self._queue: deque[StreamItem] = deque()
        self._wake = asyncio.Event()
        self._held: deque[AriEvent] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._first = True
        self._pause = FIRST_RETRY_SECONDS
        self._since: float | None = None
        self._delivering = False
        self._reported: tuple[str, int] | None = None
        self._decoder = EventDecoder()
        self._state: State = "closed"
        self._error: AriError | None = None
        self._connections = 0
        self._events = 0
        self._bytes = 0

    def __repr__(self) -> str:
        return f"AriStream(app={self.app!r}, state={self._state!r}, depth={self.depth})"

    # -- what can be asked ---------------------------------------------------------------------------------------------

    @property
    def depth(self) -> int:
        """Items received and not yet consumed."""
        return len(self._queue) + len(self._held)

    @property
    def state(self) -> State:
        """closed, connecting, connected, refused (wrong password), replaced (another socket has our application)."""
        return self._state

    @property
    def connected(self) -> bool:
        return self._state == "connected"

    @property
    def error(self) -> AriError | None:
        """Why it is not connected; None while it is."""
        return self._error

    @property
    def connections(self) -> int:
        """How often a connection was made."""
        return self._connections

    @property
    def events_received(self) -> int:
        return self._events

    @property
    def bytes_received(self) -> int:
        """Of all frames, as JSON text."""
        return self._bytes

    @property
    def malformed(self) -> int:
        """Frames that were no event."""
        return self._decoder.malformed

    # -- life ----------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def start(self) -> None:
        """Begin to connect, in a task of its own."""
        if self._task is None:
            self._closed = False
            self._task = asyncio.create_task(self._run(), name=f"ari-stream-{self.app}")

    async def close(self) -> None:
        """Close the socket. What was received can still be read from the iteration, which then ends."""
        self._closed = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._state = "closed"
        self._queue.extend(self._held)
        self._held.clear()
        self._wake.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamItem:
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        return self._queue.popleft()

    # -- the reader ----------------------------------------------------------------------------------------------------

    def _put(self, item: StreamItem) -> None:
        self._queue.append(item)
        self._wake.set()

    async def _run(self) -> None:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            while True:
                if self._state not in ("refused", "replaced"):
                    self._state = "connecting"
                try:
                    await self._one_connection(session)
                except AriError as exc:
                    self._lost(exc)
                except Exception as exc:  # the stream outlives whatever goes wrong in one connection
                    log.exception("ari_stream_failed", app=self.app)
                    self._lost(AriError(f"ARI event socket: {exc!r}"))
                await asyncio.sleep(self._next_pause())

    def _next_pause(self) -> float:
        """Seconds until the next attempt: a refusal is no matter of luck, so it is not hurried."""
        if self._state in ("refused", "replaced"):
            return self._max_retry
        # Only a connection that lasted starts the row afresh; one that is dropped at once must not make a tight loop.
        lasted = self._since is not None and time.monotonic() - self._since >= self._max_retry
        self._since = None
        pause = FIRST_RETRY_SECONDS if lasted else self._pause
        self._pause = min(pause * 2, self._max_retry)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret

    def _lost(self, error: AriError) -> None:
        if self._state != "replaced":
            # A 404 or 503 is an Asterisk still loading its modules; a wrong password stays wrong.
            self._state = "refused" if error.status in (401, 403) else "connecting"
        self._error = error
        seen = (error.message, error.status)
        if seen != self._reported:
            self._reported = seen
            log.warning("ari_disconnected", app=self.app, reason=error.message, status=error.status, hint=error.hint)
            self._put(Disconnected(error.message, error.status))

    async def _one_connection(self, session: aiohttp.ClientSession) -> None:
        """Connect, read until the socket is lost.

        :raises AriError: always, when it ends
        """
        socket = await self._connect(session)
        self._connections += 1
        self._delivering = False
        self._state = "connecting"
        greeting = asyncio.create_task(self._greet(), name="ari-on-connect")
        reader = asyncio.create_task(self._read(socket), name="ari-read")
        try:
            await asyncio.wait((greeting, reader), return_when=asyncio.FIRST_COMPLETED)
            if greeting.done():
                self._greeted(greeting)
            reason = await reader
        finally:
            for task in (greeting, reader):
                task.cancel()
            await asyncio.gather(greeting, reader, return_exceptions=True)
            with contextlib.suppress(Exception):
                await socket.close()
        raise AriError(f"ARI event socket lost: {reason}", hint=ABSENT_HINT)

    async def _connect(self, session: aiohttp.ClientSession) -> aiohttp.ClientWebSocketResponse[bool]:
        where = f"{self._url.host}:{self._url.port}"
        try:
            async with asyncio.timeout(self._connect_timeout):
                return await session.ws_connect(
                    self._url,
                    headers=self._headers,
                    heartbeat=self._heartbeat,
                    # Text arrives as bytes: a bad byte in a caller's name must not cost the connection.
                    decode_text=False,
                    max_msg_size=0,
                    compress=0,
                    timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
                )
        except aiohttp.WSServerHandshakeError as exc:
            text = (
                "wrong ARI user or password"
                if exc.status == 401
                else f"Asterisk refused the event socket: {exc.message}"
            )
            hint = PASSWORD_HINT if exc.status == 401 else ABSENT_HINT
            raise AriError(f"{where}: {text} ({exc.status})", status=exc.status, hint=hint) from None
        except TimeoutError:
            text = f"no answer from Asterisk within {self._connect_timeout:g} s"
            raise AriError(f"{where}: {text}", hint=ABSENT_HINT) from None
        except (aiohttp.ClientError, OSError) as exc:
            raise AriError(f"{where}: {reason_of(exc)}", hint=ABSENT_HINT) from None

    async def _greet(self) -> None:
        if self._on_connect is not None:
            await self._on_connect(self._first)

    def _greeted(self, greeting: asyncio.Task[None]) -> None:
        """``on_connect`` has ended: deliver what was held, in order, or fail with its error."""
        error = greeting.exception()
        if error is not None:
            if not isinstance(error, CallrouterError):
                log.error("ari_on_connect_failed", app=self.app, exc_info=error)
            status = error.status if isinstance(error, AriError) and error.status == 401 else 0
            raise AriError(f"after connecting to ARI: {error}", status=status) from error
        # Another socket may have taken the application over while on_connect ran.
        if self._state == "connecting":
            self._state = "connected"
        self._error = None
        self._reported = None
        self._since = time.monotonic()
        self._delivering = True
        log.info("ari_connected", app=self.app, first=self._first, held=len(self._held))
        self._put(Connected(self._first))
        self._first = False
        self._queue.extend(self._held)
        self._held.clear()

    async def _read(self, socket: aiohttp.ClientWebSocketResponse[bool]) -> str:
        """Read eagerly; return why it ended."""
        while True:
            message = await socket.receive()
            if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                data = message.data if isinstance(message.data, bytes) else str(message.data).encode()
                self._bytes += len(data)
                event = self._decoder(data)
                if event is None:
                    continue
                self._events += 1
                if isinstance(event, ApplicationReplaced):
                    # Not fought over: we try again slowly, and the consumer decides whether to close the stream.
                    self._state = "replaced"
                    log.warning("ari_application_replaced", app=self.app)
                if self._delivering:
                    self._put(event)
                else:
                    self._held.append(event)
            elif message.type is aiohttp.WSMsgType.ERROR:
                return _why(socket, message.data)
            else:
                return _why(socket, None)


def _why(socket: aiohttp.ClientWebSocketResponse[bool], data: object) -> str:
    error = socket.exception() or (data if isinstance(data, BaseException) else None)
    if isinstance(error, (aiohttp.ServerTimeoutError, TimeoutError)):
        return "Asterisk does not answer (no pong)"
    if error is not None:
        return str(error) or type(error).__name__
    return f"closed by Asterisk (code {socket.close_code})"
