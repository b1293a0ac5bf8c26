"""What is recorded and with whose consent, on real Asterisk: in the files, in the record, and without a controller."""

from __future__ import annotations

import asyncio
import json
import signal
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from callrouter.cli.app import root
from callrouter.core import notes as note
from callrouter.core.disposition import Disposition
from callrouter.core.model import RecordingPolicy
from callrouter.core.records import ConsentResponse
from callrouter.media.gaps import LONGEST_DOUBT
from callrouter.media.manifest import manifest_path
from callrouter.store import config
from callrouter.store.calls import get_call, open_calls
from callrouter.store.journal import Position, read
from callrouter.testing.audio import duration, tone_present
from callrouter.testing.carrier_legs import CallResult, PhoneCall
from callrouter.testing.carrier_script import Answered, Digits, Hangup, Step, Wait, answer_then_press, no_answer
from tests.acceptance.conversations import check_recording, speaking
from tests.fixtures.installation import BUSINESS_HZ, CALLER_HZ, Business, Installation, Seen, eventually, installation

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="session")]

ASK = """
start: ask
nodes:
  ask: {{type: consent, mode: {mode}, prompt: Press a key., timeout: 2, on_agreed: desk, on_refused: desk}}
  desk: {{type: dial, target: desk, ring: 4, on_busy: end, on_no_answer: end, on_failed: end}}
  end: {{type: hangup}}
"""
TALK = (Answered(), Wait(5.0), Hangup())


def pressing(digit: str) -> tuple[Step, ...]:
    return (Wait(1.5), Digits(digit), Wait(5.0), Hangup())


def heard_each_other(seen: Seen) -> None:
    assert seen.call.record.disposition is Disposition.ANSWERED
    assert tone_present(heard(seen.phone), CALLER_HZ)
    assert tone_present(heard(seen.caller), BUSINESS_HZ)


def unrecorded(place: Installation, seen: Seen) -> None:
    heard_each_other(seen)
    assert seen.call.recordings == ()
    assert seen.ledger.recording == ""
    assert not list(place.settings.recording_spool.glob(f"*{seen.call.record.id}*"))


async def by_policy(place: Installation) -> None:
    """The number's word comes before the target's, and the target's before the company's."""
    quiet = await place.business({"desk": speaking()})
    spoken = await place.business({"desk": speaking()}, record=False)
    async with place.database.session() as session:
        await config.edit_number(session, quiet.did, {"record": RecordingPolicy.NEVER}, who="tests")
        for each in (quiet, spoken):
            changes = {"record": RecordingPolicy.FORCE}
            await config.edit_target(session, "desk", changes, company=each.company, who="tests")
    await place.in_force()
    not_kept, kept = await asyncio.gather(place.call(quiet, steps=TALK), place.call(spoken, steps=TALK))
    unrecorded(place, not_kept)
    assert "dial: not recorded: the number says never" in not_kept.trace
    check_recording(place, kept)
    assert "dial: recorded: the target says force" in kept.trace
    assert manifest_of(place, kept)["policy"] == "the target says force"
    assert manifest_of(place, kept)["consent"] is None


def manifest_of(place: Installation, seen: Seen) -> dict[str, Any]:
    [recording] = seen.call.recordings
    told: dict[str, Any] = json.loads(manifest_path(place.settings.recordings / str(recording.path)).read_text())
    return told


async def by_consent(place: Installation) -> None:
    opt_in, unheard, opt_out = [
        await place.business({"desk": speaking()}, flow=ASK.format(mode=mode))
        for mode in ("opt_in", "opt_in", "opt_out")
    ]
    agreed, silent, refused = await asyncio.gather(
        place.call(opt_in, steps=pressing("1")),
        place.call(unheard, steps=(Wait(9.0), Hangup())),
        place.call(opt_out, steps=pressing("9")),
    )
    for seen, response in ((silent, ConsentResponse.NO_ANSWER), (refused, ConsentResponse.REFUSED)):
        unrecorded(place, seen)
        assert seen.call.record.consent is not None
        assert seen.call.record.consent.response is response
    check_recording(place, agreed)
    consent = agreed.call.record.consent
    assert consent is not None
    told = manifest_of(place, agreed)["consent"]
    assert (told["response"], told["mode"], told["digit"]) == ("agreed", "opt_in", "1")
    assert (told["node"], told["script"]) == ("main@1/ask", consent.script)


async def without_a_controller(place: Installation) -> None:
    """Killed while the business is rung: the dialplan goes on to the backup, and does as the caller said.

    Of those who call later it records who hears the announcement, and nobody whom it would have to ask for a key.
    """
    asked = await place.business({"desk": speaking()}, flow=ASK.format(mode="opt_in"))
    announcing = ASK.format(mode="announce").replace("timeout: 2, ", "").replace(", on_refused: desk", "")
    informed = await place.business({"desk": speaking()}, flow=announcing)
    phones = {"desk": no_answer(), "spare": speaking()}
    business = await place.business(phones, flow=ASK.format(mode="opt_out"), backup="spare")
    refusing, staying = place.caller(), place.caller()
    steps = (Wait(1.5), Digits("9"), Wait(9.0), Hangup())
    calls = [
        asyncio.create_task(place.place(business, caller=refusing, steps=steps)),
        asyncio.create_task(place.place(business, caller=staying, steps=(Wait(11.0), Hangup()))),
    ]
    await eventually(lambda: place.status().get("calls") == 2, "both calls")
    await rung(place, business, 2)
    await place.end_child(signal.SIGKILL)
    later = [place.caller(), place.caller()]
    calls += [
        asyncio.create_task(place.place(business, caller=caller, steps=TALK))
        for business, caller in zip((asked, informed), later, strict=True)
    ]
    results = await asyncio.gather(*calls)
    await place.spawn_server()
    for called, result, caller, kept in zip((asked, informed), results[2:], later, (False, True), strict=True):
        seen = await place.seen(called, result, caller)
        assert seen.call.record.handled_by == "failsafe"
        heard_each_other(seen)
        assert bool(seen.call.recordings) is bool(seen.ledger.recording) is kept
    first = await place.seen(business, results[0], refusing)
    second = await place.seen(business, results[1], staying)
    for seen in (first, second):
        assert tone_present(heard(seen.phones["spare"][0]), CALLER_HZ)
    assert first.call.recordings == ()
    assert first.ledger.recording == ""
    assert [leg.target for leg in first.call.record.legs] == ["desk", "spare"]
    assert [each.status for each in second.call.recordings] == ["ok"]
    assert second.ledger.recording.rpartition("/")[2].startswith("fs-")


async def pauses(place: Installation) -> None:
    """By keys of either side and by command; one that nobody ends survives the controller, and ends in its time."""
    pressing_late = answer_then_press("*1", after=0.4, wait=8.0, speak=f"tone:{BUSINESS_HZ}")
    ends, forgets, told = [
        await place.business({"desk": behaviour}) for behaviour in (speaking(), pressing_late, speaking())
    ]
    async with place.database.session() as session:
        for business in (ends, forgets):
            changes = {"pause_keys": True, "pause_seconds": 7}
            await config.edit_company(session, business.company, changes, who="tests")
    await place.in_force()
    callers = [place.caller() for _ in range(3)]
    pressing_both = (Answered(), Wait(1.5), Digits("*1"), Wait(2.8), Digits("*2"), Wait(1.5), Hangup())
    calls = [
        asyncio.create_task(place.place(business, caller=caller, steps=steps))
        for business, caller, steps in (
            (ends, callers[0], pressing_both),
            (forgets, callers[1], (Answered(), Wait(17.0), Hangup())),
            # No keys are allowed here: those that are pressed do nothing, and the business hears them.
            (told, callers[2], (Answered(), Wait(2.5), Digits("*1"), Wait(12.0), Hangup())),
        )
    ]
    await by_command(place, told)
    await eventually(lambda: business_paused(place), "the pause that is forgotten")
    await place.end_child(signal.SIGKILL)
    await place.spawn_server()
    results = await asyncio.gather(*calls)
    # Between the last tones of *1 and *2: what is waited, and the two keys.
    expected = ((ends, "caller", 3.2, 0.5), (forgets, "business", 7.0, 0.5), (told, "command", 3.0, 2.9))
    for (business, by, long, doubt), result, caller in zip(expected, results, callers, strict=True):
        seen = await place.seen(business, result, caller)
        check_pause(place, seen, by, long, doubt)
        # What is paused is not kept, and heard all the same.
        assert tone_present(heard(seen.phone), CALLER_HZ, min_seconds=2.4)
        assert seen.phone.digits == ("*1" if business is told else "")


def check_pause(place: Installation, seen: Seen, by: str, long: float, doubt: float) -> None:
    """Silence on both channels for just that time, and a recording as long as the conversation."""
    [recording] = seen.call.recordings
    assert (recording.status, recording.problem) == ("ok", None)
    [pause] = manifest_of(place, seen)["pauses"]
    assert (pause["by"], pause["seconds"]) == (by, pytest.approx(long, abs=doubt))
    assert [each.by for each in recording.pauses] == [by]
    assert recording.pauses[0].begin == pytest.approx(recording.started_at + pause["start"], abs=0.01)
    samples, rate = soundfile.read(place.settings.recordings / str(recording.path), always_2d=True)
    length = len(samples) / rate
    seconds = (length, seen.caller.talk_seconds, duration(heard(seen.phone)), duration(heard(seen.caller)))
    # As sure as the program itself is of a recording's length: without packets on either side no time is recorded.
    assert length == pytest.approx(seen.caller.talk_seconds, abs=LONGEST_DOUBT), seconds
    # No time is recorded while keys are sent in place of speech: by so much the place in the file may differ.
    loud = [
        max(one.max() for one in each) >= 0.001
        for each in zip(
            *(np.array_split(np.abs(samples[:, side]), len(samples) // (rate // 10)) for side in (0, 1)), strict=True
        )
    ]
    runs = [(quiet, len(list(run))) for quiet, run in groupby(not each for each in loud)]
    longest = max(range(len(runs)), key=lambda place: runs[place][1] if runs[place][0] else 0)
    begin = sum(count for _, count in runs[:longest]) / 10
    assert runs[longest][1] / 10 == pytest.approx(pause["seconds"], abs=0.7), "nothing of it is kept"
    assert begin == pytest.approx(pause["start"], abs=LONGEST_DOUBT)
    # A voice falls silent for the keys that are pressed.
    around = loud[: round(begin * 10)] + loud[round(begin * 10) + runs[longest][1] :]
    assert sum(around) > 0.7 * len(around), "all else is"


async def by_command(place: Installation, business: Business) -> None:
    found: list[str] = []

    async def talking() -> bool:
        async with place.database.session() as session:
            found[:] = [row.id for row in await open_calls(session) if row.did == business.did]
            legs = [leg for ref in found for leg in (await get_call(session, ref)).record.legs]
            return any(leg.answered_at for leg in legs)

    await eventually(talking, "the conversation")
    begun = await command(place, "call", "pause", found[0])
    assert (begun["paused"], begun["changed"]) == (True, True)
    assert (await command(place, "call", "resume", found[0]))["paused"] is False


async def command(place: Installation, *words: str) -> dict[str, Any]:
    line = ["--home", str(place.settings.home_dir), *words, "--json"]
    done = await asyncio.to_thread(CliRunner().invoke, root, line)
    assert done.exit_code == 0, done.output
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def business_paused(place: Installation) -> bool:
    lines = [line.value for line, _ in read(place.settings.journal_dir, Position()) if line]
    return any(isinstance(entry, note.RecordingPaused) and entry.by == "business" for entry in lines)


def heard(end: PhoneCall | CallResult) -> Path:
    assert end.heard is not None
    return end.heard


async def rung(place: Installation, business: Business, count: int) -> None:
    async def legs() -> bool:
        return int((await place.asterisk.rx("core show channels count")).split(" ", 1)[0]) >= 2 * count

    await eventually(legs, "the desk rings for both")


async def test_what_is_recorded() -> None:
    async with installation() as place:
        await place.spawn_server()
        await asyncio.gather(by_policy(place), by_consent(place))
        await pauses(place)
        await without_a_controller(place)
        assert await place.end_child() == 0
        assert "Traceback" not in place.server_log()
