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


def sales_menu(timeout: int, max_tries: int = 3) -> str:
    """A flow that asks for a one, and rings the desk in any case.

    :param timeout: seconds that it waits for the digit
    """
    return f"""
start: menu
nodes:
  menu:
    type: menu
    prompt: For sales, press one.
    options: {{1: dial}}
    timeout: {timeout}
    max_tries: {max_tries}
    on_exhausted: dial
  dial: {{type: dial, target: desk, on_busy: end, on_no_answer: end, on_failed: end}}
  end: {{type: hangup}}
"""


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
