"""What is wrong with a flow beyond its syntax: nodes nobody reaches, paths without end, targets that are not there."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from callrouter.core.flow import nodes as n
from callrouter.core.flow.languages import in_language, languages
from callrouter.core.flow.link import MAX_LINKED, NO_FLOWS, Flows, gotos, link
from callrouter.core.flow.source import suggest
from callrouter.core.flow.text import check as check_text
from callrouter.core.flow.urls import Hosts, refused
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
    flow: n.Flow,
    targets: Collection[str],
    prompt_files: Collection[str],
    groups: Collection[str] = (),
    *,
    others: Flows = NO_FLOWS,
    hosts: Hosts | None = None,
) -> list[Finding]:
    """Everything that is wrong with a flow, errors first.

    :param targets: names of the company's targets
    :param prompt_files: names of the company's uploaded prompts
    :param groups: names of the company's groups of targets
    :param others: the company's other flows, as far as they can be read
    :param hosts: web services that the settings allow to be asked; None: it is not looked at
    """
    linked = link(flow, others.by_name)
    findings = [
        *_references(flow, targets, prompt_files, groups),
        *_jumps(flow, others),
        *_unreachable(flow, linked, others),
        *_endless(flow, linked),
        *_too_long(flow, linked, others),
        *_services(flow, hosts),
        *_hidden_areas(flow),
        *_missing_languages(flow, others),
        *_blind_spots(linked),
    ]
    return sorted(findings, key=lambda finding: finding.severity)


def reachable(flow: n.Flow) -> list[str]:
    """Names of the nodes a caller can reach, in breadth-first order from the start."""
    return _reached(flow, flow.start)


def _reached(flow: n.Flow, *starts: str) -> list[str]:
    found = list(dict.fromkeys(starts))
    seen = set(found)
    for name in found:
        new = [
            to for to in dict.fromkeys(to for _, to in n.exits(flow.nodes[name])) if to is not None and to not in seen
        ]
        seen.update(new)
        found += new
    return found


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


def _services(flow: n.Flow, hosts: Hosts | None) -> list[Finding]:
    found = []
    for name, node in flow.nodes.items():
        if isinstance(node, n.Webhook) and hosts is not None and (no := refused(node.url, hosts)) is not None:
            found.append(Finding("error", name, f"asks a service that may not be asked: {no[0]}", no[1]))
    return found


def _text_findings(name: str, text: str) -> list[Finding]:
    try:
        check_text(text)
    except InputError as exc:
        return [Finding("error", name, exc.message, exc.hint)]
    return []


def _jumps(flow: n.Flow, others: Flows) -> list[Finding]:
    """Ways into flows or nodes that are not there: from this flow, and from others into this one."""
    found = []
    for name, node in gotos(flow):
        into = flow if node.flow == flow.name else others.by_name.get(node.flow)
        if into is None:
            hint = suggest(node.flow, sorted(others.by_name)) or "add one: callrouter flow add"
            found.append(Finding("error", name, f"goes on in {node.flow!r}, which is no flow", hint))
        elif node.node is not None and node.node not in into.nodes:
            message = f"goes on at {node.node!r}, which is no node of flow {node.flow}"
            found.append(Finding("error", name, message, suggest(node.node, list(into.nodes))))
    for of, name, node in others.into.get(flow.name, ()):
        if of != flow.name and node.node is not None and node.node not in flow.nodes:
            message = f"flow {of}, node {name}, goes on at {node.node!r}, which is no node of this flow"
            found.append(Finding("error", "", message, "keep a node of that name, or change that flow first"))
    return found


def _unreachable(flow: n.Flow, linked: n.Flow, others: Flows) -> list[Finding]:
    """Every way in counts: the start, and what other flows go on at."""
    into = (node.node for of, _, node in others.into.get(flow.name, ()) if of != flow.name)
    reached = set(_reached(linked, flow.start, *(name for name in into if name is not None and name in flow.nodes)))
    return [
        Finding("warning", name, "no caller ever gets here", "connect it to an exit, or remove it")
        for name in flow.nodes
        if name not in reached
    ]


def _endless(flow: n.Flow, linked: n.Flow) -> list[Finding]:
    """A circle that a caller can go round without pressing a key has no end but the caller's patience. Those that do
    not touch this flow are matters of other ones."""
    found: list[Finding] = []
    for circle in _circles(linked):
        place = next((place for place, name in enumerate(circle) if name in flow.nodes), None)
        if place is not None:
            round_trip = " → ".join([*circle[place:], *circle[:place], circle[place]])
            found.append(
                Finding(
                    "error",
                    circle[place],
                    f"the path {round_trip} goes round without end unless the caller presses a key",
                    "let one of its exits go to a node that ends the call, like hangup or voicemail",
                )
            )
    return found


def _circles(flow: n.Flow) -> Iterator[list[str]]:
    """Circles of exits that take no key; of each knot of them at least one."""
    done: set[str] = set()
    for start in flow.nodes:
        path: dict[str, Iterator[str]] = {} if start in done else {start: _unasked(flow, start)}
        while path:
            name, rest = next(reversed(path.items()))
            to = next(rest, None)
            if to is None:
                done.add(name)
                del path[name]
            elif to in path:
                names = list(path)
                yield names[names.index(to) :]
            elif to not in done:
                path[to] = _unasked(flow, to)


def _unasked(flow: n.Flow, name: str) -> Iterator[str]:
    """Where a caller who presses nothing can come to from a node."""
    return (to for outcome, to in n.exits(flow.nodes[name]) if to is not None and not n.needs_key(outcome))


def _too_long(flow: n.Flow, linked: n.Flow, others: Flows) -> list[Finding]:
    """More than a call can pass, or than is linked: of the flow with those that it goes on in, and of each that goes on
    in it."""
    found = []
    flows = {**others.by_name, flow.name: flow}
    for name in (flow.name, *others.leading_to(flow.name)):
        linked = linked if name == flow.name else link(flows[name], flows)
        whose, node = ("it", flow.start) if name == flow.name else (f"flow {name}", "")
        if len(linked.nodes) > MAX_LINKED:
            message = f"with the flows that it goes on in, {whose} has {len(linked.nodes)} nodes; at most {MAX_LINKED}"
            found.append(Finding("error", node, message, "let fewer flows go on in one another"))
        elif len(linked.nodes) > n.MAX_VISITS and (length := _longest(linked)) > n.MAX_VISITS:
            message = f"in {whose} a caller who presses nothing could pass {length} nodes; at most {n.MAX_VISITS}"
            found.append(Finding("error", node, message, "let it end, or ask for a key, before that"))
    return found


def _longest(flow: n.Flow) -> int:
    """Nodes on the longest way from the start without a key; circles are gone round once."""
    length: dict[str, int] = {}
    path = {flow.start: _unasked(flow, flow.start)}
    while path:
        name, rest = next(reversed(path.items()))
        to = next((each for each in rest if each not in length and each not in path), None)
        if to is not None:
            path[to] = _unasked(flow, to)
            continue
        length[name] = 1 + max((length.get(each, 0) for each in _unasked(flow, name)), default=0)
        del path[name]
    return length[flow.start]


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


def _missing_languages(flow: n.Flow, others: Flows) -> list[Finding]:
    """Prompts in several languages without one that the flow chooses, or one that goes on in it: another one is
    heard."""
    before = (flow, *(others.by_name[name] for name in others.leading_to(flow.name)))
    nodes = (node for each in before for node in each.nodes.values())
    chosen = [node.language for node in nodes if isinstance(node, n.Set) and node.language]
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
