"""What can happen to a call. Everything the core learns of the world is one of these.

``at`` is seconds since the epoch, UTC. Ids are the ones we chose ourselves (call id + sequence), so a late event
is recognised as stale and ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from callrouter.core.groups import Facts
from callrouter.core.identity import CallerHistory
from callrouter.core.model import HoursOverride
from callrouter.core.records import Reply


@dataclass(frozen=True, slots=True)
class CallArrived:
    """A caller's channel entered the application. The first event of every call."""

    at: float
    call_id: str
    channel: str
    """Asterisk's unique id of the caller's channel; the key to Asterisk's own CDR."""
    did: str
    """E.164 where it could be read."""
    caller: str | None
    """E.164; None when withheld."""
    caller_name: str | None
    trunk: str | None
    linkedid: str | None = None
    test: bool = False
    """A call from the built-in simulated carrier."""
    store_problem: str | None = None
    """Why nothing can be recorded at this moment; None when it can."""
    handled_by: str = "controller"
    """"failsafe" when the dialplan handled the call by itself."""
    unwatched: str = ""
    """Why no controller saw this call, which is told afterwards from Asterisk's own records; empty: one did."""
    trunks_down: tuple[tuple[str, str], ...] = ()
    """Trunks known to be down, each with the reason."""
    overrides: tuple[HoursOverride, ...] = ()
    """Opening hours of this number that are overridden now."""
    privacy: str | None = None
    """Why the caller's number is withheld, in the words of RFC 3323 ("id"); None: it was not asked for."""
    diverted_from: str | None = None
    """Who diverted the call to us (RFC 5806), with the reason."""
    verstat: str | None = None
    """What the trunk says of the number's signature (STIR/SHAKEN); None: nothing, or it is not trusted."""
    history: CallerHistory | None = None
    """Of this caller at the company; None: it is not known, or the number is withheld."""


@dataclass(frozen=True, slots=True)
class Answered:
    """We answered the caller (which is not the business answering)."""

    at: float


@dataclass(frozen=True, slots=True)
class PlaybackEnded:
    at: float
    playback_id: str
    ok: bool = True


HIDDEN = "•"
"""In place of a digit that must not be known, or that nobody asked for (``keys.masked``)."""


@dataclass(frozen=True, slots=True)
class Digit:
    """One DTMF digit (RFC 4733), at key release."""

    at: float
    digit: str
    """0-9, A-D, * or #; HIDDEN in a log, where it is not to be known."""


@dataclass(frozen=True, slots=True)
class TimerFired:
    at: float
    timer_id: str


@dataclass(frozen=True, slots=True)
class LegStarted:
    """The INVITE to a destination went out."""

    at: float
    leg_id: str
    channel: str
    endpoint: str = ""
    """Asterisk's dial string, where Asterisk's own record tells of the leg."""


@dataclass(frozen=True, slots=True)
class LegRinging:
    at: float
    leg_id: str


@dataclass(frozen=True, slots=True)
class LegProgress:
    """Early media (SIP 183)."""

    at: float
    leg_id: str


@dataclass(frozen=True, slots=True)
class LegAnswered:
    at: float
    leg_id: str
    recorded: bool | None = None
    """Whether it was recorded, where Asterisk's own record tells of the leg; None: as was planned."""


@dataclass(frozen=True, slots=True)
class LegHeld:
    """Either side put the conversation on hold, or took it back (``on`` False)."""

    at: float
    leg_id: str
    on: bool


@dataclass(frozen=True, slots=True)
class DialReturned:
    """The talk phase is over and the caller is still there: ``Dial()``'s DIALSTATUS and HANGUPCAUSE (Q.850)."""

    at: float
    leg_id: str
    status: str
    cause: int
    recording_problem: str | None = None
    """Why the talk phase could not be recorded, when it should have been."""


@dataclass(frozen=True, slots=True)
class RecordingEnded:
    """A message (voicemail) is complete."""

    at: float
    recording_id: str
    seconds: float
    ok: bool = True


@dataclass(frozen=True, slots=True)
class RecordingTrouble:
    """The recording store is missing, full or not writable: noticed before the call needed it, or during."""

    at: float
    problem: str


COMMAND = "command"
"""Who asked for a pause, when it was somebody at a shell."""


@dataclass(frozen=True, slots=True)
class PauseAsked:
    """Somebody wants the conversation's recording paused, or resumed."""

    at: float
    on: bool
    by: str
    """"caller", "business", or COMMAND."""


@dataclass(frozen=True, slots=True)
class TrunksChanged:
    """Trunks went down or came back."""

    at: float
    down: tuple[tuple[str, str], ...]
    """Those known to be down now, each with the reason."""


@dataclass(frozen=True, slots=True)
class GroupKnown:
    """What is known of a group that a call came to; each time its turn is one more."""

    at: float
    ref: str
    group_id: str
    facts: Facts


@dataclass(frozen=True, slots=True)
class WebhookAnswered:
    """A web service was asked, and answered or did not."""

    at: float
    ref: str
    node: str
    url: str
    reply: Reply


@dataclass(frozen=True, slots=True)
class LegEnded:
    """One of several destinations that ring at once is out; the others go on. ``status`` is a DIALSTATUS."""

    at: float
    leg_id: str
    status: str


@dataclass(frozen=True, slots=True)
class DialRefused:
    """A leg was not dialled: a limit of the company forbids it."""

    at: float
    leg_id: str
    cap: str
    """Which (``outbound.Cap``)."""
    reason: str


@dataclass(frozen=True, slots=True)
class ActionFailed:
    """What we asked Asterisk for did not work. ``action`` is the action's class name; ``ref`` its id, if it has one."""

    at: float
    action: str
    reason: str
    ref: str | None = None
    gone: bool = False
    """It was asked of a channel that is no more; the call's end is reported, too."""


@dataclass(frozen=True, slots=True)
class CallerHungUp:
    """The caller's channel is gone, whoever ended it. The last event of every call. ``cause`` is Q.850."""

    at: float
    cause: int = 16


@dataclass(frozen=True, slots=True)
class Resumed:
    """The controller was restarted and found the caller's channel alive."""

    at: float
    inside: bool = True
    """Whether the channel waits in our application for what the log says is due; else the dialplan has or had it."""
    message_begun: bool | None = None
    """Whether Asterisk has begun to record the message that is being taken; None: nobody looked."""


@dataclass(frozen=True, slots=True)
class LedgerClosed:
    """The call ended while no controller watched; Asterisk's own CDR says how, or that Asterisk ended first."""

    at: float
    billsec: float
    """Seconds of conversation."""
    answered_at: float | None
    cause: int
    dialstatus: str = ""
    recording_problem: str | None = None
    """Why the last conversation was not recorded, when it should have been."""
    asterisk_ended: bool = False
    """There is no CDR of the end, for Asterisk itself ended while the call was up; ``at`` is when it was last seen."""
    message_begun: bool | None = None
    """Whether Asterisk had begun to record the message that was being taken; None: nobody looked."""


Event: TypeAlias = (
    CallArrived
    | Answered
    | PlaybackEnded
    | Digit
    | TimerFired
    | LegStarted
    | LegRinging
    | LegProgress
    | LegAnswered
    | LegHeld
    | DialReturned
    | RecordingEnded
    | RecordingTrouble
    | PauseAsked
    | TrunksChanged
    | GroupKnown
    | WebhookAnswered
    | LegEnded
    | DialRefused
    | ActionFailed
    | CallerHungUp
    | Resumed
    | LedgerClosed
)
