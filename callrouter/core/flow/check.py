"""What is wrong with a flow beyond its syntax: nodes nobody reaches, paths without end, targets that are not there."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from callrouter.core.flow import nodes as n
from callrouter.core.flow.source import suggest
from callrouter.core.flow.text import check as check_text
from callrouter.errors import InputError


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a flow."""

    severity: str
    """"error" keeps the flow from being saved; "warning" does not."""
    node: str
    message: str
    hint: str | None = None


def check_flow(flow: n.Flow, targets: Collection[str], prompt_files: Collection[str]) -> list[Finding]:
    """Everything that is wrong with a flow, errors first.

    :param targets: names of the company's targets
    :param prompt_files: names of the company's uploaded prompts
    """
    findings = [
        *_references(flow, targets, prompt_files),
        *_unreachable(flow),
        *_endless(flow),
        *_blind_spots(flow),
    ]
    return sorted(findings, key=lambda finding: finding.severity)


def reachable(flow: n.Flow) -> list[str]:
    """Names of the nodes a caller can reach, in breadth-first order from the start."""
    seen = [flow.start]
    for name in seen:
        for _, to in n.exits(flow.nodes[name]):
            if to is not None and to not in seen:
                seen.append(to)
    return seen


def dialled(flow: n.Flow) -> list[str]:
    """Targets the flow dials, nearest to the start first."""
    found = [node.target for name in reachable(flow) if isinstance(node := flow.nodes[name], n.Dial)]
    return list(dict.fromkeys(found))


def prompts_of(node: n.Node) -> n.Prompts:
    """Every prompt a node may play to the caller."""
    match node:
        case n.Play() | n.Voicemail():
            return node.prompts
        case n.Menu() | n.Gather():
            return node.prompts + node.invalid_prompts
        case _:
            return ()


def _references(flow: n.Flow, targets: Collection[str], prompt_files: Collection[str]) -> list[Finding]:
    found = []
    for name, node in flow.nodes.items():
        if isinstance(node, n.Dial):
            if node.target not in targets:
                hint = suggest(node.target, sorted(targets)) or "add one: callrouter target add"
                found.append(Finding("error", name, f"dials {node.target!r}, which is no target", hint))
            found += _text_findings(name, node.whisper or "")
        for prompt in prompts_of(node):
            if prompt.file is not None and prompt.file not in prompt_files:
                hint = suggest(prompt.file, sorted(prompt_files)) or "upload it: callrouter prompt add"
                found.append(Finding("error", name, f"plays {prompt.file!r}, which is no uploaded prompt", hint))
            found += _text_findings(name, prompt.text or "")
    return found


def _text_findings(name: str, text: str) -> list[Finding]:
    try:
        check_text(text)
    except InputError as exc:
        return [Finding("error", name, exc.message, exc.hint)]
    return []


def _unreachable(flow: n.Flow) -> list[Finding]:
    reached = set(reachable(flow))
    return [
        Finding("warning", name, "no caller ever gets here", "connect it to an exit, or remove it")
        for name in flow.nodes
        if name not in reached
    ]


def _endless(flow: n.Flow) -> list[Finding]:
    """A circle that a caller can go round without pressing a key has no end but the caller's patience."""
    state: dict[str, str] = {}
    found: list[Finding] = []

    def walk(name: str, path: list[str]) -> None:
        state[name] = "open"
        for outcome, to in n.exits(flow.nodes[name]):
            if to is None or n.needs_key(outcome):
                continue
            if state.get(to) == "open":
                circle = " → ".join([*path[path.index(to) :], to])
                found.append(
                    Finding(
                        "error",
                        to,
                        f"the path {circle} goes round without end unless the caller presses a key",
                        "let one of its exits go to a node that ends the call, like hangup or voicemail",
                    )
                )
            elif to not in state:
                walk(to, [*path, to])
        state[name] = "done"

    for name in flow.nodes:
        if name not in state:
            walk(name, [name])
    return found


def _blind_spots(flow: n.Flow) -> list[Finding]:
    if dialled(flow) or any(isinstance(flow.nodes[name], n.Voicemail) for name in reachable(flow)):
        return []
    return [Finding("warning", flow.start, "no path reaches a person or a voicemail", "add a dial or a voicemail node")]
