"""The state of one call: what it waits for, and what it remembers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from callrouter.core import actions as a
from callrouter.core import notes as note
from callrouter.core.disposition import LegResult
from callrouter.core.identity import CallerHistory
from callrouter.core.model import HoursOverride
from callrouter.core.records import Consent
from callrouter.core.routing import Entry
from callrouter.core.webhooks import NOTHING_YET, SoFar

BACKUP_LEG = "fs-"
"""How the ids of legs begin that the dialplan's failsafe dials; they end with the destination's place, from 1."""


@dataclass(frozen=True, slots=True)
class Arriving:
    """Nothing yet: the first event has not come."""


@dataclass(frozen=True, slots=True)
class Due:
    """Nothing: a dial or webhook was reached, and is begun before the step is over (``ring_groups.dial``,
    ``asking.ask``)."""


@dataclass(frozen=True, slots=True)
class Saying:
    """A prompt to end. ``part`` is "prompt", "invalid" or "greeting"."""

    playback_id: str
    part: str


@dataclass(frozen=True, slots=True)
class Choosing:
    """A key, after the prompt of a menu or a gather."""

    timer_id: str
    digits: str = ""
    """What was entered so far; ``events.HIDDEN`` for each digit of a sensitive entry."""


@dataclass(frozen=True, slots=True)
class Tail:
    """Keys that still belong to an entry, though the flow has gone on: of a caller who does not notice its end."""

    keys: str
    until: float


@dataclass(frozen=True, slots=True)
class Picking:
    """What is known of a group, to order its members by."""

    ref: str
    group: str


@dataclass(frozen=True, slots=True)
class Asking:
    """A web service to answer."""

    ref: str
    timer_id: str
    url: str
    since: float


@dataclass(frozen=True, slots=True)
class Branch:
    """One of several legs that ring at once."""

    leg_id: str
    target: str
    endpoint: str
    """Asterisk's dial string."""
    trunk: str | None = None
    rate: int | None = None
    result: LegResult | None = None
    """How it ended, when it did before the others."""


@dataclass(frozen=True, slots=True)
class Calling:
    """A destination to answer, and then the conversation to end."""

    leg_id: str
    """Of several that ring at once: what they have in common, the recording's name too."""
    target: str
    """Of several that ring at once: the group, until one has answered."""
    answered_at: float | None = None
    recording: bool = False
    trunk: str | None = None
    """The trunk it is dialled over; None: by SIP URI."""
    tried: tuple[str, ...] = ()
    """Trunks that failed before, on the way to this target."""
    dialled_at: float = 0.0
    rate: int | None = None
    """What a minute costs, in millionths of the company's currency unit; None: nothing, or not known."""
    channel: str = ""
    """Asterisk's id of its channel, once the INVITE has gone out."""
    timer_id: str = ""
    """Runs until there is a sign of life; "" when none is waited for."""
    alive: bool = False
    """Whether there was ringing or early media."""
    given_up_at: float | None = None
    """When its trunk was taken for silent, and the leg asked to end."""
    left: tuple[str, ...] = ()
    """Targets of the group that ring one after another when this one fails."""
    failed: tuple[tuple[LegResult, str], ...] = ()
    """What came of those that rang before it, each with the reason."""
    branches: tuple[Branch, ...] = ()
    """The legs that ring at once; none: there is but one."""
    winner: str = ""
    """The branch that answered, by its leg."""

    @property
    def talking(self) -> str:
        """The leg that the caller talks to."""
        return self.winner or self.leg_id

    def branch(self, leg_id: str) -> Branch | None:
        return next((each for each in self.branches if each.leg_id == leg_id), None)

    def leg_at(self, endpoint: str) -> str:
        """The leg that is rung under a dial string.

        :param endpoint: "" where there is but one
        """
        return next((each.leg_id for each in self.branches if each.endpoint == endpoint), self.leg_id)


@dataclass(frozen=True, slots=True)
class Paused:
    """A recording that is paused."""

    recording_id: str
    timer_id: str
    until: float
    """When it goes on by itself."""


@dataclass(frozen=True, slots=True)
class Taking:
    """A message to be complete."""

    recording_id: str
    since: float
    timer_id: str


@dataclass(frozen=True, slots=True)
class Leaving:
    """The channel to go, after we hung it up."""

    cause: int = 16
    """Q.850, as we gave it."""


@dataclass(frozen=True, slots=True)
class HandedOver:
    """The channel to go, after the dialplan's failsafe took the caller to a backup destination."""

    leg_id: str = ""
    target: str = ""
    legs: int = 0
    answered_at: float | None = None


@dataclass(frozen=True, slots=True)
class Over:
    """Nothing any more."""


Wait: TypeAlias = Arriving | Picking | Asking | Saying | Choosing | Calling | Taking | Leaving | HandedOver | Over


@dataclass(frozen=True, slots=True)
class Session:
    """The state of one call. Built by folding ``step`` over the call's events, so a crash loses nothing."""

    call_id: str
    wait: Wait | Due = Arriving()
    entry: Entry | None = None
    did: str = ""
    caller: str | None = None
    node: str = ""
    counter: int = 0
    visits: int = 0
    tries: int = 0
    """Rounds of the present menu or gather that went by in vain."""
    tail: Tail = Tail("", 0.0)
    answered: bool = False
    """Whether we answered the caller."""
    overrides: tuple[HoursOverride, ...] = ()
    """Of opening hours, as they were in force when the call came."""
    language: str | None = None
    """That the flow chose for what the caller hears; None: the company's."""
    store_problem: str | None = None
    consent: Consent | None = None
    """What the caller last said of being recorded; None: nobody asked."""
    paused: Paused | None = None
    trunks_down: tuple[tuple[str, str], ...] = ()
    """Trunks known to be down, each with the reason."""
    talked: str | None = None
    """The target that answered, once one did."""
    message_seconds: float | None = None
    last_leg: LegResult | None = None
    last_leg_reason: str = ""
    ending: str = ""
    """Why we hang up, when it is us."""
    rejected: bool = False
    blocked: bool = False
    """Rejected for its caller."""
    history: CallerHistory | None = None
    so_far: SoFar = NOTHING_YET
    unwatched: str = ""
    """Who handled a call that no controller saw: "failsafe", or "controller" when it never got that far; else empty."""

    @property
    def over(self) -> bool:
        return isinstance(self.wait, Over)

    @property
    def path(self) -> str:
        """Where the call stands, for the trace: ``front-desk@3/menu``, ``night@2/greet`` in a flow it went on in."""
        if self.entry is not None and self.node:
            return self.entry.path(self.node)
        label = self.entry.flow_label if self.entry else "routing"
        return f"{label}/{self.node}" if self.node else label


@dataclass(frozen=True, slots=True)
class Step:
    session: Session
    actions: tuple[a.Action, ...] = ()
    notes: tuple[note.Note, ...] = ()

    def then(self, other: Step) -> Step:
        """This step followed by another that starts from its session."""
        return Step(other.session, self.actions + other.actions, self.notes + other.notes)
