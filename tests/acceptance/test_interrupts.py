"""Ctrl-C at any moment of every command: it ends with 130 and one line, leaves nothing half-done, and works again.

The signal comes as soon as the interpreter has begun on our program, at random moments, while the command waits for the
database's lock, and as soon as it writes. More moments: CALLROUTER_INTERRUPTS=20; the same again: CALLROUTER_SEED.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from callrouter.cli.reference import commands
from tests.fixtures.commands import ELSEWHERE, ROWS, Place, Row, short_directory, template, upgraded

__all__ = ["short_directory", "template", "upgraded"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MOMENTS = int(os.environ.get("CALLROUTER_INTERRUPTS", "1"))
"""Random moments for each command."""
AT_ONCE = 2
"""Processes side by side."""
PATIENCE = 30.0
INTERRUPTED = 130
ENTRY = """
import os, sys
from callrouter.cli import main
class Tell:
    def find_spec(*_):
        sys.meta_path.remove(Tell)
        os.close(told)
told = int(sys.argv.pop(1))
sys.meta_path.insert(0, Tell)
main()
"""
"""As the installed program does; tells when it is at our first lines."""


def test_every_command_has_a_row() -> None:
    """A new command is interrupted too."""
    there = {path.removeprefix("callrouter ") for path, each, _ in commands() if not isinstance(each, click.Group)}
    assert there == ROWS.keys() | ELSEWHERE


# -- one process -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    out: str
    err: str
    seconds: float
    """From the signal, or from the start, to the end."""


@asynccontextmanager
async def started(place: Place, row: Row) -> AsyncIterator[asyncio.subprocess.Process]:
    """A command as a process of its own, on return begun with our program."""
    begun, told = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", ENTRY, str(told), *place.command(row.args)),
            env=place.environment,
            cwd=place.work,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(told,),
        )
    finally:
        os.close(told)
    assert process.stdin is not None
    process.stdin.write(row.stdin.encode())
    process.stdin.close()
    with os.fdopen(begun, "rb") as pipe:
        await asyncio.get_running_loop().run_in_executor(None, pipe.read)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def run(place: Place, row: Row, moment: Callable[[int], Awaitable[None]] | None = None) -> Ended:
    """Run a command; ``moment`` waits until it is to be interrupted."""
    async with started(place, row) as process:
        if moment is not None:
            await moment(process.pid)
            # (send_signal of a process that has just ended would take its exit code away from whoever waits for it.)
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGINT)
        began = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                out, err = await process.communicate()
        except TimeoutError:
            return Ended(999, "", "it did not end", PATIENCE)
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode(), time.monotonic() - began)


def finish(place: Place, name: str, row: Row) -> None:
    """Uninterrupted, it does what it is for."""
    if row.lasting and row.again is None:
        return
    ended = place.invoke(row)
    if ended.exit_code not in row.codes:
        place.faults.append(f"{name}: run again: exit {ended.exit_code}: {ended.output.strip()[-500:]}")
    if place.invoke(ROWS["db check"]).exit_code:
        place.faults.append(f"{name}: db check is not well")


def judge(place: Place, name: str, row: Row, when: str, ended: Ended) -> None:
    """What may come of an interruption."""
    wrong = []
    if "Traceback" in ended.err or "Error:" in ended.err or "Exception" in ended.err:
        wrong.append("a traceback")
    if ended.code == INTERRUPTED:
        if [line for line in ended.err.splitlines() if "interrupted" in line] != ended.err.splitlines()[-1:]:
            wrong.append("not one line that says so")
    elif ended.code == -signal.SIGINT:
        # Its end was decided: nothing is left to be said.
        pass
    elif ended.code not in row.codes:
        wrong.append(f"exit {ended.code}")
    limit = 15.0 if row.lasting else 2.0
    if ended.seconds > limit:
        wrong.append(f"{ended.seconds:.1f} s to its end")
    wrong += [f"left over: {path}" for path in place.left_over()]
    wrong += [f"database: {each}" for each in place.database_faults()]
    place.faults += [f"{name}, {when}: {each}\n{ended.err.strip()[-1500:]}" for each in wrong]


# -- moments -----------------------------------------------------------------------------------------------------------


async def at_once(_pid: int) -> None:
    """As soon as it has begun."""


def after(seconds: float) -> Callable[[int], Awaitable[None]]:
    async def wait(_pid: int) -> None:
        await asyncio.sleep(seconds)

    return wait


def has_open(pid: int, path: Path) -> bool:
    """Whether a process has a file open; True also when it has ended."""
    try:
        return path in [fd.readlink() for fd in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return not Path(f"/proc/{pid}/fd/0").exists()


def opened(place: Place) -> Callable[[int], Awaitable[None]]:
    """When it has the database open."""

    async def wait(pid: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and not has_open(pid, place.home / "callrouter.db"):
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.1)

    return wait


def has_written(pid: int, log: Path) -> bool:
    """Whether there is something in a file; True also when the process that should write it has ended."""
    return (log.exists() and log.stat().st_size > 0) or not Path(f"/proc/{pid}/fd/0").exists()


def writing(place: Place) -> Callable[[int], Awaitable[None]]:
    """When the first bytes of its transaction are written."""

    async def wait(pid: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and not has_written(pid, place.home / "callrouter.db-wal"):
            await asyncio.sleep(0.0005)

    return wait


async def interrupted(place: Place, name: str, row: Row, rng: random.Random, length: float) -> None:
    """One command, interrupted again and again in one home."""
    moments: list[tuple[str, Callable[[int], Awaitable[None]]]] = [("at once", at_once)]
    if not row.writes or MOMENTS > 1:
        times = [rng.uniform(0, length * (3 if row.lasting else 1)) for _ in range(MOMENTS)]
        moments += [(f"after {seconds:.3f} s", after(seconds)) for seconds in times]
    for when, moment in moments:
        judge(place, name, row, when, await run(place, row, moment))
    if row.writes:
        holder = sqlite3.connect(place.home / "callrouter.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        judge(place, name, row, "waiting for the lock", await run(place, row, opened(place)))
        holder.execute("ROLLBACK")
        holder.close()
        judge(place, name, row, "writing", await run(place, row, writing(place)))


def test_every_command_interrupted(template: Place, short_directory: Path) -> None:
    seed = int(os.environ.get("CALLROUTER_SEED", "0")) or random.randrange(10**6)
    chosen = os.environ.get("CALLROUTER_COMMANDS", "").split(",")
    rows = {name: row for name, row in ROWS.items() if chosen == [""] or name in chosen}
    places = {name: template.copy(short_directory / str(number)) for number, name in enumerate(rows)}

    async def storm() -> None:
        slots = asyncio.Semaphore(AT_ONCE)
        began = time.monotonic()
        await run(template, ROWS["company list"])
        length = time.monotonic() - began

        async def one(name: str) -> None:
            async with slots:
                await interrupted(places[name], name, rows[name], random.Random(f"{seed} {name}"), length)

        await asyncio.gather(*(one(name) for name in rows))

    asyncio.run(storm())
    for name, row in rows.items():
        finish(places[name], name, row)
    faults = [fault for place in places.values() for fault in place.faults]
    assert not faults, f"seed {seed}:\n" + "\n".join(faults)


# -- commands with an Asterisk -----------------------------------------------------------------------------------------


def of_home(home: Path) -> list[str]:
    """Processes that work in a home."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            # Ours name it in their environment, Asterisk on its command line.
            environment = (process / "environ").read_bytes().split(b"\0")
            if str(home) in line or f"CALLROUTER_HOME={home}".encode() in environment:
                found.append(f"{process.name}: {line}")
    return found


WITH_ASTERISK = {
    "up": Row("up", lasting=True),
    "demo": Row("demo --dir {home}/demo", lasting=True),
    "asterisk run": Row("asterisk run", lasting=True),
}


@pytest.mark.asterisk
@pytest.mark.parametrize("name", WITH_ASTERISK)
async def test_a_command_with_an_asterisk_leaves_no_process(name: str, template: Place, short_directory: Path) -> None:
    assert WITH_ASTERISK.keys() == ELSEWHERE
    row, rng = WITH_ASTERISK[name], random.Random()
    place = template.copy(short_directory / name.replace(" ", "-"))
    # Early: while it loads and begins. Later: Asterisk starts, or runs.
    for when in ("at once", rng.uniform(0.5, 2.0), rng.uniform(3.0, 8.0)):
        ended = await run(place, row, at_once if when == "at once" else after(float(when)))
        judge(place, name, row, f"after {when} s", ended)
        left = of_home(place.home)
        assert not left, f"after {when} s: {left}"
    assert place.faults == []
