"""Calls that ask a web service, and the service that the guide shows."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from callrouter.core import events as e
from callrouter.core.flow.urls import parse_hosts
from callrouter.core.records import Reply, WebhookResult
from callrouter.core.state import Asking, Choosing, HandedOver
from callrouter.runtime.webhooks import Webhooks
from tests.builders import run, table
from tests.call_scripts import flow
from tests.contract.runtime.support import Rig, open_rig, until
from tests.contract.runtime.web_service import SECRET, Service, question, service, webhooks
from tests.fixtures.own_settings import free_port

__all__ = ["service", "webhooks"]

GUIDE = Path(__file__).resolve().parents[3] / "docs/guides/webhook.md"
OK, FAILED = WebhookResult.ANSWERED, WebhookResult.FAILED


def asking(service: Service, path: str, timeout: float = 5.0) -> str:
    return flow(
        "crm",
        f"crm: {{type: webhook, url: '{service.url(path)}', timeout: {timeout}, branches: {{vip: menu}}, "
        "next: plain, on_timeout: slow, on_failed: broken}",
        "menu: {type: menu, prompt: Press 1, options: {1: bye}, on_exhausted: bye}",
        "plain: {type: hangup, cause: normal}",
        "slow: {type: hangup, cause: busy}",
        "broken: {type: hangup, cause: congestion}",
    )


@pytest.fixture
async def asking_rig(tmp_path: Path, webhooks: Webhooks) -> AsyncIterator[Rig]:
    async with open_rig(tmp_path, webhooks=webhooks) as rig:
        yield rig
        await webhooks.aclose()  # the service's end of a connection is a task, too


async def test_a_caller_waits_for_the_answer_and_goes_on_by_it(asking_rig, service):
    rig: Rig = asking_rig
    await rig.use(table(asking(service, "/")))
    rig.asterisk.call("call-1")
    await until(lambda: "WebhookAnswered" in rig.types())
    await rig.requested("call-1", "answer", "play")
    rig.asterisk.hangup("call-1")
    await rig.idle()
    record = rig.record()
    assert (record.path, record.tags, record.values) == (("crm", "menu"), ("gold",), (("account", "17"),))


@pytest.mark.parametrize("path, cause", [("/empty", 16), ("/500", 34), ("/hang", 17)])
async def test_a_caller_is_not_kept_by_a_service_that_fails(asking_rig, service, path, cause):
    rig: Rig = asking_rig
    await rig.use(table(asking(service, path, 0.3)))
    rig.asterisk.call("call-1")
    await until(lambda: "Concluded" in rig.types())
    assert rig.record().cause == cause
    assert rig.asterisk.of("call-1") == ["delete"], "never answered"


async def test_a_service_that_hangs_holds_up_no_other_call(asking_rig, service):
    rig: Rig = asking_rig
    await rig.use(table(asking(service, "/hang", 10)))
    rig.asterisk.call("call-1")
    await rig.waits_in("call-1", Asking)
    await rig.use(table(asking(service, "/")))
    rig.asterisk.call("call-2")
    await rig.requested("call-2", "answer", "play")
    assert isinstance(rig.dispatcher.get("call-1").session.wait, Asking)  # type: ignore[union-attr]


async def test_a_caller_who_leaves_gives_the_request_up(asking_rig, service, webhooks):
    rig: Rig = asking_rig
    await rig.use(table(asking(service, "/hang", 10)))
    rig.asterisk.call("call-1")
    await rig.waits_in("call-1", Asking)
    await until(lambda: service.asked)
    rig.asterisk.hangup("call-1")
    await rig.idle()
    await until(lambda: service.left == ["/hang"], "the connection was closed")
    assert webhooks.running == 0
    assert "WebhookAnswered" not in rig.types()


async def test_a_server_that_stops_gives_the_caller_to_the_failsafe(asking_rig, service, webhooks):
    rig: Rig = asking_rig
    await rig.use(table(asking(service, "/hang", 10)))
    rig.asterisk.call("call-1")
    await rig.waits_in("call-1", Asking)
    await rig.dispatcher.hand_over()
    await rig.waits_in("call-1", HandedOver)
    await until(lambda: webhooks.running == 0)
    assert rig.asterisk.of("call-1")[-1] == "continue cr-failsafe"


async def test_without_services_that_may_be_asked_a_call_goes_by_the_failure(rig, service):
    await rig.use(table(asking(service, "/")))
    rig.asterisk.call("call-1")
    await until(lambda: "Concluded" in rig.types())
    assert (rig.record().cause, service.asked) == (34, [])
    (answer,) = [entry for entry in rig.entries() if isinstance(entry, e.WebhookAnswered)]
    assert answer.reply.reason.endswith("is not among webhook_hosts")


async def test_an_answer_in_the_journal_is_not_asked_for_again(asking_rig, service):
    rig: Rig = asking_rig
    routing = await rig.use(table(asking(service, "/")))
    rig.asterisk.call("call-1")
    await until(lambda: "WebhookAnswered" in rig.types())
    await rig.requested("call-1", "answer", "play")
    call = rig.dispatcher.get("call-1")
    assert call is not None
    events = [entry for entry in rig.entries() if isinstance(entry, e.Event)]
    assert run(routing, events, type(call.session)(call.id)).session == call.session
    (playback,) = rig.asterisk.playbacks
    rig.asterisk.finish_playback(playback)
    await rig.waits_in("call-1", Choosing)
    assert len(service.asked) == 1


# -- the guide's service -----------------------------------------------------------------------------------------------


@pytest.fixture
async def documented(tmp_path: Path) -> AsyncIterator[int]:
    """The service of the guide, as it stands there but for its port; gives the port."""
    (text,) = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    port = free_port("127.0.0.1", socket.SOCK_STREAM)
    assert text.count("9000") == 1
    (tmp_path / "service.py").write_text(text.replace("9000", str(port)))
    (tmp_path / "callrouter-secret").write_text(f"{SECRET}\n")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "service.py", cwd=tmp_path, stderr=asyncio.subprocess.DEVNULL
    )

    def listens() -> bool:
        with socket.socket() as line:
            return line.connect_ex(("127.0.0.1", port)) == 0

    await until(listens, "the service", 30)
    yield port
    process.kill()
    await process.wait()


@pytest.mark.parametrize(
    "secret, caller, expected",
    [
        (SECRET, "+13125550199", Reply(OK, "", "vip", ("customer",), (("account", "4711"),))),
        (SECRET, "+13125550198", Reply(OK)),
        (SECRET, None, Reply(OK)),
        ("another one", "+13125550199", Reply(FAILED, "it answered 403")),
    ],
)
async def test_the_service_of_the_guide_checks_who_asks(documented, secret, caller, expected):
    made = Webhooks(parse_hosts(f"127.0.0.1:{documented}"), lambda: secret)
    assert await made.ask(question(f"http://127.0.0.1:{documented}/", caller=caller)) == expected
    await made.aclose()


async def test_the_service_of_the_guide_refuses_an_old_question(documented, monkeypatch):
    made = Webhooks(parse_hosts(f"127.0.0.1:{documented}"), lambda: SECRET)
    monkeypatch.setattr(time, "time", lambda: 1_760_000_000.0)
    assert await made.ask(question(f"http://127.0.0.1:{documented}/")) == Reply(FAILED, "it answered 403")
    await made.aclose()
