"""A caller's earlier calls as a flow test or a question about a route states them."""

from __future__ import annotations

from dataclasses import dataclass

import yaml

from callrouter.core.flow.parse_branches import tag_names
from callrouter.core.flow.source import Fields, one_of, seconds, whole
from callrouter.core.identity import CallerHistory


@dataclass(frozen=True, slots=True)
class Earlier:
    """What is known of the caller's earlier calls."""

    calls: int = 0
    days_ago: float = 1.0
    """When the last one came."""
    tags: tuple[str, ...] = ()
    known: bool = True

    def history(self, at: float) -> CallerHistory | None:
        """For a call that arrives at a moment, seconds since the epoch."""
        last = at - self.days_ago * 86400 if self.calls else None
        return CallerHistory(self.calls, last, None, self.tags) if self.known else None


def read_earlier(node: yaml.Node, name: str) -> Earlier:
    """``none``, ``unknown``, or a mapping.

    :raises FlowError: with line and column
    """
    if isinstance(node, yaml.ScalarNode):
        return Earlier(known=one_of(("none", "unknown"))(node, name) == "none")
    f = Fields(node, name)
    none: tuple[str, ...] = ()
    found = Earlier(
        calls=f.get("calls", whole(1, 99_999), 1),
        days_ago=f.get("days_ago", seconds(0, 3650), 1.0),
        tags=f.get("tags", tag_names, none),
    )
    f.done()
    return found
