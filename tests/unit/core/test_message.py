"""A message that was planned and never begun, told from one that is missing."""

from __future__ import annotations

import pytest

from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.cdr import LogItem
from callrouter.core.message import nothing_to_record
from callrouter.core.records import RecordingKind

M = "call-m2"
PLANNED = note.RecordingPlanned(100.0, M, RecordingKind.VOICEMAIL)
HUNG_UP = "the caller hung up before the message began"
KILLED = "the controller was killed before the message began; it began again under another id"
ALONE = "the controller was killed before the message began, and the caller hung up"
SILENT = "the caller said nothing"


def ended(at: float, seconds: float, ok: bool = True, ref: str = M) -> e.RecordingEnded:
    return e.RecordingEnded(at, ref, seconds, ok)


def closed(at: float, asterisk_ended: bool = False) -> e.LedgerClosed:
    return e.LedgerClosed(at, 0.0, None, 16, asterisk_ended=asterisk_ended)


@pytest.mark.parametrize(
    "after,without_file,without_sound",
    [
        # The caller left while the tone was played: Asterisk never got to recording.
        ([e.CallerHungUp(100.6, 16)], HUNG_UP, HUNG_UP),
        ([e.CallerHungUp(101.9, 16), ended(101.9, 0.0, ok=False)], HUNG_UP, HUNG_UP),
        ([ended(100.6, 0.0, ok=False), e.CallerHungUp(100.7, 16)], HUNG_UP, HUNG_UP),
        # They were there, and Asterisk could not.
        ([ended(101.0, 0.0, ok=False), e.CallerHungUp(120.0, 16)], None, None),
        ([e.ActionFailed(100.1, "Record", "no such directory", M), e.CallerHungUp(100.6, 16)], None, None),
        # The greeting ended at 100; that was read when the caller had long gone.
        (
            [e.ActionFailed(107.0, "Record", "the caller is gone", M, gone=True), e.CallerHungUp(104.0, 16)],
            HUNG_UP,
            HUNG_UP,
        ),
        ([e.CallerHungUp(110.0, 16)], None, None),
        ([e.TimerFired(400.0, "call-t3"), e.CallerHungUp(400.1, 16)], None, None),
        # Asterisk says how much it recorded.
        ([ended(105.0, 0.0), e.CallerHungUp(110.0, 16)], SILENT, SILENT),
        ([ended(105.0, 4.0), e.CallerHungUp(105.0, 16)], None, None),
        # The controller was killed between the plan and the request.
        ([e.Resumed(103.0, inside=True), e.CallerHungUp(130.0, 16)], KILLED, None),
        ([e.Resumed(103.0, inside=True), ended(103.1, 2.5), e.CallerHungUp(130.0, 16)], None, None),
        ([closed(140.0)], ALONE, None),
        ([closed(101.0)], HUNG_UP, HUNG_UP),
        ([closed(102.0)], ALONE, None),
        # Asterisk died: what it had recorded by then is lost.
        ([closed(140.0, asterisk_ended=True)], None, None),
        # What is said of another message does not count.
        ([e.ActionFailed(100.1, "Record", "no", "call-m9"), e.CallerHungUp(100.6, 16)], HUNG_UP, HUNG_UP),
        ([ended(100.2, 9.0, ref="call-m9"), e.CallerHungUp(100.6, 16)], HUNG_UP, HUNG_UP),
        ([], None, None),
    ],
)
def test_what_the_log_says(after: list[LogItem], without_file: str | None, without_sound: str | None) -> None:
    log = [e.Digit(90.0, "1"), PLANNED, *after]
    assert nothing_to_record(log, M, begun=False) == without_file
    assert nothing_to_record(log, M, begun=True) == without_sound


def test_a_message_that_no_log_planned_is_missing() -> None:
    assert nothing_to_record([e.CallerHungUp(100.0, 16)], M, begun=False) is None
