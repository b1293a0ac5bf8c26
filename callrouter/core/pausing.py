"""Pausing a conversation's recording, so that what is said meanwhile (a card's number) is in no file. Called by
``session.step``.

Asterisk writes silence while a recording is paused, of both sides and of the same length, and keeps to it when the
controller dies. A pause that nobody ends is ended by a timer, which a restarted controller takes up again.
"""

from __future__ import annotations

from dataclasses import replace

from callrouter.core import actions as a
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.state import Calling, Paused, Session, Step
from callrouter.core.walk import next_id

REFUSED = "pause refused"
FORGOTTEN = "its time is over"
RETRY_SECONDS = 5.0


def pause_asked(session: Session, event: e.PauseAsked) -> Step:
    """Somebody in the conversation, or at a shell, wants it paused or resumed."""
    wait, entry = session.wait, session.entry
    if entry is None or (event.by != e.COMMAND and not entry.company.pause_keys):
        return Step(session)
    if not isinstance(wait, Calling) or wait.answered_at is None or not wait.recording:
        return _told(session, event.at, REFUSED, f"no conversation is being recorded ({event.by})")
    if event.on == (session.paused is not None):
        return Step(session)
    if not event.on:
        return _resume(session, event.at, event.by)
    session, timer_id = next_id(session, "t")
    paused = Paused(wait.leg_id, timer_id, event.at + entry.company.pause_seconds)
    told = note.RecordingPaused(event.at, wait.leg_id, event.by)
    does = (a.PauseRecording(wait.leg_id, True), a.StartTimer(timer_id, float(entry.company.pause_seconds)))
    return Step(replace(session, paused=paused), does, (told,))


def pause_over(session: Session, event: e.TimerFired) -> Step:
    """Nobody has ended a pause in its time."""
    return _resume(session, event.at, FORGOTTEN)


def pause_failed(session: Session, event: e.ActionFailed) -> Step:
    """What could not be paused is recorded; what could not be resumed stays paused, and is tried again."""
    paused, wait = session.paused, session.wait
    if paused is None and isinstance(wait, Calling) and event.ref == wait.leg_id:
        session, timer_id = next_id(session, "t")
        still = Paused(wait.leg_id, timer_id, event.at + RETRY_SECONDS)
        told = note.RecordingPaused(event.at, wait.leg_id, event.reason)
        return Step(replace(session, paused=still), (a.StartTimer(timer_id, RETRY_SECONDS),), (told,))
    if paused is None or event.ref != paused.recording_id:
        return Step(session)
    resumed = note.RecordingResumed(event.at, paused.recording_id, event.reason)
    return Step(replace(session, paused=None), (a.CancelTimer(paused.timer_id),), (resumed,))


def pause_again(session: Session, at: float) -> Step:
    """After a restart: Asterisk may not have been told, and nobody counted the time."""
    paused = session.paused
    if paused is None or not isinstance(session.wait, Calling):
        return Step(session)
    if at >= paused.until:
        return _resume(session, at, FORGOTTEN)
    session, timer_id = next_id(session, "t")
    does = (a.PauseRecording(paused.recording_id, True), a.StartTimer(timer_id, paused.until - at))
    return Step(replace(session, paused=replace(paused, timer_id=timer_id)), does)


def _resume(session: Session, at: float, by: str) -> Step:
    paused = session.paused
    assert paused is not None
    does = (a.CancelTimer(paused.timer_id), a.PauseRecording(paused.recording_id, False))
    told = note.RecordingResumed(at, paused.recording_id, by)
    return Step(replace(session, paused=None), does, (told,))


def _told(session: Session, at: float, what: str, why: str) -> Step:
    return Step(session, notes=(note.Decided(at, session.path, what, why),))
