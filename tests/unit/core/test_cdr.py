from __future__ import annotations

from typing import Any

import pytest

from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.cdr import LogItem, fold
from callrouter.core.disposition import Disposition, LegResult
from callrouter.core.records import CallRecord, RecordingKind, RecordingRef
from tests.builders import T0, arrived

ROUTED = note.Routed(
    T0, "billboard runs desk@3", "company-1", "campaign-1", "number-1", "radio", "offline", "version-1", 7
)


def visited(node: str, at: float = 0) -> note.Visited:
    return note.Visited(T0 + at, f"desk@3/{node}", node, "start of the flow")


def planned(leg: str, at: float = 1, target: str = "ana") -> note.LegPlanned:
    return note.LegPlanned(T0 + at, "desk@3/d", leg, f"target-{target}", target, "PJSIP/x", 25, "rings Ana for 25 s")


def recorded(leg: str, at: float = 10) -> note.RecordingPlanned:
    return note.RecordingPlanned(T0 + at, leg, RecordingKind.CONVERSATION, leg)


def concluded(disposition: str, reason: str = "ana answered", at: float = 40) -> note.Concluded:
    return note.Concluded(T0 + at, Disposition(disposition), reason)


def back(leg: str, status: str, cause: int, at: float = 30) -> e.DialReturned:
    return e.DialReturned(T0 + at, leg, status, cause)


def gone(at: float = 40, cause: int = 16) -> e.CallerHungUp:
    return e.CallerHungUp(T0 + at, cause)


def started(leg: str, at: float) -> e.LegStarted:
    return e.LegStarted(T0 + at, leg, "peer")


def ringing(leg: str, at: float) -> e.LegRinging:
    return e.LegRinging(T0 + at, leg)


def up(leg: str, at: float) -> e.LegAnswered:
    return e.LegAnswered(T0 + at, leg)


def held(leg: str, at: float, on: bool) -> e.LegHeld:
    return e.LegHeld(T0 + at, leg, on)


ANSWERED: list[LogItem] = [
    arrived(caller_name="Ana Lee", linkedid="1760000000.1", test=True),
    ROUTED,
    visited("d"),
    planned("l1"),
    started("l1", 2),
    ringing("l1", 3),
    ringing("l1", 5),
    up("l1", 10),
    recorded("l1"),
    held("l1", 15, on=True),
    held("l1", 18, on=False),
    gone(40),
    concluded("answered"),
]


def folded(log: list[LogItem]) -> CallRecord:
    record = fold(log)
    assert record is not None
    return record


def test_an_answered_call_is_one_row_with_its_leg():
    record = folded(ANSWERED)
    assert (record.id, record.uniqueid, record.linkedid) == ("c", "1760000000.1", "1760000000.1")
    assert (record.caller, record.caller_name) == ("+13125550199", "Ana Lee")
    assert (record.trunk, record.test) == ("carrier", True)
    assert (record.company_id, record.campaign_id, record.number_id) == ("company-1", "campaign-1", "number-1")
    assert (record.source, record.medium) == ("radio", "offline")
    assert (record.flow_version_id, record.config_version) == ("version-1", 7)
    assert (record.disposition, record.reason) == ("answered", "ana answered and talked for 30 s")
    assert (record.answered_by, record.answered_at) == ("ana", T0 + 10)
    assert (record.ring_seconds, record.talk_seconds, record.hold_seconds, record.duration) == (7, 30, 3, 40)
    assert record.path == ("d",)
    (leg,) = record.legs
    assert (leg.seq, leg.started_at, leg.ringing_at, leg.answered_at) == (1, T0 + 2, T0 + 3, T0 + 10)
    assert (leg.ended_at, leg.result, leg.cause) == (T0 + 40, LegResult.ANSWERED, 16)
    assert record.recordings == (RecordingRef("l1", RecordingKind.CONVERSATION, "l1", T0 + 10),)


def test_the_trace_tells_the_call_in_order():
    assert [(step.path, step.what, step.why) for step in folded(ANSWERED).trace] == [
        ("routing", "routed", "billboard runs desk@3"),
        ("desk@3/d", "reached", "start of the flow"),
        ("desk@3/d", "dial ana", "rings Ana for 25 s"),
        ("l1", "answered", "the destination answered"),
        ("call", "ended", "normal clearing (16)"),
        ("call", "answered", "ana answered and talked for 30 s"),
    ]


TIMES: list[tuple[str, list[LogItem], tuple[float, float, float]]] = [
    ("no ringing was heard: from the INVITE", [planned("l1"), started("l1", 2), up("l1", 5), gone(9)], (3, 4, 0)),
    ("no INVITE was seen: from the plan", [planned("l1"), up("l1", 5), gone(9)], (4, 4, 0)),
    ("never answered", [planned("l1"), ringing("l1", 3), back("l1", "NOANSWER", 19, 28), gone(29)], (25, 0, 0)),
    ("given up", [planned("l1"), ringing("l1", 3), gone(8)], (5, 0, 0)),
    (
        "two legs add up",
        [planned("l1"), ringing("l1", 2), back("l1", "BUSY", 17, 4), planned("l2", 5, "ben"), ringing("l2", 6),
         up("l2", 9), back("l2", "ANSWER", 16, 19), gone(20)],
        (5, 10, 0),
    ),
    ("a hold left open ends with the call", [planned("l1"), up("l1", 2), held("l1", 10, True), gone(25)], (1, 23, 15)),
    (
        "a hold left open ends with the conversation",
        [planned("l1"), up("l1", 2), held("l1", 10, True), back("l1", "ANSWER", 16, 12), gone(25)],
        (1, 10, 2),
    ),
    (
        "both sides hold: counted once",
        [planned("l1"), up("l1", 2), held("l1", 4, True), held("l1", 5, True), held("l1", 8, False), gone(9)],
        (1, 7, 4),
    ),
    ("taken back without hold", [planned("l1"), up("l1", 2), held("l1", 8, False), gone(9)], (1, 7, 0)),
    (
        "a hold told too late is no hold",
        [planned("l1"), up("l1", 2), back("l1", "ANSWER", 16, 6), held("l1", 6.1, True), gone(30)],
        (1, 4, 0),
    ),
    ("held before any leg", [held("l1", 1, True), planned("l1", 2), up("l1", 3), gone(9)], (1, 6, 0)),
    (
        "events of a leg that has ended",
        [planned("l1"), up("l1", 2), back("l1", "ANSWER", 16, 6), ringing("l1", 7), up("l1", 8), started("l1", 9),
         back("l1", "BUSY", 17, 10), gone(30)],
        (1, 4, 0),
    ),
    ("clocks that step back", [planned("l1", 5), up("l1", 3), gone(2)], (0, 0, 0)),
    (
        "hung up on the whisper",
        [planned("l1"), ringing("l1", 2), up("l1", 5), recorded("l1", 5), back("l1", "NOANSWER", 16, 8), gone(9)],
        (6, 0, 0),
    ),
]  # fmt: skip


@pytest.mark.parametrize("log,seconds", [pytest.param(log, seconds, id=name) for name, log, seconds in TIMES])
def test_ring_talk_and_hold_are_counted(log, seconds):
    record = folded([arrived(), ROUTED, *log, concluded("answered")])
    assert (record.ring_seconds, record.talk_seconds, record.hold_seconds) == seconds


RESULTS: list[tuple[list[LogItem], list[tuple[str, int]]]] = [
    ([planned("l1"), gone(cause=127)], [("cancelled", 127)]),
    ([planned("l1"), back("l1", "BUSY", 17), gone()], [("busy", 17)]),
    ([planned("l1"), back("l1", "CHANUNAVAIL", 18), gone()], [("no-answer", 18)]),
    ([planned("l1"), back("l1", "CONGESTION", 34), gone()], [("failed", 34)]),
    ([planned("l1"), up("l1", 3), back("l1", "", 0), gone()], [("answered", 0)]),
    ([planned("l1"), up("l1", 3), back("l1", "NOANSWER", 16), gone()], [("no-answer", 16)]),
    ([planned("l1"), back("l1", "ANSWER", 16), gone()], [("answered", 16)]),
    ([planned("l1"), back("l1", "BUSY", 17), planned("l2", 31), gone()], [("busy", 17), ("cancelled", 16)]),
    ([planned("fs-1"), planned("fs-2", 20), up("fs-2", 25), gone()], [("failed", 0), ("answered", 16)]),
    ([back("l9", "BUSY", 17), up("l9", 3), gone()], []),
]


@pytest.mark.parametrize("log,results", RESULTS)
def test_each_destination_tried_is_one_leg_with_its_own_end(log, results):
    record = folded([arrived(), ROUTED, *log])
    assert [(leg.result, leg.cause) for leg in record.legs] == results
    assert [leg.seq for leg in record.legs] == list(range(1, len(results) + 1))


def test_a_voicemail_is_never_answered():
    record = folded([
        arrived(), ROUTED, planned("l1"), back("l1", "NOANSWER", 19), visited("vm", 31),
        note.RecordingPlanned(T0 + 32, "m2", RecordingKind.VOICEMAIL), e.RecordingEnded(T0 + 39, "m2", 7.0),
        gone(), concluded("voicemail", "left a message of 7 s"),
    ])  # fmt: skip
    assert (record.disposition, record.reason) == ("voicemail", "left a message of 7 s")
    assert (record.answered_at, record.answered_by, record.talk_seconds) == (None, None, 0)
    assert [(one.id, one.kind, one.leg_id) for one in record.recordings] == [("m2", "voicemail", None)]


def test_an_answer_that_was_not_seen_still_has_its_name():
    record = folded([arrived(), ROUTED, planned("l1"), back("l1", "ANSWER", 16), gone(), concluded("answered")])
    assert (record.answered_by, record.answered_at, record.reason) == ("ana", None, "ana answered")


def test_a_leg_or_recording_told_twice_is_there_once():
    record = folded(
        [arrived(), planned("l1"), planned("l2", 5), planned("l1", 9), recorded("l2"), recorded("l2"), gone()]
    )
    assert [leg.id for leg in record.legs] == ["l1", "l2"]
    assert [one.id for one in record.recordings] == ["l2"]


def test_tags_are_kept_once_in_order():
    tagged = [note.Tagged(T0, "desk@3/t", ("lead", "hot")), note.Tagged(T0, "desk@3/u", ("hot", "late"))]
    record = folded([arrived(), *tagged])
    assert record.tags == ("lead", "hot", "late")
    assert [step.why for step in record.trace] == ["lead, hot", "hot, late"]


def test_the_first_recording_problem_is_kept_and_all_are_traced():
    record = folded([arrived(), note.RecordingSkipped(T0, "disk full"), note.RecordingSkipped(T0, "gone")])
    assert record.recording_problem == "disk full"
    assert [step.why for step in record.trace] == ["disk full", "gone"]


LEDGER: list[tuple[str, list[LogItem], dict[str, Any], tuple[str | None, float, list[str | None]]]] = [
    ("answered", [planned("l1"), ringing("l1", 5)], {"billsec": 20.0, "answered_at": T0 + 40, "dialstatus": "ANSWER"},
     ("ana", 20, ["answered"])),
    ("answered, time unknown", [planned("l1")], {"billsec": 20.0, "dialstatus": "ANSWER"}, ("ana", 20, ["answered"])),
    ("an answer that was seen", [planned("l1"), up("l1", 30)], {}, ("ana", 30, ["answered"])),
    ("busy", [planned("l1")], {"dialstatus": "BUSY", "cause": 17}, (None, 0, ["busy"])),
    ("no status", [planned("l1")], {}, (None, 0, ["cancelled"])),
    ("no leg", [], {}, (None, 0, [])),
    ("a leg before", [planned("l1"), back("l1", "BUSY", 17)], {"dialstatus": "BUSY"}, (None, 0, ["busy"])),
    ("talked before", [planned("l1"), up("l1", 5), back("l1", "ANSWER", 16)],
     {"billsec": 25.0, "dialstatus": "ANSWER"}, ("ana", 25, ["answered"])),
    ("the business hung up long before the caller", [planned("l1"), up("l1", 30)],
     {"billsec": 10.0, "answered_at": T0 + 30, "dialstatus": "ANSWER"}, ("ana", 10, ["answered"])),
    ("an answer that was noticed late", [planned("l1"), up("l1", 55)],
     {"billsec": 20.0, "answered_at": T0 + 40, "dialstatus": "ANSWER"}, ("ana", 20, ["answered"])),
    ("an answer that was noticed after the end", [planned("l1"), up("l1", 61)],
     {"billsec": 20.0, "answered_at": T0 + 30, "dialstatus": "ANSWER"}, ("ana", 20, ["answered"])),
    ("an answer that was seen before the whisper", [planned("l1"), up("l1", 28)],
     {"billsec": 20.0, "answered_at": T0 + 30, "dialstatus": "ANSWER"}, ("ana", 22, ["answered"])),
    ("hung up while it talks, no status yet", [planned("l1"), up("l1", 28)],
     {"billsec": 32.0, "answered_at": T0 + 28}, ("ana", 32, ["answered"])),
    ("connected by the dialplan, unwatched", [],
     {"billsec": 20.0, "answered_at": T0 + 40, "dialstatus": "ANSWER"}, ("backup destination", 20, ["answered"])),
]  # fmt: skip


@pytest.mark.parametrize("log,row,expected", [pytest.param(*case[1:], id=case[0]) for case in LEDGER])
def test_asterisks_own_record_closes_what_nobody_watched(log, row, expected):
    values: dict[str, Any] = {"billsec": 0.0, "answered_at": None, "cause": 16} | row
    record = folded([arrived(), ROUTED, *log, e.LedgerClosed(T0 + 60, **values), concluded("answered", at=60)])
    assert (record.answered_by, record.talk_seconds, [leg.result for leg in record.legs]) == expected
    assert record.ended_at == T0 + 60


def test_a_log_that_does_not_begin_with_an_arrival_is_no_call():
    assert fold([]) is None
    assert fold(ANSWERED[1:]) is None


def test_an_arrival_told_twice_is_one_call():
    assert fold([ANSWERED[0], *ANSWERED]) == fold(ANSWERED)
    late = arrived(T0 + 5, did="+19995550000")
    assert fold([ANSWERED[0], late, *ANSWERED[1:], late]) == fold(ANSWERED)


@pytest.mark.parametrize("log", [ANSWERED, *([arrived(), ROUTED, *times[1], concluded("answered")] for times in TIMES)])
def test_every_prefix_of_a_log_is_a_record_without_end(log):
    for count in range(1, len(log)):
        record = folded(log[:count])
        assert record.disposition is None
        assert record.started_at == T0


def test_a_call_of_the_failsafe_says_so():
    assert folded([arrived(handled_by="failsafe")]).handled_by == "failsafe"
