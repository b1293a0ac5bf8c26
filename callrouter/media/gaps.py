"""Gaps: what should be in a recording and is not, measured from its legs and from how long people talked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from callrouter.media.raw_legs import RawLeg

ALL = "all"
"""A gap in every channel."""
SHORTEST_SECONDS = 0.1
"""Asterisk's two files of one conversation agree to a frame of 20 ms; a smaller difference is no gap."""
LONGEST_DOUBT = 2.0
"""Seconds by which a recording may differ from the talk time (and 2 % of it)."""


@dataclass(frozen=True, slots=True)
class Gap:
    """One stretch that is missing. Seconds from the recording's start."""

    channel: str
    """"caller", "business", or "all"."""
    start: float | None
    """None: how much is missing is known, and not where."""
    end: float | None
    seconds: float
    why: str

    def as_json(self) -> dict[str, Any]:
        """As it stands in the manifest, in the database and in the finished file's comment."""
        return {
            "channel": self.channel,
            "start": self.start,
            "end": self.end,
            "seconds": self.seconds,
            "why": self.why,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """:raises KeyError, TypeError, ValueError: it is no gap"""
        start, end = data["start"], data["end"]
        return cls(
            str(data["channel"]),
            None if start is None else float(start),
            None if end is None else float(end),
            float(data["seconds"]),
            str(data["why"]),
        )


def between(channel: str, start: float, end: float, why: str) -> Gap:
    """A gap whose place is known."""
    return Gap(channel, round(start, 3), round(end, 3), round(end - start, 3), why)


def gaps_of_legs(legs: Sequence[RawLeg | None], channels: Iterable[str]) -> list[Gap]:
    """Where a channel has no sound because its raw file is shorter than the other one, empty or missing."""
    total = max((leg.seconds for leg in legs if leg is not None), default=0.0)
    found = []
    for leg, channel in zip(legs, channels, strict=True):
        held = leg.seconds if leg is not None else 0.0
        if total - held <= SHORTEST_SECONDS:
            continue
        if leg is None:
            why = "its file is missing"
        elif not leg.readable:
            why = "its file is no audio"
        elif not leg.frames:
            why = "its file is empty"
        else:
            why = "its file was torn there" if leg.notes else "its file ends there"
        found.append(between(channel, held, total, why))
    return found


def gap_to_talk(seconds: float, expected: float | None, *, torn: bool) -> Gap | None:
    """What a recording is short of the conversation.

    :param seconds: what there is
    :param expected: talk time; None: unknown
    :param torn: a raw file was not closed by Asterisk; what is missing then was said at the end
    """
    if expected is None or expected - seconds <= max(LONGEST_DOUBT, 0.02 * expected):
        return None
    if torn:
        return between(ALL, seconds, expected, "recording stopped before the conversation did")
    return Gap(ALL, None, None, round(expected - seconds, 3), "shorter than the conversation; where is not known")


def after_disk_trouble(gaps: Sequence[Gap], trouble: str) -> tuple[Gap, ...]:
    """The same gaps when the disk failed during the call: what it did not take may be missing anywhere.

    :param trouble: what was wrong with the disk
    """
    return tuple(
        gap if gap.start in (0.0, None) else Gap(gap.channel, None, None, gap.seconds, f"where is not known: {trouble}")
        for gap in gaps
    )
