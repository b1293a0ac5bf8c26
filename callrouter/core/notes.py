"""What the core decided, said in passing. Notes stand in the call's log between the events that caused them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from callrouter.core.disposition import Disposition
from callrouter.core.records import ConsentResponse, RecordingKind


@dataclass(frozen=True, slots=True)
class Routed:
    """Which number, campaign and flow this call belongs to. Written once, right after CallArrived."""

    at: float
    why: str
    company_id: str | None = None
    campaign_id: str | None = None
    number_id: str | None = None
    source: str | None = None
    medium: str | None = None
    flow_version_id: str | None = None
    config_version: int | None = None
    flows: tuple[tuple[str, str], ...] = ()
    """(name, version id) of every flow that the call can come to, its own among them; none: it goes on in no other."""
    blocked: bool = False
    """Whether the call was refused for its caller."""


@dataclass(frozen=True, slots=True)
class Visited:
    """The caller reached a node."""

    at: float
    path: str
    node: str
    why: str


@dataclass(frozen=True, slots=True)
class Decided:
    """A choice inside a node: a digit, an opening hour, a recording policy."""

    at: float
    path: str
    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Tagged:
    at: float
    path: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Assigned:
    """Named values were put on the call, or its language was chosen."""

    at: float
    path: str
    values: tuple[tuple[str, str], ...]
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Gathered:
    """What the caller entered."""

    at: float
    path: str
    name: str
    digits: str
    """Of a sensitive entry only its length: ``events.HIDDEN`` for each digit."""


@dataclass(frozen=True, slots=True)
class Consented:
    """The caller was told of recording, or asked (``records.Consent``)."""

    at: float
    path: str
    mode: str
    response: ConsentResponse
    script: str
    digit: str = ""


@dataclass(frozen=True, slots=True)
class LegPlanned:
    """A destination is about to be tried; its events follow under ``leg_id``."""

    at: float
    path: str
    leg_id: str
    target_id: str
    target: str
    endpoint: str
    ring_seconds: int
    why: str
    trunk: str | None = None
    """Name of the trunk it is dialled over; None: by SIP URI."""
    rate: int | None = None
    """What a minute costs, in millionths of the company's currency unit; None: nothing, or not known."""
    dial: str = ""
    """What the legs that ring at once have in common; "": it rings alone."""


@dataclass(frozen=True, slots=True)
class RecordingPlanned:
    at: float
    recording_id: str
    kind: RecordingKind
    leg_id: str | None = None


@dataclass(frozen=True, slots=True)
class RecordingSkipped:
    """A recording that policy wants will be missing or incomplete; the call goes on."""

    at: float
    why: str


@dataclass(frozen=True, slots=True)
class RecordingPaused:
    at: float
    recording_id: str
    by: str


@dataclass(frozen=True, slots=True)
class RecordingResumed:
    at: float
    recording_id: str
    by: str
    """Who asked, or why it went on by itself."""


@dataclass(frozen=True, slots=True)
class Concluded:
    """The one place where a call's disposition comes from."""

    at: float
    disposition: Disposition
    reason: str


Note: TypeAlias = (
    Routed
    | Visited
    | Decided
    | Tagged
    | Assigned
    | Gathered
    | Consented
    | LegPlanned
    | RecordingPlanned
    | RecordingSkipped
    | RecordingPaused
    | RecordingResumed
    | Concluded
)
