"""What the running server says of itself: ``status.json`` in home, written each second."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from callrouter.config import Settings

FRESH_SECONDS = 5.0
"""An older status.json was left behind by a server that no longer runs."""


def read_status(settings: Settings) -> dict[str, Any] | None:
    """The last status, however old; None when there is none, or it cannot be read."""
    try:
        found = json.loads((settings.home_dir / "status.json").read_text("utf-8"))
        float(found["at"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return found if isinstance(found, dict) else None


def fresh_status(settings: Settings, now: float | None = None) -> dict[str, Any] | None:
    """The status of a server that runs; None when none does.

    :param now: seconds since the epoch; None: this moment
    """
    found = read_status(settings)
    if found is None:
        return None
    age = (time.time() if now is None else now) - float(found["at"])
    return found if -FRESH_SECONDS <= age <= FRESH_SECONDS else None
