"""The nodes a flow is made of: a closed union of frozen values. Every outcome of a node is a named exit.

An exit is the name of another node; ``None`` (where allowed) ends the flow by hanging up normally.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from callrouter.core.model import RecordingPolicy

MAX_VISITS = 200
"""Nodes that a call may pass."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One thing to say: a text to be spoken, or an uploaded file by name. Exactly one is set."""

    text: str | None = None
    file: str | None = None
    language: str | None = None
    """That it is in ("es", "pt-br"); None: the company's."""
    others: tuple[Prompt, ...] = ()
    """The same in other languages (``flow.languages``)."""


Prompts: TypeAlias = tuple[Prompt, ...]


@dataclass(frozen=True, slots=True)
class Play:
    """Say something, then go on."""

    prompts: Prompts
    next: str
    on_failed: str
    """When a prompt cannot be played."""


@dataclass(frozen=True, slots=True)
class Menu:
    """Say the choices, wait for one digit."""

    prompts: Prompts
    options: tuple[tuple[str, str], ...]
    """(digit, node) pairs."""
    on_exhausted: str
    """After ``max_tries`` rounds without a valid choice."""
    on_timeout: str | None = None
    """Nothing pressed in a round; None: ask again."""
    on_invalid: str | None = None
    """A digit that is no choice; None: ask again."""
    invalid_prompts: Prompts = ()
    """Said before asking again after an invalid digit."""
    timeout: float = 5.0
    """Seconds to wait for a digit after the prompt."""
    max_tries: int = 3
    barge_in: bool = True
    """A digit cuts the prompt short; else digits count only after it."""

    def choice(self, digit: str) -> str | None:
        return next((node for key, node in self.options if key == digit), None)


@dataclass(frozen=True, slots=True)
class Gather:
    """Ask for digits: a postal code, an account, an extension."""

    prompts: Prompts
    name: str
    """What the entry is called in the call's record."""
    next: str
    on_exhausted: str
    """After ``max_tries`` rounds without an entry."""
    on_timeout: str | None = None
    """Nothing pressed in a round; None: ask again."""
    on_invalid: str | None = None
    """Too few digits in a round; None: ask again."""
    invalid_prompts: Prompts = ()
    """Said before asking again after too few digits."""
    min_digits: int = 1
    max_digits: int = 32
    """So many complete the entry."""
    terminator: str = "#"
    """"#", "*", or "" for none: the key that ends the entry."""
    timeout: float = 5.0
    """Seconds to wait for the first digit after the prompt."""
    between: float = 3.0
    """Seconds to wait for each further digit; then the entry is taken as it is."""
    max_tries: int = 3
    sensitive: bool = False
    """Nothing of what is pressed is stored, logged or sent; only how many digits it was."""


class ConsentMode(StrEnum):
    """How a caller consents to being recorded."""

    ANNOUNCE = "announce"
    """By staying on the line."""
    OPT_IN = "opt_in"
    """By pressing a key."""
    OPT_OUT = "opt_out"
    """By not pressing one."""


@dataclass(frozen=True, slots=True)
class Consent:
    """Tell the caller that the call is recorded, or ask."""

    prompts: Prompts
    mode: ConsentMode
    on_agreed: str
    on_refused: str
    """Also when somebody who was to press a key did not. Of ``announce`` it is ``on_agreed``, and never taken."""
    on_failed: str
    """When the prompt cannot be played: nobody was asked, so nobody is recorded."""
    digit: str = ""
    """The key that agrees (``opt_in``) or refuses (``opt_out``)."""
    timeout: float = 5.0
    """Seconds to wait for the key after the prompt."""


@dataclass(frozen=True, slots=True)
class Dial:
    """Ring a target, or those of a group, and connect the caller."""

    target: str
    """"" where it is a group."""
    on_busy: str
    on_no_answer: str
    on_failed: str
    on_answered: str | None = None
    """After a conversation that the business ended; None: hang up."""
    ring_seconds: int | None = None
    """None: the target's own."""
    whisper: str | None = None
    """None: the target's own; "" for none."""
    record: RecordingPolicy = RecordingPolicy.INHERIT
    music: bool = False
    """Hold music instead of ringing."""
    group: str | None = None
    """Name of a group of targets; then ``target`` is empty."""

    @property
    def rings(self) -> str:
        """Name of what it rings."""
        return self.group or self.target


@dataclass(frozen=True, slots=True)
class Hours:
    """Branch by opening hours, in OpenStreetMap's opening_hours syntax ("Mo-Fr 08:00-18:00; PH off")."""

    open: str
    on_open: str
    on_closed: str
    timezone: str | None = None
    """IANA zone; None: the company's."""


@dataclass(frozen=True, slots=True)
class Split:
    """Branch by chance, the same for a caller each time."""

    branches: tuple[tuple[str, int], ...]
    """(node, percent of the callers); 100 together."""


@dataclass(frozen=True, slots=True)
class Area:
    """Numbers of countries, of area codes in them, or with a prefix; not all empty."""

    next: str
    countries: tuple[str, ...] = ()
    """ISO 3166 alpha-2."""
    codes: tuple[str, ...] = ()
    """What national numbers begin with, in ``countries``; in the company's country when those are none."""
    prefixes: tuple[str, ...] = ()
    """What E.164 numbers begin with, like "+4420"."""

    @property
    def label(self) -> str:
        codes = "/".join(self.codes)
        named = [f"{country} {codes}".strip() for country in self.countries] or [codes] * bool(codes)
        return ", ".join([*named, *self.prefixes])


@dataclass(frozen=True, slots=True)
class Geo:
    """Branch by where the caller's number belongs; the first area that it is in counts."""

    areas: tuple[Area, ...]
    on_other: str
    on_unknown: str
    """Without a number that could be looked at: withheld, or of no country."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Branch by what is known of the caller: by earlier calls to the company."""

    on_first_time: str
    on_repeat: str
    """Called before, within ``within_days``."""
    on_other: str
    """Called before, longer ago."""
    on_anonymous: str
    """With a number that is withheld."""
    on_unknown: str
    """When it is not known whether there were earlier calls."""
    within_days: int | None = None
    """None: ever."""
    tags: tuple[str, ...] = ()
    on_known: str | None = None
    """An earlier call bears one of ``tags``; set with them."""


@dataclass(frozen=True, slots=True)
class Voicemail:
    """Let the caller leave a message. Never counts as answered."""

    prompts: Prompts
    on_failed: str
    """When nothing could be recorded."""
    on_done: str | None = None
    max_seconds: int = 120
    silence_seconds: int = 5
    beep: bool = True
    finish_on: str = "#"
    """"#", "*", "any" key, or "" for none."""


@dataclass(frozen=True, slots=True)
class Tag:
    """Put labels on the call."""

    tags: tuple[str, ...]
    next: str


@dataclass(frozen=True, slots=True)
class Set:
    """Put named values on the call, or choose the language of what the caller hears from here on."""

    next: str
    values: tuple[tuple[str, str], ...] = ()
    language: str | None = None


@dataclass(frozen=True, slots=True)
class GotoFlow:
    """Go on in another flow of the company."""

    flow: str
    node: str | None = None
    """Where it begins there; None: at that flow's start."""
    to: str | None = None
    """The node that it leads to in a linked flow (``flow.link``); None: not linked, or there is no such node."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """Ask a web service for a branch, tags and values, while the caller waits."""

    url: str
    next: str
    """After an answer that names no branch."""
    on_failed: str
    """Not reached, or answered with anything that cannot be used."""
    on_timeout: str
    branches: tuple[tuple[str, str], ...] = ()
    """(what the service calls it, node) pairs."""
    timeout: float = 2.0
    """Seconds for everything: to find the service, connect, and read its answer."""

    def branch(self, name: str) -> str | None:
        return next((to for each, to in self.branches if each == name), None)


@dataclass(frozen=True, slots=True)
class Hangup:
    """End the call."""

    cause: str = "normal"
    """One of HANGUP_CAUSES."""


Node: TypeAlias = (
    Play
    | Menu
    | Gather
    | Consent
    | Dial
    | Hours
    | Split
    | Geo
    | Caller
    | Voicemail
    | Tag
    | Set
    | GotoFlow
    | Webhook
    | Hangup
)

HANGUP_CAUSES: dict[str, int] = {
    "normal": 16,
    "busy": 17,
    "no-answer": 19,
    "rejected": 21,
    "not-found": 1,
    "congestion": 34,
    "unavailable": 38,
}
"""Names for Q.850 causes that a flow may hang up with."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A parsed flow: a flat graph of named nodes."""

    name: str
    start: str
    nodes: dict[str, Node]
    title: str = ""


def exits(node: Node) -> tuple[tuple[str, str | None], ...]:
    """Every (outcome, node name or None for "hang up") of a node, in a fixed order.

    An outcome that a node leaves unset because it repeats itself (a menu asking again) is not an exit.
    """
    match node:
        case Play():
            return (("next", node.next), ("failed", node.on_failed))
        case Menu():
            choices = tuple((f"digit {digit}", to) for digit, to in node.options)
            return (*choices, *_rounds(node))
        case Gather():
            return (("gathered", node.next), *_rounds(node))
        case Consent(mode=ConsentMode.ANNOUNCE):
            return (("announced", node.on_agreed), ("failed", node.on_failed))
        case Consent():
            return (("agreed", node.on_agreed), ("refused", node.on_refused), ("failed", node.on_failed))
        case Dial():
            return (
                ("answered", node.on_answered),
                ("busy", node.on_busy),
                ("no answer", node.on_no_answer),
                ("failed", node.on_failed),
            )
        case Hours():
            return (("open", node.on_open), ("closed", node.on_closed))
        case Split():
            return tuple((f"{percent} %", to) for to, percent in node.branches)
        case Geo():
            areas = tuple((area.label, area.next) for area in node.areas)
            return (*areas, ("other", node.on_other), ("unknown", node.on_unknown))
        case Caller():
            known = (("known", node.on_known),) if node.on_known else ()
            other = (("other", node.on_other),) if node.within_days is not None else ()
            return (
                *known,
                ("first time", node.on_first_time),
                ("repeat", node.on_repeat),
                *other,
                ("anonymous", node.on_anonymous),
                ("unknown", node.on_unknown),
            )
        case Voicemail():
            return (("done", node.on_done), ("failed", node.on_failed))
        case Tag() | Set():
            return (("next", node.next),)
        case GotoFlow():
            return (("next", node.to),) if node.to is not None else ()
        case Webhook():
            branches = tuple((f"branch {name}", to) for name, to in node.branches)
            return (*branches, ("next", node.next), ("timeout", node.on_timeout), ("failed", node.on_failed))
        case Hangup():
            return ()


def needs_key(outcome: str) -> bool:
    """Whether only a caller who presses keys can take an exit."""
    return outcome.startswith("digit ") or outcome in ("invalid", "gathered")


def _rounds(node: Menu | Gather) -> tuple[tuple[str, str | None], ...]:
    optional = (("timeout", node.on_timeout), ("invalid", node.on_invalid))
    return (*(pair for pair in optional if pair[1]), ("exhausted", node.on_exhausted))
