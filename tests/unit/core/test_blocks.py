from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.begun import table_begun_with
from callrouter.core.blocks import ANONYMOUS, Block, block_list, checked_pattern
from callrouter.core.disposition import Disposition
from callrouter.core.identity import CallerHistory
from callrouter.core.routing import RoutingTable, build_table
from callrouter.core.session import BLOCKED, step
from callrouter.core.state import Session
from callrouter.errors import InputError
from tests.builders import CALLER, T0, Run, arrived, company, ledger_row, run, snapshot

OWN = "company-1"


@pytest.mark.parametrize(
    "text,country,kept",
    [
        ("+1 (312) 555-0199", "US", CALLER),
        ("3125550199", "US", CALLER),
        ("020 7946 0018", "GB", "+442079460018"),
        ("+1900*", "US", "+1900*"),
        (" +1 900 * ", "US", "+1900*"),
        ("Anonymous", "US", ANONYMOUS),
        ("2501", "US", "2501"),
    ],
)
def test_a_pattern_is_kept_in_one_spelling(text: str, country: str, kept: str):
    assert checked_pattern(text, country) == kept
    assert checked_pattern(kept, country) == kept


@pytest.mark.parametrize(
    "text", ["", "*", "+*", "1900*", "+1*900", "+1 900 x*", "nobody", "+1312555", "+0900*", "+1**"]
)
def test_what_is_no_pattern_is_refused(text: str):
    with pytest.raises(InputError):
        checked_pattern(text, "US")


def blocks(*patterns: str, of: str | None = OWN, **more: Any) -> tuple[Block, ...]:
    return tuple(Block(f"b-{pattern}", of, pattern, **more) for pattern in patterns)


@pytest.mark.parametrize(
    "listed,caller,found",
    [
        ((CALLER,), CALLER, CALLER),
        ((CALLER,), CALLER + "0", None),
        (("+1312*",), CALLER, "+1312*"),
        (("+1*",), CALLER, "+1*"),
        ((CALLER + "*",), CALLER, CALLER + "*"),
        # The most exact one says why.
        (("+1*", "+1312*", CALLER), CALLER, CALLER),
        (("+1*", "+1312*"), CALLER, "+1312*"),
        (("+1313*",), CALLER, None),
        ((ANONYMOUS,), CALLER, None),
        ((ANONYMOUS,), None, ANONYMOUS),
        (("+1*",), None, None),
        (("2501",), "2501", "2501"),
    ],
)
def test_who_is_blocked(listed: tuple[str, ...], caller: str | None, found: str | None):
    block = block_list(blocks(*listed)).find(OWN, caller, T0)
    assert (block.pattern if block else None) == found
    assert block_list(blocks(*listed, of="company-2")).find(OWN, caller, T0) is None
    everywhere = block_list(blocks(*listed, of=None)).find(OWN, caller, T0)
    assert (everywhere.pattern if everywhere else None) == found


def test_a_block_ends():
    listed = block_list(blocks("+1*") + blocks(CALLER, expires_at=T0))
    for at, pattern in ((T0 - 1, CALLER), (T0, "+1*")):
        found = listed.find(OWN, CALLER, at)
        assert found is not None
        assert found.pattern == pattern


def routing(*listed: Block, **policy: Any) -> RoutingTable:
    return build_table(replace(snapshot(of=company(**policy)), blocks=listed))


def called(table: RoutingTable, **changes: Any) -> Run:
    return run(table, [arrived(**changes), e.CallerHungUp(T0 + 1, 21)])


REFUSALS: list[tuple[RoutingTable, dict[str, Any], int, str]] = [
    (routing(*blocks(CALLER, reason="robocaller")), {}, 21,
     f"{CALLER} is on the block list of acme ({CALLER}), robocaller"),
    (routing(*blocks("+1312*", of=None, cause="busy")), {}, 17,
     f"{CALLER} is on the block list of all companies (+1312*)"),
    (routing(*blocks(ANONYMOUS)), {"caller": None}, 21,
     "a withheld number is on the block list of acme (anonymous)"),
    (routing(accept_anonymous=False), {"caller": None}, 21,
     "acme takes no calls from withheld numbers (anonymous)"),
    (routing(max_calls_per_caller=3, caller_window=600), {"history": CallerHistory(9, T0 - 60, None, (), 3)}, 21,
     "3 calls before this one in 10 minutes; at most 3 are taken"),
]  # fmt: skip


@pytest.mark.parametrize("table,changes,cause,why", REFUSALS)
def test_a_refused_caller_meets_no_flow(table: RoutingTable, changes: dict[str, Any], cause: int, why: str):
    made = called(table, **changes)
    assert (made.record.disposition, made.record.reason) == (Disposition.BLOCKED, why)
    assert (made.record.company_id, made.record.path, made.record.legs) == (OWN, (), ())
    assert [action.cause for action in made.actions if hasattr(action, "cause")] == [cause]


@pytest.mark.parametrize(
    "table,changes",
    [
        (routing(*blocks("+1313*")), {}),
        (routing(*blocks(CALLER, expires_at=T0 - 1)), {}),
        (routing(accept_anonymous=False), {}),
        (routing(max_calls_per_caller=3), {"history": CallerHistory(9, T0 - 60, None, (), 2)}),
        # What is not known keeps nobody out.
        (routing(max_calls_per_caller=3), {"history": None}),
    ],
)
def test_others_are_let_in(table: RoutingTable, changes: dict[str, Any]):
    assert called(table, **changes).record.legs


def test_a_number_that_is_nobodys_is_rejected_and_not_blocked():
    assert called(routing(*blocks(CALLER)), did="+12025559999").record.disposition is Disposition.REJECTED


def test_a_call_keeps_the_verdict_that_it_began_with():
    """Read again after a restart, with another list in force."""
    open_table, closed = routing(), replace(routing(*blocks(CALLER)), version=8)
    event = arrived()
    for first, second in ((open_table, closed), (closed, open_table)):
        begun = step(Session("c"), event, first)
        again, same = table_begun_with([event, *begun.notes], second)
        assert same
        repeated = step(Session("c"), event, again)
        assert repeated.session.blocked == begun.session.blocked
        assert [type(each) for each in repeated.actions] == [type(each) for each in begun.actions]
        assert isinstance(begun.notes[0], note.Routed)
        assert begun.notes[0].blocked is (first is closed)


def test_what_the_dialplan_refused_by_itself_is_blocked():
    row = ledger_row(billsec=0.0, answer=None, dialstatus=BLOCKED, target="", leg="")
    for table in (routing(), routing(*blocks(CALLER, reason="robocaller"))):
        came = arrived(handled_by="failsafe", unwatched="FAILED")
        made = run(table, [came, e.LedgerClosed(T0 + 1, 0.0, None, 21, row.dialstatus)])
        assert made.record.disposition is Disposition.BLOCKED
        assert "block list" in made.record.reason
