"""The machine's clock is set by an hour during a call: durations, timers, order and watchdog are as ever."""

from __future__ import annotations

import asyncio
import time

import pytest

from callrouter.core.disposition import Disposition
from callrouter.runtime.service import Server
from callrouter.store.journal import Position, read
from tests.contract.runtime.support import until
from tests.contract.runtime.world import (  # noqa: F401 - fixtures
    World,
    heard,
    in_menu,
    talking,
    told,
    tones,
    world,
)

HOUR = 3600.0
real = time.time


class Clock:
    """The machine's clock, which everybody in this process reads: ours, and the fake Asterisk."""

    step = 0.0

    def __call__(self) -> float:
        return real() + self.step


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "time", made)
    return made


def plays(world: World) -> int:
    """How often the caller in the menu was told what to choose."""
    return sum(each.startswith("play") for each in world.asterisk.of("chooses"))


async def over(server: Server, *channels: str) -> None:
    await until(lambda: not any(server.parts.dispatcher.get(each) for each in channels), "the end of the calls")


@pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["forward", "back"])
async def test_a_clock_that_is_set_during_calls(world: World, clock: Clock, told, monkeypatch, step: float) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "900000")
    began = real()
    async with world.server() as (server, task):
        await talking(world, server, "talks")
        await in_menu(world, server, "chooses")
        clock.step = step
        heard(told)
        # Nothing that is due in five seconds is due now, and the service manager hears from us as before.
        await asyncio.sleep(1.0)
        assert plays(world) == 1, "the menu's time is not up"
        assert heard(told).count("WATCHDOG=1") >= 2
        assert not task.done()
        world.asterisk.hangup("talks")
        world.asterisk.hangup("chooses")
        await over(server, "talks", "chooses")
        # And a call that begins now has the time that is right now.
        await talking(world, server, "later")
        world.asterisk.hangup("later")
        await over(server, "later")
        took = real() - began
        await until(lambda: server.parts.drain.pending == 0, "the drain")
        assert "problem" not in str(world.status().get("problems"))
    records = {record.uniqueid: record for record in await world.stored()}
    talk = records["talks"]
    assert talk.disposition is Disposition.ANSWERED
    assert 0.9 <= talk.talk_seconds <= took
    for record in records.values():
        assert record.ended_at is not None
        assert 0 <= record.ended_at - record.started_at <= took
        assert 0 <= record.ring_seconds <= took
    assert records["later"].started_at - talk.started_at == pytest.approx(step, abs=took)
    moments: dict[str, list[float]] = {}
    for line, _ in read(world.settings.journal_dir, Position()):
        assert line is not None
        moments.setdefault(line.call, []).append(line.at)
    assert all(each == sorted(each) for each in moments.values())


async def test_a_timer_fires_when_its_time_is_up_whatever_the_clock_says(world: World, clock: Clock) -> None:
    async with world.server() as (server, _):
        await in_menu(world, server, "chooses")
        before = time.monotonic()
        clock.step = -HOUR
        await until(
            lambda: plays(world) > 1,
            "the menu asks again",
            8,
        )
        assert 4.0 <= time.monotonic() - before <= 7.0
        world.asterisk.hangup("chooses")
        await over(server, "chooses")
