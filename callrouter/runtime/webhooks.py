"""Asking web services over HTTP. Whatever becomes of it comes back as a value, in its time."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import msgspec
import structlog
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

import callrouter
from callrouter.core import actions as a
from callrouter.core.flow.urls import Hosts, host_of, refused
from callrouter.core.records import Reply, WebhookResult
from callrouter.core.webhooks import read_reply
from callrouter.errors import InputError

log = structlog.get_logger(__name__)

SIGNATURE = "X-Callrouter-Signature"
AT_ONCE = 50
"""Requests that run at the same time; a service that hangs must not gather more."""
MAX_ANSWER = 16_384
"""Bytes."""
MAX_REASON = 200
MAX_LOOKUPS = 20
"""Threads that wait for a name server, which may outlast the requests by far."""


def signature(secret: str, body: bytes, at: int) -> str:
    """What proves that a question is ours, and when it was asked.

    :param at: seconds since the epoch
    """
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


class Webhooks:
    """Asks the services that the settings name.

    :param secret: gives what questions are signed with, None: nothing is asked
    """

    def __init__(self, hosts: Hosts = (), secret: Callable[[], str] | None = None, at_once: int = AT_ONCE) -> None:
        self._hosts = hosts
        self._secret = secret
        self._at_once = at_once
        self._session: aiohttp.ClientSession | None = None
        self.running = 0
        """Requests that run now."""

    async def aclose(self) -> None:
        """Nothing more is asked."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def ask(self, asked: a.AskWebhook) -> Reply:
        """Ask a service; never longer than the question allows."""
        if (no := refused(asked.url, self._hosts)) is not None:
            return _failed(f"not asked: {no[0]}")
        if self._secret is None:
            return _failed("not asked: there is no secret to sign with")
        if self.running >= self._at_once:
            log.warning("webhooks_full", host=host_of(asked.url), running=self.running)
            return _failed(f"not asked: {self.running} requests run already")
        self.running += 1
        try:
            async with asyncio.timeout(asked.timeout):
                return await self._post(asked, self._secret())
        except TimeoutError:
            return Reply(WebhookResult.TIMEOUT)
        except InputError as exc:
            return _failed(exc.message)
        except aiohttp.ClientError as exc:
            return _failed(_words(exc))
        except Exception as exc:  # a caller waits for it
            log.exception("webhook_broke", call=asked.question.call)
            return _failed(f"an internal error: {type(exc).__name__}")
        finally:
            self.running -= 1

    async def _post(self, asked: a.AskWebhook, secret: str) -> Reply:
        body = msgspec.json.encode(asked.question.fields())
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"callrouter/{callrouter.__version__}",
            SIGNATURE: signature(secret, body, int(time.time())),
        }
        session = self._session = self._session or _session()
        url = URL(asked.url, encoded=True)
        async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            if 300 <= response.status < 400:
                raise InputError(f"it answered {response.status}, and redirects are not followed")
            if not 200 <= response.status < 300:
                raise InputError(f"it answered {response.status}")
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise InputError("its answer is compressed, which was not asked for")
            answer = b""
            async for piece in response.content.iter_any():
                answer += piece
                if len(answer) > MAX_ANSWER:
                    response.close()
                    raise InputError(f"its answer has more than {MAX_ANSWER} bytes")
        try:
            return read_reply(msgspec.json.decode(answer))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            raise InputError("its answer is no JSON") from exc


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, resolver=_Names()),
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
    )


def _failed(reason: str) -> Reply:
    shown = "".join(char if char.isprintable() else "?" for char in reason)
    return Reply(WebhookResult.FAILED, shown[:MAX_REASON])


def _words(exc: aiohttp.ClientError) -> str:
    match exc:
        case aiohttp.ClientConnectorCertificateError():
            return f"its certificate is not accepted: {getattr(exc.certificate_error, 'verify_message', '')}".rstrip(
                ": "
            )
        case aiohttp.ClientSSLError():
            return "no encrypted connection came about"
        case aiohttp.ClientConnectorDNSError():
            return "its name cannot be resolved"
        case aiohttp.ClientConnectorError():
            return f"not reached: {exc.os_error.strerror or type(exc.os_error).__name__}"
        case aiohttp.ServerDisconnectedError():
            return "it closed the connection without an answer"
    return f"its answer could not be read ({type(exc).__name__})"


class _Names(AbstractResolver):
    """Looks names up in threads of its own: a name server that hangs must not hold up what else runs in threads."""

    def __init__(self) -> None:
        self._running = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if self._running >= MAX_LOOKUPS:
            raise OSError("too many names are looked up already")
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[Any]] = loop.create_future()

        def done(result: list[Any] | OSError) -> None:
            self._running -= 1
            if found.done():
                return
            if isinstance(result, OSError):
                found.set_exception(result)
            else:
                found.set_result(result)

        def look() -> None:
            result: list[Any] | OSError
            try:
                result = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
            except OSError as exc:
                result = exc
            except UnicodeError:
                result = OSError("no name of a host")
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(done, result)

        self._running += 1
        threading.Thread(target=look, name="webhook-name", daemon=True).start()
        return [
            ResolveResult(
                hostname=host, host=address[0], port=address[1], family=kind, proto=proto, flags=socket.AI_NUMERICHOST
            )
            for kind, _, proto, _, address in await found
        ]

    async def close(self) -> None:
        """Nothing is kept."""
