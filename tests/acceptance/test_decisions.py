"""Nodes that decide at once, several languages, and opening hours put aside: on real Asterisk."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import soundfile

from callrouter.core.branches import point
from callrouter.core.disposition import Disposition
from callrouter.media.prompts import PromptLibrary
from callrouter.media.speech import EspeakSpeaker
from callrouter.store import config
from callrouter.testing.audio import tone_present
from callrouter.testing.carrier_script import answer
from tests.acceptance.listening import voice_seconds
from tests.fixtures.installation import Business, Installation, Seen, installation

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="session")]

ENGLISH_HZ, SPANISH_HZ = 600, 1300
SIMPLE = """
start: desk
nodes:
  desk: {type: dial, target: desk, on_busy: end, on_no_answer: end, on_failed: end}
  end: {type: hangup}
"""
FLOW = """
start: hours
nodes:
  hours: {type: hours, open: 24/7, on_open: share, on_closed: closed}
  closed: {type: play, prompt: {en: {file: english}, es: {file: spanish}}, next: end}
  share: {type: split, branches: {where: 50, half: 50}}
  half: {type: tag, tags: [half], next: desk}
  where: {type: geo, areas: [{area_code: 212, next: es}, {country: GB, next: end}], on_other: hello, on_unknown: end}
  es: {type: set, language: es, values: {department: ventas}, next: hello}
  hello:
    type: play
    prompt:
      - {en: {file: english}, es: {file: spanish}}
      - {en: "Hello, and welcome to everybody.", es: "Hola, y bienvenidos a todos."}
    next: desk
  desk: {type: dial, target: desk, on_busy: end, on_no_answer: end, on_failed: end}
  end: {type: hangup}
"""


def tone(hertz: float) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, 0.5 * np.sin(2 * np.pi * hertz * np.arange(8000) / 8000), 8000, format="WAV")
    return out.getvalue()


async def firm(place: Installation) -> Business:
    """A company whose flow plays a tone for each language."""
    business = await place.business({"desk": answer(after=0.2, hang_up_after=0.8)}, flow=SIMPLE, record=False)
    library = PromptLibrary(place.settings.prompts_dir, EspeakSpeaker())
    async with place.database.session() as session:
        for name, hertz in (("english", ENGLISH_HZ), ("spanish", SPANISH_HZ)):
            kept = library.take_upload(tone(hertz))
            await config.add_prompt(
                session,
                business.company,
                name=name,
                filename=f"{name}.wav",
                sha256=kept.sha256,
                seconds=kept.seconds,
                who="tests",
            )
    await place.edit_flow(business, FLOW)
    await place.in_force()
    return business


def callers(area: str, left: bool) -> Iterator[str]:
    """Numbers of an area that the split sends left, or right."""
    for count in range(1000):
        number = f"+1{area}555{count:04d}"
        if (point("main/share", number) < 50) is left:
            yield number


def heard(seen: Seen) -> tuple[bool, bool]:
    """Whether the caller heard the English tone, and the Spanish one."""
    assert seen.caller.heard is not None
    return tuple(tone_present(seen.caller.heard, hertz, min_seconds=0.7) for hertz in (ENGLISH_HZ, SPANISH_HZ))  # type: ignore[return-value]


async def command(place: Installation, *words: str) -> None:
    """A command of an administrator, beside the running server."""
    run = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "callrouter", "--home", str(place.settings.home_dir), *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await run.communicate()
    assert run.returncode == 0, said.decode()
    await place.in_force()


async def check_branches_and_languages(place: Installation, business: Business) -> None:
    spanish, english, half = next(callers("212", True)), next(callers("312", True)), next(callers("212", False))
    # A call without a number is told by being the only one.
    withheld = await place.call(business, anonymous=True)
    first, other, right = await asyncio.gather(
        place.call(business, caller=spanish),
        place.call(business, caller=english),
        place.call(business, caller=half),
    )
    assert first.call.record.path == ("hours", "share", "where", "es", "hello", "desk")
    assert (first.call.record.values, first.call.record.language) == ((("department", "ventas"),), "es")
    assert heard(first) == (False, True)
    assert voice_seconds(first.caller.heard) > 0.8
    assert other.call.record.path == ("hours", "share", "where", "hello", "desk")
    assert (other.call.record.values, other.call.record.language) == ((), None)
    assert heard(other) == (True, False)
    assert voice_seconds(other.caller.heard) > 0.8
    assert f"other: {english} is in US, and in none of the areas" in other.trace
    assert right.call.record.path == ("hours", "share", "half", "desk")
    assert "50 %: the caller's number falls on" in right.trace
    assert {each.call.record.disposition for each in (first, other, right)} == {Disposition.ANSWERED}
    # Whom nobody knows goes by the call: left, and out as unknown, or right.
    assert withheld.call.record.path in (("hours", "share", "where", "end"), ("hours", "share", "half", "desk"))
    assert "without a number, the call falls on" in withheld.trace
    # Each again: the same way. (The second record of each number is looked for, so that it is not the first.)
    await asyncio.gather(*(place.place(business, caller=caller) for caller in (spanish, half)))
    for seen, caller in ((first, spanish), (right, half)):
        again = (await place.records_of(business.did, caller, 2))[-1]
        assert again.record.path == seen.call.record.path


async def check_overrides(place: Installation, business: Business) -> None:
    """Closed by command, at once; a flow's own before its company's; and without a server."""
    numbers = callers("646", False)
    await command(
        place, "hours", "override", business.company, "closed", "--until", "2031-01-06 08:00", "--reason", "snow"
    )
    closed = await place.call(business, caller=next(numbers))
    assert closed.call.record.path == ("hours", "closed", "end")
    assert closed.call.record.disposition is Disposition.COMPLETED
    assert "overridden for the company until 2031-01-06 Mon 08:00 (America/New_York): snow" in closed.trace
    assert heard(closed) == (True, False)
    assert not closed.phones["desk"]
    await place.stop_server()
    caller = next(numbers)
    alone = await place.place(business, caller=caller)
    await place.start_server()
    told = await place.seen(business, alone, caller)
    assert (told.call.record.disposition, told.call.record.handled_by) == (Disposition.COMPLETED, "failsafe")
    assert not told.phones["desk"]
    assert heard(told) == (True, False)
    await command(place, "hours", "override", business.company, "open", "--flow", "main", "--until", "2031-01-06 08:00")
    opened = await place.call(business, caller=next(numbers))
    assert opened.call.record.path == ("hours", "share", "half", "desk")
    assert "open: overridden for flow main until 2031-01-06" in opened.trace
    assert opened.call.record.disposition is Disposition.ANSWERED


async def test_decisions() -> None:
    async with installation() as place:
        await place.start_server()
        business = await firm(place)
        await check_branches_and_languages(place, business)
        await check_overrides(place, business)
