"""Waiting for what must come, with a deadline, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

PATIENCE = 20.0
"""Seconds that anything may take on a busy machine, beyond what it takes by itself."""


async def eventually(
    done: Callable[[], object] | Callable[[], Awaitable[object]],
    what: str,
    seconds: float = PATIENCE,
    pause: float = 0.05,
) -> None:
    """Wait until ``done`` gives something true.

    :param what: is waited for, in words
    :param pause: seconds between two looks
    """
    deadline = time.monotonic() + seconds
    while True:
        result = done()
        if isinstance(result, Awaitable):
            result = await result
        if result:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(pause)


def wait_until(done: Callable[[], object], what: str, seconds: float = PATIENCE, pause: float = 0.02) -> None:
    """As :func:`eventually`, where no loop runs."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(pause)
