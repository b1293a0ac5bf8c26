"""Five hundred calls, ten a second: each one written down and recorded, and nothing left behind."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import pytest
import soundfile

from callrouter.core.disposition import Disposition
from callrouter.store.calls import CallFilter, StoredCall, get_call, list_calls
from callrouter.testing.audio import tone_present
from callrouter.testing.carrier_script import Answered, CallScript, Digits, Hangup, UntilHangup, Wait, answer
from tests.acceptance.conversations import sales_menu
from tests.fixtures.installation import BUSINESS_HZ, CALLER_HZ, Installation, eventually, installation

pytestmark = [
    pytest.mark.asterisk,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="session"),
]

CALLS = 500
PER_SECOND = 10.0
TALK_SECONDS = 2.0
MENU = sales_menu(timeout=10)


def megabytes(pid: int) -> float:
    """Memory of a process that is its own."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


async def test_five_hundred_calls(capsys: pytest.CaptureFixture[str]) -> None:
    # How soon a call is claimed depends on the machine. Here none may fall to the failsafe for another reason.
    async with installation(failsafe_claim_ms=5000) as place:
        server = await place.spawn_server()
        direct = await place.business({"desk": answer(after=0.2, speak=f"tone:{BUSINESS_HZ}")})
        menu = await place.business(
            {"desk": answer(after=0.2, speak=f"tone:{BUSINESS_HZ}", hang_up_after=2.0)}, flow=MENU
        )
        scripts = []
        for number in range(CALLS):
            # Every fifth goes through a menu, and there the business hangs up.
            through_menu = number % 5 == 0
            steps = (
                (Wait(1.5), Digits("1"), UntilHangup()) if through_menu else (Answered(), Wait(TALK_SECONDS), Hangup())
            )
            scripts.append(
                CallScript(
                    did=menu.did if through_menu else direct.did,
                    caller=place.caller(),
                    speak=f"tone:{CALLER_HZ}",
                    steps=steps,
                    max_seconds=30,
                )
            )
        asterisk = place.asterisk.pid or 0
        # Warm: what is loaded once is no growth.
        await place.carrier.place_all([scripts[0], scripts[1]])
        before = megabytes(server.pid), megabytes(asterisk)
        began, start = time.time(), time.monotonic()
        results = await place.carrier.place_all(scripts, per_second=PER_SECOND)
        placed = time.monotonic() - start
        grown = [
            after - first for after, first in zip((megabytes(server.pid), megabytes(asterisk)), before, strict=True)
        ]

        # Callers: all came through, each with a SIP call of its own.
        assert sum(result.answered for result in results) == CALLS
        assert len({result.sip_call_id for result in results}) == CALLS
        phones = [call for call in await place.carrier.phone_calls() if call.started >= began - 0.5]
        assert len(phones) == CALLS
        assert all(call.answered and call.ended for call in phones)

        # Records: one each, complete.
        calls = await complete(place, began, 240.0)
        finished = time.monotonic() - start
        assert len(calls) == CALLS
        assert {call.record.caller for call in calls} == {script.caller for script in scripts}
        assert {call.record.disposition for call in calls} == {Disposition.ANSWERED}
        assert {call.record.handled_by for call in calls} == {"controller"}
        assert {len(call.record.legs) for call in calls} == {1}
        assert {call.campaign for call in calls} == {"radio"}
        errors = [
            abs(call.record.talk_seconds - result.talk_seconds)
            for result, script in zip(results, scripts, strict=True)
            for call in calls
            if call.record.caller == script.caller and script.did == direct.did
        ]
        assert max(errors) < 1.0

        # Recordings: two channels each, as long as the conversation, nothing wrong with any.
        assert [len(call.recordings) for call in calls] == [1] * CALLS
        wrong = [each for call in calls for each in call.recordings if each.status != "ok" or each.problem]
        assert wrong == []
        files = [place.settings.recordings / str(call.recordings[0].path) for call in calls]
        assert len(set(files)) == CALLS
        for file in files:
            assert soundfile.info(file).channels == 2
        for file in files[::25]:
            assert tone_present(file, CALLER_HZ, channel=0)
            assert tone_present(file, BUSINESS_HZ, channel=1)

        # The ledger agrees.
        known = {call.record.uniqueid for call in calls}
        rows = [row for row in place.ledger() if row.uniqueid in known]
        assert len(rows) == len({row.uniqueid for row in rows}) == CALLS
        assert {row.dialstatus for row in rows} == {"ANSWER"}

        # Nothing is left behind.
        await place.idle()
        await eventually(lambda: place.status().get("calls") == 0, "no call left in the controller")
        await eventually(lambda: place.status()["journal"]["pending"] == 0, "the journal is drained")
        async with place.ari() as ari:
            assert (await ari.application(place.settings.ari_app)).channel_ids == []
            assert await ari.bridges() == []
        assert await place.carrier.active_channels() == 0
        raw = [path for path in place.settings.recording_spool.glob("*.wav") if path.stat().st_size > 44]
        assert raw == []
        assert place.status()["total"] == CALLS + 2
        assert "Traceback" not in place.server_log()
        tasks = place.status()["tasks"]
        assert tasks < 30, f"{tasks} tasks left in the controller"
        assert grown[0] < 80, f"the server grew by {grown[0]:.0f} MB"

        delays = [
            phone.started - result.started
            for phone in phones
            for result, script in zip(results, scripts, strict=True)
            if phone.from_number == script.caller and script.did == direct.did
        ]
        with capsys.disabled():
            print(
                f"\nsoak: {CALLS} calls at {PER_SECOND:g}/s in {placed:.0f} s, "
                f"recordings finished after {finished:.0f} s; "
                f"INVITE in to INVITE out: median {statistics.median(delays) * 1000:.0f} ms, "
                f"longest {max(delays) * 1000:.0f} ms; talk time off by at most {max(errors):.2f} s; "
                f"memory: server {before[0]:.0f} MB {grown[0]:+.1f}, Asterisk {before[1]:.0f} MB {grown[1]:+.1f}"
            )


async def complete(place: Installation, began: float, seconds: float) -> list[StoredCall]:
    """All calls since a moment, once their recordings are finished."""
    deadline = time.monotonic() + seconds
    while True:
        async with place.database.session(read_only=True) as session:
            rows = [row for row in await list_calls(session, CallFilter(), limit=2000) if row.started_at >= began - 0.2]
            done = all(
                row.disposition is not None
                and row.recordings
                and all(each.status != "pending" for each in row.recordings)
                for row in rows
            )
            if (done and len(rows) >= CALLS) or time.monotonic() > deadline:
                return [await get_call(session, row.id) for row in rows]
        await asyncio.sleep(1.0)
