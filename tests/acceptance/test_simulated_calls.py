"""What is said of a call beforehand is what becomes of it on real Asterisk: each node, decision and reason."""

from __future__ import annotations

import asyncio
import re

import pytest

from callrouter.core.records import CallRecord
from callrouter.core.routing import build_table
from callrouter.core.simulate import Answer, Inputs, Simulation, simulate
from callrouter.store.config import load_config
from callrouter.testing.carrier_script import Behaviour, Digits, UntilHangup, Wait, answer, busy, no_answer
from tests.fixtures.installation import BUSINESS_HZ, Installation, Seen

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="session")]

FLOW = """
start: hours
nodes:
  hours: {type: hours, open: 24/7, on_open: menu, on_closed: message}
  menu:
    type: menu
    prompt: For sales, press one. For anything else, please stay on the line and wait.
    options: {1: tag}
    on_exhausted: message
  tag: {type: tag, tags: [sales], next: first}
  first: {type: dial, target: desk, ring: 3, on_busy: second, on_no_answer: second, on_failed: message}
  second: {type: dial, target: shop, ring: 3, on_busy: message, on_no_answer: message, on_failed: message}
  message: {type: voicemail, greeting: Please leave a message., max_seconds: 4, on_failed: bye, on_done: bye}
  bye: {type: hangup, cause: busy}
"""
TALKS = answer(after=0.2, speak=f"tone:{BUSINESS_HZ}", hang_up_after=1.2)


async def both(
    house: Installation, inputs: Inputs, desk: Behaviour, shop: Behaviour, *steps: Wait | Digits
) -> tuple[Seen, Simulation]:
    business = await house.business({"desk": desk, "shop": shop}, flow=FLOW)
    async with house.database.session(read_only=True) as session:
        routing = build_table(await load_config(session))
    seen = await house.call(business, steps=(*steps, UntilHangup()))
    record = seen.call.record
    return seen, simulate(routing, business.did, record.caller, record.started_at, inputs)


def told(record: CallRecord) -> list[tuple[str, str, str]]:
    """A trace without what differs from call to call: ids of legs, and how many seconds something took."""
    legs = {leg.id: leg.target for leg in record.legs}
    return [
        (legs.get(step.path, step.path), step.what, re.sub(r"(message of|talked for) \d+ s", r"\1 N s", step.why))
        for step in record.trace
    ]


async def test_a_simulation_is_the_trace_of_the_call(house: Installation) -> None:
    calls = await asyncio.gather(
        both(house, Inputs(digits=("9", "1")), TALKS, TALKS, Wait(1.0), Digits("9"), Wait(1.5), Digits("1")),
        both(house, Inputs(digits=("1",), answers=(("desk", (Answer.BUSY,)),)), busy(), TALKS, Wait(1.0), Digits("1")),
        both(house, Inputs(digits=("1",), answers=(("*", (Answer.NO_ANSWER, )),)), no_answer(), no_answer(),
             Wait(1.0), Digits("1")),
    )  # fmt: skip
    for seen, simulated in calls:
        assert told(simulated.record) == told(seen.call.record)
        assert simulated.rung == tuple(leg.target for leg in seen.call.record.legs)
        assert simulated.record.disposition is seen.call.record.disposition
        assert simulated.record.cause == seen.call.record.cause
    assert [str(simulated.record.disposition) for _, simulated in calls] == ["answered", "answered", "voicemail"]
