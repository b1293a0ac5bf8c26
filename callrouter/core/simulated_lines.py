"""What is told of a simulated call: its lines, and how long prompts last."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from callrouter.core import actions as a
from callrouter.core.disposition import cause_text
from callrouter.core.flow.nodes import Prompts

SPOKEN = 14.0
"""Characters that are spoken in a second, about."""
FILE_SECONDS = 3.0
"""An uploaded prompt is taken to last so long."""


class Kind(StrEnum):
    """What a line of a simulation tells."""

    DECISION = "decision"
    HEARS = "hears"
    """What the caller hears."""
    RINGS = "rings"
    DOES = "does"
    """What the caller does, or is done to the call."""


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happens in a simulated call."""

    seconds: float
    """Since the call arrived; lengths of prompts are estimated."""
    kind: Kind
    path: str
    """Where in the routing: ``front-desk@3/menu``; empty for what the caller does or hears."""
    what: str
    why: str = ""


def spoken(prompts: Prompts) -> str:
    """Prompts as text."""
    return " ".join(prompt.text or f"[{prompt.file}]" for prompt in prompts)


def seconds_of(prompts: Prompts) -> float:
    """How long prompts last, about."""
    return sum(max(0.5, len(prompt.text) / SPOKEN) if prompt.text else FILE_SECONDS for prompt in prompts) or 0.5


def line_of(seconds: float, action: a.Action) -> Line | None:
    """What an action is to those on the call; None: nothing that they would notice."""
    match action:
        case a.Play():
            return Line(seconds, Kind.HEARS, "", f"“{spoken(action.prompts)}”")
        case a.Dial():
            parts = ["music" if action.music else "ringing", "recorded" if action.record else "not recorded"]
            endpoint = action.endpoint or " and ".join(each.endpoint for each in action.branches)
            if not action.branches:
                parts.append(f"the business sees {action.caller_id or 'the number of the caller'}")
            if action.whisper:
                parts.append(f"and first hears “{spoken(action.whisper)}”")
            return Line(seconds, Kind.HEARS, "", parts[0], "; ".join([endpoint, *parts[1:]]))
        case a.Record():
            beep = "a beep, then " if action.beep else ""
            return Line(
                seconds, Kind.HEARS, "", f"{beep}silence: a message of up to {action.max_seconds} s is recorded"
            )
        case a.Hangup():
            return Line(seconds, Kind.DOES, "", f"callrouter hangs up: {cause_text(action.cause)}")
        case a.StopLeg():
            return Line(seconds, Kind.DOES, "", "the leg is ended")
        case a.LeaveToFailsafe():
            return Line(seconds, Kind.DOES, "", "the dialplan takes over", action.reason)
    return None
