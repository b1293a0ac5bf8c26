"""The node that branches by earlier calls."""

from __future__ import annotations

from dataclasses import replace

import pytest

from callrouter.core.branches import caller
from callrouter.core.failsafe_plan import at_moment
from callrouter.core.flow import nodes as n
from callrouter.core.flow.check import check_flow
from callrouter.core.flow.draw import as_text
from callrouter.core.flow.expect import parse_cases, run_cases
from callrouter.core.flow.parse import parse_flow
from callrouter.core.identity import CallerHistory
from callrouter.core.simulate import Inputs, simulate
from callrouter.errors import FlowError
from tests.builders import CALLER, DID, T0, arrived, run, snapshot, table
from tests.call_scripts import flow

DAY = 86400.0
WHO = flow(
    "who",
    "who: {type: caller, on_first_time: hello, on_repeat: ana, within_days: 30, on_other: ben, tags: [vip, staff], "
    "on_known: ben, on_anonymous: no, on_unknown: ana}",
    "hello: {type: voicemail, on_failed: no}",
    "ana: {type: dial, target: ana, on_busy: no, on_no_answer: no, on_failed: no}",
    "ben: {type: dial, target: ben, on_busy: no, on_no_answer: no, on_failed: no}",
    "no: {type: hangup}",
)
NODE = n.Caller("first", "repeat", "other", "anonymous", "unknown", 30, ("vip", "staff"), "known")


def called(days_ago: float, *tags: str) -> CallerHistory:
    return CallerHistory(3, T0 - days_ago * DAY, "ana", tags)


@pytest.mark.parametrize(
    "number,history,to,why",
    [
        (CALLER, CallerHistory(), "first", "no earlier call from this number"),
        (CALLER, called(12), "repeat", "3 earlier calls, the last one 12.0 days ago"),
        (CALLER, called(30), "repeat", "3 earlier calls, the last one 30.0 days ago"),
        (CALLER, called(30.1), "other", "3 earlier calls, the last one 30.1 days ago, not within 30"),
        (CALLER, CallerHistory(1, T0 + 5), "repeat", "1 earlier call, the last one 0.0 days ago"),
        (CALLER, called(90, "old", "staff"), "known", "an earlier call has the tag 'staff'"),
        (CALLER, called(1, "old"), "repeat", "3 earlier calls, the last one 1.0 days ago"),
        (CALLER, None, "unknown", "whether there were earlier calls is not known at this moment"),
        (None, None, "anonymous", "the number is withheld"),
        (None, called(1, "vip"), "anonymous", "the number is withheld"),
    ],
)
def test_the_exit_of_a_caller(number: str | None, history: CallerHistory | None, to: str, why: str):
    taken = caller(NODE, number, history, T0)
    assert (taken.to, taken.why) == (to, why)


def test_without_days_whoever_called_is_a_repeat():
    assert caller(replace(NODE, within_days=None), CALLER, called(390), T0).to == "repeat"


def test_a_call_takes_it_and_tells_why():
    made = run(table(WHO), [arrived(history=called(12))])
    assert made.path == ["who", "ana"]
    decided = [(one.what, one.why) for one in made.record.trace if one.path == "desk@3/who"]
    assert ("repeat", "3 earlier calls, the last one 12.0 days ago") in decided


def test_left_out_exits_are_those_of_a_first_call():
    node = parse_flow(flow("who", "who: {type: caller, on_first_time: a, on_repeat: b}", "a: {type: hangup}",
                           "b: {type: hangup}"), "x").nodes["who"]  # fmt: skip
    assert n.exits(node) == (("first time", "a"), ("repeat", "b"), ("anonymous", "a"), ("unknown", "a"))
    assert [outcome for outcome, _ in n.exits(parse_flow(WHO, "x").nodes["who"])] == [
        "known", "first time", "repeat", "other", "anonymous", "unknown",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "fields,message",
    [
        ("on_repeat: a", "on_first_time"),
        ("on_first_time: a", "on_repeat"),
        ("on_first_time: a, on_repeat: a, tags: [vip]", "tags and on_known go together"),
        ("on_first_time: a, on_repeat: a, on_known: a", "tags and on_known go together"),
        ("on_first_time: a, on_repeat: a, on_other: a", "on_other needs within_days"),
        ("on_first_time: a, on_repeat: a, within_days: 0", "within_days"),
        ("on_first_time: a, on_repeat: a, within_days: 401", "within_days"),
        ("on_first_time: a, on_repeat: nowhere", "nowhere"),
        ("on_first_time: a, on_repeat: a, tags: ['a,b'], on_known: a", "no tag"),
    ],
)
def test_what_does_not_hold_together_is_refused(fields: str, message: str):
    with pytest.raises(FlowError, match=message):
        parse_flow(flow("who", f"who: {{type: caller, {fields}}}", "a: {type: hangup}"), "x")


def test_it_is_checked_and_drawn():
    parsed = parse_flow(WHO, "x")
    assert [each for each in check_flow(parsed, ["ana", "ben"], []) if each.severity == "error"] == []
    assert "who: caller, vip, staff, within 30 days" in as_text(parsed)
    circle = parse_flow(flow("who", "who: {type: caller, on_first_time: who, on_repeat: a}", "a: {type: hangup}"), "x")
    assert "goes round without end" in check_flow(circle, [], [])[0].message


def test_the_dialplan_takes_callers_for_unknown():
    entry = table(WHO).entries[DID]
    assert [each.target.name for each in at_moment(entry, T0).destinations] == ["ana", "ben"]


@pytest.mark.parametrize(
    "caller,history,path",
    [
        (CALLER, CallerHistory(), ("who", "hello")),
        (CALLER, called(2), ("who", "ana")),
        (CALLER, called(99, "vip"), ("who", "ben")),
        (CALLER, None, ("who", "ana")),
        (None, called(2), ("who", "no")),
    ],
)
def test_a_simulated_call_has_the_past_it_is_given(
    caller: str | None, history: CallerHistory | None, path: tuple[str, ...]
):
    assert simulate(table(WHO), DID, caller, T0, Inputs(history=history)).record.path == path


CASES = f"""
tests:
  - {{number: "{DID}", expect: {{path: [who, hello]}}}}
  - {{number: "{DID}", earlier: none, expect: {{path: [who, hello]}}}}
  - {{number: "{DID}", earlier: {{days_ago: 12}}, expect: {{path: [who, ana]}}}}
  - {{number: "{DID}", earlier: {{days_ago: 31, calls: 4}}, expect: {{path: [who, ben]}}}}
  - {{number: "{DID}", earlier: {{tags: [vip]}}, expect: {{path: [who, ben]}}}}
  - {{number: "{DID}", earlier: unknown, expect: {{path: [who, ana]}}}}
  - {{number: "{DID}", earlier: {{calls: 9}}, caller: "", expect: {{path: [who, no]}}}}
"""


def test_flow_tests_say_what_was_before():
    outcomes = run_cases(parse_cases(CASES), snapshot(WHO), T0)
    assert [outcome.differences for outcome in outcomes] == [()] * 7
    with pytest.raises(FlowError):
        parse_cases(f'tests: [{{number: "{DID}", earlier: never, expect: {{path: [who]}}}}]')
