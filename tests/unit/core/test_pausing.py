"""Pauses of a recording: who may, what they last, and that none outlives its time, whatever dies."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from callrouter.core import actions as a
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.model import RecordingPolicy
from callrouter.core.records import Pause
from callrouter.core.routing import RoutingTable
from callrouter.runtime.recovery import rebuild
from callrouter.store.codec import decode_line, encode_line
from tests.builders import CALL, T0, Run, arrived, company, run, table
from tests.call_scripts import back, failed, fired, gone, resumed, shown, started, up

TALK: list[e.Event] = [arrived(), started("l1"), up("l1")]


def asked(on: bool, at: float, by: str = "caller") -> e.PauseAsked:
    return e.PauseAsked(T0 + at, on, by)


def routing(**changes: object) -> RoutingTable:
    return table(of=company(**({"pause_keys": True, "pause_seconds": 30} | changes)))


def pauses(result: Run) -> list[tuple[float, float | None, str]]:
    [recording] = result.record.recordings
    return [(each.begin - T0, None if each.end is None else each.end - T0, each.by) for each in recording.pauses]


@pytest.mark.parametrize(
    "events,does,paused",
    [
        ([asked(True, 20)], ["pause l1", "timer t2 30"], [(20, None, "caller")]),
        ([asked(True, 20), asked(True, 21)], ["pause l1", "timer t2 30"], [(20, None, "caller")]),
        ([asked(False, 20)], [], []),
        ([asked(True, 20), asked(False, 25, "business")], ["pause l1", "timer t2 30", "cancel t2", "resume l1"],
         [(20, 25, "caller")]),
        ([asked(True, 20), fired("t2", 50)], ["pause l1", "timer t2 30", "cancel t2", "resume l1"],
         [(20, 50, "caller")]),
        ([asked(True, 20), asked(False, 25), fired("t2", 50), asked(True, 60)],
         ["pause l1", "timer t2 30", "cancel t2", "resume l1", "pause l1", "timer t3 30"],
         [(20, 25, "caller"), (60, None, "caller")]),
        ([asked(True, 20), failed("PauseRecording", "l1", 20.1)], ["pause l1", "timer t2 30", "cancel t2"],
         [(20, 20.1, "caller")]),
        ([asked(True, 20), asked(False, 25), failed("PauseRecording", "l1", 25.1), fired("t3", 30.1)],
         ["pause l1", "timer t2 30", "cancel t2", "resume l1", "timer t3 5", "cancel t3", "resume l1"],
         [(20, 25, "caller"), (25.1, 30.1, "Asterisk said no")]),
    ],
)  # fmt: skip
def test_what_is_paused(events: Sequence[e.Event], does: list[str], paused: list[object]) -> None:
    result = run(routing(), [*TALK, *events])
    assert shown(result)[1:] == does
    assert [(round(b, 1), None if x is None else round(x, 1), by) for b, x, by in pauses(result)] == paused


def test_keys_do_nothing_unless_the_company_says_so() -> None:
    plain = run(routing(pause_keys=False), [*TALK, asked(True, 20), asked(True, 21, "business")])
    assert pauses(plain) == []
    assert plain.actions_of(a.Dial)[0].pause_keys is False
    by_command = run(routing(pause_keys=False), [*TALK, asked(True, 20, e.COMMAND)])
    assert pauses(by_command) == [(20, None, e.COMMAND)]
    assert run(routing(), TALK).actions_of(a.Dial)[0].pause_keys is True


@pytest.mark.parametrize("before", [[arrived()], [arrived(), started("l1")]])
def test_only_what_is_recorded_can_be_paused(before: list[e.Event]) -> None:
    result = run(routing(), [*before, asked(True, 5, e.COMMAND)])
    assert [one.why for one in result.notes_of(note.Decided) if one.what == "pause refused"] == [
        "no conversation is being recorded (command)"
    ]
    quiet = run(routing(record=RecordingPolicy.NEVER), [*TALK, asked(True, 20, e.COMMAND)])
    assert not any(isinstance(action, a.PauseRecording) for action in quiet.actions)
    assert quiet.actions_of(a.Dial)[0].pause_keys is False


@pytest.mark.parametrize(
    "at,does,end", [(35, ["pause l1", "timer t1003 15"], None), (80, ["cancel t2", "resume l1"], 80)]
)
def test_a_restarted_controller_goes_on_counting(at: float, does: list[str], end: float | None) -> None:
    """It may have been killed before Asterisk was told, so it tells it again; what was to end meanwhile ends."""
    before = run(routing(), [*TALK, asked(True, 20)])
    session, _ = rebuild(CALL, before.log, routing())
    assert session == before.session
    after = Run(session, log=before.log)
    after.take(resumed(at, inside=False), routing())
    assert shown(after) == does
    assert pauses(after) == [(20, end, "caller")]


def test_a_pause_ends_with_the_conversation() -> None:
    result = run(routing(), [*TALK, asked(True, 20), back("l1", "ANSWER", 16), fired("t2", 50), gone()])
    assert pauses(result) == [(20, None, "caller")]
    assert result.record.ended_at is not None


def test_the_log_keeps_it() -> None:
    result = run(routing(), [*TALK, asked(True, 20), asked(False, 25), gone()])
    lines = [decode_line(encode_line(CALL, seq, item)) for seq, item in enumerate(result.log, 1)]
    assert [line.value for line in lines if line is not None] == result.log
    assert result.record.recordings[0].pauses == (Pause(T0 + 20, T0 + 25, "caller"),)
