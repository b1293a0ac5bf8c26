"""A flow drawn: as an indented tree for the terminal, and as a Mermaid flowchart."""

from __future__ import annotations

from callrouter.core.flow import nodes as n
from callrouter.core.flow.urls import host_of


def summary(node: n.Node) -> str:
    """A node in a few words: ``dial ana, 25 s``."""
    match node:
        case n.Play():
            return f"play {_said(node.prompts)}"
        case n.Menu():
            return f"menu {_said(node.prompts)}, {node.timeout:g} s × {node.max_tries}"
        case n.Gather():
            return f"gather {_digits(node)} {_said(node.prompts)}, {node.timeout:g} s × {node.max_tries}"
        case n.Consent():
            key = f", key {node.digit}" if node.digit else ""
            return f"consent by {node.mode.replace('_', '-')} {_said(node.prompts)}{key}"
        case n.Dial():
            ring = f", {node.ring_seconds} s" if node.ring_seconds else ""
            return f"dial {f'group {node.group}' if node.group else node.target}{ring}"
        case n.Hours():
            return f"hours {node.open}"
        case n.Split():
            return "split " + " / ".join(f"{percent} %" for _, percent in node.branches)
        case n.Geo():
            return f"geo {len(node.areas)} area{'s' if len(node.areas) > 1 else ''}"
        case n.Caller():
            days = f", within {node.within_days} days" if node.within_days else ""
            return "caller" + "".join(f", {tag}" for tag in node.tags) + days
        case n.Voicemail():
            return f"voicemail {_said(node.prompts)}, up to {node.max_seconds} s"
        case n.Tag():
            return "tag " + ", ".join(node.tags)
        case n.Set():
            spoken = ["language " + node.language] if node.language else []
            return "set " + ", ".join([*(f"{name} = {value}" for name, value in node.values), *spoken])
        case n.GotoFlow():
            return f"go on in flow {node.flow}" + (f" at {node.node}" if node.node else "")
        case n.Webhook():
            return f"webhook {host_of(node.url)}, {node.timeout:g} s"
        case n.Hangup():
            return f"hang up ({node.cause})"


def as_text(flow: n.Flow) -> str:
    """The flow as an indented tree; a node that was drawn already is only named."""
    lines: list[str] = []
    drawn: set[str] = set()

    waiting: list[tuple[str | None, str, int]] = [(flow.start, "", 0)]
    while waiting:
        name, outcome, depth = waiting.pop()
        lead = "  " * depth + (f"{outcome} → " if outcome else "")
        if name is None or name in drawn:
            lines.append(f"{lead}hang up" if name is None else f"{lead}{name} (above)")
            continue
        drawn.add(name)
        lines.append(f"{lead}{name}: {summary(flow.nodes[name])}")
        waiting += [(to, exit_name, depth + 1) for exit_name, to in reversed(n.exits(flow.nodes[name]))]

    alone = [name for name in flow.nodes if name not in drawn]
    lines.extend(f"{name}: {summary(flow.nodes[name])} (no caller gets here)" for name in alone)
    return "\n".join(lines) + "\n"


def as_mermaid(flow: n.Flow) -> str:
    """The flow as a Mermaid flowchart (https://mermaid.js.org/syntax/flowchart.html)."""
    ids = {name: f"n{index}" for index, name in enumerate(flow.nodes)}
    lines = ["flowchart TD", f"  start([{_quoted(flow.title or flow.name)}]) --> {ids[flow.start]}"]
    for name, node in flow.nodes.items():
        lines.append(f"  {ids[name]}[{_quoted(f'{name}: {summary(node)}')}]")
    ends = False
    for name, node in flow.nodes.items():
        for outcome, to in n.exits(node):
            ends = ends or to is None
            lines.append(f"  {ids[name]} -->|{_quoted(outcome)}| {ids[to] if to else 'hangup'}")
    if ends:
        lines.append('  hangup(["hang up"])')
    return "\n".join(lines) + "\n"


def _said(prompts: n.Prompts) -> str:
    text = " ".join(prompt.text or f"[{prompt.file}]" for prompt in prompts)
    return f"“{text[:40]}…”" if len(text) > 41 else f"“{text}”"


def _digits(node: n.Gather) -> str:
    least, most = node.min_digits, node.max_digits
    many = f"{most}" if least == most else f"{least} to {most}"
    return f"{node.name} ({many} digit{'s' if most > 1 else ''}{', sensitive' if node.sensitive else ''})"


def _quoted(text: str) -> str:
    for char, code in (("&", "&amp;"), ('"', "&quot;"), ("<", "&lt;"), (">", "&gt;"), ("\n", " ")):
        text = text.replace(char, code)
    return f'"{text}"'
