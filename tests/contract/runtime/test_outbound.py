"""Legs over trunks are counted while they are dialled or talk, and no longer: whatever happens to a call."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callrouter.core import actions as a
from callrouter.core import events as e
from callrouter.core.cdr import LogItem, fold
from callrouter.core.outbound import Cap, Usage
from callrouter.core.routing import RoutingTable
from callrouter.core.state import Calling
from callrouter.runtime.call import Call
from callrouter.runtime.executor import DONE, Executor, Outcome
from callrouter.runtime.outbound import ALARM_SECONDS, Outbound
from callrouter.runtime.recovery import rebuild
from callrouter.store.outbound import StoredLeg
from tests.builders import CALL, CELL, CELL_THEN_ANA, T0, arrived, company, table, trunk
from tests.random_flows import ENDINGS, HAPPENINGS, Move, moves, tables

DIAL = a.Dial(
    "c-l1", "t", "cell", "PJSIP/+12025550177@trunk-a", 20, None, trunk="a", number="+12025550177", rate=60_000
)
LIMITED = company(max_outbound_calls=2, max_outbound_per_hour=3, max_spend_per_day=100)


def dial(leg: str) -> a.Dial:
    return replace(DIAL, leg_id=leg)


class Willing(Executor):
    """An Asterisk that does what it is asked, and says nothing."""

    def __init__(self) -> None:
        self.done: list[a.Action] = []

    async def perform(self, channel: str, company_id: str, action: a.Action) -> Outcome:
        self.done.append(action)
        return DONE


class Notebook:
    def __init__(self) -> None:
        self.entries: list[LogItem] = []

    def append(self, call_id: str, entry: LogItem) -> None:
        self.entries.append(entry)


async def settled(call: Call) -> None:
    """Until a call has taken all there is for it: nothing it awaits here takes a turn of the loop."""
    quiet = 0
    while quiet < 5 and not call._task.done():
        await asyncio.sleep(0)
        quiet = quiet + 1 if call._queue.empty() else 0


async def live(routing: RoutingTable, happens: list[Move], outbound: Outbound) -> tuple[Call, Willing, Notebook]:
    executor, notebook = Willing(), Notebook()
    call = Call(CALL, "1.1", routing, notebook, executor, lambda _: None, outbound=outbound)
    call.put(arrived())
    await settled(call)
    now = T0
    for move in happens:
        now += move.after
        if call._task.done():
            break
        call.put(move.event(call.session, now))
        await settled(call)
        wait = call.session.wait
        expected = 1 if isinstance(wait, Calling) and wait.trunk is not None else 0
        assert sum(outbound.running.values()) == expected, move
    return call, executor, notebook


KINDS = [kind for kind in HAPPENINGS if kind not in ("recording", "playback")]
"""Those two wait a moment for a hang-up."""


@settings(max_examples=150, deadline=None)
@given(
    routing=tables(), happens=st.lists(moves(KINDS + ENDINGS), max_size=15), end=st.sampled_from(["gone", "dropped"])
)
def test_a_slot_never_leaks(routing: RoutingTable, happens: list[Move], end: str) -> None:
    async def scenario() -> None:
        outbound = Outbound()
        call, executor, _ = await live(routing, happens, outbound)
        if not call._task.done():
            if end == "gone":
                call.put(e.CallerHungUp(T0 + 9999))
                await call.wait()
            else:
                call.abandon()
                await asyncio.gather(call._task, return_exceptions=True)
        assert outbound.running == {}
        dialled = [one for one in executor.done if isinstance(one, a.Dial) and one.trunk is not None]
        company_of = next(iter(routing.entries.values())).company
        assert outbound.usage(company_of, _clock(outbound)).last_hour == len({one.leg_id for one in dialled})

    asyncio.run(scenario())


def _clock(outbound: Outbound) -> float:
    """An instant at which all that was counted lies in the last hour."""
    starts = [start for account in outbound._accounts.values() for start in account.starts]
    return max(starts, default=T0)


def test_the_caps_in_turn():
    outbound = Outbound()
    assert outbound.ask(LIMITED, dial("l1"), T0) is None
    assert outbound.ask(LIMITED, dial("l2"), T0 + 1) is None
    refusal = outbound.ask(LIMITED, dial("l3"), T0 + 2)
    assert refusal is not None
    assert refusal.cap is Cap.CALLS
    outbound.ended("l1", T0 + 3)
    assert outbound.ask(LIMITED, dial("l4"), T0 + 4) is None
    outbound.ended("l2", T0 + 5)
    hour = outbound.ask(LIMITED, dial("l5"), T0 + 6)
    assert hour is not None
    assert hour.cap is Cap.PER_HOUR
    assert outbound.usage(LIMITED, T0 + 6) == Usage(1, 3, 0), "a refused leg counts nowhere"
    assert outbound.ask(LIMITED, dial("l6"), T0 + 3601) is None, "an hour after the first"


def test_spend_counts_what_runs():
    outbound = Outbound()
    dear = company(max_spend_per_day=100)  # 1.00
    assert outbound.ask(dear, dial("l1"), T0) is None
    outbound.answered("l1", T0)
    assert outbound.usage(dear, T0 + 600).spent == 600_000
    assert outbound.ask(dear, dial("l2"), T0 + 600) is None
    refusal = outbound.ask(dear, dial("l3"), T0 + 1000)
    assert refusal is not None
    assert (refusal.cap, refusal.reason) == (Cap.SPEND, "1.00 spent today; the company may spend 1.00")
    outbound.ended("l1", T0 + 1000)
    assert outbound.usage(dear, T0 + 2000).spent == 1_000_000
    assert outbound.usage(dear, T0 + 86_400).spent == 0, "another day"


def test_what_is_told_twice_counts_once():
    outbound = Outbound()
    stored = StoredLeg("l1", "company-1", T0, 0)
    outbound.learn([stored, stored])
    outbound.adopt("company-1", "l1", T0, 60_000)
    outbound.learn([stored])
    assert outbound.usage(LIMITED, T0 + 1) == Usage(1, 1, 0)
    outbound.answered("l1", T0 + 1)
    outbound.ended("l1", T0 + 31)
    outbound.learn([StoredLeg("l1", "company-1", T0, 0), StoredLeg("l2", "company-1", T0 + 2, 7)])
    assert outbound.usage(LIMITED, T0 + 40) == Usage(0, 2, 30_007)


def test_an_alarm_lasts_until_there_has_been_room_for_a_while():
    outbound = Outbound()
    for leg in ("l1", "l2", "l3", "l4"):
        outbound.ask(LIMITED, dial(leg), T0)
    (alarm,) = outbound.alarms(T0 + 1)
    assert (alarm.company, alarm.cap, alarm.count, alarm.since) == ("acme", Cap.CALLS, 2, T0)
    assert outbound.alarms(T0 + 2 * ALARM_SECONDS), "there is no room yet"
    outbound.ended("l1", T0 + 700)
    assert outbound.alarms(T0 + 100)
    assert outbound.alarms(T0 + 2 * ALARM_SECONDS) == []


@pytest.mark.parametrize("places", [1, 2, 3, 4, 5])
def test_after_a_kill_the_count_is_the_same(places: int) -> None:
    """Killed after any entry of a call's log: an adopted call holds its slot, once."""
    routing = table(CELL_THEN_ANA, targets=[CELL], trunks=[trunk("a")])

    async def scenario() -> None:
        outbound = Outbound()
        call, _, notebook = await live(routing, [], outbound)
        call.put(e.LegStarted(T0 + 1, "c-l1", "peer"))
        call.put(e.LegAnswered(T0 + 5, "c-l1"))
        await settled(call)
        call.abandon()
        log = notebook.entries[:places]
        session, _ = rebuild(CALL, log, routing)
        again = Outbound()
        record = fold(log)
        again.learn(StoredLeg(leg.id, "company-1", leg.started_at, 0) for leg in (record.legs if record else ()))
        adopted = Call(CALL, "1.1", routing, Notebook(), Willing(), lambda _: None, session, again)
        adopted.put(e.Resumed(T0 + 20, inside=not getattr(session.wait, "channel", "")))
        await settled(adopted)
        usage = again.usage(LIMITED, max(_clock(again), T0 + 20))
        assert (usage.calls, usage.last_hour) == (1, 1)
        adopted.put(e.CallerHungUp(T0 + 65))
        await adopted.wait()
        assert again.running == {}

    asyncio.run(scenario())


def test_a_call_that_may_not_dial_goes_on_in_its_flow() -> None:
    routing = table(CELL_THEN_ANA, targets=[CELL], trunks=[trunk("a")], of=company(max_outbound_calls=0))

    async def scenario() -> None:
        outbound = Outbound()
        call, executor, notebook = await live(routing, [], outbound)
        await settled(call)
        assert [one.target for one in executor.done if isinstance(one, a.Dial)] == ["ana"]
        assert [one.cap for one in notebook.entries if isinstance(one, e.DialRefused)] == ["calls"]
        call.abandon()
        await asyncio.gather(call._task, return_exceptions=True)

    asyncio.run(scenario())
