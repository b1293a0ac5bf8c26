"""Dialling one target at a time: the ways to it, what comes of each leg, and which target of a group is next. Called by
``session.step``; what rings at once is in ``core.ring_groups``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from callrouter.core import actions as a
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.conclusion import leg_reason
from callrouter.core.disposition import LegResult, cause_text, leg_result, trunk_failed
from callrouter.core.flow import nodes as n
from callrouter.core.groups import stops, summed
from callrouter.core.model import Target
from callrouter.core.recording_policy import decide_recording
from callrouter.core.records import RecordingKind
from callrouter.core.routing import Destination, Way
from callrouter.core.state import Calling, Session, Step
from callrouter.core.walk import enter, hang_up, leave, next_id, node_of, stop_waiting

RACE_SECONDS = 2.0
"""A leg that was asked to end may be answered in that moment; it ends all the same, so soon after."""


@dataclass(frozen=True, slots=True)
class Rest:
    """What is left of a group, and what came of those of it that rang."""

    left: tuple[str, ...] = ()
    failed: tuple[tuple[LegResult, str], ...] = ()


def dial_target(
    session: Session,
    destination: Destination,
    node: n.Dial,
    at: float,
    tried: tuple[str, ...] = (),
    rest: Rest = Rest(),
) -> Step:
    """Ring a target over the first way that was not tried; trunks known to be down come last."""
    entry = session.entry
    assert entry is not None
    session, leg_id = next_id(session, "l")
    target, down = destination.target, dict(session.trunks_down)
    way = destination.next_way(tried, down) or destination.ways[0]
    decided = decide_recording(entry, session.node, node.record, target, session.consent)
    record = decided.record and session.store_problem is None
    ring = ring_seconds(session, node, target)
    over = f" over {way.trunk}" if way.trunk and len(destination.ways) > 1 else ""
    first = destination.next_way(tried)
    after = f"; {first.trunk} comes last, it is down: {down[first.trunk]}" if first and first.trunk in down else ""
    planned = note.LegPlanned(
        at=at,
        path=session.path,
        leg_id=leg_id,
        target_id=target.id,
        target=target.name,
        endpoint=way.endpoint,
        ring_seconds=ring,
        why=f"rings {target.title} for {ring} s{over}{after if first is not way else ''}",
        trunk=way.trunk,
        rate=way.rate,
    )
    notes: tuple[note.Note, ...] = (planned, note.Decided(at, session.path, decided.word, decided.why))
    if decided.record and not record:
        notes = (*notes, note.RecordingSkipped(at, session.store_problem or ""))
    calling = Calling(
        leg_id,
        target.name,
        recording=record,
        trunk=way.trunk,
        tried=tried,
        dialled_at=at,
        rate=way.rate,
        left=rest.left,
        failed=rest.failed,
    )
    waiting = replace(session, wait=calling)
    return Step(waiting, (_dialling(waiting, destination, way, node),), notes)


def _dialling(session: Session, destination: Destination, way: Way, node: n.Dial) -> a.Dial:
    entry, target, wait = session.entry, destination.target, session.wait
    assert entry is not None
    assert isinstance(wait, Calling)
    return a.Dial(
        leg_id=wait.leg_id,
        target_id=target.id,
        target=target.name,
        endpoint=way.endpoint,
        ring_seconds=ring_seconds(session, node, target),
        caller_id=way.shown_number(entry.number.e164),
        whisper=entry.whisper(node, target.name),
        record=wait.recording,
        pause_keys=entry.company.pause_keys and wait.recording,
        music=node.music,
        # Else the caller would hear nothing while a trunk is silent, and a gap before the next one rings.
        ringing=len(destination.ways) > 1 or node.group is not None,
        trunk=way.trunk,
        number=target.number or "",
        rate=way.rate,
    )


def ring_seconds(session: Session, node: n.Dial, target: Target) -> int:
    """How long a target rings: as the node says, else as its group does, else as it does itself."""
    entry = session.entry
    group = entry.groups.get(node.group) if entry is not None and node.group is not None else None
    own = next((one.ring_seconds for one in group.members if one.target == target.name), None) if group else None
    return node.ring_seconds or own or target.ring_seconds


def next_member(session: Session, node: n.Dial, at: float, rest: Rest) -> Step:
    """Ring the next target of a group that can be rung, or leave the node when none is left."""
    entry = session.entry
    assert entry is not None
    left, told = list(rest.left), Step(session)
    while left:
        name = left.pop(0)
        destination = entry.destinations.get(name)
        if destination is not None and not (left and skips(session, destination)):
            return told.then(dial_target(session, destination, node, at, rest=Rest(tuple(left), rest.failed)))
        told = told.then(Step(session, notes=(skipped(session, name, at),)))
    result = summed([each for each, _ in rest.failed])
    reason = f"nobody in {node.rings} answered: {'; '.join(why for _, why in rest.failed) or 'none could be rung'}"
    return told.then(gave_up(session, node, at, result, reason))


def skips(session: Session, destination: Destination) -> bool:
    """Whether there is no way to a target but over trunks known to be down."""
    down = dict(session.trunks_down)
    return all(way.trunk in down for way in destination.ways)


def skipped(session: Session, name: str, at: float) -> note.Decided:
    """That a target of a group is passed over, and why."""
    destination = session.entry.destinations.get(name) if session.entry else None
    trunks = [way.trunk or "" for way in destination.ways] if destination else []
    down = dict(session.trunks_down)
    why = "; ".join(f"trunk {trunk} is down: {down.get(trunk, '')}" for trunk in trunks) or "it cannot be dialled"
    return note.Decided(at, session.path, f"skipped {name}", why)


def gave_up(session: Session, node: n.Dial, at: float, result: LegResult, reason: str) -> Step:
    """Leave a dial node whose destinations have all failed."""
    told = note.Decided(at, session.path, str(result), reason)
    session = replace(session, last_leg=result, last_leg_reason=reason)
    return Step(session, notes=(told,)).then(leave_by(session, node, result, at))


def leave_by(session: Session, node: n.Dial, result: LegResult, at: float) -> Step:
    """Take the exit of a dial node that a result names."""
    match result:
        case LegResult.ANSWERED:
            return leave(session, node.on_answered, at, "the conversation ended")
        case LegResult.BUSY:
            return leave(session, node.on_busy, at, "busy")
        case LegResult.NO_ANSWER:
            return leave(session, node.on_no_answer, at, "no answer")
        case LegResult.FAILED | LegResult.CANCELLED:
            return leave(session, node.on_failed, at, "failed")


def _destination(session: Session) -> tuple[Destination, n.Dial] | None:
    """What the present node dials now."""
    node, entry, wait = node_of(session), session.entry, session.wait
    if entry is None or not isinstance(node, n.Dial) or not isinstance(wait, Calling):
        return None
    name = wait.target if node.group is not None else node.target
    found = entry.destinations.get(name)
    return (found, node) if found is not None else None


def dial_again(session: Session, at: float, why: str) -> Step:
    """Dial what was decided and never begun, under the leg that was planned."""
    wait, found = session.wait, _destination(session)
    assert isinstance(wait, Calling)
    destination, node = found or (None, None)
    ways = destination.ways if destination is not None and destination.target.name == wait.target else ()
    way = next((way for way in ways if way.trunk == wait.trunk), None)
    if destination is None or node is None or way is None:
        # The configuration is another one now.
        return enter(replace(session, visits=session.visits - 1), session.node, at, why)
    told = note.Decided(at, session.path, f"dial {wait.target}", why)
    return Step(session, (_dialling(session, destination, way, node),), (told,))


def dial_refused(session: Session, event: e.DialRefused) -> Step:
    """A limit of the company forbids the leg: as a destination that cannot be reached."""
    wait, node = session.wait, node_of(session)
    assert isinstance(wait, Calling)
    why = f"{wait.target} was not dialled: {event.reason}"
    told = note.Decided(event.at, session.path, f"refused: {event.cap}", why)
    session = replace(session, last_leg=LegResult.FAILED, last_leg_reason=why)
    start = Step(session, stop_waiting(session), (told,))
    if isinstance(node, n.Dial) and node.group is not None:
        rest = Rest(wait.left, (*wait.failed, (LegResult.FAILED, why)))
        return start.then(next_member(session, node, event.at, rest))
    return start.then(leave(session, node.on_failed if isinstance(node, n.Dial) else None, event.at, "refused"))


def leg_started(session: Session, event: e.LegStarted) -> Step:
    """The INVITE went out: a trunk that another one can take over from has to give a sign of life soon."""
    wait = session.wait
    assert isinstance(wait, Calling)
    return wait_for_life(replace(session, wait=replace(wait, channel=event.channel)))


def wait_for_life(session: Session) -> Step:
    """Start to wait for a leg's sign of life, where its trunk has one that takes over."""
    wait, found = session.wait, _destination(session)
    assert isinstance(wait, Calling)
    waits = wait.channel and wait.answered_at is None and wait.given_up_at is None and not wait.alive
    if not waits or found is None or wait.trunk is None:
        return Step(session)
    destination, node = found
    way = next((way for way in destination.ways if way.trunk == wait.trunk), None)
    if way is None or destination.next_way((*wait.tried, wait.trunk)) is None:
        return Step(session)
    # Before the ringing is over: what ends then is taken for a destination that does not answer.
    seconds = min(way.setup_seconds, 0.8 * ring_seconds(session, node, destination.target))
    stopped = Step(session, stop_waiting(session))
    session, timer_id = next_id(session, "t")
    session = replace(session, wait=replace(wait, timer_id=timer_id))
    return stopped.then(Step(session, (a.StartTimer(timer_id, seconds),)))


def leg_alive(session: Session) -> Step:
    """It rings, or there is early media: whatever comes now is the destination's."""
    wait = session.wait
    assert isinstance(wait, Calling)
    return Step(replace(session, wait=replace(wait, alive=True, timer_id="")), stop_waiting(session))


def leg_silent(session: Session, at: float) -> Step:
    """A trunk gave no sign of life in its time: end the leg; the next trunk is dialled when the talk phase returns."""
    wait = session.wait
    assert isinstance(wait, Calling)
    told = note.Decided(at, session.path, "trunk silent", f"no sign of life over {wait.trunk}; it is given up")
    given_up = replace(session, wait=replace(wait, timer_id="", given_up_at=at))
    return Step(given_up, (a.StopLeg(wait.leg_id, wait.channel),), (told,))


def leg_answered(session: Session, event: e.LegAnswered) -> Step:
    """The destination and the caller are connected."""
    wait = session.wait
    assert isinstance(wait, Calling)
    if wait.answered_at is not None:
        return Step(session)
    stopped = stop_waiting(session)
    session = replace(session, wait=replace(wait, answered_at=event.at, timer_id=""), answered=True)
    if not wait.recording:
        return Step(session, stopped)
    planned = note.RecordingPlanned(event.at, wait.leg_id, RecordingKind.CONVERSATION, wait.leg_id)
    return Step(session, stopped, (planned,))


def dial_returned(session: Session, event: e.DialReturned) -> Step:
    """The talk phase is over and the caller is still there: take the exit that its result names."""
    wait, node = session.wait, node_of(session)
    assert isinstance(wait, Calling)
    stopped = Step(replace(session, wait=replace(wait, timer_id="")), stop_waiting(session))
    if (over := _next_trunk(stopped.session, event)) is not None:
        return stopped.then(over)
    session = stopped.session
    result = leg_result(event.status, event.cause)
    if wait.answered_at is not None and event.status != "NOANSWER":  # hung up on the whisper: nobody took the call
        result = LegResult.ANSWERED
    reason = leg_reason(wait.target, result, event.cause)
    notes: tuple[note.Note, ...] = (note.Decided(event.at, session.path, str(result), reason),)
    if event.recording_problem:
        notes = (*notes, note.RecordingSkipped(event.at, event.recording_problem))
    elif result is LegResult.ANSWERED and wait.answered_at is None and wait.recording:
        notes = (*notes, note.RecordingPlanned(event.at, wait.leg_id, RecordingKind.CONVERSATION, wait.leg_id))
    session = replace(session, last_leg=result, last_leg_reason=reason)
    if result is LegResult.ANSWERED:
        session = replace(session, talked=session.talked or wait.target, answered=True)
    told = Step(session, stopped.actions, notes)
    if not isinstance(node, n.Dial):
        return told.then(hang_up(session, event.cause or 16, reason))
    group = session.entry.groups.get(node.group) if session.entry and node.group is not None else None
    if group is None or result is LegResult.ANSWERED:
        return told.then(leave_by(session, node, result, event.at))
    # A trunk that forbids a call (403) gives the same cause as a person who declines it; but nothing has rung then.
    said = wait.trunk is None or wait.alive
    if (stop := stops(group, result, event.cause if said else 0)) is not None:
        final = Step(session, notes=(note.Decided(event.at, session.path, "stopped", f"{wait.target}: {stop}"),))
        return told.then(final).then(leave_by(session, node, result, event.at))
    return told.then(next_member(session, node, event.at, Rest(wait.left, (*wait.failed, (result, reason)))))


def _next_trunk(session: Session, event: e.DialReturned) -> Step | None:
    """Dial the same target over the next trunk, when this one failed and there is one."""
    wait, found = session.wait, _destination(session)
    assert isinstance(wait, Calling)
    if found is None or wait.trunk is None:
        return None
    gave_up = wait.given_up_at is not None and (wait.answered_at is None or event.at - wait.given_up_at < RACE_SECONDS)
    if not gave_up and (wait.answered_at is not None or not trunk_failed(event.status, event.cause, wait.alive)):
        return None
    destination, node = found
    tried = (*wait.tried, wait.trunk)
    if destination.next_way(tried) is None:
        return None
    told = note.Decided(event.at, session.path, "trunk failed", f"{wait.trunk}: {cause_text(event.cause)}")
    rest = Rest(wait.left, wait.failed)
    return Step(session, notes=(told,)).then(dial_target(session, destination, node, event.at, tried, rest))
