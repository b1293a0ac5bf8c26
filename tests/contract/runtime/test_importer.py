"""Calls that only Asterisk saw come into the database once each, whenever we are killed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from callrouter.asterisk.cel import CelTail
from callrouter.core.disposition import Disposition
from callrouter.core.routing import RoutingTable
from callrouter.core.state import Saying
from callrouter.runtime import importer as importer_module
from callrouter.runtime.importer import LedgerImporter
from callrouter.runtime.supervision import LedgerTail
from callrouter.store.calls import get_call, list_calls
from callrouter.store.database import Database
from callrouter.store.drain import Drain
from tests.builders import CALLER, DID, table
from tests.contract.runtime.support import MENU, Rig, ledger_line, write_ledger
from tests.unit.test_cel import CHANNEL as EVENTS_CHANNEL
from tests.unit.test_cel import GONE, TALKS, UNNAMED


class Run:
    """One life of the server, as far as the importer goes."""

    def __init__(self, rig: Rig, database: Database) -> None:
        self.rig = rig
        self.path = rig.directory / "cdr.csv"
        self.database = database
        self.drain = Drain(rig.journal, database)
        self.importer = LedgerImporter(
            LedgerTail(self.path), CelTail(self.path.with_name("cel.csv")), database, rig.journal, rig.dispatcher, "US"
        )
        self.table: RoutingTable = table(MENU)

    def write_events(self, lines: list[str]) -> None:
        write_ledger(self.path.with_name("cel.csv"), lines)

    async def look(self) -> int:
        assert await self.drain.flush(5)
        return await self.importer.look(self.table, settled=True)

    async def calls(self) -> list[str]:
        assert await self.drain.flush(5)
        async with self.database.session(read_only=True) as session:
            return sorted([call.uniqueid async for call in _stored(session)])


async def _stored(session: Any) -> AsyncIterator[Any]:
    for row in await list_calls(session):
        yield (await get_call(session, row.id)).record


@pytest.fixture
async def run(rig: Rig, database: Database) -> Run:
    run = Run(rig, database)
    await run.importer.start()
    return run


async def again(run: Run) -> Run:
    """The server was killed and started again."""
    later = Run(run.rig, run.database)
    await later.importer.start()
    return later


async def test_a_call_of_the_failsafe_becomes_a_record(run: Run) -> None:
    write_ledger(run.path, [ledger_line("1.1")])
    assert await run.look() == 1
    record = run.rig.record()
    assert (record.uniqueid, record.did, record.caller) == ("1.1", DID, "+13125550199")
    assert (record.handled_by, record.disposition, record.answered_by) == ("failsafe", Disposition.ANSWERED, "ana")
    assert record.talk_seconds == pytest.approx(30, abs=1)
    assert record.recordings[0].leg_id == "fs-1.1-1"
    assert await run.calls() == ["1.1"]


@pytest.mark.parametrize(
    "values, disposition",
    [
        ({"dialstatus": "BUSY", "cause": 17, "talk_at": "", "talk_end": "", "recording": ""}, Disposition.BUSY),
        ({"dialstatus": "NOANSWER", "cause": 19, "talk_at": "", "recording": ""}, Disposition.NO_ANSWER),
        ({"dialstatus": "CHANUNAVAIL", "cause": 20, "talk_at": "", "recording": ""}, Disposition.FAILED),
        ({"dialstatus": "CANCEL", "cause": 16, "talk_at": "", "recording": ""}, Disposition.ABANDONED),
        (
            {"did": "+12025550000", "dialstatus": "", "target": "", "leg": "", "cause": 1, "talk_at": ""},
            Disposition.REJECTED,
        ),
        ({"dialstatus": "", "cause": 19, "talk_at": "", "recording": ""}, Disposition.ABANDONED),
        ({"dialstatus": "", "target": "", "leg": "", "cause": 19, "talk_at": ""}, Disposition.ABANDONED),
        (
            {"handled_by": "controller", "failsafe_reason": "", "dialstatus": "", "target": "", "talk_at": ""},
            Disposition.ABANDONED,
        ),
    ],
    ids=lambda value: str(value) if not isinstance(value, dict) else "",
)
async def test_every_end_of_a_failsafe_call(run: Run, values: dict[str, Any], disposition: Disposition) -> None:
    write_ledger(run.path, [ledger_line("1.1", **values)])
    assert await run.look() == 1
    record = run.rig.record()
    assert record.disposition is disposition
    assert record.ended_at is not None


async def test_a_young_row_waits_until_its_own_log_had_time_to_come(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ledger(run.path, [ledger_line("1.1", end=time.time()), ledger_line("1.2")])
    assert await run.look() == 0
    assert await run.calls() == [], "rows are settled in order, so the place behind them is one"
    monkeypatch.setattr(importer_module, "SETTLE_SECONDS", 0.0)
    assert await run.look() == 2
    assert await run.calls() == ["1.1", "1.2"]


async def test_nothing_is_taken_before_our_own_log_is_in_the_database(run: Run) -> None:
    write_ledger(run.path, [ledger_line("1.1")])
    assert await run.importer.look(run.table, settled=False) == 0
    assert run.rig.lines() == []
    assert await run.look() == 1


async def test_a_call_we_followed_is_not_taken_again(run: Run) -> None:
    rig = run.rig
    rig.asterisk.call("1.1")
    await rig.waits_in("1.1", Saying)
    write_ledger(run.path, [ledger_line("1.1"), ledger_line("1.2")])
    assert await run.look() == 0, "we still follow it"
    rig.asterisk.hangup("1.1")
    await rig.idle()
    assert await run.look() == 1
    assert await run.calls() == ["1.1", "1.2"]
    assert run.rig.types().count("CallArrived") == 2


async def test_rows_of_channels_that_are_not_sip_are_passed_over(run: Run) -> None:
    write_ledger(run.path, [ledger_line("1.1", channel="Local/s@x-1;1"), ledger_line("1.2", channel="Message/ast")])
    assert await run.look() == 0
    assert await (await again(run)).look() == 0
    assert run.rig.lines() == []


async def test_the_same_row_twice_is_one_call(run: Run) -> None:
    write_ledger(run.path, [ledger_line("1.1"), ledger_line("1.1")])
    assert await run.look() == 1
    write_ledger(run.path, [ledger_line("1.1")])
    assert await run.look() == 0
    assert await run.calls() == ["1.1"]


@pytest.mark.parametrize("step", ["before", "journal", "partly drained", "drained", "place"])
async def test_killed_at_any_step_each_row_is_one_call(run: Run, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    async def kill(*_: object) -> None:
        raise Killed

    write_ledger(run.path, [ledger_line("1.1"), ledger_line("1.2")])
    if step == "before":
        run.importer._tail.take()
    elif step == "place":
        assert await run.look() == 2
    else:
        with monkeypatch.context() as patch:
            patch.setattr(importer_module, "set_ledger_position", kill)
            with pytest.raises(Killed):
                await run.look()
        if step == "drained":
            assert await run.drain.flush(5)
        elif step == "partly drained":
            run.rig.journal.sync()
            run.drain._batch = 3
            assert await run.drain.step() == 3
    write_ledger(run.path, [ledger_line("1.3")])
    later = await again(run)
    await later.look()
    assert await later.look() == 0
    assert await later.calls() == ["1.1", "1.2", "1.3"]
    third = await again(later)
    assert await third.look() == 0
    assert run.rig.types().count("CallArrived") == 3
    assert run.rig.types().count("Concluded") == 3


async def test_a_restart_goes_on_behind_a_rotation(run: Run) -> None:
    write_ledger(run.path, [ledger_line("1.1"), ledger_line("1.2")])
    assert await run.look() == 2
    run.path.rename(run.path.with_name("cdr.csv.1"))
    write_ledger(run.path, [ledger_line("1.3")])
    later = await again(run)
    assert await later.look() == 1
    assert await later.calls() == ["1.1", "1.2", "1.3"]


async def test_a_database_that_is_away_keeps_the_rows_waiting(run: Run, database: Database) -> None:
    from callrouter.errors import DatabaseError

    write_ledger(run.path, [ledger_line("1.1")])
    assert await run.drain.flush(5)
    assert database.path is not None
    away = database.path.with_name("away.db")
    database.path.rename(away)
    with pytest.raises(DatabaseError):
        await run.importer.look(run.table, settled=True)
    assert run.rig.lines() == []
    away.rename(database.path)
    assert await run.look() == 1
    assert await run.calls() == ["1.1"]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer_module, "SETTLE_SECONDS", 0.0)


async def test_a_call_that_died_with_asterisk_is_taken_from_channel_events(run: Run, at_once: None) -> None:
    run.write_events(TALKS)
    assert await run.look() == 0, "nobody said that Asterisk was started anew"
    run.importer.connected(set())
    assert await run.look() == 1
    record = run.rig.record()
    assert (record.handled_by, record.disposition) == ("failsafe", Disposition.ANSWERED)
    assert record.reason.startswith("Asterisk ended while the call was up")
    later = await again(run)
    later.importer.connected(set())
    assert await later.look() == 0
    assert await later.calls() == [EVENTS_CHANNEL]


async def test_a_call_that_lasts_or_has_its_record_did_not_die(run: Run, at_once: None) -> None:
    run.write_events(TALKS)
    run.importer.connected({EVENTS_CHANNEL})
    assert await run.look() == 0
    run.importer.connected(set())
    write_ledger(run.path, [ledger_line(EVENTS_CHANNEL)])
    assert await run.look() == 1
    assert run.rig.record().reason.startswith("ana answered")


async def test_a_call_that_died_is_not_forgotten_while_the_database_is_away(
    run: Run, database: Database, at_once: None
) -> None:
    from callrouter.errors import DatabaseError

    run.write_events(TALKS)
    run.importer.connected(set())
    assert database.path is not None
    away = database.path.with_name("away.db")
    database.path.rename(away)
    with pytest.raises(DatabaseError):
        await run.importer.look(run.table, settled=True)
    away.rename(database.path)
    assert await run.look() == 1
    assert await run.calls() == [EVENTS_CHANNEL]


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_call_cancelled_before_the_dialplan_has_its_number_and_caller(
    run: Run, at_once: None, restarted: bool
) -> None:
    run.write_events(GONE)
    if restarted:
        write_ledger(run.path, [ledger_line("1.1")])
        assert await run.look() == 1
        run = await again(run)
    left_out = ("uniqueid", "talk_seconds")
    values: dict[str, Any] = {name: value or "" for name, value in UNNAMED.items() if name not in left_out}
    write_ledger(run.path, [ledger_line(EVENTS_CHANNEL, **values)])
    assert await run.look() == 1
    async with run.database.session(read_only=True) as session:
        assert await run.drain.flush(5)
        [record] = [each async for each in _stored(session) if each.uniqueid == EVENTS_CHANNEL]
    assert (record.did, record.caller, record.trunk) == (DID, CALLER, "carrier")
    assert (record.disposition, record.campaign_id) == (Disposition.ABANDONED, "campaign-1")
