"""A prompt spoken into a telephone: ``callrouter prompt record`` on a real Asterisk."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile

from callrouter.testing.audio import speech_present, tone_present
from callrouter.testing.carrier_script import Answered, Behaviour, Hangup, Wait, no_answer
from tests.fixtures.installation import BUSINESS_HZ, Business, Installation, house

__all__ = ["house"]

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="session")]

OTHER_HZ = 880
FIRST, SECOND = (f"tone:{hz}" for hz in (BUSINESS_HZ, OTHER_HZ))
LISTEN = "wait:7"
"""Longer than either of what is said takes."""


PLAYS_IT = """
start: hello
nodes:
  hello: {type: play, prompt: {file: welcome}, next: end}
  end: {type: hangup}
"""
BEFORE = PLAYS_IT.replace("{file: welcome}", "Hello.")


def phone(*verbs: str) -> Behaviour:
    return Behaviour("records a prompt", ("ring", "wait:0.3", "answer", "silence", *verbs))


def spoken(tone: str) -> tuple[str, ...]:
    """Wait for the beep, speak, press pound, be quiet."""
    return (LISTEN, tone, "wait:2", "press:#:150:100", "silence")


async def record(place: Installation, business: Business, *words: str, code: int) -> dict[str, Any]:
    """``prompt record`` of the business's desk: what it prints, or its error."""
    line = ("prompt", "record", "welcome", "--target", "desk", "--company", business.company, *words, "--json")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "callrouter", "--home", str(place.settings.home_dir), *line),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == code, (out, err)
    found: dict[str, Any] = json.loads(out if code == 0 else err.splitlines()[-1])
    return found


def original(place: Installation, prompt: dict[str, Any]) -> Path:
    return place.settings.prompts_dir / "originals" / str(prompt["sha256"])


def left(place: Installation) -> list[str]:
    """What there is still of such a call: files, and rows of a ledger that is for callers."""
    files = [path.name for path in place.settings.recording_spool.glob("prompt-*")]
    return files + [row.uniqueid for row in place.ledger() if row.uniqueid.startswith("prompt-")]


async def test_recorded_again_kept_and_played(house: Installation) -> None:
    keys = (LISTEN, "press:2:150:100", *spoken(SECOND), LISTEN, "press:1:150:100", "stay:60")
    business = await house.business({"desk": phone(*spoken(FIRST), *keys)}, flow=BEFORE)
    prompt = await record(house, business, code=0)
    assert (prompt["name"], prompt["company"], prompt["filename"]) == ("welcome", business.company, "welcome.wav")
    file = original(house, prompt)
    assert tone_present(file, OTHER_HZ, min_seconds=1.5)
    assert not tone_present(file, BUSINESS_HZ, min_seconds=0.1)
    assert prompt["seconds"] == pytest.approx(soundfile.info(file).duration, abs=0.1)
    assert left(house) == []

    [rung] = await house.carrier.wait_phone_calls(business.phones["desk"], 1)
    assert rung.hung_up_by == "caller"
    assert rung.heard is not None
    # The instructions, and both recordings before they were to be kept or not.
    assert speech_present(rung.heard)
    assert tone_present(rung.heard, BUSINESS_HZ, min_seconds=1.0)
    assert tone_present(rung.heard, OTHER_HZ, min_seconds=1.0)

    await house.edit_flow(business, PLAYS_IT)
    await house.in_force()
    seen = await house.call(business, steps=(Answered(), Wait(6), Hangup()))
    assert seen.caller.heard is not None
    assert tone_present(seen.caller.heard, OTHER_HZ, min_seconds=1.5)


async def test_hanging_up_keeps_what_was_said(house: Installation) -> None:
    business = await house.business({"desk": phone(LISTEN, FIRST, "wait:2", "hangup:16")})
    first = await record(house, business, code=0)
    assert tone_present(original(house, first), BUSINESS_HZ, min_seconds=1.5)
    assert "already" in (await record(house, business, code=4))["error"]
    assert len(await house.carrier.phone_calls(business.phones["desk"])) == 1
    again = await record(house, business, "--replace", code=0)
    assert again["id"] == first["id"]
    assert len(await house.carrier.phone_calls(business.phones["desk"])) == 2


@pytest.mark.parametrize(
    "behaviour, says, code",
    [(no_answer(), "did not answer", 3), (phone("wait:1", "hangup:16"), "before anything was recorded", 3),
     (phone(LISTEN, "wait:2", "press:#:150:100", "stay:60"), "the recording is silent", 2)],
    ids=["no-answer", "hung up at once", "nothing said"],
)  # fmt: skip
async def test_nothing_was_recorded(house: Installation, behaviour: Behaviour, says: str, code: int) -> None:
    business = await house.business({"desk": behaviour})
    found = await record(house, business, "--ring", "5", code=code)
    assert says in found["error"]
    assert left(house) == []
    await house.idle()
