"""Calls on real Asterisk that ask a web service: who rings by its answer, what stands in the record, and who waits."""

from __future__ import annotations

import asyncio
import json
import signal

import pytest
from aiohttp import web

from callrouter.core.disposition import Disposition
from callrouter.core.records import TraceStep
from callrouter.testing.audio import tone_present
from callrouter.testing.carrier_script import Behaviour, Digits, UntilHangup, Wait, answer
from tests.contract.runtime.web_service import Service, says, serving
from tests.fixtures.installation import Business, Installation, Seen, eventually, installation

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="session")]

FLOW = """
start: ask
nodes:
  ask: {{type: gather, prompt: Your zip, name: zip, min: 5, max: 5, next: pin, on_exhausted: end}}
  pin: {{type: gather, prompt: Your PIN, name: pin, min: 4, max: 4, sensitive: yes, next: crm, on_exhausted: end}}
  crm: {{type: webhook, url: "{url}", timeout: 9, branches: {{vip: ana}}, next: desk, on_failed: end}}
  ana: {{type: dial, target: ana, on_busy: end, on_no_answer: end, on_failed: end}}
  desk: {{type: dial, target: desk, on_busy: end, on_no_answer: end, on_failed: end}}
  end: {{type: hangup}}
"""
AT_ONCE = """
start: crm
nodes:
  crm: {{type: webhook, url: "{url}", timeout: {timeout}, branches: {{vip: ana}}, next: desk, on_timeout: desk,
         on_failed: end}}
  ana: {{type: dial, target: ana, on_busy: end, on_no_answer: end, on_failed: end}}
  desk: {{type: dial, target: desk, on_busy: end, on_no_answer: end, on_failed: end}}
  end: {{type: hangup}}
"""
HZ = {"ana": 880, "desk": 1320}
VIP = {"branch": "vip", "tags": ["gold"], "values": {"account": "4711"}}


def phones() -> dict[str, Behaviour]:
    return {name: answer(after=0.2, speak=f"tone:{hz}", hang_up_after=1.5) for name, hz in HZ.items()}


def heard(seen: Seen) -> set[str]:
    """Whose tone the caller heard."""
    assert seen.caller.heard is not None
    return {name for name, hz in HZ.items() if tone_present(seen.caller.heard, hz, min_seconds=0.6)}


async def _hang(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


def step(seen: Seen, what: str) -> TraceStep:
    (found,) = [each for each in seen.call.record.trace if each.what == what]
    return found


async def placed(place: Installation, business: Business) -> Seen:
    return await place.call(business)


async def test_the_answer_says_who_rings_and_a_service_that_hangs_holds_up_nobody_else() -> None:
    async with serving() as service, installation(webhook_hosts=f"127.0.0.1:{service.port}") as place:
        service.ways |= {"/vip": says(VIP), "/plain": says({}), "/hang": _hang, "/broken": says({}, 500)}
        await place.start_server()
        await told(place, service)
        await rings_by_the_answer(place, service)
        await nobody_else_waits(place, service)
        await place.idle()


async def told(place: Installation, service: Service) -> None:
    """Tags, values and the record; and what the service was told."""
    business = await place.business(phones(), flow=FLOW.format(url=service.url("/vip")))
    caller = place.caller()
    steps = (Wait(1.0), Digits("60614"), Wait(3.0), Digits("8273"), UntilHangup())
    seen = await place.call(business, caller=caller, steps=steps)
    record = seen.call.record
    assert record.path == ("ask", "pin", "crm", "ana"), seen.trace
    assert (record.disposition, record.answered_by) == (Disposition.ANSWERED, "ana")
    assert heard(seen) == {"ana"}
    assert (record.tags, record.values) == (("gold",), (("account", "4711"),))
    ((_, body, _),) = service.asked
    question = json.loads(body)
    assert (question["call"], question["caller"], question["number"]) == (record.id, caller, business.did)
    assert (question["campaign"], question["digits"]) == ("radio", {"zip": "60614"})
    assert b"8273" not in body.replace(record.id.encode(), b"").replace(caller.encode(), b"")
    assert seen.ledger.dialstatus == "ANSWER"


async def rings_by_the_answer(place: Installation, service: Service) -> None:
    plain = await place.business(phones(), flow=AT_ONCE.format(url=service.url("/plain"), timeout=9))
    broken = await place.business(phones(), flow=AT_ONCE.format(url=service.url("/broken"), timeout=9))
    for_plain, for_broken = await asyncio.gather(placed(place, plain), placed(place, broken))
    assert for_plain.call.record.answered_by == "desk", for_plain.trace
    assert heard(for_plain) == {"desk"}
    assert for_broken.call.record.path == ("crm", "end")
    assert (for_broken.caller.answered, for_broken.caller.sip_status) == (False, 603), "asking answers nobody"
    assert "it answered 500" in for_broken.trace


async def nobody_else_waits(place: Installation, service: Service) -> None:
    slow = await place.business(phones(), flow=AT_ONCE.format(url=service.url("/hang"), timeout=10))
    quick = await place.business(phones(), flow=AT_ONCE.format(url=service.url("/vip"), timeout=9))
    waiting = asyncio.create_task(placed(place, slow))
    await eventually(lambda: service.asked[-1][0] == "/hang", "the service that hangs is asked")
    other = await placed(place, quick)
    late = await waiting
    assert (other.call.record.answered_by, heard(other)) == ("ana", {"ana"})
    assert (late.call.record.answered_by, heard(late)) == ("desk", {"desk"})
    assert other.call.record.answered_at is not None
    assert late.call.record.started_at < other.call.record.started_at
    assert other.call.record.answered_at < step(late, "webhook: timeout").at


async def test_after_a_kill_the_service_is_asked_again_for_the_same_call() -> None:
    async with serving() as service, installation(webhook_hosts=f"127.0.0.1:{service.port}") as place:
        service.ways["/"] = _hang
        await place.spawn_server()
        business = await place.business(phones(), flow=AT_ONCE.format(url=service.url("/"), timeout=10))
        calling = asyncio.create_task(placed(place, business))
        await eventually(lambda: len(service.asked) == 1, "the service is asked")
        await place.end_child(signal.SIGKILL)
        service.ways["/"] = says(VIP)
        await place.spawn_server()
        seen = await calling
        assert (seen.call.record.answered_by, heard(seen)) == ("ana", {"ana"}), seen.trace
        assert seen.call.record.tags == ("gold",)
        assert [json.loads(body)["call"] for _, body, _ in service.asked] == [seen.call.record.id] * 2
        assert seen.call.record.path == ("crm", "crm", "ana")
        await place.end_child()
