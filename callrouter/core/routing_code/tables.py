"""What a routing does with each number, as tables: stretches of time in which all opening hours stay as they are, and
in each, by class of caller, the outcomes that are left.

Nothing of this is tried out: hours, areas and lists are asked what they say of a moment and a caller, by the functions
that calls ask; what people do (keys, answering, being busy) stays open, as the exits of a node.
"""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from callrouter.core.admission import admitted
from callrouter.core.branches import branch
from callrouter.core.flow import nodes as n
from callrouter.core.flow.check import reachable, targets_of
from callrouter.core.hours import check_hours, open_spans
from callrouter.core.model import Strategy
from callrouter.core.routing import Entry, Reject, RoutingTable, decide
from callrouter.core.routing_code.callers import CallerClass
from callrouter.core.routing_code.windows import Span, merged
from callrouter.core.state import Session
from callrouter.core.walk import MAX_VISITS
from callrouter.errors import InputError

Ref: TypeAlias = str | None
"""A node's name; None: the end."""
Exits: TypeAlias = tuple[tuple[str, Ref], ...]


@dataclass(frozen=True, slots=True)
class End:
    """The call is hung up."""

    cause: str


@dataclass(frozen=True, slots=True)
class Ring:
    """Somebody is rung."""

    who: tuple[tuple[str, str], ...]
    """(title, what is dialled)."""
    how: str
    """Of a group its strategy; what of it decides where calls go."""
    exits: Exits


@dataclass(frozen=True, slots=True)
class Ask:
    """Keys are waited for."""

    keys: Exits
    """What the keys of a menu lead to."""
    digit: Ref
    """What any other digit leads to."""
    entry: Ref
    """What an entry of enough digits leads to; as ``digit`` where none is asked for."""
    takes_entry: bool
    nothing: Ref
    """Where it comes to when nothing is pressed."""
    wrong: Ref
    """And when one wrong key is pressed, and nothing after it."""
    exhausted: Ref
    """And when wrong keys are pressed as often as is asked."""

    def leads(self, choice: str) -> Ref:
        """Where a choice leads."""
        named = {NOTHING: self.nothing, WRONG: self.wrong, AGAIN: self.exhausted, ENTRY: self.entry, **dict(self.keys)}
        return named.get(choice, self.digit if choice.isdecimal() else self.wrong)


NOTHING, WRONG, AGAIN, ENTRY = "nothing", "another key", "only other keys", "an entry"


@dataclass(frozen=True, slots=True)
class Service:
    """A web service is asked; what it will answer nobody knows."""

    node: str
    url: str
    exits: Exits
    """What its answers lead to: NO_BRANCH, NO_ANSWER and FAILURE, behind those that name a branch."""

    def leads(self, answer: str) -> Ref:
        """Where an answer leads; a branch that the node has not is a failure."""
        named = dict(self.exits)
        return named.get(answer, named[FAILURE])


NO_BRANCH, NO_ANSWER, FAILURE = "no branch", "no answer", "a failure"


@dataclass(frozen=True, slots=True)
class Chance:
    """It is left to chance."""

    branches: tuple[tuple[int, Ref], ...]
    """(percent, node)."""


@dataclass(frozen=True, slots=True)
class Other:
    """Anything else that waits: a message to be taken, consent to be given."""

    kind: str
    exits: Exits


State: TypeAlias = End | Ring | Ask | Service | Chance | Other


@dataclass(frozen=True)
class Case:
    """A number, for callers of one class who call while all opening hours are as at one moment."""

    entry: Entry | None
    refused: str
    """Why nobody gets in, in words; "" when they do."""
    caller: CallerClass
    at: float
    _states: dict[Ref, State] = field(default_factory=dict, repr=False)

    @property
    def start(self) -> Ref:
        return self.entry.flow.start if self.entry is not None and not self.refused else None

    def state(self, ref: Ref) -> State:
        """What a call waits for that has come to a node: nodes that need no waiting are passed."""
        found = self._states.get(ref)
        if found is None:
            found = self._states[ref] = self._settle(ref)
        return found

    def _settle(self, ref: Ref) -> State:
        if self.refused or self.entry is None:
            return End(self.refused)
        for _ in range(MAX_VISITS):
            if ref is None:
                return End("normal")
            node = self.entry.flow.nodes[ref]
            match node:
                case n.Hours() | n.Geo() | n.Caller():
                    history = self.caller.history(self.at)
                    session = Session("", entry=self.entry, node=ref, caller=self.caller.caller, history=history)
                    ref = branch(session, node, self.at).to
                case n.Play() | n.Tag() | n.Set():
                    ref = node.next
                case n.GotoFlow(to=str(to)):
                    ref = to
                case n.GotoFlow():
                    return Other("the backup destination", ())
                case n.Split():
                    return Chance(tuple((percent, to) for to, percent in node.branches))
                case n.Dial():
                    who = self._rung(node)
                    if not who:
                        ref = node.on_failed
                        continue
                    return Ring(who, _manner(self.entry, node), n.exits(node))
                case n.Menu() | n.Gather():
                    return _ask(node)
                case n.Webhook():
                    others = ((NO_BRANCH, node.next), (NO_ANSWER, node.on_timeout), (FAILURE, node.on_failed))
                    return Service(ref, node.url, (*node.branches, *others))
                case n.Hangup():
                    return End(node.cause)
                case n.Voicemail():
                    return Other("voicemail", n.exits(node))
                case _:
                    return Other(type(node).__name__.lower(), n.exits(node))
        return Other("the backup destination, for the flow goes round without end", ())

    def _rung(self, node: n.Dial) -> tuple[tuple[str, str], ...]:
        assert self.entry is not None
        names = targets_of(node, self.entry.members)
        found = (self.entry.destinations[name].target for name in names if name in self.entry.destinations)
        rung = [(target.title, target.sip_uri or target.number or "") for target in found]
        group = self.entry.groups.get(node.group or "")
        at_once = group is not None and group.strategy is Strategy.RING_ALL
        return tuple(sorted(rung) if at_once else rung)


def _manner(entry: Entry, node: n.Dial) -> str:
    group = entry.groups.get(node.group or "")
    if group is None:
        return ""
    stops = (" until one declines" * group.stop_on_declined) + (" until one is busy" * group.stop_on_busy)
    if group.strategy not in (Strategy.WEIGHTED, Strategy.TIERS):
        return f"{group.strategy}{stops}"
    shares = " ".join(f"{member.weight}/{member.tier}" for member in group.members)
    return f"{group.strategy}{stops} {shares}"


def _ask(node: n.Menu | n.Gather) -> Ask:
    once = node.max_tries <= 1
    nothing = node.on_exhausted if once or node.on_timeout is None else node.on_timeout
    last = node.on_exhausted if node.max_tries <= 2 or node.on_timeout is None else node.on_timeout
    wrong = node.on_exhausted if once else node.on_invalid or last
    again = node.on_exhausted if once else node.on_invalid or node.on_exhausted
    if isinstance(node, n.Menu):
        return Ask(node.options, wrong, wrong, False, nothing, wrong, again)
    # Too few digits are a round that was lost.
    return Ask((), node.next if node.min_digits <= 1 else wrong, node.next, True, nothing, wrong, again)


def case(table: RoutingTable, did: str, caller: CallerClass, at: float) -> Case:
    """What becomes of such calls."""
    decision = admitted(decide(table, did), table.blocks, caller.caller, at, caller.history(at))
    if isinstance(decision, Reject):
        why = "refused, the number is switched off" if decision.entry else "refused, the number is not ours"
        return Case(decision.entry, "refused" if decision.blocked else why, caller, at)
    return Case(decision.entry, "", caller, at)


def times(entries: Iterable[Entry], begin: float, end: float) -> tuple[tuple[Span, ...], ...]:
    """``begin`` to ``end``, cut where any of the entries' opening hours begin or end: for each way in which they stand
    to one another, the stretches of time in which they do. Exact to the second."""
    return _times(tuple(dict.fromkeys(each for entry in entries for each in _hours_of(entry))), begin, end)


@functools.lru_cache(maxsize=2048)
def _times(expressions: tuple[tuple[str, str, str], ...], begin: float, end: float) -> tuple[tuple[Span, ...], ...]:
    edges = [[edge for span in open_spans(*each[:2], begin, end, each[2]) for edge in span] for each in expressions]
    cuts = sorted({begin, end, *(edge for each in edges for edge in each)})
    found: dict[tuple[bool, ...], list[Span]] = {}
    for low, high in itertools.pairwise(cuts):
        found.setdefault(tuple(bisect.bisect_right(each, low) % 2 == 1 for each in edges), []).append((low, high))
    return tuple(merged(spans) for spans in found.values())


def _hours_of(entry: Entry) -> Iterator[tuple[str, str, str]]:
    for name in reachable(entry.flow):
        node = entry.flow.nodes[name]
        if isinstance(node, n.Hours):
            each = (node.open, node.timezone or entry.company.timezone, entry.company.country)
            try:
                check_hours(*each)
            except InputError:
                continue  # taken as open by calls, always
            yield each
