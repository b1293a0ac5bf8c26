"""What was broken is found, exactly that; what is certain is mended; and a call that died with Asterisk is not lost."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import delete, update

from callrouter.core.disposition import Disposition
from callrouter.store.models import CallEventRow, CallRecordRow, JobRow, RecordingRow
from callrouter.testing.carrier_legs import CallResult
from callrouter.testing.carrier_script import Answered, Hangup, Wait, answer
from tests.fixtures.installation import BUSINESS_HZ, Business, Installation, eventually, installation

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="session")]

DESK = {"desk": answer(after=0.2, speak=f"tone:{BUSINESS_HZ}")}
TALK = (Answered(), Wait(2.5), Hangup())


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def place() -> AsyncIterator[Installation]:
    async with installation(reconcile_at="") as opened:
        yield opened


async def cli(place: Installation, *args: str) -> tuple[int, dict[str, Any]]:
    """What ``callrouter … --json`` answers."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CALLROUTER_")}
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "callrouter", "--home", str(place.settings.home_dir), *args, "--json"),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await child.communicate()
    assert out, error.decode()
    return int(child.returncode or 0), json.loads(out)


def carrier_list(path: Path, calls: list[tuple[CallResult, float]]) -> Path:
    """The carrier's list of these calls with so many seconds; every other one without a Call-ID."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("Start Time", "From", "To", "Duration", "Call-ID"))
        for place, (call, seconds) in enumerate(calls):
            at = datetime.fromtimestamp(call.started, UTC).strftime("%Y-%m-%d %H:%M:%S")
            known = call.sip_call_id if place % 2 else ""
            writer.writerow((at, call.caller, call.did.lstrip("+"), f"{seconds:.0f}", known))
    return path


async def talked(place: Installation, business: Business, count: int) -> list[CallResult]:
    """Calls, a quarter of a second apart; the server is killed while they last, and started again."""

    async def one(number: int) -> CallResult:
        await asyncio.sleep(0.25 * number)
        return await place.place(business, caller=place.caller(), steps=TALK)

    calls = [asyncio.create_task(one(number)) for number in range(count)]
    await asyncio.sleep(0.25 * count / 2)
    await place.end_child(signal.SIGKILL)
    await asyncio.sleep(0.8)
    await place.spawn_server()
    return list(await asyncio.gather(*calls))


async def test_exactly_what_was_broken_is_found_and_mended(place: Installation, tmp_path: Path) -> None:
    business = await place.business(DESK)
    await place.spawn_server()
    results = await talked(place, business, 8)
    assert all(result.answered for result in results)
    before = {call.record.caller: call for call in await place.records_of(business.did, count=8)}
    calls = [before[result.caller] for result in results]
    whole = [(result, result.talk_seconds) for result in results]
    compare = ("reconcile", "--trunk", "simulator", "--settle", "0", "--carrier")

    await eventually(lambda: place.status().get("journal", {}).get("pending") == 0, "the journal is drained")
    code, run = await cli(place, *compare, str(carrier_list(tmp_path / "whole.csv", whole)))
    assert (code, run["findings"]) == (0, [])
    assert (run["counts"]["compared"], run["counts"]["same"], run["counts"]["carrier"]) == (8, 8, 8)

    ids = [call.record.id for call in calls]
    [unfinished] = calls[3].recordings
    async with place.database.session() as session:
        await session.execute(delete(CallRecordRow).where(CallRecordRow.id.in_(ids[:2])))
        await session.execute(delete(CallEventRow).where(CallEventRow.call_id == ids[1]))
        await session.execute(
            update(CallRecordRow).where(CallRecordRow.id == ids[2]).values(ended_at=None, disposition=None)
        )
        await session.execute(
            update(RecordingRow)
            .where(RecordingRow.id == unfinished.id)
            .values(status="pending", manifest_sha256=None, chain_seq=None)
        )
        await session.execute(delete(JobRow).where(JobRow.key == f"finish_recording:{unfinished.id}"))
    broken = [*whole[:4], (results[4], results[4].talk_seconds + 60), *whole[6:]]
    ghost = await place.place(Business("none", business.did, "", {}), caller=place.caller(), steps=TALK)
    [extra] = await place.records_of(business.did, ghost.caller)
    broken_list = carrier_list(tmp_path / "broken.csv", [*broken, (ghost, ghost.talk_seconds)])
    with broken_list.open("a") as file:
        at = datetime.fromtimestamp(results[5].started, UTC).isoformat()
        file.write(f"{at},+13125550000,{business.did},2,nobody@knows\n")

    await eventually(lambda: place.status().get("journal", {}).get("pending") == 0, "the journal is drained")
    code, run = await cli(place, *compare, str(broken_list))
    assert code == 1
    uniqueids = [call.record.uniqueid for call in calls]
    assert {(one["kind"], one["uniqueid"], one["repaired"]) for one in run["findings"]} == {
        ("missing-row", uniqueids[0], True),
        ("missing", uniqueids[1], True),
        ("stale", uniqueids[2], True),
        ("recording-unfinished", uniqueids[3], True),
        ("carrier-duration", uniqueids[4], False),
        ("ours-only", uniqueids[5], False),
        ("carrier-only", None, False),
    }
    assert len(run["findings"]) == 7
    assert run["counts"]["unexplained"] == 3

    after = {call.record.caller: call for call in await place.records_of(business.did, count=9)}
    for number, call in enumerate(calls):
        now = after[call.record.caller]
        for name in ("uniqueid", "did", "disposition", "answered_by", "company_id", "campaign_id", "trunk"):
            assert getattr(now.record, name) == getattr(call.record, name), (number, name)
        assert now.record.talk_seconds == pytest.approx(call.record.talk_seconds, abs=0.3)
        assert [one.status for one in now.recordings] == ["ok"], number
    whole.append((ghost, ghost.talk_seconds))
    code, run = await cli(place, *compare, str(carrier_list(tmp_path / "whole.csv", whole)))
    assert (code, run["findings"]) == (0, [])
    assert run["counts"]["compared"] == 9
    assert extra.record.id in {call.record.id for call in after.values()}
    last = (await cli(place, "reconcile", "--last"))[1]
    if last["id"] != run["id"]:  # the server's own comparison, some time after its start, came in between
        run = (await cli(place, *compare, str(carrier_list(tmp_path / "whole.csv", whole))))[1]
        last = (await cli(place, "reconcile", "--last"))[1]
    assert last["id"] == run["id"]
    await place.end_child()


async def test_a_call_that_only_the_failsafe_held_when_asterisk_died_is_a_record(place: Installation) -> None:
    business = await place.business(DESK)
    await place.spawn_server()
    await place.end_child()
    caller = place.caller()
    calling = asyncio.create_task(place.place(business, caller=caller, steps=(Answered(), Wait(30.0), Hangup())))

    async def on_the_phone() -> bool:
        calls = await place.carrier.phone_calls(business.phones["desk"])
        return bool(calls) and calls[-1].answered

    try:
        await eventually(on_the_phone, "the business answered")
        raw = place.settings.recording_spool

        def being_recorded() -> bool:
            return any(path.stat().st_size > 8000 for path in raw.glob("fs-*-rx.wav"))

        await eventually(being_recorded, "sound in the raw legs")
        pid = place.asterisk.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await place.asterisk.wait()
    finally:
        calling.cancel()
    await asyncio.gather(calling, return_exceptions=True)
    with place.settings.channel_events_path.open("a") as events:
        events.write('"HANGUP","17')  # as a power failure leaves it
    await place.asterisk.start()
    await place.spawn_server()
    await eventually(lambda: place.status().get("imported") == 1, "the call is taken in")
    for leg in raw.glob("fs-*.wav"):
        # A file that nobody closed is taken to be finished when it was left alone for a minute: here, at once.
        os.utime(leg, (leg.stat().st_atime, leg.stat().st_mtime - 61))
    [call] = await place.records_of(business.did, caller)
    record = call.record
    assert (record.handled_by, record.disposition) == ("failsafe", Disposition.ANSWERED)
    assert record.reason.startswith("Asterisk ended while the call was up: desk answered")
    assert (call.company, call.campaign, record.answered_by) == (business.company, "radio", "desk")
    assert record.talk_seconds > 0.4
    [recording] = call.recordings
    assert recording.status in ("ok", "suspect")
    assert recording.path is not None
    await eventually(lambda: place.status().get("journal", {}).get("pending") == 0, "the journal is drained")
    code, run = await cli(place, "reconcile", "--settle", "0")
    assert (code, run["findings"]) == (0, [])
    # Once: also when the server starts again.
    await place.end_child(signal.SIGKILL)
    await place.spawn_server()
    await eventually(lambda: place.status().get("imported") == 0, "a look around")
    assert len(await place.records_of(business.did)) == 1
    await place.end_child()
