"""Flows that go on in one another, as one graph: whatever reads a flow reads the linked one, and follows every jump.

The nodes of the first flow keep their names; a node of another one is called by both names, ``night/greet``. No node's
name has a slash in it, so that none is taken for another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar

from callrouter.core.flow import nodes as n

MAX_LINKED = 1000
"""Nodes that a flow and those that it goes on in may have together."""

_Node = TypeVar("_Node", bound=n.Node)


def home(flow: n.Flow, name: str) -> tuple[str, str]:
    """The flow that a node of a linked flow is of, and what the node is called there."""
    of, slash, own = name.partition("/")
    return (of, own) if slash else (flow.name, name)


def gotos(flow: n.Flow) -> Iterator[tuple[str, n.GotoFlow]]:
    """(name, node) of each way into another flow."""
    for name, node in flow.nodes.items():
        if isinstance(node, n.GotoFlow):
            yield name, node


def link(flow: n.Flow, others: Mapping[str, n.Flow]) -> n.Flow:
    """A flow, and all that callers can come to in those that it goes on in, as one. Never fails: a way to what is not
    there leads nowhere (:func:`gaps`).

    :param others: the company's flows, by name
    """
    if not any(gotos(flow)):
        return flow
    known = {**others, flow.name: flow}
    linked: dict[str, n.Node] = {}
    waiting = list(flow.nodes)
    seen = set(waiting)
    for name in waiting:
        of, own = home(flow, name)
        linked[name] = node = _linked(known[of].nodes[own], flow.name, of, known)
        new = [to for to in dict.fromkeys(to for _, to in n.exits(node)) if to is not None and to not in seen]
        seen.update(new)
        waiting += new
    return replace(flow, nodes=linked)


def gaps(flow: n.Flow) -> list[str]:
    """What a linked flow does not find, in words: calls that come to it ring the backup destination."""
    return [
        f"node {name} goes on in flow {node.flow}, "
        + (
            f"which has no node {node.node}, or cannot be read"
            if node.node
            else "which is not there, or cannot be read"
        )
        for name, node in gotos(flow)
        if node.to is None
    ]


def flows_of(flow: n.Flow) -> tuple[str, ...]:
    """Names of the flows that the nodes of a linked flow are of, the first one's first."""
    return tuple(dict.fromkeys((flow.name, *(home(flow, name)[0] for name in flow.nodes))))


def led_to(name: str, flows: Mapping[str, n.Flow]) -> tuple[str, ...]:
    """Names of the flows that a flow goes on in, over others too, nearest first; its own is not among them."""
    found = [name]
    for each in found:
        if each in flows:
            found += [to for to in dict.fromkeys(node.flow for _, node in gotos(flows[each])) if to not in found]
    return tuple(found[1:])


@dataclass(frozen=True, slots=True)
class Flows:
    """The flows of a company, with the ways from one into another looked up once for all of them."""

    by_name: Mapping[str, n.Flow] = field(default_factory=dict)
    into: Mapping[str, tuple[tuple[str, str, n.GotoFlow], ...]] = field(default_factory=dict)
    """By the flow that is gone on in: (flow, name of its node, the node)."""

    def leading_to(self, name: str) -> tuple[str, ...]:
        """Names of the flows that go on in a flow, over others too, nearest first; its own is not among them."""
        found = [name]
        for each in found:
            found += [of for of in dict.fromkeys(of for of, _, _ in self.into.get(each, ())) if of not in found]
        return tuple(found[1:])


NO_FLOWS = Flows()


def together(flows: Iterable[n.Flow]) -> Flows:
    """The flows of one company."""
    by_name = {flow.name: flow for flow in flows}
    into: dict[str, tuple[tuple[str, str, n.GotoFlow], ...]] = {}
    for of, flow in by_name.items():
        for name, node in gotos(flow):
            into[node.flow] = (*into.get(node.flow, ()), (of, name, node))
    return Flows(by_name, into)


def led(node: _Node, rename: Callable[[str], str]) -> _Node:
    """A node whose exits (``nodes.exits``) lead to nodes of other names.

    :param rename: gives the new name of a node
    """
    changes: dict[str, Any] = {}
    for each in fields(node):
        name, value = each.name, getattr(node, each.name)
        if isinstance(value, str) and (name == "next" or name.startswith("on_")):
            changes[name] = rename(value)
        elif name in ("options", "branches"):
            # (key, node) pairs, or (node, share).
            pairs = ((one, rename(to)) if isinstance(to, str) else (rename(one), to) for one, to in value)
            changes[name] = tuple(pairs)
        elif isinstance(value, tuple) and any(is_dataclass(one) and hasattr(one, "next") for one in value):
            changes[name] = tuple(replace(one, next=rename(one.next)) for one in value)
    return replace(node, **changes) if changes else node


def _linked(node: n.Node, first: str, of: str, known: Mapping[str, n.Flow]) -> n.Node:
    """A node with its exits named as in the linked flow.

    :param first: name of the flow whose nodes keep their names
    :param of: name of the flow that the node is of
    """
    if not isinstance(node, n.GotoFlow):
        return node if of == first else led(node, lambda to: f"{of}/{to}")
    into = known.get(node.flow)
    begin = None if into is None else node.node or into.start
    if into is None or begin not in into.nodes:
        return node
    return replace(node, to=begin if node.flow == first else f"{node.flow}/{begin}")
