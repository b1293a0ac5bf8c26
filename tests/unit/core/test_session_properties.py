"""Random flows met by random events: what must hold for every call, whatever happens to it."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callrouter.core import actions as a
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.cdr import fold
from callrouter.core.flow import nodes as n
from callrouter.core.flow.check import Finding, check_flow
from callrouter.core.flow.link import link, together
from callrouter.core.flow.nodes import Gather
from callrouter.core.flow.parse import parse_flow
from callrouter.core.keys import masked
from callrouter.core.session import step
from callrouter.core.state import Asking, Calling, Choosing, Leaving, Over, Saying, Session, Step, Taking
from callrouter.core.walk import MAX_VISITS, node_of
from tests.builders import CALL, DID, T0, Run, arrived, number, run, table
from tests.random_flows import (
    CAUSES,
    ENDINGS,
    HAPPENINGS,
    PASTS,
    REPLIES,
    STATUSES,
    TARGETS,
    check_record,
    flow_texts,
    moves,
    other_flows,
    tables,
)

pytestmark = pytest.mark.timeout(600)
"""Many examples: a slow machine takes longer than other tests may."""


def ends_of(taken: list[e.Event]) -> set[str]:
    """Ids whose end was reported."""
    found: set[str] = set()
    for event in taken:
        match event:
            case e.PlaybackEnded(playback_id=ref) | e.TimerFired(timer_id=ref) | e.RecordingEnded(recording_id=ref):
                found.add(ref)
            case e.WebhookAnswered(ref=ref):
                found.add(ref)
            case e.ActionFailed(ref=str(ref)):
                found.add(ref)
    return found


def check_actions(actions: list[a.Action], taken: list[e.Event], session: Session) -> None:
    """Everything started was stopped, has ended, or is the one thing waited for; no id was used twice."""
    started: list[str] = []
    stopped: set[str] = set()
    for action in actions:
        match action:
            case a.Play(playback_id=ref) | a.StartTimer(timer_id=ref) | a.Record(recording_id=ref) | a.Dial(leg_id=ref):
                started.append(ref)
            case a.AskWebhook(ref=ref):
                started.append(ref)
            case a.StopWebhook(ref=ref):
                assert ref in started
                stopped.add(ref)
            case a.StopPlayback(playback_id=ref) | a.CancelTimer(timer_id=ref) | a.StopRecording(recording_id=ref):
                assert ref in started
                stopped.add(ref)
    # A dial that a killed controller had decided and not begun is begun under the leg that was planned.
    again = f"{CALL}-l" if any(isinstance(event, e.Resumed) and event.inside for event in taken) else None
    assert [ref for ref, n in Counter(started).items() if n > 1 and not (again and ref.startswith(again))] == []
    waited = {getattr(session.wait, name, "") for name in ("playback_id", "timer_id", "leg_id", "recording_id", "ref")}
    running = {ref for ref in started if ref.partition("-")[2][0] in "ptmw"} - stopped - ends_of(taken) - waited
    if session.over:
        running = {
            ref for ref in running if ref.startswith((f"{CALL}-t", f"{CALL}-w"))
        }  # what was on the channel went with it
    assert running == set()
    for last, action in enumerate(actions, 1):
        if isinstance(action, a.Hangup | a.LeaveToFailsafe):
            assert last == len(actions), "nothing is asked for after the caller was let go"


@settings(max_examples=200, deadline=None)
@given(
    tables(),
    st.lists(st.tuples(moves(HAPPENINGS), st.integers(0, 40)), max_size=25),
    moves(ENDINGS),
    st.lists(moves(HAPPENINGS + ENDINGS), max_size=4),
    st.booleans(),
    st.sampled_from(PASTS),
)
def test_whatever_happens_a_call_ends_once_and_leaves_nothing_running(
    routing, happenings, ending, late, headless, past
):
    result = Run(Session(CALL))
    taken: list[e.Event] = []
    at = T0

    def take(event: e.Event) -> Step:
        again = step(result.session, event, routing)
        logged = masked(result.session, event)
        # What is not to be known changes nothing: a call rebuilt from its log is the call that was.
        assert step(result.session, logged, routing) == again
        node = node_of(result.session)
        if isinstance(logged, e.Digit) and isinstance(node, Gather) and node.sensitive:
            assert not logged.digit.isdecimal()
        made = result.take(event, routing)
        assert again == made
        taken.append(event)
        check_actions(result.actions, taken, result.session)
        return made

    if happenings and not (headless and happenings[0][1] == 0):
        take(arrived(history=past))
    for move, repeat in happenings:
        at += move.after
        take(move.event(result.session, at))
        if repeat < len(taken):
            take(taken[repeat])
    assert result.notes_of(note.Concluded) == []
    take(ending.event(result.session, at))
    assert isinstance(result.session.wait, Over)
    for move in late:
        over = result.session
        assert take(move.event(over, at)) == Step(over)
    assert len(result.notes_of(note.Concluded)) == 1

    rebuilt = run(routing, taken)
    assert (rebuilt.session, rebuilt.actions, rebuilt.notes) == (result.session, result.actions, result.notes)
    if isinstance(taken[0], e.CallArrived):
        check_record(result)
        assert fold([result.log[0], result.log[0], *result.log[1:]]) == result.record


@settings(max_examples=100, deadline=None)
@given(flow_texts(), other_flows(), st.data())
def test_flows_without_errors_end_or_wait_for_a_key(text, others, data):
    """Everything is answered sensibly and no key is pressed: the call must come to its end by itself."""
    flows = {name: parse_flow(each, name) for name, each in {"desk": text, **others}.items()}
    if any(errors(flow, flows) for flow in flows.values()):
        return
    routing = table(text, others=others)
    result = run(routing, [arrived(history=data.draw(st.sampled_from(PASTS)))])
    at = T0
    for _ in range(MAX_VISITS * 8):
        wait = result.session.wait
        at += 1
        match wait:
            case Saying():
                result.take(e.PlaybackEnded(at, wait.playback_id, data.draw(st.booleans())), routing)
            case Asking():
                reply = data.draw(st.sampled_from(REPLIES))
                result.take(e.WebhookAnswered(at, wait.ref, result.session.node, wait.url, reply), routing)
            case Choosing():
                result.take(e.TimerFired(at, wait.timer_id), routing)
            case Calling():
                status = data.draw(st.sampled_from(STATUSES))
                result.take(e.DialReturned(at, wait.leg_id, status, data.draw(st.sampled_from(CAUSES))), routing)
            case Taking():
                result.take(e.RecordingEnded(at, wait.recording_id, data.draw(st.sampled_from([0.0, 9.0]))), routing)
            case _:
                break
    assert isinstance(result.session.wait, Leaving)
    assert "(backup)" not in result.path
    assert result.session.visits <= len(routing.entries[DID].flow.nodes)


def errors(flow: n.Flow, flows: dict[str, n.Flow]) -> list[Finding]:
    return [
        each for each in check_flow(flow, TARGETS, ["x"], others=together(flows.values())) if each.severity == "error"
    ]


SHORT = ["a", "b", "c"]


@st.composite
def jumping_flows(draw: st.DrawFn) -> dict[str, str]:
    """Three flows of three nodes that do little else than go on in each other; all names are there."""
    names = ["desk", "night", "support"]

    def node() -> str:
        to = draw(st.sampled_from(SHORT))
        into = f"type: goto_flow, flow: {draw(st.sampled_from(names))}"
        menu = f"{{type: menu, prompt: P, options: {{1: {to}}}, on_exhausted: {draw(st.sampled_from(SHORT))}}}"
        kinds = [
            "{type: hangup}",
            f"{{{into}}}",
            f"{{{into}, node: {to}}}",
            f"{{type: tag, tags: x, next: {to}}}",
            menu,
        ]
        return draw(st.sampled_from(kinds))

    def flow() -> str:
        return "\n".join([f"start: {draw(st.sampled_from(SHORT))}", "nodes:", *(f"  {one}: {node()}" for one in SHORT)])

    return {name: flow() for name in names}


@settings(max_examples=300, deadline=None)
@given(jumping_flows())
def test_flows_that_are_refused_strand_a_caller_and_others_none(texts):
    flows = {name: parse_flow(text, name) for name, text in texts.items()}
    found = {name: errors(flow, flows) for name, flow in flows.items()}
    for name, each in found.items():
        linked = link(flows[name], flows)
        for finding in each:
            path = finding.message.removeprefix("the path ").partition(" goes round")[0].split(" → ")
            assert finding.node == path[0] == path[-1]
            for one, following in itertools.pairwise(path):
                ways = [to for outcome, to in n.exits(linked.nodes[one]) if not n.needs_key(outcome)]
                assert following in ways, "the path that an error names is one that a caller can go"
    numbers = list(texts)
    if any(found.values()):
        # A caller who comes to the circle, wherever that begins, is in it until the call's nodes are used up.
        begin, finding = next((name, each[0]) for name, each in found.items() if each)
        texts[begin] = texts[begin].replace(f"start: {flows[begin].start}", f"start: {finding.node}", 1)
        assert finding.node == parse_flow(texts[begin], begin).start
        numbers = [begin]
    for name in numbers:
        rest = {each: text for each, text in texts.items() if each != "desk"}
        routing = table(texts["desk"], others=rest, numbers=[number(flow=name)])
        result = run(routing, [arrived()])
        for at in range(1, MAX_VISITS * 8):
            match result.session.wait:
                case Saying(playback_id=ref):
                    result.take(e.PlaybackEnded(T0 + at, ref), routing)
                case Choosing(timer_id=ref):
                    result.take(e.TimerFired(T0 + at, ref), routing)
        assert ("(backup)" in result.path) == any(found.values())
