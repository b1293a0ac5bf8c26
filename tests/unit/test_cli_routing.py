"""Routing as code on the command line: explained, tested, exported, checked, applied, taken back."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from callrouter.core.cdr import fold
from callrouter.core.events import Event
from callrouter.core.routing import build_table
from callrouter.core.routing_code.fields import to_snapshot
from callrouter.core.routing_code.read import read_routing
from callrouter.core.simulate import Answer, Inputs, Simulation, simulate
from callrouter.store.call_save import append_events, save_call
from callrouter.store.codec import Line, to_builtins
from callrouter.store.database import Database
from tests.builders import arrived, run
from tests.call_scripts import back, gone, key, message, said, started
from tests.unit.cli_home import Cli, acme, cli, upgraded

__all__ = ["acme", "cli", "upgraded"]

GUIDE = (Path(__file__).resolve().parents[2] / "docs/guides/routing-as-code.md").read_text("utf-8")
ROUTING, TESTS = re.findall(r"^```yaml\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
NEW = ROUTING.replace("version: 57        # the configuration that it was made from\n", "")
DID = "+12025550101"


@pytest.fixture
def house(cli: Cli, tmp_path: Path) -> Cli:
    """The guide's routing in force."""
    (tmp_path / "routing.yaml").write_text(NEW)
    cli("routing", "apply", tmp_path / "routing.yaml", "--why", "begin")
    return cli


def version(cli: Cli) -> int:
    return int(cli.json("routing", "history", "--limit", 1)[0]["version"])


# -- explain -----------------------------------------------------------------------------------------------------------


def test_explain_gives_the_trace_of_a_call(house):
    """What the very same events make of a call on a server, journal and record, is what explain shows."""
    made = house.json(
        "route", "explain", DID, "--at", "2026-11-23 10:00", "--digits", "9,1", "--answer", "busy", "--message", 7
    )
    table = build_table(to_snapshot(read_routing(ROUTING).routing, 0))
    at = 1_795_446_000.0
    moves: list[Event] = [
        *(said("p1"), key("9"), said("p3"), key("1"), started("l5"), back("l5", "BUSY", 17)),
        *(started("l6"), back("l6", "BUSY", 17), said("p8"), message("m9", 7), gone()),
    ]
    record = fold(
        run(table, [arrived(at=at, did=DID), *(replace(move, at=at + n) for n, move in enumerate(moves, 1))]).log
    )
    assert record is not None

    def plain(trace):
        return [(re.sub(r"@\d+", "", step["path"]), step["what"], re.sub(r"@\d+", "", step["why"])) for step in trace]

    live = [{"path": step.path, "what": step.what, "why": step.why} for step in record.trace]
    assert plain(made["trace"]) == plain(live)
    assert made["disposition"] == record.disposition == "voicemail"
    assert made["rung"] == ["ana", "mobile"]
    assert made["path"] == list(record.path)


def test_explain_for_people(house):
    told = house("route", "explain", "billboard", "--at", "Sat 18:05", "--from", "").stdout
    for words in ("withheld", "Sat 18:05 (America/New_York)", "closed", "Please leave a", "voicemail: left a message"):
        assert words in told
    told = house("route", "explain", DID, "--at", "Mon 10:00", "--digits", "1", "--answer", "ana=failed").stdout
    for words in (
        "dial mobile",
        "PJSIP/+12025550188@trunk-main",
        "“Call from Spring radio.”",
        "answered: mobile answered",
    ):
        assert words in told
    failover = house.json("route", "explain", DID, "--at", "Mon 10:00", "--digits", "1", "--answer", "ana=busy",
                          "--answer", "mobile=trunk-failed", "--answer", "mobile=answered")  # fmt: skip
    assert failover["rung"] == ["ana", "mobile", "mobile"]
    assert failover["answered_by"] == "mobile"


@pytest.mark.parametrize(
    "options, code, says",
    [
        (["+12025550109"], 1, "there is no number"),
        ([DID, "--at", "Sut 10:00"], 2, "no day of the week"),
        ([DID, "--digits", "1,x"], 2, "no key of a telephone"),
        ([DID, "--digits", "1,606x"], 2, "no key of a telephone"),
        ([DID, "--digits", "1,,2"], 2, "no key of a telephone"),
        ([DID, "--answer", "ana=bussy"], 2, "nothing that a target does"),
        ([DID, "--answer", "anna=busy"], 2, "no target 'anna'"),
        ([DID, "--from", "12"], 2, "telephone number"),
    ],
)
def test_explain_refuses(house, options, code, says):
    assert says in house.refusal("route", "explain", *options, code=code)["error"]


# -- flow test ---------------------------------------------------------------------------------------------------------


def test_the_guides_expectations_hold(house, tmp_path):
    (tmp_path / "desk.tests.yaml").write_text(TESTS)
    found = house.json("flow", "test", tmp_path / "desk.tests.yaml")
    assert [each["ok"] for each in found["tests"]] == [True] * 3
    assert "3 of 3 hold" in house("flow", "test", tmp_path / "desk.tests.yaml").stdout
    (tmp_path / "new.yaml").write_text(NEW.replace("on_closed: message", "on_closed: bye"))
    result = house("flow", "test", tmp_path / "desk.tests.yaml", "--routing", tmp_path / "new.yaml", code=1)
    assert "expected: hours, message, bye" in result.stdout
    assert "got:      hours, bye" in result.stdout
    assert "2 of 3 hold, 1 do not" in result.stdout


@pytest.mark.parametrize(
    "old, new, line, column, says",
    [
        ("digits: 1\n", "digits: 1,x\n", 7, 13, "'x' is no key"),
        ("expect: {disposition: answered,", "expects: {disposition: answered,", 4, 5, "needs 'expect'"),
        ("disposition: voicemail", "disposition: voicemial", 16, 20, "cannot be 'voicemial'"),
        ("number: billboard", "number: bilboard", 5, 13, "no number 'bilboard'"),
        ("rings: ana,", "rings: anna,", 8, 13, "no target 'anna'"),
        ("answers: {ana: busy", "answers: {ann: busy", 14, 14, "no target 'ann'"),
        ("path: [hours, message, bye]", "path: [hours, massage, bye]", 25, 13, "no node 'massage'"),
        ("at: Mon 10:00", "at: Mun 10:00", 6, 9, "no day of the week"),
        ("flow: front-desk ", "flow: frontdesk ", 22, 11, "no flow 'frontdesk'"),
        ("company: acme", "company: acne", 1, 1, "no number"),
        ("    flow: front-desk ", "    number: billboard\n    flow: front-desk ", 21, 5, "one of number and flow"),
    ],
)
def test_errors_in_expectations_have_their_place(house, old, new, line, column, says):
    assert old in TESTS
    told = house.refusal("flow", "test", "-", code=2, input=TESTS.replace(old, new, 1))["error"]
    assert says in told
    if "acne" not in new:
        assert f"line {line}, column {column}: " in told


def test_a_flow_may_be_read_from_beside_its_tests(house, tmp_path):
    (tmp_path / "other.yaml").write_text("start: bye\nnodes:\n  bye: {type: hangup, cause: busy}\n")
    tests = "tests:\n  - {flow: other.yaml, expect: {hangup: busy, path: bye, rings: nobody, recorded: no}}\n"
    (tmp_path / "t.yaml").write_text(tests)
    assert house.json("flow", "test", tmp_path / "t.yaml")["ok"]
    (tmp_path / "t.yaml").write_text(tests.replace("hangup: busy", "hangup: normal, says: hello, tags: a, avoids: bye"))
    found = house.json("flow", "test", tmp_path / "t.yaml", "--trace", code=1)["tests"][0]["differences"]
    assert [each["what"] for each in found] == ["tags", "hangup", "avoids", "says"]


def test_titles_that_a_routing_file_leaves_out_are_spoken_as_they_will_be(cli, tmp_path):
    (tmp_path / "r.yaml").write_text(NEW.replace("    title: Acme Plumbing\n", ""))
    tests = "tests:\n  - {flow: front-desk, at: 2026-11-23 10:00, expect: {says: calling Acme.}}\n"
    assert cli.json("flow", "test", "-", "--routing", tmp_path / "r.yaml", input=tests)["ok"]


# -- export, check, apply ----------------------------------------------------------------------------------------------


def test_what_is_exported_changes_nothing_when_applied(house, tmp_path):
    before = version(house)
    text = house("routing", "export").stdout
    file = tmp_path / "out.yaml"
    house("routing", "export", "--output", file)
    assert file.read_text() == text
    assert "password" not in text
    assert house.json("routing", "apply", file)["changes"] == []
    assert version(house) == before
    one = house("routing", "export", "--company", "acme").stdout
    assert "trunks:" not in one
    assert house.json("routing", "check", "-", input=one) == {"ok": True, "findings": [], "changes": []}
    assert house.refusal("routing", "export", "--company", "acne", code=1)["hint"] == "did you mean acme?"


def test_a_dry_run_says_what_would_change_and_changes_nothing(house):
    before = version(house)
    new = NEW.replace("ring_seconds: 20", "ring_seconds: 30").replace("{1: sales,", "{1: sales, 3: mobile,")
    new = new.replace("    numbers:\n", '    numbers:\n      "+12025550102": {name: bus, target: ana}\n')
    told = house.json("routing", "apply", "-", "--dry-run", input=new)
    assert told["applied"] is False
    assert "edit target acme/mobile: ring_seconds 20 → 30" in told["changes"]
    assert "    +    options: {1: sales, 3: mobile, 2: message}" in told["changes"]
    assert "add number acme/+12025550102: name bus, target ana" in told["changes"]
    assert version(house) == before
    assert len(house.json("number", "list")) == 1


def test_apply_is_all_or_nothing_and_points_at_the_line(house):
    before = version(house)
    new = NEW.replace("title: Ana,", "title: Anna,").replace(
        "    numbers:\n", '    numbers:\n      "+12025550102": {name: Not A Name, target: ana}\n'
    )
    refused = house.refusal("routing", "apply", "-", code=2, input=new)
    line = next(n for n, text in enumerate(new.split("\n"), 1) if "Not A Name" in text)
    assert f"line {line}, column 23: " in refused["error"]
    assert "cannot be the name" in refused["error"]
    assert version(house) == before
    assert house.json("target", "show", "ana")["title"] == "Ana"


def test_what_is_left_out_of_a_list_is_removed_after_asking(house, tmp_path):
    file = tmp_path / "r.yaml"
    text = NEW[: NEW.index("    numbers:\n")]
    file.write_text(text + "    numbers:\n")
    assert house.json("routing", "apply", file)["changes"] == [], "nothing is said of numbers"
    file.write_text(text + "    numbers: {}\n")
    assert "Remove number acme/+12025550101?" in house.refusal("routing", "apply", file, code=2)["error"]
    assert len(house.json("number", "list")) == 1
    assert house.json("routing", "apply", file, "--yes")["applied"]
    assert house.json("number", "list") == []
    file.write_text("format: 1\ncompanies: {}\n")
    assert house.json("routing", "apply", file)["changes"] == [], "a company that is not named stays"


def test_what_is_in_use_is_not_removed(house):
    house("number", "add", "+12025550107", "--target", "ana", "--name", "other")
    text = NEW.replace("      ana: {title: Ana, sip_uri: sip:ana@192.0.2.10}\n", "").replace(
        "target: ana", "target: mobile"
    )
    text = text[: text.index("    numbers:\n")]  # nothing is said of numbers: they stay
    found = house.json("routing", "check", "-", input=text, code=1)["findings"]
    assert any("+12025550107" in each["message"] and "'ana'" in each["message"] for each in found), found


def test_somebody_elses_change_is_not_undone(house, tmp_path):
    file = tmp_path / "r.yaml"
    house("routing", "export", "--output", file)
    house("target", "edit", "mobile", "--ring-seconds", 12, "--why", "shorter")
    house("campaign", "add", "tv", "--source", "tv", "--medium", "offline")
    refused = house.refusal("routing", "apply", file, "--yes", code=4)
    assert "edit target acme/mobile: ring_seconds 20 → 12" in refused["error"]
    assert "campaign acme/tv was added" in refused["error"]
    # What is now in the file as it is in force is no matter of dispute, nor is what the file does not touch.
    text = file.read_text().replace("ring_seconds: 20", "ring_seconds: 12").replace("title: Ana,", "title: Anna,")
    text = text.replace("    targets:", "      tv: {title: Tv, source: tv, medium: offline}\n    targets:")
    file.write_text(text)
    applied = house.json("routing", "apply", file)
    assert applied["changes"] == ["edit target acme/ana: title Ana → Anna"]
    # The file says now which configuration it is.
    assert f"\nversion: {applied['version']}\n" in file.read_text()
    assert house.json("routing", "apply", file)["changes"] == []
    assert (
        "another installation"
        in house.refusal("routing", "apply", "-", code=4, input=ROUTING.replace("57", "5700"))["hint"]
    )


def test_check_finds_what_is_wrong_with_places(house):
    text = NEW.replace("target: ana, on_busy", "target: anna, on_busy").replace(
        "08:00-18:00; PH off", "08:00-18:00; off"
    )
    found = house.json("routing", "check", "-", input=text, code=1)
    places = {(each["severity"], each["line"], each["column"]) for each in found["findings"]}
    line = next(n for n, each in enumerate(text.split("\n"), 1) if "anna" in each)
    assert ("error", line, text.split("\n")[line - 1].index("anna") + 1) in places
    assert "for ever" in json.dumps(found)
    assert house.json("routing", "check", "-", input=text.replace("type: menu", "type: manu"), code=1)["findings"][0][
        "hint"
    ]
    assert house.json("routing", "check", "-", "--alone", input=NEW)["ok"]


def test_trunks_ask_for_their_password(house):
    text = NEW.replace("spare: {host: 192.0.2.40}", "spare: {host: 192.0.2.40, registers: yes, username: me}")
    (found,) = house.json("routing", "check", "-", input=text)["findings"]
    assert found["severity"] == "warning"
    assert found["hint"] == "callrouter trunk secret spare"
    text = NEW.replace("spare: {host: 192.0.2.40}", "spare: {host: 192.0.2.40, match: [0.0.0.0/0]}")
    (found,) = house.json("routing", "check", "-", input=text, code=1)["findings"]
    assert "matches the whole world" in found["message"]


# -- history -----------------------------------------------------------------------------------------------------------


def test_history_show_and_rollback(house):
    before = version(house)
    text = house("routing", "export").stdout
    (first, *_) = house.json("routing", "history", "--limit", 1)
    assert first["who"] == "tester"
    assert first["why"] == "routing.yaml: begin"
    house("target", "edit", "ana", "--title", "Anna")
    house("number", "rm", "billboard", "--yes", "--why", "gone")
    shown = house("routing", "show", before + 1).stdout
    assert "Ana " in shown
    assert "Anna" in shown
    assert house.json("routing", "show", before + 2)["why"] == "gone"
    whole = house("routing", "show", before, "--whole").stdout
    assert whole == text.replace(f"version: {before}\n", "")
    told = house.json("routing", "rollback", before, "--dry-run")
    assert told["changes"] == [
        "edit target acme/ana: title Anna → Ana",
        "add number acme/+12025550101: name billboard, campaign spring-radio, flow front-desk, backup mobile",
    ]
    assert version(house) == before + 2
    assert house.json("routing", "rollback", before, "--yes", "--why", "oops")["version"] == before + 4
    assert house("routing", "export").stdout == text.replace(f"version: {before}\n", f"version: {before + 4}\n")
    assert house.json("routing", "history", "--limit", 1)[0]["why"] == f"rollback to {before}: oops"
    assert "nothing to change" in house("routing", "rollback", before).stdout
    assert house.refusal("routing", "rollback", 999, code=1)["hint"] == f"there are 0 to {before + 4}"
    assert house.refusal("routing", "show", 0, code=1)["error"] == "version 0 was no change"


def test_a_company_made_since_stays_without_numbers(house):
    before = version(house)
    house("company", "add", "zeta", "--timezone", "UTC")
    house("target", "add", "zoe", "--company", "zeta", "--sip-uri", "sip:zoe@192.0.2.9")
    house("number", "add", "+12025550190", "--company", "zeta", "--target", "zoe", "--name", "z")
    told = house.json("routing", "rollback", before, "--yes")
    assert any("company zeta was made since" in each for each in told["stays"])
    assert [each["name"] for each in house.json("company", "list")] == ["acme", "zeta"]
    assert len(house.json("number", "list")) == 1
    assert [each["name"] for each in house.json("target", "list")] == ["ana", "mobile"]


def test_nothing_configured_yet(cli):
    assert "Nothing was configured yet" in cli("routing", "history").stdout
    assert cli.json("routing", "apply", "-", input=cli("routing", "export").stdout)["changes"] == []


def test_the_schema_is_json(cli):
    assert json.loads(cli("routing", "schema").stdout)["title"] == "callrouter routing"


# -- plan --------------------------------------------------------------------------------------------------------------


def test_plan_says_who_goes_elsewhere_and_when(house, tmp_path):
    file = tmp_path / "next.yaml"
    file.write_text(NEW)
    assert "no call goes elsewhere (1 number compared, 400 days ahead)" in house("routing", "plan", file).stdout
    house("routing", "plan", file, "--exit-code")

    lunch = NEW.replace("Mo-Fr 08:00-18:00", "Mo-Fr 08:00-12:00,13:00-18:00")
    file.write_text(lunch.replace("campaign: spring-radio, flow", "flow"))
    told = house("routing", "plan", file).stdout
    assert "billboard (+12025550101):" in told
    assert "Mon–Fri 12:00–13:00" in told
    assert "will be voicemail" in told
    assert "attributed to campaign: was spring-radio (radio / offline), will be none" in told
    assert "1 number answered otherwise than now" in told
    made = house.json("routing", "plan", file, "--exit-code", "--days", 60, code=1)
    (change,) = made["changes"]
    assert change["numbers"] == [{"number": DID, "name": "billboard"}]
    (outcome,) = change["outcomes"]
    assert (outcome["was"], outcome["will"]) == ("Ana, then Mobile, then voicemail", "voicemail")
    assert outcome["keys"] == [["1", "nothing", "another key", "only other keys"]]
    assert outcome["periods"][0]["week"][0] == ["12:00–13:00"]


def test_plan_gives_the_errors_of_a_file(house, tmp_path):
    file = tmp_path / "next.yaml"
    file.write_text(NEW.replace("target: ana", "target: anna"))
    refused = house.refusal("routing", "plan", file, code=2)
    assert "anna" in refused["error"]
    assert re.search(r"line \d+", refused["error"])


# -- replay ------------------------------------------------------------------------------------------------------------


def keep(cli: Cli, made: Simulation, call_id: str) -> None:
    """A call in the database, as the drain leaves it."""
    record = replace(made.record, id=call_id, uniqueid=call_id, number_id=None, campaign_id=None, company_id=None)
    lines = [
        Line(call_id, place, item.at, type(item).__name__, to_builtins(item)) for place, item in enumerate(made.log, 1)
    ]

    async def work() -> None:
        database = Database(f"sqlite+aiosqlite:///{cli.home / 'callrouter.db'}")
        async with database.session() as session:
            await save_call(session, replace(record, flow_version_id=None, legs=(), recordings=()))
            await append_events(session, lines)
        await database.dispose()

    asyncio.run(work())


def test_replay_tells_which_calls_would_have_gone_elsewhere(house, tmp_path):
    table = build_table(to_snapshot(read_routing(ROUTING).routing, 0))
    monday = 1_795_446_000.0
    for place, (digits, answer) in enumerate([("1", "answered"), ("1", "busy"), ("2", "answered")]):
        inputs = Inputs((digits,), (("ana", (Answer(answer),)),), message_seconds=9)
        keep(house, simulate(table, DID, "+13125550199", monday + 600 * place, inputs), f"0199-000{place}")
    same = house.json("route", "replay", "--since", "2026-11-01")
    assert (same["calls"], same["counts"]["same"], same["differences"]) == (3, 3, [])
    assert re.search(r"calls: +3\n", house("route", "replay", "--since", "2026-11-01").stdout)

    file = tmp_path / "next.yaml"
    exits = "on_busy: {0}, on_no_answer: {0}, on_failed: {0}"
    file.write_text(NEW.replace(exits.format("mobile"), exits.format("bye")))
    found = house.json("route", "replay", "--since", "2026-11-01", "--against", file)
    (lost,) = found["differences"]
    assert (lost["call"], lost["verdict"], lost["doubts"]) == ("0199-0001", "missed", [])
    assert (lost["then"]["rung"], lost["now"]["rung"]) == (["ana", "mobile"], ["ana"])
    assert lost["now"]["disposition"] == "busy"
    told = house("route", "replay", "--since", "2026-11-01", "--against", file).stdout
    assert "answered (ana, mobile)" in told
    assert "busy (ana)" in told

    house("block", "add", "+1312*", "--company", "acme")
    blocked = house.json("route", "replay", "--since", "2026-11-01", "--against", file)
    assert {each["now"]["disposition"] for each in blocked["differences"]} == {"blocked"}
    assert blocked["counts"]["missed"] == 3
    house("block", "rm", "+1312*", "--company", "acme")

    file.write_text(NEW.replace("2: message}", "2: message, 3: sales}").replace("1: sales", "1: message"))
    doubtful = house.json("route", "replay", "--since", "2026-11-01", "--against", file)
    assert doubtful["doubts"] == {"a message is asked for that nobody was asked for then": 2}
    assert "There are no calls" in house("route", "replay", "--since", "2027-01-01").stdout
    house.refusal("route", "replay", "--since", "soon", code=2)
