"""What a call may ask of the world. Each value is one thing to do; the executor does it, or reports ActionFailed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from callrouter.core.flow.nodes import Prompt
from callrouter.core.webhooks import Question


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer the caller's channel."""


@dataclass(frozen=True, slots=True)
class Play:
    playback_id: str
    prompts: tuple[Prompt, ...]


@dataclass(frozen=True, slots=True)
class StopPlayback:
    playback_id: str


@dataclass(frozen=True, slots=True)
class StartTimer:
    timer_id: str
    seconds: float


@dataclass(frozen=True, slots=True)
class CancelTimer:
    timer_id: str


@dataclass(frozen=True, slots=True)
class AskGroup:
    """Tell what is known of a group's targets: answered by ``events.GroupKnown``."""

    ref: str
    group_id: str
    target_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AskWebhook:
    """Ask a web service: answered by ``events.WebhookAnswered``, whatever becomes of it."""

    ref: str
    node: str
    url: str
    timeout: float
    """Seconds."""
    question: Question


@dataclass(frozen=True, slots=True)
class StopWebhook:
    """Nobody waits for a service's answer any more."""

    ref: str


@dataclass(frozen=True, slots=True)
class Branch:
    """One of several destinations that ring at once."""

    leg_id: str
    target: str
    """Name."""
    endpoint: str
    caller_id: str | None
    """E.164 shown to this one; None: the caller's own identity."""
    whisper: tuple[Prompt, ...] = ()
    trunk: str | None = None
    number: str = ""
    rate: int | None = None
    """As in ``Dial``."""


@dataclass(frozen=True, slots=True)
class Dial:
    """Enter the talk phase: the dialplan records both legs, rings the destination and connects it."""

    leg_id: str
    target_id: str
    target: str
    """Name, for the trace."""
    endpoint: str
    """Asterisk's dial string, "PJSIP/…"."""
    ring_seconds: int
    caller_id: str | None
    """E.164 shown to the business; None: the caller's own identity, as it came."""
    whisper: tuple[Prompt, ...] = ()
    record: bool = True
    pause_keys: bool = False
    """Whether the keys *1 and *2 pause and resume the recording."""
    music: bool = False
    """The caller hears hold music instead of ringing."""
    ringing: bool = False
    """The caller hears ringing from the start, not only once the destination rings."""
    trunk: str | None = None
    """Name of the trunk; None: by SIP URI, which costs nothing and is not limited."""
    number: str = ""
    """E.164, when over a trunk."""
    rate: int | None = None
    """What a minute costs, in millionths of the company's currency unit; None: not known."""
    branches: tuple[Branch, ...] = ()
    """All that ring at once; then ``endpoint`` is empty."""


@dataclass(frozen=True, slots=True)
class StopLeg:
    """Stop ringing a destination over a trunk that gives no sign of life; the talk phase then returns."""

    leg_id: str
    channel: str
    """Asterisk's id of the leg's own channel."""


@dataclass(frozen=True, slots=True)
class Record:
    """Record a message from the caller. Seconds; ``silence_seconds`` 0: silence does not end it."""

    recording_id: str
    max_seconds: int
    silence_seconds: int
    beep: bool
    finish_on: str
    """"#", "*", "any" key, or "" for none."""


@dataclass(frozen=True, slots=True)
class StopRecording:
    recording_id: str


@dataclass(frozen=True, slots=True)
class SetConsent:
    """Note on the caller's channel whether they may be recorded, where the dialplan finds it without us."""

    given: bool


@dataclass(frozen=True, slots=True)
class PauseRecording:
    """Have silence recorded of both sides of the conversation, or (``on`` False) what is said again."""

    recording_id: str
    on: bool


@dataclass(frozen=True, slots=True)
class Hangup:
    cause: int
    """Q.850."""


@dataclass(frozen=True, slots=True)
class LeaveToFailsafe:
    """Give the caller back to the dialplan, which rings the number's backup destination by itself."""

    reason: str


Action: TypeAlias = (
    Answer
    | Play
    | StopPlayback
    | StartTimer
    | CancelTimer
    | AskGroup
    | AskWebhook
    | StopWebhook
    | Dial
    | StopLeg
    | Record
    | StopRecording
    | SetConsent
    | PauseRecording
    | Hangup
    | LeaveToFailsafe
)
