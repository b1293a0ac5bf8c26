"""What a flow says of recording as a whole: worked out when it is read, for whoever has no time to walk through it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from callrouter.core.flow import nodes as n
from callrouter.core.flow.check import targets_of
from callrouter.core.model import RecordingPolicy

_CAREFUL = (RecordingPolicy.NEVER, RecordingPolicy.INHERIT, RecordingPolicy.FORCE)


@dataclass(frozen=True, slots=True)
class FlowSaid:
    recording: Mapping[str, RecordingPolicy] = field(default_factory=dict)
    """Of each target that it rings; of several nodes' words the one that says least for it."""
    consent: bool = False
    """Whether it asks callers for consent anywhere."""


def said_by(flow: n.Flow, members: Mapping[str, Sequence[str]]) -> FlowSaid:
    """
    :param members: targets of each group
    """
    words: dict[str, RecordingPolicy] = {}
    for node in flow.nodes.values():
        if isinstance(node, n.Dial):
            for target in targets_of(node, members):
                words[target] = min(node.record, words.get(target, node.record), key=_CAREFUL.index)
    return FlowSaid(words, any(isinstance(node, n.Consent) for node in flow.nodes.values()))
