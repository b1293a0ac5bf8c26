"""The nodes a flow is made of: a closed union of frozen values. Every outcome of a node is a named exit.

An exit is the name of another node; ``None`` (where allowed) ends the flow by hanging up normally.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Prompt:
    """One thing to say: a text to be spoken, or an uploaded file by name. Exactly one is set."""

    text: str | None = None
    file: str | None = None


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


@dataclass(frozen=True, slots=True)
class Dial:
    """Ring a target and connect the caller."""

    target: str
    on_busy: str
    on_no_answer: str
    on_failed: str
    on_answered: str | None = None
    """After a conversation that the business ended; None: hang up."""
    ring_seconds: int | None = None
    """None: the target's own."""
    whisper: str | None = None
    """None: the target's own; "" for none."""
    record: bool | None = None
    """None: the company's policy."""
    music: bool = False
    """Hold music instead of ringing."""


@dataclass(frozen=True, slots=True)
class Hours:
    """Branch by opening hours, in OpenStreetMap's opening_hours syntax ("Mo-Fr 08:00-18:00; PH off")."""

    open: str
    on_open: str
    on_closed: str
    timezone: str | None = None
    """IANA zone; None: the company's."""


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
class Hangup:
    """End the call."""

    cause: str = "normal"
    """One of HANGUP_CAUSES."""


Node: TypeAlias = Play | Menu | Gather | Dial | Hours | Voicemail | Tag | Hangup

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
        case Dial():
            return (
                ("answered", node.on_answered),
                ("busy", node.on_busy),
                ("no answer", node.on_no_answer),
                ("failed", node.on_failed),
            )
        case Hours():
            return (("open", node.on_open), ("closed", node.on_closed))
        case Voicemail():
            return (("done", node.on_done), ("failed", node.on_failed))
        case Tag():
            return (("next", node.next),)
        case Hangup():
            return ()


def needs_key(outcome: str) -> bool:
    """Whether only a caller who presses keys can take an exit."""
    return outcome.startswith("digit ") or outcome in ("invalid", "gathered")


def _rounds(node: Menu | Gather) -> tuple[tuple[str, str | None], ...]:
    optional = (("timeout", node.on_timeout), ("invalid", node.on_invalid))
    return (*(pair for pair in optional if pair[1]), ("exhausted", node.on_exhausted))
