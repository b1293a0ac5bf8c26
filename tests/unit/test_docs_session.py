"""The picture of a session in docs/architecture.md is what the code does: all its sessions are walked through."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from callrouter.core import events as e
from callrouter.core.events import Event
from callrouter.core.groups import Facts
from callrouter.core.model import Company, FlowVersion, Member, Strategy, Target, TargetGroup, TrackingNumber
from callrouter.core.records import Reply, WebhookResult
from callrouter.core.routing import RoutingTable, build_table
from callrouter.core.session import step
from callrouter.core.snapshot import ConfigSnapshot
from callrouter.core.state import Arriving, Session, Wait

PAGE = Path(__file__).resolve().parents[2] / "docs/architecture.md"

FLOW = """
start: {start}
nodes:
  play: {{type: play, prompt: a, next: {to}}}
  menu: {{type: menu, prompt: a, invalid_prompt: b, options: {{1: {to}}}, max_tries: 2, on_exhausted: {to}}}
  ask: {{type: gather, prompt: a, name: x, min: 2, max: 2, max_tries: 2, next: {to}, on_exhausted: {to}}}
  ring: {{type: dial, target: ana, on_busy: {to}, on_no_answer: {to}, on_failed: {to}, on_answered: {to}}}
  turns: {{type: dial, group: turns, on_busy: {to}, on_no_answer: {to}, on_failed: {to}}}
  all: {{type: dial, group: all, on_busy: {to}, on_no_answer: {to}, on_failed: {to}}}
  message: {{type: voicemail, greeting: a, on_failed: {to}, on_done: {to}}}
  crm: {{type: webhook, url: "https://crm.example.com/", branches: {{vip: {to}}}, next: {to}, on_failed: {to}}}
  beep: {{type: voicemail, on_failed: {to}}}
  circle: {{type: tag, tags: x, next: circle}}
  end: {{type: hangup}}
"""
NODES = ("play", "menu", "ask", "ring", "turns", "all", "message", "crm", "beep", "circle", "end")


def all_flows() -> RoutingTable:
    """A number for each pair of a node to begin with and a node that every exit leads to; with and without a target."""
    flows, numbers = [], []
    for prefix, company in (("00", "with"), ("01", "without")):
        for index, (start, to) in enumerate((start, to) for start in NODES for to in NODES):
            name = f"{company}-{start}-{to}"
            flows.append(FlowVersion(name, name, company, name, 1, FLOW.format(start=start, to=to)))
            numbers.append(TrackingNumber(name, company, f"+120255{prefix}{index:03}", name, flow=name))
    companies = (Company("with", "with", "With", "UTC"), Company("without", "without", "Without", "UTC"))
    targets = (Target("t", "with", "ana", "Ana", sip_uri="sip:ana@192.0.2.1"),)
    groups = (
        TargetGroup("g", "with", "turns", "Turns", Strategy.ROUND_ROBIN, (Member("ana"),)),
        TargetGroup("h", "with", "all", "All", Strategy.RING_ALL, (Member("ana"),)),
    )
    return build_table(
        ConfigSnapshot(
            1, companies=companies, targets=targets, groups=groups, numbers=tuple(numbers), flows=tuple(flows)
        )
    )


def possible_events(session: Session, table: RoutingTable) -> Iterator[Event]:
    """Everything that can happen to a session, with the ids it waits for."""
    wait, at = session.wait, 100.0
    if isinstance(wait, Arriving):
        for did in (*table.entries, "+12025559999"):
            for problem in (None, "full"):
                yield e.CallArrived(at, "c", "ch", did, None, None, None, store_problem=problem)
        return
    playback, timer = getattr(wait, "playback_id", "-"), getattr(wait, "timer_id", "-")
    yield e.GroupKnown(at, getattr(wait, "ref", "-"), "g", Facts())
    for reply in (Reply(WebhookResult.ANSWERED), Reply(WebhookResult.TIMEOUT)):
        yield e.WebhookAnswered(at, getattr(wait, "ref", "-"), session.node, getattr(wait, "url", "-"), reply)
    for branch in getattr(wait, "branches", ()):
        yield from (e.LegAnswered(at, branch.leg_id), e.LegEnded(at, branch.leg_id, "BUSY"))
        yield e.DialRefused(at, branch.leg_id, "calls", "why")
    leg, recording = getattr(wait, "leg_id", "-") or "-", getattr(wait, "recording_id", "-")
    yield from (e.Answered(at), e.TimerFired(at, timer), e.CallerHungUp(at))
    yield from (e.Resumed(at, inside) for inside in (True, False))
    yield from (e.PlaybackEnded(at, playback, ok) for ok in (True, False))
    yield from (e.Digit(at, digit) for digit in "19")
    yield from (e.LegStarted(at, started, "peer") for started in (leg, "other", "fs-1"))
    yield from (e.LegRinging(at, leg), e.LegProgress(at, leg), e.LegAnswered(at, leg), e.LegHeld(at, leg, True))
    yield from (e.DialReturned(at, leg, status, 0) for status in ("ANSWER", "BUSY", "NOANSWER", "CHANUNAVAIL"))
    yield from (e.RecordingEnded(at, recording, seconds) for seconds in (9.0, 0.0))
    yield e.RecordingTrouble(at, "full")
    for action, ref in (("Play", playback), ("Record", recording), ("Dial", leg), ("Answer", None)):
        yield e.ActionFailed(at, action, "why", ref)
    yield e.LedgerClosed(at, 1.0, 50.0, 16, "ANSWER")


def session_edges() -> list[str]:
    """How one wait leads to another, found by walking through the sessions of all those flows."""
    table = all_flows()
    edges: dict[tuple[str, str], set[str]] = {}
    seen: set[tuple[Any, ...]] = set()
    waiting = deque([Session("c")])
    while waiting:
        before = waiting.popleft()
        for event in possible_events(before, table):
            after = step(before, event, table).session
            names = type(before.wait).__name__, type(after.wait).__name__
            if names[0] != names[1]:
                edges.setdefault(names, set()).add(type(event).__name__)
            number = after.entry.number.id if after.entry else None
            state = (names[1], getattr(after.wait, "part", None), getattr(after.wait, "answered_at", None), after.node)
            key = (*state, getattr(after.wait, "digits", None), number, after.tries, after.store_problem)
            if key not in seen:
                seen.add(key)
                waiting.append(after)
    return [f"{a} --> {b}: {', '.join(sorted(names))}" for (a, b), names in sorted(edges.items())]


def test_the_picture_of_a_session_is_right() -> None:
    (drawn,) = re.findall(r"^```mermaid\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line.strip() for line in drawn.splitlines() if "[*]" not in line and "-->" in line]
    assert lines == session_edges()
    named = {name for line in lines for name in re.findall(r"^(\w+) --> (\w+)", line)[0]}
    assert named == {kind.__name__ for kind in get_args(Wait)}
