"""The manager interface (AMI): one connection that comes back, actions with a time-out, and what Asterisk's state is.

The login is a challenge and its MD5 answer, so the password is in no action and on no wire. A Ping goes out every
one and a half seconds: a frozen Asterisk keeps its sockets open, and nothing else would tell. (2.8 s in all.)

The AMI user needs ``read=system,call,security,cdr,reporting`` and ``write=system,call,command,reporting``.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
import os
import random
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import structlog

from callrouter.asterisk.ami_events import (
    PAUSE_EVENT,
    AmiEvent,
    AmiResponse,
    AmiState,
    Contact,
    Headers,
    Registration,
    StateFold,
    rtt_seconds,
)
from callrouter.asterisk.ami_wire import Connection
from callrouter.errors import AmiError

log = structlog.get_logger(__name__)

EventFunction = Callable[[AmiEvent], Awaitable[None] | None]
StateFunction = Callable[[AmiState], None]

FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 5.0
PING_SECONDS = 1.5
PONG_SECONDS = 1.3
CONNECT_SECONDS = 3.0
CHANNELS_SECONDS = 10.0
"""How often the channel count is asked for; in between it is counted by events."""
TRUNKS_SECONDS = 60.0

PASSWORD_HINT = "callrouter doctor compares the password in home/secrets/ami-password with Asterisk's manager.conf"
ABSENT_HINT = "is Asterisk running, with manager.conf enabled? callrouter doctor looks"


class _Refused(AmiError):
    """Asterisk refused the login: trying harder does not help."""


class Ami:
    """Asterisk's manager interface.

    :param action_timeout: seconds an action may take, unless it says otherwise
    :param ping_interval: seconds between pings
    :param ping_timeout: seconds a pong may take; then the connection counts as dead
    :param max_retry: longest pause between attempts to connect, seconds; also the pause after a refused login
    """

    def __init__(
        self,
        host: str,
        port: int,
        user: str,
        password: str,
        *,
        action_timeout: float = 5.0,
        ping_interval: float = PING_SECONDS,
        ping_timeout: float = PONG_SECONDS,
        max_retry: float = LAST_RETRY_SECONDS,
    ) -> None:
        self.host = host
        self.port = port
        self.user = user
        self._password = password
        self._action_timeout = action_timeout
        self._ping_interval = ping_interval
        self._ping_timeout = ping_timeout
        self._max_retry = max_retry
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._first: asyncio.Future[None] | None = None
        self._refresh = asyncio.Event()
        self._fold = StateFold()
        self._functions: dict[str, list[EventFunction]] = {}
        self._watchers: list[StateFunction] = []
        self._running: set[asyncio.Task[None]] = set()
        self._reported = ""

    def __repr__(self) -> str:
        return f"Ami({self.host!r}, {self.port}, {self.user!r}, connected={self._connection is not None})"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    # -- life ----------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> AmiState:
        """What is known now."""
        return self._fold.snapshot()

    @property
    def connected(self) -> bool:
        return self._connection is not None

    async def start(self, *, required: bool = True) -> None:
        """Connect, and stay connected until :meth:`stop`.

        :param required: True waits for the login and fails if it fails; False returns at once and goes on trying
        :raises AmiError: nobody listens, the password is wrong, or no answer came (only when ``required``)
        """
        if self._task is not None:
            return
        self._first = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(), name="ami")
        if not required:
            return
        try:
            await self._first
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close the connection; actions under way fail."""
        task, self._task = self._task, None
        tasks = [*self._running, *([task] if task else [])]
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._fold.base.connected:
            self._fold.base = AmiState(error="stopped", since=time.time(), sessions=self._fold.base.sessions)
            self._fold.forget()

    def on_event(self, name: str, function: EventFunction) -> Callable[[], None]:
        """Call ``function`` with every event of that name, ``*`` for all; a coroutine runs as a task of its own.

        What it raises is logged. Returns a function that ends this.
        """
        functions = self._functions.setdefault(name, [])
        functions.append(function)
        return lambda: functions.remove(function) if function in functions else None

    def on_state(self, function: StateFunction) -> None:
        """Call ``function`` with the state whenever the connection comes or goes."""
        self._watchers.append(function)

    # -- actions -------------------------------------------------------------------------------------------------------

    async def action(self, name: str, *, timeout: float | None = None, **fields: Any) -> AmiResponse:
        """Send an action once, and wait for its answer with the whole list that may follow it.

        :param fields: headers; a list gives the header several times; None leaves it out
        :param timeout: seconds
        :raises AmiError: not connected, connection lost, no answer in time (it may have been carried out all the
            same), or a line break in a value. That Asterisk said Error is no exception: see ``ok``.
        """
        if self._connection is None:
            raise AmiError(f"AMI {name}: not connected: {self._fold.base.error or 'not started'}", hint=ABSENT_HINT)
        return await self._connection.ask(name, fields, self._action_timeout if timeout is None else timeout)

    async def _must(self, name: str, **fields: Any) -> AmiResponse:
        response = await self.action(name, **fields)
        if not response.ok:
            raise AmiError(f"AMI {name}: {response.message}")
        return response

    async def ping(self) -> float:
        """Round trip in seconds."""
        start = time.perf_counter()
        await self._must("Ping", timeout=self._ping_timeout)
        return time.perf_counter() - start

    async def command(self, cli: str) -> list[str]:
        """Run a command of Asterisk's CLI; its lines.

        :raises AmiError: there is no such command
        """
        response = await self.action("Command", Command=cli)
        lines = list(response.fields.all("Output"))
        if not response.ok:
            raise AmiError(f"AMI Command {cli!r}: {' '.join(lines) or response.message}")
        return lines

    async def reload(self, module: str) -> None:
        """Reload a module, such as ``res_pjsip.so``; calls go on. A broken file is not reported here: see the log."""
        await self._must("Reload", Module=module)

    async def load(self, module: str) -> None:
        """Load a module, such as ``res_srtp.so``, unless it is there already."""
        if not (await self.action("ModuleCheck", Module=module)).ok:
            await self._must("ModuleLoad", Module=module, LoadType="load")

    async def register(self, name: str) -> None:
        """Have Asterisk send a trunk's REGISTER now.

        :param name: of the PJSIP registration
        """
        await self._must("PJSIPRegister", Registration=name)

    async def registrations(self) -> list[Registration]:
        """The outbound registrations of all trunks."""
        response = await self.action("PJSIPShowRegistrationsOutbound")
        found = []
        for event in response.events:
            if event.name == "OutboundRegistrationDetail":
                get = event.fields.get
                seconds = get("NextReg", "")
                found.append(
                    Registration(
                        name=get("ObjectName", ""),
                        status=get("Status", ""),
                        client_uri=get("ClientUri", ""),
                        server_uri=get("ServerUri", ""),
                        next_seconds=int(seconds) if seconds.lstrip("-").isdigit() else None,
                    )
                )
        return found

    async def endpoints(self) -> list[str]:
        """Names of all PJSIP endpoints."""
        response = await self.action("PJSIPShowEndpoints")
        return [event.fields.get("ObjectName", "") for event in response.events if event.name == "EndpointList"]

    async def contacts(self, endpoints: list[str] | None = None) -> list[Contact]:
        """The contacts of the given endpoints, of all by default: configured ones and registered ones.

        (PJSIPShowContacts would leave out the configured ones, and those are what trunks have.)
        """
        found = []
        for name in await self.endpoints() if endpoints is None else endpoints:
            response = await self.action("PJSIPShowEndpoint", Endpoint=name)
            for event in response.events:
                if event.name == "ContactStatusDetail":
                    get = event.fields.get
                    rtt = rtt_seconds(get("RoundtripUsec", ""))
                    found.append(Contact(get("EndpointName") or name, get("URI", ""), get("Status", ""), rtt))
        return found

    async def channels(self) -> list[Headers]:
        """All channels, with Channel, Uniqueid, Linkedid, Context, Exten, Application, Duration …

        One that a caller's line breaks cut in two is left out.
        """
        response = await self._must("CoreShowChannels")
        listed = [event.fields for event in response.events if event.name == "CoreShowChannel"]
        return [fields for fields in listed if fields.get("Channel") and fields.get("Uniqueid")]

    async def hangup(self, channel: str, cause: int = 16) -> bool:
        """End a channel by name or unique id; False when there is none.

        :param cause: Q.850
        """
        response = await self.action("Hangup", Channel=channel, Cause=cause)
        if not response.ok and "no such channel" not in response.message.lower():
            raise AmiError(f"AMI Hangup {channel}: {response.message}")
        return response.ok

    async def mute_recording(self, channel: str, on: bool) -> bool:
        """Have silence recorded of a channel's conversation, of both sides, or what is said again; False when there is
        no such channel.

        :param channel: the one that records, by name or unique id
        :raises AmiError: Asterisk refuses, or cannot be asked
        """
        response = await self.action("MixMonitorMute", Channel=channel, Direction="both", State="1" if on else "0")
        if not response.ok and "no such channel" not in response.message.lower():
            raise AmiError(f"AMI MixMonitorMute {channel}: {response.message}")
        return response.ok

    async def ask_pause(self, call_id: str, on: bool) -> None:
        """Tell the server, which listens, that somebody wants a call's recording paused, or resumed.

        :raises AmiError: Asterisk refuses, or cannot be asked
        """
        await self._must("UserEvent", UserEvent=PAUSE_EVENT, Do="pause" if on else "resume", Call=call_id)

    async def core_status(self) -> Headers:
        """CoreStartupDate, CoreStartupTime, CoreReloadDate, CoreReloadTime, CoreCurrentCalls …"""
        return (await self._must("CoreStatus")).fields

    # -- the connection ------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        pause = FIRST_RETRY_SECONDS
        while True:
            sessions = self._fold.base.sessions
            try:
                await self._session()
            except AmiError as exc:
                self._down(exc)
                error = exc
            except Exception as exc:  # the adapter outlives whatever goes wrong in one connection
                log.exception("ami_failed")
                error = AmiError(f"AMI: {exc!r}")
                self._down(error)
            if self._first is not None and not self._first.done():
                self._first.set_exception(error)
                self._first.exception()  # nobody may be waiting
            if self._fold.base.sessions > sessions:
                pause = FIRST_RETRY_SECONDS
            slow = isinstance(error, _Refused)
            await asyncio.sleep(self._max_retry if slow else pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            pause = min(pause * 2, self._max_retry)

    async def _session(self) -> None:
        """Connect, log in, watch until it is lost.

        :raises AmiError: always, when it ends
        """
        connection = Connection(self.host, self.port, self._event)
        refresher: asyncio.Task[None] | None = None
        try:
            await self._open(connection)
            self._connection = connection
            self._up()
            refresher = asyncio.create_task(self._refreshing(), name="ami-refresh")
            await self._watch(connection)
        finally:
            self._connection = None
            connection.close()
            if refresher is not None:
                refresher.cancel()
                await asyncio.gather(refresher, return_exceptions=True)

    async def _open(self, connection: Connection) -> None:
        where = f"{self.host}:{self.port}"
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await connection.open()
        except TimeoutError:
            raise AmiError(f"{where}: no connection within {CONNECT_SECONDS:g} s", hint=ABSENT_HINT) from None
        except OSError as exc:
            raise AmiError(f"{where}: {os.strerror(exc.errno) if exc.errno else exc}", hint=ABSENT_HINT) from None
        challenge = await connection.ask("Challenge", {"AuthType": "MD5"}, CONNECT_SECONDS)
        if not challenge.ok:
            raise AmiError(f"{where}: Asterisk gave no login challenge: {challenge.message}", hint=ABSENT_HINT)
        # The password stays in a frame of its own: a traceback with local variables must not show it.
        key = self._key(challenge.fields.get("Challenge", ""))
        login = {"AuthType": "MD5", "Username": self.user, "Key": key, "Events": "on"}
        response = await connection.ask("Login", login, CONNECT_SECONDS)
        if not response.ok:
            raise _Refused(f"{where}: wrong AMI user or password ({response.message})", hint=PASSWORD_HINT)

    def _key(self, challenge: str) -> str:
        return hashlib.md5((challenge + self._password).encode(), usedforsecurity=False).hexdigest()

    async def _watch(self, connection: Connection) -> None:
        while True:
            done, _ = await asyncio.wait((connection.lost,), timeout=self._ping_interval)
            if done:
                raise AmiError(
                    f"{self.host}:{self.port}: connection lost: {connection.lost.result()}", hint=ABSENT_HINT
                )
            try:
                await connection.ask("Ping", {}, self._ping_timeout)
            except AmiError as exc:
                if connection.lost.done():
                    continue
                raise AmiError(f"{self.host}:{self.port}: Asterisk does not answer: {exc}", hint=ABSENT_HINT) from exc

    async def _refreshing(self) -> None:
        """Keep the lists fresh. What fails here is no loss of the connection: the pings decide on that."""
        self._refresh.set()
        trunks_at = 0.0
        while True:
            now = time.monotonic()
            asked = self._refresh.is_set()
            self._refresh.clear()
            try:
                count = (await self.core_status()).get("CoreCurrentCalls", "")
                self._fold.channels = int(count) if count.isdigit() else None
                if asked or now - trunks_at >= TRUNKS_SECONDS:
                    trunks_at = now
                    self._fold.registrations(await self.registrations())
                    names = await self.endpoints()
                    self._fold.contacts(names, await self.contacts(names))
            except AmiError as exc:
                log.warning("ami_refresh_failed", error=exc.message)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHANNELS_SECONDS):
                    await self._refresh.wait()

    def _up(self) -> None:
        base = self._fold.base
        self._fold.base = AmiState(True, True, None, time.time(), sessions=base.sessions + 1)
        self._reported = ""
        log.info("ami_connected", host=self.host, port=self.port, sessions=base.sessions + 1)
        self._tell()
        if self._first is not None and not self._first.done():
            self._first.set_result(None)

    def _down(self, error: AmiError) -> None:
        base = self._fold.base
        since = time.time() if base.connected or not base.since else base.since
        self._fold.base = AmiState(False, False, error.message, since, sessions=base.sessions)
        self._fold.forget()
        if error.message != self._reported:
            self._reported = error.message
            log.warning("ami_disconnected", reason=error.message, hint=error.hint)
            self._tell()

    def _tell(self) -> None:
        state = self.state
        for function in self._watchers:
            try:
                function(state)
            except Exception:  # a watcher's fault is not ours
                log.exception("ami_state_function_failed")

    def _event(self, event: AmiEvent) -> None:
        if self._fold.event(event):
            self._refresh.set()
        for function in (*self._functions.get(event.name, ()), *self._functions.get("*", ())):
            try:
                result = function(event)
            except Exception:  # a function's fault must not cost the connection
                log.exception("ami_event_function_failed", ami_event=event.name)
                continue
            if inspect.isawaitable(result):
                task = asyncio.ensure_future(self._await(event.name, result))
                self._running.add(task)
                task.add_done_callback(self._running.discard)

    async def _await(self, name: str, result: Awaitable[None]) -> None:
        try:
            await result
        except Exception:  # as above
            log.exception("ami_event_function_failed", ami_event=name)
