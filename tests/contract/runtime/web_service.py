"""A web service for tests, which answers well, badly, late or never."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from callrouter.core import actions as a
from callrouter.core.flow.urls import parse_hosts
from callrouter.runtime.webhooks import MAX_ANSWER, Webhooks
from tests.builders import arrived, run, table
from tests.call_scripts import flow

SECRET = "of-the-service-and-ours-0123456789"


@dataclass
class Service:
    """A web service that does at each path what a test wants."""

    port: int = 0
    scheme: str = "http"
    asked: list[tuple[str, bytes, dict[str, str]]] = field(default_factory=list)
    """(path, body, headers) of each request."""
    left: list[str] = field(default_factory=list)
    """Paths whose request was given up by who asked."""
    ways: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = field(default_factory=dict)

    def url(self, path: str) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}{path}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path, await request.read(), dict(request.headers)))
        try:
            return await self.ways[request.path](request)
        except asyncio.CancelledError:
            self.left.append(request.path)
            raise


@asynccontextmanager
async def serving(context: ssl.SSLContext | None = None) -> AsyncIterator[Service]:
    service = Service(scheme="https" if context else "http")
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", service.answer)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    service.port = runner.addresses[0][1]
    try:
        yield service
    finally:
        await runner.cleanup()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving() as opened:
        opened.ways |= WAYS
        yield opened


@pytest.fixture
async def webhooks(service: Service) -> AsyncIterator[Webhooks]:
    made = Webhooks(parse_hosts(f"127.0.0.1:{service.port}"), lambda: SECRET)
    yield made
    await made.aclose()


async def _hang(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def _slow_body(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for piece in b'{"branch": "vip"}':
        await response.write(bytes([piece]))
        await asyncio.sleep(0.2)
    return response


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" " * 4096)


async def _compressed(request: web.Request) -> web.StreamResponse:
    response = web.Response(body=b'{"branch": "vip"}')
    response.enable_compression(web.ContentCoding.gzip)
    return response


async def _cut_off(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


def says(
    body: Any, status: int = 200, headers: dict[str, str] | None = None
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        return web.Response(body=text, status=status, headers=headers)

    return answer


VIP = {"branch": "vip", "tags": ["gold"], "values": {"account": 17}}
WAYS = {
    "/": says(VIP),
    "/created": says(VIP, 201),
    "/empty": says({}),
    "/500": says(VIP, 500),
    "/404": says(VIP, 404),
    "/302": says(VIP, 302, headers={"Location": "/"}),
    "/307": says(VIP, 307, headers={"Location": "/"}),
    "/hang": _hang,
    "/slow": _slow_body,
    "/endless": _endless,
    "/full": says(b'{"other": "' + b"x" * (MAX_ANSWER - 13) + b'"}'),
    "/huge": says(b'{"other": "' + b"x" * (MAX_ANSWER - 12) + b'"}'),
    "/html": says(b"<html>no</html>"),
    "/nothing": says(b""),
    "/list": says([1]),
    "/deep": says(b"[" * 8000 + b"]" * 8000),
    "/latin": says(b'{"branch": "\xff"}'),
    "/badtag": says({"tags": ["a,b"]}),
    "/gzip": _compressed,
    "/cut": _cut_off,
}


def question(url: str, timeout: float = 5.0, **changes: Any) -> a.AskWebhook:
    text = flow("crm", f"crm: {{type: webhook, url: '{url}', timeout: {timeout}, next: bye, on_failed: bye}}")
    return run(table(text), [arrived(**changes)]).actions_of(a.AskWebhook)[0]
