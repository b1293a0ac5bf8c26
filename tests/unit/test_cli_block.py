"""Block lists on the command line; and what the dialplan gets of them."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sqlite3

import pytest

from callrouter.asterisk.conffile import parse_conf
from callrouter.asterisk.failsafe import FailsafeBlock, render_failsafe
from callrouter.core.blocks import Block, block_list
from callrouter.core.routing import build_table
from callrouter.errors import InputError
from callrouter.runtime.configuration import failsafe_blocks
from callrouter.store.call_save import save_call
from callrouter.store.database import Database
from tests.builders import CALLER, T0, arrived, company, run, snapshot
from tests.unit.cli_home import Cli, acme, cli, upgraded

__all__ = ["acme", "cli", "upgraded"]


def test_nobody_is_blocked_at_first(cli: Cli) -> None:
    assert "Nobody is blocked" in cli("block", "list").stdout
    assert cli.json("block", "list") == []


def test_blocks_are_added_listed_and_removed(acme: Cli) -> None:
    acme("block", "add", "(312) 555-0199", "--reason", "robo\x1b[31mcaller", "--why", "many complaints")
    acme("block", "add", "+1900*", "--company", "acme", "--with", "busy", "--until", "30d")
    acme("block", "add", "anonymous", "--company", "acme")
    found = acme.json("block", "list")
    assert [(each["company"], each["pattern"], each["cause"], each["counts"]) for each in found] == [
        (None, "+13125550199", "rejected", True),
        ("acme", "+1900*", "busy", True),
        ("acme", "anonymous", "rejected", True),
    ]
    assert found[0]["reason"] == "robo[31mcaller"
    assert (found[1]["created_by"], found[0]["expires_at"]) == ("tester", None)
    assert found[1]["expires_at"] is not None
    shown = acme("block", "list", "--company", "acme").stdout
    assert "+1900*" in shown
    assert "all companies" in shown
    history = acme.json("routing", "history")
    assert "add block +13125550199" in [each["what"] for each in history]
    assert "many complaints" in json.dumps(history)
    acme("block", "rm", "+1 312 555 0199")
    acme("block", "rm", "+1900*", "--company", "acme")
    assert [each["pattern"] for each in acme.json("block", "list")] == ["anonymous"]


def test_a_block_ends_at_its_companys_wall_clock(acme: Cli) -> None:
    acme("block", "add", "+1900*", "--company", "acme", "--until", "2031-01-01")
    acme("block", "add", "+1901*", "--until", "2031-01-01")
    ends = {each["pattern"]: each["expires_at"] for each in acme.json("block", "list")}
    assert ends["+1900*"].startswith("2031-01-01T05:00:00"), "midnight in New York"
    assert ends["+1901*"].startswith("2031-01-01T00:00:00")


def test_what_cannot_be_blocked(acme: Cli) -> None:
    acme("block", "add", "+1900*", "--company", "acme")
    assert "already" in acme.refusal("block", "add", "+1900*", "--company", "acme", code=4)["error"]
    acme("block", "add", "+1900*")  # for all others, too
    acme.refusal("block", "add", "1900*", code=2)
    acme.refusal("block", "add", "+1901*", "--until", "2020-01-01", code=2)
    acme.refusal("block", "add", "+1901*", "--until", "soon", code=2)
    acme.refusal("block", "add", "+1901*", "--company", "amce", code=1)
    acme.refusal("block", "add", code=2)
    acme.refusal("block", "add", "+1901*", "--call", "abcd", code=2)
    acme.refusal("block", "add", "--call", "abcd", code=1)
    acme("block", "rm", "+1900*")
    assert "--company acme" in acme.refusal("block", "rm", "+1900*", code=1)["hint"]


@pytest.mark.parametrize("caller,pattern", [(CALLER, CALLER), (None, "anonymous")])
def test_the_caller_of_a_call_is_blocked(acme: Cli, caller: str | None, pattern: str) -> None:
    owner = acme.json("company", "show", "acme")["id"]
    record = run(build_table(snapshot()), [arrived(call_id="0199-0001", caller=caller)]).record

    async def store() -> None:
        database = Database(f"sqlite+aiosqlite:///{acme.home / 'callrouter.db'}")
        async with database.session() as session:
            await save_call(session, dataclasses.replace(record, company_id=owner))
        await database.dispose()

    asyncio.run(store())
    added = acme.json("block", "add", "--call", "0199-0001", "--reason", "abusive")
    assert (added["pattern"], added["company_id"]) == (pattern, owner)


def test_an_expired_block_can_be_added_again(acme: Cli) -> None:
    acme("block", "add", "+1900*", "--until", "1h")
    with sqlite3.connect(acme.home / "callrouter.db") as direct:
        direct.execute("UPDATE block SET expires_at = '2020-01-01 00:00:00.000000'")
    direct.close()
    assert "(over)" in acme("block", "list").stdout
    acme("block", "add", "+1900*", "--reason", "again")
    assert [(each["reason"], each["counts"]) for each in acme.json("block", "list")] == [("again", True)]


def test_the_policies_of_a_company(acme: Cli) -> None:
    shown = acme("company", "show", "acme").stdout
    assert "let in" in shown
    acme("company", "edit", "acme", "--reject-anonymous", "--max-calls-per-caller", 5, "--caller-window", 600)
    found = acme.json("company", "show", "acme")
    names = ("accept_anonymous", "max_calls_per_caller", "caller_window")
    assert [found[name] for name in names] == [False, 5, 600]
    assert "at most 5 in 10 minutes" in acme("company", "show", "acme").stdout
    acme("company", "edit", "acme", "--accept-anonymous", "--max-calls-per-caller", "none")
    assert acme.json("company", "show", "acme")["max_calls_per_caller"] is None
    acme.refusal("company", "edit", "acme", "--max-calls-per-caller", "five", code=2)


def test_what_the_dialplan_reads() -> None:
    blocks = [
        FailsafeBlock("", CALLER, 21),
        FailsafeBlock("c-1", "+1900*", 17, until=T0),
        FailsafeBlock("c-1", "anonymous", 21),
        FailsafeBlock("c-1", "2501", 1),
    ]
    sections = {
        section.name: {entry.key: entry.value for entry in section.entries}
        for section in parse_conf("x", render_failsafe([], blocks)).sections
    }
    for_ever = "21-9999999999"
    spellings = ("+13125550199", "13125550199", "0013125550199", "3125550199")
    assert sections["block-all"] == {f"n{spelling}": for_ever for spelling in spellings}
    ends = f"17-{int(T0)}"
    assert sections["block-c-1"] == {
        "p+1900": ends, "p1900": ends, "p001900": ends, "anonymous": for_ever, "n2501": "1-9999999999",
    }  # fmt: skip
    for pattern in ("+1900*\nx", "x", "+1;2", ""):
        with pytest.raises(InputError):
            render_failsafe([], [FailsafeBlock("", pattern, 21)])


def test_the_dialplan_gets_what_counts_now() -> None:
    table = build_table(snapshot(of=company(accept_anonymous=False)))
    listed = (Block("1", None, CALLER, expires_at=T0), Block("2", "company-1", "+1900*", cause="busy"))
    table = dataclasses.replace(table, blocks=block_list(listed))
    assert failsafe_blocks(table, T0 + 1) == [
        FailsafeBlock("company-1", "anonymous", 21),
        FailsafeBlock("company-1", "+1900*", 17),
    ]
