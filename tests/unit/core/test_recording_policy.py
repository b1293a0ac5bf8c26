"""Who decides whether a conversation is recorded: every combination of four words, and the caller before them all."""

from __future__ import annotations

from itertools import product

import pytest

from callrouter.core import actions as a
from callrouter.core import notes as note
from callrouter.core.model import RecordingPolicy
from callrouter.core.recording_policy import consent_needed, decide_alone, decide_recording, said_alone
from callrouter.core.records import Consent, ConsentResponse
from callrouter.core.routing import Entry, RoutingTable
from tests.builders import DID, T0, arrived, company, number, run, table, target

FORCE, NEVER, INHERIT = RecordingPolicy.FORCE, RecordingPolicy.NEVER, RecordingPolicy.INHERIT
FLOW = """
start: d
nodes:
  d: {{type: dial, target: ana, record: {}, on_busy: e, on_no_answer: e, on_failed: e}}
  e: {{type: hangup}}
"""


def entry(
    of_number: RecordingPolicy, node: object, of_target: RecordingPolicy, of_company: RecordingPolicy, **changes: object
) -> Entry:
    made = table(
        FLOW.format(node),
        numbers=[number(flow="desk", record=of_number)],
        targets=[target("ana", record=of_target)],
        of=company(record=of_company, **changes),
    )
    return made.entries[DID]


@pytest.mark.parametrize("words", list(product(RecordingPolicy, repeat=4)))
def test_the_first_definite_word_wins(words: tuple[RecordingPolicy, ...]) -> None:
    of_number, node, of_target, of_company = words
    made = entry(of_number, node, of_target, of_company)
    found = decide_recording(made, "d", node, made.destinations["ana"].target)
    definite = [(who, word) for who, word in zip(("number", "node d", "target", "company"), words, strict=True)
                if word is not INHERIT]  # fmt: skip
    assert found.record is (bool(definite) and definite[0][1] is FORCE)
    assert found.why.startswith(f"{'' if definite and definite[0][0] == 'node d' else 'the '}{definite[0][0]} says"
                                if definite else "nobody says")  # fmt: skip
    # The dialplan by itself comes to the same, and the dial that is asked for too.
    assert said_alone(made, made.destinations["ana"].target).record is found.record
    dialled = [act for act in run(table_of(made), [arrived()]).actions if isinstance(act, a.Dial)]
    assert [act.record for act in dialled] == [found.record]


def table_of(made: Entry) -> RoutingTable:
    return table(
        FLOW.format(made.flow.nodes["d"].record),  # type: ignore[union-attr]
        numbers=[made.number],
        targets=[made.destinations["ana"].target],
        of=made.company,
    )


@pytest.mark.parametrize("said", list(ConsentResponse))
@pytest.mark.parametrize("required", [False, True])
def test_the_caller_comes_before_all_words(said: ConsentResponse, required: bool) -> None:
    made = entry(FORCE, FORCE, FORCE, FORCE, consent_required=required)
    ana = made.destinations["ana"].target
    consent = Consent(T0, "desk@3/ask", "opt_in", said, "0" * 64)
    assert decide_recording(made, "d", FORCE, ana, consent).record is consent.given
    assert decide_alone(made, ana, consent).record is consent.given
    assert decide_recording(made, "d", FORCE, ana, None).record is not required
    assert decide_alone(made, ana, None).record is not required
    assert consent_needed(made) is required


def test_nobody_is_recorded_for_having_consented() -> None:
    made = entry(INHERIT, INHERIT, NEVER, FORCE)
    agreed = Consent(T0, "desk@3/ask", "opt_in", ConsentResponse.AGREED, "0" * 64)
    assert not decide_recording(made, "d", INHERIT, made.destinations["ana"].target, agreed).record


@pytest.mark.parametrize(
    "said,means", [(True, FORCE), (False, NEVER), ("force", FORCE), ("inherit", INHERIT), ("never", NEVER)]
)
def test_yes_and_no_are_still_understood(said: object, means: RecordingPolicy) -> None:
    assert RecordingPolicy.of(said) is means


@pytest.mark.parametrize("said", ["yes", None, 1, ""])
def test_nothing_else_is(said: object) -> None:
    with pytest.raises(ValueError, match="not a valid"):
        RecordingPolicy.of(said)


@pytest.mark.parametrize("text,means", [("yes", FORCE), ("no", NEVER), ("force", FORCE), ("inherit", INHERIT)])
def test_flows_of_before_keep_their_meaning(text: str, means: RecordingPolicy) -> None:
    assert entry(INHERIT, text, INHERIT, FORCE).flow.nodes["d"].record is means  # type: ignore[union-attr]


def test_where_nodes_disagree_the_dialplan_takes_the_more_careful() -> None:
    flow = """
start: one
nodes:
  one: {type: dial, target: ana, record: force, on_busy: two, on_no_answer: two, on_failed: two}
  two: {type: dial, target: ana, record: never, on_busy: e, on_no_answer: e, on_failed: e}
  e: {type: hangup}
"""
    made = table(flow).entries[DID]
    assert not said_alone(made, made.destinations["ana"].target).record
    assert said_alone(made, made.destinations["ben"].target).record


def test_the_trace_says_who_decided() -> None:
    made = run(table_of(entry(INHERIT, INHERIT, NEVER, FORCE)), [arrived()])
    assert ("not recorded", "the target says never") in [(one.what, one.why) for one in made.notes_of(note.Decided)]
