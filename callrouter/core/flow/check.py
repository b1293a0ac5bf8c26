"""What is wrong with a flow beyond its syntax: nodes nobody reaches, paths without end, targets that are not there."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from callrouter.core.flow import nodes as n
from callrouter.core.flow.languages import in_language, languages
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


def check_flow(
    flow: n.Flow, targets: Collection[str], prompt_files: Collection[str], groups: Collection[str] = ()
) -> list[Finding]:
    """Everything that is wrong with a flow, errors first.

    :param targets: names of the company's targets
    :param prompt_files: names of the company's uploaded prompts
    :param groups: names of the company's groups of targets
    """
    findings = [
        *_references(flow, targets, prompt_files, groups),
        *_unreachable(flow),
        *_endless(flow),
        *_hidden_areas(flow),
        *_missing_languages(flow),
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


def dialled(flow: n.Flow, members: Mapping[str, Sequence[str]] = MappingProxyType({})) -> list[str]:
    """Targets the flow dials, nearest to the start first.

    :param members: targets of each group, in order
    """
    dials = [node for name in reachable(flow) if isinstance(node := flow.nodes[name], n.Dial)]
    return list(dict.fromkeys(target for node in dials for target in targets_of(node, members)))


def targets_of(node: n.Dial, members: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """Targets that a dial may ring: one, or those of its group.

    :param members: targets of each group, in order
    """
    return members.get(node.group, ()) if node.group is not None else (node.target,)


def prompts_of(node: n.Node) -> n.Prompts:
    """Every prompt a node may play to the caller, in each of its languages."""
    return tuple(replace(one, others=()) for prompt in _prompts(node) for one in (prompt, *prompt.others))


def _prompts(node: n.Node) -> n.Prompts:
    match node:
        case n.Play() | n.Voicemail() | n.Consent():
            return node.prompts
        case n.Menu() | n.Gather():
            return node.prompts + node.invalid_prompts
        case _:
            return ()


def _references(
    flow: n.Flow, targets: Collection[str], prompt_files: Collection[str], groups: Collection[str]
) -> list[Finding]:
    found = []
    for name, node in flow.nodes.items():
        if isinstance(node, n.Dial):
            noun, known = ("target", targets) if node.group is None else ("group", groups)
            if node.rings not in known:
                hint = suggest(node.rings, sorted(known)) or f"add one: callrouter {noun} add"
                found.append(Finding("error", name, f"dials {node.rings!r}, which is no {noun}", hint))
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


def _hidden_areas(flow: n.Flow) -> list[Finding]:
    """Areas that no number gets to, for an earlier one has them all."""
    found = []
    for name, node in flow.nodes.items():
        areas = node.areas if isinstance(node, n.Geo) else ()
        for place, area in enumerate(areas):
            before = next((one for one in areas[:place] if _covers(one, area)), None)
            if before is not None:
                message = f"its area {area.label!r} is never taken: {before.label!r} stands before it"
                found.append(Finding("warning", name, message, "put the narrower area first"))
    return found


def _covers(wide: n.Area, narrow: n.Area) -> bool:
    """Whether the fields of an area say that it has every number of another one."""

    def begin_with(given: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
        return all(any(each.startswith(one) for one in wanted) for each in given)

    in_country = not wide.codes or (bool(narrow.codes) and begin_with(narrow.codes, wide.codes))
    if wide.countries:
        covered = bool(narrow.countries) and set(narrow.countries) <= set(wide.countries) and in_country
    else:
        covered = bool(wide.codes and narrow.codes) and not narrow.countries and in_country
    national = not (narrow.countries or narrow.codes) or covered
    return national and begin_with(narrow.prefixes, wide.prefixes)


def _missing_languages(flow: n.Flow) -> list[Finding]:
    """Prompts in several languages without one that the flow chooses: another one is heard."""
    chosen = [node.language for node in flow.nodes.values() if isinstance(node, n.Set) and node.language]
    found = []
    for name, node in flow.nodes.items():
        for prompt in _prompts(node):
            known = languages(prompt)
            for language in dict.fromkeys(chosen):
                if known and in_language(prompt, language).language not in _same(language, known):
                    message = f"a prompt is not in {language!r}, only in {', '.join(known)}"
                    found.append(Finding("warning", name, message, f"add {language}: to it"))
    return found


def _same(language: str, known: tuple[str, ...]) -> list[str]:
    """Of some languages those that are a language, in whatever region."""
    return [one for one in known if one.partition("-")[0] == language.partition("-")[0]]


def _blind_spots(flow: n.Flow) -> list[Finding]:
    if any(isinstance(flow.nodes[name], n.Dial | n.Voicemail) for name in reachable(flow)):
        return []
    return [Finding("warning", flow.start, "no path reaches a person or a voicemail", "add a dial or a voicemail node")]
