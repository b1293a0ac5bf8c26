"""The controller is killed after any entry of a call's log: whatever Asterisk then says of the channel, the call is
concluded once, belongs to its company, and says nothing impossible."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.cdr import LogItem
from callrouter.core.disposition import Disposition
from callrouter.core.records import CallRecord
from callrouter.core.routing import RoutingTable, spoken
from callrouter.core.state import Calling, HandedOver, Leaving, Session
from callrouter.runtime.recovery import Recovery, rebuild
from callrouter.runtime.supervision import LedgerTail
from tests.builders import CALL, DID, T0, arrived, run, table
from tests.contract.runtime.support import APP, MENU, Rig, ledger_line, open_rig, until, write_ledger
from tests.random_flows import ENDINGS, HAPPENINGS, Move, moves, tables

CHANNEL = "1760000000.1"
BACKUP = f"fs-{CHANNEL}-1"
INSIDE = f"{APP},incoming,carrier,{DID}"
CONDITIONS = (
    "gone",
    "gone: controller's row",
    "gone: failsafe talked",
    "gone: failsafe was busy",
    "in the application",
    "back from its dial",
    "in the dialplan",
    "bridged",
    "bridged by the failsafe",
)


ARRIVES: list[e.Event] = [arrived()]
LISTENS: list[e.Event] = [*ARRIVES, e.PlaybackEnded(T0 + 2, f"{CALL}-p1")]
RINGS: list[e.Event] = [
    *LISTENS,
    e.Digit(T0 + 3, "1"),
    e.LegStarted(T0 + 3, f"{CALL}-l3", "peer"),
    e.LegRinging(T0 + 4, f"{CALL}-l3"),
]
LIVES: dict[str, list[e.Event]] = {
    "talks": [
        *RINGS,
        e.LegAnswered(T0 + 6, f"{CALL}-l3"),
        e.DialReturned(T0 + 30, f"{CALL}-l3", "ANSWER", 16),
        e.CallerHungUp(T0 + 30.1, 16),
    ],
    "leaves a message": [
        *RINGS,
        e.DialReturned(T0 + 20, f"{CALL}-l3", "BUSY", 17),
        e.PlaybackEnded(T0 + 22, f"{CALL}-p4"),
        e.RecordingEnded(T0 + 31, f"{CALL}-m5", 9.0),
        e.CallerHungUp(T0 + 32, 16),
    ],
    "leaves while it rings": [*RINGS, e.CallerHungUp(T0 + 9, 16)],
    "is handed over": [
        *LISTENS,
        e.Digit(T0 + 3, "1"),
        e.ActionFailed(T0 + 3.2, "Dial", "no", f"{CALL}-l3"),
        e.LegStarted(T0 + 4, BACKUP, "peer"),
        e.LegAnswered(T0 + 6, BACKUP),
        e.CallerHungUp(T0 + 20, 16),
    ],
    "ends in a dead server": [*RINGS, e.LedgerClosed(T0 + 40, 30.0, T0 + 10, 16, "ANSWER")],
    "is refused": [arrived(did="+12025550000"), e.CallerHungUp(T0 + 1, 1)],
}


@dataclass(frozen=True)
class Aftermath:
    entries: list[LogItem]
    record: CallRecord

    def count(self, kind: type) -> int:
        return sum(isinstance(entry, kind) for entry in self.entries)


def current_leg(session: Session) -> str:
    return getattr(session.wait, "leg_id", "") or f"{CALL}-l3"


def set_up(rig: Rig, condition: str, session: Session, tail: LedgerTail) -> None:
    """Asterisk, as a new controller finds it."""
    end, leg = T0 + 100, current_leg(session)
    match condition:
        case "gone":
            return
        case "gone: controller's row":
            talked = isinstance(session.wait, Calling)
            row: dict[str, Any] = {"handled_by": "controller", "failsafe_reason": "", "end": end}
            row["leg"] = leg if talked else ""
            if not talked:
                row |= {"talk_at": "", "dialstatus": "", "dial_at": "", "target": "", "recording": ""}
            write_ledger(tail.path, [ledger_line(CHANNEL, **row)])
        case "gone: failsafe talked":
            write_ledger(tail.path, [ledger_line(CHANNEL, end=end, leg=BACKUP)])
        case "gone: failsafe was busy":
            busy: dict[str, Any] = {"dialstatus": "BUSY", "cause": 17, "talk_at": "", "recording": "", "leg": BACKUP}
            write_ledger(tail.path, [ledger_line(CHANNEL, end=end, **busy)])
        case _:
            caller = rig.asterisk.caller(CHANNEL, age=60.0)
            caller.in_stasis = condition in ("in the application", "back from its dial")
            if caller.in_stasis:
                caller.app_data = INSIDE
            if condition == "back from its dial" and isinstance(session.wait, Calling):
                how = "NOANSWER,19" if session.wait.answered_at is None else "ANSWER,16"
                caller.app_data = f"{APP},dialed,{how},{leg},"
            if condition.startswith("bridged"):
                by = BACKUP if condition.endswith("failsafe") else leg
                caller.variables |= {"CR_LEG": by, "CR_TALK_AT": str(T0 + 50)}
                rig.asterisk.bridges["b1"] = [CHANNEL, "peer"]
    tail.poll()


async def killed(directory: Path, entries: Sequence[LogItem], routing: RoutingTable, condition: str) -> Aftermath:
    """Restart on a log that stops somewhere, let the call go on a little, and end it."""
    async with open_rig(directory) as rig:
        rig.table = routing
        await rig.library.render(set(spoken(routing)))  # one file among them does not exist, so that playing it fails
        for entry in entries:
            rig.journal.append(CALL, entry)
        session, _ = rebuild(CALL, entries, routing)
        tail = LedgerTail(directory / "cdr.csv")
        set_up(rig, condition, session, tail)
        logs = rig.journal.open_logs()
        recovery = Recovery(rig.ari, APP, rig.dispatcher, rig.journal, tail.rows, lambda _: (routing, True))
        await recovery.run(logs)
        call = rig.dispatcher.get(CHANNEL)
        if call is not None:
            before = resumptions(entries)
            await until(
                lambda: call._task.done() or (call._queue.empty() and resumptions(rig.entries(CALL)) > before),
                "the call was taken up",
            )
            if CHANNEL in rig.asterisk.channels:
                rig.asterisk.hangup(CHANNEL)
            await rig.idle()
        # A second restart finds nothing to do.
        again = await recovery.run(rig.journal.open_logs())
        assert (again.adopted, again.closed) == (0, 0)
        assert rig.journal.open_calls() == set()
        return Aftermath(rig.entries(CALL), rig.record(CALL))


def resumptions(entries: Sequence[LogItem]) -> int:
    return sum(isinstance(entry, e.Resumed) for entry in entries)


def crash(entries: Sequence[LogItem], routing: RoutingTable, condition: str) -> Aftermath:
    with tempfile.TemporaryDirectory() as directory:
        return asyncio.run(killed(Path(directory), entries, routing, condition))


def check_log(after: Aftermath) -> None:
    """What holds for every call, wherever its controller died."""
    record = after.record
    assert after.count(note.Concluded) == 1
    assert after.count(note.Routed) == 1
    assert after.count(e.CallerHungUp) + after.count(e.LedgerClosed) == 1
    faults = [each for each in after.entries if isinstance(each, note.Decided) and each.what == "internal error"]
    assert faults == []
    assert record.disposition is not None
    assert record.reason != "an internal error"
    assert record.ended_at is not None
    assert all(leg.ended_at is not None for leg in record.legs)
    assert len({leg.id for leg in record.legs}) == len(record.legs)
    assert len({one.recording_id for one in after.entries if isinstance(one, note.RecordingPlanned)}) == sum(
        isinstance(one, note.RecordingPlanned) for one in after.entries
    )


def check(after: Aftermath, condition: str, session: Session) -> None:
    """What holds for calls whose events make sense."""
    check_log(after)
    record = after.record
    talked = getattr(session.wait, "answered_at", None) is not None or session.talked is not None
    if session.over or session.rejected:
        return
    assert (record.company_id, record.campaign_id) == ("company-1", "campaign-1")
    if talked or condition in ("gone: failsafe talked", "bridged by the failsafe"):
        # "Leaving" was asked to hang up already, so that nothing more can have been begun.
        assert record.disposition is Disposition.ANSWERED or isinstance(session.wait, Leaving)
    if condition == "bridged" and isinstance(session.wait, Calling):
        assert record.disposition is Disposition.ANSWERED
    by_failsafe = "failsafe talked" in condition or condition == "bridged by the failsafe"
    if by_failsafe and not talked and not isinstance(session.wait, Leaving):
        spoke = [leg.id for leg in record.legs if leg.answered_at is not None]
        assert spoke == [BACKUP]
        assert [one.id for one in record.recordings if one.leg_id == BACKUP] == [BACKUP]
        if isinstance(session.wait, Calling | HandedOver):
            assert not [one for one in record.recordings if one.leg_id and one.leg_id != BACKUP]


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("life", LIVES)
def test_killed_after_any_entry(life: str, condition: str) -> None:
    routing = table(MENU)
    entries = run(routing, LIVES[life]).log
    for count in range(1, len(entries) + 1):
        session, _ = rebuild(CALL, entries[:count], routing)
        check(crash(entries[:count], routing, condition), condition, session)


def script(routing: RoutingTable, happens: Sequence[Move]) -> list[LogItem]:
    """The log of a call that met these events, up to its end if it came to one."""
    call, now = run(routing, [arrived()]), T0
    for move in happens:
        now += move.after
        if call.session.over:
            break
        call.take(move.event(call.session, now), routing)
    return call.log


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    routing=tables(),
    happens=st.lists(moves(HAPPENINGS + ENDINGS), max_size=12),
    kept=st.integers(1, 1000),
    condition=st.sampled_from(CONDITIONS),
)
def test_killed_anywhere_in_any_call(routing: RoutingTable, happens: list[Move], kept: int, condition: str) -> None:
    entries = script(routing, happens)
    check_log(crash(entries[: (kept - 1) % len(entries) + 1], routing, condition))
