"""The same target over the next trunk, when a trunk fails: what is asked for, event by event."""

from __future__ import annotations

import pytest

from callrouter.core import actions as a
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.disposition import LegResult
from callrouter.core.state import Calling
from tests import builders as b
from tests.builders import T0, arrived, run, table, target, trunk

FLOW = """
start: dial
nodes:
  dial: {type: dial, target: cell, on_busy: busy, on_no_answer: none, on_failed: failed}
  busy: {type: hangup, cause: busy}
  none: {type: hangup, cause: no-answer}
  failed: {type: hangup, cause: congestion}
"""
CELL = target("cell", sip_uri=None, number="+12025550177", trunk="a", ring_seconds=20)
TRUNKS = (trunk("a", next_trunk="b", setup_seconds=3.0), trunk("b", next_trunk="c"), trunk("c", next_trunk="a"))
CHAIN = table(FLOW, targets=[CELL], trunks=TRUNKS)


def started(leg: int, at: float = 1) -> e.Event:
    return e.LegStarted(T0 + at, f"c-l{leg}", f"channel-{leg}")


def returned(leg: int, status: str, cause: int, at: float = 5) -> e.Event:
    return e.DialReturned(T0 + at, f"c-l{leg}", status, cause)


def trunks(result: b.Run) -> list[str | None]:
    return [leg.trunk for leg in result.notes_of(note.LegPlanned)]


@pytest.mark.parametrize("cause", [3, 20, 27, 34, 38, 41, 42, 44, 58, 18, 102])
def test_a_trunks_failure_is_followed_by_the_next_trunk(cause):
    result = run(CHAIN, [arrived(), started(1), returned(1, "CONGESTION", cause)])
    first, second = result.actions_of(a.Dial)
    assert (first.endpoint, second.endpoint) == ("PJSIP/+12025550177@trunk-a", "PJSIP/+12025550177@trunk-b")
    assert (first.leg_id, second.leg_id) != (second.leg_id, first.leg_id)
    assert second.ringing
    assert trunks(result) == ["a", "b"]
    assert result.reasons("trunk failed")[0].startswith("a: ")
    assert result.path == ["dial"]


@pytest.mark.parametrize(
    "status,cause,exit_",
    [
        ("BUSY", 17, "busy"),
        ("CHANUNAVAIL", 21, "failed"),
        ("CHANUNAVAIL", 1, "failed"),
        ("NOANSWER", 19, "none"),
        ("CHANUNAVAIL", 22, "failed"),
        ("CHANUNAVAIL", 28, "failed"),
    ],
)
def test_the_destinations_own_answer_is_final(status, cause, exit_):
    result = run(CHAIN, [arrived(), started(1), returned(1, status, cause)])
    assert len(result.actions_of(a.Dial)) == 1
    assert result.path == ["dial", exit_]


@pytest.mark.parametrize(
    "sign", [lambda at: e.LegRinging(at, "c-l1"), lambda at: e.LegProgress(at, "c-l1")], ids=["180", "183"]
)
def test_a_time_out_after_ringing_is_the_destinations(sign):
    result = run(CHAIN, [arrived(), started(1), sign(T0 + 2), returned(1, "CHANUNAVAIL", 18)])
    assert len(result.actions_of(a.Dial)) == 1
    failed = run(CHAIN, [arrived(), started(1), sign(T0 + 2), returned(1, "CONGESTION", 34)])
    assert trunks(failed) == ["a", "b"], "but a carrier that breaks off has failed"


def test_the_chain_ends_where_it_would_go_round():
    events: list[e.Event] = [arrived(), *(returned(leg, "CONGESTION", 34, leg) for leg in (1, 2, 3))]
    result = run(CHAIN, events)
    assert trunks(result) == ["a", "b", "c"]
    assert result.path == ["dial", "failed"]


def test_a_silent_trunk_is_left_after_its_setup_time():
    result = run(CHAIN, [arrived(), started(1)])
    (timer,) = result.actions_of(a.StartTimer)
    assert timer.seconds == 3.0
    result.take(e.TimerFired(T0 + 4, timer.timer_id), CHAIN)
    assert result.actions_of(a.StopLeg) == [a.StopLeg("c-l1", "channel-1")]
    assert len(result.actions_of(a.Dial)) == 1, "not before the first leg has ended: never two at once"
    result.take(returned(1, "CHANUNAVAIL", 102), CHAIN)
    assert trunks(result) == ["a", "b"]


@pytest.mark.parametrize(
    "sign",
    [e.LegRinging(T0 + 2, "c-l1"), e.LegProgress(T0 + 2, "c-l1"), e.LegAnswered(T0 + 2, "c-l1")],
    ids=["ringing", "early media", "answer"],
)
def test_a_sign_of_life_ends_the_waiting(sign):
    result = run(CHAIN, [arrived(), started(1)])
    (timer,) = result.actions_of(a.StartTimer)
    result.take(sign, CHAIN)
    assert result.actions_of(a.CancelTimer) == [a.CancelTimer(timer.timer_id)]
    result.take(e.TimerFired(T0 + 4, timer.timer_id), CHAIN)
    assert result.actions_of(a.StopLeg) == []


def test_the_last_trunk_may_take_its_time():
    result = run(CHAIN, [arrived(), returned(1, "CONGESTION", 34), returned(2, "CONGESTION", 34), started(3)])
    assert trunks(result) == ["a", "b", "c"]
    assert result.actions_of(a.StartTimer) == []


def test_an_answer_in_the_moment_of_giving_up_ends_too():
    result = run(CHAIN, [arrived(), started(1)])
    (timer,) = result.actions_of(a.StartTimer)
    for event in (
        e.TimerFired(T0 + 4, timer.timer_id),
        e.LegAnswered(T0 + 4.001, "c-l1"),
        returned(1, "ANSWER", 16, at=4.01),
    ):
        result.take(event, CHAIN)
    assert trunks(result) == ["a", "b"]


def test_a_leg_that_outlives_its_giving_up_counts():
    """The request to end it was lost, and they talk."""
    result = run(CHAIN, [arrived(), started(1)])
    (timer,) = result.actions_of(a.StartTimer)
    for event in (
        e.TimerFired(T0 + 4, timer.timer_id),
        e.ActionFailed(T0 + 9, "StopLeg", "no answer", "c-l1"),
        e.LegAnswered(T0 + 10, "c-l1"),
        returned(1, "ANSWER", 16, at=60),
        e.CallerHungUp(T0 + 61),
    ):
        result.take(event, CHAIN)
    assert trunks(result) == ["a"]
    assert result.ending[0] == "answered"


def test_a_trunk_known_to_be_down_comes_last():
    down = (("a", "it does not answer"),)
    result = run(CHAIN, [arrived(trunks_down=down), returned(1, "CONGESTION", 34), returned(2, "CONGESTION", 34)])
    assert trunks(result) == ["b", "c", "a"]
    assert "a comes last, it is down: it does not answer" in result.notes_of(note.LegPlanned)[0].why


def test_all_down_is_no_reason_not_to_try():
    down = tuple((name, "it does not answer") for name in "abc")
    assert trunks(run(CHAIN, [arrived(trunks_down=down)])) == ["a"]


def test_a_trunk_that_goes_down_meanwhile_is_passed_over():
    events: list[e.Event] = [
        arrived(),
        e.TrunksChanged(T0 + 1, (("b", "it does not answer"),)),
        returned(1, "CONGESTION", 34),
    ]
    assert trunks(run(CHAIN, events)) == ["a", "c"]


def test_each_attempt_is_a_leg():
    events: list[e.Event] = [
        arrived(),
        started(1),
        returned(1, "CONGESTION", 34, 2),
        started(3, 2.1),
        e.LegRinging(T0 + 3, "c-l3"),
        e.LegAnswered(T0 + 8, "c-l3"),
        e.CallerHungUp(T0 + 20),
    ]
    result = run(CHAIN, events)
    assert [(leg.seq, leg.target, leg.trunk, leg.result, leg.cause) for leg in result.record.legs] == [
        (1, "cell", "a", LegResult.FAILED, 34),
        (2, "cell", "b", LegResult.ANSWERED, 16),
    ]
    assert result.ending == ("answered", "cell answered")


def test_after_a_restart_the_waiting_goes_on():
    result = run(CHAIN, [arrived(), started(1)])
    result.take(e.Resumed(T0 + 2, inside=False), CHAIN)
    _, timer = result.actions_of(a.StartTimer)
    result.take(e.TimerFired(T0 + 6, timer.timer_id), CHAIN)
    assert result.actions_of(a.StopLeg) == [a.StopLeg("c-l1", "channel-1")]


def test_a_dial_that_was_decided_before_a_restart_is_made_over_its_trunk():
    result = run(CHAIN, [arrived(), started(1), returned(1, "CONGESTION", 34), e.Resumed(T0 + 6)])
    *_, again = result.actions_of(a.Dial)
    assert (again.leg_id, again.endpoint) == ("c-l3", "PJSIP/+12025550177@trunk-b")
    assert isinstance(result.session.wait, Calling)
    assert result.session.wait.tried == ("a",)


def test_a_sip_uri_has_no_trunk_to_go_on_over():
    desk = table(FLOW.replace("cell", "ana"))
    result = run(desk, [arrived(), started(1), returned(1, "CONGESTION", 34)])
    assert trunks(result) == [None]
    assert result.actions_of(a.StartTimer) == []
    assert not result.actions_of(a.Dial)[0].ringing
