"""Real calls while the database is locked, gone, or has no room: nobody waits, and all of it is there afterwards."""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
import pytest_asyncio

from callrouter.bootstrap import prepare_asterisk
from callrouter.core.disposition import Disposition
from callrouter.testing.carrier_legs import CallResult
from callrouter.testing.carrier_script import Answered, Digits, Hangup, Wait, answer
from tests.fixtures.installation import BUSINESS_HZ, Business, Installation, eventually, installation

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="session")]

DESK = {"desk": answer(after=0.2, speak=f"tone:{BUSINESS_HZ}")}
TALK = (Answered(), Wait(1.0), Hangup())
MENU = """
start: menu
nodes:
  menu: {type: menu, prompt: Press one., options: {1: dial}, timeout: 5, max_tries: 3, on_exhausted: dial}
  dial: {type: dial, target: desk, on_busy: end, on_no_answer: end, on_failed: end}
  end: {type: hangup}
"""
CHOOSE = (Wait(1.5), Digits("1"), Wait(2.5), Hangup())
SOON = 2.5
"""Seconds in which a direct call is answered, the phone's own 0.2 included."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def lone() -> AsyncIterator[Installation]:
    async with installation() as place:
        yield place


@pytest_asyncio.fixture(loop_scope="session")
async def place(lone: Installation) -> Installation:
    """With a server that runs when the test begins."""
    if lone.child is None or lone.child.returncode is not None:
        await lone.spawn_server()
    return lone


def database_file(place: Installation) -> Path:
    assert place.database.path is not None
    return place.database.path


async def calls(place: Installation, business: Business, count: int, **script: object) -> dict[str, CallResult]:
    """Calls from as many callers at once."""
    callers = [place.caller() for _ in range(count)]
    given = {"steps": TALK, **script}
    results = await asyncio.gather(*(place.place(business, caller=each, **given) for each in callers))
    return dict(zip(callers, results, strict=True))


def soonest(results: dict[str, CallResult]) -> None:
    for caller, result in results.items():
        assert result.answered_at is not None, caller
        assert result.answered_at - result.started < SOON, f"{caller} waited"


async def check_stored(place: Installation, business: Business, results: dict[str, CallResult]) -> None:
    """Each call once, by the controller and not by the failsafe, with a recording that is whole."""
    found = await place.records_of(business.did, count=len(results), seconds=60)
    assert sorted(str(call.record.caller) for call in found) == sorted(results)
    for call in found:
        assert call.record.handled_by == "controller"
        assert call.record.disposition is Disposition.ANSWERED
        assert [one.status for one in call.recordings] == ["ok"]
    with closing(sqlite3.connect(database_file(place))) as connection:
        twice = connection.execute("SELECT call_id, seq FROM call_event GROUP BY 1, 2 HAVING count(*) > 1").fetchall()
    assert twice == []


async def drained(place: Installation) -> None:
    def well() -> bool:
        status = place.status()
        return status.get("journal") == {"pending": 0, "problem": None} and status["database"]["problem"] is None

    await eventually(well, "the journal is drained", 40)


async def test_a_locked_database_keeps_no_caller_waiting(place: Installation) -> None:
    business = await place.business(DESK)
    menu = await place.business(DESK, flow=MENU)
    await drained(place)
    with closing(sqlite3.connect(database_file(place), isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        results, chosen = await asyncio.gather(calls(place, business, 4), calls(place, menu, 2, steps=CHOOSE))
        soonest(results)
        assert all(result.answered for result in chosen.values())
        await eventually(lambda: "is locked" in str(place.status()["database"]["problem"]), "the status", 15)
        assert place.status()["journal"]["pending"] > 0
        more = await calls(place, business, 4)
        soonest(more)
        assert time.monotonic() - began > 6, "longer than SQLite itself would wait"
        holder.execute("ROLLBACK")
    await drained(place)
    await check_stored(place, business, results | more)
    await check_stored(place, menu, chosen)


async def test_a_server_that_starts_without_its_database_takes_calls(place: Installation) -> None:
    """The file is gone while the machine boots, and comes back under calls."""
    business = await place.business(DESK)
    menu = await place.business(DESK, flow=MENU)
    await drained(place)
    assert await place.end_child() == 0
    path = database_file(place)
    aside = path.with_name("aside")
    aside.mkdir()
    for each in path.parent.glob(f"{path.name}*"):
        each.rename(aside / each.name)
    await place.spawn_server()
    results, chosen = await asyncio.gather(calls(place, business, 3), calls(place, menu, 2, steps=CHOOSE))
    soonest(results)
    assert all(result.answered for result in chosen.values())
    status = place.status()
    assert "does not exist" in status["database"]["problem"]
    assert status["config_kept_at"] is not None
    code, said = await command(place, "status")
    assert code == 1
    assert "does not exist" in said
    assert "as the database had it at" in said
    # Asterisk would start too; here it finds its ports taken by the one that runs.
    code, said = await command(place, "asterisk", "run")
    assert "runs on the configuration that is in place" in said
    assert code == 4
    await prepare_asterisk(place.settings)
    for each in aside.iterdir():
        each.rename(path.parent / each.name)
    await drained(place)
    await eventually(lambda: place.status()["config_kept_at"] is None, "the database's routing")
    more = await calls(place, business, 2)
    soonest(more)
    await check_stored(place, business, results | more)
    await check_stored(place, menu, chosen)
    log = place.server_log()
    assert "routing_from_snapshot" in log
    assert "Traceback" not in log


async def test_with_neither_database_nor_snapshot_the_start_says_so(place: Installation) -> None:
    assert await place.end_child() == 0
    home = place.settings.home_dir
    path, snapshot = database_file(place), home / "routing.snapshot"
    moved = [each for each in [*path.parent.glob(f"{path.name}*"), snapshot] if each.is_file()]
    assert snapshot in moved
    for each in moved:
        each.rename(each.with_name(f"away-{each.name}"))
    try:
        child = await place.spawn_server(ready=False)
        assert await asyncio.wait_for(child.wait(), 30) == 3
    finally:
        for each in moved:
            each.with_name(f"away-{each.name}").rename(each)
    assert "callrouter.db does not exist" in place.server_log()[-2000:]
    assert "Traceback" not in place.server_log()


async def test_a_full_disk_under_calls_is_said_and_nothing_is_lost(place: Installation) -> None:
    """The server may write no file beyond what there is: neither journal nor database grow any more."""
    business = await place.business(DESK)
    first = await calls(place, business, 6)
    await drained(place)
    child = place.child
    assert child is not None
    journal = max(path.stat().st_size for path in (place.settings.home_dir / "journal").glob("*.jsonl"))
    assert journal > 8192, "the status file fits in what is left"
    before = resource.prlimit(child.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (journal + 100, before[1]))
    try:
        began = time.monotonic()
        running = asyncio.create_task(calls(place, business, 4, steps=(Answered(), Wait(4.0), Hangup())))
        await eventually(lambda: "cannot be written" in str(place.status()["journal"]["problem"]), "the status", 10)
        assert time.monotonic() - began < 8
        results = await running
        soonest(results)
        assert place.status()["journal"]["pending"] > 0
    finally:
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, before)
    await drained(place)
    await check_stored(place, business, first | results)
    assert "call_step_failed" not in place.server_log()


async def test_after_all_that_nothing_is_left_behind(place: Installation) -> None:
    await place.idle()
    await eventually(lambda: place.status().get("calls") == 0, "no call left")
    bad = [line for line in place.server_log().splitlines() if "Traceback" in line or "part_failed" in line]
    assert bad == []
    assert await place.end_child(signal.SIGTERM) == 0


async def command(place: Installation, *args: str) -> tuple[int | None, str]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "callrouter", "--home", str(place.settings.home_dir), *args),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await child.communicate()
    return child.returncode, " ".join(said.decode().split())
