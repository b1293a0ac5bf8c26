"""Between server and Asterisk lies a network that drops, delays and swallows: no call is lost, none is told twice.

(Both are on one machine as a rule. A container network, a firewall's idle time, an Asterisk that hangs look like this.)
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

import pytest
import pytest_asyncio

from callrouter.core.disposition import Disposition
from callrouter.store.calls import StoredCall
from callrouter.testing.carrier_script import Answered, Digits, Hangup, UntilHangup, Wait, answer
from tests.acceptance.conversations import sales_menu
from tests.fixtures.installation import BUSINESS_HZ, Business, Installation, changed, eventually, installation
from tests.fixtures.proxy import Proxy, proxy

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="session")]

NOTICED = 3.0
"""Seconds in which either side must see that the other is gone."""
DESK = {"desk": answer(after=0.2, speak=f"tone:{BUSINESS_HZ}")}
TALK = (Answered(), Wait(2.0), Hangup())
MENU = sales_menu(timeout=3)
CHOOSE = (Wait(1.5), Digits("1"), UntilHangup())
MENU_DESK = {"desk": answer(after=0.2, speak=f"tone:{BUSINESS_HZ}", hang_up_after=2.0)}


@dataclass(frozen=True)
class Line:
    """An installation whose server reaches its Asterisk through proxies."""

    place: Installation
    ari: Proxy
    ami: Proxy
    direct: Business
    menu: Business

    @property
    def both(self) -> tuple[Proxy, Proxy]:
        return self.ari, self.ami

    def log(self, since: float, *events: str) -> list[float]:
        """When the server logged events, seconds since the epoch."""
        found = []
        for line in self.place.server_log().splitlines():
            told = json.loads(line) if line.startswith("{") else {}
            if told.get("event") in events:
                at = _moment(told["timestamp"])
                if at >= since:
                    found.append(at)
        return found

    def state(self) -> tuple[str, bool]:
        status = self.place.status()
        return status.get("ari", {}).get("state", ""), status.get("ami", {}).get("connected", False)

    async def connected(self) -> None:
        await eventually(lambda: self.state() == ("connected", True), "both connections", 15)

    async def clean(self, callers: Iterable[str]) -> list[StoredCall]:
        """Each caller reached the business, has one finished record, and nothing is left in Asterisk or here."""
        found = []
        for caller in callers:
            business = self.direct if caller.startswith("+1312") else self.menu
            [call] = await self.place.records_of(business.did, caller, seconds=60)
            assert call.record.disposition is Disposition.ANSWERED, call.record.trace
            assert len([leg for leg in call.record.legs if leg.answered_at is not None]) == 1
            assert [each.status for each in call.recordings] == ["ok"]
            found.append(call)
        await self.place.idle()
        await eventually(lambda: self.place.status()["calls"] == 0, "no call left in the server")
        async with self.place.ari() as ari:
            assert (await ari.application(self.place.settings.ari_app)).channel_ids == []
            assert await ari.bridges() == []
        assert "Traceback" not in self.place.server_log()
        return found

    async def calls(self, kinds: Iterable[str], apart: float) -> list[str]:
        """Calls one after another, each on its own; the callers. All of them have talked."""
        callers, tasks = [], []
        for kind in kinds:
            caller = f"+1{312 if kind == 'direct' else 415}{random.randrange(2_000_000, 9_999_999)}"
            callers.append(caller)
            business, steps = (self.direct, TALK) if kind == "direct" else (self.menu, CHOOSE)
            tasks.append(asyncio.create_task(self.place.place(business, caller=caller, steps=steps, max_seconds=45)))
            await asyncio.sleep(apart)
        for result in await asyncio.gather(*tasks):
            assert result.answered, result
        return callers


def _moment(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def line() -> AsyncIterator[Line]:
    async with installation() as place:
        real = place.settings
        direct = await place.business(DESK)
        menu = await place.business(MENU_DESK, flow=MENU)
        async with proxy((real.ari_host, real.ari_port)) as ari, proxy((real.ami_host, real.ami_port)) as ami:
            # Asterisk runs already; the server finds the proxies under the ports of its settings.
            changed(real, ari_port=ari.address[1], ami_port=ami.address[1])
            await place.spawn_server()
            yield Line(place, ari, ami, direct, menu)
            await place.end_child(signal.SIGTERM)


async def test_connections_that_are_dropped_all_the_time(line: Line) -> None:
    """Reset, or cut in the middle of an event or an answer."""
    seed = int(os.environ.get("CALLROUTER_SEED", "0")) or random.randrange(10**6)
    rng = random.Random(seed)
    await line.connected()
    before = line.ari.accepted
    calling = asyncio.create_task(line.calls(["direct", "menu"] * 10, 0.5))
    while not calling.done():
        for each in line.both:
            rng.choice((each.reset, each.cut))()
        await asyncio.wait({calling}, timeout=rng.uniform(0.3, 2.0))
    callers = await calling
    await line.connected()
    assert line.ari.accepted - before > 8, "nothing was dropped"
    found = await line.clean(callers)
    assert {call.record.handled_by for call in found} >= {"controller"}, f"seed {seed}"


async def test_half_open_connections_are_noticed_by_both_sides(line: Line) -> None:
    await line.connected()
    talking = asyncio.create_task(line.calls(["direct"], 1.0))
    choosing = asyncio.create_task(line.calls(["menu"], 1.0))
    await eventually(lambda: line.place.status()["calls"] == 2, "two calls")
    began = time.time()
    for each in line.both:
        each.swallowing = True
    # Asterisk's side: nobody claims the new call, and the failsafe takes it.
    arriving = asyncio.create_task(line.calls(["direct"], 0.1))
    # Ours:
    await eventually(lambda: len(line.log(began, "ari_disconnected")) > 0, "the loss of ARI", NOTICED + 2)
    await eventually(lambda: len(line.log(began, "ami_disconnected")) > 0, "the loss of AMI", NOTICED + 2)
    noticed = [line.log(began, f"{which}_disconnected")[0] - began for which in ("ari", "ami")]
    assert max(noticed) <= NOTICED, noticed
    callers = await arriving
    for each in line.both:
        each.swallowing = False
    callers += await talking + await choosing
    await line.connected()
    found = await line.clean(callers)
    assert [call.record.handled_by for call in found] == ["failsafe", "controller", "controller"]


async def test_a_slow_network(line: Line) -> None:
    """A third of a second for a question and its answer: slow, and nothing else."""
    await line.connected()
    began = time.time()
    for each in line.both:
        each.delay = 0.15
    try:
        callers = await line.calls(["direct", "menu"] * 5, 0.5)
    finally:
        for each in line.both:
            each.delay = 0.0
    found = await line.clean(callers)
    assert {call.record.handled_by for call in found} == {"controller"}
    assert line.log(began, "ari_disconnected", "ami_disconnected") == [], "slow is not gone"


async def test_asterisk_that_cannot_be_reached_for_a_while(line: Line) -> None:
    """Slower than a claim may take: the failsafe rings the business, and the calls are told once."""
    await line.connected()
    for each in line.both:
        each.delay = 0.6
    try:
        callers = await line.calls(["direct"] * 4, 0.5)
    finally:
        for each in line.both:
            each.delay = 0.0
    found = await line.clean(callers)
    assert {call.record.handled_by for call in found} == {"failsafe"}
