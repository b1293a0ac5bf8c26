"""Asking web services: a real HTTP server on loopback that answers well, badly, late or never."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from callrouter.asterisk.tls import self_signed
from callrouter.core import actions as a
from callrouter.core.flow.urls import parse_hosts
from callrouter.core.records import Reply, WebhookResult
from callrouter.runtime import webhooks as module
from callrouter.runtime.webhooks import Webhooks
from tests.builders import CALL, arrived, run, table
from tests.call_scripts import flow, key, keys, said
from tests.contract.runtime.support import until
from tests.contract.runtime.web_service import SECRET, question, says, service, serving, webhooks

__all__ = ["service", "webhooks"]

OK, TIMEOUT, FAILED = WebhookResult.ANSWERED, WebhookResult.TIMEOUT, WebhookResult.FAILED


@pytest.mark.parametrize(
    "path, expected",
    [
        ("/", Reply(OK, "", "vip", ("gold",), (("account", "17"),))),
        ("/created", Reply(OK, "", "vip", ("gold",), (("account", "17"),))),
        ("/empty", Reply(OK)),
        ("/full", Reply(OK)),
        ("/500", Reply(FAILED, "it answered 500")),
        ("/404", Reply(FAILED, "it answered 404")),
        ("/302", Reply(FAILED, "it answered 302, and redirects are not followed")),
        ("/307", Reply(FAILED, "it answered 307, and redirects are not followed")),
        ("/huge", Reply(FAILED, "its answer has more than 16384 bytes")),
        ("/endless", Reply(FAILED, "its answer has more than 16384 bytes")),
        ("/html", Reply(FAILED, "its answer is no JSON")),
        ("/nothing", Reply(FAILED, "its answer is no JSON")),
        ("/deep", Reply(FAILED, "its answer is no JSON")),
        ("/latin", Reply(FAILED, "its answer is no JSON")),
        ("/list", Reply(FAILED, "the answer is no JSON object")),
        ("/badtag", Reply(FAILED, "'a,b' is no tag")),
        ("/gzip", Reply(FAILED, "its answer is compressed, which was not asked for")),
        ("/cut", Reply(FAILED, "it closed the connection without an answer")),
    ],
)
async def test_every_answer_comes_back_as_a_value(service, webhooks, path, expected):
    assert await webhooks.ask(question(service.url(path))) == expected
    assert [asked for asked, *_ in service.asked] == [path], "asked once, and nobody else"
    assert webhooks.running == 0


@pytest.mark.parametrize("path", ["/hang", "/slow"])
async def test_the_time_is_for_everything(service, webhooks, path):
    assert await webhooks.ask(question(service.url(path), 0.5)) == Reply(TIMEOUT)
    await until(lambda: webhooks.running == 0)


@pytest.mark.parametrize(
    "sent", [b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 70_000 + b"\r\n\r\n", b"\x16\x03\x01"]
)
async def test_a_service_that_speaks_something_else(sent):
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sent)
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        made = Webhooks(parse_hosts(f"127.0.0.1:{port}"), lambda: SECRET)
        reply = await made.ask(question(f"http://127.0.0.1:{port}/"))
        await made.aclose()
    assert reply.result is FAILED
    assert reply.reason.startswith(("its answer could not be read", "it closed the connection")), reply


async def test_a_service_that_is_not_there(webhooks, service):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        nobody = Webhooks(parse_hosts(f"127.0.0.1:{port}"), lambda: SECRET)
        reply = await nobody.ask(question(f"http://127.0.0.1:{port}/"))
        await nobody.aclose()
    assert reply.result is FAILED
    assert reply.reason.startswith("not reached: ")


async def test_a_name_that_nobody_knows(monkeypatch):
    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    made = Webhooks(parse_hosts("crm.example.com"), lambda: SECRET)
    assert await made.ask(question("https://crm.example.com/")) == Reply(FAILED, "its name cannot be resolved")
    await made.aclose()


async def test_a_name_server_that_hangs_holds_up_nothing_else(monkeypatch):
    free = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: free.wait(30) and [])
    made = Webhooks(parse_hosts(",".join(f"h{n}.example.com" for n in range(40))), lambda: SECRET)
    asked = [made.ask(question(f"https://h{n}.example.com/", 0.4)) for n in range(40)]
    try:
        replies = await asyncio.gather(*asked)
        assert {each.result for each in replies} == {TIMEOUT, FAILED}
        assert sum(each.result is TIMEOUT for each in replies) == module.MAX_LOOKUPS
        assert await asyncio.to_thread(lambda: "others have their threads") == "others have their threads"
    finally:
        free.set()
    await made.aclose()


async def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path):
    certificate, private = self_signed(["127.0.0.1"])
    (tmp_path / "cert.pem").write_bytes(certificate)
    (tmp_path / "key.pem").write_bytes(private)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    async with serving(context) as service:
        made = Webhooks(parse_hosts(f"127.0.0.1:{service.port}"), lambda: SECRET)
        reply = await made.ask(question(service.url("/")))
        await made.aclose()
    assert reply.result is FAILED
    assert reply.reason.startswith("its certificate is not accepted: self-signed certificate")
    assert service.asked == []


@pytest.mark.parametrize("hosts", ["", "127.0.0.1:1", "crm.example.com"])
async def test_who_is_not_listed_is_not_asked(service, hosts):
    made = Webhooks(parse_hosts(hosts), lambda: SECRET)
    reply = await made.ask(question(service.url("/")))
    assert reply.result is FAILED
    assert reply.reason == f"not asked: 127.0.0.1:{service.port} is not among webhook_hosts"
    assert service.asked == []
    await made.aclose()


async def test_so_many_at_once_and_no_more(service):
    made = Webhooks(parse_hosts(f"127.0.0.1:{service.port}"), lambda: SECRET, at_once=3)
    hanging = [asyncio.create_task(made.ask(question(service.url("/hang"), 9))) for _ in range(3)]
    await until(lambda: len(service.asked) == 3)
    assert await made.ask(question(service.url("/"))) == Reply(FAILED, "not asked: 3 requests run already")
    for each in hanging:
        each.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)
    assert (await made.ask(question(service.url("/")))).result is OK
    await made.aclose()


async def test_proxies_of_the_environment_are_not_used(service, webhooks, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:1")
    assert (await webhooks.ask(question(service.url("/")))).result is OK


async def test_no_cookie_is_kept(service, webhooks):
    service.ways["/cookie"] = says({}, headers={"Set-Cookie": "who=you; Path=/"})
    for _ in range(2):
        await webhooks.ask(question(service.url("/cookie")))
    assert [headers.get("Cookie") for *_, headers in service.asked] == [None, None]


async def test_the_question_is_signed(service, webhooks):
    before = int(time.time())
    await webhooks.ask(question(service.url("/")))
    ((_, body, headers),) = service.asked
    given = dict(part.split("=", 1) for part in headers["X-Callrouter-Signature"].split(","))
    assert before <= int(given["t"]) <= time.time()
    wanted = hmac.new(SECRET.encode(), given["t"].encode() + b"." + body, hashlib.sha256).hexdigest()
    assert given == {"t": given["t"], "v1": wanted}
    assert headers["Content-Type"] == "application/json"
    told = json.loads(body)
    assert (told["version"], told["call"], told["caller"], told["node"]) == (1, CALL, "+13125550199", "crm")
    assert SECRET not in str(headers)
    assert SECRET.encode() not in body


async def test_the_secret_is_in_no_log(service, webhooks, caplog, capsys):
    with caplog.at_level(logging.DEBUG):
        for path in ("/", "/500", "/cut", "/html"):
            await webhooks.ask(question(service.url(path)))
        await Webhooks(parse_hosts(f"127.0.0.1:{service.port}"), lambda: SECRET, 0).ask(question(service.url("/")))
    shown = capsys.readouterr()
    assert SECRET not in caplog.text + shown.out + shown.err


async def test_sensitive_digits_are_not_sent(service, webhooks):
    text = flow(
        "zip",
        "zip: {type: gather, prompt: P, name: zip, min: 5, max: 5, next: pin, on_exhausted: bye}",
        "pin: {type: gather, prompt: P, name: pin, min: 7, max: 7, sensitive: yes, next: crm, on_exhausted: bye}",
        f"crm: {{type: webhook, url: '{service.url('/')}', next: bye, on_failed: bye}}",
    )
    pressed = [said("p1"), *keys("60614"), said("p7", 6), *keys("8675309", 7), key("5", 30)]
    (asked,) = run(table(text), [arrived(), *pressed]).actions_of(a.AskWebhook)
    await webhooks.ask(asked)
    ((_, body, _),) = service.asked
    assert json.loads(body)["digits"] == {"zip": "60614"}
    assert b"8675309" not in body
    assert b"pin" in body, "the node is in the path"


async def test_a_withheld_number_is_not_sent(service, webhooks):
    await webhooks.ask(question(service.url("/"), caller=None, caller_name="Ann"))
    ((_, body, _),) = service.asked
    assert json.loads(body)["caller"] is None
    assert b"Ann" not in body
