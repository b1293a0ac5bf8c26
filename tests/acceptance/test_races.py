"""CANCEL and BYE at the worst moments, between both ends of many calls: nothing stays, and each call is told once."""

from __future__ import annotations

import os
import random

import pytest

from bench.chaos.races import race
from tests.fixtures.installation import installation

pytestmark = [pytest.mark.asterisk, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="session")]

CALLS = int(os.environ.get("CALLROUTER_RACE_CALLS", "396"))
"""A part of every test run. The long form, which also asks for the SIP dialogs: bench/chaos/races.py."""


async def test_cancel_and_bye_at_the_worst_moments(capsys: pytest.CaptureFixture[str]) -> None:
    seed = int(os.environ.get("CALLROUTER_RACE_SEED", "0")) or random.randrange(1, 10**6)
    async with installation(work=False) as place:
        await place.spawn_server()
        outcome = await race(place, CALLS, 20.0, seed, dialogs=False)
        log = place.server_log()
    with capsys.disabled():
        print(f"\nraces, seed {seed}\n{outcome.summary()}")
    assert outcome.faults == [], f"seed {seed}:\n{outcome.summary()}"
    assert outcome.numbers["records"] >= 0.95 * CALLS, "Asterisk hardly took a call: nothing was tried"
    assert outcome.numbers["answered"] >= 0.4 * CALLS
    for trouble in ("Traceback", '"level": "error"', '"level": "critical"'):
        assert trouble not in log, log[-4000:]
