"""The server is killed again and again, hangs, or Asterisk dies, under load: no call is lost, none is told twice."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys

import pytest

from bench.chaos.storm import Storm
from callrouter.bootstrap import make_worker
from callrouter.core.disposition import Disposition
from callrouter.testing.carrier_script import Answered, Hangup, Wait
from tests.fixtures.installation import Installation, eventually, installation

pytestmark = [
    pytest.mark.asterisk,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.asyncio(loop_scope="session"),
]

CALLS = int(os.environ.get("CALLROUTER_CHAOS_CALLS", "1500"))
KILLS = int(os.environ.get("CALLROUTER_CHAOS_KILLS", "30"))
"""At least; the long storm is bench/chaos/run.py."""
MOST = CALLS * 2
"""Calls on a machine that needs longer for so many kills."""
PER_SECOND = 10.0
LIFE = 4.0
"""Seconds that a server lives at most once it takes calls: so the kills fit into the time that the calls take."""


def seed() -> int:
    """Of the random choices; CALLROUTER_CHAOS_SEED repeats a run."""
    return int(os.environ.get("CALLROUTER_CHAOS_SEED", "0")) or random.randrange(1, 10**6)


async def test_a_server_killed_at_random_moments(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = seed()
    async with installation() as place:
        storm = Storm(place, random.Random(chosen))
        await place.spawn_server()
        await storm.prepare()
        raining = asyncio.create_task(storm.rain(MOST, PER_SECOND, lambda n: n >= CALLS and storm.kills >= KILLS))
        try:
            await storm.kill_servers(1000, raining.done, LIFE)
            await raining
        finally:
            raining.cancel()
        account = (await storm.account(60.0)).check()
    with capsys.disabled():
        print(f"\nchaos: {PER_SECOND:g} calls/s, seed {chosen}\n{account.summary()}")
    assert account.faults == [], f"seed {chosen}:\n{account.summary()}"
    assert account.numbers["calls"] >= CALLS
    assert account.numbers["kills"] >= KILLS
    assert account.numbers["adopted"] > 0, "no call was taken up again: nothing was tried"
    assert account.numbers["slots_at_most"] > 0
    assert account.numbers["closed_at_start"] > 0
    assert account.numbers["handled_by_failsafe"] > 0


async def test_a_server_that_hangs_under_load(capsys: pytest.CaptureFixture[str]) -> None:
    """Stopped for one to five seconds: new calls go to the failsafe, and what it reads late makes no call twice."""
    chosen = seed()
    async with installation() as place:
        rng = random.Random(chosen)
        storm = Storm(place, rng)
        server = await place.spawn_server()
        await storm.prepare()
        raining = asyncio.create_task(storm.rain(250, PER_SECOND))
        try:
            for seconds in (1.0, 5.0, rng.uniform(1.0, 5.0)):
                await asyncio.sleep(rng.uniform(1.5, 3.0))
                server.send_signal(signal.SIGSTOP)
                await asyncio.sleep(seconds)
                server.send_signal(signal.SIGCONT)
            await raining
        finally:
            server.send_signal(signal.SIGCONT)
            raining.cancel()
        account = (await storm.account(60.0)).check()
        assert server.returncode is None
    with capsys.disabled():
        print(f"\nhangs: seed {chosen}\n{account.summary()}")
    assert account.faults == [], f"seed {chosen}:\n{account.summary()}"
    assert account.numbers["handled_by_failsafe"] > 0


async def test_an_upgrade_under_load(capsys: pytest.CaptureFixture[str]) -> None:
    """Stop, migrate, reload Asterisk, start: docs/guides/operating.md. The schema goes a version back first."""
    chosen = seed()
    async with installation(work=False) as place:
        rng = random.Random(chosen)
        storm = Storm(place, rng)
        await place.spawn_server()
        await storm.prepare()
        over = asyncio.Event()
        raining = asyncio.create_task(storm.rain(MOST, PER_SECOND / 2, lambda _: over.is_set()))
        try:
            await asyncio.sleep(rng.uniform(3.0, 5.0))
            assert await place.end_child(signal.SIGTERM) == 0
            await place.database.downgrade("-1")
            assert await command(place, "db", "check") != 0
            assert await command(place, "db", "upgrade") == 0
            assert await command(place, "asterisk", "reload") == 0
            await place.spawn_server()
            await asyncio.sleep(3.0)
            over.set()
            await raining
        finally:
            raining.cancel()
        assert await make_worker(place.settings, place.database).run_until_empty(120.0)
        account = (await storm.account(60.0)).check()
    with capsys.disabled():
        print(f"\nupgrade: seed {chosen}\n{account.summary()}")
    assert account.faults == [], f"seed {chosen}:\n{account.summary()}"
    assert account.numbers["handled_by_failsafe"] > 0


async def command(place: Installation, *words: str) -> int:
    """A command's exit code."""
    line = (sys.executable, "-m", "callrouter", "--home", str(place.settings.home_dir), *words)
    return await (await asyncio.create_subprocess_exec(*line)).wait()


async def test_asterisk_killed_with_calls_up(capsys: pytest.CaptureFixture[str]) -> None:
    """Its CDR file lacks the calls that were up; the server closes them, reconnects, and takes new ones."""
    chosen = seed()
    async with installation() as place:
        storm = Storm(place, random.Random(chosen))
        server = await place.spawn_server()
        await storm.prepare()
        raining = asyncio.create_task(storm.rain(80, PER_SECOND))
        await asyncio.sleep(5.0)
        up = place.status()["calls"]
        assert place.asterisk.pid is not None
        os.kill(place.asterisk.pid, signal.SIGKILL)
        await eventually(lambda: not place.asterisk.running, "Asterisk's end")
        await eventually(lambda: place.status().get("ari", {}).get("state") != "connected", "the loss was noticed")
        await place.asterisk.start()
        await eventually(lambda: place.status().get("ari", {}).get("state") == "connected", "the server is back")
        # Those who were up hear nothing any more, and hang up after a while.
        await asyncio.wait({raining}, timeout=90.0)
        raining.cancel()
        await eventually(lambda: place.status().get("calls") == 0, "no call left in the server")
        after = await place.call(storm.businesses["direct"], steps=(Answered(), Wait(2.0), Hangup()))
        assert after.call.record.disposition is Disposition.ANSWERED
        assert after.call.recordings[0].status == "ok"
        account = await storm.account(20.0, ledger_whole=False)
        assert server.returncode is None
    with capsys.disabled():
        print(f"\nAsterisk killed with {up} calls up, seed {chosen}: {len(account.rows)} records")
    assert up > 0
    assert [row.uniqueid for row in account.rows.values() if row.disposition is None] == []
    assert {channel for channel, count in account.logs.items() if count != 1} == set()
    reached = [phone for phone in account.phones if phone.answered]
    assert {phone.from_number for phone in reached} <= {row.caller for row in account.rows.values()}
    assert account.left == {}
    assert "Traceback" not in account.server_log
