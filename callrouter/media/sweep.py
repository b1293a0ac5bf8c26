"""Raw files that nobody waits for. Those that hold nothing go: a destination that did not answer leaves two headers
behind. Those that hold sound are told."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from callrouter.errors import ServiceError
from callrouter.media.raw_legs import RawLeg, recording_of

QUIET_SECONDS = 3600.0
"""No destination rings for so long: its recording cannot begin any more."""


def sweep_spool(spool: Path, keep: Collection[str], now: float) -> int:
    """Remove raw files without a sample that nobody waits for. Whatever holds sound stays.

    :param keep: ids of recordings that are still to be finished
    :param now: seconds since the epoch
    :returns: how many were removed
    """
    removed = 0
    for path in spool.glob("*.wav"):
        if recording_of(path) in keep or _has_sound(path, now) is not False:
            continue
        try:
            path.unlink()
            removed += 1
        except OSError:
            continue
    return removed


def left_with_sound(spool: Path, now: float) -> Iterator[Path]:
    """Raw files that hold sound and have not been written to for long.

    :param now: seconds since the epoch
    """
    return (path for path in spool.glob("*.wav") if _has_sound(path, now))


def _has_sound(path: Path, now: float) -> bool | None:
    """None: it cannot be said (yet)."""
    try:
        leg = RawLeg.open(path)
    except ServiceError:
        return None
    if leg is None:
        return None
    with leg:
        return leg.frames > 0 if leg.readable and now - leg.modified > QUIET_SECONDS else None
