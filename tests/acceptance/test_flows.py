"""Menus, messages, hours and tags on real Asterisk, by what the caller hears."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
import soundfile

from callrouter.core.disposition import Disposition, LegResult
from callrouter.core.replay import Verdict, replay
from callrouter.core.routing import build_table
from callrouter.store.call_filter import CallFilter
from callrouter.store.config import load_config
from callrouter.store.replay import stored_logs
from callrouter.testing.audio import duration, tone_present
from callrouter.testing.carrier_script import Digits, Hangup, Say, UntilHangup, Wait, answer, busy, no_answer
from tests.acceptance.listening import part, voice, voice_seconds
from tests.fixtures.installation import BUSINESS_HZ, CALLER_HZ, Installation, Seen

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="session")]

BEEP_HZ = 1000

MENU = """
start: menu
nodes:
  menu:
    type: menu
    prompt: For sales, press one. For service, press two. For anything else, please stay on the line and wait.
    options: {1: sales, 2: service, "#": service}
    timeout: 1.5
    max_tries: 2
    on_exhausted: nobody
    MORE
  sales: {type: tag, tags: [sales], next: dial}
  service: {type: tag, tags: [service], next: dial}
  late: {type: tag, tags: [late], next: dial}
  wrong: {type: tag, tags: [wrong], next: dial}
  nobody: {type: tag, tags: [nobody], next: dial}
  dial: {type: dial, target: desk, on_busy: end, on_no_answer: end, on_failed: end}
  end: {type: hangup}
"""
DESK = {"desk": answer(after=0.2, speak=f"tone:{BUSINESS_HZ}", hang_up_after=1.2)}


async def menu(house: Installation, more: str, *steps: Wait | Digits) -> Seen:
    lines = [line.strip() for line in more.split(";")]
    flow = MENU.replace("    MORE\n", "".join(f"    {line}\n" for line in lines if line))
    business = await house.business(DESK, flow=flow)
    seen = await house.call(business, steps=(*steps, UntilHangup()))
    assert seen.call.record.disposition is Disposition.ANSWERED
    assert seen.caller.heard is not None
    assert tone_present(seen.caller.heard, BUSINESS_HZ, min_seconds=0.8)
    return seen


async def test_menu_exits(house: Installation) -> None:
    pressed, star, late, wrong, exhausted, again, both = await asyncio.gather(
        menu(house, "", Wait(1.0), Digits("2")),
        menu(house, "", Wait(1.0), Digits("#")),
        menu(house, "on_timeout: late"),
        menu(house, "on_invalid: wrong", Wait(1.0), Digits("9")),
        menu(house, ""),
        menu(house, "invalid_prompt: That is not a choice.", Wait(1.0), Digits("9"), Wait(4.0), Digits("1")),
        menu(house, "on_timeout: repeat; on_invalid: repeat", Wait(1.0), Digits("9"), Wait(0.6), Digits("8")),
    )
    assert pressed.call.record.tags == ("service",)
    assert pressed.call.record.path == ("menu", "service", "dial")
    assert "digit 2: the caller pressed 2" in pressed.trace
    assert star.call.record.tags == ("service",)
    assert late.call.record.tags == ("late",)
    assert "timeout: nothing pressed in 1.5 s (try 1/2)" in late.trace
    assert wrong.call.record.tags == ("wrong",)
    assert "invalid: the caller pressed 9, which is no choice (try 1/2)" in wrong.trace
    assert exhausted.call.record.tags == ("nobody",)
    assert "no choice in 2 tries" in exhausted.trace
    # Asked twice: the prompt was heard twice.
    assert voice_seconds(exhausted.caller.heard) == pytest.approx(2 * voice_seconds(late.caller.heard), rel=0.25)
    assert again.call.record.tags == ("sales",)
    assert "try 1/2" in again.trace
    assert both.call.record.tags == ("nobody",)
    assert "try 2/2" in both.trace
    # Keys are for the menu, not for the business.
    assert [each.phone.digits for each in (pressed, star, wrong, again, both)] == [""] * 5


async def test_a_key_cuts_the_prompt_short(house: Installation) -> None:
    whole, cut, deaf = await asyncio.gather(
        menu(house, "on_timeout: late"),
        menu(house, "", Wait(1.2), Digits("1")),
        menu(house, "barge_in: no; on_timeout: late", Wait(1.2), Digits("1")),
    )
    spoken = voice_seconds(whole.caller.heard)
    assert spoken > 4.0
    assert voice(cut.caller.heard)[-1][1] < 2.2
    assert cut.call.record.tags == ("sales",)
    # Without barge-in the prompt is heard to its end, and the key does not count.
    assert voice_seconds(deaf.caller.heard) == pytest.approx(spoken, rel=0.15)
    assert deaf.call.record.tags == ("late",)


VOICEMAIL = """
start: dial
nodes:
  dial: {type: dial, target: desk, ring: 2, on_busy: message, on_no_answer: message, on_failed: message}
  message:
    type: voicemail
    greeting: Please leave a message after the tone.
    silence_seconds: 2
    max_seconds: 20
    on_failed: sorry
    on_done: thanks
  thanks: {type: play, prompt: Thank you. Good bye., next: end}
  sorry: {type: tag, tags: [nothing-left], next: end}
  end: {type: hangup}
"""


def check_message(house: Installation, seen: Seen, seconds: float, tolerance: float = 1.0) -> None:
    """One recording with the caller's voice, and nothing that makes it look like a conversation."""
    record = seen.call.record
    assert record.disposition is Disposition.VOICEMAIL
    assert record.reason.startswith("left a message of ")
    assert (record.answered_at, record.answered_by, record.talk_seconds) == (None, None, 0)
    [recording] = seen.call.recordings
    assert (recording.kind, recording.status, recording.problem) == ("voicemail", "ok", None)
    file = house.settings.recordings / str(recording.path)
    assert soundfile.info(file).channels == 1
    assert duration(file) == pytest.approx(seconds, abs=tolerance)
    assert recording.right_dbfs is None


async def test_a_message_after_busy_and_after_no_answer(house: Installation) -> None:
    engaged = await house.business({"desk": busy()}, flow=VOICEMAIL)
    away = await house.business({"desk": no_answer()}, flow=VOICEMAIL)
    first, second = await asyncio.gather(
        house.call(engaged, steps=(Wait(7.0), Hangup()), ring_timeout=30),
        house.call(away, steps=(Wait(8.0), Digits("#"), UntilHangup()), ring_timeout=30),
    )
    for seen, result in ((first, LegResult.BUSY), (second, LegResult.NO_ANSWER)):
        assert seen.call.record.path[:2] == ("dial", "message")
        assert [leg.result for leg in seen.call.record.legs] == [result]
        assert not seen.phone.answered
        # The greeting, then the beep; the message begins after it.
        [(_, greeted), *_] = voice(seen.caller.heard)
        assert seen.caller.heard is not None
        assert tone_present(part(seen.caller.heard, greeted - 0.2), BEEP_HZ, min_seconds=0.1), "no beep"
        file = house.settings.recordings / str(seen.call.recordings[0].path)
        assert tone_present(file, CALLER_HZ, min_seconds=2.0)
        assert not tone_present(file, BEEP_HZ, min_seconds=0.1)
        assert voice(file) == []
    # The caller hung up: the message is kept, and nothing was said to nobody.
    assert first.call.record.path == ("dial", "message")
    assert first.caller.hung_up_by == "caller"
    began = voice(first.caller.heard)[0][1] + 0.4
    check_message(house, first, 7.0 - began)
    # "#" ends it: the flow went on.
    assert second.call.record.path == ("dial", "message", "thanks", "end")
    assert second.caller.hung_up_by == "callee"
    assert len(voice(second.caller.heard)) == 2
    check_message(house, second, 8.0 - (voice(second.caller.heard)[0][1] + 0.4))


async def test_how_a_message_ends(house: Installation) -> None:
    flow = VOICEMAIL.replace("start: dial", "start: message")
    made = [await house.business({"desk": busy()}, flow=flow) for _ in range(4)]
    silent, nothing, short, long = await asyncio.gather(
        # Speaks for three seconds after the beep, then says nothing more.
        house.call(made[0], speak="silence", steps=(Wait(4.0), Say("tone:440", 3.0), UntilHangup())),
        house.call(made[1], speak="silence", steps=(UntilHangup(),)),
        house.call(made[2], steps=(Wait(3.2), Hangup())),
        house.call(
            await house.business({"desk": busy()}, flow=flow.replace("max_seconds: 20", "max_seconds: 3")),
            steps=(UntilHangup(),),
        ),
    )
    assert silent.call.record.path == ("message", "thanks", "end")
    assert silent.call.record.disposition is Disposition.VOICEMAIL
    assert tone_present(house.settings.recordings / str(silent.call.recordings[0].path), 440, min_seconds=2.0)
    assert nothing.caller.hung_up_by == "callee"
    assert long.call.record.path == ("message", "thanks", "end")
    check_message(house, long, 3.0)
    assert short.call.record.disposition in (Disposition.ABANDONED, Disposition.VOICEMAIL)
    assert short.call.record.path == ("message",)
    for seen in (silent, nothing, short, long):
        assert seen.call.record.answered_at is None
        assert seen.phones["desk"] == []


async def test_hanging_up_at_the_beep_leaves_no_message(house: Installation) -> None:
    flow = VOICEMAIL.replace("start: dial", "start: message").replace("Please leave a message after the tone.", "Hi.")
    seen = await house.call(await house.business({"desk": busy()}, flow=flow), steps=(Wait(1.0), Hangup()))
    assert seen.call.record.disposition is Disposition.ABANDONED
    assert seen.call.record.reason == "the caller hung up in message"
    assert seen.call.record.answered_at is None


async def test_hanging_up_in_a_prompt_goes_nowhere(house: Installation) -> None:
    flow = """
start: welcome
nodes:
  welcome: {type: play, prompt: Welcome to this business with its many words. Please hold the line., next: dial}
  dial: {type: dial, target: desk, on_busy: end, on_no_answer: end, on_failed: end}
  end: {type: hangup}
"""
    seen = await house.call(await house.business(DESK, flow=flow), steps=(Wait(1.5), Hangup()))
    assert seen.call.record.path == ("welcome",)
    assert seen.call.record.legs == ()
    assert seen.call.record.disposition is Disposition.ABANDONED
    assert seen.call.record.reason == "the caller hung up in welcome"


async def test_pressing_the_key_at_once_leaves_no_message(house: Installation) -> None:
    flow = VOICEMAIL.replace("start: dial", "start: message").replace("Please leave a message after the tone.", "Hi.")
    business = await house.business({"desk": busy()}, flow=flow)
    seen = await house.call(business, steps=(Wait(1.4), Digits("#"), UntilHangup()))
    assert seen.call.record.tags in (("nothing-left",), ())
    assert seen.call.record.disposition is not Disposition.ANSWERED


HOURS = """
start: hours
nodes:
  hours: {type: hours, open: "OPEN", on_open: open, on_closed: closed}
  open: {type: tag, tags: [in-hours], next: dial}
  closed: {type: tag, tags: [after-hours, night rate], next: dial}
  dial: {type: dial, target: desk, on_busy: end, on_no_answer: end, on_failed: end}
  end: {type: hangup}
"""


async def test_opening_hours_in_the_companys_own_zone(house: Installation) -> None:
    """The same hours at the same moment: open where it is that hour, closed half a world away."""
    zone = "Etc/GMT-9"
    there = datetime.now(UTC) + timedelta(hours=9)
    begin, end = there - timedelta(minutes=90), there + timedelta(minutes=90)
    text = HOURS.replace("OPEN", f"{begin:%H:%M}-{end:%H:%M}")
    here = await house.business(DESK, flow=text, timezone=zone)
    far = await house.business(DESK, flow=text, timezone="Etc/GMT+3")
    opened, closed = await asyncio.gather(house.call(here), house.call(far))
    assert opened.call.record.tags == ("in-hours",)
    assert closed.call.record.tags == ("after-hours", "night rate")
    assert opened.call.record.path == ("hours", "open", "dial")
    assert closed.call.record.path == ("hours", "closed", "dial")
    assert "hours: open: " in opened.trace
    assert f"against '{begin:%H:%M}-{end:%H:%M}'" in closed.trace


async def test_a_flow_that_goes_round_for_ever_rings_the_backup(house: Installation) -> None:
    flow = """
start: one
nodes:
  one: {type: tag, tags: [a], next: two}
  two: {type: tag, tags: [b], next: one}
  dial: {type: dial, target: desk, on_busy: end, on_no_answer: end, on_failed: end}
  end: {type: hangup}
"""
    try:
        business = await house.business(DESK, flow=flow, backup="desk")
    except Exception as refused:
        assert "flow" in str(refused).lower() or "never" in str(refused).lower()
        return
    seen = await house.call(business)
    assert seen.call.record.path[-1] == "(backup)"
    assert seen.call.record.disposition is Disposition.ANSWERED


async def test_stored_calls_run_again_go_where_they_went(house: Installation) -> None:
    """Every call of this installation whose number still has the flow that it ran; by one interpreter, not by two."""
    pressed = await menu(house, "", Wait(0.5), Digits("2"))
    async with house.database.session() as session:
        table = build_table(await load_config(session))
        found = {
            row.id: replay(table, row.id, log)
            async for row, log in stored_logs(session, CallFilter(handled_by="controller"), 10_000)
        }
    assert pressed.call.record.id in found
    ways = {
        call: (one.verdict, one.doubts, one.then.path, one.again.path)
        for call, one in found.items()
        if one.then is not None and one.again is not None and (entry := table.entries.get(one.then.did)) is not None
        if entry.number.active and entry.flow_version_id == one.then.flow_version_id
        if one.then.disposition is not Disposition.REJECTED
    }
    assert ways[pressed.call.record.id][:2] == (Verdict.SAME, ())
    assert {call: way for call, way in ways.items() if way[0] is not Verdict.SAME or way[1]} == {}
