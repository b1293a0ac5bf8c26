"""Messages that were planned and never begun: their recordings are not missing."""

from __future__ import annotations

from collections.abc import Sequence

from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.cdr import LogItem
from callrouter.core.conclusion import MIN_MESSAGE_SECONDS, TONE_SECONDS

HUNG_UP = "the caller hung up before the message began"


def nothing_to_record(log: Sequence[LogItem], recording_id: str, *, begun: bool) -> str | None:
    """Why there is no message though one was planned; None: there should be one, and it is missing.

    A message is planned before Asterisk is asked for it, so that a recording can never be without its plan. Who is
    killed or hangs up in between leaves a plan and no file.

    :param log: the call's events and notes, oldest first
    :param begun: whether Asterisk made a file (one without sound)
    """
    planned = (i for i, item in enumerate(log) if isinstance(item, note.RecordingPlanned))
    place = next((i for i in planned if getattr(log[i], "recording_id", None) == recording_id), None)
    if place is None:
        return None
    planned_at, after = log[place].at, log[place + 1 :]
    for item in after:
        match item:
            case e.RecordingEnded(recording_id=ref) if ref == recording_id:
                if item.ok:
                    return "the caller said nothing" if item.seconds < MIN_MESSAGE_SECONDS else None
                break
            case e.ActionFailed(action="Record", ref=ref) if ref == recording_id:
                return HUNG_UP if item.gone else None
    soon = planned_at + TONE_SECONDS + MIN_MESSAGE_SECONDS
    for item in after:
        match item:
            case e.CallerHungUp(at=at) | e.LedgerClosed(at=at) if at < soon:
                return HUNG_UP
            case e.Resumed() if not begun:
                return "the controller was killed before the message began; it began again under another id"
            case e.LedgerClosed(asterisk_ended=False) if not begun:
                return "the controller was killed before the message began, and the caller hung up"
            case e.CallerHungUp() | e.LedgerClosed() | e.TimerFired():
                return None
    return None
