"""Recordings of real calls: put on record, guarded against tampering, and kept when Asterisk dies in the middle."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile

from callrouter.core.disposition import Disposition
from callrouter.core.records import RecordingKind, RecordingRef, RecordingStatus
from callrouter.jobs import finish_recording
from callrouter.media.recordings import finish, settled
from callrouter.testing.audio import tone_present
from callrouter.testing.carrier_script import Answered, Hangup, Wait, busy
from tests.acceptance.conversations import speaking
from tests.fixtures.installation import BUSINESS_HZ, CALLER_HZ, Installation, eventually, installation

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="session")]

TALK = (Answered(), Wait(2.0), Hangup())
MESSAGE = """
start: message
nodes:
  message: {type: voicemail, silence_seconds: 5, on_failed: end, on_done: end}
  end: {type: hangup}
"""


async def command(house: Installation, *words: str, code: int = 0) -> Any:
    """A command's JSON, as its user gets it."""
    line = (sys.executable, "-m", "callrouter", "--home", str(house.settings.home_dir), "recording", *words, "--json")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CALLROUTER_")}
    process = await asyncio.create_subprocess_exec(
        *line, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == code, (out.decode(), err.decode())
    return json.loads(out)


async def test_a_call_and_a_message_stand_in_the_chain_and_whatever_is_done_to_them_is_found(
    house: Installation,
) -> None:
    talk, leave = await asyncio.gather(
        house.business({"desk": speaking()}), house.business({"desk": busy()}, flow=MESSAGE)
    )
    spoken, left = await asyncio.gather(
        house.call(talk, steps=TALK), house.call(leave, steps=(Answered(), Wait(3.5), Hangup()))
    )
    [conversation], [message] = spoken.call.recordings, left.call.recordings
    assert (conversation.status, message.status) == ("ok", "ok")
    seen = await command(house, "verify")
    assert (seen["clean"], seen["without_manifest"]) == (True, 0)
    assert seen["checked"] >= 2

    shown = (await command(house, "show", conversation.id))["manifest"]
    assert shown["seq"] == conversation.chain_seq
    assert shown["channel_map"] == {"left": "caller", "right": "business"}
    assert (shown["call"], shown["leg"]) == (spoken.call.record.id, spoken.call.record.legs[0].id)
    assert (shown["gaps"], shown["policy"]) == ([], "the company says force")
    shown = (await command(house, "show", message.id))["manifest"]
    assert (shown["kind"], shown["channel_map"], shown["flow"]) == ("voicemail", {"mono": "caller"}, "main@1")

    file = house.settings.recordings / str(conversation.path)
    whole = file.read_bytes()
    manifest = file.with_suffix(".json")
    told = manifest.read_bytes()
    for number in (spoken.call.record.did, spoken.call.record.caller):
        assert str(number).encode()[-7:] not in told
    added = file.with_name("added.flac")
    try:
        file.write_bytes(whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:])
        assert (await command(house, "verify", code=1))["changed"] == [conversation.path]
        file.unlink()
        assert (await command(house, "verify", code=1))["missing"] == [conversation.path]
        file.write_bytes(whole)
        manifest.write_bytes(told[:100] + bytes([told[100] ^ 1]) + told[101:])
        assert (await command(house, "verify", code=1))["changed"] == [
            manifest.relative_to(house.settings.recordings).as_posix()
        ]
        manifest.write_bytes(told)
        added.write_bytes(whole)
        assert (await command(house, "verify", code=1))["extra"] == [
            added.relative_to(house.settings.recordings).as_posix()
        ]
    finally:
        file.write_bytes(whole)
        manifest.write_bytes(told)
        added.unlink(missing_ok=True)
    assert (await command(house, "verify"))["clean"] is True


async def test_a_caller_who_leaves_at_the_tone_leaves_nothing_missing(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Sooner taken for empty, or for never written, than in earnest: 10 s and 30 s.
    monkeypatch.setattr(finish_recording, "FLUSH_SECONDS", 4.0)
    monkeypatch.setattr(finish_recording, "APPEAR_SECONDS", 5.0)
    business = await house.business({"desk": busy()}, flow=MESSAGE)
    calls = await asyncio.gather(
        *(house.call(business, steps=(Answered(), Wait(wait), Hangup())) for wait in (0.02, 0.1, 0.3, 0.6))
    )
    for seen in calls:
        assert seen.call.record.disposition in (Disposition.ABANDONED, Disposition.VOICEMAIL)
        for each in seen.call.recordings:
            assert each.status in ("empty", "ok", "suspect"), each
            assert (each.path is None) is (each.status == "empty"), each
    states = [each.status for seen in calls for each in seen.call.recordings]
    assert "empty" in states, [each for seen in calls for each in seen.call.recordings]


async def test_what_was_said_before_asterisk_was_killed_is_kept() -> None:
    async with installation() as place:
        await place.start_server()
        business = await place.business({"desk": speaking()})
        running = asyncio.create_task(place.place(business, steps=(Answered(), Wait(30.0), Hangup())))
        spool, kept = place.settings.recording_spool, place.settings.recordings

        def spoken() -> list[Path]:
            return [path for path in spool.glob("*-rx.wav") if path.stat().st_size > 2 * 8000 * 3]

        await eventually(spoken, "three seconds of conversation")
        [leg] = spoken()
        assert place.asterisk.pid is not None
        os.kill(place.asterisk.pid, signal.SIGKILL)
        await eventually(lambda: not place.asterisk.running, "Asterisk's end")
        ref = RecordingRef(leg.stem.removesuffix("-rx"), RecordingKind.CONVERSATION, None, 1_795_300_000.0)
        written = leg.stat()
        # The header still says that there is nothing in it; nobody writes to it any more.
        assert not settled(spool, ref, written.st_mtime + 1)
        assert settled(spool, ref, written.st_mtime + 61)
        done = finish(spool, ref, kept, "flac", 30.0, ref.started_at)
        file = kept / str(done.path)
        assert soundfile.info(file).duration == pytest.approx(done.seconds, abs=0.01)
        assert tone_present(file, CALLER_HZ, channel=0, min_seconds=2.5)
        assert tone_present(file, BUSINESS_HZ, channel=1, min_seconds=2.0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    # Its directory is gone by now: what was found in it is in hand.
    assert done.status is RecordingStatus.SUSPECT
    assert done.seconds >= 3.0
    assert "header says 0.0 s" in str(done.problem)
    [*_, gap] = done.gaps
    assert (gap.channel, gap.end) == ("all", 30.0)
