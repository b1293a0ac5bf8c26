"""What a flow comes to without the controller."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callrouter.core.failsafe_plan import DAYS, Alone, at_moment, failsafe_windows
from tests import builders as b

HOURS = """
start: consent
nodes:
  consent: {type: play, prompt: "{company} records calls", next: open}
  open: {type: hours, open: "Mo-Fr 09:00-17:00", on_open: menu, on_closed: late}
  menu: {type: menu, prompt: "press 1", options: {"1": ana}, on_exhausted: ana}
  ana: {type: dial, target: ana, on_busy: ben, on_no_answer: ben, on_failed: ben}
  ben: {type: dial, target: ben, on_busy: end, on_no_answer: end, on_failed: end}
  late: {type: play, prompt: "we are closed", next: end}
  end: {type: hangup}
"""
ON_CALL = HOURS.replace("on_closed: late", "on_closed: ben")


def new_york(day: int, hour: int, minute: int = 0) -> float:
    """October 2025; the 13th is a Monday."""
    return datetime(2025, 10, day, hour, minute, tzinfo=ZoneInfo("America/New_York")).timestamp()


def entry(flow: str | None, **changes):
    return b.table(flow, **changes).entries[b.DID]


def said(alone: Alone) -> list[str | None]:
    return [prompt.text for prompt in alone.announce]


def rung(alone: Alone) -> list[str]:
    return [destination.target.name for destination in alone.destinations]


@pytest.mark.parametrize(
    "flow,backup,at,announced,rings",
    [
        (None, None, new_york(13, 12), [], ["ana"]),
        (HOURS, None, new_york(13, 12), ["Acme Plumbing records calls"], ["ana", "ben"]),
        (HOURS, "ben", new_york(13, 12), ["Acme Plumbing records calls"], ["ben", "ana"]),
        (HOURS, None, new_york(13, 8, 59), ["Acme Plumbing records calls", "we are closed"], []),
        (HOURS, None, new_york(13, 17), ["Acme Plumbing records calls", "we are closed"], []),
        (ON_CALL, None, new_york(13, 20), ["Acme Plumbing records calls"], ["ben", "ana"]),
        (ON_CALL, "ana", new_york(13, 20), ["Acme Plumbing records calls"], ["ana", "ben"]),
    ],
)
def test_a_call_without_the_controller_follows_the_flow_as_far_as_it_goes(flow, backup, at, announced, rings):
    alone = at_moment(entry(flow, backup=backup), at)
    assert (said(alone), rung(alone)) == (announced, rings)


def test_a_voicemail_cannot_be_taken_so_somebody_is_rung():
    flow = HOURS.replace(
        'late: {type: play, prompt: "we are closed", next: end}',
        'late: {type: voicemail, greeting: "leave a message", on_failed: end}',
    )
    alone = at_moment(entry(flow), new_york(13, 20))
    assert (said(alone), rung(alone)) == (["Acme Plumbing records calls"], ["ana", "ben"])


def test_nobody_can_be_asked_for_digits_so_somebody_is_rung():
    flow = HOURS.replace(
        'late: {type: play, prompt: "we are closed", next: end}',
        'late: {type: gather, prompt: "your zip", name: zip, next: end, on_exhausted: end}',
    )
    alone = at_moment(entry(flow), new_york(13, 20))
    assert (said(alone), rung(alone)) == (["Acme Plumbing records calls"], ["ana", "ben"])


def test_windows_change_when_the_hours_do():
    windows = failsafe_windows(entry(HOURS), new_york(13, 12))
    assert [window.until for window in windows[:4]] == [
        new_york(13, 17),
        new_york(14, 9),
        new_york(14, 17),
        new_york(15, 9),
    ]
    assert [rung(window.alone) for window in windows[:4]] == [["ana", "ben"], [], ["ana", "ben"], []]
    assert windows[-1].until == new_york(13, 12) + DAYS * 86400


def test_without_hours_one_window_holds_for_ever():
    (window,) = failsafe_windows(entry(None), new_york(13, 12))
    assert (window.until, rung(window.alone)) == (None, ["ana"])


def test_a_flow_in_a_circle_rings_the_backup():
    circle = """
start: a
nodes:
  a: {type: tag, tags: [x], next: c}
  c: {type: tag, tags: [y], next: a}
  d: {type: dial, target: ana, on_busy: h, on_no_answer: h, on_failed: h}
  h: {type: hangup}
"""
    assert rung(at_moment(entry(circle, backup="ben"), 0.0)) == ["ben"]


@settings(max_examples=60, deadline=None)
@given(at=st.integers(1_700_000_000, 1_900_000_000), offset=st.floats(0, DAYS * 86400 - 1))
def test_what_a_window_says_is_what_the_flow_says_at_that_moment(at, offset):
    one = entry(ON_CALL)
    windows = failsafe_windows(one, float(at))
    inside = next(window for window in windows if window.until is None or at + offset < window.until)
    assert inside.alone == at_moment(one, at + offset)
