from __future__ import annotations

from dataclasses import replace

from callrouter.core.flow.draw import as_mermaid, as_text, summary
from callrouter.core.flow.nodes import Gather, Play, Prompt
from callrouter.core.flow.parse import parse_flow

FLOW = parse_flow(
    """
title: Front "desk" <1>
start: menu
nodes:
  menu: {type: menu, prompt: Press 1., options: {1: ana, 2: menu}, on_exhausted: vm, on_timeout: gone}
  ana: {type: dial, target: ana, on_busy: vm, on_no_answer: vm, on_failed: gone, ring: 20}
  vm: {type: voicemail, greeting: {file: hello}, on_failed: gone}
  gone: {type: hangup, cause: busy}
  lost: {type: hours, open: 24/7, on_open: lost-tag, on_closed: gone}
  lost-tag: {type: tag, tags: [a, b], next: gone}
""",
    "desk",
)


def test_the_tree_draws_every_node_once_and_names_every_exit():
    assert as_text(FLOW) == (
        "menu: menu “Press 1.”, 5 s × 3\n"
        "  digit 1 → ana: dial ana, 20 s\n"
        "    answered → hang up\n"
        "    busy → vm: voicemail “[hello]”, up to 120 s\n"
        "      done → hang up\n"
        "      failed → gone: hang up (busy)\n"
        "    no answer → vm (above)\n"
        "    failed → gone (above)\n"
        "  digit 2 → menu (above)\n"
        "  timeout → gone (above)\n"
        "  exhausted → vm (above)\n"
        "lost: hours 24/7 (no caller gets here)\n"
        "lost-tag: tag a, b (no caller gets here)\n"
    )


def test_the_chart_has_every_node_every_exit_and_no_raw_markup():
    chart = as_mermaid(FLOW)
    lines = chart.splitlines()
    assert lines[0] == "flowchart TD"
    assert lines[1] == '  start(["Front &quot;desk&quot; &lt;1&gt;"]) --> n0'
    assert '  n0 -->|"digit 1"| n1' in lines
    assert '  n1 -->|"answered"| hangup' in lines
    assert lines[-1] == '  hangup(["hang up"])'
    assert sum("-->|" in line for line in lines) == 13
    assert sum(line.startswith("  n") and "[" in line for line in lines) == 6


def test_a_long_prompt_is_cut_short():
    node = Play((Prompt(text="x" * 100),), "a", "a")
    assert summary(node) == f"play “{'x' * 40}…”"


def test_an_entry_is_drawn_with_its_length():
    node = Gather((Prompt("Your zip code."),), "zip", "a", "a", min_digits=5, max_digits=5)
    assert summary(node) == "gather zip (5 digits) “Your zip code.”, 5 s × 3"
    assert summary(replace(node, min_digits=4, sensitive=True)).startswith("gather zip (4 to 5 digits, sensitive) ")
    assert summary(replace(node, min_digits=1, max_digits=1)).startswith("gather zip (1 digit) ")


def test_the_longest_chain_that_parses_can_be_drawn():
    chain = "".join(f"  n{index}: {{type: tag, tags: x, next: n{index + 1}}}\n" for index in range(199))
    flow = parse_flow(f"start: n0\nnodes:\n{chain}  n199: {{type: hangup}}\n", "desk")
    assert len(as_text(flow).splitlines()) == 200
