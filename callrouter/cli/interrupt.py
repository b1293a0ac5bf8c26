"""Ctrl-C: a command that is half-way leaves nothing behind, and one that waits does not go on waiting."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

INTERRUPTED = 130
"""128 + SIGINT, as a shell shows it."""
MOMENT = 1.0
"""Seconds that an interrupted command has to clear away. What a thread waits for (a locked database) may take longer;
the process ends without it, and the database forgets what was not committed."""


def told(given: Sequence[str]) -> str:
    """The line that an interrupted command ends with.

    :param given: its command line
    """
    before = given[: given.index("--")] if "--" in given else given
    return '{"error": "interrupted", "hint": null, "code": 130}' if "--json" in before else "interrupted"


def leave(given: Sequence[str] | None = None) -> NoReturn:
    """End the process without waiting for its threads.

    :param given: the command line, when it has yet to be said that it was interrupted
    """
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        if given is not None:
            sys.stderr.write(told(given) + "\n")
        sys.stderr.flush()
    os._exit(INTERRUPTED)


def run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine function to its end, as :func:`asyncio.run` does; Ctrl-C cancels it and waits :data:`MOMENT`.

    :raises KeyboardInterrupt: it was interrupted
    """
    import asyncio

    return asyncio.run(_interruptible(work))


async def _interruptible(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    import asyncio
    import logging
    import signal
    import threading

    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work())
    interrupts: list[asyncio.TimerHandle] = []

    def interrupt() -> None:
        if not interrupts:
            interrupts.append(loop.call_later(MOMENT, leave, sys.argv[1:]))
            task.cancel()
            # What a database driver and its thread say of being cut off is no news.
            logging.disable(logging.CRITICAL)
            threading.excepthook = lambda _: None

    try:
        loop.add_signal_handler(signal.SIGINT, interrupt)
    except (RuntimeError, ValueError):  # not in the main thread: nobody interrupts us there
        return await task
    try:
        result = await task
    except asyncio.CancelledError:
        if not interrupts:
            raise
        raise KeyboardInterrupt from None
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        for timer in interrupts:
            timer.cancel()
    return result
