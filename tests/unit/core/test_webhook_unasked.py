"""The webhook node without a service: simulated calls, flow tests, replay, plan, the failsafe."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callrouter.core.cdr import fold
from callrouter.core.failsafe_plan import at_moment
from callrouter.core.flow.expect import parse_cases, run_cases
from callrouter.core.flow.parse import parse_flow
from callrouter.core.flow.replied import reply_of
from callrouter.core.records import Reply, WebhookResult
from callrouter.core.replay import Doubt, Verdict, replay
from callrouter.core.routing_code.outcomes import Choice
from callrouter.core.routing_code.plan import make_plan
from callrouter.core.routing_code.tables import FAILURE, NO_ANSWER, NO_BRANCH
from callrouter.core.simulate import ANY, Inputs, simulate
from callrouter.errors import FlowError, InputError
from tests.builders import CALL, CALLER, DID, T0, snapshot, table
from tests.call_scripts import ASK_CRM, ASK_CRM_ENDS, ASK_CRM_NODE, CRM, flow

URL, NODE, ENDS, FLOW = CRM, ASK_CRM_NODE, ASK_CRM_ENDS, ASK_CRM
ROUTING = table(FLOW)
OK = WebhookResult.ANSWERED


# -- without a caller --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "word, path", [("vip", "sales"), ("support", "help"), ("next", "plain"), ("timeout", "slow"), ("failed", "broken")]
)
def test_a_simulated_call_is_answered_as_is_said(word, path):
    reply = reply_of(parse_flow(FLOW, "desk"), "crm", word)
    for key_ in ("crm", ANY):
        made = simulate(ROUTING, DID, CALLER, T0, Inputs(webhooks=((key_, (reply,)),)))
        assert made.record.path == ("crm", path)
        assert any("so it was said" in line.why for line in made.lines())


def test_a_simulated_call_says_what_it_assumes():
    made = simulate(ROUTING, DID, CALLER, T0)
    assert made.record.path == ("crm", "plain")
    (why,) = (line.why for line in made.lines() if line.what == "webhook: next")
    assert why == "assumed: nobody said what the service answers"


@pytest.mark.parametrize("node, word, says", [("crn", "vip", "no webhook node 'crn'"), ("crm", "vap", "answer 'vap'")])
def test_an_answer_that_cannot_be_is_refused(node, word, says):
    with pytest.raises(InputError, match=says):
        reply_of(parse_flow(FLOW, "desk"), node, word)


def test_a_flow_test_says_what_services_answer():
    text = """
tests:
  - {number: "+12025550123", webhook: vip, expect: {rings: [ana]}}
  - {number: "+12025550123", webhook: {crm: timeout}, expect: {hangup: busy, rings: nobody}}
  - {number: "+12025550123", expect: {reaches: plain}}
  - {number: "+12025550123", webhook: {crm: support}, expect: {rings: [ana]}}
"""
    outcomes = run_cases(parse_cases(text), snapshot(FLOW), T0)
    assert [each.ok for each in outcomes] == [True, True, True, False]
    for wrong, says in (("{crm: vap}", "'vap'"), ("{menu: vip}", "no webhook node 'menu'"), ("vap", "'vap'")):
        bad = f'tests:\n  - {{number: "{DID}", webhook: {wrong}, expect: {{rings: [ana]}}}}\n'
        with pytest.raises(FlowError) as caught:
            run_cases(parse_cases(bad), snapshot(FLOW), T0)
        assert says in caught.value.message
        assert caught.value.line == 2


def test_the_failsafe_goes_by_the_failure():
    text = flow("crm", NODE.replace("on_failed: broken", "on_failed: help"), *ENDS)
    alone = at_moment(table(text).entries[DID], T0)
    assert [each.target.name for each in alone.destinations] == ["ben", "ana"]
    assert at_moment(ROUTING.entries[DID], T0).destinations == ()


# -- replay and plan ---------------------------------------------------------------------------------------------------


def stored(reply: Reply, text: str = FLOW) -> list[Any]:
    made = simulate(table(text), DID, CALLER, T0, Inputs(webhooks=(("crm", (reply,)),)))
    return list(made.log)


VIP = Reply(OK, "", "vip", ("gold",))


def test_a_replay_takes_the_answer_of_then():
    found = replay(ROUTING, CALL, stored(VIP))
    assert (found.verdict, found.doubts) == (Verdict.SAME, ())
    elsewhere = table(FLOW.replace("vip: sales", "vip: help"))
    found = replay(elsewhere, CALL, stored(VIP))
    assert found.verdict is Verdict.ELSEWHERE
    assert found.again is not None
    assert ([leg.target for leg in found.again.legs], found.again.tags) == (["ben"], ("gold",))


def test_a_replay_asks_nobody_so_another_service_is_not_replayed():
    other = table(FLOW.replace(URL, "https://other.example.com/"))
    found = replay(other, CALL, stored(VIP))
    assert (found.verdict, found.doubts) == (Verdict.NOT_REPLAYED, (Doubt.WEBHOOK,))


def test_a_replay_uses_an_answer_behind_another_way_too():
    later = FLOW.replace("start: crm", "start: hello").replace(
        "  crm:", "  hello: {type: play, prompt: Hi, next: crm}\n  crm:"
    )
    found = replay(table(later), CALL, stored(VIP))
    assert found.again is not None
    assert (found.again.path, found.doubts) == (("hello", "crm", "sales"), ())
    renamed = FLOW.replace("start: crm", "start: ask").replace("  crm:", "  ask:")
    assert replay(table(renamed), CALL, stored(VIP)).doubts == (Doubt.WEBHOOK,)


def test_a_plan_looks_at_each_answer():
    now = make_plan(ROUTING, table(FLOW.replace("vip: sales", "vip: help")), T0, 7)
    (change,) = now.changes
    (difference,) = change.differences
    assert difference.words().endswith("callers who get vip from webhook crm: was Ana, will be Ben")
    assert now.undecided == ("desk/crm: what crm.example.com answers; each answer is looked at",)
    assert make_plan(ROUTING, ROUTING, T0, 7).changes == ()


def test_a_plan_tells_exits_that_change_alike_together():
    will = table(FLOW.replace("on_timeout: slow, on_failed: broken", "on_timeout: sales, on_failed: sales"))
    found = {each.words() for change in make_plan(ROUTING, will, T0, 7).changes for each in change.differences}
    assert {each.partition("callers who ")[2] for each in found} == {
        "get no answer from webhook crm: was hang-up (busy), will be Ana",
        "get a failure from webhook crm: was hang-up (congestion), will be Ana",
    }


def test_a_branch_that_is_new_was_a_failure_before():
    will = table(FLOW.replace("support: help", "support: help, gold: help"))
    (change,) = make_plan(ROUTING, will, T0, 7).changes
    (difference,) = change.differences
    assert difference.words().endswith("get gold from webhook crm: was hang-up (congestion), will be Ben")


def test_a_plan_tells_another_service_and_none_at_all():
    other = table(FLOW.replace("crm.example.com", "new.example.com"))
    (change,) = make_plan(ROUTING, other, T0, 7).changes
    (difference,) = change.differences
    assert "webhook crm (https://crm.example.com/callrouter)" in difference.was
    assert "webhook crm (https://new.example.com/callrouter)" in difference.will
    direct = make_plan(ROUTING, table(FLOW.replace("start: crm", "start: sales")), T0, 7)
    assert {each.words().partition("callers who ")[2] for each in direct.changes[0].differences} == {
        "get support from webhook crm: was Ben, will be Ana",
        "get no branch from webhook crm: was hang-up, will be Ana",
        "get no answer from webhook crm: was hang-up (busy), will be Ana",
        "get a failure from webhook crm: was hang-up (congestion), will be Ana",
    }
    nobody = make_plan(ROUTING, table(flow("down", "down: {type: hangup, cause: rejected}")), T0, 7)
    (difference,) = nobody.changes[0].differences
    assert difference.was.startswith("webhook crm (vip: Ana; support: Ben; no branch: hang-up")
    useless = flow("crm", f"crm: {{type: webhook, url: '{URL}', next: sales, on_failed: sales}}", *ENDS)
    assert make_plan(table(flow("sales", *ENDS)), table(useless), T0, 7).elsewhere is False


PLACES = ["ana", "ben", "bye", "second"]
WORDS = {"vip": "vip", "gold": "gold", "next": NO_BRANCH, "timeout": NO_ANSWER, "failed": FAILURE}


@st.composite
def asking_twice(draw: st.DrawFn) -> str:
    """A flow that asks a service, and after some of its answers another one."""

    def node(name: str, places: list[str]) -> str:
        to = [draw(st.sampled_from(places)) for _ in range(5)]
        gold = f", gold: {to[1]}" if draw(st.booleans()) else ""
        return (
            f"{name}: {{type: webhook, url: 'https://{name}.example/', branches: {{vip: {to[0]}{gold}}}, "
            f"next: {to[2]}, on_timeout: {to[3]}, on_failed: {to[4]}}}"
        )

    exits = "on_busy: bye, on_no_answer: bye, on_failed: bye"
    rings = (f"{one}: {{type: dial, target: {one}, {exits}}}" for one in PLACES[:2])
    return flow("first", node("first", PLACES), node("second", PLACES[:3]), *rings)


@settings(max_examples=25, deadline=None)
@given(asking_twice(), asking_twice())
def test_a_plan_tells_exactly_the_answers_by_which_calls_go_elsewhere(was: str, will: str) -> None:
    before, after = table(was), table(will)
    found = [each for change in make_plan(before, after, T0, 2).changes for each in change.differences]
    for first, second in itertools.product(WORDS, WORDS):
        said = {"first": first, "second": second}
        rung = []
        for routing in (before, after):
            replies = tuple((node, (Reply(*_replied(word)),)) for node, word in said.items())
            rung.append(simulate(routing, DID, CALLER, T0, Inputs(webhooks=replies)).rung)
        fits = [each for each in found if all(_fits(choice, said) for choice in each.choices)]
        assert bool(fits) is (rung[0] != rung[1]), (said, rung, [each.words() for each in found])


def _fits(choice: Choice, said: dict[str, str]) -> bool:
    """Whether an answer is among a choice's; a branch that no node knows is a failure."""
    answer = WORDS[said[choice.webhook]]
    return answer in choice.alike or (answer not in choice.known and FAILURE in choice.alike)


def _replied(word: str) -> tuple[WebhookResult, str, str | None]:
    match word:
        case "next":
            return OK, "", None
        case "timeout" | "failed":
            return WebhookResult(word), "", None
    return OK, "", word


def test_a_menu_behind_an_answer_is_told_with_it():
    text = flow("crm", NODE.replace("vip: sales", "vip: menu"), *ENDS,
                "menu: {type: menu, prompt: P, options: {1: sales, 2: help}, on_exhausted: bye}")  # fmt: skip
    will = table(text.replace("2: help", "2: sales"))
    (change,) = make_plan(table(text), will, T0, 7).changes
    (difference,) = change.differences
    assert difference.words().endswith("get vip from webhook crm, then press 2: was Ben, will be Ana")


def test_a_record_is_folded_from_a_log_that_stops_anywhere():
    log = stored(VIP)
    for count in range(1, len(log)):
        assert fold(log[:count]) is not None
