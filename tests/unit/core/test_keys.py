"""Entries of several digits: what completes one, what a round loses, and that nothing of a sensitive one is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.cdr import fold
from callrouter.core.keys import masked
from callrouter.core.routing import RoutingTable
from callrouter.core.session import step
from callrouter.core.state import Choosing, Session
from callrouter.runtime.recovery import rebuild
from callrouter.store.codec import encode_line
from tests.builders import CALL, T0, Run, arrived, run, table
from tests.call_scripts import (
    DIAL,
    GATHER,
    GATHER_EXITS,
    GATHER_SECRET,
    MENU,
    PLAY,
    back,
    fired,
    gone,
    key,
    keys,
    resumed,
    said,
    shown,
    up,
)

ASKED = ["answer", "play p1 Your zip"]
THANKED = "Thank you"

CASES = [
    pytest.param(
        GATHER, [said("p1"), *keys("60614")],
        [*ASKED, "timer t2 6", "cancel t2", "timer t3 2", "cancel t3", "timer t4 2", "cancel t4", "timer t5 2",
         "cancel t5", "timer t6 2", "cancel t6", "play p7 Thank you"],
        ["zip", "thanks"], "60614", id="the most digits complete it"),
    pytest.param(
        GATHER, [key("6", 1), key("0", 2), key("6", 3), key("#", 4)],
        [*ASKED, "stop p1", "timer t2 2", "cancel t2", "timer t3 2", "cancel t3", "timer t4 2", "cancel t4",
         "play p5 Thank you"],
        ["zip", "thanks"], "606", id="the first digit cuts the prompt short, the ending key ends"),
    pytest.param(
        GATHER, [said("p1"), *keys("606"), fired("t5", 9)],
        [*ASKED, "timer t2 6", "cancel t2", "timer t3 2", "cancel t3", "timer t4 2", "cancel t4", "timer t5 2",
         "play p6 Thank you"],
        ["zip", "thanks"], "606", id="no further digit, and long enough"),
    pytest.param(
        GATHER, [said("p1"), *keys("6*0A6"), key("#", 9)],
        [*ASKED, "timer t2 6", "cancel t2", "timer t3 2", "cancel t3", "timer t4 2", "cancel t4", "timer t5 2",
         "cancel t5", "play p6 Thank you"],
        ["zip", "thanks"], "606", id="keys that are no digits do nothing"),
    pytest.param(
        GATHER.replace("between: 2", "between: 2, terminator: '*'"), [said("p1"), *keys("606#*")],
        [*ASKED, "timer t2 6", "cancel t2", "timer t3 2", "cancel t3", "timer t4 2", "cancel t4", "timer t5 2",
         "cancel t5", "play p6 Thank you"],
        ["zip", "thanks"], "606", id="another ending key"),
    pytest.param(
        GATHER, [said("p1"), *keys("60#"), said("p5", 6), fired("t6", 13), gone(cause=19)],
        [*ASKED, "timer t2 6", "cancel t2", "timer t3 2", "cancel t3", "timer t4 2", "cancel t4", "play p5 Your zip",
         "timer t6 6", "hangup 19"],
        ["zip", "lost"], None, id="too short, then silence: exhausted"),
    pytest.param(
        GATHER_EXITS, [said("p1"), fired("t2", 9)],
        [*ASKED, "timer t2 6", "hangup 16"], ["zip", "slow", "bye"], None, id="silence has its exit"),
    pytest.param(
        GATHER_EXITS, [said("p1"), key("#")],
        [*ASKED, "timer t2 6", "cancel t2", "hangup 16"], ["zip", "short", "bye"], None, id="too short has its exit"),
    pytest.param(
        GATHER_EXITS.replace("on_invalid: short, ", ""),
        [said("p1"), key("#"), key("5", 4), said("p3", 5), key("5", 6)],
        [*ASKED, "timer t2 6", "cancel t2", "play p3 Too short", "play p4 Your zip", "stop p4", "timer t5 2"],
        ["zip"], None, id="too short is told; keys meanwhile do nothing"),
    pytest.param(
        GATHER, [said("p1", ok=False), *keys("60614")],
        [*ASKED, "timer t2 6", "cancel t2", "timer t3 2", "cancel t3", "timer t4 2", "cancel t4", "timer t5 2",
         "cancel t5", "timer t6 2", "cancel t6", "play p7 Thank you"],
        ["zip", "thanks"], "60614", id="a prompt that failed still takes digits"),
    pytest.param(
        GATHER, [said("p1"), key("6"), key("0", 4), resumed(5)],
        [*ASKED, "timer t2 6", "cancel t2", "timer t3 2", "cancel t3", "timer t4 2", "cancel t4",
         "play p1005 Your zip"],
        ["zip", "zip"], None, id="a restart asks again"),
    pytest.param(
        GATHER.replace("next: thanks", "next: menu").replace("  bye:",
            "  menu: {type: menu, prompt: M, options: {'#': bye, 1: thanks}, on_exhausted: bye}\n  bye:"),
        [said("p1"), *keys("60614#")],
        [*ASKED, "timer t2 6", "cancel t2", "timer t3 2", "cancel t3", "timer t4 2", "cancel t4", "timer t5 2",
         "cancel t5", "timer t6 2", "cancel t6", "play p7 M"],
        ["zip", "menu"], "60614", id="the ending key after a complete entry is no choice of the next menu"),
]  # fmt: skip


@pytest.mark.parametrize("text, events, actions, path, entered", CASES)
def test_an_entry(text: str, events: list[e.Event], actions: list[str], path: list[str], entered: str | None) -> None:
    result = run(table(text), [arrived(), *events])
    assert shown(result) == actions
    assert result.path == path
    assert [(one.name, one.digits) for one in result.notes_of(note.Gathered)] == ([("zip", entered)] if entered else [])


def test_it_is_in_the_trace() -> None:
    result = run(table(GATHER), [arrived(), said("p1"), *keys("60#"), said("p5", 6), *keys("60614", 7), gone()])
    told = [(one.what, one.why) for one in result.record.trace]
    assert ("invalid", "2 of at least 3 digits, ended with # (try 1/2)") in told
    assert ("gathered zip", "60614") in told
    assert ("reached", "zip gathered, complete") in told
    assert result.ending == ("abandoned", "the caller hung up in thanks")


# -- what may be known -------------------------------------------------------------------------------------------------


def live(routing: RoutingTable, events: list[e.Event]) -> Run:
    """As a real call: what happens is masked before it is logged."""
    result = Run(Session(CALL))
    for event in events:
        result.take(masked(result.session, event), routing)
    return result


def pressed(result: Run) -> str:
    """The keys that the log holds."""
    return "".join(item.digit for item in result.log if isinstance(item, e.Digit))


def test_a_sensitive_entry_leaves_its_length_only() -> None:
    routing = table(GATHER_SECRET)
    result = live(routing, [arrived(), key("8", 1), *keys("27", 2), fired("t4", 7)])
    assert pressed(result) == "•••"
    assert "invalid" in [one.what for one in result.record.trace]
    result = live(routing, [arrived(), said("p1"), *keys("8273"), said("p6", 12), key("1", 14), gone()])
    assert pressed(result) == "••••1"
    assert ("gathered pin", "•••• (4 digits)") in [(one.what, one.why) for one in result.record.trace]
    assert result.path == ["pin", "menu", "bye"]
    assert fold(result.log) == result.record


def test_a_session_and_its_notes_hold_no_digit_even_of_what_is_not_masked() -> None:
    result = run(table(GATHER_SECRET), [arrived(), said("p1"), *keys("827")])
    assert isinstance(result.session.wait, Choosing)
    assert result.session.wait.digits == "•••"
    result.take(key("3", 5), table(GATHER_SECRET))
    assert [one.digits for one in result.notes_of(note.Gathered)] == ["••••"]


@pytest.mark.parametrize(
    "after, path",
    [
        ([key("7", 5)], ["pin", "menu"]),
        # A longer number than was asked for, pressed in one go.
        (keys("1111111111", 5), ["pin", "menu"]),
        (keys("#*A", 5), ["pin", "menu"]),
        # Nothing came of it: the caller presses again.
        ([key("1", 6), key("1", 8.5)], ["pin", "menu", "bye"]),
    ],
)
def test_what_comes_after_a_sensitive_entry_belongs_to_it(after: list[e.Event], path: list[str]) -> None:
    result = live(table(GATHER_SECRET), [arrived(), said("p1"), *keys("8273"), *after])
    assert result.path == path
    held = pressed(result)
    assert held[:4] == "••••"
    assert set(held[4:-1]) <= {"•"}
    assert ("1" in held) == (path[-1] == "bye")


@pytest.mark.parametrize("leaving", [[fired("t2", 9), said("p3", 10), fired("t4", 15)], []])
def test_the_exit_after_all_tries_hides_late_keys_too(leaving: list[e.Event]) -> None:
    text = GATHER_SECRET.replace("on_exhausted: bye", "on_exhausted: menu")
    result = live(table(text), [arrived(), said("p1"), *leaving, key("1", 15.5)])
    assert pressed(result) == "•"
    assert result.path[-1] == ("menu" if leaving else "pin")


@pytest.mark.parametrize(
    "text, events",
    [
        (PLAY, []),
        (DIAL, []),
        (DIAL, [up("l1")]),
        (DIAL, [back("l1", "BUSY", 17)]),
        (MENU, [key("1", 1), up("l2")]),
        (MENU, [said("p1"), e.Resumed(T0 + 5, inside=False)]),
    ],
    ids=["playing", "ringing", "talking", "told that it is busy", "talking after a menu", "taken by the failsafe"],
)
def test_keys_that_nobody_asked_for_are_not_kept(text: str, events: list[e.Event]) -> None:
    """A card number that is pressed for somebody else, in a conversation, is none of our business."""
    asked = pressed(live(table(text), [arrived(), *events]))
    result = live(table(text), [arrived(), *events, *keys("4929", 12)])
    assert pressed(result) == asked + "••••"


def test_an_open_entry_is_kept() -> None:
    result = live(table(GATHER), [arrived(), said("p1"), *keys("60614#"), gone()])
    assert pressed(result) == "60614•"


entries = st.lists(
    st.sampled_from("0123456789").map(lambda digit: ("key", digit)) | st.sampled_from([("#", ""), ("pause", "")]),
    max_size=14,
)


@given(entries, st.permutations("0123456789"))
def test_nothing_tells_one_sensitive_entry_from_another(entry, others):
    """The same keys at the same moments, other digits: the same log to the last byte, the same session."""
    more = "  zip: {type: gather, prompt: Z, name: zip, sensitive: yes, next: bye, on_exhausted: bye}\n  menu:"
    routing = table(GATHER_SECRET.replace("next: menu", "next: zip").replace("  menu:", more))

    def logged(of: str) -> tuple[bytes, Session]:
        result = Run(Session(CALL))
        at = T0
        result.take(arrived(), routing)
        for kind, digit in entry:
            at += 0.7
            wait = result.session.wait
            if kind != "pause":
                event: e.Event = e.Digit(at, of[int(digit)] if digit else "#")
            elif isinstance(wait, Choosing):
                event = e.TimerFired(at, wait.timer_id)
            else:
                event = e.PlaybackEnded(at, getattr(wait, "playback_id", ""))
            result.take(masked(result.session, event), routing)
        lines = b"".join(encode_line(CALL, place, item) for place, item in enumerate(result.log, 1))
        assert rebuild(CALL, result.log, routing)[0] == result.session
        return lines, result.session

    assert logged("0123456789") == logged("".join(others))


def test_a_masked_key_without_its_entry_does_nothing() -> None:
    """A log may be read with another flow than it was written with."""
    for text in (MENU, GATHER, PLAY, DIAL):
        result = run(table(text), [arrived()])
        assert step(result.session, e.Digit(T0 + 2, e.HIDDEN), table(text)).session == result.session
