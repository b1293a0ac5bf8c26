from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from callrouter.asterisk.ledger import LedgerRow
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.cdr import fold
from callrouter.core.records import CallRecord
from callrouter.core.routing import EMPTY, RoutingTable
from callrouter.runtime.recovery import close_log
from callrouter.runtime.unwatched import log_of
from tests.builders import DID, T0, ledger_row, number, table

ROUTING = table()
ENDPOINT = "PJSIP/callrouter-uri/sip:ana@192.0.2.7"

ROW = ledger_row()


def record_of(row: LedgerRow, routing: RoutingTable = ROUTING) -> CallRecord:
    record = fold(log_of(row, "c", routing, "US"))
    assert record is not None
    return record


def unanswered(status: str, cause: int, **changes: Any) -> LedgerRow:
    return replace(ROW, dialstatus=status, cause=cause, talk_seconds=0.0, talk_at=None, recording="", **changes)


def test_an_answered_call_has_everything_a_watched_one_has():
    record = record_of(ROW)
    assert (record.uniqueid, record.did, record.caller, record.trunk) == (ROW.uniqueid, DID, "+13125550199", "carrier")
    assert (record.handled_by, record.campaign_id, record.source) == ("failsafe", "campaign-1", "radio")
    assert (record.disposition, record.reason) == ("answered", "ana answered and talked for 29 s")
    assert (record.answered_by, record.answered_at, record.talk_seconds) == ("ana", T0 + 11, 29)
    assert (record.started_at, record.ended_at, record.ring_seconds) == (T0, T0 + 40, 10)
    assert record.path == ("failsafe",)
    (leg,) = record.legs
    assert (leg.id, leg.target_id, leg.endpoint, leg.result) == (ROW.leg, "target-ana", ENDPOINT, "answered")
    assert [(one.id, one.leg_id) for one in record.recordings] == [(ROW.leg, ROW.leg)]


@pytest.mark.parametrize(
    "status,cause,disposition,result",
    [
        ("BUSY", 17, "busy", "busy"),
        ("NOANSWER", 19, "no-answer", "no-answer"),
        ("CHANUNAVAIL", 3, "failed", "failed"),
        ("CHANUNAVAIL", 18, "no-answer", "no-answer"),
        ("CONGESTION", 34, "failed", "failed"),
        ("CANCEL", 127, "abandoned", "cancelled"),
    ],
)
def test_an_unanswered_call_says_why(status, cause, disposition, result):
    record = record_of(unanswered(status, cause))
    assert (record.disposition, record.answered_by, record.talk_seconds) == (disposition, None, 0)
    assert [(leg.result, leg.cause) for leg in record.legs] == [(result, cause)]
    assert record.recordings == ()
    assert "ana" in record.reason


@pytest.mark.parametrize(
    "reason,why",
    [
        ("FAILED", "no controller answered"),
        ("TIMEOUT", "no controller answered"),
        ("DEADMAN", "no controller answered"),
        ("CONTROLLER", "the controller gave the call back"),
    ],
)
def test_the_trace_says_why_the_dialplan_took_the_call(reason, why):
    reached = [step for step in record_of(replace(ROW, failsafe_reason=reason)).trace if step.what == "reached"]
    assert [step.why for step in reached] == [why]


def test_a_caller_who_left_before_anything_rang_is_abandoned():
    row = unanswered("", 19, target="", leg="", dial_at=None)
    record = record_of(row)
    assert (record.disposition, record.reason) == ("abandoned", "the caller hung up before anything rang")
    assert record.legs == ()


def test_a_caller_who_left_before_the_failsafe_is_abandoned():
    row = unanswered("", 16, target="", leg="", dial_at=None, handled_by="", failsafe_reason="")
    record = record_of(row)
    assert (record.disposition, record.handled_by, record.path) == ("abandoned", "controller", ())


def test_an_unknown_number_is_rejected():
    row = unanswered("", 1, target="", leg="", dial_at=None, did="5550000")
    record = record_of(row)
    assert (record.disposition, record.company_id) == ("rejected", None)
    assert "not one of our tracking numbers" in record.reason


def test_a_number_switched_off_since_keeps_its_conversation():
    record = record_of(ROW, table(numbers=[number(target="ana", active=False)]))
    assert (record.disposition, record.campaign_id) == ("answered", "campaign-1")


def test_a_destination_that_is_gone_since_is_told_as_it_was_dialled():
    record = record_of(replace(ROW, target="PJSIP/+12025550177@trunk-old"), EMPTY)
    assert (record.answered_by, record.legs[0].target_id) == ("PJSIP/+12025550177@trunk-old", None)
    assert record.company_id is None


def test_a_recording_that_could_not_be_made_is_told():
    record = record_of(replace(ROW, recording="", recording_problem="the recording directory is missing"))
    assert record.recordings == ()
    assert record.recording_problem == "the recording directory is missing"


def test_a_row_without_a_legs_name_or_talk_time_still_adds_up():
    record = record_of(replace(ROW, leg="", talk_at=None, dial_at=None))
    assert record.legs[0].id == "1760000000.1-1"
    assert record.talk_seconds == 29
    assert record.answered_at == T0 + 11


def test_simulated_calls_are_marked():
    assert record_of(replace(ROW, trunk="simulator")).test is True


def test_the_log_is_one_any_call_could_have():
    log = log_of(ROW, "c", ROUTING, "US")
    assert isinstance(log[0], e.CallArrived)
    assert isinstance(log[1], note.Routed)
    assert isinstance(log[-1], note.Concluded)
    assert [item.at for item in log[2:]] == sorted(item.at for item in log[2:])


@pytest.mark.parametrize(
    "row",
    [
        ROW,
        unanswered("BUSY", 17),
        unanswered("", 19, target="", leg="", dial_at=None),
        unanswered("", 1, target="", leg="", dial_at=None, did="5550000"),
        replace(ROW, cut=True),
    ],
    ids=["answered", "busy", "nothing rang", "unknown number", "cut"],
)
def test_killed_while_it_is_written_the_rest_is_the_same(row):
    whole = log_of(row, "c", ROUTING, "US")
    for count in range(1, len(whole)):
        written = whole[:count]
        added: list[Any] = []

        class Memory:
            def append(self, _call_id: str, entry: Any) -> None:
                added.append(entry)  # noqa: B023 - used within this round

        close_log("c", written, ROUTING, row, Memory())
        assert fold([*written, *added]) == fold(whole), count


def test_a_call_that_ended_with_asterisk_is_not_said_to_have_been_given_up():
    rang = record_of(replace(unanswered("", 41), cut=True))
    assert (rang.disposition, rang.reason) == ("failed", "Asterisk ended while the call was up: ana rang")
    assert [(leg.result, leg.cause) for leg in rang.legs] == [("failed", 41)]
    talked = record_of(replace(ROW, cut=True))
    assert talked.disposition == "answered"
    assert talked.reason == "Asterisk ended while the call was up: ana answered and talked for 29 s"
