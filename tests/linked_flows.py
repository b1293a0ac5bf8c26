"""Three flows that go on in one another."""

from __future__ import annotations

from typing import Any

from callrouter.core.flow import nodes as n
from callrouter.core.flow.parse import parse_flow
from callrouter.core.routing import RoutingTable
from tests.builders import table

DESK = """
start: menu
nodes:
  menu: {type: menu, prompt: "Press 1 or 2.", options: {1: ana, 2: after-hours, 3: dept}, on_exhausted: after-hours}
  ana: {type: dial, target: ana, on_busy: after-hours, on_no_answer: after-hours, on_failed: after-hours}
  after-hours: {type: goto_flow, flow: night}
  dept: {type: goto_flow, flow: support, node: menu}
"""
NIGHT = """
start: greet
nodes:
  greet: {type: play, prompt: We are closed., next: leave}
  leave: {type: voicemail, greeting: "Please leave a message.", on_failed: bye, on_done: thanks}
  thanks: {type: play, prompt: Thank you., next: bye}
  bye: {type: hangup}
"""
SUPPORT = """
start: hello
nodes:
  hello: {type: play, prompt: "Support.", next: menu}
  menu: {type: menu, prompt: "Press 1 for Ben.", options: {1: ben, 9: back}, on_exhausted: ben}
  ben: {type: dial, target: ben, record: no, on_busy: late, on_no_answer: late, on_failed: late}
  late: {type: goto_flow, flow: night, node: leave}
  back: {type: goto_flow, flow: desk}
"""
OTHERS = {"night": NIGHT, "support": SUPPORT}


def flows(**texts: str) -> dict[str, n.Flow]:
    return {name: parse_flow(text, name) for name, text in texts.items()}


ALL = flows(desk=DESK, **OTHERS)


def company_table(**changes: Any) -> RoutingTable:
    return table(DESK, others=OTHERS, **changes)
