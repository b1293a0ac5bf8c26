"""One call's way through its flow: ``step(session, event)`` gives the next session, what to do, and what was decided.

The session waits for exactly one thing at a time (``Wait``). An event that is not about that thing is stale and changes
nothing. Nothing here can fail: whatever cannot go on goes to the number's backup destination.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import inf

from callrouter.core import actions as a
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.admission import admitted
from callrouter.core.asking import ask, webhook_answered, webhook_silent
from callrouter.core.conclusion import ASTERISK_ENDED, MIN_MESSAGE_SECONDS, conclude, leg_reason, message_so_far
from callrouter.core.dialling import (
    dial_again,
    dial_refused,
    dial_returned,
    leg_alive,
    leg_answered,
    leg_silent,
    leg_started,
    wait_for_life,
)
from callrouter.core.disposition import UNWATCHED, LegResult, leg_result
from callrouter.core.flow.nodes import Webhook
from callrouter.core.keys import digit_pressed, no_digit
from callrouter.core.pausing import pause_again, pause_asked, pause_failed, pause_over
from callrouter.core.recording_policy import decide_alone
from callrouter.core.records import RecordingKind
from callrouter.core.ring_groups import (
    all_returned,
    branch_answered,
    branch_ended,
    branch_refused,
    dial,
    picked,
    ring_all_again,
)
from callrouter.core.routing import Decision, Destination, Entry, Reject, RoutingTable, Way, decide
from callrouter.core.state import (
    BACKUP_LEG,
    Arriving,
    Asking,
    Calling,
    Choosing,
    Due,
    HandedOver,
    Leaving,
    Over,
    Picking,
    Saying,
    Session,
    Step,
    Taking,
)
from callrouter.core.walk import (
    enter,
    hang_up,
    message_taken,
    node_of,
    ring_backup,
    said,
    stop_waiting,
)

ALONE = "no controller answered"
FAILSAFE = "failsafe"
CLOSED = "CLOSED"
"""In place of a DIALSTATUS: by the flow's opening hours the dialplan was to ring nobody."""
BLOCKED = "BLOCKED"
"""The same, for a caller on a block list."""
SAID_BLOCKED = "the caller is on a block list; the dialplan refused the call by itself"
SAID_CLOSED = "the flow ends at this time of the week without ringing anybody; the dialplan did so by itself"
WATCHED_BY_NOBODY = "taken from Asterisk's own record; no controller watched"
RESTARTS = 2
"""At so many restarts in one call its caller is not kept waiting for another one."""
RESUMED_IDS = 1000
"""How far ids jump at a restart: those that a dead controller may have used are never used again."""


def step(session: Session, event: e.Event, table: RoutingTable) -> Step:
    """What an event makes of a call.

    :param table: the routing in force; used for CallArrived only, a call keeps what it started with
    """
    done = _remembered(_step(session, event, table))
    while isinstance(done.session.wait, Due):
        begin = ask if isinstance(node_of(done.session), Webhook) else dial
        done = done.then(_remembered(begin(done.session, event.at)))
    return done


def _remembered(done: Step) -> Step:
    """A step whose session knows what was decided in it."""
    so_far = done.session.so_far.after(done.notes)
    return done if so_far == done.session.so_far else replace(done, session=replace(done.session, so_far=so_far))


def _step(session: Session, event: e.Event, table: RoutingTable) -> Step:
    match event, session.wait:
        case _, Over():
            return Step(session)
        case e.CallArrived(), Arriving():
            return _arrive(session, event, table)
        case e.CallerHungUp(), _:
            return _hung_up(session, event)
        case e.LedgerClosed(), _:
            return _closed_by_ledger(session, event)
        case e.RecordingTrouble(), _:
            return _store_trouble(session, event)
        case e.PauseAsked(), _:
            return pause_asked(session, event)
        case e.TimerFired(timer_id=ref), Calling() if session.paused is not None and ref == session.paused.timer_id:
            return pause_over(session, event)
        case e.TrunksChanged(), _:
            return Step(replace(session, trunks_down=event.down))
        case e.Resumed(), _:
            return _resumed(session, event)
        case e.ActionFailed(), _:
            return _action_failed(session, event)
        case e.PlaybackEnded(playback_id=ref), Saying(playback_id=current) if ref == current:
            return said(session, event)
        case e.Digit(), Saying() | Choosing():
            return digit_pressed(session, event)
        case e.TimerFired(timer_id=ref), Choosing(timer_id=current) if ref == current:
            return no_digit(session, event.at)
        case e.GroupKnown(ref=ref), Picking(ref=current) if ref == current:
            return picked(session, event)
        case e.WebhookAnswered(ref=ref, url=url), Asking(ref=current, url=asked) if (ref, url) == (current, asked):
            return webhook_answered(session, event)
        case e.TimerFired(timer_id=ref), Asking(timer_id=current) if ref == current:
            return webhook_silent(session, event.at)
        case e.LegAnswered(leg_id=ref), Calling() as wait if wait.branch(ref) is not None:
            return branch_answered(session, event)
        case e.LegEnded(leg_id=ref), Calling():
            return branch_ended(session, event)
        case e.DialRefused(leg_id=ref), Calling() as wait if wait.branch(ref) is not None:
            return branch_refused(session, event)
        case e.DialReturned(leg_id=ref), Calling(leg_id=current, branches=branches) if ref == current and branches:
            return all_returned(session, event)
        case e.LegStarted(leg_id=ref), Calling(leg_id=current) if ref == current:
            return leg_started(session, event)
        case e.LegRinging(leg_id=ref) | e.LegProgress(leg_id=ref), Calling(leg_id=current) if ref == current:
            return leg_alive(session)
        case e.TimerFired(timer_id=ref), Calling(timer_id=current) if ref == current:
            return leg_silent(session, event.at)
        case e.LegAnswered(leg_id=ref), Calling(leg_id=current) if ref == current:
            return leg_answered(session, event)
        case e.LegStarted(leg_id=ref), HandedOver(leg_id=current) if ref != current:
            return _backup_leg(session, event)
        case e.LegStarted(leg_id=ref), Calling(answered_at=None) if ref.startswith(BACKUP_LEG):
            # The dial had failed and no controller was there to be told: the dialplan went on by itself.
            return _backup_leg(replace(session, wait=HandedOver(), ending=ALONE), event)
        case e.LegAnswered(leg_id=ref), HandedOver(leg_id=current) if ref == current:
            return _backup_answered(session, event)
        case e.DialReturned(leg_id=ref), Calling(leg_id=current) if ref == current:
            return dial_returned(session, event)
        case e.DialRefused(leg_id=ref), Calling(leg_id=current) if ref == current:
            return dial_refused(session, event)
        case e.RecordingEnded(recording_id=ref), Taking(recording_id=current) if ref == current:
            return message_taken(session, event)
        case e.TimerFired(timer_id=ref), Taking(timer_id=current, recording_id=recording) if ref == current:
            # Its end was lost: the caller must not wait for it.
            ended = e.RecordingEnded(event.at, recording, event.at - session.wait.since)
            return Step(session, (a.StopRecording(recording),)).then(message_taken(session, ended))
    return Step(session)


def _arrive(session: Session, event: e.CallArrived, table: RoutingTable) -> Step:
    decision = admitted(decide(table, event.did), table.blocks, event.caller, event.at, event.history)
    entry = decision.entry
    routed = note.Routed(
        at=event.at,
        why=decision.why,
        company_id=entry.company.id if entry else None,
        campaign_id=entry.campaign.id if entry and entry.campaign else None,
        number_id=entry.number.id if entry else None,
        source=entry.campaign.source if entry and entry.campaign else None,
        medium=entry.campaign.medium if entry and entry.campaign else None,
        flow_version_id=entry.flow_version_id if entry else None,
        config_version=table.version,
        flows=entry.flow_versions if entry else (),
        blocked=isinstance(decision, Reject) and decision.blocked,
    )
    session = replace(
        session,
        entry=entry,
        did=event.did,
        caller=event.caller,
        history=event.history,
        overrides=event.overrides,
        store_problem=event.store_problem,
        trunks_down=event.trunks_down,
    )
    start = Step(session, notes=(routed,))
    if event.unwatched:
        return start.then(_arrived_unwatched(session, event, decision))
    if isinstance(decision, Reject):
        refused = replace(session, rejected=True, blocked=decision.blocked)
        return start.then(hang_up(refused, decision.cause, decision.why))
    assert entry is not None
    return start.then(enter(session, entry.flow.start, event.at, "start of the flow"))


def _arrived_unwatched(session: Session, event: e.CallArrived, decision: Decision) -> Step:
    """The call is over, and its flow was never entered: what Asterisk's own record says follows."""
    session = replace(
        session,
        wait=HandedOver(),
        unwatched=event.handled_by,
        rejected=isinstance(decision, Reject),
        blocked=isinstance(decision, Reject) and decision.blocked,
        ending=decision.why,
    )
    if event.handled_by != FAILSAFE:
        return Step(session)
    return Step(session, notes=(note.Visited(event.at, FAILSAFE, FAILSAFE, event.unwatched),))


def _hung_up(session: Session, event: e.CallerHungUp, *, asterisk_ended: bool = False) -> Step:
    disposition, reason = conclude(session, event.at, event.cause, asterisk_ended=asterisk_ended)
    cancels = stop_waiting(session, channel_gone=True)
    notes: tuple[note.Note, ...] = (note.Concluded(event.at, disposition, reason),)
    return Step(replace(session, wait=Over()), cancels, notes)


def _closed_by_ledger(session: Session, event: e.LedgerClosed) -> Step:
    """The call ended while no controller watched: take the end from Asterisk's own CDR."""
    session = _as_recorded(session, event)
    wait = session.wait
    why = f"{ASTERISK_ENDED}, and left no record of its end" if event.asterisk_ended else WATCHED_BY_NOBODY
    told: tuple[note.Note, ...] = (note.Decided(event.at, session.path, "closed", why),)
    if event.recording_problem:
        told = (*told, note.RecordingSkipped(event.at, event.recording_problem))
    target = (wait.target if isinstance(wait, Calling | HandedOver) else "") or UNWATCHED
    if event.dialstatus == CLOSED:
        session = replace(session, wait=Leaving(), ending=SAID_CLOSED)
        return Step(session, notes=told).then(_hung_up(session, e.CallerHungUp(event.at, event.cause)))
    if event.dialstatus == BLOCKED:
        ending = session.ending if session.blocked else SAID_BLOCKED
        session = replace(session, wait=Leaving(), rejected=True, blocked=True, ending=ending)
        return Step(session, notes=told).then(_hung_up(session, e.CallerHungUp(event.at, event.cause)))
    talk = event.answered_at is not None or event.billsec > 0
    if talk and (event.dialstatus == "ANSWER" or (isinstance(wait, Calling) and not event.dialstatus)):
        # Not ours to have connected: the dialplan's failsafe did.
        session = replace(session, talked=session.talked or target)
        if isinstance(wait, Calling) and wait.answered_at is None and wait.recording:
            began = event.answered_at or event.at - event.billsec
            told = (*told, note.RecordingPlanned(began, wait.leg_id, RecordingKind.CONVERSATION, wait.talking))
    elif isinstance(wait, Calling | HandedOver) and wait.answered_at is None and event.dialstatus not in ("", "ANSWER"):
        result = leg_result(event.dialstatus, event.cause)
        reason = leg_reason(target, result, event.cause)
        session = replace(session, wait=Leaving(), last_leg=result, last_leg_reason=reason)
    elif session.unwatched and isinstance(wait, HandedOver) and wait.leg_id and wait.answered_at is None:
        # Without a result the dialling was not over when the caller's channel went.
        reason = leg_reason(target, LegResult.CANCELLED, event.cause)
        session = replace(session, last_leg=LegResult.CANCELLED, last_leg_reason=reason)
        if not event.asterisk_ended:
            session = replace(session, wait=Leaving())
    ended = _hung_up(session, e.CallerHungUp(event.at, event.cause), asterisk_ended=event.asterisk_ended)
    return Step(ended.session, ended.actions, (*told, *ended.notes))


def _as_recorded(session: Session, event: e.Resumed | e.LedgerClosed) -> Session:
    """A message that Asterisk was never asked for has no length, however long the caller waited for its tone."""
    if event.message_begun is False and isinstance(session.wait, Taking):
        return _never_begun(session, session.wait)
    return session


def _never_begun(session: Session, wait: Taking) -> Session:
    return replace(session, wait=replace(wait, since=inf))


def _resumed(session: Session, event: e.Resumed) -> Step:
    # It may have died before the dialplan was told.
    said = (a.SetConsent(session.consent.given),) if session.consent is not None else ()
    resumed = Step(session, said).then(_go_on(session, event))
    return resumed.then(pause_again(resumed.session, event.at))


def _go_on(session: Session, event: e.Resumed) -> Step:
    """Start again the node whose wait the dead controller began; what of it still runs on the channel stops."""
    session = _as_recorded(session, event)
    stopped = Step(session, stop_waiting(session))
    session = replace(session, counter=session.counter + RESUMED_IDS)
    wait = session.wait
    waits_for_us = isinstance(wait, Picking | Asking | Saying | Choosing | Taking) or (
        isinstance(wait, Calling) and wait.answered_at is None
    )
    if event.inside and waits_for_us and session.counter >= RESTARTS * RESUMED_IDS:
        # They have waited enough; and should it be this call that we die of, it ends here.
        return ring_backup(session, event.at, f"the controller was restarted {RESTARTS} times in this call")
    if isinstance(wait, Calling) and wait.answered_at is None and event.inside:
        again = ring_all_again if wait.branches else dial_again
        return again(session, event.at, "the controller was restarted before it rang")
    if isinstance(wait, Calling):
        return wait_for_life(session)
    if not isinstance(wait, Picking | Asking | Saying | Choosing | Taking):
        return Step(session)
    if isinstance(wait, Taking) and message_so_far(wait, event.at) >= MIN_MESSAGE_SECONDS:
        # What was said is kept. How much of it is not known: at least what makes a message.
        session = replace(session, message_seconds=max(MIN_MESSAGE_SECONDS, session.message_seconds or 0.0))
    if not event.inside:
        # The failsafe took the caller while nobody watched.
        return Step(replace(session, wait=HandedOver(), ending=ALONE))
    why = "the controller was restarted; the node starts again"
    return stopped.then(enter(replace(session, visits=session.visits - 1), session.node, event.at, why))


def _store_trouble(session: Session, event: e.RecordingTrouble) -> Step:
    wait = session.wait
    session = replace(session, store_problem=event.problem or None)
    if event.problem and (isinstance(wait, Taking) or (isinstance(wait, Calling) and wait.recording)):
        return Step(session, notes=(note.RecordingSkipped(event.at, f"may be incomplete: {event.problem}"),))
    return Step(session)


def _action_failed(session: Session, event: e.ActionFailed) -> Step:
    """What could not be done counts as that thing having ended badly; what is not waited for is only told."""
    told = Step(session, notes=(note.Decided(event.at, session.path, f"{event.action} failed", event.reason),))
    match event.action, session.wait:
        case "PauseRecording", _:
            return told.then(pause_failed(session, event))
        case "Play", Saying(playback_id=current) if event.ref == current:
            return told.then(said(session, e.PlaybackEnded(event.at, current, ok=False)))
        case "Record", Taking(recording_id=current) as wait if event.ref == current and event.gone:
            return Step(_never_begun(session, wait), notes=told.notes)
        case "Record", Taking(recording_id=current) if event.ref == current:
            return told.then(message_taken(session, e.RecordingEnded(event.at, current, 0.0, ok=False)))
        case "Dial", Calling(leg_id=current) if event.ref == current:
            return told.then(ring_backup(session, event.at, f"not dialled: {event.reason}"))
        case ("Answer", Saying() | Taking()):
            return told.then(ring_backup(session, event.at, "the call could not be answered"))
    return told


def _backup_leg(session: Session, event: e.LegStarted) -> Step:
    """The failsafe rings a backup destination; it takes them in the entry's order."""
    wait, entry = session.wait, session.entry
    assert isinstance(wait, HandedOver)
    ways = entry.backup_ways if entry else ()
    place = int(number) - 1 if (number := event.leg_id.rpartition("-")[2]).isdecimal() else wait.legs
    destination, way = ways[place] if 0 <= place < len(ways) else (None, None)
    if event.endpoint:
        # Asterisk's own record says whom it dialled, whatever the routing is now.
        dialled = ((each, by) for each, by in _known_ways(entry) if by.endpoint == event.endpoint)
        destination, way = next(dialled, (None, None))
    name = destination.target.name if destination else event.endpoint or UNWATCHED
    planned = note.LegPlanned(
        at=event.at,
        path=FAILSAFE,
        leg_id=event.leg_id,
        target_id=destination.target.id if destination else "",
        target=name,
        endpoint=way.endpoint if way else event.endpoint,
        ring_seconds=destination.target.ring_seconds if destination else 0,
        why="backup destination, rung by the dialplan",
        trunk=way.trunk if way else None,
        rate=way.rate if way else None,
    )
    waiting = HandedOver(leg_id=event.leg_id, target=name, legs=wait.legs + 1)
    return Step(replace(session, wait=waiting, rejected=False), notes=(planned,))


def _known_ways(entry: Entry | None) -> Iterator[tuple[Destination, Way]]:
    for destination in entry.destinations.values() if entry else ():
        for way in destination.ways:
            yield destination, way


def _backup_answered(session: Session, event: e.LegAnswered) -> Step:
    wait, entry = session.wait, session.entry
    assert isinstance(wait, HandedOver)
    session = replace(session, wait=replace(wait, answered_at=event.at))
    destination = entry.destinations.get(wait.target) if entry else None
    alone = decide_alone(entry, destination.target, session.consent) if entry and destination else None
    recorded = event.recorded if event.recorded is not None else alone is not None and alone.record
    if not recorded:
        return Step(session)
    told = (note.Decided(event.at, FAILSAFE, alone.word, alone.why),) if alone is not None and alone.record else ()
    planned = note.RecordingPlanned(event.at, wait.leg_id, RecordingKind.CONVERSATION, wait.leg_id)
    return Step(session, notes=(*told, planned))
