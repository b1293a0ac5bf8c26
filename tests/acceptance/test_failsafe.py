"""Calls while the controller is absent, hangs, is killed or stops: nobody is lost, and nothing is lost."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from callrouter.core.disposition import Disposition
from callrouter.testing.audio import duration, tone_present
from callrouter.testing.carrier_script import Answered, Digits, Hangup, UntilHangup, Wait, answer, busy
from tests.acceptance.listening import part, voice
from tests.fixtures.installation import (
    BUSINESS_HZ,
    CALLER_HZ,
    Business,
    Installation,
    eventually,
    installation,
)

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="session")]

TALK = (Answered(), Wait(2.0), Hangup())
DESK = {"desk": answer(after=0.3, speak=f"tone:{BUSINESS_HZ}")}
MENU = """
start: menu
nodes:
  menu:
    type: menu
    prompt: Welcome to this business, which has many words to say before anything else happens. Please press one now.
    options: {1: dial}
    timeout: 5
    max_tries: 3
    on_exhausted: dial
  dial: {type: dial, target: desk, on_busy: end, on_no_answer: end, on_failed: end}
  end: {type: hangup}
"""

TOLD = """
start: consent
nodes:
  consent: {{type: play, prompt: "This call is recorded for quality.", next: hours}}
  hours: {{type: hours, open: "{hours}", on_open: desk, on_closed: closed}}
  desk: {{type: dial, target: desk, on_busy: end, on_no_answer: end, on_failed: end}}
  closed: {{type: play, prompt: "We are closed now. Please call again tomorrow.", next: end}}
  end: {{type: hangup}}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def lone() -> AsyncIterator[Installation]:
    """An installation whose server is a process that may be killed."""
    async with installation() as place:
        yield place


@pytest_asyncio.fixture(loop_scope="session")
async def place(lone: Installation) -> AsyncIterator[Installation]:
    """With a server that runs when the test begins."""
    if lone.child is None or lone.child.returncode is not None:
        await lone.spawn_server()
    yield lone
    if lone.child is not None and lone.child.returncode is None:
        lone.child.send_signal(signal.SIGCONT)


async def check_recorded(place: Installation, business: Business, caller: str, handled_by: str) -> None:
    """The one record of an answered call, with a whole recording."""
    [call] = await place.records_of(business.did, caller)
    record = call.record
    assert record.handled_by == handled_by
    assert record.disposition is Disposition.ANSWERED
    assert (call.company, call.campaign, record.answered_by) == (business.company, "radio", "desk")
    assert record.caller == caller
    [recording] = call.recordings
    assert (recording.status, recording.problem) == ("ok", None)
    file = place.settings.recordings / str(recording.path)
    assert tone_present(file, CALLER_HZ, channel=0)
    assert tone_present(file, BUSINESS_HZ, channel=1)
    assert duration(file) == pytest.approx(record.talk_seconds, abs=0.5)


async def on_the_phone(place: Installation, business: Business) -> None:
    async def answered() -> bool:
        calls = await place.carrier.phone_calls(business.phones["desk"])
        return bool(calls) and calls[-1].answered

    await eventually(answered, "the business answered")


async def heard_prompt(place: Installation) -> None:
    """Until a caller is in a menu: the channel is in our application, and answered."""

    async def there() -> bool:
        # Not "Stasis" alone: a call that still waits to be claimed is in StasisBroadcast.
        lines = (await place.asterisk.rx("core show channels concise")).splitlines()
        return any("!Up!" in line and "Stasis" in line for line in lines)

    await eventually(there, "a caller in the menu")


async def test_the_business_rings_without_a_server(place: Installation) -> None:
    business = await place.business(DESK, flow=MENU)
    direct = await place.business(DESK, whisper="Call from {campaign}.")
    assert await place.end_child() == 0
    callers = place.caller(), place.caller(), place.caller()
    began = time.time()
    results = await asyncio.gather(
        place.place(business, caller=callers[0], steps=TALK),
        place.place(direct, caller=callers[1], steps=TALK),
        place.place(business, caller=callers[2], steps=(Wait(0.25), Hangup())),
    )
    assert [result.answered for result in results[:2]] == [True, True]
    assert results[0].answered_at is not None
    assert results[0].answered_at - began < 3.0
    for result in results[:2]:
        assert result.heard is not None
        assert tone_present(result.heard, BUSINESS_HZ, min_seconds=1.0)
    # Who knows no menu hears none.
    assert voice(results[0].heard) == []
    await place.spawn_server()
    await check_recorded(place, business, callers[0], "failsafe")
    await check_recorded(place, direct, callers[1], "failsafe")
    [gone] = await place.records_of(business.did, callers[2])
    assert gone.record.disposition in (Disposition.ABANDONED, Disposition.NO_ANSWER)
    # Once: also when the server starts again and again.
    assert await place.end_child() == 0
    await place.spawn_server()
    await place.end_child(signal.SIGKILL)
    await place.spawn_server()
    await eventually(lambda: place.status().get("journal", {}).get("pending") == 0, "the journal is drained")
    assert len(await place.records_of(business.did, count=2)) == 2
    assert len(await place.records_of(direct.did)) == 1


async def test_an_unknown_number_without_a_server_is_refused(place: Installation) -> None:
    known = await place.business(DESK)
    assert await place.end_child() == 0
    unknown = Business(known.company, "+12025550999", "radio", {})
    result = await place.place(unknown)
    assert (result.answered, result.sip_status) == (False, 404)
    await place.spawn_server()
    [call] = await place.records_of("+12025550999")
    assert call.record.disposition is Disposition.REJECTED
    assert call.record.company_id is None


async def test_a_server_that_hangs_is_not_waited_for(place: Installation) -> None:
    business = await place.business(DESK)
    child = place.child
    assert child is not None
    child.send_signal(signal.SIGSTOP)
    try:
        caller = place.caller()
        result = await place.place(business, caller=caller, steps=TALK)
    finally:
        child.send_signal(signal.SIGCONT)
    [phone] = await place.carrier.phone_calls(business.phones["desk"])
    assert phone.started - result.started < 1.5
    assert result.answered
    await check_recorded(place, business, caller, "failsafe")


async def test_killed_in_a_conversation(place: Installation) -> None:
    """They talk on, it is recorded on, and the new server has the whole of it."""
    business = await place.business(DESK)
    caller = place.caller()
    running = asyncio.create_task(place.place(business, caller=caller, steps=(Answered(), Wait(9.0), Hangup())))
    try:
        await on_the_phone(place, business)
        await place.end_child(signal.SIGKILL)
        await place.spawn_server()
        await eventually(lambda: place.status().get("calls") == 1, "the call was adopted")
        assert not running.done(), "the machine was too slow to adopt the call while it lasted"
        result = await running
    finally:
        running.cancel()
    assert result.talk_seconds == pytest.approx(9.0, abs=0.6)
    assert result.heard is not None
    assert tone_present(result.heard, BUSINESS_HZ, min_seconds=8.0)
    [call] = await place.records_of(business.did, caller)
    assert call.record.talk_seconds == pytest.approx(9.0, abs=0.6)
    assert len(call.record.legs) == 1
    await check_recorded(place, business, caller, "controller")
    await eventually(lambda: place.status().get("calls") == 0, "no call left")


async def test_ended_while_the_server_was_away(place: Installation) -> None:
    business = await place.business(DESK)
    caller = place.caller()
    running = asyncio.create_task(place.place(business, caller=caller, steps=(Answered(), Wait(3.0), Hangup())))
    try:
        await on_the_phone(place, business)
        await place.end_child(signal.SIGKILL)
        result = await running
    finally:
        running.cancel()
    await place.idle()
    await place.spawn_server()
    [call] = await place.records_of(business.did, caller)
    assert call.record.ended_at == pytest.approx(result.ended, abs=0.6)
    assert call.record.talk_seconds == pytest.approx(result.talk_seconds, abs=0.6)
    assert "Asterisk's own record" in "".join(step.why for step in call.record.trace)
    await check_recorded(place, business, caller, "controller")


@pytest.mark.parametrize("after", [1.0, 6.0], ids=["answered-meanwhile", "still-rings"])
async def test_killed_while_it_rings(place: Installation, after: float) -> None:
    business = await place.business({"desk": answer(after=after, speak=f"tone:{BUSINESS_HZ}")})
    caller = place.caller()
    running = asyncio.create_task(place.place(business, caller=caller, steps=(Answered(), Wait(7.0), Hangup())))
    try:

        async def rings() -> bool:
            return bool(await place.carrier.phone_calls(business.phones["desk"]))

        await eventually(rings, "the phone rings")
        await place.end_child(signal.SIGKILL)
        await place.spawn_server()
        result = await running
    finally:
        running.cancel()
    assert result.answered
    await check_recorded(place, business, caller, "controller")
    [call] = await place.records_of(business.did, caller)
    assert call.record.talk_seconds == pytest.approx(7.0, abs=0.7)


async def test_killed_in_a_menu(place: Installation) -> None:
    """The menu begins again when the server is back, and the caller comes through."""
    business = await place.business(DESK, flow=MENU)
    caller = place.caller()
    # Long enough for the restart; the key comes afterwards.
    steps = (Wait(9.0), Digits("1"), Wait(4.0), Hangup())
    running = asyncio.create_task(place.place(business, caller=caller, steps=steps))
    try:
        await heard_prompt(place)
        await place.end_child(signal.SIGKILL)
        await place.spawn_server()
        result = await running
    finally:
        running.cancel()
    assert result.heard is not None
    assert tone_present(result.heard, BUSINESS_HZ, min_seconds=1.0)
    [call] = await place.records_of(business.did, caller)
    assert call.record.disposition is Disposition.ANSWERED
    assert "the controller was restarted; the node starts again" in "".join(s.why for s in call.record.trace)
    assert call.record.path == ("menu", "menu", "dial")
    await check_recorded(place, business, caller, "controller")


async def test_the_caller_hangs_up_in_the_menu_of_a_dead_server(place: Installation) -> None:
    business = await place.business(DESK, flow=MENU)
    caller = place.caller()
    running = asyncio.create_task(place.place(business, caller=caller, steps=(Answered(), Wait(6.0), Hangup())))
    try:
        await heard_prompt(place)
        await place.end_child(signal.SIGKILL)
        await running
    finally:
        running.cancel()
    await place.idle()
    await place.spawn_server()
    [call] = await place.records_of(business.did, caller)
    assert call.record.disposition is Disposition.ABANDONED
    assert call.record.reason == "the caller hung up in menu"


async def test_stopped_with_a_caller_in_a_menu(place: Installation) -> None:
    """SIGTERM: no new calls are taken, the caller gets ten seconds for a choice, and then the backup destination."""
    business = await place.business(DESK, flow=MENU)
    other = await place.business(DESK)
    callers = place.caller(), place.caller()
    # The prompt, five seconds and the next round: longer than the server waits.
    running = asyncio.create_task(place.place(business, caller=callers[0], steps=(Wait(17.0), Hangup())))
    try:
        await heard_prompt(place)
        stopping = asyncio.create_task(place.end_child(signal.SIGTERM, 30.0))
        second = await place.place(other, caller=callers[1], steps=TALK)
        assert not stopping.done()
        assert await stopping == 0
        result = await running
    finally:
        running.cancel()
    assert second.answered
    assert result.heard is not None
    assert voice(result.heard)
    assert tone_present(part(result.heard, 8.0), BUSINESS_HZ, min_seconds=1.0)
    await place.spawn_server()
    await check_recorded(place, other, callers[1], "failsafe")
    [call] = await place.records_of(business.did, callers[0])
    assert call.record.disposition is Disposition.ANSWERED
    assert call.record.answered_by is not None
    [recording] = call.recordings
    assert recording.status == "ok"


async def test_stopped_in_a_conversation(place: Installation) -> None:
    """A stop does not wait for those who talk, and does not part them."""
    business = await place.business(DESK)
    caller = place.caller()
    running = asyncio.create_task(place.place(business, caller=caller, steps=(Answered(), Wait(5.0), Hangup())))
    try:
        await on_the_phone(place, business)
        began = time.monotonic()
        assert await place.end_child(signal.SIGTERM) == 0
        assert time.monotonic() - began < 5.0
        result = await running
    finally:
        running.cancel()
    assert result.talk_seconds == pytest.approx(5.0, abs=0.5)
    await place.spawn_server()
    await check_recorded(place, business, caller, "controller")


async def test_backups_are_tried_in_turn(place: Installation) -> None:
    flow = """
start: first
nodes:
  first: {type: dial, target: first, on_busy: second, on_no_answer: second, on_failed: second}
  second: {type: dial, target: desk, on_busy: end, on_no_answer: end, on_failed: end}
  end: {type: hangup}
"""
    business = await place.business({"first": busy(), **DESK}, flow=flow)
    assert await place.end_child() == 0
    caller = place.caller()
    result = await place.place(business, caller=caller, steps=TALK)
    assert result.answered
    assert len(await place.carrier.phone_calls(business.phones["first"])) == 1
    await place.spawn_server()
    await check_recorded(place, business, caller, "failsafe")


async def test_an_open_business_is_rung_after_the_announcement(place: Installation) -> None:
    business = await place.business(DESK, flow=TOLD.format(hours="24/7"))
    assert await place.end_child() == 0
    caller = place.caller()
    result = await place.place(business, caller=caller, steps=(Answered(), Wait(6.0), Hangup()))
    await place.spawn_server()
    [(begin, end), *_] = voice(result.heard)
    assert begin < 1.5
    assert tone_present(part(result.heard, end), BUSINESS_HZ, min_seconds=1.0)
    [call] = await place.records_of(business.did, caller)
    assert (call.record.handled_by, call.record.disposition) == ("failsafe", Disposition.ANSWERED)
    # The announcement is no conversation.
    assert call.record.talk_seconds < 6.0 - end + begin
    [recording] = call.recordings
    assert (recording.status, recording.problem) == ("ok", None)


async def test_a_closed_business_says_so_and_is_not_rung(place: Installation) -> None:
    business = await place.business(DESK, flow=TOLD.format(hours="Mo-Su off"))
    assert await place.end_child() == 0
    caller = place.caller()
    result = await place.place(business, caller=caller, steps=(Answered(), UntilHangup()))
    await place.spawn_server()
    assert sum(end - begin for begin, end in voice(result.heard)) > 2.5
    assert await place.carrier.phone_calls(business.phones["desk"]) == []
    [call] = await place.records_of(business.did, caller)
    assert (call.record.handled_by, call.record.disposition) == ("failsafe", Disposition.COMPLETED)
    assert "ends at this time of the week" in call.record.reason
    assert (call.record.legs, call.record.talk_seconds) == ((), 0.0)


async def test_a_caller_who_was_let_in_is_rung_through_at_any_hour(place: Installation) -> None:
    """Who stands in the flow when the server dies has been told what there is to tell."""
    menu = 'menu: {type: menu, prompt: "Press one.", options: {1: consent}, timeout: 20, on_exhausted: consent}'
    flow = TOLD.format(hours="Mo-Su off").replace("start: consent", "start: menu")
    flow = flow.replace("nodes:", f"nodes:\n  {menu}")
    business = await place.business(DESK, flow=flow, backup="desk")
    caller = place.caller()
    running = asyncio.create_task(place.place(business, caller=caller, steps=(Wait(25.0), Hangup())))
    try:
        await heard_prompt(place)
        assert await place.end_child(timeout=40.0) == 0
        result = await running
    finally:
        running.cancel()
    assert tone_present(part(result.heard, 0.0), BUSINESS_HZ, min_seconds=1.0)
    await place.spawn_server()
    [call] = await place.records_of(business.did, caller)
    assert call.record.disposition is Disposition.ANSWERED


async def test_nothing_is_left_behind(place: Installation) -> None:
    await place.idle()
    await eventually(lambda: place.status().get("calls") == 0, "no call left")
    assert "Traceback" not in place.server_log()
    assert "call_step_failed" not in place.server_log()
    assert await place.end_child() == 0
    async with place.ari() as ari:
        assert await ari.bridges() == []


async def test_ctrl_c_while_starting_leaves_nothing(lone: Installation) -> None:
    if lone.child is not None and lone.child.returncode is None:
        await lone.end_child()
    await lone.spawn_server(ready=False)
    code = await lone.end_child(signal.SIGINT)
    assert code in (0, 130, -signal.SIGINT)
    await lone.spawn_server()
    result = await lone.place(await lone.business(DESK), steps=(UntilHangup(),), max_seconds=1.0)
    assert result.answered
