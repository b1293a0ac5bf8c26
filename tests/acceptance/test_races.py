"""CANCEL and BYE at the worst moments, between both ends of many calls: nothing stays, and each call is told once."""

from __future__ import annotations

import os
import random

import pytest

from bench.chaos.duel import Plan
from bench.chaos.races import prepare, race
from callrouter.core.disposition import Disposition
from callrouter.core.records import CallRecord
from callrouter.store.calls import get_call, list_calls
from tests.fixtures.installation import eventually, installation

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


async def test_who_cancels_before_the_dialplan_begins_is_known_all_the_same() -> None:
    rng = random.Random(7)
    async with installation(work=False) as place:
        await place.spawn_server()
        duels = await prepare(place)
        try:
            # Together, so that the dialplan is behind; a CANCEL that comes too early finds no call.
            plans = [Plan(number, "cancel", cancel=rng.uniform(0.0, 0.01)) for number in range(200)]
            await duels.fight(plans, 200.0)
        finally:
            duels.close()
        await place.idle()
        ledger = {row.uniqueid: row for row in place.ledger()}
        unnamed = [uniqueid for uniqueid, row in ledger.items() if not (row.did and row.trunk and row.caller)]
        assert unnamed, "nobody was so quick: nothing was tried"
        records: dict[str, CallRecord] = {}

        async def told() -> bool:
            async with place.database.session(read_only=True) as session:
                for row in await list_calls(session, limit=1000):
                    if row.uniqueid not in records and row.disposition:
                        records[row.uniqueid] = (await get_call(session, row.id)).record
            return records.keys() >= ledger.keys()

        await eventually(told, "a record of each call")
    callers = {each.caller for each in plans}
    for uniqueid in unnamed:
        record = records[uniqueid]
        assert (record.did, record.trunk, record.disposition) == (
            duels.dids["direct"], "races", Disposition.ABANDONED,
        ), record  # fmt: skip
        assert record.caller in callers
    assert len({record.caller for record in records.values()}) == len(records)
