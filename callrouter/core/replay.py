"""Stored calls run again: what would have become of them by another routing, or by the present one.

A call's own events are taken as long as the same is decided upon them. From where the ways part, caller and
destinations do what they did then, as far as they were asked then; what nobody can know is marked.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias

from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.cdr import LogItem, fold
from callrouter.core.disposition import Disposition, LegResult, trunk_failed
from callrouter.core.groups import DECLINED_CAUSE
from callrouter.core.outbound import Policy, Usage, day_start, exceeded, policy_of
from callrouter.core.records import CallRecord, Leg, Reply
from callrouter.core.routing import RoutingTable
from callrouter.core.simulate import Answer, Inputs, Simulation, World
from callrouter.core.state import Session

REACHED = frozenset({Disposition.ANSWERED, Disposition.VOICEMAIL})


Segments: TypeAlias = Sequence[tuple[e.Event, Sequence[note.Note]]]
"""Each event of a call, with what was decided upon it."""


class Verdict(StrEnum):
    """What a replay came to."""

    SAME = "same"
    ELSEWHERE = "elsewhere"
    """It would have rung others, or ended otherwise."""
    MISSED = "missed"
    """And nobody would have spoken with the caller, nor taken a message."""
    NOT_REPLAYED = "not replayed"


class Doubt(StrEnum):
    """What cannot be replayed."""

    FAILSAFE = "handled by the failsafe, without a flow"
    NO_LOG = "its log is not kept"
    IN_PROGRESS = "in progress"
    LEDGER = "its end was taken from Asterisk's own record"
    HIDDEN = "sensitive digits are not stored"
    UNTRIED = "whether a target that is rung would have answered"
    MORE_KEYS = "keys are asked for that nobody was asked for then"
    NO_MESSAGE = "a message is asked for that nobody was asked for then"
    GROUP = "whose turn it was in a group is not known"
    WEBHOOK = "a web service is asked that was not asked then"


@dataclass(frozen=True, slots=True)
class Replayed:
    """One stored call, run again."""

    call_id: str
    verdict: Verdict
    doubts: tuple[Doubt, ...]
    """Of a call that was not replayed why not; else what of the new way is not certain."""
    then: CallRecord | None
    again: CallRecord | None
    cap: str = ""
    """The limit of the company that the call would have hit; "" for none."""

    @property
    def certain(self) -> bool:
        return not self.doubts


def replay(table: RoutingTable, call_id: str, log: Sequence[LogItem]) -> Replayed:
    """One stored call by a routing.

    :param log: events and notes, oldest first
    """
    then = fold(log)
    if (reason := _unfit(log, then)) is not None or then is None:
        return Replayed(call_id, Verdict.NOT_REPLAYED, (reason or Doubt.NO_LOG,), then, None)
    stored = _segments(log)
    made = _rerun(table, stored, then)
    if made.parted is not None and not _asked_alike(stored, made.simulation):
        # Where it would have gone from there nobody can know.
        return Replayed(call_id, Verdict.NOT_REPLAYED, (Doubt.WEBHOOK,), then, None)
    now = made.simulation.record
    doubts = () if made.parted is None else tuple(_doubts(stored, made, then))
    if any(isinstance(event, e.LedgerClosed | e.Resumed) for event, _ in stored) and made.parted is not None:
        doubts = (*doubts, Doubt.LEDGER)
    verdict = Verdict.SAME
    if _outcome(then) != _outcome(now):
        lost = then.disposition in REACHED and now.disposition not in REACHED
        verdict = Verdict.MISSED if lost and not doubts else Verdict.ELSEWHERE
    return Replayed(call_id, verdict, doubts, then, now)


@dataclass(frozen=True, slots=True)
class _Rerun:
    simulation: Simulation
    parted: int | None
    """At which of its events the call went another way than in the log; None: it did not."""
    pressed: int = 0
    """Rounds of keys that were asked for after that."""


def _rerun(table: RoutingTable, stored: Segments, then: CallRecord) -> _Rerun:
    """A call's own events as long as the same is decided, and from there on made-up ones."""
    arrived = stored[0][0]
    world = World(table, Inputs(), arrived.at, Session(then.id))
    for place, (event, decided) in enumerate(stored):
        known = len(world.log) + 1
        world.take(event)
        if not _alike([item for item in world.log[known:] if not isinstance(item, e.Event)], decided):
            world.inputs = _rest(stored, place, then)
            return _Rerun(world.to_the_end(), place, world.pressed)
    return _Rerun(world.to_the_end(), None)


def _asked_alike(stored: Segments, made: Simulation) -> bool:
    """Whether every web service that is asked now was asked at that node then."""
    asked = {(event.node, event.url) for event, _ in stored if isinstance(event, e.WebhookAnswered)}
    return all((event.node, event.url) in asked for event in made.events if isinstance(event, e.WebhookAnswered))


def _unfit(log: Sequence[LogItem], then: CallRecord | None) -> Doubt | None:
    first = log[0] if log else None
    if then is None or not isinstance(first, e.CallArrived):
        return Doubt.NO_LOG
    if first.unwatched or then.handled_by == "failsafe":
        return Doubt.FAILSAFE
    return None if any(isinstance(item, note.Concluded) for item in log) else Doubt.IN_PROGRESS


def _segments(log: Iterable[LogItem]) -> list[tuple[e.Event, list[note.Note]]]:
    found: list[tuple[e.Event, list[note.Note]]] = []
    for item in log:
        if isinstance(item, e.Event):
            found.append((item, []))
        elif found:
            found[-1][1].append(item)
    return found


def _alike(made: Sequence[note.Note], stored: Sequence[note.Note]) -> bool:
    return _gist(made) == _gist(stored)


def _gist(notes: Iterable[note.Note]) -> list[object]:
    """Of decisions what sends a call somewhere."""
    found: list[object] = []
    for one in notes:
        match one:
            case note.Visited(node=node):
                found.append(node)
            case note.LegPlanned(target=target, endpoint=endpoint):
                found.append((target, endpoint))
            case note.Concluded(disposition=disposition):
                found.append(disposition)
    return found


def _outcome(record: CallRecord) -> object:
    """Of a call what its caller and the business notice."""
    legs = [(leg.target, leg.endpoint) for leg in record.legs]
    return legs, record.disposition


def _rest(stored: Segments, place: int, then: CallRecord) -> Inputs:
    """What caller and destinations did after an event."""
    messages = [event.seconds for event, _ in stored if isinstance(event, e.RecordingEnded) and event.ok]
    left = then.disposition is Disposition.ABANDONED and not any(leg.answered_at for leg in then.legs)
    rounds = _rounds(stored[place:])
    replies: dict[str, tuple[Reply, ...]] = {}
    for asked in (event for event, _ in stored if isinstance(event, e.WebhookAnswered)):
        replies[asked.node] = (*replies.get(asked.node, ()), asked.reply)
    talks = [leg.talk_seconds for leg in then.legs if leg.talk_seconds]
    return Inputs(
        digits=tuple(rounds),
        answers=tuple(_answers(stored, place, then).items()),
        talk_seconds=max([1.0, *talks]),
        message_seconds=messages[-1] if messages else 0.0,
        patient=not left or bool(then.legs),
        webhooks=tuple(replies.items()),
    )


def _rounds(stored: Segments) -> list[str]:
    """The keys of each round of menus and gathers, as they were decided upon."""
    found = []
    keys = ""
    for event, notes in stored:
        if isinstance(event, e.Digit):
            keys += event.digit
        for one in notes:
            ended = (
                isinstance(one, note.Gathered | note.Consented)
                or (isinstance(one, note.Decided) and one.what in ("timeout", "invalid"))
                or (isinstance(one, note.Decided) and one.what.startswith("digit "))
            )
            if ended:
                found.append(keys)
                keys = ""
    return [*found, keys] if keys else found


def _answers(stored: Segments, place: int, then: CallRecord) -> dict[str, tuple[Answer, ...]]:
    """What each target did when it was rung after an event; of one that was rung before alone, what it did last."""
    later = {one.leg_id for _, notes in stored[place:] for one in notes if isinstance(one, note.LegPlanned)}
    found: dict[str, tuple[Answer, ...]] = {}
    before: dict[str, tuple[Answer, ...]] = {}
    returned = {event.leg_id for event, _ in stored if isinstance(event, e.DialReturned)}
    for leg in then.legs:
        if (answer := _answer(leg, then)) is None:
            continue
        if answer is Answer.ANSWERED and len(then.legs) == 1 and leg.id not in returned:
            answer = Answer.CALLER_LEAVES
        if leg.id in later:
            found[leg.target] = (*found.get(leg.target, ()), answer)
        else:
            before[leg.target] = (answer,)
    return {**before, **found}


def _answer(leg: Leg, then: CallRecord) -> Answer | None:
    """What a target did; None: it cannot be known, as of one that others were faster than."""
    match leg.result:
        case LegResult.ANSWERED:
            return Answer.ANSWERED
        case LegResult.BUSY:
            return Answer.DECLINED if leg.cause == DECLINED_CAUSE else Answer.BUSY
        case LegResult.NO_ANSWER:
            return Answer.NO_ANSWER
        case LegResult.FAILED:
            by_trunk = leg.trunk is not None and trunk_failed("CHANUNAVAIL", leg.cause or 0, leg.ringing_at is not None)
            return Answer.TRUNK_FAILED if by_trunk else Answer.FAILED
        case LegResult.CANCELLED if then.disposition is Disposition.ABANDONED:
            return Answer.CALLER_GIVES_UP
    return None


def _doubts(stored: Segments, made: _Rerun, then: CallRecord) -> Iterable[Doubt]:
    place = made.parted or 0
    known = _answers(stored, place, then)
    rung = Counter(leg.target for leg in made.simulation.record.legs)
    before = Counter(leg.target for leg in then.legs)
    if any(target not in known or times > before[target] for target, times in rung.items()):
        yield Doubt.UNTRIED
    rounds = _rounds(stored[place:])
    if any(e.HIDDEN in keys for keys in rounds[: made.pressed]):
        yield Doubt.HIDDEN
    if made.pressed > len(rounds):
        yield Doubt.MORE_KEYS
    after = made.simulation.log[sum(1 + len(notes) for _, notes in stored[:place]) :]
    if any(isinstance(item, e.RecordingEnded) for item in after) and not any(
        isinstance(event, e.RecordingEnded) for event, _ in stored
    ):
        yield Doubt.NO_MESSAGE
    if any(isinstance(item, e.GroupKnown) for item in after):
        yield Doubt.GROUP


def with_caps(found: Sequence[Replayed], table: RoutingTable) -> list[Replayed]:
    """Replays with the limits of their companies that they would have hit together."""
    companies = {entry.company.id: entry.company for entry in table.entries.values()}
    legs: dict[str, list[tuple[Leg, int]]] = {}
    for place, one in enumerate(found):
        for leg in one.again.legs if one.again is not None else ():
            if leg.trunk is not None and one.again is not None and one.again.company_id in companies:
                legs.setdefault(one.again.company_id, []).append((leg, place))
    hit: dict[int, str] = {}
    for company_id, dialled in legs.items():
        company = companies[company_id]
        policy = policy_of(company)
        for place, cap in _hits(sorted(dialled, key=lambda each: each[0].started_at), policy, company.timezone):
            hit.setdefault(place, cap)
    return [replace(one, cap=hit[place]) if place in hit else one for place, one in enumerate(found)]


def _hits(legs: Sequence[tuple[Leg, int]], policy: Policy, zone: str) -> Iterable[tuple[int, str]]:
    begun: list[float] = []
    ends: list[float] = []
    spent: dict[float, int] = {}
    for leg, place in legs:
        at = leg.started_at
        day = day_start(at, zone) if policy.max_spend is not None else 0.0
        busy = len(ends) - bisect.bisect_right(ends, at)
        hour = len(begun) - bisect.bisect_left(begun, at - 3600.0)
        if (refusal := exceeded(policy, Usage(busy, hour, spent.get(day, 0)))) is not None:
            yield place, str(refusal.cap)
            continue
        begun.append(at)
        bisect.insort(ends, leg.ended_at or at)
        spent[day] = spent.get(day, 0) + (leg.cost_micros or 0)
