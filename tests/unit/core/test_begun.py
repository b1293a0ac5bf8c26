"""A call keeps the flow it began with, across a restart and whatever was changed meanwhile."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from callrouter.core import events as e
from callrouter.core.begun import stranded, table_begun_with
from callrouter.core.routing import RoutingTable, build_table
from callrouter.core.state import Calling, HandedOver, Saying
from callrouter.runtime.recovery import rebuild
from tests.builders import CALL, DID, T0, arrived, number, run, snapshot, table, version

OLD = "start: hi\nnodes:\n  hi: {type: play, prompt: Hi, next: bye}\n  bye: {type: hangup}\n"
NEW = OLD.replace("start: hi", "start: bye")
BEFORE = table(OLD)
LOG = run(BEFORE, [arrived()]).log
DIRECT_LOG = run(table(), [arrived()]).log


def now(flow: str | None = NEW, version_id: str = "version-2", **changes: Any) -> RoutingTable:
    """The configuration after the restart."""
    config = snapshot(flow, **changes)
    flows = (version(flow, id=version_id, version=3 if version_id == "version-1" else 4),) if flow is not None else ()
    return build_table(replace(config, version=8, flows=flows))


def without_number() -> RoutingTable:
    return build_table(replace(snapshot(OLD), version=8, numbers=()))


VERSIONS = {"version-1": version(OLD)}
CASES: dict[str, tuple[RoutingTable, list[RoutingTable], dict[str, Any]]] = {
    "nothing changed": (BEFORE, [], {}),
    "something else changed": (now(OLD, "version-1"), [], {}),
    "the flow changed; its text is in the database": (now(), [], VERSIONS),
    "the flow changed; the last run's routing is at hand": (now(), [BEFORE], {}),
    "the number has no flow any more": (now(None), [], VERSIONS),
    "the number was switched off": (
        now(OLD, "version-1", numbers=[number(flow="desk", active=False)]), [], VERSIONS
    ),
    "the number was removed": (without_number(), [BEFORE], {}),
    "the flow does not hold together any more": (now("start: nowhere\nnodes: {}\n"), [], VERSIONS),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_session_is_the_one_that_was(case: str) -> None:
    current, earlier, versions = CASES[case]
    found, same = table_begun_with(LOG, current, earlier, versions)
    assert same
    session, _ = rebuild(CALL, LOG, found)
    assert isinstance(session.wait, Saying)
    assert session.node == "hi"
    assert session.path == "desk@3/hi"
    assert not session.rejected


@pytest.mark.parametrize(
    "current, earlier, versions",
    [
        (now(), [], {}),
        (without_number(), [], VERSIONS),
        (now(), [], {"version-1": version("start: nowhere")}),
    ],
    ids=["the database is away", "the number was removed", "a text nobody can read"],
)
def test_without_the_flow_it_goes_on_with_todays_and_says_so(
    current: RoutingTable, earlier: list[RoutingTable], versions: dict[str, Any]
) -> None:
    assert table_begun_with(LOG, current, earlier, versions) == (current, False)


def test_a_number_that_rang_a_target_directly_still_does() -> None:
    found, same = table_begun_with(DIRECT_LOG, now(), [], {})
    assert same
    session, _ = rebuild(CALL, DIRECT_LOG, found)
    assert isinstance(session.wait, Calling)
    assert (session.wait.target, session.path) == ("ana", "direct/dial")


def test_a_number_that_was_nobodys_stays_refused() -> None:
    log = run(without_number(), [arrived()]).log
    found, same = table_begun_with(log, replace(BEFORE, version=9))
    assert same
    assert rebuild(CALL, log, found)[0].rejected


@pytest.mark.parametrize("log", [[], [arrived()], [e.Answered(T0)]], ids=["empty", "not routed yet", "no arrival"])
def test_a_call_that_was_not_routed_yet_is_routed_now(log: list[Any]) -> None:
    current = now()
    assert table_begun_with(log, current) == (current, True)


def test_other_numbers_stay_as_they_are() -> None:
    other = number("+12025550199", flow="desk")
    current = now(numbers=[number(flow="desk"), other])
    found, _ = table_begun_with(LOG, current, [], VERSIONS)
    assert found.entries["+12025550199"] == current.entries["+12025550199"]
    assert isinstance(found.entries, MappingProxyType)
    assert found.entries[DID].flow_label == "desk@3"


RINGS: list[e.Event] = [arrived(), e.LegStarted(T0 + 1, f"{CALL}-l1", "peer")]
TALKS: list[e.Event] = [*RINGS, e.LegAnswered(T0 + 5, f"{CALL}-l1")]


@pytest.mark.parametrize(
    "events, wait",
    [
        ([arrived()], HandedOver(f"{CALL}-l1", "ana")),
        (RINGS, HandedOver(f"{CALL}-l1", "ana")),
        (TALKS, HandedOver(f"{CALL}-l1", "ana", answered_at=T0 + 5)),
        ([*TALKS, e.DialReturned(T0 + 9, f"{CALL}-l1", "ANSWER", 16)], HandedOver()),
    ],
    ids=["dialled", "rings", "talks", "talked"],
)
def test_a_call_whose_flow_is_lost_keeps_what_its_log_says(events: list[e.Event], wait: HandedOver) -> None:
    session = stranded(CALL, run(table(), events).log, BEFORE)
    assert session.wait == wait
    assert session.talked == ("ana" if len(events) > 2 else None)
    assert session.entry == BEFORE.entries[DID]
