"""The simulator is the interpreter of real calls: the same events give the same, and every simulated call ends."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callrouter.core import actions as a
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.simulate import ANY, CALL_ID, MAX_EVENTS, Answer, Inputs, Simulation, simulate
from callrouter.core.simulated_lines import Kind
from callrouter.core.state import Session
from callrouter.runtime.recovery import rebuild
from tests.builders import CALL, CALLER, DID, T0, Run, arrived, number, run, table, target, trunk
from tests.call_scripts import (
    DIAL,
    GATHER,
    GATHER_SECRET,
    MENU,
    PLAY,
    TAGS,
    VOICEMAIL,
    back,
    fired,
    flow,
    gone,
    key,
    keys,
    message,
    ringing,
    said,
    started,
    up,
)
from tests.random_flows import tables

HOURS = flow("h", "h: {type: hours, open: 'Mo-Fr 08:00-18:00', on_open: bye, on_closed: vm}",
             "vm: {type: voicemail, greeting: Closed, on_failed: bye}")  # fmt: skip


def called(text: str | None, *digits: str, at: float = T0, **given: object) -> Simulation:
    answers = given.pop("answers", {})
    assert isinstance(answers, dict)
    named = tuple((name, tuple(what) if isinstance(what, list) else (what,)) for name, what in answers.items())
    return simulate(table(text), DID, CALLER, at, Inputs(digits=digits, answers=named, **given))  # type: ignore[arg-type]


def decisions(log: Sequence[object]) -> list[tuple[str, ...]]:
    """What a log says was decided, without times and ids."""
    found: list[tuple[str, ...]] = []
    for item in log:
        match item:
            case note.Routed(why=why):
                found.append(("routed", why))
            case note.Visited(path=path, node=node, why=why):
                found.append((path, node, why))
            case note.Decided(path=path, what=what, why=why):
                found.append((path, what, why))
            case note.LegPlanned(path=path, target=name, why=why):
                found.append((path, name, why))
            case note.Tagged(path=path, tags=tags):
                found.append((path, *tags))
            case note.Concluded(disposition=disposition, reason=reason):
                found.append((disposition, reason))
    return found


SCRIPTED = [
    pytest.param(
        MENU,
        [said("p1"), fired("t2"), said("p3"), key("1"), started("l5"), ringing("l5"), up("l5"),
         back("l5", "ANSWER", 16), gone()],
        Inputs(digits=("", "1")),
        id="menu, the second time",
    ),
    pytest.param(
        DIAL,
        [started("l1"), ringing("l1"), back("l1", "NOANSWER", 19), started("l2"), ringing("l2"),
         back("l2", "NOANSWER", 19), message("m3", 12), gone()],
        Inputs(answers=((ANY, (Answer.NO_ANSWER,)),)),
        id="nobody, a message",
    ),
    pytest.param(
        DIAL,
        [started("l1"), back("l1", "BUSY", 17), said("p2"), gone()],
        Inputs(answers=(("ana", (Answer.BUSY,)),)),
        id="busy",
    ),
    pytest.param(
        DIAL,
        [started("l1"), ringing("l1"), gone()],
        Inputs(answers=(("ana", (Answer.CALLER_GIVES_UP,)),)),
        id="the caller gives up",
    ),
    pytest.param(VOICEMAIL, [said("p1"), message("m2", 0), gone(cause=19)], Inputs(message_seconds=0), id="no message"),
    pytest.param(PLAY, [said("p1"), gone()], Inputs(), id="play"),
    pytest.param(GATHER, [said("p1"), *keys("60"), fired("t4", 8), said("p5", 9), *keys("606#", 11), said("p10", 14),
                          gone()],
                 Inputs(digits=("60", "606#")), id="gather, the second time"),
    pytest.param(TAGS, [gone()], Inputs(), id="tags"),
]  # fmt: skip


@pytest.mark.parametrize("text, events, inputs", SCRIPTED)
def test_a_simulated_call_is_decided_as_a_call(text: str, events: list[e.Event], inputs: Inputs) -> None:
    """The events that Asterisk would send, written down by hand, lead to the very same decisions and actions."""
    routing = table(text)
    live = run(routing, [arrived(), *events])
    simulated = simulate(routing, DID, CALLER, T0, inputs)
    assert decisions(simulated.log) == decisions(live.log)
    assert [type(action).__name__ for _, action in simulated.asked] == live.kinds
    assert simulated.record.disposition is live.record.disposition
    assert [type(event) for event in simulated.events] == [type(event) for event in (arrived(), *events)]


answers = st.lists(st.sampled_from(list(Answer)), min_size=1, max_size=3).map(tuple)
inputs = st.builds(
    Inputs,
    digits=st.lists(st.sampled_from(["", "1", "2", "#", "9", "12", "606#"]), max_size=6).map(tuple),
    answers=st.lists(st.tuples(st.sampled_from(["ana", "ben", "*"]), answers), max_size=3).map(tuple),
    message_seconds=st.sampled_from([0.0, 0.5, 12.0, 9999.0]),
    store_problem=st.sampled_from([None, "disk full"]),
)


@settings(max_examples=40, deadline=None)
@given(tables(), inputs)
def test_every_simulated_call_ends_and_its_log_is_that_of_a_call(routing, given_inputs):
    made = simulate(routing, DID, CALLER, T0, given_inputs)
    assert made.complete
    times = [event.at for event in made.events]
    assert times == sorted(set(times)), "events never share a moment"
    # Folded again, as a restarted server folds a journal: the same notes, the same actions, the same end.
    again = Run(Session(CALL_ID))
    for event in made.events:
        again.take(event, routing)
    assert tuple(again.log) == made.log
    assert again.actions == [action for _, action in made.asked]
    assert made.record == again.record
    assert made.record.disposition is not None
    session, _ = rebuild(CALL_ID, made.log, routing)
    assert session == again.session
    assert session.over


def test_what_is_told():
    made = called(MENU, "9", "1", answers={"ana": Answer.BUSY})
    assert made.rung == ("ana",)
    assert made.heard == ("Press 1", "Press 1")
    told = [(line.kind, line.what) for line in made.lines()]
    assert told.index((Kind.DOES, "the caller presses 9")) < told.index((Kind.DECISION, "invalid"))
    assert (Kind.RINGS, "dial ana") in told
    assert told[-1] == (Kind.DECISION, "busy")
    assert made.cause == 16
    seconds = [line.seconds for line in made.lines()]
    assert seconds == sorted(seconds)
    assert seconds[0] == 0


@pytest.mark.parametrize(
    "given_answers, rung, ends",
    [
        ({}, ("ana",), "answered"),
        ({"ana": Answer.CALLER_LEAVES}, ("ana",), "answered"),
        ({"ana": Answer.BUSY}, ("ana",), "busy"),
        ({"ana": Answer.DECLINED}, ("ana",), "busy"),
        ({"ana": Answer.FAILED}, ("ana",), "failed"),
        ({"ana": Answer.NO_ANSWER, "*": Answer.NO_ANSWER}, ("ana", "ben"), "voicemail"),
        ({"ana": Answer.NO_ANSWER}, ("ana", "ben"), "answered"),
        ({"*": Answer.CALLER_GIVES_UP}, ("ana",), "abandoned"),
    ],
)
def test_what_destinations_do(given_answers, rung, ends):
    made = called(DIAL, answers=given_answers)
    assert made.rung == rung
    assert made.record.disposition == ends


def test_a_sensitive_entry_is_not_told():
    made = called(GATHER_SECRET, "8273", "1")
    assert made.record.path == ("pin", "menu", "bye")
    assert [line.what[-1] for line in made.lines() if line.kind is Kind.DOES][:5] == [*"••••", "1"]
    assert "8273" not in repr(made.log)


def test_the_hour_counts():
    assert called(HOURS, at=T0 + 6 * 3600).record.path == ("h", "bye")
    closed = called(HOURS, at=T0 - 3600)
    assert closed.record.path == ("h", "vm")
    assert closed.heard == ("Closed",)


def test_a_trunk_that_fails_is_followed_by_the_next():
    routing = table(
        trunks=[trunk("first", next_trunk="second"), trunk("second")],
        targets=[target("ana", sip_uri=None, number="+12025550188", trunk="first")],
    )
    for answer in (Answer.TRUNK_FAILED, Answer.TRUNK_SILENT):
        made = simulate(routing, DID, CALLER, T0, Inputs(answers=(("ana", (answer, Answer.ANSWERED)),)))
        assert [leg.trunk for leg in made.record.legs] == ["first", "second"]
        assert made.record.disposition == "answered"
    made = simulate(routing, DID, CALLER, T0, Inputs(trunks_down=(("first", "no answer"),)))
    assert [leg.trunk for leg in made.record.legs] == ["second"]


def test_a_flow_that_goes_round_ends_at_the_backup_destination():
    circle = flow("a", "a: {type: tag, tags: x, next: b}", "b: {type: tag, tags: y, next: a}")
    made = simulate(table(circle, backup="ben"), DID, CALLER, T0)
    assert made.complete
    assert made.rung == ("ben",)
    assert made.record.disposition == "answered"
    dials = circle + "  d: {type: dial, target: ana, on_busy: a, on_no_answer: a, on_failed: a}\n"
    dials = dials.replace("next: b", "next: d")
    twice = simulate(table(dials, backup="ben"), DID, CALLER, T0, Inputs(answers=(("*", (Answer.BUSY,)),)))
    assert twice.rung[-2:] == ("ben", "ana"), "every backup destination, in order"
    assert twice.record.disposition == "busy"
    busy = simulate(table(circle, backup="ben"), DID, CALLER, T0, Inputs(answers=((ANY, (Answer.BUSY,)),)))
    assert busy.record.disposition == "busy"


def test_numbers_that_are_not_ours_and_switched_off_are_refused():
    assert simulate(table(), "+12025550111", CALLER, T0).record.disposition == "rejected"
    off = simulate(table(numbers=[number(target="ana", active=False)]), DID, CALLER, T0)
    assert off.record.disposition == "rejected"
    assert off.cause == 1
    assert "switched off" in off.record.reason


def test_the_longest_flow_stays_within_the_bound():
    """Twenty rounds in each of two hundred menus, an unanswered prompt before every one."""
    text = flow(
        "m",
        "m: {type: menu, prompt: P, invalid_prompt: No, options: {1: bye}, max_tries: 20, on_exhausted: n}",
        "n: {type: menu, prompt: P, invalid_prompt: No, options: {1: bye}, max_tries: 20, on_exhausted: m}",
    )
    made = simulate(table(text), DID, CALLER, T0, Inputs(digits=("9",) * MAX_EVENTS))
    assert made.complete
    assert len(made.events) < MAX_EVENTS
    assert any(isinstance(action, a.LeaveToFailsafe) for _, action in made.asked)


def test_nothing_can_be_recorded():
    made = called(VOICEMAIL, store_problem="disk full")
    assert made.record.path == ("vm", "none")
    assert made.record.recording_problem == "disk full"
    assert CALL != CALL_ID
