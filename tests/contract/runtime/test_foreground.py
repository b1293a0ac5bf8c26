"""``callrouter up``: three children kept running, stopped in order, killed when they do not listen."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog

from callrouter.config import load_settings
from callrouter.runtime import foreground
from tests.contract.runtime.support import until

STEADY = """
import os, pathlib, signal, sys, time
name, log = sys.argv[1], pathlib.Path(sys.argv[2])
def say(what):
    with log.open("a") as file:
        file.write(f"{name} {what} {os.getpid()}\\n")
def end(*_):
    say("stopped")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
say("started")
while True:
    signal.pause()
"""
DEAF = STEADY.replace("signal.signal(signal.SIGTERM, end)", "signal.signal(signal.SIGTERM, signal.SIG_IGN)")
DYING = STEADY.replace("while True:\n    signal.pause()", "sys.exit(3)")


class Children:
    """Stand-ins for the three, which write down what happens to them."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "log"
        self.log.touch()
        self.programs = dict.fromkeys(("asterisk", "serve", "worker"), STEADY)
        self.said: list[str] = []

    def command(self, args: Sequence[str]) -> list[str]:
        return [sys.executable, "-c", self.programs[args[0]], args[0], str(self.log)]

    def lines(self, what: str, name: str = "") -> list[str]:
        """Names of those that did ``what``, in order."""
        found = [line.split() for line in self.log.read_text().splitlines()]
        return [who for who, did, _ in found if did == what and name in ("", who)]

    def pids(self, name: str = "") -> list[int]:
        found = [line.split() for line in self.log.read_text().splitlines()]
        return [int(pid) for who, did, pid in found if did == "started" and name in ("", who)]

    @asynccontextmanager
    async def running(self, home: Path) -> AsyncIterator[asyncio.Task[None]]:
        settings = load_settings(environ={}, home=str(home))
        task = asyncio.create_task(foreground.run_all(settings, self.said.append))
        try:
            await until(lambda: set(self.lines("started")) == {"asterisk", "serve", "worker"}, "the start")
            yield task
        finally:
            if not task.done():
                os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(task, 15)
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().remove_signal_handler(number)
        assert not [pid for pid in self.pids() if alive(pid)]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def environment(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


@pytest.fixture
def children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Children:
    children = Children(tmp_path)
    monkeypatch.setattr(foreground, "command", children.command)
    return children


def test_the_children_are_commands_of_this_program() -> None:
    assert foreground.command(("asterisk", "run")) == [sys.executable, "-m", "callrouter", "asterisk", "run"]
    assert [name for name, _ in foreground.CHILDREN] == ["asterisk", "server", "worker"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_asterisk_is_stopped_last_and_nobody_is_left(
    children: Children, tmp_path: Path, number: signal.Signals
) -> None:
    async with children.running(tmp_path) as task:
        os.kill(os.getpid(), number)
        await asyncio.wait_for(task, 10)
    assert children.lines("stopped") == ["worker", "serve", "asterisk"]
    assert len(children.pids()) == 3
    assert "Ctrl-C" in children.said[0]


async def test_a_child_that_ends_is_started_again_alone(children: Children, tmp_path: Path) -> None:
    async with children.running(tmp_path):
        (pid,) = children.pids("serve")
        with structlog.testing.capture_logs() as logged:
            os.kill(pid, signal.SIGKILL)
            await until(lambda: len(children.pids("serve")) == 2, "the second")
        assert logged[0] == {
            "event": "child_ended", "child": "server", "code": -9, "again_in": 1.0, "log_level": "error"
        }  # fmt: skip
        assert len(children.pids("asterisk")) == len(children.pids("worker")) == 1


async def test_one_that_ends_at_once_is_started_ever_more_slowly(
    children: Children, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreground, "LAST_PAUSE", 1.5)
    children.programs["worker"] = DYING
    with structlog.testing.capture_logs() as logged:
        async with children.running(tmp_path):
            await until(lambda: len(logged) >= 3, "three ends")
    pauses = [line["again_in"] for line in logged if line["event"] == "child_ended"]
    assert pauses[:3] == [1.0, 1.5, 1.5]
    assert {line["child"] for line in logged} == {"worker"}


async def test_one_that_lived_long_is_started_again_soon(
    children: Children, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreground, "STEADY_SECONDS", 0.0)
    children.programs["worker"] = DYING
    with structlog.testing.capture_logs() as logged:
        async with children.running(tmp_path):
            await until(lambda: len(logged) >= 2, "two ends")
    assert {line["again_in"] for line in logged} == {0.5}


async def test_one_that_does_not_listen_is_killed_after_its_time(
    children: Children, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreground, "STOP_SECONDS", 0.5)
    children.programs["serve"] = DEAF
    async with children.running(tmp_path) as task:
        began = time.monotonic()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(task, 10)
        assert time.monotonic() - began >= 0.5
    assert children.lines("stopped") == ["worker", "asterisk"]


async def test_one_that_cannot_be_started_is_tried_again(
    children: Children, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = [str(tmp_path / "absent")]

    def command(args: Sequence[str]) -> list[str]:
        return absent if args[0] == "worker" and absent else children.command(args)

    monkeypatch.setattr(foreground, "command", command)
    with structlog.testing.capture_logs() as logged:
        settings = load_settings(environ={}, home=str(tmp_path))
        task = asyncio.create_task(foreground.run_all(settings, children.said.append))
        await until(lambda: logged, "the failure")
        absent.clear()
        await until(lambda: children.pids("worker"), "the worker")
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(task, 10)
    assert logged[0]["code"] == "No such file or directory"


async def test_children_know_the_home_and_are_out_of_the_terminals_reach(children: Children, tmp_path: Path) -> None:
    """Ctrl-C goes to us alone, so that the order of the stop is ours."""
    async with children.running(tmp_path):
        for pid in children.pids():
            assert os.getsid(pid) == pid
            assert f"CALLROUTER_HOME={tmp_path}".encode() in environment(pid)
