"""Flows that go on in one another: how they are linked, checked and drawn."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callrouter.core.flow import nodes as n
from callrouter.core.flow.check import Finding, check_flow
from callrouter.core.flow.draw import as_mermaid, as_text
from callrouter.core.flow.link import gaps, home, led, led_to, link, together
from callrouter.core.flow.parse import parse_flow
from callrouter.core.flow.svg import as_svg
from callrouter.core.state import HandedOver, Leaving
from tests.builders import arrived, run, table
from tests.linked_flows import ALL, DESK, NIGHT, OTHERS, SUPPORT, flows
from tests.random_flows import NAMES, node_texts


def errors(name: str, known: dict[str, n.Flow]) -> list[Finding]:
    return [
        each
        for each in check_flow(known[name], ["ana", "ben"], [], others=together(known.values()))
        if each.severity == "error"
    ]


# -- names -------------------------------------------------------------------------------------------------------------


def test_nodes_of_other_flows_bear_both_names_and_are_there_as_far_as_callers_get() -> None:
    linked = link(ALL["desk"], ALL)
    own = ["menu", "ana", "after-hours", "dept"]
    night = ["night/greet", "night/leave", "night/thanks", "night/bye"]
    support = ["support/menu", "support/ben", "support/late", "support/back"]
    assert set(linked.nodes) == {*own, *night, *support}, "support/hello is passed by"
    assert list(linked.nodes)[:4] == own
    assert linked.nodes["after-hours"] == n.GotoFlow("night", None, "night/greet")
    assert linked.nodes["support/late"] == n.GotoFlow("night", "leave", "night/leave")
    assert linked.nodes["support/back"] == n.GotoFlow("desk", None, "menu"), "the first flow's nodes keep their names"
    assert [home(linked, name) for name in ("menu", "night/greet")] == [("desk", "menu"), ("night", "greet")]
    assert gaps(linked) == []
    assert led_to("desk", ALL) == ("night", "support")
    assert led_to("night", ALL) == ()


def test_a_flow_that_goes_nowhere_else_is_linked_to_itself() -> None:
    assert link(ALL["night"], ALL) is ALL["night"]


def test_what_is_not_there_is_a_gap() -> None:
    linked = link(ALL["desk"], flows(support=SUPPORT.replace("menu:", "choose:").replace("next: menu", "next: choose")))
    assert gaps(linked) == [
        "node after-hours goes on in flow night, which is not there, or cannot be read",
        "node dept goes on in flow support, which has no node menu, or cannot be read",
    ]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_every_exit_of_every_type_of_node_is_renamed(data: st.DataObject) -> None:
    texts = [f"  {name}: {data.draw(node_texts(NAMES[:3]))}" for name in NAMES[:3]]
    flow = parse_flow("\n".join(["start: n0", "nodes:", *texts]), "night")
    for node in flow.nodes.values():
        renamed = led(node, lambda to: f"night/{to}")
        assert type(renamed) is type(node)
        assert list(n.exits(renamed)) == [
            (outcome, None if to is None else f"night/{to}") for outcome, to in n.exits(node)
        ]


def test_the_random_flows_have_every_type_of_node() -> None:
    seen: set[type] = set()

    @settings(max_examples=400, deadline=None, database=None, derandomize=True)
    @given(node_texts(["n0"]))
    def draw(text: str) -> None:
        seen.add(type(parse_flow(f"start: n0\nnodes: {{n0: {text}}}", "night").nodes["n0"]))

    draw()
    assert seen == set(get_args(n.Node))


# -- what is wrong -----------------------------------------------------------------------------------------------------


def test_flows_that_hold_together_have_no_findings() -> None:
    for name in ALL:
        assert check_flow(ALL[name], ["ana", "ben"], [], others=together(ALL.values())) == []


@pytest.mark.parametrize(
    "name, old, new, node, says, hint",
    [
        ("desk", "flow: night}", "flow: nihgt}", "after-hours", "goes on in 'nihgt', which is no flow",
         "did you mean 'night'?"),
        ("desk", "node: menu}", "node: mneu}", "dept", "goes on at 'mneu', which is no node of flow support",
         "did you mean 'menu'?"),
        ("support", "menu: {type: menu", "choose: {type: menu", "",
         "flow desk, node dept, goes on at 'menu', which is no node of this flow", "keep a node of that name"),
        ("night", "thanks: {type: play, prompt: Thank you., next: bye}", "thanks: {type: goto_flow, flow: desk}",
         "greet", "the path greet → leave → thanks → desk/menu → desk/after-hours → greet goes round without end",
         "let one of its exits"),
    ],
)  # fmt: skip
def test_jumps_that_do_not_hold_together(name: str, old: str, new: str, node: str, says: str, hint: str) -> None:
    texts = {"desk": DESK, **OTHERS}
    texts[name] = texts[name].replace(old, new)
    if name == "support":
        texts[name] = texts[name].replace("next: menu", "next: choose")
    (found,) = errors(name, flows(**texts))
    assert (found.node, says in found.message) == (node, True), found
    assert (found.hint or "").startswith(hint)


def test_a_circle_is_an_error_of_each_flow_on_it_and_of_no_other() -> None:
    there = "start: a\nnodes:\n  a: {type: goto_flow, flow: two}\n"
    known = flows(one=there, two=there.replace("two", "one"), three=there)
    assert [each.message.partition(" goes round")[0] for name in known for each in errors(name, known)] == [
        "the path a → two/a → a",
        "the path a → one/a → a",
    ]
    assert errors("three", known) == []


def test_a_circle_that_takes_a_key_is_none() -> None:
    assert "support/back" in link(ALL["desk"], ALL).nodes
    assert errors("support", ALL) == []


def unreachable(name: str, known: dict[str, n.Flow]) -> list[str]:
    return [
        each.node
        for each in check_flow(known[name], ["ana", "ben"], [], others=together(known.values()))
        if "ever gets" in each.message
    ]


def test_every_way_in_counts_for_what_callers_can_reach() -> None:
    support = SUPPORT.replace("next: menu", "next: end") + "  end: {type: hangup}\n"
    assert unreachable("support", flows(desk=DESK, night=NIGHT, support=support)) == []
    alone = flows(support=support, night=NIGHT, desk=NIGHT)
    assert unreachable("support", alone) == ["menu", "ben", "late", "back"]


def chain(length: int, ending: str) -> str:
    nodes = [f"  n{each}: {{type: tag, tags: x, next: n{each + 1}}}" for each in range(length - 1)]
    return "\n".join(["start: n0", "nodes:", *nodes, f"  n{length - 1}: {ending}", ""])


@pytest.mark.parametrize("length, says", [(100, ""), (101, "in it a caller who presses nothing could pass 201 nodes")])
def test_flows_are_no_longer_than_a_call_may_pass(length: int, says: str) -> None:
    texts = {"one": chain(100, "{type: goto_flow, flow: two}"), "two": chain(length, "{type: hangup}")}
    known = flows(**texts)
    assert [each.message.partition(";")[0] for each in errors("one", known)] == ([says] if says else [])
    told = [each.message.partition(";")[0] for each in errors("two", known)]
    assert told == ([says.replace("in it", "in flow one")] if says else []), "who edits the second is told of the first"
    made = run(table(texts["one"], others={"two": texts["two"]}), [arrived()])
    assert isinstance(made.session.wait, HandedOver if says else Leaving)


def test_flows_together_are_not_larger_than_can_be_linked() -> None:
    menu = "{type: menu, prompt: P, options: {1: n0}, on_exhausted: next}\n  next: {type: goto_flow, flow: f%d}"
    texts = {f"f{each}": chain(190, menu % (each + 1)) for each in range(5)}
    known = flows(**texts, f5=chain(190, "{type: hangup}"))
    found = [each.message for each in errors("f0", known)]
    assert found == ["with the flows that it goes on in, it has 1145 nodes; at most 1000"]


def test_languages_chosen_before_the_jump_count_after_it() -> None:
    desk = "start: es\nnodes:\n  es: {type: set, language: es, next: on}\n  on: {type: goto_flow, flow: night}\n"
    said = NIGHT.replace("prompt: We are closed.", "prompt: {en: Closed., de: Zu.}")
    (found,) = check_flow(parse_flow(said, "night"), [], [], others=together(flows(desk=desk, night=said).values()))
    assert (found.node, found.severity) == ("greet", "warning")
    assert found.message == "a prompt is not in 'es', only in en, de"


# -- drawings ----------------------------------------------------------------------------------------------------------


def test_a_drawing_shows_the_jump_as_a_box_or_what_is_behind_it() -> None:
    alone = as_text(ALL["desk"])
    assert "busy → after-hours: go on in flow night\n" in alone
    assert "digit 3 → dept: go on in flow support at menu\n" in alone
    followed = link(ALL["desk"], ALL)
    assert "next → night/greet: play “We are closed.”" in as_text(followed)
    assert "no caller gets here" not in as_text(followed)
    assert "night/greet: play" in as_mermaid(followed)
    assert "support/menu" in as_svg(followed)


def test_a_thousand_linked_nodes_are_drawn_and_planned() -> None:
    texts = {f"f{each}": chain(199, f"{{type: goto_flow, flow: f{each + 1}}}") for each in range(4)}
    known = flows(**texts, f4=chain(199, "{type: hangup}"))
    followed = link(known["f0"], known)
    assert len(as_text(followed).splitlines()) == len(followed.nodes) == 995
