"""Raw files that hold nothing: a destination that did not answer leaves two headers behind."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from callrouter.errors import ServiceError
from callrouter.media.raw_legs import RawLeg

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
        recording_id = path.stem.removesuffix("-rx").removesuffix("-tx")
        if recording_id in keep or not _is_empty(path, now):
            continue
        try:
            path.unlink()
            removed += 1
        except OSError:
            continue
    return removed


def _is_empty(path: Path, now: float) -> bool:
    try:
        leg = RawLeg.open(path)
    except ServiceError:
        return False
    if leg is None:
        return False
    with leg:
        return leg.readable and leg.frames == 0 and now - leg.modified > QUIET_SECONDS
