"""Ring groups: the order of each strategy, legs one after another and at once, and what remains of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callrouter.core import actions as a
from callrouter.core import events as e
from callrouter.core.disposition import LegResult
from callrouter.core.failsafe_plan import at_moment
from callrouter.core.flow.parse import parse_flow
from callrouter.core.groups import Facts, checked_members, member_text, order, parse_member, summed
from callrouter.core.model import CallerIdMode, Member, Strategy, TargetGroup
from callrouter.core.records import RecordingKind
from callrouter.core.routing import RoutingTable, build_table
from callrouter.core.simulate import Answer, Inputs, simulate
from callrouter.core.state import Branch, Calling, HandedOver
from callrouter.errors import FlowError, InputError
from callrouter.runtime.call import Call
from callrouter.runtime.executor import Outcome
from callrouter.runtime.outbound import Outbound
from callrouter.runtime.rotation import Rotation
from tests.builders import CALL, CALLER, DID, T0, Run, arrived, company, run, snapshot, target, trunk
from tests.call_scripts import back, flow, gone, resumed, ringing, shown, started, up

FLOW = flow(
    "front",
    "front: {type: dial, group: sales, on_busy: busy, on_no_answer: nobody, on_failed: down}",
    "busy: {type: hangup, cause: busy}",
    "nobody: {type: hangup, cause: no-answer}",
    "down: {type: hangup, cause: congestion}",
)
NAMES = ("ana", "ben", "cat")
IDS = {name: f"target-{name}" for name in NAMES}
CAT = target("cat", sip_uri=None, number="+12025550177", trunk="a")


def group(strategy: Strategy = Strategy.IN_ORDER, *members: str, **changes: Any) -> TargetGroup:
    found = tuple(parse_member(each) for each in members or NAMES)
    return TargetGroup("group-1", "company-1", "sales", "Sales", strategy, found, **changes)


def routing(rings: TargetGroup, text: str = FLOW, **changes: Any) -> RoutingTable:
    made = snapshot(text, targets=(CAT,), trunks=(trunk("a"),), **changes)
    return build_table(replace(made, groups=(rings,)))


def known(ref: str, facts: Facts, at: float = 1) -> e.GroupKnown:
    return e.GroupKnown(T0 + at, f"{CALL}-{ref}", "group-1", facts)


def out(ref: str, status: str, at: float = 6) -> e.LegEnded:
    return e.LegEnded(T0 + at, f"{CALL}-{ref}", status)


def refused(ref: str, at: float = 2) -> e.DialRefused:
    return e.DialRefused(T0 + at, f"{CALL}-{ref}", "calls", "2 at once; the company may have 2")


def legs(result: Run) -> list[tuple[str, LegResult | None, int | None]]:
    return [(leg.target, leg.result, leg.cause) for leg in result.record.legs]


# -- order -------------------------------------------------------------------------------------------------------------


def firsts(rings: TargetGroup, turns: int) -> list[str]:
    return [order(rings, IDS, Facts(turn=turn))[0].target for turn in range(turns)]


def names(rings: TargetGroup, facts: Facts = Facts()) -> list[str]:  # noqa: B008 - frozen
    return [member.target for member in order(rings, IDS, facts)]


@pytest.mark.parametrize(
    "rings, facts, expected",
    [
        (group(), Facts(turn=5), ["ana", "ben", "cat"]),
        (group(Strategy.ROUND_ROBIN), Facts(turn=0), ["ana", "ben", "cat"]),
        (group(Strategy.ROUND_ROBIN), Facts(turn=4), ["ben", "cat", "ana"]),
        (group(Strategy.TIERS, "ana:tier=2", "ben", "cat"), Facts(turn=0), ["ben", "cat", "ana"]),
        (group(Strategy.TIERS, "ana:tier=2", "ben", "cat"), Facts(turn=1), ["cat", "ben", "ana"]),
        (group(Strategy.LEAST_RECENT), Facts(rung=(("target-ana", 9.0), ("target-cat", 5.0))), ["ben", "cat", "ana"]),
        (group(Strategy.LONGEST_IDLE), Facts(talked=(("target-ana", 9.0), ("target-ben", 5.0))), ["cat", "ben", "ana"]),
        (
            group(Strategy.LONGEST_IDLE),
            Facts(talked=(("target-ana", 9.0),), talking=("target-cat",)),
            ["ben", "ana", "cat"],
        ),
        (group(Strategy.RING_ALL, "ben", "ana"), Facts(turn=1), ["ben", "ana"]),
        (group(Strategy.ROUND_ROBIN, "ana", "gone"), Facts(turn=1), ["ana"]),
    ],
)
def test_each_strategy_has_its_order(rings, facts, expected):
    assert names(rings, facts) == expected


def test_weights_are_shares():
    rings = group(Strategy.WEIGHTED, "ana:weight=6", "ben:weight=2", "cat:weight=2")
    assert Counter(firsts(rings, 10)) == {"ana": 6, "ben": 2, "cat": 2}
    # Spread, not one after the other; and everybody is rung in every call.
    assert firsts(rings, 5) == ["ana", "ben", "ana", "cat", "ana"]
    assert all(sorted(names(rings, Facts(turn=turn))) == ["ana", "ben", "cat"] for turn in range(10))


@given(st.lists(st.integers(1, 100), min_size=1, max_size=3), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_every_order_has_everybody_once(weights, turn):
    members = tuple(Member(name, weight=weight) for name, weight in zip(NAMES, weights, strict=False))
    for strategy in Strategy:
        rings = TargetGroup("g", "c", "sales", "Sales", strategy, members)
        assert sorted(names(rings, Facts(turn=turn))) == sorted(one.target for one in members)


@pytest.mark.parametrize("text", ["bob", "bob:ring=20", "bob:weight=3", "bob:ring=5,tier=2"])
def test_a_member_is_written_as_it_is_read(text):
    assert member_text(parse_member(text)) == text


@pytest.mark.parametrize("text", ["bob:20", "bob:ring=x", "bob:ring=", "bob:colour=red"])
def test_a_member_that_says_something_else_is_refused(text):
    with pytest.raises(InputError):
        parse_member(text)


@pytest.mark.parametrize(
    "members, strategy, what",
    [
        ((), Strategy.IN_ORDER, "1 to 50"),
        (("bob", "bob"), Strategy.IN_ORDER, "twice"),
        (("bob:weight=0",), Strategy.WEIGHTED, "out of range"),
        (("bob:weight=2",), Strategy.IN_ORDER, "weighted"),
        (("bob:tier=2",), Strategy.ROUND_ROBIN, "tier"),
        (("bob:ring=9",), Strategy.RING_ALL, "ring seconds"),
    ],
)
def test_members_that_cannot_be_are_refused(members, strategy, what):
    with pytest.raises(InputError) as refusal:
        checked_members([parse_member(each) for each in members], strategy)
    assert what in f"{refusal.value.message} {refusal.value.hint}"


def test_a_dial_rings_a_target_or_a_group():
    for given_twice in ("target: ana, group: sales", ""):
        with pytest.raises(FlowError) as refusal:
            parse_flow(flow("d", f"d: {{type: dial, {given_twice + ', ' if given_twice else ''}on_busy: bye, "
                                 "on_no_answer: bye, on_failed: bye}"), "desk")  # fmt: skip
        assert "one of target and group" in refusal.value.message


# -- one after another -------------------------------------------------------------------------------------------------


def test_the_next_one_rings_when_one_fails():
    result = run(
        routing(group(Strategy.IN_ORDER, "ana", "ben:ring=7", "cat")),
        [arrived(), started("l1"), back("l1", "BUSY", 17), started("l2"), back("l2", "NOANSWER", 19),
         started("l3"), back("l3", "CHANUNAVAIL", 1), gone()],
    )  # fmt: skip
    assert shown(result) == ["dial l1 ana 25", "dial l2 ben 7", "dial l3 cat 25", "hangup 19"]
    assert legs(result) == [
        ("ana", LegResult.BUSY, 17),
        ("ben", LegResult.NO_ANSWER, 19),
        ("cat", LegResult.FAILED, 1),
    ]
    assert result.ending == (
        "no-answer",
        "nobody in sales answered: ana was busy; ben did not answer; cat could not be reached: unallocated number (1)",
    )


@pytest.mark.parametrize(
    "policy, status, cause, rings",
    [
        ({}, "BUSY", 21, ["ana"]),
        ({"stop_on_declined": False}, "BUSY", 21, ["ana", "ben"]),
        ({}, "BUSY", 17, ["ana", "ben"]),
        ({"stop_on_busy": True}, "BUSY", 17, ["ana"]),
    ],
)
def test_who_declines_or_is_busy_may_do_so_for_all(policy, status, cause, rings):
    result = run(routing(group(**policy)), [arrived(), started("l1"), ringing("l1"), back("l1", status, cause)])
    assert [each.target for each in result.actions_of(a.Dial)] == rings


def test_a_trunk_that_forbids_a_call_does_not_decline_it():
    first = group(Strategy.IN_ORDER, "cat", "ana")
    result = run(routing(first), [arrived(), started("l1"), back("l1", "CHANUNAVAIL", 21)])
    assert [each.target for each in result.actions_of(a.Dial)] == ["cat", "ana"]
    result = run(routing(first), [arrived(), started("l1"), ringing("l1"), back("l1", "BUSY", 21)])
    assert [each.target for each in result.actions_of(a.Dial)] == ["cat"]


def test_a_turn_is_asked_for_and_kept():
    result = run(routing(group(Strategy.ROUND_ROBIN)), [arrived(), known("g1", Facts(turn=7))])
    assert shown(result) == ["ask g1", "dial l2 ben 25"]
    assert result.reasons("group sales") == ["round-robin, call 8: ben, cat, ana"]


def test_who_waits_for_a_turn_may_hang_up_or_be_taken_up_again():
    rings = routing(group(Strategy.ROUND_ROBIN))
    assert run(rings, [arrived(), gone(at=1)]).ending == ("abandoned", "the caller hung up in front")
    again = run(rings, [arrived(), resumed(at=2), known("g1002", Facts(turn=3), at=3)])
    assert shown(again) == ["ask g1", "ask g1002", "dial l1003 ana 25"]
    assert isinstance(run(rings, [arrived(), resumed(at=2, inside=False)]).session.wait, HandedOver)


def test_those_that_cannot_be_rung_are_passed_over_and_told():
    members = group(Strategy.IN_ORDER, "cat", "ghost", "ana")
    result = run(routing(members), [arrived(trunks_down=(("a", "no answer to OPTIONS"),))])
    assert shown(result) == ["dial l1 ana 25"]
    assert result.reasons("skipped cat") == ["trunk a is down: no answer to OPTIONS"]
    assert result.reasons("skipped ghost") == ["it cannot be dialled"]
    # What is known of a trunk may be old: the last one is tried all the same.
    alone = run(routing(group(Strategy.IN_ORDER, "cat")), [arrived(trunks_down=(("a", "no answer to OPTIONS"),))])
    assert shown(alone) == ["dial l1 cat 25"]


def test_a_cap_makes_the_next_one_ring():
    result = run(routing(group(Strategy.IN_ORDER, "cat", "ana")), [arrived(), refused("l1"), back("l2", "ANSWER", 16)])
    assert [each.target for each in result.actions_of(a.Dial)] == ["cat", "ana"]
    assert result.reasons("refused: calls") == ["cat was not dialled: 2 at once; the company may have 2"]
    none = run(routing(group(Strategy.IN_ORDER, "cat")), [arrived(), refused("l1"), gone()])
    assert none.ending[0] == "failed"


def test_a_dial_that_never_began_rings_the_same_one_again():
    result = run(routing(group()), [arrived(), back("l1", "BUSY", 17), resumed(at=31), back("l2", "BUSY", 17, at=40)])
    assert shown(result) == ["dial l1 ana 25", "dial l2 ben 25", "dial l2 ben 25", "dial l1003 cat 25"]


# -- at once -----------------------------------------------------------------------------------------------------------

ALL = routing(group(Strategy.RING_ALL))
RUNG: list[e.Event] = [arrived(), started("l2"), started("l3"), started("l4")]


def test_the_first_to_answer_has_the_call():
    result = run(ALL, [*RUNG, out("l2", "BUSY"), up("l3"), up("l4", at=10.1), back("l1", "ANSWER", 16), gone()])
    [dial] = result.actions_of(a.Dial)
    assert [(each.leg_id, each.endpoint, each.trunk) for each in dial.branches] == [
        ("c-l2", "PJSIP/callrouter-uri/sip:ana@192.0.2.7", None),
        ("c-l3", "PJSIP/callrouter-uri/sip:ben@192.0.2.7", None),
        ("c-l4", "PJSIP/+12025550177@trunk-a", "a"),
    ]
    assert legs(result) == [
        ("ana", LegResult.BUSY, 17),
        ("ben", LegResult.ANSWERED, 16),
        ("cat", LegResult.CANCELLED, 26),
    ]
    assert result.ending == ("answered", "ben answered")
    assert result.record.answered_by == "ben"
    assert [(one.id, one.kind, one.leg_id) for one in result.record.recordings] == [
        ("c-l1", RecordingKind.CONVERSATION, "c-l3")
    ]


@pytest.mark.parametrize(
    "events, results, ending",
    [
        (
            [out("l2", "BUSY"), out("l3", "CHANUNAVAIL"), back("l1", "NOANSWER", 17), gone()],
            [("ana", LegResult.BUSY, 17), ("ben", LegResult.FAILED, 0), ("cat", LegResult.NO_ANSWER, 19)],
            "no-answer",
        ),
        (
            [out("l2", "BUSY"), out("l3", "BUSY"), out("l4", "BUSY"), back("l1", "BUSY", 17), gone()],
            [(name, LegResult.BUSY, 17) for name in NAMES],
            "busy",
        ),
        ([gone(cause=16)], [(name, LegResult.CANCELLED, 16) for name in NAMES], "abandoned"),
        (
            [up("l3"), back("l1", "NOANSWER", 16), gone()],
            [("ana", LegResult.CANCELLED, 26), ("ben", LegResult.NO_ANSWER, 19), ("cat", LegResult.CANCELLED, 26)],
            "no-answer",
        ),
        (
            [refused("l4"), back("l1", "NOANSWER", 0), gone()],
            [("ana", LegResult.NO_ANSWER, 19), ("ben", LegResult.NO_ANSWER, 19), ("cat", LegResult.FAILED, None)],
            "no-answer",
        ),
    ],
    ids=["nobody", "all busy", "the caller gives up", "hung up on the whisper", "one over its cap"],
)
def test_what_becomes_of_each(events, results, ending):
    result = run(ALL, [*RUNG, *events])
    assert legs(result) == results
    assert result.ending[0] == ending


def test_without_anybody_who_may_be_dialled_the_flow_goes_on():
    result = run(routing(group(Strategy.RING_ALL, "cat")), [arrived(), refused("l2"), gone()])
    assert shown(result) == ["dial l1 sales 25", "hangup 34"]
    assert result.ending == ("failed", "none of sales could be dialled")


def test_after_a_restart_those_that_are_left_ring_again():
    result = run(ALL, [arrived(), refused("l4"), resumed(at=3), up("l2", at=9), gone()])
    first, second = result.actions_of(a.Dial)
    assert (first.leg_id, second.leg_id) == ("c-l1", "c-l1")
    assert [each.target for each in second.branches] == ["ana", "ben"]
    assert result.ending == ("answered", "ana answered")


def test_each_is_shown_its_own_number_and_hears_its_own_whisper():
    made = replace(
        snapshot(
            FLOW,
            targets=(target("ana", whisper="Call from {campaign}."), CAT),
            trunks=(trunk("a", caller_id=CallerIdMode.TRACKING_NUMBER),),
        ),
        groups=(group(Strategy.RING_ALL),),
    )
    [dial] = run(build_table(made), [arrived()]).actions_of(a.Dial)
    assert [each.caller_id for each in dial.branches] == [None, None, DID]
    assert [[prompt.text for prompt in each.whisper] for each in dial.branches] == [["Call from Spring radio."], [], []]


def test_the_failsafe_rings_the_members_in_order():
    entry = ALL.entries[DID]
    assert [each.target.name for each in at_moment(entry, T0).destinations] == ["ana", "ben", "cat"]


def test_results_of_a_group():
    assert summed([LegResult.BUSY, LegResult.NO_ANSWER, LegResult.FAILED]) is LegResult.NO_ANSWER
    assert summed([LegResult.FAILED, LegResult.BUSY]) is LegResult.BUSY
    assert summed([]) is LegResult.FAILED


@pytest.mark.parametrize(
    "strategy, answers, rung, ending",
    [
        (Strategy.IN_ORDER, {"ana": Answer.BUSY}, ["ana", "ben"], "answered"),
        (Strategy.ROUND_ROBIN, {"ana": Answer.NO_ANSWER, "ben": Answer.FAILED}, ["ana", "ben", "cat"], "answered"),
        (Strategy.RING_ALL, {"ana": Answer.BUSY, "ben": Answer.DECLINED}, ["ana", "ben", "cat"], "answered"),
        (Strategy.RING_ALL, {"*": Answer.NO_ANSWER}, ["ana", "ben", "cat"], "no-answer"),
        (Strategy.RING_ALL, {"*": Answer.BUSY}, ["ana", "ben", "cat"], "busy"),
        (Strategy.RING_ALL, {"*": Answer.CALLER_GIVES_UP}, ["ana", "ben", "cat"], "abandoned"),
    ],
)
def test_a_simulated_call_rings_groups(strategy, answers, rung, ending):
    given_answers = tuple((name, (answer,)) for name, answer in answers.items())
    made = simulate(routing(group(strategy)), DID, CALLER, T0, Inputs(answers=given_answers))
    assert list(made.rung) == rung
    assert str(made.record.disposition) == ending
    assert all(leg.result is not None for leg in made.record.legs)


# -- whatever comes ----------------------------------------------------------------------------------------------------

REFS = st.sampled_from([f"{CALL}-{kind}{count}" for kind in "lgt" for count in range(1, 9)])
STATUSES = st.sampled_from(["ANSWER", "BUSY", "NOANSWER", "CHANUNAVAIL", "CONGESTION", "CANCEL", ""])
FACTS = st.builds(Facts, turn=st.integers(0, 9))
EVENTS = st.one_of(
    st.builds(e.LegStarted, st.just(0.0), REFS, st.just("peer")),
    st.builds(e.LegRinging, st.just(0.0), REFS),
    st.builds(e.LegAnswered, st.just(0.0), REFS),
    st.builds(e.LegEnded, st.just(0.0), REFS, STATUSES),
    st.builds(e.DialReturned, st.just(0.0), REFS, STATUSES, st.sampled_from([0, 16, 17, 19, 21, 34])),
    st.builds(e.DialRefused, st.just(0.0), REFS, st.just("calls"), st.just("full")),
    st.builds(e.GroupKnown, st.just(0.0), REFS, st.just("group-1"), FACTS),
    st.builds(e.TimerFired, st.just(0.0), REFS),
    st.builds(e.Resumed, st.just(0.0), st.booleans()),
    st.builds(e.ActionFailed, st.just(0.0), st.just("Dial"), st.just("no"), REFS),
    st.builds(e.TrunksChanged, st.just(0.0), st.sampled_from([(), (("a", "down"),)])),
)


@given(st.sampled_from(list(Strategy)), st.lists(EVENTS, max_size=12))
@settings(max_examples=300, deadline=None)
def test_whatever_happens_a_call_ends_and_every_leg_is_told(strategy, events):
    moves = [replace(event, at=T0 + 1 + count) for count, event in enumerate(events)]
    result = run(routing(group(strategy)), [arrived(), *moves, gone(at=90)])
    assert result.session.over
    assert all(leg.ended_at is not None and leg.result is not None for leg in result.record.legs)
    assert len(result.record.recordings) == len({one.id for one in result.record.recordings})
    if strategy is Strategy.RING_ALL and not any(isinstance(event, e.Resumed) for event in events):
        talked = [leg.id for leg in result.record.legs if leg.answered_at is not None and not leg.id.startswith("fs-")]
        assert len(talked) <= 1


CALLED = Branch("", "", "")
"""One leg that has not ended."""


class _Edge:
    """In place of Asterisk: all that is asked of it works."""

    async def perform(self, *_: object) -> Outcome:
        return Outcome()


class _Paper:
    def append(self, *_: object) -> None:
        pass


@given(st.sampled_from(list(Strategy)), st.lists(EVENTS, max_size=10), st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_no_slot_of_a_cap_is_left_behind(strategy, events, cap):
    rings = routing(
        group(strategy), of=company(max_outbound_calls=cap), backup=None
    )  # fmt: skip
    outbound, edge = Outbound(), _Edge()

    async def lives() -> None:
        call = Call(CALL, "1.1", rings, _Paper(), edge, lambda _: None, None, outbound, Rotation())  # type: ignore[arg-type]
        call.put(arrived())
        for event in events:
            call.put(event)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            wait = call.session.wait
            alive = 0
            if isinstance(wait, Calling):
                alive = 1 if wait.winner else sum(one.result is None for one in wait.branches or (CALLED,))
            assert sum(outbound.running.values()) <= min(cap, alive)
        call.put(gone())
        await call.wait()

    asyncio.run(lives())
    assert outbound.running == {}
