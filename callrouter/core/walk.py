"""Walking a flow: what each node starts, and where its outcomes lead. Called by ``session.step``."""

from __future__ import annotations

from dataclasses import replace

from callrouter.core import actions as a
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.branches import branch
from callrouter.core.conclusion import MIN_MESSAGE_SECONDS
from callrouter.core.consent import after_prompt, refused, settle, way_out
from callrouter.core.flow import nodes as n
from callrouter.core.records import ConsentResponse, RecordingKind
from callrouter.core.routing import filled
from callrouter.core.state import Asking, Calling, Choosing, Due, HandedOver, Leaving, Saying, Session, Step, Taking

MAX_VISITS = n.MAX_VISITS
"""Nodes a call may pass, in all flows; one that goes round beyond that rings its backup destination."""

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
        case Asking(ref=ref, timer_id=timer_id):
            return (a.CancelTimer(timer_id), a.StopWebhook(ref))
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
        case n.Consent() if refused(session):
            return visited.then(leave(session, node.on_refused, at, "the caller refused before"))
        case n.Consent():
            return visited.then(say(session, node.prompts, "prompt"))
        case n.Dial() | n.Webhook():
            return visited.then(Step(replace(session, wait=Due())))
        case n.Hours() | n.Split() | n.Geo() | n.Caller():
            taken = branch(session, node, at)
            told = Step(session, notes=(note.Decided(at, session.path, taken.what, taken.why),))
            return visited.then(told).then(enter(session, taken.to, at, taken.what))
        case n.Voicemail():
            if not node.prompts:
                return visited.then(_take_message(session, node, at))
            return visited.then(say(session, node.prompts, "greeting"))
        case n.Tag():
            tagged = Step(session, notes=(note.Tagged(at, session.path, node.tags),))
            return visited.then(tagged).then(enter(session, node.next, at, "next"))
        case n.Set():
            assigned = note.Assigned(at, session.path, node.values, node.language)
            session = replace(session, language=node.language or session.language)
            return visited.then(Step(session, notes=(assigned,))).then(enter(session, node.next, at, "next"))
        case n.GotoFlow(to=str(to)):
            return visited.then(enter(session, to, at, f"goes on in flow {node.flow}"))
        case n.GotoFlow():
            return visited.then(ring_backup(session, at, f"there is no way to go on in flow {node.flow}"))
        case n.Hangup():
            return visited.then(hang_up(session, n.HANGUP_CAUSES[node.cause], f"the flow ended at {name}"))


def leave(session: Session, to: str | None, at: float, why: str) -> Step:
    """Take an exit; None hangs up."""
    if to is None:
        return hang_up(session, 16, f"{why} at {session.node}")
    return enter(session, to, at, why)


def consented(session: Session, node: n.Consent, response: ConsentResponse, at: float, digit: str = "") -> Step:
    """A caller's answer about recording: put it on record, and go on."""
    settled = settle(session, node, response, at, digit)
    return settled.then(leave(settled.session, way_out(node, response), at, response.told))


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
    spoken = tuple(filled(prompt, entry, session.language) for prompt in prompts)
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
        case n.Consent() if (response := after_prompt(node, played=event.ok)) is not None:
            return start.then(consented(session, node, response, event.at))
        case n.Menu() | n.Gather() | n.Consent():
            waiting, timer_id = next_id(session, "t")
            waiting = replace(waiting, wait=Choosing(timer_id))
            return start.then(Step(waiting, (a.StartTimer(timer_id, node.timeout),)))
        case n.Voicemail():
            return start.then(_take_message(session, node, event.at))
    return start


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
