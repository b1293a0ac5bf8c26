"""Opening hours that are put aside for a time: whose, until when, and what the dialplan knows of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callrouter.core.failsafe_plan import at_moment, failsafe_windows
from callrouter.core.hours import override_for
from callrouter.core.model import HoursOverride
from callrouter.core.routing import RoutingTable, build_table
from callrouter.core.simulate import simulate
from callrouter.runtime.recovery import rebuild
from callrouter.store.codec import decode, to_builtins
from tests.builders import CALL, DID, arrived, company, run, snapshot
from tests.call_scripts import flow

FLOW = flow(
    "open",
    "open: {type: hours, open: 'Mo-Fr 09:00-17:00', on_open: ana, on_closed: late}",
    "ana: {type: dial, target: ana, on_busy: bye, on_no_answer: bye, on_failed: bye}",
    "late: {type: play, prompt: Closed, next: bye}",
)


def new_york(day: int, hour: int, minute: int = 0) -> float:
    """October 2025; the 13th is a Monday."""
    return datetime(2025, 10, day, hour, minute, tzinfo=ZoneInfo("America/New_York")).timestamp()


def override(state: str = "closed", until: float = new_york(13, 15), **changes: object) -> HoursOverride:
    found = HoursOverride("override-1", "company-1", state, until)
    return replace(found, **changes)  # type: ignore[arg-type]


def routing(*overrides: HoursOverride, text: str = FLOW) -> RoutingTable:
    return build_table(replace(snapshot(text), overrides=overrides))


OF_FLOW = override("open", new_york(14, 8), flow="desk", reason="fair")
CLOSED = override(reason="snow")


@pytest.mark.parametrize(
    "overrides, at, goes, why",
    [
        ((), new_york(13, 12), "ana", "Mon 12:00 (America/New_York) against 'Mo-Fr 09:00-17:00'"),
        ((CLOSED,), new_york(13, 12), "late", "overridden for the company until 2025-10-13 Mon 15:00"),
        ((CLOSED,), new_york(13, 14, 59), "late", "(America/New_York): snow"),
        ((CLOSED,), new_york(13, 15), "ana", "Mon 15:00 (America/New_York) against"),
        ((override("open"),), new_york(13, 3), "ana", "overridden for the company until 2025-10-13 Mon 15:00"),
        ((OF_FLOW,), new_york(13, 20), "ana", "overridden for flow desk until 2025-10-14 Tue 08:00"),
        ((CLOSED, OF_FLOW), new_york(13, 12), "ana", "overridden for flow desk"),
        ((OF_FLOW, CLOSED), new_york(13, 12), "ana", "overridden for flow desk"),
        # The flow's is over, the company's is not.
        ((replace(OF_FLOW, until=new_york(13, 11)), CLOSED), new_york(13, 12), "late", "for the company"),
        ((replace(CLOSED, flow="other"),), new_york(13, 12), "ana", "against"),
        ((replace(CLOSED, company_id="company-2"),), new_york(13, 12), "ana", "against"),
    ],
)
def test_whose_hours_are_overridden_and_until_when(overrides, at, goes, why):
    table = routing(*overrides)
    made = simulate(table, DID, None, at)
    assert made.record.path[1] == goes
    word = "open" if goes == "ana" else "closed"
    (said,) = [one.why for one in made.record.trace if one.what == word]
    assert why in said
    # The dialplan alone does the same.
    assert bool(at_moment(table.entries[DID], at).destinations) is (goes == "ana")


def test_an_override_counts_for_the_calls_that_came_while_it_was_there():
    """A call is what its log says, also for a server that starts when the override is gone."""
    with_it, without = routing(CLOSED), routing()
    at = new_york(13, 12)
    event = arrived(at, overrides=with_it.overrides_of(DID, at))
    assert decode("CallArrived", to_builtins(event)) == event
    before = run(with_it, [event])
    assert before.path == ["open", "late"]
    assert rebuild(CALL, before.log, without)[0].node == "late"
    assert run(with_it, [arrived(at)]).path == ["open", "ana"]


def test_what_is_over_does_not_stand_in_a_call():
    table = routing(CLOSED)
    assert table.overrides_of(DID, new_york(13, 14)) == (CLOSED,)
    assert table.overrides_of(DID, new_york(13, 15)) == ()
    assert table.overrides_of("+12025559999", new_york(13, 14)) == ()


def test_the_end_is_told_in_the_nodes_own_zone():
    there = FLOW.replace("'Mo-Fr 09:00-17:00'", "'Mo-Fr 09:00-17:00', timezone: Europe/Berlin")
    made = simulate(routing(CLOSED, text=there), DID, None, new_york(13, 12))
    assert "until 2025-10-13 Mon 21:00 (Europe/Berlin)" in made.record.trace[2].why


def test_hours_that_cannot_be_read_are_overridden_too():
    broken = replace(snapshot(FLOW, of=company(timezone="Mars/Olympus")), overrides=(CLOSED,))
    made = simulate(build_table(broken), DID, None, new_york(13, 12))
    assert made.record.path == ("open", "late", "bye")
    assert "until 2025-10-13 Mon 19:00 (UTC): snow" in made.record.trace[2].why


def test_the_dialplan_knows_when_an_override_ends():
    windows = failsafe_windows(routing(CLOSED).entries[DID], new_york(13, 12))
    assert [(one.until, len(one.alone.destinations)) for one in windows[:3]] == [
        (new_york(13, 15), 0),
        (new_york(13, 17), 1),
        (new_york(14, 9), 0),
    ]


def test_the_dialplan_knows_of_one_that_outlasts_all_changes():
    windows = failsafe_windows(routing(override(until=new_york(31, 23))).entries[DID], new_york(13, 12))
    assert [len(one.alone.destinations) for one in windows] == [0]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.builds(
            override,
            st.sampled_from(["open", "closed"]),
            st.sampled_from([new_york(13, 10), new_york(15, 12), new_york(20, 4), new_york(31, 0)]),
            flow=st.sampled_from([None, "desk"]),
        ),
        max_size=2,
    ),
    st.floats(0, 13 * 86400),
)
def test_a_window_of_the_dialplan_says_what_the_flow_says(overrides, offset):
    entry = routing(*overrides).entries[DID]
    begin = new_york(12, 3)
    inside = next(w for w in failsafe_windows(entry, begin) if w.until is None or begin + offset < w.until)
    assert inside.alone == at_moment(entry, begin + offset)


ZONES = {
    # Zone, the last moment before the clocks change, the hour that follows on the wall clock.
    "America/New_York": ("2026-03-08T06:59+00:00", 3),
    "Europe/Berlin": ("2026-10-25T00:59+00:00", 2),
    "Australia/Lord_Howe": ("2026-04-04T14:59+00:00", 1),
    "Asia/Kolkata": ("2026-03-08T06:59+00:00", 12),
}


@pytest.mark.parametrize("zone", ZONES)
def test_an_override_ends_at_its_instant_whatever_the_clocks_do(zone):
    last, hour = ZONES[zone]
    until = datetime.fromisoformat(last).timestamp() + 60
    assert datetime.fromtimestamp(until, ZoneInfo(zone)).hour == hour
    one = override(until=until)
    assert override_for([one], "desk", until - 1) == one
    assert override_for([one], "desk", until) is None
