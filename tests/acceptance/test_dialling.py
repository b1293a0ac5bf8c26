"""Dialling on real Asterisk: how destinations end, what the caller gets, whose number is shown, who may hang up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from callrouter.core.disposition import Disposition, LegResult
from callrouter.media.sweep import QUIET_SECONDS, sweep_spool
from callrouter.store import config
from callrouter.testing.audio import tone_present
from callrouter.testing.carrier_script import (
    Answered,
    Behaviour,
    Digits,
    Hangup,
    Wait,
    answer_then_press,
    busy,
    early_media,
    no_answer,
    not_found,
    reject,
    server_error,
    unavailable,
)
from tests.acceptance.conversations import check_recording, speaking
from tests.acceptance.listening import part, voice, voice_seconds
from tests.fixtures.installation import BUSINESS_HZ, CALLER_HZ, Installation, Seen

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="session")]

TALK = (Answered(), Wait(2.0), Hangup())


# -- how destinations end: all at once, one number each ----------------------------------------------------------------

ENDINGS: dict[str, tuple[Behaviour, int, int, Disposition, LegResult, str]] = {
    # what the phone does, seconds to ring: SIP status at the caller, disposition, the leg's result, the reason
    "486": (busy(), 10, 486, Disposition.BUSY, LegResult.BUSY, "desk was busy"),
    "603": (reject(), 10, 0, Disposition.FAILED, LegResult.FAILED, "desk could not be reached: call rejected (21)"),
    "480": (unavailable(), 10, 480, Disposition.NO_ANSWER, LegResult.NO_ANSWER, "desk did not answer"),
    "404": (
        not_found(),
        10,
        503,
        Disposition.FAILED,
        LegResult.FAILED,
        "desk could not be reached: unallocated number (1)",
    ),
    "503": (
        server_error(),
        10,
        503,
        Disposition.FAILED,
        LegResult.FAILED,
        "desk could not be reached: no circuit available (34)",
    ),
    "ring": (no_answer(), 2, 480, Disposition.NO_ANSWER, LegResult.NO_ANSWER, "desk did not answer"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def endings(house: Installation) -> AsyncIterator[dict[str, Seen]]:
    businesses = {name: await house.business({"desk": what}, ring=ring) for name, (what, ring, *_) in ENDINGS.items()}
    seen = await asyncio.gather(*(house.call(business) for business in businesses.values()))
    yield dict(zip(businesses, seen, strict=True))


@pytest.mark.parametrize("name", ENDINGS)
async def test_how_a_destination_ends_is_told(endings: dict[str, Seen], name: str) -> None:
    _, ring, status, disposition, result, reason = ENDINGS[name]
    seen = endings[name]
    record = seen.call.record
    if status:
        assert seen.caller.sip_status == status
    assert not seen.caller.answered
    assert (record.disposition, record.reason) == (disposition, reason)
    assert [leg.result for leg in record.legs] == [result]
    assert (record.talk_seconds, record.answered_by, seen.call.recordings) == (0, None, ())
    assert seen.phone.answered is False
    assert f"{disposition}: {reason}" in seen.trace
    if name == "ring":
        assert record.ring_seconds == pytest.approx(ring, abs=0.6)
        assert seen.phone.cancelled


async def test_a_destination_that_nobody_serves(house: Installation) -> None:
    """Neither address nor port answers: the caller goes on in the flow, soon."""
    flow = """
start: dial
nodes:
  dial: {type: dial, target: desk, ring: 3, on_busy: end, on_no_answer: end, on_failed: end}
  end: {type: hangup, cause: congestion}
"""
    business = await house.business({"desk": busy()}, flow=flow)
    async with house.database.session() as session:
        await config.edit_target(
            session, f"{business.company}/desk", {"sip_uri": "sip:desk@127.99.99.99:9"}, who="tests", why="gone"
        )
    await house.in_force()
    seen = await house.call(business)
    assert seen.caller.sip_status == 503
    assert seen.call.record.disposition in (Disposition.FAILED, Disposition.NO_ANSWER)
    assert len(seen.call.record.legs) == 1


HANGUPS = {"normal": 603, "busy": 486, "no-answer": 480, "rejected": 403, "not-found": 404, "congestion": 503,
           "unavailable": 500}  # fmt: skip


async def test_a_flow_chooses_the_sip_status(house: Installation) -> None:
    flow = "start: end\nnodes:\n  end: {type: hangup, cause: CAUSE}\n"
    made = {cause: await house.business({}, flow=flow.replace("CAUSE", cause)) for cause in HANGUPS}
    seen = dict(zip(made, await asyncio.gather(*(house.call(each) for each in made.values())), strict=True))
    assert {cause: each.caller.sip_status for cause, each in seen.items()} == HANGUPS
    for each in seen.values():
        assert each.call.record.disposition is Disposition.COMPLETED
        assert each.call.record.reason == "the flow ended at end"
        assert each.call.record.legs == ()


async def test_a_number_switched_off_is_not_found(house: Installation) -> None:
    seen = await house.call(await house.business({"desk": speaking()}, active=False))
    assert seen.caller.sip_status == 404
    assert seen.call.record.disposition is Disposition.REJECTED
    assert "is switched off" in seen.call.record.reason
    assert seen.call.campaign == "radio"
    assert seen.phones["desk"] == []


# -- conversations -----------------------------------------------------------------------------------------------------


async def test_ringback_answer_and_the_caller_hangs_up_first(house: Installation) -> None:
    seen = await house.call(await house.business({"desk": speaking(after=1.5)}), steps=TALK)
    record = seen.call.record
    assert seen.caller.ringing is not None
    assert seen.caller.answered_at is not None
    assert seen.caller.answered_at - seen.caller.ringing == pytest.approx(1.5, abs=0.5)
    assert seen.caller.progress is None
    assert (seen.phone.hung_up_by, seen.phone.cancelled) == ("caller", False)
    assert record.disposition is Disposition.ANSWERED
    assert record.talk_seconds == pytest.approx(seen.caller.talk_seconds, abs=0.4)
    assert record.ring_seconds == pytest.approx(1.5, abs=0.4)
    assert record.cause == 16
    assert seen.phone.heard is not None
    assert seen.caller.heard is not None
    assert tone_present(seen.phone.heard, CALLER_HZ, min_seconds=1.0)
    assert tone_present(seen.caller.heard, BUSINESS_HZ, min_seconds=1.0)
    assert seen.ledger.talk_seconds == pytest.approx(record.talk_seconds, abs=0.3)
    check_recording(house, seen)


async def test_the_business_hangs_up_first(house: Installation) -> None:
    seen = await house.call(await house.business({"desk": speaking(hang_up_after=2.0)}))
    assert seen.caller.hung_up_by == "callee"
    assert seen.phone.hung_up_by == "callee"
    assert seen.call.record.disposition is Disposition.ANSWERED
    assert seen.call.record.talk_seconds == pytest.approx(2.0, abs=0.5)
    check_recording(house, seen)


async def test_hanging_up_while_it_rings_cancels_the_phone(house: Installation) -> None:
    seen = await house.call(await house.business({"desk": no_answer()}), steps=(Wait(1.5), Hangup()))
    assert seen.caller.sip_status == 487
    assert seen.phone.cancelled
    assert seen.phone.ended is not None
    assert seen.phone.ended == pytest.approx(seen.caller.ended, abs=0.5)
    record = seen.call.record
    assert record.disposition is Disposition.ABANDONED
    assert record.reason == "the caller hung up while desk rang"
    assert [leg.result for leg in record.legs] == [LegResult.CANCELLED]
    assert record.ring_seconds == pytest.approx(1.5, abs=0.5)
    assert seen.ledger.dialstatus == "CANCEL"


async def test_early_media_reaches_the_caller(house: Installation) -> None:
    phone = early_media(1.5, early="tone:620", speak=f"tone:{BUSINESS_HZ}", hang_up_after=1.5)
    seen = await house.call(await house.business({"desk": phone}))
    assert seen.caller.progress is not None
    assert seen.caller.early is not None
    assert seen.caller.heard is not None
    assert tone_present(seen.caller.early, 620, min_seconds=0.8)
    assert tone_present(seen.caller.heard, BUSINESS_HZ)
    assert not tone_present(seen.caller.heard, 620)
    # What came before the answer is no conversation.
    [recording] = seen.call.recordings
    file = house.settings.recordings / str(recording.path)
    assert not tone_present(file, 620, channel=1)
    assert seen.call.record.talk_seconds == pytest.approx(1.5, abs=0.5)


async def test_the_whisper_is_for_the_business_alone(house: Installation) -> None:
    phone = speaking(hang_up_after=6.0)
    seen = await house.call(await house.business({"desk": phone}, whisper="Call from {campaign}, for {company}."))
    whisper = voice(seen.phone.heard)
    assert len(whisper) == 1
    assert whisper[0][0] < 1.0
    assert seen.phone.heard is not None
    assert not tone_present(part(seen.phone.heard, 0, whisper[0][1] - 0.2), CALLER_HZ)
    assert tone_present(part(seen.phone.heard, whisper[0][1]), CALLER_HZ, min_seconds=1.0)
    assert voice(seen.caller.heard) == []
    # It is not talk, and not recorded.
    [recording] = seen.call.recordings
    file = house.settings.recordings / str(recording.path)
    assert voice(file, 0) == voice(file, 1) == []
    length = whisper[0][1]
    assert seen.call.record.talk_seconds == pytest.approx(6.0 - length, abs=0.7)
    assert seen.call.record.disposition is Disposition.ANSWERED


async def test_hung_up_on_the_whisper_is_not_answered(house: Installation) -> None:
    business = await house.business(
        {"desk": speaking(hang_up_after=0.8)}, whisper="Call from {campaign}, for {company}, a very long whisper."
    )
    seen = await house.call(business)
    assert seen.call.record.disposition is Disposition.NO_ANSWER
    assert seen.call.record.talk_seconds == 0
    assert seen.call.recordings == ()
    assert seen.caller.hung_up_by == "callee"


async def test_the_caller_hangs_up_during_the_whisper(house: Installation) -> None:
    business = await house.business(
        {"desk": speaking()}, whisper="Call from {campaign}, for {company}, a very long whisper, indeed a long one."
    )
    seen = await house.call(business, steps=(Wait(1.8), Hangup()))
    assert seen.call.record.disposition is Disposition.ABANDONED
    assert seen.call.record.talk_seconds == 0
    assert seen.call.recordings == ()
    assert seen.ledger.talk_seconds == 0


async def test_keys_pressed_in_a_conversation_reach_the_other_side(house: Installation) -> None:
    phone = answer_then_press("42#", after=0.3, wait=2.5, speak=f"tone:{BUSINESS_HZ}")
    steps = (Answered(), Wait(0.6), Digits("1590*"), Wait(2.8), Hangup())
    seen = await house.call(await house.business({"desk": phone}), steps=steps)
    assert seen.phone.digits == "1590*"
    assert seen.caller.digits == "42#"
    # RFC 4733: as events, not as sound.
    assert seen.phone.heard is not None
    assert tone_present(seen.phone.heard, CALLER_HZ, min_seconds=0.5)
    assert not any(tone_present(seen.phone.heard, hz, min_seconds=0.1) for hz in (697, 770, 852, 941, 1336, 1209))


async def test_two_calls_at_once_to_one_number(house: Installation) -> None:
    business = await house.business({"desk": speaking()})
    first, second = house.caller(), house.caller()
    one, two = await asyncio.gather(
        house.place(business, caller=first, speak="tone:440", steps=TALK),
        house.place(business, caller=second, speak="tone:520", steps=(Answered(), Wait(3.0), Hangup())),
    )
    calls = await house.records_of(business.did, count=2)
    by_caller = {call.record.caller: call for call in calls}
    assert set(by_caller) == {first, second}
    for caller, result, mine, other in ((first, one, 440, 520), (second, two, 520, 440)):
        call = by_caller[caller]
        assert call.record.talk_seconds == pytest.approx(result.talk_seconds, abs=0.4)
        [recording] = call.recordings
        file = house.settings.recordings / str(recording.path)
        assert tone_present(file, mine, channel=0)
        assert not tone_present(file, other, channel=0)
    assert len(await house.carrier.phone_calls(business.phones["desk"])) == 2


async def test_a_company_that_records_nothing(house: Installation) -> None:
    seen = await house.call(await house.business({"desk": speaking()}, record=False), steps=TALK)
    assert seen.call.recordings == ()
    assert seen.call.record.recording_problem is None
    assert seen.call.record.disposition is Disposition.ANSWERED
    assert seen.ledger.recording == ""
    assert list(house.settings.recording_spool.glob(f"{seen.call.record.id}*")) == []


async def test_a_node_records_against_the_company(house: Installation) -> None:
    flow = """
start: dial
nodes:
  dial: {type: dial, target: desk, record: RECORD, on_busy: end, on_no_answer: end, on_failed: end}
  end: {type: hangup}
"""
    on = await house.business({"desk": speaking()}, record=False, flow=flow.replace("RECORD", "yes"))
    off = await house.business({"desk": speaking()}, record=True, flow=flow.replace("RECORD", "no"))
    with_it, without = await asyncio.gather(house.call(on, steps=TALK), house.call(off, steps=TALK))
    check_recording(house, with_it)
    assert without.call.recordings == ()


async def test_after_a_busy_destination_the_flow_goes_on(house: Installation) -> None:
    flow = """
start: first
nodes:
  first: {type: dial, target: first, on_busy: second, on_no_answer: end, on_failed: end}
  second: {type: dial, target: second, ring: 2, on_busy: end, on_no_answer: third, on_failed: end}
  third: {type: dial, target: third, on_busy: end, on_no_answer: end, on_failed: end}
  end: {type: hangup}
"""
    phones = {"first": busy(), "second": no_answer(), "third": speaking()}
    seen = await house.call(await house.business(phones, flow=flow), steps=TALK)
    record = seen.call.record
    assert record.path == ("first", "second", "third")
    assert [(leg.target, leg.result) for leg in record.legs] == [
        ("first", LegResult.BUSY),
        ("second", LegResult.NO_ANSWER),
        ("third", LegResult.ANSWERED),
    ]
    assert [leg.seq for leg in record.legs] == [1, 2, 3]
    assert {name: len(calls) for name, calls in seen.phones.items()} == {"first": 1, "second": 1, "third": 1}
    assert (record.disposition, record.answered_by) == (Disposition.ANSWERED, "third")
    assert record.ring_seconds == pytest.approx(2.4, abs=0.7)
    check_recording(house, seen)


async def test_after_the_conversation_the_flow_may_go_on(house: Installation) -> None:
    flow = """
start: dial
nodes:
  dial: {type: dial, target: desk, on_answered: thanks, on_busy: end, on_no_answer: end, on_failed: end}
  thanks: {type: play, prompt: Thank you for calling. Good bye., next: end}
  end: {type: hangup}
"""
    seen = await house.call(await house.business({"desk": speaking(hang_up_after=1.5)}, flow=flow))
    assert seen.call.record.path == ("dial", "thanks", "end")
    assert voice_seconds(part(seen.caller.heard, 1.5)) > 1.0
    assert seen.call.record.disposition is Disposition.ANSWERED
    assert seen.call.record.talk_seconds == pytest.approx(1.5, abs=0.5)
    check_recording(house, seen)


async def test_unanswered_legs_leave_no_files_for_ever(house: Installation) -> None:
    seen = await house.call(await house.business({"desk": busy()}))
    left = list(house.settings.recording_spool.glob(f"{seen.call.record.id}*"))
    now = time.time()
    sweep_spool(house.settings.recording_spool, set(), now)
    assert list(house.settings.recording_spool.glob(f"{seen.call.record.id}*")) == left, "too early"
    sweep_spool(house.settings.recording_spool, set(), now + QUIET_SECONDS + 10)
    assert list(house.settings.recording_spool.glob(f"{seen.call.record.id}*")) == []
