from __future__ import annotations

import pytest

from callrouter.core.flow.check import Finding, check_flow, dialled, prompts_of, reachable
from callrouter.core.flow.parse import parse_flow

BYE = "\n  bye: {type: hangup}\n"
DIAL = "type: dial, target: ana"
SAFE = "on_busy: bye, on_no_answer: bye, on_failed: bye"


def findings(nodes: str, start: str = "a") -> list[Finding]:
    flow = parse_flow(f"start: {start}\nnodes:\n{nodes}{BYE}", "desk")
    return check_flow(flow, ["ana", "ben"], ["jingle"])


def test_a_sound_flow_has_no_findings():
    assert findings(f"  a: {{{DIAL}, {SAFE}}}") == []


@pytest.mark.parametrize(
    "nodes,node,says,hint",
    [
        (f"  a: {{type: dial, target: anna, {SAFE}}}", "a", "dials 'anna', which is no target", "did you mean 'ana'?"),
        (f"  a: {{type: dial, target: zzz, {SAFE}}}", "a", "dials 'zzz'", "known: ana, ben"),
        (
            "  a: {type: voicemail, greeting: {file: jingl}, on_failed: bye}",
            "a",
            "plays 'jingl', which is no uploaded prompt",
            "did you mean 'jingle'?",
        ),
        (
            "  a: {type: voicemail, greeting: 'Hi {nme}', on_failed: bye}",
            "a",
            "no placeholder {nme}",
            "known: {campaign}, {number}, {company}",
        ),
        (f"  a: {{{DIAL}, {SAFE}, whisper: 'from {{x}}'}}", "a", "no placeholder {x}", "known:"),
        (
            "  a: {type: menu, prompt: P, invalid_prompt: '{', options: {1: v}, on_exhausted: v}\n"
            "  v: {type: voicemail, on_failed: bye}",
            "a",
            "no placeholder {",
            "known:",
        ),
        (
            "  a: {type: gather, prompt: {file: jingl}, name: zip, next: v, on_exhausted: v}\n"
            "  v: {type: voicemail, on_failed: bye}",
            "a",
            "plays 'jingl', which is no uploaded prompt",
            "did you mean 'jingle'?",
        ),
    ],
)
def test_what_a_flow_names_must_be_there(nodes, node, says, hint):
    (found,) = [one for one in findings(nodes) if one.severity == "error"]
    assert found.node == node
    assert says in found.message
    assert (found.hint or "").startswith(hint)


def test_a_node_nobody_reaches_is_a_warning():
    found = findings(f"  a: {{{DIAL}, {SAFE}}}\n  lost: {{type: hangup}}")
    assert [(one.severity, one.node) for one in found] == [("warning", "lost")]


def test_a_flow_without_person_or_voicemail_is_a_warning():
    (found,) = findings("  a: {type: play, prompt: Hi, next: bye}")
    assert (found.severity, found.message) == ("warning", "no path reaches a person or a voicemail")


@pytest.mark.parametrize(
    "nodes,circle",
    [
        ("  a: {type: tag, tags: x, next: a}", "a → a"),
        ("  a: {type: play, prompt: x, next: b}\n  b: {type: tag, tags: x, next: a}", "a → b → a"),
        (f"  a: {{{DIAL}, on_busy: a, on_no_answer: bye, on_failed: bye}}", "a → a"),
        ("  a: {type: menu, prompt: x, options: {1: bye}, on_exhausted: a}", "a → a"),
        ("  a: {type: menu, prompt: x, options: {1: bye}, on_exhausted: bye, on_timeout: a}", "a → a"),
        ("  a: {type: gather, prompt: x, name: zip, next: bye, on_exhausted: a}", "a → a"),
        ("  a: {type: gather, prompt: x, name: zip, next: bye, on_exhausted: bye, on_timeout: a}", "a → a"),
        ("  a: {type: voicemail, on_failed: bye, on_done: a}", "a → a"),
        ("  a: {type: hours, open: 24/7, on_open: bye, on_closed: a}", "a → a"),
    ],
)
def test_a_circle_without_a_key_press_is_an_error(nodes, circle):
    (found,) = [one for one in findings(nodes) if one.severity == "error"]
    assert circle in found.message
    assert found.hint


@pytest.mark.parametrize(
    "nodes",
    [
        "  a: {type: menu, prompt: x, options: {1: a}, on_exhausted: bye}",
        "  a: {type: menu, prompt: x, options: {1: bye}, on_exhausted: bye, on_invalid: sorry}\n"
        "  sorry: {type: play, prompt: That is no choice., next: a}",
        "  a: {type: gather, prompt: x, name: zip, next: a, on_exhausted: bye, on_invalid: a}",
        "  a: {type: menu, prompt: x, options: {9: b}, on_exhausted: bye}\n"
        "  b: {type: menu, prompt: y, options: {9: a}, on_exhausted: bye}",
    ],
)
def test_a_circle_that_needs_a_key_press_is_allowed(nodes):
    assert [one for one in findings(nodes) if one.severity == "error"] == []


def test_errors_come_before_warnings():
    found = findings("  lost: {type: hangup}\n  a: {type: tag, tags: x, next: a}")
    assert [one.severity for one in found] == sorted(one.severity for one in found)
    assert found[0].severity == "error"


def test_the_longest_flow_that_parses_can_be_checked():
    nodes = "\n".join(f"  n{index}: {{type: tag, tags: x, next: n{index + 1}}}" for index in range(198))
    assert [one.severity for one in findings(f"{nodes}\n  n198: {{type: hangup}}", start="n0")] == [
        "warning", "warning"
    ]  # fmt: skip


def test_targets_are_listed_from_the_start_outwards():
    flow = parse_flow(
        "start: m\nnodes:\n"
        "  far: {type: dial, target: ben, on_busy: bye, on_no_answer: bye, on_failed: bye}\n"
        "  near: {type: dial, target: ana, on_busy: far, on_no_answer: far, on_failed: far}\n"
        "  again: {type: dial, target: ana, on_busy: bye, on_no_answer: bye, on_failed: bye}\n"
        "  m: {type: menu, prompt: [P, {file: jingle}], invalid_prompt: No, options: {1: near, 2: again}, "
        "on_exhausted: near}\n"
        "  lost: {type: dial, target: eve, on_busy: bye, on_no_answer: bye, on_failed: bye}\n"
        "  bye: {type: hangup}\n",
        "desk",
    )
    assert dialled(flow) == ["ana", "ben"]
    assert reachable(flow) == ["m", "near", "again", "far", "bye"]
    assert [prompt.text or prompt.file for prompt in prompts_of(flow.nodes["m"])] == ["P", "jingle", "No"]
    assert prompts_of(flow.nodes["bye"]) == ()
