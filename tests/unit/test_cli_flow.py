"""Flows on the command line: saved, refused with line and column, edited, checked, drawn."""

from __future__ import annotations

import stat
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from callrouter.core.flow.parse import parse_flow
from callrouter.core.flow.svg import as_svg
from tests.unit.cli_home import Cli, acme, cli, upgraded

__all__ = ["acme", "cli", "upgraded"]

GOOD = """\
title: Front desk
start: greet
nodes:
  greet: {type: menu, prompt: "For sales press 1.", options: {1: sales}, on_exhausted: sales}
  sales: {type: dial, target: ana, on_busy: bye, on_no_answer: bye, on_failed: bye}
  bye: {type: hangup}
"""
NO_TARGET = GOOD.replace("target: ana", "target: anna")
NO_NODE = GOOD.replace("on_busy: bye", "on_busy: by")
ENDLESS = """\
start: a
nodes:
  a: {type: play, prompt: Hello., next: b}
  b: {type: tag, tags: [x], next: a}
"""


@pytest.fixture
def desk(acme: Cli, tmp_path: Path) -> Cli:
    (tmp_path / "desk.yaml").write_text(GOOD)
    acme("flow", "add", "desk", tmp_path / "desk.yaml", "--why", "first")
    return acme


def editor(directory: Path, *texts: str) -> str:
    """A program that writes the first text at its first call, the second at its second …"""
    for number, text in enumerate(texts):
        (directory / f"text-{number}").write_text(text)
    script = directory / "editor"
    script.write_text(
        "#!/bin/sh\n"
        f'n=$(cat "{directory}/count" 2>/dev/null || echo 0)\n'
        f'cp "{directory}/text-$n" "$1"\n'
        f'echo $((n + 1)) > "{directory}/count"\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return str(script)


def test_life_of_a_flow(desk, tmp_path):
    assert desk.json("flow", "list") == [{"company": "acme", "name": "desk", "version": 1, "numbers": []}]
    assert desk("flow", "show", "acme/desk").stdout == GOOD
    changed = GOOD.replace("press 1", "press one")
    assert desk.json("flow", "edit", "desk", "-", "--why", "words", input=changed)["version"] == 2
    assert "as it was (version 2)" in desk("flow", "edit", "desk", "-", input=changed).stdout
    versions = desk.json("flow", "versions", "desk")
    assert [(v["version"], v["who"], v["why"]) for v in versions] == [(2, "tester", "words"), (1, "tester", "first")]
    assert "press 1" in desk("flow", "show", "desk", "--version", 1).stdout
    assert desk.refusal("flow", "show", "desk", "--version", 9, code=1)["hint"] == "it has 1 to 2"
    desk("flow", "edit", "desk", "--name", "reception")
    assert "flow reception" in desk.refusal("target", "rm", "ana", "--yes", code=4)["error"]
    desk("number", "add", "+12025550100", "--flow", "reception")
    assert desk.json("flow", "list")[0]["numbers"] == ["+12025550100"]
    assert "+12025550100" in desk.refusal("flow", "rm", "reception", "--yes", code=4)["error"]
    desk("number", "rm", "+12025550100", "--yes")
    desk("flow", "rm", "reception", "--yes")
    assert "No flows yet" in desk("flow", "list").stdout


@pytest.mark.parametrize(
    "text, place, says",
    [
        (NO_TARGET, "line 5, column 31", "'anna', which is no target"),
        (NO_NODE, "line 5, column 45", "'by', which is no node"),
        (ENDLESS, "line 3, column 3", "goes round without end"),
        ("start: [", "line 2, column 1", "not YAML"),
        (GOOD.replace("type: hangup", "type: hang-up"), "line 6, column 15", "type cannot be 'hang-up'"),
    ],
)
def test_a_broken_flow_is_refused_with_its_place(acme, text, place, says):
    told = acme.refusal("flow", "add", "desk", "-", code=2, input=text)["error"]
    assert place in told
    assert says in told
    assert acme.json("flow", "list") == []


def test_check_lists_everything_with_places(desk, tmp_path):
    (tmp_path / "new.yaml").write_text(NO_TARGET + "  lost: {type: hangup}\n")
    found = desk.json("flow", "check", tmp_path / "new.yaml", code=1)
    assert found["ok"] is False
    assert [(f["severity"], f["node"], f["line"], f["column"]) for f in found["findings"]] == [
        ("error", "sales", 5, 31),
        ("warning", "lost", 7, 3),
    ]
    assert found["findings"][0]["hint"] == "did you mean 'ana'?"
    assert "nothing is wrong" in desk("flow", "check", "desk").stdout
    assert desk.json("flow", "check", "-", input=GOOD) == {"ok": True, "findings": []}
    assert desk.refusal("flow", "check", tmp_path / "none.yaml", code=2)
    assert desk.refusal("flow", "check", "dusk", code=1)["hint"] == "did you mean desk?"


def test_the_editor_is_opened_again_until_it_holds(desk, tmp_path):
    env = {"EDITOR": editor(tmp_path, NO_TARGET, GOOD.replace("press 1", "dial 1"))}
    result = desk("flow", "edit", "desk", input="y\n", env=env)
    assert "line 5, column 31" in result.stderr
    assert "saved as version 2" in result.stdout


def test_giving_up_in_the_editor_keeps_the_text(desk, tmp_path):
    env = {"EDITOR": editor(tmp_path, NO_TARGET), "TMPDIR": str(tmp_path)}
    result = desk("flow", "edit", "desk", input="n\n", env=env)
    kept = Path(result.stderr.split("your text is in ")[1].split()[0])
    assert kept.read_text() == NO_TARGET
    kept.unlink()
    assert desk.json("flow", "versions", "desk")[0]["version"] == 1


def test_without_terminal_and_editor_a_file_is_needed(desk):
    assert "give a file" in desk.refusal("flow", "edit", "desk", code=2)["hint"]


def test_a_flow_changed_meanwhile_is_not_overwritten(desk, tmp_path, monkeypatch):
    """While the editor is open, somebody else saves a version."""

    def meanwhile(text: str, **_: object) -> str:
        desk("flow", "edit", "desk", "-", input=GOOD.replace("press 1", "press uno"))
        return text.replace("press 1", "press eins")

    monkeypatch.setattr("callrouter.cli.flow_text.click.edit", meanwhile)
    told = desk.refusal("flow", "edit", "desk", code=4, env={"EDITOR": "true"})
    assert "changed meanwhile (version 2, yours was 1)" in told["error"]


def test_adding_in_the_editor_begins_with_a_sample(acme, tmp_path):
    """The sample itself is a flow that holds together."""
    script = tmp_path / "touch-it"
    script.write_text('#!/bin/sh\necho "# mine" >> "$1"\n')
    script.chmod(0o755)
    acme("flow", "add", "front-desk", env={"EDITOR": str(script)})
    text = acme("flow", "show", "front-desk").stdout
    assert "title: Front desk" in text
    assert "target: ana" in text
    assert text.endswith("# mine\n")


def test_draw(desk, tmp_path):
    assert "sales: dial ana" in desk("flow", "draw", "desk").stdout
    assert desk("flow", "draw", "desk", "--format", "mermaid").stdout.startswith("flowchart")
    desk("flow", "draw", "desk", "--format", "svg", "-o", tmp_path / "desk.svg")
    ET.fromstring((tmp_path / "desk.svg").read_text())
    assert desk.json("flow", "draw", "desk", "--format", "svg")["drawing"].startswith("<svg")


DESK = """\
start: greet
nodes:
  greet: {type: menu, prompt: "For sales press 1.", options: {1: sales}, on_exhausted: closed}
  sales: {type: dial, target: ana, on_busy: closed, on_no_answer: closed, on_failed: closed}
  closed: {type: goto_flow, flow: night}
"""
NIGHT = """\
start: hello
nodes:
  hello: {type: play, prompt: We are closed., next: leave}
  leave: {type: voicemail, on_failed: bye}
  bye: {type: hangup}
"""


def test_flows_that_go_on_in_one_another(desk, tmp_path):
    refused = desk.refusal("flow", "edit", "desk", "-", code=2, input=DESK)
    assert "line 5, column 35: node 'closed' goes on in 'night', which is no flow" in refused["error"]
    desk("flow", "add", "night", "-", input=NIGHT)
    (typo,) = desk.json("flow", "check", "-", code=1, input=DESK.replace("flow: night", "flow: nigth"))["findings"]
    assert (typo["line"], typo["column"], typo["hint"]) == (5, 35, "did you mean 'night'?")
    at = DESK.replace("flow: night", "flow: night, node: leav")
    (typo,) = desk.json("flow", "check", "-", code=1, input=at)["findings"]
    assert (typo["line"], typo["column"], typo["hint"]) == (5, 48, "did you mean 'leave'?")
    desk("flow", "edit", "desk", "-", input=DESK.replace("flow: night", "flow: night, node: leave"))

    assert "flow desk" in desk.refusal("flow", "rm", "night", "--yes", code=4)["error"]
    renamed = desk.refusal("flow", "edit", "night", "--name", "late", code=4)
    assert renamed["error"] == "flow 'night' cannot change its name: flow desk goes on in it by name"
    without = NIGHT.replace("next: leave", "next: bye").replace("  leave: {type: voicemail, on_failed: bye}\n", "")
    refused = desk.refusal("flow", "edit", "night", "-", code=2, input=without)["error"]
    assert refused == "flow desk, node closed, goes on at 'leave', which is no node of this flow"
    # The two may go on in each other; the second one's way back is saved last.
    circle = NIGHT.replace("{type: hangup}", "{type: goto_flow, flow: desk}")
    round_trip = "leave → bye → desk/greet → desk/closed → leave goes round without end"
    assert round_trip in desk.refusal("flow", "edit", "night", "-", code=2, input=circle)["error"]
    asked = NIGHT.replace("leave: {", "leave: {on_done: again, ") + (
        "  again: {type: menu, prompt: Press 1., options: {1: front}, on_exhausted: bye}\n"
        "  front: {type: goto_flow, flow: desk}\n"
    )
    desk("flow", "edit", "night", "-", input=asked)
    assert "flow night" in desk.refusal("flow", "rm", "desk", "--yes", code=4)["error"]
    assert desk.json("flow", "check", "desk")["ok"]

    desk("number", "add", "+12025550100", "--flow", "desk")
    assert "goes on in:   flow night" in desk("number", "show", "+12025550100").stdout
    assert desk.json("number", "show", "+12025550100")["goes_on_in"] == ["night"]
    assert "goes on in" not in desk("number", "list").stdout
    explained = desk("route", "explain", "+12025550100").stdout
    assert "desk@2/closed" in explained
    assert "night@2/leave" in explained

    assert "closed: go on in flow night at leave\n" in desk("flow", "draw", "desk").stdout
    (tmp_path / "desk.yaml").write_text(DESK)
    followed = desk("flow", "draw", tmp_path / "desk.yaml", "--follow").stdout
    assert "next → night/hello: play “We are closed.”" in followed
    assert "done → night/again: menu" in followed
    assert "digit 1 → night/front: go on in flow desk" in followed
    assert "next → greet (above)" in followed


def boxes(svg: str) -> dict[str, tuple[float, float, float, float]]:
    """Node name → x, y, width, height."""
    space = "{http://www.w3.org/2000/svg}"
    found = {}
    for group in ET.fromstring(svg).iter(f"{space}g"):
        rect, label = group.find(f"{space}rect"), group.find(f"{space}text")
        assert rect is not None
        assert label is not None
        x, y, width, height = (float(rect.get(key, "")) for key in ("x", "y", "width", "height"))
        found[(label.text or "").removeprefix("▶ ")] = (x, y, width, height)
    return found


def test_a_picture_has_every_node_and_none_overlap():
    nodes = "".join(
        f"  n{i}: {{type: dial, target: t, on_failed: n0, "
        f"on_busy: n{(i * 7 + 1) % 30}, on_no_answer: n{(i * 5 + 3) % 30}}}\n"
        for i in range(30)
    )
    flow = parse_flow(f"start: n0\nnodes:\n{nodes}", "many")
    placed = boxes(as_svg(flow))
    assert set(placed) == set(flow.nodes)
    for name, (x, y, width, height) in placed.items():
        for other, (x2, y2, _, _) in placed.items():
            apart = x2 >= x + width or x >= x2 + width or y2 >= y + height or y >= y2 + placed[other][3]
            assert name == other or apart, (name, other)
    assert as_svg(flow) == as_svg(flow)


def test_a_picture_escapes_everything():
    hostile = '"</text><script>alert(1)</script>&\\x1b[2J\\u202e"'
    flow = parse_flow(
        f"title: {hostile}\nstart: a\nnodes:\n  a: {{type: play, prompt: {hostile}, next: b}}\n  b: {{type: hangup}}\n",
        "x",
    )
    drawn = as_svg(flow)
    tags = {element.tag.rpartition("}")[2] for element in ET.fromstring(drawn).iter()}
    assert tags <= {"svg", "title", "defs", "marker", "path", "rect", "text", "g"}
    assert "\x1b" not in drawn
    assert "\u202e" not in drawn


def test_the_longest_flow_is_drawn():
    nodes = "".join(f"  n{i}: {{type: tag, tags: [x], next: n{i + 1}}}\n" for i in range(199))
    flow = parse_flow(f"start: n0\nnodes:\n{nodes}  n199: {{type: hangup}}\n", "deep")
    assert as_svg(flow).count("<g>") == 200
