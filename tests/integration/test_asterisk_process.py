"""A real Asterisk, run by AsteriskProcess in a directory of the test's own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from callrouter.asterisk.install import AsteriskInstall, find_asterisk
from callrouter.asterisk.process import AsteriskProcess, port_in_use
from callrouter.config import load_settings
from callrouter.errors import AsteriskError, ConfigError, ConflictError

pytestmark = pytest.mark.asterisk


@pytest.fixture(scope="module")
def install() -> AsteriskInstall:
    return find_asterisk(load_settings())


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short path: pytest's own may be too long for a control socket."""
    path = Path(tempfile.mkdtemp(prefix="cr-"))
    yield path
    shutil.rmtree(path)


def write_conf(install: AsteriskInstall, place: Path, *modules: str) -> Path:
    for name in ("etc", "run", "log", "spool", "db"):
        (place / name).mkdir(exist_ok=True)
    conf = place / "etc/asterisk.conf"
    own = {"astetcdir": "etc", "astrundir": "run", "astlogdir": "log", "astspooldir": "spool", "astdbdir": "db"}
    own |= {"astvarlibdir": "db", "astkeydir": "db", "astagidir": "db"}
    lines = [f"{key} => {place / value}" for key, value in own.items()]
    lines += [f"astmoddir => {install.modules_dir}", f"astdatadir => {install.data_dir}"]
    conf.write_text("\n".join(["[directories]", *lines]) + "\n")
    (place / "etc/modules.conf").write_text("\n".join(["[modules]", "autoload=no", *modules]) + "\n")
    return conf


@pytest.fixture
async def asterisk(install: AsteriskInstall, place: Path) -> AsyncIterator[AsteriskProcess]:
    process = AsteriskProcess(install, write_conf(install, place), place / "asterisk.log")
    yield process
    await process.stop()


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead but not yet reaped by its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


async def until(condition, seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        await asyncio.sleep(0.02)
    return False


async def test_starts_answers_and_stops(asterisk: AsteriskProcess, install: AsteriskInstall) -> None:
    assert asterisk.pid is None
    await asterisk.start()
    assert asterisk.running
    assert asterisk.returncode is None
    assert install.version_text in await asterisk.rx("core show version")
    assert await asterisk.stop() == 0
    assert not asterisk.running


async def test_starts_again_after_a_stop(asterisk: AsteriskProcess) -> None:
    await asterisk.start()
    first = asterisk.pid
    await asterisk.stop()
    await asterisk.start()
    assert asterisk.pid != first
    assert "uptime" in await asterisk.rx("core show uptime")


async def test_starts_over_the_socket_of_a_killed_one(asterisk: AsteriskProcess, place: Path) -> None:
    await asterisk.start()
    assert asterisk.pid is not None
    os.kill(asterisk.pid, signal.SIGKILL)
    assert await asterisk.wait() == -signal.SIGKILL
    assert (place / "run/asterisk.ctl").exists()
    await asterisk.start()
    assert asterisk.running


async def test_a_second_start_on_the_same_run_directory_is_a_conflict(
    asterisk: AsteriskProcess, install: AsteriskInstall, place: Path
) -> None:
    await asterisk.start()
    second = AsteriskProcess(install, asterisk.conf_file, place / "second.log")
    with pytest.raises(ConflictError, match="already"):
        await second.start()
    with pytest.raises(ConflictError, match="already"):
        await asterisk.start()
    assert "uptime" in await asterisk.rx("core show uptime"), "the first one is unharmed"


async def test_two_starts_at_the_same_moment_give_one_asterisk(install: AsteriskInstall, place: Path) -> None:
    conf = write_conf(install, place)
    both = [AsteriskProcess(install, conf, place / f"{n}.log") for n in (1, 2)]
    try:
        outcomes = await asyncio.gather(*(one.start() for one in both), return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["ConflictError", "NoneType"]
    finally:
        for one in both:
            await one.stop()


async def test_a_missing_required_module_ends_the_start_with_the_reason(install: AsteriskInstall, place: Path) -> None:
    conf = write_conf(install, place, "require = app_nonsense.so")
    (place / "etc/logger.conf").write_text("[logfiles]\nconsole => notice,warning,error\n")
    process = AsteriskProcess(install, conf, place / "asterisk.log")
    with pytest.raises(AsteriskError, match=r"(?s)ended while starting.*app_nonsense") as failure:
        await process.start()
    assert failure.value.hint is not None
    assert not process.running


async def test_a_taken_port_is_a_conflict_and_leaves_nothing_running(install: AsteriskInstall, place: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        conf = write_conf(install, place)
        (place / "etc/logger.conf").write_text("[logfiles]\nconsole => notice,warning,error\n")
        (place / "etc/http.conf").write_text(f"[general]\nenabled=yes\nbindaddr=127.0.0.1\nbindport={port}\n")
        process = AsteriskProcess(install, conf, place / "asterisk.log")
        with pytest.raises(ConflictError, match=str(port)):
            await process.start()
        assert not process.running


async def test_a_start_that_takes_too_long_is_killed(asterisk: AsteriskProcess) -> None:
    with pytest.raises(AsteriskError, match=r"within 0\.01 s"):
        await asterisk.start(timeout=0.01)
    assert not asterisk.running


async def test_a_cancelled_start_leaves_nothing_running(asterisk: AsteriskProcess) -> None:
    starting = asyncio.create_task(asterisk.start())
    assert await until(lambda: asterisk.pid is not None)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not asterisk.running


async def test_a_frozen_asterisk_is_stopped_all_the_same(asterisk: AsteriskProcess) -> None:
    await asterisk.start()
    assert asterisk.pid is not None
    os.kill(asterisk.pid, signal.SIGSTOP)
    assert await asterisk.stop(grace=0.3) == -signal.SIGKILL


async def test_asking_one_that_does_not_run_is_an_error(asterisk: AsteriskProcess) -> None:
    with pytest.raises(AsteriskError, match="not reachable"):
        await asterisk.rx("core show version")
    assert await asterisk.stop() is None


async def test_a_command_with_a_line_break_is_refused(asterisk: AsteriskProcess) -> None:
    with pytest.raises(AsteriskError, match="control characters"):
        await asterisk.rx("core show version\ncore stop now")


async def test_the_loop_is_not_blocked_while_starting(asterisk: AsteriskProcess) -> None:
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.001)
            longest = max(longest, time.monotonic() - before)

    watching = asyncio.create_task(watch())
    await asterisk.start()
    watching.cancel()
    assert longest < 0.5


async def test_asterisk_dies_with_a_killed_parent(install: AsteriskInstall, place: Path) -> None:
    write_conf(install, place)
    program = """
import asyncio, sys
from pathlib import Path
from callrouter.asterisk.install import find_asterisk
from callrouter.asterisk.process import AsteriskProcess
from callrouter.config import load_settings
async def main():
    place = Path(sys.argv[1])
    process = AsteriskProcess(find_asterisk(load_settings()), place / "etc/asterisk.conf", place / "asterisk.log")
    await process.start()
    print(process.pid, flush=True)
    await process.wait()
asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, str(place)), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    child = int(await asyncio.wait_for(parent.stdout.readline(), 30))
    assert alive(child)
    parent.kill()
    await parent.wait()
    assert await until(lambda: not alive(child)), "Asterisk outlived its parent"


async def test_a_run_directory_too_deep_for_a_socket_is_refused(install: AsteriskInstall, place: Path) -> None:
    deep = place / ("d" * 100)
    deep.mkdir()
    process = AsteriskProcess(install, write_conf(install, deep), deep / "asterisk.log")
    with pytest.raises(ConfigError, match=r"bytes are too long .* 107 is the most"):
        await process.start()


async def test_a_missing_asterisk_conf_is_named(install: AsteriskInstall, place: Path) -> None:
    with pytest.raises(ConfigError, match=r"asterisk\.conf"):
        await AsteriskProcess(install, place / "asterisk.conf", place / "asterisk.log").start()


@pytest.mark.parametrize("udp", [False, True])
def test_a_port_is_in_use_while_somebody_holds_it(udp: bool) -> None:
    with socket.socket(type=socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as holder:
        holder.bind(("127.0.0.1", 0))
        if not udp:
            holder.listen()
        port = holder.getsockname()[1]
        assert port_in_use("127.0.0.1", port, udp)
    assert not port_in_use("127.0.0.1", port, udp)


def test_an_address_of_another_machine_is_no_port_in_use() -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1"):
        port_in_use("192.0.2.1", 5060)
