"""How a call ended, in one word and one sentence. Decided here once, stored, never derived again.

Hangup causes are Q.850; Asterisk's DIALSTATUS values are those of its Dial() application.
"""

from __future__ import annotations

from enum import StrEnum


class Disposition(StrEnum):
    ANSWERED = "answered"
    """A person of the business spoke with the caller."""
    VOICEMAIL = "voicemail"
    """The caller left a message; never counted as answered."""
    ABANDONED = "abandoned"
    """The caller hung up first: in a menu, a prompt, or while it rang."""
    NO_ANSWER = "no-answer"
    BUSY = "busy"
    FAILED = "failed"
    """The destination could not be reached."""
    REJECTED = "rejected"
    """Refused by routing: unknown or inactive number."""
    BLOCKED = "blocked"
    """Refused for its caller: on a block list, withheld, or too many calls in a short time."""
    COMPLETED = "completed"
    """The flow ended by itself without ringing anybody, as it was told to."""


class LegResult(StrEnum):
    """How one tried destination ended."""

    ANSWERED = "answered"
    BUSY = "busy"
    NO_ANSWER = "no-answer"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """The caller hung up while it rang."""


UNWATCHED = "backup destination"
"""Stands for the target that the dialplan connected while no controller watched."""

CAUSES: dict[int, str] = {
    0: "no cause given",
    1: "unallocated number",
    3: "no route to destination",
    16: "normal clearing",
    17: "user busy",
    18: "no user responding",
    19: "no answer",
    20: "subscriber absent",
    21: "call rejected",
    22: "number changed",
    26: "answered elsewhere",
    27: "destination out of order",
    28: "invalid number format",
    31: "normal, unspecified",
    34: "no circuit available",
    38: "network out of order",
    41: "temporary failure",
    42: "switching equipment congestion",
    44: "requested circuit not available",
    50: "facility not subscribed",
    58: "bearer capability not available",
    63: "service or option not available",
    65: "bearer capability not implemented",
    88: "incompatible destination",
    102: "recovery on timer expiry",
    111: "protocol error",
    127: "interworking",
}
"""Q.850 cause numbers, in words."""


def cause_text(cause: int) -> str:
    """A Q.850 cause in words: ``user busy (17)``."""
    return f"{CAUSES.get(cause, 'unknown cause')} ({cause})"


_TRUNK_CAUSES = frozenset({3, 20, 27, 34, 38, 41, 42, 44, 47, 58})
"""Causes by which a trunk says that it cannot carry the call: 503, 500, 502, 488 and their like (RFC 3398), no route,
an address that is not reachable."""
_TRUNK_SILENCE = frozenset({18, 102})
"""408 and 504: of a trunk only where nothing has rung, else of who was rung."""


def trunk_failed(status: str, cause: int, alive: bool) -> bool:
    """Whether a finished ``Dial()`` failed for the trunk, so that another one may reach the same destination. Busy,
    declined, not found and not available are the destination's own answer.

    :param status: DIALSTATUS
    :param cause: Q.850 HANGUPCAUSE
    :param alive: whether there was ringing or early media
    """
    if status in ("ANSWER", "CANCEL"):
        return False
    if cause == 0:
        return status in ("CHANUNAVAIL", "CONGESTION")
    return cause in _TRUNK_CAUSES or (cause in _TRUNK_SILENCE and not alive)


def leg_result(status: str, cause: int) -> LegResult:
    """What a finished ``Dial()`` came to.

    :param status: DIALSTATUS
    :param cause: Q.850 HANGUPCAUSE; tells a destination that does not answer from one that cannot be reached,
        which DIALSTATUS sometimes reports alike
    """
    match status:
        case "ANSWER":
            return LegResult.ANSWERED
        case "BUSY":
            return LegResult.BUSY
        case "NOANSWER":
            return LegResult.NO_ANSWER
        case "CANCEL":
            return LegResult.CANCELLED
    if cause == 17:
        return LegResult.BUSY
    if cause in (18, 19):
        return LegResult.NO_ANSWER
    return LegResult.FAILED
