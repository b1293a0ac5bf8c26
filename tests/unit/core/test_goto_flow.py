"""Calls that go on in another flow: walked, told, planned, replayed, and kept to the versions that they began with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from callrouter.core import actions as a
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.begun import flow_versions_in, table_begun_with
from callrouter.core.branches import point
from callrouter.core.failsafe_plan import at_moment
from callrouter.core.flow.expect import parse_cases, run_cases
from callrouter.core.model import HoursOverride, RecordingPolicy
from callrouter.core.replay import Verdict, replay
from callrouter.core.routing import RoutingTable, build_table, spoken
from callrouter.core.routing_code.attributes import attributes
from callrouter.core.routing_code.plan import make_plan
from callrouter.core.simulate import Answer, Inputs, simulate
from callrouter.core.state import Calling, HandedOver, Saying, Taking
from callrouter.core.walk import MAX_VISITS
from callrouter.runtime.recovery import rebuild
from tests.builders import CALL, CALLER, DID, T0, Run, arrived, number, run, snapshot, table, version
from tests.linked_flows import DESK, NIGHT, OTHERS, SUPPORT, company_table

# -- calls -------------------------------------------------------------------------------------------------------------


def press(result: Run, routing: RoutingTable, *keys: str) -> None:
    for place, key in enumerate(keys, 1):
        result.take(e.Digit(T0 + place, key), routing)


def test_a_call_goes_on_in_the_other_flow() -> None:
    routing = company_table()
    made = run(routing, [arrived()])
    press(made, routing, "2")
    assert made.path == ["menu", "after-hours", "night/greet"]
    assert [(each.path, each.why) for each in made.notes_of(note.Visited)][1:] == [
        ("desk@3/after-hours", "the caller pressed 2"),
        ("night@1/greet", "goes on in flow night"),
    ]
    assert isinstance(made.session.wait, Saying)
    assert made.actions_of(a.Play)[-1].prompts[0].text == "We are closed."
    made.take(e.PlaybackEnded(T0 + 5, made.session.wait.playback_id), routing)
    greeting = made.session.wait
    assert isinstance(greeting, Saying)
    made.take(e.PlaybackEnded(T0 + 6, greeting.playback_id), routing)
    taking: object = made.session.wait
    assert isinstance(taking, Taking)
    made.take(e.RecordingEnded(T0 + 30, taking.recording_id, 20.0), routing)
    assert made.session.node == "night/thanks"
    assert made.session.path == "night@1/thanks"
    record = made.record
    assert record.path == ("menu", "after-hours", "night/greet", "night/leave", "night/thanks")
    assert [one.path for one in record.trace if one.what == "done"] == ["night@1/leave"]


def test_a_jump_to_a_node_and_back_again() -> None:
    routing = company_table()
    made = run(routing, [arrived()])
    press(made, routing, "3", "9", "3", "1")
    assert made.path == [
        "menu", "dept", "support/menu", "support/back", "menu", "dept", "support/menu", "support/ben",
    ]  # fmt: skip
    assert isinstance(made.session.wait, Calling)
    (planned,) = made.notes_of(note.LegPlanned)
    assert (planned.path, planned.target) == ("support@1/ben", "ben")
    assert made.reasons("not recorded") == ["node support/ben says never"]


def test_the_nodes_that_a_call_may_pass_are_those_of_all_flows() -> None:
    routing = company_table(backup="ben")
    made = run(routing, [arrived()])
    press(made, routing, *"39" * MAX_VISITS)
    assert isinstance(made.session.wait, HandedOver)
    assert made.session.visits == MAX_VISITS
    assert made.path[-1] == "(backup)"


@pytest.mark.parametrize(
    "others", [{"support": SUPPORT}, {**OTHERS, "night": "start: nowhere"}], ids=["gone", "broken"]
)
def test_a_jump_to_what_cannot_be_read_rings_the_backup_and_all_else_works(others: dict[str, str]) -> None:
    routing = table(DESK, others=others, backup="ben")
    made = run(routing, [arrived()])
    press(made, routing, "2")
    assert made.path == ["menu", "after-hours", "(backup)"]
    assert made.session.ending == "there is no way to go on in flow night"
    assert [each.target.name for each in at_moment(routing.entries[DID], T0).destinations] == ["ben", "ana"]
    assert simulate(routing, DID, CALLER, T0, Inputs(("1",))).rung == ("ana",)
    assert make_plan(routing, company_table(backup="ben"), T0, 1).elsewhere


CLOSED_DESK = """
start: on
nodes:
  on: {type: goto_flow, flow: hours}
"""
HOURS = """
start: open
nodes:
  open: {type: hours, open: "24/7", on_open: day, on_closed: night}
  day: {type: split, branches: {ana: 50, ben: 50}}
  ana: {type: dial, target: ana, on_busy: night, on_no_answer: night, on_failed: night}
  ben: {type: dial, target: ben, on_busy: night, on_no_answer: night, on_failed: night}
  night: {type: hangup, cause: busy}
"""


def with_override(flow: str | None) -> RoutingTable:
    made = HoursOverride("o", "company-1", "closed", T0 + 3600, flow, "storm")
    return build_table(replace(snapshot(CLOSED_DESK, others={"hours": HOURS}), overrides=(made,)))


@pytest.mark.parametrize("flow, closed", [("hours", True), (None, True), ("desk", False)])
def test_hours_put_aside_for_a_flow_count_wherever_calls_come_from(flow: str | None, closed: bool) -> None:
    routing = with_override(flow)
    path = simulate(routing, DID, CALLER, T0).record.path
    assert path[:2] == ("on", "hours/open")
    assert ("hours/night" in path) == closed
    assert (at_moment(routing.entries[DID], T0).destinations == ()) == closed


def test_a_split_sends_a_caller_the_same_way_however_the_flow_is_reached() -> None:
    routing = table(
        CLOSED_DESK, others={"hours": HOURS}, numbers=[number(flow="desk"), number("+12025550124", flow="hours")]
    )
    rung = {}
    for last in range(40):
        caller = f"+131255501{last:02}"
        (jumped,), (direct,) = (simulate(routing, did, caller, T0).rung for did in (DID, "+12025550124"))
        assert jumped == direct == ("ana" if point("hours/day", caller) < 50 else "ben")
        rung[jumped] = True
    assert set(rung) == {"ana", "ben"}


def test_prompts_words_of_recording_and_backups_follow_the_jump() -> None:
    routing = company_table()
    entry = routing.entries[DID]
    assert {prompt.text for _, prompt in spoken(routing)} >= {"We are closed.", "Press 1 for Ben.", "Thank you."}
    assert entry.said.recording["ben"] is RecordingPolicy.NEVER
    assert [each.target.name for each in entry.backups] == ["ana", "ben"]
    assert [(each.name, each.label) for each in entry.linked] == [
        ("desk", "desk@3"), ("night", "night@1"), ("support", "support@1"),
    ]  # fmt: skip


# -- plan, replay, expectations, drawings ------------------------------------------------------------------------------


def test_a_change_of_the_second_flow_is_a_change_of_the_number() -> None:
    will = table(DESK, others={**OTHERS, "night": NIGHT.replace("start: greet", "start: bye")})
    (change,) = make_plan(company_table(), will, T0, 7).changes
    words = [each.words() for each in change.differences]
    assert words[0] == "at any time, callers who press 1: was Ana, then voicemail, will be Ana"
    assert "at any time, callers who press 2 or nothing or another key: was voicemail, will be hang-up" in words
    said = table(DESK, others={**OTHERS, "night": NIGHT.replace("We are", "The office is")})
    (change,) = make_plan(company_table(), said, T0, 7).changes
    assert change.differences == ()
    assert [each.words() for each in change.attributes] == [
        "said at night/greet: was “We are closed.”, will be “The office is closed.”"
    ]


def test_nodes_that_only_moved_to_another_flow_change_nothing_for_callers() -> None:
    desk = DESK.replace("flow: support, node: menu", "flow: night")
    whole = desk.replace("dept: {type: goto_flow, flow: night}", NIGHT.partition("nodes:\n  ")[2].strip())
    whole = whole.replace("after-hours: {type: goto_flow, flow: night}\n  ", "")
    whole = whole.replace("after-hours", "greet").replace("dept", "greet")
    after = table(desk, others=OTHERS)
    assert make_plan(table(whole, others=OTHERS), after, T0, 7).changes == ()
    assert attributes(after.entries[DID]).keys() >= {("said at", "night/greet")}


def test_a_stored_call_is_replayed_through_both_flows() -> None:
    made = simulate(company_table(), DID, CALLER, T0, Inputs(("3", "1"), (("ben", (Answer.BUSY,)),)))
    assert made.record.path[2:6] == ("support/menu", "support/ben", "support/late", "night/leave")
    assert replay(company_table(), "simulated", made.log).verdict is Verdict.SAME
    other = table(DESK, others={**OTHERS, "support": SUPPORT.replace("target: ben", "target: ana")})
    assert replay(other, "simulated", made.log).verdict is Verdict.ELSEWHERE


CASES = """
company: acme
tests:
  - flow: desk.yaml
    digits: "2"
    expect: {path: [menu, after-hours, night/greet, night/leave, night/thanks, night/bye]}
  - {flow: desk.yaml, digits: "2", expect: {says: Good night}}
  - {flow: night, expect: {path: [greet, leave, thanks, bye]}}
"""


def test_expectations_name_nodes_of_other_flows_and_files_stand_in_for_saved_ones() -> None:
    saved = snapshot("start: x\nnodes: {x: {type: hangup}}", others=OTHERS)
    texts = {"desk.yaml": DESK, "night.yaml": NIGHT.replace("We are closed", "Good night")}
    outcomes = run_cases(parse_cases(CASES), saved, T0, {"desk.yaml": DESK})
    assert [outcome.ok for outcome in outcomes] == [True, False, True]
    outcomes = run_cases(parse_cases(CASES), saved, T0, texts)
    assert [outcome.ok for outcome in outcomes] == [True, True, True]


# -- a call keeps its flows --------------------------------------------------------------------------------------------

BEFORE = company_table()
EDITED = {**OTHERS, "night": NIGHT.replace("next: leave", "next: bye").replace("We are closed", "Go away")}


def edited(**changes: Any) -> RoutingTable:
    config = snapshot(DESK, others=EDITED, **changes)
    newer = [replace(each, id="version-night-2", version=2) if each.name == "night" else each for each in config.flows]
    return build_table(replace(config, version=8, flows=tuple(newer)))


VERSIONS = {each.id: each for each in snapshot(DESK, others=OTHERS).flows}


def test_a_call_in_progress_keeps_the_old_version_of_the_second_flow() -> None:
    made = run(BEFORE, [arrived()])
    press(made, edited(), "2")
    wait = made.session.wait
    assert isinstance(wait, Saying)
    assert made.actions_of(a.Play)[-1].prompts[0].text == "We are closed."
    made.take(e.PlaybackEnded(T0 + 5, wait.playback_id), edited())
    assert made.session.path == "night@1/leave"
    new = run(edited(), [arrived()])
    press(new, edited(), "2")
    assert new.session.path == "night@2/greet"


def test_the_log_names_every_version_that_the_call_can_come_to() -> None:
    made = run(BEFORE, [arrived()])
    (routed,) = made.notes_of(note.Routed)
    assert routed.flow_version_id == "version-1"
    assert routed.flows == (("desk", "version-1"), ("night", "version-night"), ("support", "version-support"))
    assert flow_versions_in(made.log) == {"version-1", "version-night", "version-support"}
    (routed,) = run(table(NIGHT), [arrived()]).notes_of(note.Routed)
    assert routed.flows == (), "a flow alone is named once"


RENAMED = {**VERSIONS, "version-night": version(NIGHT, id="version-night", name="late", version=1)}


@pytest.mark.parametrize(
    "current, earlier, versions, found",
    [
        (BEFORE, [], {}, True),
        (edited(), [], VERSIONS, True),
        (edited(), [BEFORE], {}, True),
        (edited(), [], RENAMED, True),
        (edited(), [], {key: each for key, each in VERSIONS.items() if key != "version-night"}, False),
        (edited(), [], {**VERSIONS, "version-night": version("start: nowhere", name="night")}, False),
    ],
    ids=["unchanged", "texts in the database", "the last run's routing", "renamed since", "a text is missing",
         "a text nobody can read"],
)  # fmt: skip
def test_a_call_in_the_second_flow_is_rebuilt_with_the_versions_it_began_with(
    current: RoutingTable, earlier: list[RoutingTable], versions: dict[str, Any], found: bool
) -> None:
    made = run(BEFORE, [arrived()])
    press(made, BEFORE, "2")
    then, same = table_begun_with(made.log, current, earlier, versions)
    assert same is found
    if not found:
        return
    session, _ = rebuild(CALL, made.log, then)
    assert (session.wait, session.node, session.path) == (made.session.wait, "night/greet", "night@1/greet")
    again = Run(session)
    again.take(e.Resumed(T0 + 9), then)
    assert again.path == ["night/greet"], "the node starts again"
    assert again.actions_of(a.Play)[0].prompts[0].text == "We are closed."
