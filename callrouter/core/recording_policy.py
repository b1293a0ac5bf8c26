"""Whether a conversation is recorded, and who says so. The only place where that is decided.

What has been said of it is asked from the call's way in to its way out: the number, the flow's node, the target, and
last the company, whose word holds for all that nobody else speaks about. The first definite word (``force`` or
``never``) wins; without one nothing is recorded. What the caller refused comes before all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from callrouter.core.model import RecordingPolicy, Target
from callrouter.core.records import Consent
from callrouter.core.routing import Entry

RECORDED = "recorded"
"""In the trace, of a conversation that is."""


@dataclass(frozen=True, slots=True)
class RecordingDecision:
    """Whether to record, and why."""

    record: bool
    why: str

    @property
    def word(self) -> str:
        """For the trace."""
        return RECORDED if self.record else "not recorded"


def decide_recording(
    entry: Entry, node: str, said: RecordingPolicy, target: Target, consent: Consent | None = None
) -> RecordingDecision:
    """Whether the conversation of a call with a target is recorded.

    :param node: name of the flow's node that dials; empty: none does
    :param said: what that node says of recording
    :param consent: what the caller last said of it; None: not asked
    """
    if consent is not None and not consent.given:
        return RecordingDecision(False, f"{consent.response.told} (consent, {consent.mode})")
    words = (
        ("the number", entry.number.record),
        (f"node {node}", said),
        ("the target", target.record),
        ("the company", entry.company.record),
    )
    found = _first(words)
    if not found.record or not entry.company.consent_required:
        return found
    if consent is None:
        return RecordingDecision(False, "the company requires consent, and nobody asked the caller")
    return RecordingDecision(True, f"{found.why}; {consent.response.told}")


def decide_alone(entry: Entry, target: Target, consent: Consent | None) -> RecordingDecision:
    """As :func:`decide_recording`, for a target that the dialplan rings by itself."""
    found = said_alone(entry, target)
    if not found.record or (consent is not None and consent.given):
        return found
    if consent is not None:
        return RecordingDecision(False, f"{consent.response.told} (consent, {consent.mode})")
    return RecordingDecision(False, "nobody asked the caller for consent") if consent_needed(entry) else found


def said_alone(entry: Entry, target: Target) -> RecordingDecision:
    """What has been said of a target that the dialplan rings by itself, whichever of the flow's nodes would have rung
    it; of several nodes the one that says least for it counts. Consent is another matter (:func:`consent_needed`).
    """
    return _first(
        (
            ("the number", entry.number.record),
            ("the flow", entry.said.recording.get(target.name, RecordingPolicy.INHERIT)),
            ("the target", target.record),
            ("the company", entry.company.record),
        )
    )


def consent_needed(entry: Entry) -> bool:
    """Whether the dialplan may record by itself only callers that consented: the flow asks, or the company demands."""
    return entry.said.consent or entry.company.consent_required


def _first(words: Iterable[tuple[str, RecordingPolicy]]) -> RecordingDecision:
    for who, word in words:
        if word is not RecordingPolicy.INHERIT:
            return RecordingDecision(word is RecordingPolicy.FORCE, f"{who} says {word}")
    return RecordingDecision(False, "nobody says that it be recorded")
