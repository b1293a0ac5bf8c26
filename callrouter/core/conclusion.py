"""How a call ended: the one place where a disposition and its sentence are made."""

from __future__ import annotations

from callrouter.core.disposition import Disposition, LegResult, cause_text, leg_result
from callrouter.core.state import Asking, Calling, Choosing, HandedOver, Leaving, Picking, Saying, Session, Taking

MIN_MESSAGE_SECONDS = 1.0
"""A shorter recording is no message."""
TONE_SECONDS = 1.0
"""Within these a message begins: Asterisk is asked for the tone, plays it, and then records."""

_CALLER_LEFT = frozenset({0, 16, 127})
"""Causes of a channel that the dialplan did not end: after its last destination it hangs up with that one's cause."""

_RESULTS = {
    LegResult.ANSWERED: Disposition.ANSWERED,
    LegResult.BUSY: Disposition.BUSY,
    LegResult.NO_ANSWER: Disposition.NO_ANSWER,
    LegResult.CANCELLED: Disposition.ABANDONED,
    LegResult.FAILED: Disposition.FAILED,
}


ASTERISK_ENDED = "Asterisk ended while the call was up"
_HAD_ITS_END = frozenset({Disposition.ANSWERED, Disposition.VOICEMAIL})


def conclude(session: Session, at: float, cause: int, *, asterisk_ended: bool = False) -> tuple[Disposition, str]:
    """The call's disposition, with its reason. Decided here, once, when the caller's channel is gone.

    :param asterisk_ended: the channel went because Asterisk itself did, so that nobody hung up
    """
    disposition, reason = _conclude(session, at, cause)
    if not asterisk_ended or isinstance(session.wait, Leaving):
        return disposition, reason
    if disposition in _HAD_ITS_END:
        return disposition, f"{ASTERISK_ENDED}: {reason}"
    match session.wait:
        case Calling(target=target) | HandedOver(target=target) if target:
            return Disposition.FAILED, f"{ASTERISK_ENDED}: {target} rang"
        case Picking() | Asking() | Saying() | Choosing() | Taking():
            return Disposition.FAILED, f"{ASTERISK_ENDED}: the caller was in {session.node}"
    return Disposition.FAILED, ASTERISK_ENDED


def _conclude(session: Session, at: float, cause: int) -> tuple[Disposition, str]:
    wait = session.wait
    if session.rejected:
        return Disposition.BLOCKED if session.blocked else Disposition.REJECTED, session.ending
    if isinstance(wait, Calling | HandedOver) and wait.answered_at is not None:
        return Disposition.ANSWERED, f"{session.talked or wait.target} answered"
    if session.talked:
        target = session.talked
        return Disposition.ANSWERED, f"{target} answered"
    taken = session.message_seconds
    if taken is None and isinstance(wait, Taking):
        taken = message_so_far(wait, at)
    if taken is not None and taken >= MIN_MESSAGE_SECONDS:
        return Disposition.VOICEMAIL, f"left a message of {taken:.0f} s"
    if isinstance(wait, HandedOver) and wait.leg_id:
        if cause in _CALLER_LEFT:
            return Disposition.ABANDONED, f"the caller hung up while {wait.target} rang"
        return outcome(wait.target, leg_result("", cause), cause)
    if session.unwatched and isinstance(wait, HandedOver):
        return _nobody_rung(session, cause)
    if isinstance(wait, Leaving | HandedOver):
        if session.last_leg is not None:
            return _RESULTS[session.last_leg], session.last_leg_reason
        if isinstance(wait, HandedOver) and cause in _CALLER_LEFT:
            return Disposition.ABANDONED, f"the caller hung up before anything rang: {session.ending}"
        return Disposition.COMPLETED, session.ending
    before = f", after {session.last_leg_reason}" if session.last_leg_reason else ""
    match wait:
        case Calling(target=target):
            return Disposition.ABANDONED, f"the caller hung up while {target} rang{before}"
        case Picking() | Asking() | Saying() | Choosing() | Taking():
            return Disposition.ABANDONED, f"the caller hung up in {session.node}{before}"
    return Disposition.FAILED, f"the call ended before it was routed: {cause_text(cause)}"


def message_so_far(wait: Taking, at: float) -> float:
    """Seconds of a message whose end was not told, as far as the log goes; below 0 it cannot have begun."""
    return at - wait.since - TONE_SECONDS


def _nobody_rung(session: Session, cause: int) -> tuple[Disposition, str]:
    """The end of a call that no controller saw, and whose record names no destination."""
    if session.unwatched == "controller":
        return Disposition.ABANDONED, "the caller hung up before the call was routed"
    if session.entry is not None and session.entry.backups:
        return Disposition.ABANDONED, "the caller hung up before anything rang"
    return Disposition.FAILED, f"nothing was rung: {cause_text(cause)}"


def outcome(target: str, result: LegResult, cause: int) -> tuple[Disposition, str]:
    """What a call comes to whose last destination ended so."""
    return _RESULTS[result], leg_reason(target, result, cause)


def leg_reason(target: str, result: LegResult, cause: int) -> str:
    """What became of one destination, in words."""
    match result:
        case LegResult.ANSWERED:
            return f"{target} answered"
        case LegResult.BUSY:
            return f"{target} was busy"
        case LegResult.NO_ANSWER:
            return f"{target} did not answer" + ("" if cause in (0, 16, 19) else f": {cause_text(cause)}")
        case LegResult.CANCELLED:
            return f"the caller gave up while {target} rang"
        case LegResult.FAILED:
            return f"{target} could not be reached: {cause_text(cause)}"
