"""A disk that is really full, or read-only: for each command that writes, and for a server with calls.

The disks are file systems of their own (tmpfs), which only root may mount: elsewhere run these tests in a name space,
``unshare --map-root-user --mount .venv/bin/pytest tests/acceptance/test_disks.py``.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
import pytest_asyncio

from callrouter.core.disposition import Disposition
from callrouter.testing.audio import tone_present
from callrouter.testing.carrier_legs import CallResult
from callrouter.testing.carrier_script import Answered, Hangup, Wait, answer
from tests.fixtures.commands import ROWS, Place, Row, reads, short_directory, template, upgraded
from tests.fixtures.installation import BUSINESS_HZ, Business, Installation, eventually, installation

__all__ = ["short_directory", "template", "upgraded"]

MEGABYTES = 4


@dataclass(frozen=True)
class Disk:
    """A small file system."""

    path: Path

    @property
    def ballast(self) -> Path:
        return self.path / "ballast"

    def fill(self) -> None:
        """Until not a byte more goes onto it."""
        with self.ballast.open("ab", buffering=0) as file:
            for size in (65536, 4096, 1):
                with suppress(OSError):
                    while file.write(b"x" * size):
                        pass

    def free(self) -> None:
        self.ballast.unlink()

    def read_only(self, on: bool) -> None:
        subprocess.run(["mount", "-o", f"remount,bind,{'ro' if on else 'rw'}", self.path], check=True)


def unmount(path: Path) -> None:
    """Lazily: whoever still has a file open must not keep it there."""
    subprocess.run(["umount", "-l", path], check=True)


@contextmanager
def disk(path: Path, megabytes: int = MEGABYTES) -> Iterator[Disk]:
    """A file system of so many megabytes, gone afterwards."""
    path.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "callrouter-test", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here ({done.stderr.strip()}): run as root, or under unshare")
    try:
        yield Disk(path)
    finally:
        unmount(path)


@contextmanager
def on(small: Disk, *directories: Path) -> Iterator[None]:
    """Directories of an installation lie on a disk meanwhile, with what is in them."""
    with ExitStack() as stack:
        for number, directory in enumerate(directories):
            place = small.path / str(number)
            shutil.copytree(directory, place)
            subprocess.run(["mount", "--bind", place, directory], check=True)
            stack.callback(unmount, directory)
        yield


# -- commands ----------------------------------------------------------------------------------------------------------

WRITING = {name: row for name, row in ROWS.items() if row.writes} | {
    name: ROWS[name] for name in ("asterisk render", "recording export", "trunk secret", "backup create", "backup key")
}
WRITING["flow draw"] = reads("flow draw {work}/flow.yaml --format svg --output {work}/flow.svg")
NEW_HOME = reads("init")
"""What an init runs into that has something to do."""


def content(place: Place) -> dict[str, str]:
    """What is in a place, but for the databases' own notes."""
    return {
        str(path.relative_to(place.home.parent)): sha256(path.read_bytes()).hexdigest()
        for top in (place.home, place.work)
        for path in sorted(top.rglob("*"))
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }


def refused(place: Place, row: Row) -> str:
    """Run a command that cannot do its work: what is wrong with what it said, or left behind."""
    before = content(place)
    ended = place.invoke(row)
    wrong = []
    if ended.exit_code not in (2, 3):
        wrong.append(f"exit {ended.exit_code}")
    said = ended.stderr.strip()
    if "fault of callrouter" in said or "error: " not in [line[:7] for line in said.splitlines()]:
        wrong.append("no clear error")
    if not any(word in said.lower() for word in ("no space", "full", "read-only")):
        wrong.append("the disk is not named")
    changed = {name for name, digest in content(place).items() if before.get(name) != digest} | (
        before.keys() - content(place).keys()
    )
    if changed:
        wrong.append(f"changed: {sorted(changed)}")
    wrong += [f"left over: {path}" for path in place.left_over()]
    return f"{'; '.join(wrong)}\n{ended.output.strip()[-600:]}" if wrong else ""


@pytest.mark.parametrize("name", WRITING)
def test_a_command_on_a_full_and_on_a_read_only_disk(name: str, template: Place, short_directory: Path) -> None:
    row = WRITING[name]
    with disk(short_directory / "disk") as small:
        place = template.copy(small.path)
        if name == "init":  # what is there already needs no writing
            (place.home / "callrouter.toml").unlink()
            row = NEW_HOME
        assert place.settings["TMPDIR"]
        faults = []
        small.fill()
        faults.append(f"full: {told}" if (told := refused(place, row)) else "")
        small.free()
        small.read_only(True)
        faults.append(f"read-only: {told}" if (told := refused(place, row)) else "")
        small.read_only(False)
        ended = place.invoke(row)
        if ended.exit_code not in row.codes:
            faults.append(f"afterwards: exit {ended.exit_code}: {ended.output.strip()[-600:]}")
        faults += place.database_faults()
        assert not any(faults), "\n".join(filter(None, faults))


# -- the server --------------------------------------------------------------------------------------------------------

DESK = {"desk": answer(after=0.2, speak=f"tone:{BUSINESS_HZ}")}
TALK = (Answered(), Wait(2.0), Hangup())
ALARM = 10.0
"""Seconds in which trouble with a disk is to be seen."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def house_of_its_own() -> AsyncIterator[Installation]:
    async with installation() as place:
        yield place


@pytest_asyncio.fixture(loop_scope="session")
async def lone(house_of_its_own: Installation) -> AsyncIterator[Installation]:
    """Without a server; one that a failed test leaves behind is ended."""
    yield house_of_its_own
    if house_of_its_own.child is not None:
        await house_of_its_own.end_child(signal.SIGKILL)


async def conversing(place: Installation, business: Business, caller: str, seconds: float) -> asyncio.Task[CallResult]:
    """A call whose conversation has begun."""
    steps = (Answered(), Wait(seconds), Hangup())
    running = asyncio.create_task(place.place(business, caller=caller, steps=steps))

    async def answered() -> bool:
        calls = await place.carrier.phone_calls(business.phones["desk"])
        return any(call.answered and call.from_number == caller and not call.ended for call in calls)

    await eventually(answered, "the conversation")
    return running


def undisturbed(result: CallResult, seconds: float) -> None:
    assert result.answered
    assert result.talk_seconds == pytest.approx(seconds, abs=0.7)
    assert result.heard is not None
    assert tone_present(result.heard, BUSINESS_HZ)


async def said(place: Installation, what: str) -> None:
    """``callrouter status`` tells it, within the time that is promised, and ends with 1."""
    told = ""

    async def seen() -> bool:
        nonlocal told
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "callrouter", "--home", str(place.settings.home_dir), "status"),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await child.communicate()
        told = out.decode()
        return child.returncode == 1 and what in " ".join(told.split())

    try:
        await eventually(seen, what, ALARM)
    except AssertionError as exc:
        raise AssertionError(f"{exc}: {told}") from None


def well(place: Installation) -> bool:
    status = place.status()
    problems = [status.get(part, {}).get("problem") for part in ("journal", "database", "recording_store")]
    return problems == [None] * 3 and status["journal"]["pending"] == 0


async def recorded_well(place: Installation, business: Business) -> None:
    """All is as ever, and the server is the same one."""
    after = await place.call(business, steps=TALK)
    assert after.call.record.recording_problem is None
    assert [each.status for each in after.call.recordings] == ["ok"]
    assert "Traceback" not in place.server_log()


@pytest.mark.asterisk
@pytest.mark.asyncio(loop_scope="session")
async def test_the_disk_of_recordings_fills_during_a_call(lone: Installation, short_directory: Path) -> None:
    spool = lone.settings.recording_spool
    with disk(short_directory / "spool") as small, on(small, spool):
        server = await lone.spawn_server()
        business = await lone.business(DESK)
        await eventually(lambda: well(lone), "a quiet start")
        caller, second = lone.caller(), lone.caller()
        running = await conversing(lone, business, caller, 7.0)
        small.fill()
        await said(lone, "recordings: the disk of the recording directory")
        noticed = await lone.place(business, caller=second, steps=TALK)
        undisturbed(await running, 7.0)
        undisturbed(noticed, 2.0)
        small.free()
        await eventually(lambda: well(lone), "the alarm ends", ALARM)
        await recorded_well(lone, business)
        assert server.returncode is None
        [during] = await lone.records_of(business.did, caller)
        assert "may be incomplete" in str(during.record.recording_problem)
        assert during.record.disposition is Disposition.ANSWERED
        [after] = await lone.records_of(business.did, second)
        assert "MB free" in str(after.record.recording_problem)
        assert after.recordings == ()
        await lone.end_child()


@pytest.mark.asterisk
@pytest.mark.asyncio(loop_scope="session")
async def test_the_one_disk_of_everything_fills_under_calls(lone: Installation, short_directory: Path) -> None:
    """Journal, database, recordings, Asterisk's spool and its own records lie on it."""
    kept = lone.settings
    business = await lone.business(DESK)
    ledger = kept.ledger_path.parent
    ledger.mkdir(parents=True, exist_ok=True)
    (kept.home_dir / "journal").mkdir(exist_ok=True)
    kept.recordings.mkdir(exist_ok=True)
    with (
        disk(short_directory / "all", 12) as small,
        on(small, kept.recording_spool, kept.journal_dir, kept.recordings, ledger),
    ):
        moved = small.path / "callrouter.db"
        async with database_at(lone, moved):
            server = await lone.spawn_server()
            await eventually(lambda: well(lone), "a quiet start")
            before = await lone.call(business, steps=TALK)
            assert [each.status for each in before.call.recordings] == ["ok"], before.call.record.recording_problem
            callers = [lone.caller() for _ in range(3)]
            running = await conversing(lone, business, callers[0], 8.0)
            small.fill()
            await said(lone, "No space left on device")
            others = [await lone.place(business, caller=each, steps=TALK) for each in callers[1:]]
            undisturbed(await running, 8.0)
            for each in others:
                undisturbed(each, 2.0)
            small.free()
            await eventually(lambda: well(lone), "all is well again", 30)
            await recorded_well(lone, business)
            assert server.returncode is None
            for caller in callers:
                [call] = await lone.records_of(business.did, caller)
                assert (call.record.disposition, call.record.handled_by) == (Disposition.ANSWERED, "controller")
                assert call.record.recording_problem is not None
            await lone.end_child()


@asynccontextmanager
async def database_at(place: Installation, path: Path) -> AsyncIterator[None]:
    """The installation's database lies elsewhere meanwhile."""
    file = place.database.path
    assert file is not None
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("VACUUM INTO ?", (str(path),))
    await place.database.dispose()
    file.rename(file.with_suffix(".away"))
    for suffix in ("-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
    file.symlink_to(path)
    try:
        yield
    finally:
        await place.database.dispose()
        file.unlink()
        file.with_suffix(".away").rename(file)


@pytest.mark.asterisk
@pytest.mark.asyncio(loop_scope="session")
async def test_killed_while_the_disk_of_the_journal_is_full(lone: Installation, short_directory: Path) -> None:
    """What waited in memory dies with the server; the calls are there all the same, out of Asterisk's own records."""
    business = await lone.business(DESK)
    (lone.settings.home_dir / "journal").mkdir(exist_ok=True)
    with disk(short_directory / "journal") as small, on(small, lone.settings.journal_dir):
        await lone.spawn_server()
        await eventually(lambda: well(lone), "a quiet start")
        small.fill()
        callers = [lone.caller() for _ in range(2)]
        undisturbed(await lone.place(business, caller=callers[0], steps=TALK), 2.0)
        running = await conversing(lone, business, callers[1], 8.0)
        await said(lone, "entries wait in memory")
        await lone.end_child(signal.SIGKILL)
        # It starts and takes calls on a full disk too.
        await lone.spawn_server()
        await said(lone, "cannot be written")
        undisturbed(await running, 8.0)
        small.free()
        await eventually(lambda: well(lone), "all is well again", 30)
        for caller in callers:
            [call] = await lone.records_of(business.did, caller)
            assert call.record.disposition is Disposition.ANSWERED
        await recorded_well(lone, business)
        await lone.end_child()


@pytest.mark.asterisk
@pytest.mark.asyncio(loop_scope="session")
async def test_a_start_with_a_read_only_journal(lone: Installation, short_directory: Path) -> None:
    business = await lone.business(DESK)
    (lone.settings.home_dir / "journal").mkdir(exist_ok=True)
    with disk(short_directory / "read-only") as small, on(small, lone.settings.journal_dir):
        journal = Disk(lone.settings.journal_dir)
        journal.read_only(True)
        await lone.spawn_server()
        await said(lone, "Read-only file system")
        caller = lone.caller()
        undisturbed(await lone.place(business, caller=caller, steps=TALK), 2.0)
        journal.read_only(False)
        await eventually(lambda: well(lone), "all is well again", 30)
        [call] = await lone.records_of(business.did, caller)
        assert (call.record.disposition, call.record.handled_by) == (Disposition.ANSWERED, "controller")
        await recorded_well(lone, business)
        await lone.end_child()
