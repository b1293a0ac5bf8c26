"""Who called before: from the database into memory, and then call by call."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from callrouter.core import events as e
from callrouter.core.identity import NO_CALLS, CallerHistory
from callrouter.core.records import CallRecord
from callrouter.core.routing import build_table
from callrouter.runtime.callers import LOOK_BACK, Callers
from callrouter.store import callers as store
from callrouter.store.call_save import save_call
from callrouter.store.callers import StoredCaller, stored_callers
from callrouter.store.database import Database
from tests.builders import CALLER, T0, arrived, company, run, snapshot
from tests.call_scripts import flow

OWN = company(caller_window=600)
TAGGED = build_table(
    snapshot(
        flow(
            "tag",
            "tag: {type: tag, tags: [vip], next: ana}",
            "ana: {type: dial, target: ana, on_busy: end, on_no_answer: end, on_failed: end}",
            "end: {type: hangup}",
        )
    )
)


def call(ident: str, at: float, **changes: Any) -> CallRecord:
    record = run(build_table(snapshot()), [arrived(at, call_id=ident, channel=ident)]).record
    return replace(record, legs=(), **changes)


async def kept(database: Database, *records: CallRecord) -> list[StoredCaller]:
    async with database.session() as session:
        for record in records:
            await save_call(session, record)
    async with database.session(read_only=True) as session:
        return sorted(await stored_callers(session, T0 - LOOK_BACK, T0), key=lambda each: each.number)


async def test_what_the_database_tells(database: Database) -> None:
    found = await kept(
        database,
        call("1", T0 - 900_000, answered_by="ana", tags=("vip",)),
        call("2", T0 - 90_000, answered_by="ben", tags=("vip", "new")),
        call("3", T0 - 500),
        call("4", T0 - 400, caller="+13125550100"),
        call("5", T0 - 300, caller=None),
        call("6", T0 - 200, company_id=None),
        call("7", T0 - LOOK_BACK - 1),
        call("8", T0 + 1),
    )
    assert [(each.number, each.calls, each.last_at) for each in found] == [
        ("+13125550100", 1, T0 - 400),
        (CALLER, 3, T0 - 500),
    ]
    known = found[1]
    assert (known.last_target, known.answered_at, set(known.tags)) == ("ben", T0 - 90_000, {"vip", "new"})
    assert known.recent == (T0 - 500,)


async def test_of_too_many_those_who_called_last_are_told(database: Database, monkeypatch: Any) -> None:
    monkeypatch.setattr(store, "MOST", 2)
    records = [call(str(count), T0 - count, caller=f"+1312555010{count}") for count in range(1, 5)]
    assert [each.number for each in await kept(database, *records)] == ["+13125550101", "+13125550102"]


def taken(callers: Callers, at: float, ident: str = "c", **changes: Any) -> CallerHistory | None:
    """A call of CALLER with tag vip that ana answers; what was known when it came."""
    came = arrived(at, call_id=ident, **changes)
    before = callers.history(OWN, came.caller, at)
    made = run(TAGGED, [came])
    leg = made.record.legs[0].id
    made = run(TAGGED, [came, e.LegAnswered(at + 1, leg), e.CallerHungUp(at + 9, 16)])
    for item in made.log:
        callers.follow(ident, item)
    return before


def test_calls_are_followed() -> None:
    callers = Callers(since=T0)
    callers.learn([])
    assert taken(callers, T0, "1") == NO_CALLS
    assert taken(callers, T0 + 60, "2") == CallerHistory(1, T0, "ana", ("vip",), 1)
    # Older than the company's window, and counted all the same.
    assert taken(callers, T0 + 630, "3") == CallerHistory(2, T0 + 60, "ana", ("vip",), 1)
    assert callers.history(OWN, "+13125550100", T0) == NO_CALLS
    assert callers.history(replace(OWN, id="company-2"), CALLER, T0) == NO_CALLS
    assert taken(callers, T0 + 700, "4", caller=None) is None
    assert callers.history(OWN, CALLER, T0 + 86400 * 2) == CallerHistory(3, T0 + 630, "ana", ("vip",), 0)


def test_until_the_past_is_known_nobody_is_taken_for_new() -> None:
    callers = Callers(since=T0)
    assert taken(callers, T0, "1") is None
    callers.learn([StoredCaller("company-1", CALLER, 4, T0 - 500, "ben", T0 - 9000, ("old",), (T0 - 500,))])
    assert callers.history(OWN, CALLER, T0 + 60) == CallerHistory(5, T0, "ana", ("vip", "old"), 2)


def test_the_past_does_not_replace_what_is_newer() -> None:
    callers = Callers(since=T0)
    callers.learn([StoredCaller("company-1", CALLER, 1, T0 - 500, "ben", T0 - 490)])
    assert callers.history(OWN, CALLER, T0) == CallerHistory(1, T0 - 500, "ben", (), 0)
    taken(callers, T0)
    found = callers.history(OWN, CALLER, T0 + 1)
    assert found is not None
    assert (found.calls, found.last_target) == (2, "ana")


def test_who_called_longest_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callrouter.runtime.callers.MOST", 3)
    monkeypatch.setattr("callrouter.runtime.callers.SPARE", 2)
    callers = Callers(since=T0)
    callers.learn([])
    for count in range(6):
        taken(callers, T0 + count, caller=f"+1312555010{count}")
    known = [callers.history(OWN, f"+1312555010{count}", T0 + 9) != NO_CALLS for count in range(6)]
    assert known == [False, False, True, True, True, True]


def test_a_call_that_is_taken_in_late_counts_once() -> None:
    """From Asterisk's record: before the past is known it is part of that, afterwards it is not."""
    callers = Callers(since=T0)
    taken(callers, T0 - 60, "1")
    callers.learn([StoredCaller("company-1", CALLER, 1, T0 - 60, "ben", T0 - 59, (), (T0 - 60,))])
    taken(callers, T0, "2")
    taken(callers, T0 - 90, "3")
    assert callers.history(OWN, CALLER, T0 + 1) == CallerHistory(3, T0, "ana", ("vip",), 3)
