"""A thin ARI client: one method a REST operation we use, over one keep-alive aiohttp session.

Parameters travel in a JSON body where Asterisk takes them there (it does so for every operation that is no GET or
DELETE), so that neither long playlists nor odd characters meet the limits of a request line.

Source: Asterisk's ``rest-api/*.json``.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
import structlog
from yarl import URL

from callrouter.asterisk.ari_events import (
    Application,
    AsteriskInfo,
    AsteriskPing,
    Bridge,
    Channel,
    LiveRecording,
    Playback,
    T,
    Variable,
    Variables,
    decode,
)
from callrouter.errors import AriError

log = structlog.get_logger(__name__)

# Asterisk closes an idle HTTP connection after 15 s (http.conf session_keep_alive); we let go of it earlier, so that a
# request, which must never be sent twice, does not meet a connection just being closed.
_KEEPALIVE_SECONDS = 10.0
# Asterisk serves at most 100 HTTP sessions by default (http.conf session_limit).
_CONNECTIONS = 40

OK = (200, 201, 202, 204)

PASSWORD_HINT = "callrouter doctor compares the password in home/secrets/ari-password with Asterisk's ari.conf"
ABSENT_HINT = "is Asterisk running, with http.conf and ari.conf enabled? callrouter doctor looks"


def authorization(user: str, password: str) -> dict[str, str]:
    """The Basic Authorization header. It is the only place where the password goes on the wire."""
    token = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
    return {"Authorization": f"Basic {token}"}


def rest_url(base_url: str) -> str:
    """``http://host:port/ari`` for either ``http://host:port`` or that with ``/ari``."""
    url = base_url.rstrip("/")
    if URL(url).user is not None:
        raise ValueError("ARI credentials do not belong into the URL")
    return url if url.endswith("/ari") else url + "/ari"


def path_of(*segments: str) -> str:
    """A REST path of percent-encoded segments: ``path_of("channels", "a/b")`` is ``channels/a%2Fb``."""
    return "/".join(quote(_clean(segment), safe="", errors="replace") for segment in segments)


def _clean(value: Any) -> Any:
    """Make a value Asterisk can take: valid UTF-8 without NUL, all the way down."""
    if isinstance(value, str):
        if value.isascii():
            return value.replace("\0", "")
        return value.encode("utf-8", "replace").decode("utf-8").replace("\0", "")
    if isinstance(value, Mapping):
        return {_clean(key): _clean(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    return value


class AriClient:
    """Asterisk's REST interface.

    :param base_url: ``http://host:port``
    :param user: ARI user name
    :param password: sent in the Authorization header only, never logged
    :param timeout: seconds a request may take in all

    Every method raises :class:`callrouter.errors.AriError`: ``status`` is the HTTP status, 0 when no answer came.
    """

    def __init__(self, base_url: str, user: str, password: str, *, timeout: float = 5.0) -> None:
        self._base = rest_url(base_url)
        self._headers = authorization(user, password)
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None
        self._bulk_variables = True

    def __repr__(self) -> str:
        return f"AriClient({self._base!r})"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Open the session; no request is sent."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=self._timeout),
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS, keepalive_timeout=_KEEPALIVE_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
            )

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    # -- the one way out -----------------------------------------------------------------------------------------------

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        ok: Sequence[int] = OK,
    ) -> Any:
        """Send one request and return the decoded JSON answer, None when it is empty.

        :param path: below ``/ari``, already percent-encoded (see :func:`path_of`)
        :param params: query parameters; None values are left out, booleans become true/false
        :param ok: statuses that are no error
        :raises AriError: any other status (with Asterisk's message), or no answer (status 0)
        """
        data = await self._send(method, path, params, body, ok)
        return self._decode(data, Any, method, path) if data else None

    async def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        ok: Sequence[int] = OK,
    ) -> bytes:
        if self._session is None:
            raise AriError(f"{method} {path}: the ARI client is not started")
        query = _query(params)
        url = URL(f"{self._base}/{path}" + (f"?{query}" if query else ""), encoded=True)
        payload = msgspec.json.encode(_clean(body)) if body else None
        headers = {"Content-Type": "application/json"} if payload is not None else None
        try:
            async with self._session.request(
                method, url, data=payload, headers=headers, allow_redirects=False
            ) as response:
                data = await response.read()
                status = response.status
        except TimeoutError as exc:
            raise AriError(
                f"{method} {path}: no answer from Asterisk within {self._timeout:g} s", hint=ABSENT_HINT
            ) from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise AriError(f"{method} {path}: {self._base}: {reason_of(exc)}", hint=ABSENT_HINT) from exc
        if status not in ok:
            raise AriError(
                f"{method} {path}: {_message(data) or 'refused'} ({status})",
                status=status,
                hint=PASSWORD_HINT if status == 401 else None,
            )
        return data

    def _decode(self, data: bytes, kind: type[T], method: str, path: str) -> T:
        try:
            return decode(data, kind)
        except ValueError as exc:
            raise AriError(f"{method} {path}: Asterisk's answer is not understood: {exc}") from exc

    async def _get(self, path: str, kind: type[T], params: Mapping[str, Any] | None = None) -> T:
        return self._decode(await self._send("GET", path, params), kind, "GET", path)

    async def _post(self, path: str, kind: type[T], body: Mapping[str, Any] | None = None) -> T:
        return self._decode(await self._send("POST", path, body=body), kind, "POST", path)

    # -- channels ------------------------------------------------------------------------------------------------------

    async def channels(self) -> list[Channel]:
        """All channels of Asterisk, other applications' too."""
        return await self._get("channels", list[Channel])

    async def channel(self, channel: str) -> Channel:
        return await self._get(path_of("channels", channel), Channel)

    async def answer(self, channel: str) -> None:
        await self._send("POST", path_of("channels", channel, "answer"))

    async def ring(self, channel: str) -> None:
        """Send ringing (SIP 180) to the caller."""
        await self._send("POST", path_of("channels", channel, "ring"))

    async def hangup(self, channel: str, cause: int) -> None:
        """End the channel.

        :param cause: Q.850 cause; Asterisk makes the SIP status of it (17 → 486, 21 → 403, 34 → 503 …)
        """
        await self._send("DELETE", path_of("channels", channel), {"reason_code": cause})

    async def continue_(self, channel: str, context: str, extension: str, priority: int = 1) -> None:
        """Let the channel leave the application for the dialplan."""
        body = {"context": context, "extension": extension, "priority": priority}
        await self._send("POST", path_of("channels", channel, "continue"), body=body)

    async def play(self, channel: str, playback_id: str, media: Sequence[str], *, lang: str | None = None) -> Playback:
        """Play media one after the other without a gap, as one playback named by the caller.

        :param media: such as ``sound:/abs/path/without/extension``, ``tone:ring``, ``recording:NAME``
        """
        body = {"media": list(media), "lang": lang}
        return await self._post(path_of("channels", channel, "play", playback_id), Playback, body)

    async def stop_playback(self, playback_id: str) -> None:
        """Stop a playback, heard within a frame; PlaybackFinished follows."""
        await self._send("DELETE", path_of("playbacks", playback_id))

    delete_playback = stop_playback

    async def record(
        self,
        channel: str,
        name: str,
        *,
        format: str = "wav",  # noqa: A002 - Asterisk's own name
        max_duration_seconds: int = 0,
        max_silence_seconds: int = 0,
        beep: bool = False,
        terminate_on: Literal["none", "any", "*", "#"] = "none",
        if_exists: Literal["fail", "overwrite", "append"] = "fail",
    ) -> LiveRecording:
        """Record what the channel says, into Asterisk's recording spool; 0 seconds: no limit."""
        body = {
            "name": name,
            "format": format,
            "maxDurationSeconds": max_duration_seconds,
            "maxSilenceSeconds": max_silence_seconds,
            "beep": beep,
            "terminateOn": terminate_on,
            "ifExists": if_exists,
        }
        return await self._post(path_of("channels", channel, "record"), LiveRecording, body)

    async def stop_recording(self, name: str) -> None:
        """Stop and keep a recording; RecordingFinished follows."""
        await self._send("POST", path_of("recordings", "live", name, "stop"))

    async def set_variables(self, channel: str, variables: Mapping[str, str]) -> None:
        """Set channel variables and dialplan functions, in one request where Asterisk has it, else one by one."""
        if not variables:
            return
        if self._bulk_variables:
            try:
                await self._send("POST", path_of("channels", channel, "variables"), body={"variables": variables})
                return
            except AriError as exc:
                # An Asterisk without that operation says so in other words than for a channel that is gone.
                if not _says(exc, "resource not found"):
                    raise
                self._bulk_variables = False
                log.info("ari_bulk_variables_absent")
        for name, value in variables.items():
            body = {"variable": name, "value": value}
            await self._send("POST", path_of("channels", channel, "variable"), body=body)

    async def get_variable(self, channel: str, name: str) -> str:
        """A channel variable or function's value.

        :raises AriError: 404 when it, or the channel, does not exist
        """
        params = {"variable": name}
        return (await self._get(path_of("channels", channel, "variable"), Variable, params)).value

    async def get_variables(self, channel: str, names: Sequence[str]) -> dict[str, str]:
        """Several variables at once; those that do not exist are left out. One by one where Asterisk is older."""
        if self._bulk_variables:
            try:
                path = path_of("channels", channel, "variables")
                found = (await self._get(path, Variables, {"variables": ",".join(names)})).variables
                return {name: str(value) for name, value in found.items() if value is not None}
            except AriError as exc:
                # One missing variable fails the whole request: ask for them singly.
                if not _says(exc, "variable was not found", "resource not found"):
                    raise
        values: dict[str, str] = {}
        for name in names:
            try:
                values[name] = await self.get_variable(channel, name)
            except AriError as exc:
                if not _says(exc, "variable was not found"):
                    raise
        return values

    async def originate(
        self,
        endpoint: str,
        *,
        channel_id: str,
        app: str | None = None,
        app_args: str | None = None,
        context: str | None = None,
        extension: str | None = None,
        priority: int | None = None,
        caller_id: str | None = None,
        timeout: int | None = None,
        variables: Mapping[str, str] | None = None,
        other_channel_id: str | None = None,
        originator: str | None = None,
        formats: str | None = None,
    ) -> Channel:
        """Call an endpoint; the answered channel enters the application or the dialplan.

        :param channel_id: the id of the new channel, chosen by the caller
        :param timeout: seconds to ring; -1 for ever; None takes Asterisk's 30 s
        :param caller_id: ``"Name" <number>`` or a number
        """
        body = {
            "endpoint": endpoint,
            "app": app,
            "appArgs": app_args,
            "context": context,
            "extension": extension,
            "priority": priority,
            "callerId": caller_id,
            "timeout": timeout,
            "otherChannelId": other_channel_id,
            "originator": originator,
            "formats": formats,
            "variables": dict(variables) if variables else None,
        }
        return await self._post(path_of("channels", channel_id), Channel, body)

    # -- bridges -------------------------------------------------------------------------------------------------------

    async def bridges(self) -> list[Bridge]:
        return await self._get("bridges", list[Bridge])

    async def delete_bridge(self, bridge: str) -> None:
        await self._send("DELETE", path_of("bridges", bridge))

    # -- the application -----------------------------------------------------------------------------------------------

    async def application(self, app: str) -> Application:
        """The application's subscriptions.

        :raises AriError: 404 when no socket ever subscribed it
        """
        return await self._get(path_of("applications", app), Application)

    async def subscribe(self, app: str, event_source: str) -> Application:
        """Get events of something outside the application.

        :param event_source: ``channel:ID``, ``bridge:ID``, ``endpoint:PJSIP/NAME`` or ``deviceState:NAME``
        :raises AriError: 410 when there is no such source any more (Asterisk itself says 422), 404 without the app
        """
        path = path_of("applications", app, "subscription")
        try:
            answer = await self._send("POST", path, {"eventSource": event_source})
        except AriError as exc:
            if exc.status == 422 and "source does not exist" in exc.message.lower():
                raise AriError(exc.message, status=410, hint=exc.hint) from exc
            raise
        return self._decode(answer, Application, "POST", path)

    async def unsubscribe(self, app: str, event_source: str) -> None:
        await self._send("DELETE", path_of("applications", app, "subscription"), {"eventSource": event_source})

    async def set_event_filter(self, app: str, allowed: Sequence[str]) -> Application:
        """Let only these event types through to the application's sockets. An empty list lets everything through."""
        path = path_of("applications", app, "eventFilter")
        body = {"allowed": [{"type": name} for name in allowed]}
        return self._decode(await self._send("PUT", path, body=body), Application, "PUT", path)

    async def claim(self, channel: str, app: str) -> bool:
        """Claim a call that waits in StasisBroadcast; True when it is ours and StasisStart follows.

        False: another application was faster (409), or the call no longer waits (404).
        """
        try:
            await self._send("POST", "events/claim", {"channelId": channel, "application": app})
        except AriError as exc:
            if exc.status in (404, 409):
                return False
            raise
        return True

    # -- Asterisk ------------------------------------------------------------------------------------------------------

    async def ping(self) -> AsteriskPing:
        return await self._get("asterisk/ping", AsteriskPing)

    async def info(self) -> AsteriskInfo:
        """Version and start time."""
        return await self._get("asterisk/info", AsteriskInfo)


def _query(params: Mapping[str, Any] | None) -> str:
    if not params:
        return ""
    pairs = []
    for name, value in params.items():
        if value is None:
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value)
        pairs.append((name, _clean(text)))
    return urlencode(pairs, quote_via=quote, errors="replace", safe="")


def _message(data: bytes) -> str:
    """Asterisk's own words for a refusal: ``{"message": "Channel not found"}``, or an HTML page's absence of them."""
    try:
        answer = decode(data, dict[str, Any])
    except ValueError:
        return ""
    return str(answer.get("message") or answer.get("error") or "")


def _says(error: AriError, *texts: str) -> bool:
    """Whether a 404 is about this: Asterisk tells a missing channel, variable and operation apart in words only."""
    return error.status == 404 and any(text in error.message.lower() for text in texts)


def reason_of(exc: BaseException) -> str:
    if isinstance(exc, aiohttp.ClientConnectorError):
        # asyncio's own text names the address again; the system's says what is wrong.
        return os.strerror(exc.os_error.errno) if exc.os_error.errno else str(exc)
    return str(exc) or type(exc).__name__
