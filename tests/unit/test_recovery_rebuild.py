from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from callrouter.asterisk.ari_events import Channel, DialplanCEP
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.cdr import LogItem, fold
from callrouter.core.state import Calling, Choosing, Saying, Session
from callrouter.runtime.recovery import close_log, dial_result, rebuild
from callrouter.runtime.unwatched import closing_events
from tests.builders import CALL, T0, arrived, ledger_row, run, table

MENU = (
    "start: m\nnodes:\n"
    "  m: {type: menu, prompt: P, options: {1: d}, on_exhausted: bye}\n"
    "  d: {type: dial, target: ana, on_busy: bye, on_no_answer: bye, on_failed: bye, on_answered: after}\n"
    "  after: {type: play, prompt: Bye, next: bye}\n"
    "  bye: {type: hangup}\n"
)
ROUTING = table(MENU)
EVENTS: list[e.Event] = [
    arrived(),
    e.PlaybackEnded(T0 + 2, "c-p1"),
    e.Digit(T0 + 3, "1"),
    e.LegStarted(T0 + 3, "c-l3", "peer"),
    e.LegAnswered(T0 + 8, "c-l3"),
    e.DialReturned(T0 + 30, "c-l3", "ANSWER", 16),
    e.PlaybackEnded(T0 + 33, "c-p4"),
]


class Memory:
    """A journal in memory."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, LogItem]] = []

    def append(self, call_id: str, entry: LogItem) -> None:
        self.entries.append((call_id, entry))


@pytest.mark.parametrize("count", range(1, len(EVENTS) + 1))
def test_a_session_is_rebuilt_from_its_log_at_any_moment(count):
    lived = run(ROUTING, EVENTS[:count])
    session, first = rebuild(CALL, lived.log, ROUTING)
    assert session == lived.session
    assert first == EVENTS[0]


def test_notes_of_the_log_are_not_taken_twice():
    lived = run(ROUTING, EVENTS)
    assert rebuild(CALL, [*lived.log, *lived.notes], ROUTING)[0] == lived.session


def test_an_empty_log_is_no_call():
    assert rebuild(CALL, [], ROUTING) == (Session(CALL), None)
    assert rebuild(CALL, [note.Decided(T0, "x", "y", "z")], ROUTING)[1] is None


def test_a_call_that_went_on_after_a_restart_is_rebuilt_after_the_next():
    """Ids chosen after a restart must come out of the log again."""
    lived = run(ROUTING, [*EVENTS[:2], e.Resumed(T0 + 4)])
    assert isinstance(lived.session.wait, Saying)
    again = run(ROUTING, [e.PlaybackEnded(T0 + 6, lived.session.wait.playback_id)], lived.session)
    assert isinstance(again.session.wait, Choosing)
    session, _ = rebuild(CALL, [*lived.log, *again.log], ROUTING)
    assert session == again.session


def test_ids_of_the_dead_controller_are_not_used_again():
    before = run(ROUTING, EVENTS[:5])
    assert isinstance(before.session.wait, Calling)
    after = run(ROUTING, [e.Resumed(T0 + 20), EVENTS[5]], before.session)
    assert isinstance(after.session.wait, Saying)
    assert int(after.session.wait.playback_id.removeprefix("c-p")) > before.session.counter + 100


@pytest.mark.parametrize(
    "changes,expected",
    [
        ({}, e.LedgerClosed(T0 + 40, 29.0, T0 + 11, 16, "ANSWER")),
        (
            {"dialstatus": "BUSY", "cause": 17, "talk_seconds": 0.0, "talk_at": None},
            e.LedgerClosed(T0 + 40, 0.0, None, 17, "BUSY"),
        ),
    ],
)
def test_asterisks_own_record_closes_a_call(changes, expected):
    session = run(ROUTING, EVENTS[:4]).session
    assert closing_events(ledger_row(leg="c-l3", **changes), session, T0 + 99) == [expected]


def test_a_leg_that_was_planned_and_never_dialled_has_nothing_of_the_one_before_it():
    session = run(ROUTING, EVENTS[:3]).session
    row = ledger_row(leg="c-l2", dialstatus="ANSWER")
    assert closing_events(row, session, T0 + 99) == [e.LedgerClosed(T0 + 40, 0.0, None, 16)]
    assert closing_events(replace(row, leg="c-l3"), session, T0 + 99)[0] == e.LedgerClosed(
        T0 + 40, 29.0, T0 + 11, 16, "ANSWER"
    )


def test_a_call_asterisk_knows_nothing_of_ended_with_it_when_last_heard_of():
    ended = e.LedgerClosed(T0 + 99, 0.0, None, 41, asterisk_ended=True)
    assert closing_events(None, Session(CALL), T0 + 99) == [ended]


def channel(app_name: str, *args: str) -> Channel:
    return Channel(id="1.1", dialplan=DialplanCEP(app_name=app_name, app_data=",".join(args)))


TALKED = {"CR_TALK_AT": str(T0 + 11), "CR_TALK_END": str(T0 + 30)}
RETURNED: list[tuple[str, int, Channel, dict[str, str], list[e.Event]]] = [
    ("answered and ended unseen", 4, channel("Stasis", "cr", "dialed", "ANSWER", "16", "c-l3", ""), TALKED,
     [e.LegAnswered(T0 + 11, "c-l3"), e.DialReturned(T0 + 30, "c-l3", "ANSWER", 16)]),
    ("ended unseen", 5, channel("Stasis", "cr", "dialed", "ANSWER", "16", "c-l3", ""), TALKED,
     [e.DialReturned(T0 + 30, "c-l3", "ANSWER", 16)]),
    ("busy", 4, channel("Stasis", "cr", "dialed", "BUSY", "17", "c-l3", ""), {"CR_TALK_END": str(T0 + 30)},
     [e.DialReturned(T0 + 30, "c-l3", "BUSY", 17)]),
    ("hung up on the whisper", 4, channel("Stasis", "cr", "dialed", "NOANSWER", "16", "c-l3", ""), TALKED,
     [e.DialReturned(T0 + 30, "c-l3", "NOANSWER", 16)]),
    ("nothing noted", 4, channel("Stasis", "cr", "dialed", "ANSWER", "", "c-l3"), {"CR_LEG": "", "CR_TALK_END": "?"},
     [e.DialReturned(T0 + 99, "c-l3", "ANSWER", 0)]),
    ("not recorded", 4, channel("Stasis", "cr", "dialed", "ANSWER", "16", "c-l3", "no room", " none"), TALKED,
     [e.LegAnswered(T0 + 11, "c-l3"), e.DialReturned(T0 + 30, "c-l3", "ANSWER", 16, "no room, none")]),
    ("another leg's", 4, channel("Stasis", "cr", "dialed", "ANSWER", "16", "c-l2", ""), TALKED, []),
    ("not dialled yet", 4, channel("Stasis", "cr", "incoming", "carrier", "+1"), TALKED, []),
    ("still dialling", 4, channel("Dial", "cr", "dialed", "ANSWER", "16", "c-l3", ""), TALKED, []),
]  # fmt: skip


@pytest.mark.parametrize("count,at,noted,expected", [pytest.param(*case[1:], id=case[0]) for case in RETURNED])
def test_a_talk_phase_that_ended_unseen_has_the_times_that_asterisk_kept(count, at, noted, expected):
    wait = run(ROUTING, EVENTS[:count]).session.wait
    assert isinstance(wait, Calling)
    assert dial_result(at, noted, wait, T0 + 99) == expected


ENDINGS: list[tuple[int, dict[str, Any] | None, str, float]] = [
    (4, {}, "answered", 29.0),
    (4, {"dialstatus": "BUSY", "cause": 17, "talk_seconds": 0.0, "talk_at": None}, "busy", 0.0),
    (4, None, "failed", 0.0),
    (5, {}, "answered", 32.0),
    (5, None, "answered", 0.0),
    (6, None, "answered", 22.0),
    (2, {"dialstatus": "", "talk_seconds": 0.0, "talk_at": None}, "abandoned", 0.0),
]


@pytest.mark.parametrize("count,row,disposition,talk", ENDINGS)
def test_the_log_of_a_call_that_ended_unwatched_is_closed_once(count, row, disposition, talk):
    lived = run(ROUTING, EVENTS[:count])
    journal = Memory()
    close_log(CALL, lived.log, ROUTING, None if row is None else ledger_row(**row), journal)
    assert {call_id for call_id, _ in journal.entries} == {CALL}
    added = [entry for _, entry in journal.entries]
    assert sum(isinstance(entry, note.Concluded) for entry in added) == 1
    record = fold([*lived.log, *added])
    assert record is not None
    assert (record.disposition, record.talk_seconds) == (disposition, talk)
    assert rebuild(CALL, [*lived.log, *added], ROUTING)[0].over
