"""What a simulated caller does and how a simulated phone behaves, as values.

Both are compiled to a *programme*: verbs joined by ``&`` (``ring&wait:1&answer&tone:440&stay``), which the few fixed
lines of the carrier's dialplan run on the channel itself. Nothing of a conversation therefore depends on this process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from callrouter.errors import InputError

_PHONE_NAME = re.compile(r"[a-z0-9+][a-z0-9._+-]+")
_DIGITS = re.compile(r"[0-9A-D*#]+")
_HEADER_NAME = re.compile(r"[A-Za-z0-9-]+")
_UNANSWERED_STAY = 3600


# -- what a caller does --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wait:
    """Stay in the call for ``seconds``, speaking as the script says and listening."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Digits:
    """Press keys (RFC 4733), each held ``hold`` seconds, ``gap`` seconds apart; the voice goes on between them."""

    digits: str
    gap: float = 0.15
    hold: float = 0.1


@dataclass(frozen=True, slots=True)
class Say:
    """Play an audio file or ``"tone:440"`` once, cut or looped to ``seconds`` (None: the file's own length)."""

    what: Path | str
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Hangup:
    """Hang up. Before the answer this is a CANCEL."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Put first: however long it rings, the waits that follow count from the answer and are no patience."""


@dataclass(frozen=True, slots=True)
class UntilHangup:
    """Stay until the other side hangs up, or ``CallScript.max_seconds`` have passed."""


Step = Answered | Wait | Digits | Say | Hangup | UntilHangup


@dataclass(frozen=True, slots=True, kw_only=True)
class CallScript:
    """One call to place.

    ``steps`` begin at the answer; after the last one the caller hangs up. Steps that are only waits and a
    ``Hangup()`` are also the caller's patience: ``(Wait(3), Hangup())`` gives up (CANCEL) after 3 seconds of ringing,
    while ``(Answered(), Wait(3), Hangup())`` lets it ring for ``ring_timeout`` and then talks for 3 seconds.

    :param did: user part of the request URI
    :param caller: user part of From; empty or ``anonymous=True`` sends ``anonymous@anonymous.invalid``
    :param caller_name: display name in From
    :param ring_timeout: seconds from INVITE to CANCEL when nobody answers
    :param headers: further headers of the INVITE (a P-Asserted-Identity, a Diversion, X-…)
    :param max_seconds: seconds after the answer at which the caller hangs up whatever the steps say
    :param speak: ``"speech"``, ``"tone:HZ"`` or ``"silence"`` (silent packets are sent), all through the call
    """

    did: str
    caller: str = "+12125550123"
    caller_name: str | None = None
    steps: tuple[Step, ...] = (UntilHangup(),)
    ring_timeout: float = 60.0
    headers: Mapping[str, str] = field(default_factory=dict)
    max_seconds: float = 300.0
    anonymous: bool = False
    speak: str = "speech"

    @property
    def patience(self) -> float:
        """Seconds from INVITE to CANCEL when the call is not answered."""
        waited = 0.0
        for step in self.steps:
            if isinstance(step, Hangup):
                return min(self.ring_timeout, max(waited, 0.1))
            if not isinstance(step, Wait):
                break
            waited += step.seconds
        return self.ring_timeout

    @property
    def user(self) -> str:
        """``did`` as it stands in the request URI, escaped by RFC 3986."""
        if not self.did:
            raise InputError("a call needs a DID to dial", hint="CallScript(did='+12125550100')")
        return quote(self.did, safe="+*-_.!~'()")

    @property
    def caller_id(self) -> str:
        """``"Name" <number>`` as Asterisk's originate takes it; empty for an anonymous caller."""
        if self.anonymous or not self.caller:
            return ""
        name = (self.caller_name or "").replace("\\", "\\\\").replace('"', '\\"')
        return f'"{name}" <{self.caller}>' if name else f"<{self.caller}>"

    def programme(self, sound_of: Callable[[Path | str, float | None], str]) -> str:
        """The steps as verbs of the carrier's dialplan.

        :param sound_of: gives the name of a prepared sound file for ``Say``
        :raises InputError: a step that cannot be played, or too many steps
        """
        verbs = [sound_verb(self.speak, "caller")]
        for step in self.steps:
            match step:
                case Wait(seconds):
                    verbs.append(f"wait:{_seconds(seconds)}")
                case Digits(digits, gap, hold):
                    verbs.append(_press(digits, gap, hold))
                case Say(what, seconds):
                    verbs.append(f"say:{sound_of(what, seconds)}")
                case Answered():
                    pass
                case Hangup():
                    verbs.append("hangup:16")
                case UntilHangup():
                    verbs.append("stay:86400")
        return joined(verbs)


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Header names and values that may go into an INVITE.

    :raises InputError: a name or value that could break out of its line
    """
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise InputError(f"{name!r} is no SIP header name", hint="letters, digits and - only")
        if any(mark in value for mark in "\r\n\0"):
            raise InputError(f"header {name}: line breaks cannot be sent", hint="use a SIPp scenario for malformed SIP")
    return dict(headers)


# -- how a phone behaves -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a phone does with every call: a name to show and the verbs to run."""

    label: str
    verbs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Phone:
    """A business phone of the carrier, called as ``sip:NAME@ADDRESS:PORT``.

    :param name: at least two characters of a-z, 0-9, ``.``, ``_``, ``+``, ``-``; a letter, digit or + first
    """

    name: str
    behaviour: Behaviour

    def __post_init__(self) -> None:
        if not _PHONE_NAME.fullmatch(self.name):
            raise InputError(
                f"{self.name!r} cannot be a phone's name",
                hint="two or more of a-z 0-9 . _ + -, for example 'front-desk'",
            )


def _conversation(
    speak: str, talk_seconds: float | None, hang_up_after: float | None, first: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Verbs of an answered call: speak, fall silent after ``talk_seconds``, hang up after ``hang_up_after``."""
    verbs = [sound_verb(speak, "phone"), *first]
    spent = 0.0
    if talk_seconds is not None and (hang_up_after is None or talk_seconds < hang_up_after):
        verbs += [f"wait:{_seconds(talk_seconds)}", "silence"]
        spent = talk_seconds
    if hang_up_after is not None:
        verbs += [f"wait:{_seconds(hang_up_after - spent)}", "hangup:16"]
    else:
        verbs.append("stay:86400")
    return tuple(verbs)


def answer(
    after: float = 1.0,
    *,
    speak: str = "speech",
    talk_seconds: float | None = None,
    hang_up_after: float | None = None,
) -> Behaviour:
    """Ring (180), answer ``after`` seconds, speak; seconds below count from the answer.

    :param talk_seconds: fall silent then (packets go on); None: speak to the end
    :param hang_up_after: hang up then; None: stay until the caller hangs up
    """
    verbs = ("ring", f"wait:{_seconds(after)}", "answer", *_conversation(speak, talk_seconds, hang_up_after))
    return Behaviour(f"answers after {after:g} s", verbs)


def answer_then_press(
    digits: str,
    *,
    after: float = 1.0,
    wait: float = 1.0,
    gap: float = 0.15,
    speak: str = "speech",
    hang_up_after: float | None = None,
) -> Behaviour:
    """Answer, and ``wait`` seconds later press ``digits`` (RFC 4733), as when a call must be accepted by a key."""
    first = (f"wait:{_seconds(wait)}", _press(digits, gap, 0.1))
    verbs = ("ring", f"wait:{_seconds(after)}", "answer", *_conversation(speak, None, hang_up_after, first))
    return Behaviour(f"answers after {after:g} s and presses {digits}", verbs)


def early_media(
    seconds: float = 2.0, *, early: str = "tone:620", speak: str = "speech", hang_up_after: float | None = None
) -> Behaviour:
    """183 with audio (``early``) for ``seconds``, then the answer."""
    verbs = ("progress", sound_verb(early, "phone"), f"wait:{_seconds(seconds)}", "answer")
    return Behaviour(
        f"early media for {seconds:g} s, then answers", (*verbs, *_conversation(speak, None, hang_up_after))
    )


def busy() -> Behaviour:
    """486 Busy Here."""
    return Behaviour("busy (486)", ("hangup:17",))


def no_answer() -> Behaviour:
    """180, then nothing until the caller gives up."""
    return Behaviour("rings without answer (180)", ("ring", f"wait:{_UNANSWERED_STAY}"))


def reject() -> Behaviour:
    """603 Decline."""
    return Behaviour("declines (603)", ("hangup:16",))


def unavailable() -> Behaviour:
    """480 Temporarily Unavailable."""
    return Behaviour("unavailable (480)", ("hangup:19",))


def not_found() -> Behaviour:
    """404 Not Found."""
    return Behaviour("not found (404)", ("hangup:1",))


def server_error() -> Behaviour:
    """503 Service Unavailable."""
    return Behaviour("server error (503)", ("hangup:34",))


# -- verbs ---------------------------------------------------------------------------------------------------------


def sound_verb(speak: str, who: str) -> str:
    """The verb that makes a leg sound like ``speak``.

    :param who: ``caller`` or ``phone``: whose voice speaks
    :raises InputError: not ``speech``, ``silence`` or ``tone:HZ``
    """
    if speak == "speech":
        return f"voice:{who}"
    if speak == "silence":
        return "silence"
    hz = tone_hz(speak)
    if hz is None:
        raise InputError(f"speak={speak!r} is not known", hint='"speech", "silence" or "tone:440"')
    return f"tone:{hz}"


def tone_hz(text: str) -> int | None:
    """Hertz of ``tone:HZ``; None when ``text`` is no tone a telephone can carry (50 to 3900 Hz)."""
    match = re.fullmatch(r"tone:(\d{2,4})", text)
    if match and 50 <= int(match[1]) <= 3900:
        return int(match[1])
    return None


def joined(verbs: list[str] | tuple[str, ...]) -> str:
    """Verbs as one programme.

    :raises InputError: longer than one line of Asterisk's manager protocol (1,024 bytes) carries
    """
    programme = "&".join(verbs)
    if len(programme) > 900:
        raise InputError(f"{len(verbs)} steps are too many for one call", hint="about 60 steps fit")
    return programme


def _seconds(value: float) -> str:
    if not 0 <= value <= 86400:
        raise InputError(f"{value} seconds: a wait lies between 0 and 86400 seconds")
    return f"{value:.3f}".rstrip("0").rstrip(".")


def _press(digits: str, gap: float, hold: float) -> str:
    if not _DIGITS.fullmatch(digits):
        raise InputError(f"{digits!r} cannot be pressed on a telephone", hint="0-9, *, # and A-D")
    return f"press:{digits}:{round(gap * 1000)}:{round(hold * 1000)}"
