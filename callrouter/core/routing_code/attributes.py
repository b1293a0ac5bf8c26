"""What else there is to a number than where its calls go: attribution, recording, whispers, trunks, what is said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from callrouter.core.flow import nodes as n
from callrouter.core.flow.check import prompts_of, reachable, targets_of
from callrouter.core.recording_policy import decide_recording
from callrouter.core.routing import Destination, Entry

NONE = "none"
SAID = ("said at", "tags", "value of", "language from")
"""Told also where a node has come or gone; of who is rung now and was not before the outcomes tell."""


class Attribute(NamedTuple):
    """One that changes."""

    what: str
    was: str
    will: str

    def words(self) -> str:
        return f"{self.what}: was {self.was}, will be {self.will}"


Attributes = Mapping[tuple[str, str], str]
"""By kind ("recording of") and name ("Ana")."""


def attributes(entry: Entry) -> dict[tuple[str, str], str]:
    """Those of a number, in words."""
    campaign = entry.campaign
    shown = f"{campaign.name} ({campaign.source} / {campaign.medium})" if campaign else NONE
    found: dict[tuple[str, str], list[str]] = {
        ("company", ""): [entry.company.name],
        ("name", ""): [entry.number.name],
        ("attributed to campaign", ""): [shown],
        ("without a server rings", ""): [backup.target.title for backup in entry.backups],
    }
    for name in reachable(entry.flow):
        node = entry.flow.nodes[name]
        for kind, about, value in _of_node(entry, name, node):
            values = found.setdefault((kind, about), [])
            if value not in values:
                values.append(value)
    return {key: ", ".join(values) or NONE for key, values in found.items()}


def _of_node(entry: Entry, name: str, node: n.Node) -> Iterator[tuple[str, str, str]]:
    for prompt in prompts_of(node):
        yield "said at", name, f"“{prompt.text}”" if prompt.text else f"[{prompt.file}]"
    match node:
        case n.Tag():
            for tag in node.tags:
                yield "tags", "", tag
        case n.Set():
            for one, value in node.values:
                yield "value of", one, value
            if node.language:
                yield "language from", name, node.language
        case n.Menu() | n.Gather():
            yield "rounds at", name, f"{node.max_tries}, {node.timeout:g} s each"
        case n.Voicemail():
            yield "length of a message at", name, f"{node.max_seconds} s"
        case n.Dial():
            for target in targets_of(node, entry.members):
                if target in entry.destinations:
                    yield from _of_target(entry, name, node, entry.destinations[target])


def _of_target(entry: Entry, name: str, node: n.Dial, destination: Destination) -> Iterator[tuple[str, str, str]]:
    target = destination.target
    recorded = decide_recording(entry, name, node.record, target)
    yield "recording of", target.title, "yes" if recorded.record else "no"
    whisper = entry.whisper(node, target.name)
    yield "whisper to", target.title, f"“{whisper[0].text}”" if whisper else NONE
    yield "way to", target.title, ", then ".join(way.trunk or "SIP" for way in destination.ways)
    yield "number shown to", target.title, destination.ways[0].shown_number(entry.number.e164) or "the caller's"
    group = entry.groups.get(node.group or "")
    members = group.members if group is not None else ()
    own = next((member.ring_seconds for member in members if member.target == target.name), None)
    yield "ringing of", target.title, f"{node.ring_seconds or own or target.ring_seconds} s"
    yield "caller hears at", name, "music" if node.music else "ringing"


def changed(was: Attributes, will: Attributes) -> tuple[Attribute, ...]:
    """What is not the same; what has only another name (of a node) now is."""
    gone = {key: value for key, value in was.items() if key not in will}
    come = {key: value for key, value in will.items() if key not in was}
    renamed = {(kind, value) for (kind, _), value in gone.items()} & {
        (kind, value) for (kind, _), value in come.items()
    }
    found = []
    for kind, name in dict.fromkeys((*was, *will)):
        before, after = was.get((kind, name)), will.get((kind, name))
        alone = before is None or after is None
        if before == after or (alone and (kind not in SAID or (kind, before or after) in renamed)):
            continue
        found.append(Attribute(f"{kind} {name}".strip(), before or NONE, after or NONE))
    return tuple(found)
