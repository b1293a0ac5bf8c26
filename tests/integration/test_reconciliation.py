"""Comparing and mending on both databases: each thing that is broken is found, mended once, and not found again."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import delete, select, update

from callrouter.config import Settings, load_settings
from callrouter.core import events as e
from callrouter.core.cdr import LogItem
from callrouter.core.disposition import Disposition
from callrouter.core.reconcile import Kind, Tolerance
from callrouter.runtime.reconciliation import DAY, Nightly, Wanted, compare, seconds_until, summary
from callrouter.store.calls import call_log, get_call, list_calls
from callrouter.store.codec import Line, to_builtins
from callrouter.store.database import Database
from callrouter.store.drain import Drain
from callrouter.store.journal import Journal
from callrouter.store.models import CallEventRow, CallRecordRow, JobRow, RecordingRow
from callrouter.store.reconciliation import KEEP_RUNS, Run, add_log, keep_run, last_run, waiting_in_journal
from tests.builders import DID, arrived, run, table
from tests.contract.runtime.support import ledger_line, write_ledger
from tests.unit.test_cel import line

UID = "9.1"
LEG = "call-1-l1"
BEGAN = time.time() - 600


@dataclass
class Desk:
    """A database and Asterisk's files, without anybody who writes to them meanwhile."""

    database: Database
    settings: Settings
    live: set[str] = field(default_factory=set)

    async def compare(self, *, repair: bool = True) -> Run:
        now = time.time()
        return await compare(
            self.settings, self.database, self.live, Wanted(now - DAY, now, tolerance=Tolerance(), repair=repair)
        )

    async def found(self, *, repair: bool = True) -> list[tuple[str, bool]]:
        return [(one["kind"], one["repaired"]) for one in (await self.compare(repair=repair)).findings]

    async def logged(self, events: list[e.Event], call_id: str = "call-1") -> None:
        log: list[LogItem] = run(table(), events).log
        async with self.database.session() as session:
            await add_log(session, call_id, log)

    def ledger(self, **values: object) -> None:
        row = {"handled_by": "controller", "leg": LEG, "recording": f"/spool/{LEG}", "failsafe_reason": ""} | values
        write_ledger(self.settings.ledger_path, [ledger_line(UID, end=BEGAN + 40, **row)])


@pytest.fixture
def desk(database: Database, tmp_path: Path) -> Desk:
    return Desk(database, load_settings(environ={}, home=str(tmp_path / "home")))


ARRIVES: list[e.Event] = [arrived(BEGAN, call_id="call-1", channel=UID)]
TALKS: list[e.Event] = [*ARRIVES, e.LegAnswered(BEGAN + 10, "c-l1")]
ENDS: list[e.Event] = [*TALKS, e.CallerHungUp(BEGAN + 40)]


async def record(desk: Desk):
    async with desk.database.session(read_only=True) as session:
        [row] = await list_calls(session)
        return await get_call(session, row.id)


async def test_what_agrees_is_no_finding(desk: Desk) -> None:
    await desk.logged(ENDS)
    desk.ledger()
    found = await desk.compare()
    assert found.findings == ()
    assert (found.counts["compared"], found.counts["same"]) == (1, 1)


@pytest.mark.parametrize("repair", [False, True])
async def test_a_call_of_asterisks_alone_is_taken_in_once(desk: Desk, repair: bool) -> None:
    desk.ledger(handled_by="failsafe", leg=f"fs-{UID}-1")
    assert await desk.found(repair=repair) == [(Kind.MISSING, repair)]
    if not repair:
        assert await desk.found(repair=False) == [(Kind.MISSING, False)], "a dry run changes nothing"
        return
    call = await record(desk)
    assert (call.record.uniqueid, call.record.handled_by) == (UID, "failsafe")
    assert call.record.disposition is Disposition.ANSWERED
    # Nobody's: the number is not one of this installation's.
    assert await desk.found() == [(Kind.UNOWNED, False)]


async def test_a_call_that_died_with_asterisk_is_taken_in_from_its_events(desk: Desk) -> None:
    from tests.builders import T0

    lines = [
        line("CHAN_START", BEGAN - T0, uniqueid=UID, linkedid=UID, exten=DID, context="cr-trunk-carrier"),
        line("APP_START", BEGAN - T0 + 1, "Dial", "PJSIP/x,20", uniqueid=UID, linkedid=UID),
    ]
    write_ledger(desk.settings.channel_events_path, lines)
    desk.live = {UID}
    assert await desk.found() == [], "it is still on"
    desk.live = set()
    assert await desk.found() == [(Kind.MISSING, True)]
    call = await record(desk)
    assert call.record.disposition is Disposition.FAILED
    assert call.record.reason == "Asterisk ended while the call was up: PJSIP/x rang"
    assert await desk.found() == [(Kind.UNOWNED, False)]


async def test_a_row_that_is_gone_is_folded_anew(desk: Desk) -> None:
    await desk.logged(ENDS)
    desk.ledger()
    before = await record(desk)
    async with desk.database.session() as session:
        await session.execute(delete(CallRecordRow))
    assert await desk.found() == [(Kind.MISSING_ROW, True)]
    assert (await record(desk)).record == before.record
    assert await desk.found() == []


async def test_a_row_that_is_behind_its_log_is_brought_up_to_date(desk: Desk) -> None:
    await desk.logged(ENDS)
    desk.ledger()
    async with desk.database.session() as session:
        await session.execute(update(CallRecordRow).values(ended_at=None, disposition=None))
    assert await desk.found() == [(Kind.STALE, True)]
    async with desk.database.session(read_only=True) as session:
        assert len(await call_log(session, "call-1")) == len(run(table(), ENDS).log), "what is decided stays"
    assert (await record(desk)).record.disposition is Disposition.ANSWERED
    assert await desk.found() == []


@pytest.mark.parametrize("events, told", [(TALKS, True), (TALKS, False), (ARRIVES, True), (ARRIVES, False)])
async def test_an_open_call_without_a_channel_is_closed(desk: Desk, events: list[e.Event], told: bool) -> None:
    await desk.logged(events)
    if told:
        desk.ledger()
    desk.live = {UID}
    assert await desk.found() == []
    desk.live = set()
    assert await desk.found() == [(Kind.OPEN, True)]
    call = await record(desk)
    assert call.record.disposition is (Disposition.ANSWERED if told or events is TALKS else Disposition.FAILED)
    assert all(leg.ended_at is not None for leg in call.record.legs)
    if told:
        assert call.record.ended_at == pytest.approx(BEGAN + 40)
    assert await desk.found() == []


@pytest.mark.parametrize("state", [None, "dead", "done"])
async def test_a_recording_that_waits_for_nobody_gets_its_job(desk: Desk, state: str | None) -> None:
    await desk.logged(ENDS)
    desk.ledger()
    async with desk.database.session() as session:
        [recording] = await session.scalars(select(RecordingRow))
        await session.execute(
            delete(JobRow) if state is None else update(JobRow).values(state=state, attempts=9, finished_at=None)
        )
    assert await desk.found() == [(Kind.RECORDING_UNFINISHED, True)]
    assert await desk.found() == []
    async with desk.database.session(read_only=True) as session:
        [job] = await session.scalars(select(JobRow))
        assert (job.state, job.payload["recording_id"], job.attempts) == ("queued", recording.id, 0)


async def test_a_recording_whose_file_is_gone_is_told_and_left(desk: Desk) -> None:
    await desk.logged(ENDS)
    desk.ledger()
    async with desk.database.session() as session:
        await session.execute(update(RecordingRow).values(status="ok", path="2026/x.flac"))
    assert await desk.found() == [(Kind.RECORDING_MISSING, False)]


async def test_a_call_with_two_logs_is_told_and_left(desk: Desk) -> None:
    await desk.logged(ENDS)
    desk.ledger()
    again = to_builtins(arrived(BEGAN, call_id="call-2", channel=UID))
    async with desk.database.session() as session:
        session.add(CallEventRow(**_row(Line("call-2", 1, BEGAN, "CallArrived", again))))
    assert await desk.found() == [(Kind.DOUBLE, False)]


def _row(entry: Line) -> dict[str, object]:
    from callrouter.store.types import to_datetime

    return {
        "call_id": entry.call,
        "seq": entry.seq,
        "at": to_datetime(entry.at),
        "type": entry.type,
        "data": entry.data,
    }


async def test_what_waits_in_the_journal_is_on_its_way(desk: Desk) -> None:
    desk.ledger()
    journal = Journal(desk.settings.journal_dir)
    for entry in run(table(), ENDS).log:
        journal.append("call-1", entry)
    journal.sync()
    async with desk.database.session(read_only=True) as session:
        assert await waiting_in_journal(session, desk.settings.journal_dir) == ({"call-1"}, {UID})
    assert await desk.found() == []
    assert await Drain(journal, desk.database).flush(5)
    async with desk.database.session(read_only=True) as session:
        assert await waiting_in_journal(session, desk.settings.journal_dir) == (set(), set())
    found = await desk.compare()
    assert (found.findings, found.counts["compared"]) == ((), 1)
    journal.close()


async def test_rotated_ledgers_count_too(desk: Desk) -> None:
    await desk.logged(ENDS)
    desk.ledger()
    path = desk.settings.ledger_path
    path.rename(path.with_name("callrouter.csv.1"))
    assert await desk.found() == []
    path.with_name("callrouter.csv.1.gz").write_bytes(b"\x1f\x8b")
    assert await desk.found() == []
    path.with_name("callrouter.csv.1").unlink()
    write_ledger(path, [ledger_line("1.1", end=BEGAN - 7200, channel="Local/x")])
    assert await desk.found() == [(Kind.NOT_IN_LEDGER, False)]


async def test_results_are_kept_and_old_ones_dropped(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async with desk.database.session(read_only=True) as session:
        assert await last_run(session) is None
    assert summary(None) is None
    await desk.compare(repair=False)
    async with desk.database.session(read_only=True) as session:
        assert await last_run(session) is None, "a dry run keeps nothing"
    desk.ledger()
    for _ in range(3):
        kept = await desk.compare()
    async with desk.database.session() as session:
        assert await last_run(session) == kept
        monkeypatch.setattr("callrouter.store.reconciliation.KEEP_RUNS", 2)
        await keep_run(session, Run("newest", kept.started_at, None, kept.since, kept.until, (), {}, ()))
    assert KEEP_RUNS > 2
    told = summary(kept)
    assert told is not None
    assert (told["findings"], told["unexplained"]) == (1, 1)


async def test_the_nightly_run_compares_with_the_channels_that_live(desk: Desk) -> None:
    await desk.logged(TALKS)
    asked = 0

    async def live() -> set[str] | None:
        nonlocal asked
        asked += 1
        return {UID} if asked == 1 else None

    nightly = Nightly(desk.settings, desk.database, live)
    assert (await nightly.once()).findings == ()
    assert (await nightly.once()).findings == (), "without an answer nothing is taken as gone"
    assert nightly.last is not None


@pytest.mark.parametrize("clock, seconds", [("03:40", 3600.0), ("02:39", 86400.0 - 60), ("02:40", 86400.0)])
def test_when_the_night_comes(clock: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        # 2026-01-15 02:40 in New York.
        assert seconds_until(clock, 1768462800.0) == seconds
    finally:
        monkeypatch.undo()
        time.tzset()


async def test_a_call_that_was_refused_without_a_record_stays_without_one(desk: Desk) -> None:
    from tests.builders import T0

    arrives = line("CHAN_START", BEGAN - T0, uniqueid=UID, linkedid=UID, exten=DID, context="cr-trunk-carrier")
    write_ledger(desk.settings.channel_events_path, [arrives, line("HANGUP", BEGAN - T0 + 0.1, uniqueid=UID)])
    assert (await desk.compare()).counts["compared"] == 0
