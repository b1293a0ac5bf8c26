"""``callrouter up``: Asterisk, the server and the worker as children of one process, started again when they end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from callrouter.config import Settings

log = structlog.get_logger(__name__)

STEADY_SECONDS = 30.0
"""A child that lived so long is started again at once; one that did not waits longer each time."""
LAST_PAUSE = 10.0
STOP_SECONDS = 20.0

CHILDREN: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("asterisk", ("asterisk", "run")),
    ("server", ("serve",)),
    ("worker", ("worker",)),
)


def command(args: Sequence[str]) -> list[str]:
    """How a command of ours is started as a process."""
    return [sys.executable, "-m", "callrouter", *args]


async def run_all(settings: Settings, say: Callable[[str], None], config: Path | None = None) -> None:
    """Run all three until SIGINT or SIGTERM. The server stops first, Asterisk last."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    environment = {**os.environ, "CALLROUTER_HOME": str(settings.home_dir)}
    if config is not None:
        environment["CALLROUTER_CONFIG"] = str(config)
    children = [Child(name, args, environment) for name, args in CHILDREN]
    tasks = [asyncio.create_task(child.keep_running()) for child in children]
    say(f"callrouter runs in {settings.home_dir}; SIP at {settings.sip_bind}:{settings.sip_port}. Ctrl-C stops it.")
    try:
        await stop.wait()
    finally:
        say("stopping")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for child in reversed(children):
            await child.end()


class Child:
    """One command of ours as a process."""

    def __init__(self, name: str, args: Sequence[str], environment: dict[str, str]) -> None:
        self.name = name
        self._args = args
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None

    async def keep_running(self) -> None:
        """Start it, wait for its end, start it again; until cancelled."""
        pause = 0.5
        while True:
            began = time.monotonic()
            # A session of its own: Ctrl-C reaches us alone, and we stop the children in order.
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *command(self._args), env=self._environment, start_new_session=True
                )
                code: int | str = await self._process.wait()
            except OSError as exc:  # no room for another process, say
                code = exc.strerror or repr(exc)
            pause = 0.5 if time.monotonic() - began > STEADY_SECONDS else min(pause * 2, LAST_PAUSE)
            log.error("child_ended", child=self.name, code=code, again_in=pause)
            await asyncio.sleep(pause)

    async def end(self) -> None:
        """TERM, then KILL."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
