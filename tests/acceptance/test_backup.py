"""A backup made in the middle of a call, brought to another home, and calls there."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from callrouter.bootstrap import asterisk_process, make_worker, prepare_asterisk
from callrouter.config import load_settings
from callrouter.core.disposition import Disposition
from callrouter.store.calls import CallFilter, list_calls
from callrouter.store.database import Database
from callrouter.testing.carrier_script import Answered, Hangup, Wait, answer
from tests.acceptance.conversations import check_recording
from tests.fixtures.installation import BUSINESS_HZ, Installation, eventually, installation

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="session")]

DESK = {"desk": answer(after=0.2, speak=f"tone:{BUSINESS_HZ}")}


async def callrouter(*args: object) -> Any:
    """A command as a process of its own; what it prints."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CALLROUTER_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "callrouter", *map(str, args), "--json"),
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return json.loads(out)


@asynccontextmanager
async def moved(place: Installation, home: Path) -> AsyncIterator[Installation]:
    """Asterisk, server and worker on a restored home, in the place of those that were there."""
    settings = load_settings(None, {}, home=str(home))
    async with AsyncExitStack() as stack:
        database = Database(settings.database)
        stack.push_async_callback(database.dispose)
        install = await prepare_asterisk(settings)
        asterisk = asterisk_process(settings, install)
        stack.push_async_callback(asterisk.stop)
        await asterisk.start()
        other = Installation(settings, install, asterisk, place.carrier, database)
        worker = make_worker(settings, database)
        working = asyncio.create_task(worker.run())
        try:
            await other.spawn_server()
            yield other
        finally:
            if other.child is not None and other.child.returncode is None:
                await other.end_child()
            worker.stop()
            await asyncio.gather(working, return_exceptions=True)


async def test_a_backup_made_during_a_call_is_restored_and_takes_calls() -> None:
    async with installation() as place:
        await place.spawn_server()
        business = await place.business(DESK)
        first, second, third, since = (place.caller() for _ in range(4))
        before = await place.call(business, caller=first, steps=(Answered(), Wait(1.5), Hangup()))

        talking = asyncio.create_task(
            place.place(business, caller=second, steps=(Answered(), Wait(12.0), Hangup()), max_seconds=24)
        )
        legs = place.settings.recording_spool
        await eventually(
            lambda: any(leg.stat().st_size > 8000 for leg in legs.glob("*-rx.wav")), "the second call is being recorded"
        )
        archive = place.settings.home_dir / "now.backup"
        key = place.settings.secrets_dir / "backup-key"
        made = await callrouter("--home", place.settings.home_dir, "backup", "create", archive, "--recordings")
        assert not talking.done(), "the call went on meanwhile"
        assert made["recordings"] is True
        verified = await callrouter("backup", "verify", archive, "--key-file", key)
        assert verified["ok"] is True
        await talking
        [undisturbed] = await place.records_of(business.did, second)
        assert undisturbed.record.disposition is Disposition.ANSWERED
        assert [one.status for one in undisturbed.recordings] == ["ok"]
        await place.call(business, caller=since, steps=(Answered(), Wait(1.0), Hangup()))
        await place.idle()
        await place.end_child()
        await place.asterisk.stop()

        # Asterisk's control socket has room for 107 characters: no deep directory.
        home = Path(tempfile.mkdtemp(prefix="callrouter-"))
        try:
            # The old machine's disk can still be read: Asterisk's record is newer than the backup.
            ledger = load_settings(None, {}, home=str(home)).ledger_path
            ledger.parent.mkdir(parents=True)
            shutil.copy(place.settings.ledger_path, ledger)
            restored = await callrouter("backup", "restore", archive, "--home", home, "--key-file", key)
            assert (restored["aside"], restored["kept"]) == ([], [str(ledger)])
            for raw in (home / "asterisk/spool/recording").glob("*.wav"):
                os.utime(raw, (raw.stat().st_atime - 3600,) * 2)  # an hour later nobody writes to them any more
            async with moved(place, home) as other:
                seen = await other.call(business, caller=third, steps=(Answered(), Wait(1.5), Hangup()))
                record = seen.call.record
                assert record.disposition is Disposition.ANSWERED
                assert (record.handled_by, record.answered_by, seen.call.campaign) == ("controller", "desk", "radio")
                check_recording(other, seen)
                # The call of before, once, as it was, with its recording.
                [old] = await other.records_of(business.did, first)
                assert old.record == before.call.record
                [sound] = old.recordings
                assert (other.settings.recordings / str(sound.path)).read_bytes() == (
                    place.settings.recordings / str(sound.path)
                ).read_bytes()
                # The call that the backup caught in its middle: once, and closed.
                [caught] = await other.records_of(business.did, second)
                assert caught.record.id == undisturbed.record.id
                assert caught.record.ended_at == pytest.approx(undisturbed.record.ended_at, abs=0.5)
                assert caught.record.disposition is Disposition.ANSWERED
                assert [one.status for one in caught.recordings] == ["suspect"]

                # And the one that began after it: Asterisk's record tells of it.
                async def told() -> bool:
                    # Its recording is not waited for: nobody has it here.
                    async with other.database.session(read_only=True) as session:
                        rows = await list_calls(session, CallFilter(number=business.did, caller=since))
                        return [row.disposition for row in rows] == [Disposition.ANSWERED]

                await eventually(told, "the call since the backup")
                async with other.database.session(read_only=True) as session:
                    assert len(await list_calls(session, CallFilter(number=business.did), limit=100)) == 4
                assert other.status()["journal"]["pending"] == 0
                # The chain of manifests goes on where it was.
                assert (await callrouter("--home", home, "recording", "verify"))["clean"] is True
        finally:
            if not os.environ.get("CALLROUTER_KEEP_TESTS"):
                shutil.rmtree(home, ignore_errors=True)
