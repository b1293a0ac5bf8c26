"""Asking about recording: what each answer comes to, that a refusal holds, and that it outlives the controller."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callrouter.core import actions as a
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.cdr import fold
from callrouter.core.consent import script_of
from callrouter.core.failsafe_plan import at_moment
from callrouter.core.flow import nodes as n
from callrouter.core.flow.check import check_flow
from callrouter.core.flow.draw import as_mermaid, summary
from callrouter.core.flow.expect import parse_cases, run_cases
from callrouter.core.flow.parse import parse_flow
from callrouter.core.flow.svg import as_svg
from callrouter.core.keys import masked
from callrouter.core.records import ConsentResponse
from callrouter.core.routing import build_table
from callrouter.core.routing_code.check import check_routing
from callrouter.core.routing_code.read import read_routing
from callrouter.core.simulate import Inputs, simulate
from callrouter.core.state import Session
from callrouter.errors import FlowError
from callrouter.runtime.recovery import rebuild
from callrouter.store.codec import decode_line, encode_line
from tests.builders import CALL, DID, T0, Run, arrived, company, run, snapshot, table
from tests.call_scripts import back, failed, fired, gone, key, resumed, said, shown, up


def flow(mode: str, more: str = "") -> str:
    out = "" if mode == "announce" else ", on_refused: other"
    return f"""
start: ask
nodes:
  ask: {{type: consent, mode: {mode}, prompt: "Calls to {{company}} are recorded", on_agreed: desk{out}{more}}}
  desk: {{type: dial, target: ana, on_busy: again, on_no_answer: again, on_failed: again}}
  other: {{type: dial, target: ben, on_busy: again, on_no_answer: again, on_failed: again}}
  again: {{type: consent, mode: opt_in, prompt: Again, on_agreed: desk, on_refused: bye}}
  bye: {{type: hangup}}
"""


PLAYED = "play p1 Calls to Acme Plumbing are recorded"
CASES = [
    pytest.param("announce", [said("p1")], ["consent given", "dial l2 ana 25"], "announced", id="told"),
    pytest.param("announce", [key("1"), key("9"), said("p1")], ["consent given", "dial l2 ana 25"], "announced",
                 id="keys say nothing where none is asked for"),
    pytest.param("announce", [said("p1", ok=False)], ["consent refused", "dial l2 ana 25"], "not-asked",
                 id="not told, so not recorded"),
    pytest.param("announce", [failed("Play", "p1")], ["consent refused", "dial l2 ana 25"], "not-asked",
                 id="a prompt that Asterisk refused"),
    pytest.param("opt_in", [said("p1"), key("1")], ["timer t2 5", "cancel t2", "consent given", "dial l3 ana 25"],
                 "agreed", id="agreed"),
    pytest.param("opt_in", [key("1")], ["stop p1", "consent given", "dial l2 ana 25"], "agreed",
                 id="agreed before the prompt was over"),
    pytest.param("opt_in", [said("p1"), key("2"), fired("t2")], ["timer t2 5", "consent refused", "dial l3 ben 25"],
                 "no-answer", id="another key is no answer"),
    pytest.param("opt_in", [said("p1", ok=False)], ["consent refused", "dial l2 ben 25"], "not-asked",
                 id="not asked, so not agreed"),
    pytest.param("opt_out", [said("p1"), key("9")], ["timer t2 5", "cancel t2", "consent refused", "dial l3 ben 25"],
                 "refused", id="refused"),
    pytest.param("opt_out", [key("9")], ["stop p1", "consent refused", "dial l2 ben 25"], "refused",
                 id="refused before the prompt was over"),
    pytest.param("opt_out", [said("p1"), key("1"), fired("t2")], ["timer t2 5", "consent given", "dial l3 ana 25"],
                 "not-refused", id="not refused"),
]  # fmt: skip


@pytest.mark.parametrize("mode,events,does,response", CASES)
def test_what_a_caller_says_decides(mode: str, events: Sequence[e.Event], does: list[str], response: str) -> None:
    result = run(table(flow(mode)), [arrived(), *events])
    assert shown(result) == ["answer", PLAYED, *does]
    (told,) = result.notes_of(note.Consented)
    assert (told.response, told.mode, told.path) == (response, mode, "desk@3/ask")
    (dial,) = result.actions_of(a.Dial)
    assert dial.record is (does[-2] == "consent given")
    record = result.record
    assert record.consent is not None
    assert (record.consent.response, record.consent.given) == (response, dial.record)
    assert any(one.what == f"consent: {response}" for one in record.trace)


def test_the_other_exit_is_taken_when_nobody_could_be_asked() -> None:
    result = run(table(flow("opt_in", ", on_failed: bye")), [arrived(), said("p1", ok=False)])
    assert shown(result)[-1] == "hangup 16"


REFUSED: list[e.Event] = [arrived(), said("p1"), key("9")]


def test_a_refusal_holds_and_is_not_asked_about_again() -> None:
    result = run(table(flow("opt_out")), [*REFUSED, back("l3", "BUSY", 17)])
    assert result.path == ["ask", "other", "again", "bye"]
    assert len(result.actions_of(a.Play)) == 1


def test_who_did_not_answer_may_be_asked_again() -> None:
    result = run(
        table(flow("opt_in")),
        [arrived(), said("p1"), fired("t2"), back("l3", "BUSY", 17), said("p4"), key("1", 40)],
    )
    assert [dial.record for dial in result.actions_of(a.Dial)] == [False, True]
    assert result.record.consent is not None
    assert result.record.consent.response is ConsentResponse.AGREED


def test_a_message_is_taken_from_who_refused() -> None:
    text = flow("opt_out").replace("other: {type: dial, target: ben, on_busy: again, on_no_answer: again,",
                                   "other: {type: voicemail,")  # fmt: skip
    assert run(table(text), REFUSED).kinds[-2:] == ["Record", "StartTimer"]


@given(st.lists(st.sampled_from([key("1"), key("9"), said("p1"), fired("t2"), back("l3", "BUSY", 17), up("l3"),
                                 resumed(), said("p4"), said("p1004"), fired("t5")]), max_size=12))  # fmt: skip
def test_after_a_refusal_nothing_is_recorded_whatever_comes(events: list[e.Event]) -> None:
    result = run(table(flow("opt_out")), [*REFUSED, *events])
    assert not any(dial.record for dial in result.actions_of(a.Dial))
    assert not result.notes_of(note.RecordingPlanned)


@pytest.mark.parametrize("upto", range(1, 5))
def test_a_restarted_controller_tells_the_dialplan_again(upto: int) -> None:
    """Killed at any moment: what was answered stands in the log, whether Asterisk was told of it or not."""
    result = run(table(flow("opt_out")), [*REFUSED, up("l3")][:upto])
    session, _ = rebuild(CALL, result.log, table(flow("opt_out")))
    assert session == result.session
    again = Run(session)
    again.take(resumed(inside=False), table(flow("opt_out")))
    assert ("SetConsent" in again.kinds) is (upto >= 3)


def test_the_failsafe_records_as_the_caller_said() -> None:
    first: e.Event
    for first, recorded in ((key("9"), False), (fired("t2"), True)):
        events: list[e.Event] = [arrived(), said("p1"), first, failed("Dial", "l3", 9),
                  e.LegStarted(T0 + 12, "fs-1", ""), e.LegAnswered(T0 + 15, "fs-1"), gone()]  # fmt: skip
        result = run(table(flow("opt_out")), events)
        assert bool(result.notes_of(note.RecordingPlanned)) is recorded


def test_a_caller_whom_nobody_asked_is_not_recorded_by_the_failsafe() -> None:
    events: list[e.Event] = [
        arrived(),
        failed("Answer"),
        e.LegStarted(T0 + 12, "fs-1", ""),
        e.LegAnswered(T0 + 15, "fs-1"),
        gone(),
    ]
    assert not run(table(flow("opt_out")), events).notes_of(note.RecordingPlanned)


def test_the_log_says_what_was_said() -> None:
    result = run(table(flow("opt_in")), [arrived(), said("p1"), key("1"), gone()])
    lines = [decode_line(encode_line(CALL, seq, item)) for seq, item in enumerate(result.log, 1)]
    assert [line.value for line in lines if line is not None] == result.log
    folded = fold(result.log)
    assert folded is not None
    assert folded.consent == result.record.consent


def test_only_the_key_that_is_asked_for_is_written_down() -> None:
    session = run(table(flow("opt_in")), [arrived(), said("p1")]).session
    seen = [masked(session, key(digit)) for digit in "19*"]
    assert [each.digit for each in seen if isinstance(each, e.Digit)] == ["1", e.HIDDEN, e.HIDDEN]
    assert masked(Session(CALL), key("1")) != key("1")


# -- the version of what is said -------------------------------------------------------------------------------------


REQUIRED = """
format: 1
companies:
  acme:
    timezone: UTC
    consent_required: true
    targets:
      ana: {sip_uri: "sip:ana@192.0.2.7"}
      ben: {sip_uri: "sip:ben@192.0.2.7", record: never}
    flows:
      desk:
        start: which
        nodes:
          which: {type: menu, prompt: P, options: {1: ask, 2: quick, 3: quiet}, on_exhausted: ask}
          ask: {type: consent, mode: announce, prompt: P, on_agreed: asked}
          asked: {type: dial, target: ana, on_busy: bye, on_no_answer: bye, on_failed: quick}
          quick: {type: dial, target: ana, on_busy: bye, on_no_answer: bye, on_failed: bye}
          quiet: {type: dial, target: ben, on_busy: bye, on_no_answer: bye, on_failed: bye}
          bye: {type: hangup}
    numbers:
      "+12025550100": {name: one, flow: desk}
      "+12025550101": {name: two, target: ana}
"""


@pytest.mark.parametrize(
    "written,warned",
    [
        (REQUIRED, {("flow acme/desk", "quick"), ("number acme/+12025550101", None)}),
        (REQUIRED.replace("consent_required: true", "record: inherit, # true").replace("inherit,", "inherit"), set()),
        (REQUIRED.replace("2: quick, ", ""), {("number acme/+12025550101", None)}),
    ],
)
def test_the_check_names_what_is_not_recorded_for_lack_of_consent(written: str, warned: set[object]) -> None:
    found = check_routing(read_routing(written).routing, {}, T0)
    assert {(str(each.key), each.node) for each in found if "consent" in each.message} == warned
    assert not any(each.severity == "error" for each in found)


def of_script(text: str, **uploaded: str) -> str:
    made = snapshot(text)
    prompts = tuple(("company-1", name, sha256) for name, sha256 in uploaded.items())
    entry = build_table(type(made)(**{**{f: getattr(made, f) for f in made.__slots__}, "prompts": prompts})).entries[
        DID
    ]
    node = entry.flow.nodes["ask"]
    assert isinstance(node, n.Consent)
    return script_of(node, entry)


def test_a_script_is_known_by_what_is_heard() -> None:
    text = flow("announce")
    assert len(of_script(text)) == 64
    assert of_script(text) == of_script(text.replace("desk:", "desk: ").replace("announce", "opt_in, on_refused: bye"))
    assert of_script(text) != of_script(text.replace("recorded", "noted"))
    by_file = text.replace('"Calls to {company} are recorded"', "{file: told}")
    assert of_script(by_file, told="aa") != of_script(by_file, told="bb"), "another recording under the same name"
    assert of_script(by_file, told="aa") != of_script(text)


# -- flows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "node,means",
    [
        ("mode: announce, prompt: P, on_agreed: bye",
         n.Consent((n.Prompt("P"),), n.ConsentMode.ANNOUNCE, "bye", "bye", "bye")),
        ("mode: opt_in, prompt: P, on_agreed: bye, on_refused: a",
         n.Consent((n.Prompt("P"),), n.ConsentMode.OPT_IN, "bye", "a", "a", "1")),
        ("mode: opt_out, prompt: P, on_agreed: bye, on_refused: a, on_failed: bye, digit: '#', timeout: 2",
         n.Consent((n.Prompt("P"),), n.ConsentMode.OPT_OUT, "bye", "a", "bye", "#", 2.0)),
    ],
)  # fmt: skip
def test_a_node_is_read(node: str, means: n.Consent) -> None:
    text = f"start: a\nnodes:\n  a: {{type: consent, {node}}}\n  bye: {{type: hangup}}\n"
    assert parse_flow(text, "desk").nodes["a"] == means


@pytest.mark.parametrize(
    "node,says",
    [
        ("prompt: P, on_agreed: bye", "needs 'mode'"),
        ("mode: ask, prompt: P, on_agreed: bye", "mode cannot be 'ask'"),
        ("mode: opt_in, prompt: P, on_agreed: bye", "needs 'on_refused'"),
        ("mode: announce, prompt: P, on_agreed: bye, digit: 1", "no field 'digit'"),
        ("mode: opt_in, prompt: P, on_agreed: bye, on_refused: bye, digit: 12", "digit cannot be '12'"),
        ("mode: announce, on_agreed: bye", "needs 'prompt'"),
    ],
)
def test_a_node_that_says_too_little_is_refused(node: str, says: str) -> None:
    with pytest.raises(FlowError, match=says):
        parse_flow(f"start: a\nnodes:\n  a: {{type: consent, {node}}}\n  bye: {{type: hangup}}\n", "desk")


def test_it_is_drawn_and_checked() -> None:
    parsed = parse_flow(flow("opt_out").replace("{company}", "{nobody}"), "desk")
    assert summary(parsed.nodes["again"]) == "consent by opt-in “Again”, key 1"
    assert "refused" in as_mermaid(parsed)
    assert "opt-in" in as_svg(parsed)
    found = [each.message for each in check_flow(parsed, ["ana", "ben"], [])]
    assert any("nobody" in message for message in found)


@pytest.mark.parametrize("digits,who", [(("9",), "ben"), (("",), "ana"), ((), "ana")])
def test_it_is_simulated_by_the_same_steps(digits: tuple[str, ...], who: str) -> None:
    made = simulate(table(flow("opt_out")), DID, None, T0, Inputs(digits=digits))
    assert made.record.answered_by == who
    assert made.record.consent is not None
    assert made.record.consent.given is (who == "ana")


CASES_OF_AN_ADMIN = f"""
tests:
  - {{number: "{DID}", digits: "9", expect: {{consent: refused, recorded: no, answered_by: ben}}}}
  - {{number: "{DID}", expect: {{consent: not-refused, recorded: yes, answered_by: ana}}}}
  - {{number: "{DID}", expect: {{consent: none}}}}
"""


def test_flow_tests_may_expect_it() -> None:
    found = run_cases(parse_cases(CASES_OF_AN_ADMIN), snapshot(flow("opt_out")), T0)
    assert [[each.what for each in one.differences] for one in found] == [[], [], ["consent"]]


# -- the dialplan alone ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode,says,consent",
    [("announce", "Calls to Acme Plumbing are recorded", True), ("opt_in", None, False), ("opt_out", None, False)],
)
def test_the_dialplan_announces_and_asks_nobody(mode: str, says: str | None, consent: bool) -> None:
    alone = at_moment(table(flow(mode)).entries[DID], T0)
    assert [prompt.text for prompt in alone.announce] == ([says] if says else [])
    assert alone.consent is consent
    assert alone.destinations[0].target.name == "ana"


def test_without_consent_nodes_it_records_as_ever() -> None:
    routing, strict = table(), table(of=company(consent_required=True))
    assert at_moment(routing.entries[DID], T0).consent is None
    events: list[e.Event] = [
        arrived(),
        failed("Dial", "l1", 9),
        e.LegStarted(T0 + 12, "fs-1", ""),
        e.LegAnswered(T0 + 15, "fs-1"),
    ]
    assert run(routing, events).notes_of(note.RecordingPlanned)
    assert not run(strict, events).notes_of(note.RecordingPlanned)
