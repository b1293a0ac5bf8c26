"""Stored calls run again: by the routing that they had they go where they went; by another one it is told what is
known and what is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.cdr import LogItem
from callrouter.core.disposition import Disposition
from callrouter.core.model import Member, Strategy, TargetGroup
from callrouter.core.replay import Doubt, Replayed, Verdict, replay, with_caps
from callrouter.core.routing import RoutingTable, build_table
from callrouter.core.simulate import ANY, CALL_ID, Answer, Inputs, simulate
from tests.builders import CALLER, DID, T0, company, number, snapshot, table, target, trunk
from tests.random_flows import tables


def dial(first: str, second: str = "", after: str = "") -> str:
    exits = "on_busy: end, on_no_answer: end, on_failed: end"
    more = f"second: {{type: dial, target: {second}, {exits}}}" if second else ""
    to = "second" if second else "end"
    return f"""
start: first
nodes:
  first: {{type: dial, target: {first}, on_busy: {to}, on_no_answer: {to}, on_failed: {to}{after}}}
  {more}
  end: {{type: hangup}}
"""


def menu(options: str, kind: str = "type: menu", name: str = "menu") -> str:
    return f"""
start: {name}
nodes:
  {name}: {{{kind}, prompt: "Which?", {options}}}
  ana: {{type: dial, target: ana, on_busy: vm, on_no_answer: vm, on_failed: vm}}
  ben: {{type: dial, target: ben, on_busy: vm, on_no_answer: vm, on_failed: vm}}
  vm: {{type: voicemail, greeting: "Speak.", on_failed: end}}
  end: {{type: hangup}}
"""


def stored(routing: RoutingTable, *digits: str, **answers: Answer) -> Sequence[LogItem]:
    """The log of a call."""
    named = tuple((name, (what,)) for name, what in answers.items())
    return simulate(routing, DID, CALLER, T0, Inputs(digits, named)).log


def again(log: Sequence[LogItem], routing: RoutingTable) -> Replayed:
    return replay(routing, CALL_ID, log)


@settings(max_examples=60, deadline=None)
@given(
    routing=tables(),
    digits=st.lists(st.sampled_from(["", "1", "2", "9", "60614"]), max_size=4),
    answers=st.lists(st.sampled_from(list(Answer)), min_size=1, max_size=3),
    message=st.sampled_from([0.0, 7.0]),
)
def test_by_the_same_routing_every_call_goes_where_it_went(
    routing: RoutingTable, digits: list[str], answers: list[Answer], message: float
) -> None:
    did = next(iter(routing.entries))
    inputs = Inputs(tuple(digits), ((ANY, tuple(answers)),), message_seconds=message)
    made = simulate(routing, did, CALLER, T0, inputs)
    found = replay(routing, CALL_ID, made.log)
    assert (found.verdict, found.doubts) == (Verdict.SAME, ())
    assert found.again == found.then == made.record


def test_what_destinations_did_then_they_do_again() -> None:
    """Also where the flow is another one: Ana was busy, and Ben answered."""
    log = stored(table(dial("ana", "ben")), ana=Answer.BUSY)
    turned = again(log, table(dial("ben", "ana")))
    assert (turned.verdict, turned.doubts) == (Verdict.ELSEWHERE, ())
    assert turned.again is not None
    assert [leg.target for leg in turned.again.legs] == ["ben"]
    lost = again(log, table(dial("ana")))
    assert (lost.verdict, lost.doubts) == (Verdict.MISSED, ())
    assert lost.again is not None
    assert lost.again.disposition is Disposition.BUSY


def test_a_target_that_was_not_rung_then_is_marked() -> None:
    found = again(stored(table(dial("ana"))), table(dial("ben")))
    assert (found.verdict, found.doubts) == (Verdict.ELSEWHERE, (Doubt.UNTRIED,))


def test_keys_are_pressed_again_and_further_ones_are_not_known() -> None:
    log = stored(table(menu("options: {1: ana, 2: ben}, on_exhausted: vm")), "", "2")
    renamed = menu("options: {1: ana, 2: ben}, on_exhausted: vm", name="choose")
    assert again(log, table(renamed)).verdict is Verdict.SAME
    turned = again(log, table(menu("options: {1: ben, 2: ana}, on_exhausted: vm", name="choose")))
    assert turned.again is not None
    assert [leg.target for leg in turned.again.legs] == ["ana"]
    assert turned.doubts == (Doubt.UNTRIED,)
    direct = again(stored(table(dial("ana"))), table(menu("options: {1: ana}, on_exhausted: vm")))
    assert Doubt.MORE_KEYS in direct.doubts
    assert Doubt.NO_MESSAGE in direct.doubts


def test_sensitive_digits_are_not_known() -> None:
    secret = "name: pin, min: 4, max: 4, sensitive: true, next: ana, on_exhausted: vm"
    log = stored(table(menu(secret, "type: gather")), "1234")
    assert again(log, table(menu(secret, "type: gather"))).verdict is Verdict.SAME
    found = again(log, table(menu("options: {1: ben}, on_exhausted: ana", name="choose")))
    assert Doubt.HIDDEN in found.doubts


@pytest.mark.parametrize("left_in", ["ringing", "menu"])
def test_callers_who_gave_up_give_up_again(left_in: str) -> None:
    if left_in == "ringing":
        log = stored(table(dial("ana", "ben")), ana=Answer.CALLER_GIVES_UP)
        found = again(log, table(menu("options: {1: ben}, on_timeout: ana, on_exhausted: ana")))
        assert found.doubts == (Doubt.MORE_KEYS,)
    else:
        whole = stored(table(menu("options: {1: ana}, on_exhausted: vm")))
        asked = next(place for place, item in enumerate(whole) if isinstance(item, e.PlaybackEnded))
        gone: list[LogItem] = [
            e.CallerHungUp(whole[asked].at + 2),
            note.Concluded(T0 + 9, Disposition.ABANDONED, "they hung up"),
        ]
        log = [*whole[: asked + 1], *gone]
        found = again(log, table(menu("options: {1: ben}, on_exhausted: end", name="choose")))
    assert found.again is not None
    assert found.again.disposition is Disposition.ABANDONED


def test_what_cannot_be_replayed_says_why() -> None:
    routing = table(dial("ana"))
    log = list(stored(routing))
    assert again([], routing).doubts == (Doubt.NO_LOG,)
    assert again(log[1:], routing).doubts == (Doubt.NO_LOG,)
    assert again(log[:-1], routing).doubts == (Doubt.IN_PROGRESS,)
    arrived = e.CallArrived(T0, CALL_ID, "1.1", DID, CALLER, None, None, unwatched="alone", handled_by="failsafe")
    found = again([arrived, *log[1:]], routing)
    assert (found.verdict, found.doubts) == (Verdict.NOT_REPLAYED, (Doubt.FAILSAFE,))


def test_limits_that_calls_would_hit_together() -> None:
    cell = target("cell", sip_uri=None, number="+12025550177", trunk="a")
    trunks, numbers = [trunk("a")], [number(target="cell")]

    def limited(**limits: int) -> RoutingTable:
        return table(trunks=trunks, targets=[cell], numbers=numbers, of=company(**limits))

    log, routing = stored(limited()), limited(max_outbound_calls=2)
    found = with_caps([again(log, routing) for _ in range(4)], routing)
    assert [one.cap for one in found] == ["", "", "calls", "calls"]
    hourly = limited(max_outbound_per_hour=3)
    assert [one.cap for one in with_caps([again(log, hourly)] * 4, hourly)] == ["", "", "", "calls-per-hour"]


@pytest.mark.parametrize("strategy", [Strategy.RING_ALL, Strategy.ROUND_ROBIN])
def test_groups_ring_again_as_they_did(strategy: Strategy) -> None:
    group = TargetGroup("group-1", "company-1", "team", "Team", strategy, (Member("ana"), Member("ben")))
    text = dial("ana").replace("target: ana", "group: team")
    routing = build_table(replace(snapshot(text), groups=(group,)))
    assert routing.entries[DID].problem is None
    log = stored(routing, ana=Answer.NO_ANSWER)
    found = again(log, routing)
    assert (found.verdict, found.doubts) == (Verdict.SAME, ())
    # Of one that rang beside who answered nobody knows; who was rung before did not answer.
    alone = again(log, table(dial("ana")))
    at_once = strategy is Strategy.RING_ALL
    assert (alone.verdict, alone.doubts) == ((Verdict.ELSEWHERE, (Doubt.UNTRIED,)) if at_once else (Verdict.MISSED, ()))
    later = again(stored(table(dial("ana"))), routing)
    assert (Doubt.GROUP in later.doubts) is not at_once
