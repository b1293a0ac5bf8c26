"""Walking a flow: what each node starts, and where its outcomes lead. Called by ``session.step``."""

from __future__ import annotations

from dataclasses import replace

from callrouter.core import actions as a
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.conclusion import MIN_MESSAGE_SECONDS, leg_reason
from callrouter.core.disposition import LegResult, cause_text, leg_result, trunk_failed
from callrouter.core.flow import nodes as n
from callrouter.core.hours import is_open, local_time
from callrouter.core.records import RecordingKind
from callrouter.core.routing import Destination, Way, filled
from callrouter.core.state import Calling, Choosing, HandedOver, Leaving, Saying, Session, Step, Taking
from callrouter.errors import InputError

MAX_VISITS = 200
"""Nodes a call may pass; a flow that goes round beyond that rings its backup destination."""

RACE_SECONDS = 2.0
"""A leg that was asked to end may be answered in that moment; it ends all the same, so soon after."""

BACKUP = "(backup)"
"""Node name of the backup destination in paths."""


def hang_up(session: Session, cause: int, why: str) -> Step:
    """End the caller's channel.

    :param cause: Q.850
    """
    return Step(replace(session, wait=Leaving(cause), ending=why), (a.Hangup(cause),))


def stop_waiting(session: Session, channel_gone: bool = False) -> tuple[a.Action, ...]:
    """Stop what was started for the present wait. What lives on the channel went with it."""
    match session.wait:
        case Saying(playback_id=ref) if not channel_gone:
            return (a.StopPlayback(ref),)
        case Choosing(timer_id=ref):
            return (a.CancelTimer(ref),)
        case Taking(timer_id=ref, recording_id=recording):
            cancel = a.CancelTimer(ref)
            return (cancel,) if channel_gone else (cancel, a.StopRecording(recording))
        case Calling(timer_id=ref) if ref:
            return (a.CancelTimer(ref),)
    return ()


def enter(session: Session, name: str, at: float, why: str) -> Step:
    """Go to a node: run through those that need no waiting until one does."""
    entry = session.entry
    assert entry is not None
    if session.visits >= MAX_VISITS:
        return ring_backup(session, at, f"the flow went through {MAX_VISITS} nodes without end")
    node = entry.flow.nodes.get(name)
    if node is None:
        return ring_backup(session, at, f"there is no node {name!r}")
    session = replace(session, node=name, visits=session.visits + 1, tries=0)
    visited = Step(session, notes=(note.Visited(at, session.path, name, why),))
    match node:
        case n.Play():
            return visited.then(say(session, node.prompts, "prompt"))
        case n.Menu() | n.Gather():
            return visited.then(say(session, node.prompts, "prompt"))
        case n.Dial():
            return visited.then(_dial_node(session, node, at))
        case n.Hours():
            return visited.then(_hours_node(session, node, at))
        case n.Voicemail():
            if not node.prompts:
                return visited.then(_take_message(session, node, at))
            return visited.then(say(session, node.prompts, "greeting"))
        case n.Tag():
            tagged = Step(session, notes=(note.Tagged(at, session.path, node.tags),))
            return visited.then(tagged).then(enter(session, node.next, at, "next"))
        case n.Hangup():
            return visited.then(hang_up(session, n.HANGUP_CAUSES[node.cause], f"the flow ended at {name}"))


def leave(session: Session, to: str | None, at: float, why: str) -> Step:
    """Take an exit; None hangs up."""
    if to is None:
        return hang_up(session, 16, f"{why} at {session.node}")
    return enter(session, to, at, why)


def node_of(session: Session) -> n.Node | None:
    """Where the call stands."""
    return session.entry.flow.nodes.get(session.node) if session.entry else None


def next_id(session: Session, kind: str) -> tuple[Session, str]:
    """An id that this call has not used yet."""
    count = session.counter + 1
    return replace(session, counter=count), f"{session.call_id}-{kind}{count}"


def say(session: Session, prompts: n.Prompts, part: str) -> Step:
    """Play prompts, to a caller who is answered first.

    :param part: of the node, as ``Saying`` names it
    """
    answering: tuple[a.Action, ...] = ()
    if not session.answered:
        answering = (a.Answer(),)
        session = replace(session, answered=True)
    entry = session.entry
    assert entry is not None
    session, playback_id = next_id(session, "p")
    spoken = tuple(filled(prompt, entry) for prompt in prompts)
    session = replace(session, wait=Saying(playback_id, part))
    return Step(session, (*answering, a.Play(playback_id, spoken)))


def said(session: Session, event: e.PlaybackEnded) -> Step:
    """A prompt is over, well or not."""
    wait, node = session.wait, node_of(session)
    assert isinstance(wait, Saying)
    failed: tuple[note.Note, ...] = ()
    if not event.ok:
        failed = (note.Decided(event.at, session.path, "prompt", "could not be played"),)
    start = Step(session, notes=failed)
    match node:
        case n.Play():
            to, why = (node.next, "prompt over") if event.ok else (node.on_failed, "prompt failed")
            return start.then(leave(session, to, event.at, why))
        case n.Menu() | n.Gather() if wait.part == "invalid":
            return start.then(say(session, node.prompts, "prompt"))
        case n.Menu() | n.Gather():
            waiting, timer_id = next_id(session, "t")
            waiting = replace(waiting, wait=Choosing(timer_id))
            return start.then(Step(waiting, (a.StartTimer(timer_id, node.timeout),)))
        case n.Voicemail():
            return start.then(_take_message(session, node, event.at))
    return start


def _hours_node(session: Session, node: n.Hours, at: float) -> Step:
    assert session.entry is not None
    zone = node.timezone or session.entry.company.timezone
    try:
        is_now_open = is_open(node.open, zone, at, session.entry.company.country)
    except InputError as exc:
        told = note.Decided(at, session.path, "hours", f"unreadable, taken as open: {exc.message}")
        return Step(session, notes=(told,)).then(enter(session, node.on_open, at, "open"))
    word = "open" if is_now_open else "closed"
    told = note.Decided(at, session.path, word, f"{local_time(zone, at)} against {node.open!r}")
    return Step(session, notes=(told,)).then(enter(session, node.on_open if is_now_open else node.on_closed, at, word))


def _dial_node(session: Session, node: n.Dial, at: float) -> Step:
    assert session.entry is not None
    destination = session.entry.destinations.get(node.target)
    if destination is None:
        why = f"there is no target {node.target!r}"
        told = note.Decided(at, session.path, "failed", why)
        session = replace(session, last_leg=LegResult.FAILED, last_leg_reason=why)
        return Step(session, notes=(told,)).then(leave(session, node.on_failed, at, why))
    return _dial(session, destination, node, at)


def _dial(session: Session, destination: Destination, node: n.Dial, at: float, tried: tuple[str, ...] = ()) -> Step:
    """Ring a target over the first way that was not tried; trunks known to be down come last."""
    entry = session.entry
    assert entry is not None
    session, leg_id = next_id(session, "l")
    target, down = destination.target, dict(session.trunks_down)
    way = destination.next_way(tried, down) or destination.ways[0]
    wanted = entry.company.record if node.record is None else node.record
    record = wanted and session.store_problem is None
    ring = node.ring_seconds or target.ring_seconds
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
    notes: tuple[note.Note, ...] = (planned,)
    if wanted and not record:
        notes = (*notes, note.RecordingSkipped(at, session.store_problem or ""))
    calling = Calling(leg_id, target.name, recording=record, trunk=way.trunk, tried=tried, dialled_at=at, rate=way.rate)
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
        ring_seconds=node.ring_seconds or target.ring_seconds,
        caller_id=way.shown_number(entry.number.e164),
        whisper=entry.whisper(node),
        record=wait.recording,
        music=node.music,
        # Else the caller would hear nothing while a trunk is silent, and a gap before the next one rings.
        ringing=len(destination.ways) > 1,
        trunk=way.trunk,
        number=target.number or "",
        rate=way.rate,
    )


def _destination(session: Session) -> tuple[Destination, n.Dial] | None:
    """What the present node dials."""
    node, entry = node_of(session), session.entry
    if entry is None or not isinstance(node, n.Dial) or (found := entry.destinations.get(node.target)) is None:
        return None
    return found, node


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
    seconds = min(way.setup_seconds, 0.8 * (node.ring_seconds or destination.target.ring_seconds))
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
    match result:
        case LegResult.ANSWERED:
            return told.then(leave(session, node.on_answered, event.at, "the conversation ended"))
        case LegResult.BUSY:
            return told.then(leave(session, node.on_busy, event.at, "busy"))
        case LegResult.NO_ANSWER:
            return told.then(leave(session, node.on_no_answer, event.at, "no answer"))
        case LegResult.FAILED | LegResult.CANCELLED:
            return told.then(leave(session, node.on_failed, event.at, "failed"))


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
    return Step(session, notes=(told,)).then(_dial(session, destination, node, event.at, tried))


def _take_message(session: Session, node: n.Voicemail, at: float) -> Step:
    if session.store_problem is not None:
        told = note.RecordingSkipped(at, session.store_problem)
        return Step(session, notes=(told,)).then(leave(session, node.on_failed, at, "no message can be recorded"))
    answering: tuple[a.Action, ...] = () if session.answered else (a.Answer(),)
    session, recording_id = next_id(replace(session, answered=True), "m")
    session, timer_id = next_id(session, "t")
    # Asterisk ends the recording by itself; the timer is for one whose end never comes.
    actions = (
        *answering,
        a.Record(recording_id, node.max_seconds, node.silence_seconds, node.beep, node.finish_on),
        a.StartTimer(timer_id, node.max_seconds + 10.0),
    )
    planned = note.RecordingPlanned(at, recording_id, RecordingKind.VOICEMAIL)
    return Step(replace(session, wait=Taking(recording_id, at, timer_id)), actions, (planned,))


def message_taken(session: Session, event: e.RecordingEnded) -> Step:
    """A message is complete, empty, or could not be recorded."""
    wait, node = session.wait, node_of(session)
    assert isinstance(wait, Taking)
    stop = Step(session, (a.CancelTimer(wait.timer_id),))
    if not isinstance(node, n.Voicemail):
        return stop
    if not event.ok or event.seconds < MIN_MESSAGE_SECONDS:
        why = "no message was left" if event.ok else "the message could not be recorded"
        told = note.Decided(event.at, session.path, "failed", why)
        return stop.then(Step(session, notes=(told,))).then(leave(session, node.on_failed, event.at, why))
    session = replace(session, message_seconds=max(event.seconds, session.message_seconds or 0.0))
    told = note.Decided(event.at, session.path, "done", f"a message of {event.seconds:.0f} s")
    return stop.then(Step(session, notes=(told,))).then(leave(session, node.on_done, event.at, "message taken"))


def ring_backup(session: Session, at: float, why: str) -> Step:
    """The flow cannot go on: the dialplan's failsafe rings the number's backup destinations, in order."""
    stopped = Step(session, stop_waiting(session))
    session = replace(session, wait=HandedOver(), node=BACKUP, ending=why)
    told = note.Visited(at, session.path, BACKUP, why)
    return stopped.then(Step(session, (a.LeaveToFailsafe(why),), (told,)))
