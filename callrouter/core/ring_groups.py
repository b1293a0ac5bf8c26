"""Dial nodes, from the moment a call comes to one: a target alone, a group one after another, or a group at once.
Called by ``session.step``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from callrouter.core import actions as a
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.conclusion import leg_reason
from callrouter.core.dialling import Rest, dial_target, gave_up, leave_by, next_member, ring_seconds, skipped, skips
from callrouter.core.disposition import LegResult, leg_result
from callrouter.core.flow import nodes as n
from callrouter.core.groups import Facts, order, reason, summed
from callrouter.core.model import Strategy, TargetGroup
from callrouter.core.recording_policy import decide_recording
from callrouter.core.records import RecordingKind
from callrouter.core.routing import Destination
from callrouter.core.state import Branch, Calling, Picking, Session, Step
from callrouter.core.walk import enter, hang_up, next_id, node_of

_NO_FACTS = frozenset({Strategy.IN_ORDER, Strategy.RING_ALL})
"""Strategies whose order needs no facts."""


def dial(session: Session, at: float) -> Step:
    """Start the dial node that the call has come to."""
    node, entry = node_of(session), session.entry
    assert entry is not None
    assert isinstance(node, n.Dial)
    if node.group is None:
        destination = entry.destinations.get(node.target)
        if destination is None:
            return gave_up(session, node, at, LegResult.FAILED, f"there is no target {node.target!r}")
        return dial_target(session, destination, node, at)
    group = entry.groups.get(node.group)
    if group is None:
        return gave_up(session, node, at, LegResult.FAILED, f"there is no group {node.group!r}")
    if group.strategy in _NO_FACTS:
        return _begin(session, node, group, at, Facts())
    session, ref = next_id(session, "g")
    waiting = replace(session, wait=Picking(ref, group.name))
    return Step(waiting, (a.AskGroup(ref, group.id, tuple(_ids(session, group).values())),))


def picked(session: Session, event: e.GroupKnown) -> Step:
    """What is known of the group has come: ring its members by it."""
    node, entry = node_of(session), session.entry
    assert entry is not None
    assert isinstance(node, n.Dial)
    group = entry.groups.get(node.group or "")
    if group is None:
        return gave_up(session, node, event.at, LegResult.FAILED, f"there is no group {node.group!r}")
    return _begin(session, node, group, event.at, event.facts)


def _begin(session: Session, node: n.Dial, group: TargetGroup, at: float, facts: Facts) -> Step:
    ids = _ids(session, group)
    names = [member.target for member in order(group, ids, facts)]
    absent = tuple(skipped(session, one.target, at) for one in group.members if one.target not in ids)
    told = note.Decided(at, session.path, f"group {group.name}", reason(group, names, facts))
    start = Step(session, notes=(*absent, told) if names else absent)
    if group.strategy is Strategy.RING_ALL and names:
        return start.then(_ring_all(session, node, group, names, at))
    return start.then(next_member(session, node, at, Rest(tuple(names))))


def _ids(session: Session, group: TargetGroup) -> dict[str, str]:
    """Id of each of the group's targets that can be dialled, by name."""
    known = session.entry.destinations if session.entry else {}
    return {one.target: known[one.target].target.id for one in group.members if one.target in known}


# -- all at once -------------------------------------------------------------------------------------------------------


def _ring_all(session: Session, node: n.Dial, group: TargetGroup, names: Sequence[str], at: float) -> Step:
    """Ring targets at once, each over its first trunk that is not known to be down."""
    entry = session.entry
    assert entry is not None
    down = dict(session.trunks_down)
    found = [entry.destinations[name] for name in names]
    usable = [each for each in found if not skips(session, each)] or found
    notes: list[note.Note] = [skipped(session, each.target.name, at) for each in found if each not in usable]
    ring = max(ring_seconds(session, node, each.target) for each in usable)
    session, dial_id = next_id(session, "l")
    branches: list[Branch] = []
    for destination in usable:
        session, leg_id = next_id(session, "l")
        target = destination.target
        way = destination.next_way((), down) or destination.ways[0]
        over = f" over {way.trunk}" if way.trunk else ""
        branches.append(Branch(leg_id, target.name, way.endpoint, way.trunk, way.rate))
        notes.append(
            note.LegPlanned(
                at=at,
                path=session.path,
                leg_id=leg_id,
                target_id=target.id,
                target=target.name,
                endpoint=way.endpoint,
                ring_seconds=ring,
                why=f"rings {target.title} for {ring} s{over}, with all of {group.name}",
                trunk=way.trunk,
                rate=way.rate,
                dial=dial_id,
            )
        )
    record, words = _recorded(session, node, usable, at)
    calling = Calling(dial_id, group.name, recording=record, dialled_at=at, branches=tuple(branches))
    waiting = replace(session, wait=calling)
    return Step(waiting, (_dialling(waiting, node, ring),), (*notes, *words))


def _recorded(
    session: Session, node: n.Dial, rung: Sequence[Destination], at: float
) -> tuple[bool, tuple[note.Note, ...]]:
    """Whether the conversation is recorded, whoever answers: one target that must not be keeps it from all."""
    entry = session.entry
    assert entry is not None
    said = [decide_recording(entry, session.node, node.record, each.target, session.consent) for each in rung]
    decided = next((each for each in said if not each.record), said[0])
    told = note.Decided(at, session.path, decided.word, decided.why)
    if decided.record and session.store_problem is not None:
        return False, (told, note.RecordingSkipped(at, session.store_problem))
    return decided.record, (told,)


def _dialling(session: Session, node: n.Dial, ring: int) -> a.Dial:
    entry, wait = session.entry, session.wait
    assert entry is not None
    assert isinstance(wait, Calling)
    branches = []
    for each in wait.branches:
        destination = entry.destinations.get(each.target)
        way = next((one for one in destination.ways if one.endpoint == each.endpoint), None) if destination else None
        if each.result is None and destination is not None and way is not None:
            branches.append(
                a.Branch(
                    leg_id=each.leg_id,
                    target=each.target,
                    endpoint=each.endpoint,
                    caller_id=way.shown_number(entry.number.e164),
                    whisper=entry.whisper(node, each.target),
                    trunk=each.trunk,
                    number=destination.target.number or "",
                    rate=each.rate,
                )
            )
    return a.Dial(
        leg_id=wait.leg_id,
        target_id="",
        target=wait.target,
        endpoint="",
        ring_seconds=ring,
        caller_id=None,
        record=wait.recording,
        pause_keys=entry.company.pause_keys and wait.recording,
        music=node.music,
        ringing=True,
        branches=tuple(branches),
    )


def ring_all_again(session: Session, at: float, why: str) -> Step:
    """Ring what was to ring at once and never did, under the legs that were planned."""
    node, entry, wait = node_of(session), session.entry, session.wait
    assert isinstance(wait, Calling)
    targets = [entry.destinations[each.target].target for each in wait.branches if each.target in entry.destinations] \
        if entry else []  # fmt: skip
    if not isinstance(node, n.Dial) or not targets:
        return enter(replace(session, visits=session.visits - 1), session.node, at, why)
    ring = max(ring_seconds(session, node, target) for target in targets)
    action = _dialling(session, node, ring)
    if not action.branches:
        return enter(replace(session, visits=session.visits - 1), session.node, at, why)
    return Step(session, (action,), (note.Decided(at, session.path, f"dial {wait.target}", why),))


def branch_answered(session: Session, event: e.LegAnswered) -> Step:
    """One of several has answered: the others stop ringing, and are not told of again."""
    wait = session.wait
    assert isinstance(wait, Calling)
    branch = wait.branch(event.leg_id)
    if branch is None or wait.answered_at is not None:
        return Step(session)
    talking = replace(wait, answered_at=event.at, winner=branch.leg_id, target=branch.target)
    session = replace(session, wait=talking, answered=True)
    if not wait.recording:
        return Step(session)
    planned = note.RecordingPlanned(event.at, wait.leg_id, RecordingKind.CONVERSATION, branch.leg_id)
    return Step(session, notes=(planned,))


def branch_ended(session: Session, event: e.LegEnded) -> Step:
    """One of several is out, while the others ring on."""
    wait = session.wait
    assert isinstance(wait, Calling)
    branch = wait.branch(event.leg_id)
    if branch is None or branch.result is not None or wait.answered_at is not None:
        return Step(session)
    result = leg_result(event.status, 0)
    told = note.Decided(event.at, session.path, str(result), leg_reason(branch.target, result, 0))
    return Step(_without(session, wait, branch, result), notes=(told,))


def branch_refused(session: Session, event: e.DialRefused) -> Step:
    """A limit of the company forbids one of several; the others ring. Without others nothing was dialled."""
    wait, node = session.wait, node_of(session)
    assert isinstance(wait, Calling)
    branch = wait.branch(event.leg_id)
    if branch is None or branch.result is not None:
        return Step(session)
    told = note.Decided(
        event.at, session.path, f"refused: {event.cap}", f"{branch.target} was not dialled: {event.reason}"
    )
    session = _without(session, wait, branch, LegResult.FAILED)
    start = Step(session, notes=(told,))
    if any(each.result is None for each in _branches(session)) or not isinstance(node, n.Dial):
        return start
    return start.then(gave_up(session, node, event.at, LegResult.FAILED, f"none of {wait.target} could be dialled"))


def all_returned(session: Session, event: e.DialReturned) -> Step:
    """The talk phase of several that rang at once is over, and the caller is still there."""
    wait, node = session.wait, node_of(session)
    assert isinstance(wait, Calling)
    answered = event.status == "ANSWER" or (wait.answered_at is not None and event.status != "NOANSWER")
    notes: tuple[note.Note, ...] = ()
    if event.recording_problem:
        notes = (note.RecordingSkipped(event.at, event.recording_problem),)
    elif answered and wait.answered_at is None and wait.recording:
        notes = (note.RecordingPlanned(event.at, wait.leg_id, RecordingKind.CONVERSATION),)
    if answered:
        why = leg_reason(wait.target, LegResult.ANSWERED, event.cause)
        session = replace(
            session,
            last_leg=LegResult.ANSWERED,
            last_leg_reason=why,
            talked=session.talked or wait.target,
            answered=True,
        )
        told = Step(session, notes=(note.Decided(event.at, session.path, str(LegResult.ANSWERED), why), *notes))
        if not isinstance(node, n.Dial):
            return told.then(hang_up(session, event.cause or 16, why))
        return told.then(leave_by(session, node, LegResult.ANSWERED, event.at))
    at_last = leg_result(event.status, event.cause)
    results = [each.result or at_last for each in wait.branches]
    whys = [leg_reason(each.target, each.result or at_last, 0) for each in wait.branches]
    told = Step(session, notes=notes)
    if not isinstance(node, n.Dial):
        return told.then(hang_up(session, event.cause or 16, "; ".join(whys)))
    text = f"nobody in {node.rings} answered: {'; '.join(whys)}"
    return told.then(gave_up(session, node, event.at, summed(results), text))


def _branches(session: Session) -> tuple[Branch, ...]:
    return session.wait.branches if isinstance(session.wait, Calling) else ()


def _without(session: Session, wait: Calling, branch: Branch, result: LegResult) -> Session:
    branches = tuple(replace(each, result=result) if each is branch else each for each in wait.branches)
    return replace(session, wait=replace(wait, branches=branches))
