"""A call's own time: the wall clock's at its beginning, and steady from there.

The machine's clock is set now and then: by NTP after a start, by hand, by an hour in a virtual machine. Asterisk's
events carry its time, and so do ours. A conversation of two minutes must not last an hour for that, nor end before it
began.
"""

from __future__ import annotations

import time
from collections.abc import Callable

STEP_SECONDS = 1.0
"""A clock that is further off than that was set; less is drift, which NTP slews away."""


class CallClock:
    """Moments of one call, in the order in which they are given.

    :param wall: seconds since the epoch, as the machine has it (time.time)
    :param steady: seconds on a clock that nobody sets
    """

    def __init__(self, wall: Callable[[], float] | None = None, steady: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall or time.time
        self._steady = steady
        self._begun = self._wall() - steady()
        self._last = float("-inf")

    def at(self, moment: float) -> float:
        """A moment by the machine's clock (Asterisk's, ours), told just now, as this call counts.

        Not before the one given last, unless it tells of the past (Asterisk's own records do).
        """
        now = self._wall()
        step = now - self._steady() - self._begun
        # An event may have been on its way while the clock was set: then it is of the time before.
        if abs(step) >= STEP_SECONDS and abs(now - moment) < abs(now - step - moment):
            moment -= step
        if self._last - STEP_SECONDS < moment < self._last:
            return self._last
        self._last = max(self._last, moment)
        return moment
