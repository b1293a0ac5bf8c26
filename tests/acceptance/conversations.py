"""Phones that speak, and what is kept of a conversation with one."""

from __future__ import annotations

import pytest
import soundfile

from callrouter.testing.audio import duration, tone_present
from callrouter.testing.carrier_script import (
    Behaviour,
    answer,
)
from tests.fixtures.installation import BUSINESS_HZ, CALLER_HZ, Installation, Seen


def speaking(after: float = 0.4, **more: float) -> Behaviour:
    return answer(after=after, speak=f"tone:{BUSINESS_HZ}", **more)


def check_recording(house: Installation, seen: Seen, suffix: str = ".flac") -> None:
    """Two channels, the caller left, the business right, as long as they talked."""
    [recording] = seen.call.recordings
    assert (recording.status, recording.problem) == ("ok", None)
    file = house.settings.recordings / str(recording.path)
    assert file.suffix == suffix
    assert soundfile.info(file).channels == 2
    assert tone_present(file, CALLER_HZ, channel=0)
    assert tone_present(file, BUSINESS_HZ, channel=1)
    assert not tone_present(file, BUSINESS_HZ, channel=0)
    assert not tone_present(file, CALLER_HZ, channel=1)
    assert duration(file) == pytest.approx(seen.call.record.talk_seconds, abs=0.5)
