"""What a call dials, records, and does when its flow or the world fails it."""

from __future__ import annotations

import pytest

from callrouter.core import actions as a
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.model import RecordingPolicy
from callrouter.core.routing import RoutingTable
from callrouter.core.state import HandedOver, Over, Session
from callrouter.core.walk import MAX_VISITS
from tests.builders import CALL, DID, T0, arrived, company, number, run, table, target
from tests.call_scripts import (
    DIAL,
    MENU,
    PLAY,
    VOICEMAIL,
    back,
    failed,
    fired,
    flow,
    gone,
    key,
    ledger,
    message,
    resumed,
    said,
    shown,
    trouble,
    up,
)


def hangup_flow(cause: str) -> str:
    return f"start: h\nnodes:\n  h: {{type: hangup, cause: {cause}}}\n"


# -- hangup node and hours ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name,cause",
    [("normal", 16), ("busy", 17), ("no-answer", 19), ("rejected", 21), ("not-found", 1), ("congestion", 34),
     ("unavailable", 38)],
)  # fmt: skip
def test_a_flow_hangs_up_with_the_cause_it_names(name, cause):
    result = run(table(hangup_flow(name)), [arrived(), gone(cause=cause)])
    assert shown(result) == [f"hangup {cause}"]
    assert result.ending == ("completed", "the flow ended at h")


HOURS = flow(
    "h",
    "h: {type: hours, open: 'Mo-Fr 08:00-18:00; PH off', on_open: ring, on_closed: bye}",
    "ring: {type: dial, target: ana, on_busy: bye, on_no_answer: bye, on_failed: bye}",
)
WEST = HOURS.replace("on_open", "timezone: America/Los_Angeles, on_open")


@pytest.mark.parametrize(
    "text,at,of,path,why",
    [
        (HOURS, 1_760_014_800, {}, ["h", "ring"], "Thu 09:00 (America/New_York)"),
        (WEST, 1_760_014_800, {}, ["h", "bye"], "Thu 06:00 (America/Los_Angeles)"),
        (HOURS, 1_760_014_800, {"timezone": "Europe/Berlin"}, ["h", "ring"], "Thu 15:00 (Europe/Berlin)"),
        (HOURS, 1_762_174_799, {}, ["h", "bye"], "Mon 07:59 (America/New_York)"),  # the day after the clocks changed
        (HOURS, 1_762_174_800, {}, ["h", "ring"], "Mon 08:00 (America/New_York)"),
        (HOURS, 1_751_641_200, {}, ["h", "bye"], "Fri 11:00 (America/New_York)"),  # 4 July
        (HOURS, 1_751_641_200, {"country": "GB"}, ["h", "ring"], "Fri 11:00 (America/New_York)"),
    ],
)
def test_hours_decide_by_the_wall_clock_and_say_so(text, at, of, path, why):
    result = run(table(text, of=company(**of)), [arrived(float(at))])
    assert result.path == path
    word = "open" if path[-1] == "ring" else "closed"
    assert result.reasons(word) == [f"{why} against 'Mo-Fr 08:00-18:00; PH off'"]


def test_hours_in_a_zone_that_is_gone_are_taken_as_open():
    result = run(table(HOURS, of=company(timezone="Mars/Olympus")), [arrived()])
    assert result.path == ["h", "ring"]
    assert "there is no time zone" in result.reasons("hours")[0]


# -- what is dialled ---------------------------------------------------------------------------------------------------


def test_a_dial_carries_everything_the_talk_phase_needs():
    ana = target("ana", ring_seconds=33, whisper="From {campaign}")
    (dial,) = run(table(targets=[ana]), [arrived()]).actions_of(a.Dial)
    assert (dial.leg_id, dial.target_id, dial.target) == ("c-l1", "target-ana", "ana")
    assert dial.endpoint == "PJSIP/callrouter-uri/sip:ana@192.0.2.7"
    assert (dial.ring_seconds, dial.caller_id, dial.record, dial.music) == (33, None, True, False)
    assert [prompt.text for prompt in dial.whisper] == ["From Spring radio"]


@pytest.mark.parametrize(
    "fields,of,recorded",
    [("", True, True), ("", False, False), (", record: no", True, False), (", record: yes", False, True)],
)
def test_a_node_may_overrule_the_companys_recording_policy(fields, of, recorded):
    text = flow("d", f"d: {{type: dial, target: ana, on_busy: bye, on_no_answer: bye, on_failed: bye{fields}}}")
    result = run(table(text, of=company(record=RecordingPolicy.of(of))), [arrived(), up("l1")])
    assert result.actions_of(a.Dial)[0].record is recorded
    assert [one.recording_id for one in result.notes_of(note.RecordingPlanned)] == (["c-l1"] if recorded else [])
    assert result.notes_of(note.RecordingSkipped) == []


def test_a_node_may_choose_hold_music_ring_time_and_whisper():
    text = flow("d", "d: {type: dial, target: ana, on_busy: bye, on_no_answer: bye, on_failed: bye, ring: 7, "
                "whisper: 'Hello {number}', caller_hears: music}")  # fmt: skip
    (dial,) = run(table(text, targets=[target("ana", whisper="Other")]), [arrived()]).actions_of(a.Dial)
    assert (dial.ring_seconds, dial.music, dial.whisper[0].text) == (7, True, "Hello billboard")


def test_a_message_is_recorded_as_its_node_says():
    text = flow("vm", "vm: {type: voicemail, on_failed: bye, max_seconds: 9, silence_seconds: 0, beep: no, "
                "finish_on: ''}")  # fmt: skip
    (record,) = run(table(text), [arrived()]).actions_of(a.Record)
    assert record == a.Record("c-m1", 9, 0, False, "")


# -- recordings --------------------------------------------------------------------------------------------------------


def test_a_store_that_is_broken_before_the_call_is_told_and_the_call_goes_on():
    result = run(table(), [arrived(store_problem="disk full"), up("l1"), gone()])
    assert result.actions_of(a.Dial)[0].record is False
    assert result.notes_of(note.RecordingSkipped) == [note.RecordingSkipped(T0, "disk full")]
    assert result.notes_of(note.RecordingPlanned) == []
    assert result.ending[0] == "answered"
    assert result.record.recording_problem == "disk full"


def test_a_store_that_breaks_during_the_conversation_is_told():
    result = run(table(), [arrived(), up("l1"), trouble("disk full"), gone()])
    assert [one.why for one in result.notes_of(note.RecordingSkipped)] == ["may be incomplete: disk full"]
    assert len(result.notes_of(note.RecordingPlanned)) == 1


def test_a_store_that_breaks_during_a_message_is_told():
    result = run(table(VOICEMAIL), [arrived(), said("p1"), trouble("disk full"), message("m2"), gone()])
    assert result.record.recording_problem == "may be incomplete: disk full"


def test_a_store_that_works_again_is_used_again():
    events: list[e.Event] = [trouble("disk full"), trouble("", 7), back("l1", "NOANSWER", 19), gone()]
    result = run(table(DIAL), [arrived(), *events])
    assert [dial.record for dial in result.actions_of(a.Dial)] == [True, True]


def test_a_store_that_broke_before_the_second_leg_leaves_it_unrecorded():
    result = run(table(DIAL), [arrived(), trouble("disk full"), back("l1", "NOANSWER", 19), up("l2", 40), gone()])
    assert [dial.record for dial in result.actions_of(a.Dial)] == [True, False]
    assert [one.why for one in result.notes_of(note.RecordingSkipped)] == [
        "may be incomplete: disk full", "disk full"
    ]  # fmt: skip


def test_no_message_is_taken_into_a_broken_store():
    result = run(table(VOICEMAIL), [arrived(store_problem="disk full"), said("p1"), gone()])
    assert shown(result) == ["answer", "play p1 Leave a message", "hangup 19"]
    assert result.record.recording_problem == "disk full"


def test_trouble_that_only_the_dialplan_saw_is_told():
    result = run(table(), [arrived(), up("l1"), back("l1", "ANSWER", 16, recording_problem="no space"), gone()])
    assert result.record.recording_problem == "no space"


@pytest.mark.parametrize("last", [back("l1", "ANSWER", 16), ledger(20, "ANSWER")])
def test_a_conversation_whose_answer_was_not_seen_still_has_its_recording(last):
    result = run(table(), [arrived(), last, gone(61)])
    assert [one.recording_id for one in result.notes_of(note.RecordingPlanned)] == ["c-l1"]


@pytest.mark.parametrize("record", [True, False])
def test_the_failsafes_conversation_is_recorded_by_the_companys_policy(record):
    events: list[e.Event] = [
        failed("Dial", "l1"),
        e.LegStarted(T0 + 9, "fs-1", "p"),
        e.LegAnswered(T0 + 12, "fs-1"),
        gone(),
    ]
    result = run(table(of=company(record=RecordingPolicy.of(record))), [arrived(), *events])
    assert [one.recording_id for one in result.notes_of(note.RecordingPlanned)] == (["fs-1"] if record else [])


# -- arrival, backup, patience -----------------------------------------------------------------------------------------


def test_the_first_note_says_whose_call_it_is():
    routed = run(table(PLAY), [arrived()]).notes[0]
    assert routed == note.Routed(
        T0, "billboard runs desk@3", "company-1", "campaign-1", f"number-{DID}", "radio", "offline", "version-1", 7
    )


def test_a_switched_off_number_is_rejected_and_still_attributed():
    result = run(table(numbers=[number(target="ana", active=False)]), [arrived(), gone(cause=1)])
    assert shown(result) == ["hangup 1"]
    assert result.ending == ("rejected", f"billboard ({DID}) is switched off")
    assert result.record.campaign_id == "campaign-1"


def test_a_broken_flow_rings_the_backup():
    result = run(table("nodes: x", numbers=[number(flow="desk", backup="ben")]), [arrived(), up("l1"), gone()])
    assert shown(result) == ["dial l1 ben 25"]
    assert result.ending == ("answered", "ben answered")
    assert "does not hold together" in result.record.trace[0].why


def test_a_broken_flow_without_backup_is_failed():
    result = run(table("nodes: x"), [arrived(), gone(cause=34)])
    assert shown(result) == ["hangup 34"]
    assert result.ending[0] == "failed"


ROUND = flow("a", "a: {type: tag, tags: x, next: b}", "b: {type: hours, open: 24/7, on_open: a, on_closed: ring}",
             "ring: {type: dial, target: ana, on_busy: bye, on_no_answer: bye, on_failed: bye}")  # fmt: skip


def test_a_flow_that_goes_round_rings_the_backups():
    result = run(table(ROUND), [arrived()])
    assert shown(result) == [f"failsafe: the flow went through {MAX_VISITS} nodes without end"]
    assert len(result.path) == MAX_VISITS + 1
    assert result.path[-1] == "(backup)"
    assert isinstance(result.session.wait, HandedOver)


def test_a_flow_that_goes_round_without_backup_is_left_to_the_dialplan():
    text = flow("a", "a: {type: tag, tags: x, next: a}")
    result = run(table(text), [arrived(), gone(cause=19)])
    assert shown(result) == [f"failsafe: the flow went through {MAX_VISITS} nodes without end"]
    assert result.ending == ("completed", f"the flow went through {MAX_VISITS} nodes without end")


def test_a_caller_who_goes_round_by_key_reaches_the_backup_in_the_end():
    text = MENU.replace("'#': bye", "'#': menu")
    routing: RoutingTable = table(text)
    result = run(routing, [arrived(), *(key("#", index) for index in range(MAX_VISITS))])
    assert isinstance(result.actions[-1], a.LeaveToFailsafe)
    assert result.path[-1] == "(backup)"


def test_a_failsafe_leg_told_twice_is_one_leg():
    leg = e.LegStarted(T0 + 9, "fs-1", "peer")
    result = run(table(), [arrived(), failed("Dial", "l1"), leg, leg, gone()])
    assert len(result.record.legs) == 2


def test_trying_again_is_counted_within_one_visit():
    result = run(table(MENU), [arrived(), key("7"), key("8")])
    assert result.reasons("invalid") == [
        "the caller pressed 7, which is no choice (try 1/2)", "the caller pressed 8, which is no choice (try 2/2)"
    ]  # fmt: skip


def test_a_call_keeps_the_flow_it_started_with():
    begun = run(table(MENU), [arrived(), said("p1")]).session
    result = run(table(PLAY), [key("#"), gone()], begun)
    assert result.ending == ("completed", "the flow ended at bye")


def test_nothing_happens_after_the_end():
    over = run(table(MENU), [arrived(), gone()]).session
    assert over.over
    later: list[e.Event] = [
        arrived(), key("1"), said("p1"), fired("t1"), up("l1"), back("l1", "BUSY", 17), gone(), ledger(), resumed(),
        failed("Answer"), trouble("x"), message("m1"),
    ]  # fmt: skip
    result = run(table(MENU), later, over)
    assert (result.actions, result.notes, result.session) == ([], [], over)


def test_an_end_before_the_arrival_is_an_end():
    result = run(table(MENU), [gone()], Session(CALL))
    assert isinstance(result.session.wait, Over)
    assert result.ending[0] == "failed"
