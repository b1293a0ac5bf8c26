"""What remains of a call: the CDR, its legs, its trace, its recordings. Folded from the call's log by ``cdr.fold``."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from callrouter.core.disposition import Disposition, LegResult


class RecordingKind(StrEnum):
    CONVERSATION = "conversation"
    """Two channels: caller left, business right."""
    VOICEMAIL = "voicemail"
    """One channel."""


class RecordingStatus(StrEnum):
    PENDING = "pending"
    """Being made, or waiting for the job that finishes it."""
    OK = "ok"
    SUSPECT = "suspect"
    """Kept, but something about it is off; ``problem`` says what."""
    MISSING = "missing"
    """It should exist and does not; ``problem`` says why."""
    EMPTY = "empty"
    """There was nothing to record, as when the caller left before the tone; ``problem`` says what happened."""


class ConsentResponse(StrEnum):
    """What came of telling a caller about recording, or of asking."""

    ANNOUNCED = "announced"
    AGREED = "agreed"
    NOT_REFUSED = "not-refused"
    REFUSED = "refused"
    NO_ANSWER = "no-answer"
    NOT_ASKED = "not-asked"

    @property
    def told(self) -> str:
        """In words."""
        return _RESPONSES[self]


_RESPONSES = {
    ConsentResponse.ANNOUNCED: "the caller was told of it, and stayed",
    ConsentResponse.AGREED: "the caller agreed",
    ConsentResponse.NOT_REFUSED: "the caller was asked, and did not refuse",
    ConsentResponse.REFUSED: "the caller refused",
    ConsentResponse.NO_ANSWER: "the caller was asked to agree, and did not",
    ConsentResponse.NOT_ASKED: "the caller could not be asked",
}


@dataclass(frozen=True, slots=True)
class Consent:
    """What a caller was last told or asked about recording, and the answer."""

    at: float
    path: str
    """The node: "front-desk@3/ask"."""
    mode: str
    """One of ``nodes.ConsentMode``."""
    response: ConsentResponse
    script: str
    """SHA-256 of what was said: its texts, and of uploaded files their audio."""
    digit: str = ""
    """The key that was pressed."""

    @property
    def given(self) -> bool:
        """Whether the caller may be recorded."""
        return self.response in (ConsentResponse.ANNOUNCED, ConsentResponse.AGREED, ConsentResponse.NOT_REFUSED)

    @property
    def refused(self) -> bool:
        """Whether that was said, and holds to the end of the call."""
        return self.response is ConsentResponse.REFUSED


class WebhookResult(StrEnum):
    """How the asking of a service ended."""

    ANSWERED = "answered"
    TIMEOUT = "timeout"
    FAILED = "failed"
    """Not reached, or its answer could not be used."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of asking a service."""

    result: WebhookResult
    reason: str = ""
    """Why it failed; of an answer that is not a real one, where it comes from."""
    branch: str | None = None
    tags: tuple[str, ...] = ()
    values: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Leg:
    """One destination that was tried."""

    id: str
    seq: int
    target_id: str | None
    target: str
    endpoint: str
    started_at: float
    ringing_at: float | None = None
    answered_at: float | None = None
    ended_at: float | None = None
    cause: int | None = None
    result: LegResult | None = None
    hold_seconds: float = 0.0
    trunk: str | None = None
    """Name of the trunk it was dialled over; None: by SIP URI, or not dialled at all."""
    cost_micros: int | None = None
    """What it cost, in millionths of the company's currency unit; None: nothing, or no rate is known."""

    @property
    def ring_seconds(self) -> float:
        """From the first sign of ringing (or the INVITE, when none came) to answer or end."""
        end = self.answered_at or self.ended_at
        return max(0.0, end - (self.ringing_at or self.started_at)) if end else 0.0

    @property
    def talk_seconds(self) -> float:
        return max(0.0, self.ended_at - self.answered_at) if self.answered_at and self.ended_at else 0.0


@dataclass(frozen=True, slots=True)
class Pause:
    """A stretch in which silence was recorded on purpose."""

    begin: float
    end: float | None
    """None: to the recording's end."""
    by: str
    """Who asked for it."""


@dataclass(frozen=True, slots=True)
class RecordingRef:
    """A recording that a call should have. Raw files are ``<id>-rx.wav`` (caller) and ``<id>-tx.wav`` (business),
    or ``<id>.wav`` for a message."""

    id: str
    kind: RecordingKind
    leg_id: str | None
    started_at: float
    status: RecordingStatus = RecordingStatus.PENDING
    problem: str | None = None
    pauses: tuple[Pause, ...] = ()


@dataclass(frozen=True, slots=True)
class TraceStep:
    """One decision, addressed by where in the routing it was taken, with its reason."""

    at: float
    path: str
    """"number", "front-desk@3/menu", "failsafe" …"""
    what: str
    why: str


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One caller's call: the CDR. All times seconds since the epoch, UTC."""

    id: str
    uniqueid: str
    linkedid: str | None
    did: str
    caller: str | None
    caller_name: str | None
    trunk: str | None
    started_at: float
    test: bool = False
    company_id: str | None = None
    campaign_id: str | None = None
    number_id: str | None = None
    source: str | None = None
    medium: str | None = None
    flow_version_id: str | None = None
    config_version: int | None = None
    answered_at: float | None = None
    """When a person of the business answered; never set for voicemail."""
    ended_at: float | None = None
    ring_seconds: float = 0.0
    talk_seconds: float = 0.0
    hold_seconds: float = 0.0
    answered_by: str | None = None
    """Name of the target."""
    cause: int | None = None
    disposition: Disposition | None = None
    """None while the call is in progress."""
    reason: str = ""
    handled_by: str = "controller"
    """"controller" or "failsafe"."""
    recording_problem: str | None = None
    privacy: str | None = None
    """Why the caller's number is withheld (RFC 3323); None: it was not asked for."""
    diverted_from: str | None = None
    """Who diverted the call to us, with the reason."""
    verstat: str | None = None
    """What the trunk says of the number's signature (STIR/SHAKEN)."""
    tags: tuple[str, ...] = ()
    values: tuple[tuple[str, str], ...] = ()
    """What ``set`` nodes put on the call: (name, value), each name once."""
    language: str | None = None
    """That a ``set`` node chose last."""
    path: tuple[str, ...] = ()
    """Names of the nodes the caller went through."""
    legs: tuple[Leg, ...] = ()
    recordings: tuple[RecordingRef, ...] = ()
    consent: Consent | None = None
    """None: nobody was told or asked about recording."""
    trace: tuple[TraceStep, ...] = field(default=(), repr=False)

    @property
    def cost_micros(self) -> int | None:
        """What the legs cost together, in millionths of the company's currency unit; None: of none it is known."""
        known = [leg.cost_micros for leg in self.legs if leg.cost_micros is not None]
        return sum(known) if known else None

    @property
    def duration(self) -> float:
        """Seconds from arrival to end."""
        return max(0.0, self.ended_at - self.started_at) if self.ended_at else 0.0
