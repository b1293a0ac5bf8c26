"""Entries of digits on real Asterisk; and that of a sensitive one not a digit is left anywhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from callrouter.core import events as e
from callrouter.core.disposition import Disposition
from callrouter.store.codec import items
from callrouter.store.journal import Position, read
from callrouter.testing.carrier_script import Digits, UntilHangup, Wait, answer
from tests.fixtures.installation import Installation, Seen, installation

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="session")]

FLOW = """
start: ask
nodes:
  ask:
    type: gather
    prompt: Please enter your number, then press the pound key, and we will look it up for you.
    name: account
    min: 5
    max: 10
    timeout: 8
    between: 2
    sensitive: {sensitive}
    next: desk
    on_exhausted: lost
  lost: {{type: tag, tags: [lost], next: desk}}
  desk: {{type: dial, target: desk, on_busy: end, on_no_answer: end, on_failed: end}}
  end: {{type: hangup}}
"""
DIGIT = re.compile(rb'\\?"digit\\?"\s*:\s*\\?"[0-9]')
ENTRY = "8273915"


async def asked(place: Installation, sensitive: str) -> Seen:
    """The caller interrupts the prompt, enters too little at first, and presses more keys while talking."""
    business = await place.business({"desk": answer(hang_up_after=3.0)}, flow=FLOW.format(sensitive=sensitive))
    steps = (Wait(1.0), Digits("827"), Wait(4.0), Digits(f"{ENTRY}#"), Wait(2.0), Digits("46"), UntilHangup())
    seen = await place.call(business, steps=steps)
    assert seen.call.record.disposition is Disposition.ANSWERED
    assert seen.call.record.path == ("ask", "desk")
    assert "invalid: 3 of at least 5 digits, no further digit in 2 s (try 1/3)" in seen.trace
    # What is pressed in the conversation is the business's.
    assert seen.phone.digits == "46"
    return seen


def holding(place: Installation) -> dict[Path, str]:
    """Files of the installation with an entry in them, or with an event about a digit. Not the simulated carrier's."""
    home = place.settings.home_dir
    found = {}
    for path in home.rglob("*"):
        if path.is_file() and "carrier" not in path.relative_to(home).parts:
            text = path.read_bytes()
            if what := DIGIT.search(text) or re.search(ENTRY.encode(), text):
                found[path.relative_to(home)] = what[0].decode()
    return found


def pressed(place: Installation, call: str) -> str:
    lines = [line for line, _ in read(place.settings.journal_dir, Position()) if line and line.call == call]
    return "".join(entry.digit for entry in items(lines) if isinstance(entry, e.Digit))


async def test_an_entry_is_known_and_a_sensitive_one_is_not() -> None:
    async with installation(log_level="debug") as place:
        await place.spawn_server()
        secret = await asked(place, "yes")
        assert "ask: gathered account: ••••••• (7 digits)" in secret.trace
        assert pressed(place, secret.call.record.id).startswith("•" * 10 + "#")
        assert set(pressed(place, secret.call.record.id)) == {"•", "#"}
        assert holding(place) == {}
        # The same call, openly: the look through the files would have found it.
        known = await asked(place, "no")
        assert f"ask: gathered account: {ENTRY}" in known.trace
        assert pressed(place, known.call.record.id).startswith(f"827{ENTRY}#")
        kinds = {path.parts[0].partition(".")[0] for path in holding(place)}
        assert {"journal", "callrouter"} <= kinds
        assert await place.end_child() == 0
        assert "Traceback" not in place.server_log()
