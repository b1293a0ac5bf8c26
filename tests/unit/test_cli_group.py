"""Groups on the command line and in the routing file; and whose turn it is after a restart."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

import pytest

from callrouter.core import actions as a
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.groups import Facts
from callrouter.runtime.rotation import Rotation, follow_journal, learn_rotation
from callrouter.store.database import Database
from callrouter.store.drain import Drain
from callrouter.store.journal import Journal
from tests.builders import arrived
from tests.unit.cli_home import Cli, acme, cli, upgraded

__all__ = ["acme", "cli", "upgraded"]

FLOW = """
start: ring
nodes:
  ring: {type: dial, group: sales, on_busy: end, on_no_answer: end, on_failed: end}
  end: {type: hangup}
"""


@pytest.fixture
def sales(acme: Cli, tmp_path: Path) -> Cli:
    """A group of two that a flow rings."""
    acme("target", "add", "bob", "--sip-uri", "sip:bob@192.0.2.10")
    acme("group", "add", "sales", "--member", "ana", "--member", "bob:ring=20", "--strategy", "round-robin")
    (tmp_path / "main.yaml").write_text(FLOW)
    acme("flow", "add", "main", tmp_path / "main.yaml")
    acme("number", "add", "+12025550101", "--name", "line", "--flow", "main")
    return acme


def test_a_group_is_added_shown_and_listed(sales):
    shown = sales.json("group", "show", "sales")
    assert shown["strategy"] == "round-robin"
    assert shown["members"] == [
        {"target": "ana", "ring_seconds": None, "weight": 1, "tier": 1},
        {"target": "bob", "ring_seconds": 20, "weight": 1, "tier": 1},
    ]
    assert [one["name"] for one in sales.json("group", "list")] == ["sales"]
    assert "ana, bob:ring=20" in sales("group", "list").output


def test_without_groups_it_says_how_to_add_one(acme):
    assert "callrouter group add sales" in acme("group", "list").output


def test_a_group_is_edited_and_what_needs_it_keeps_it(sales):
    sales("group", "edit", "sales", "--strategy", "weighted", "--member", "bob:weight=3", "--member", "ana")
    assert [one["weight"] for one in sales.json("group", "show", "sales")["members"]] == [3, 1]
    assert "flow main rings it" in sales.refusal("group", "edit", "sales", "--name", "team", code=4)["error"]
    assert "flow main" in sales.refusal("group", "rm", "sales", "--yes", code=4)["error"]
    assert "group sales" in sales.refusal("target", "rm", "ana", "--yes", code=4)["error"]
    assert "weighted" in sales.refusal("group", "edit", "sales", "--strategy", "in-order", code=2)["hint"]


@pytest.mark.parametrize(
    "args, code, said",
    [
        (("--member", "ana", "--member", "ana"), 2, "twice"),
        (("--member", "anna"), 1, "no target 'anna'"),
        ((), 2, "1 to 50 members"),
        (("--member", "ana:ring=0"), 2, "out of range"),
    ],
)
def test_a_group_that_cannot_be_is_refused(acme, args, code, said):
    assert said in acme.refusal("group", "add", "team", *args, code=code)["error"]


def test_a_flow_that_rings_no_group_is_refused(acme, tmp_path):
    (tmp_path / "main.yaml").write_text(FLOW)
    refusal = acme.refusal("flow", "add", "main", tmp_path / "main.yaml", code=2)
    assert "dials 'sales', which is no group" in refusal["error"]
    assert refusal["hint"] == "add one: callrouter group add"


def test_a_routing_file_holds_groups(sales, tmp_path):
    text = sales("routing", "export").stdout
    assert "members: [ana, {target: bob, ring_seconds: 20}]" in text
    file = tmp_path / "routing.yaml"
    file.write_text(text)
    assert "othing" in sales("routing", "apply", file).output
    version = sales.json("routing", "history", "--limit", 1)[0]["version"]
    file.write_text(text.replace("{target: bob, ring_seconds: 20}", "{target: bob, ring_seconds: 30}"))
    sales("routing", "apply", file)
    assert sales.json("group", "show", "sales")["members"][1]["ring_seconds"] == 30
    sales("routing", "rollback", version, "--yes")
    assert sales.json("group", "show", "sales")["members"][1]["ring_seconds"] == 20
    file.write_text(text.replace("ring_seconds: 20", "weight: 2"))
    assert "does not look at" in sales("routing", "check", file, code=1).output
    file.write_text(text.replace("members: [ana, ", "members: [anna, "))
    assert "there is no target 'anna'" in sales("routing", "check", file, code=1).output


def test_explain_rings_a_group(sales):
    told = sales("route", "explain", "+12025550101", "--answer", "ana=busy").output
    assert "ana was busy" in told
    assert "bob answered" in told


# -- whose turn --------------------------------------------------------------------------------------------------------

BEGIN = float(int(time.time())) - 3600
"""An hour ago: whom nobody rang for a month counts as never rung."""
ASKED = a.AskGroup("c-g1", "group-1", ("target-ana", "target-ben"))


def planned(call: str, leg: str, name: str, at: float) -> note.LegPlanned:
    return note.LegPlanned(at, "desk@3/d", f"{call}-{leg}", f"target-{name}", name, "PJSIP/x", 25, "rings")


def log_of(call: str, turn: int) -> list[object]:
    """A call whose turn it was, and that ana answered."""
    return [
        arrived(BEGIN + turn, call_id=call, channel=f"{call}.1"),
        e.GroupKnown(BEGIN + 1, f"{call}-g1", "group-1", Facts(turn=turn)),
        planned(call, "l2", "ana", BEGIN + 1),
        e.LegAnswered(BEGIN + 5, f"{call}-l2"),
        e.CallerHungUp(BEGIN + 30 + turn),
        note.Concluded(BEGIN + 30 + turn, "answered", "ana answered"),  # type: ignore[arg-type]
    ]


def test_facts_follow_the_calls():
    rotation = Rotation()
    for item in log_of("c1", 0)[:-2]:
        rotation.follow("c1", item)  # type: ignore[arg-type]
    assert rotation.ask(ASKED) == Facts(1, (("target-ana", BEGIN + 1),), (), ("target-ana",))
    rotation.follow("c1", e.CallerHungUp(BEGIN + 30))
    assert rotation.ask(ASKED) == Facts(2, (("target-ana", BEGIN + 1),), (("target-ana", BEGIN + 30),), ())


@pytest.mark.parametrize("drained", [0, 1, 2], ids=["nothing", "one call", "all"])
def test_a_restart_knows_whose_turn_it_is(upgraded, tmp_path, drained):
    """From the database as far as the journal was drained, from the journal what was not."""
    shutil.copy(upgraded, tmp_path / "callrouter.db")

    async def lives() -> Facts:
        database, journal = Database(f"sqlite+aiosqlite:///{tmp_path}/callrouter.db"), Journal(tmp_path / "journal")
        drain = Drain(journal, database)
        for turn in range(2):
            for item in log_of(f"c{turn}", turn):
                journal.append(f"c{turn}", item)  # type: ignore[arg-type]
            if turn < drained:
                assert await drain.flush(20)
        journal.sync()
        journal.close()
        rotation = Rotation()
        await follow_journal(rotation, tmp_path / "journal")
        await learn_rotation(rotation, database)
        await database.dispose()
        return rotation.ask(ASKED)

    assert asyncio.run(lives()) == Facts(2, (("target-ana", BEGIN + 1),), (("target-ana", BEGIN + 31),), ())
