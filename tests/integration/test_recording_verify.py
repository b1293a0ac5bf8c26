"""Whatever is done to recordings, manifests and database is found; what the dead left is tidied up."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, text

from callrouter.config import Settings
from callrouter.core.records import RecordingStatus
from callrouter.errors import ServiceError
from callrouter.jobs import seal_recording
from callrouter.jobs.finish_recording import finish_recording
from callrouter.jobs.housekeeping import link_older, settle_parts
from callrouter.jobs.queue import Job, Worker, list_jobs
from callrouter.media.manifest import Link, digest
from callrouter.store.database import Database
from callrouter.store.drain import FINISH_RECORDING
from callrouter.store.models import RecordingRow
from callrouter.store.recordings import StoredRecording
from tests.kept_recordings import (
    ENDED,
    a_recording,
    faults,
    files,
    findings,
    finish,
    settings,
    stored,
    told,
)

__all__ = ["settings"]


# -- tampered with -----------------------------------------------------------------------------------------------------


class House:
    """Five recordings in the chain, and ways to spoil them."""

    def __init__(self, database: Database, settings: Settings, rows: list[StoredRecording]) -> None:
        self.database = database
        self.settings = settings
        self.rows = rows
        self.audio = [settings.recordings / str(row.path) for row in rows]
        self.manifests = [path.with_suffix(".json") for path in self.audio]

    async def run(self, statement: str, **values: object) -> None:
        async with self.database.session() as session:
            await session.execute(text(statement), values)

    async def remake(self, place: int) -> None:
        """Change a manifest, and the database so that the two agree."""
        found = json.loads(self.manifests[place].read_bytes())
        found["policy"] = "somebody else said so"
        data = json.dumps(found, sort_keys=True, separators=(",", ":")).encode() + b"\n"
        self.manifests[place].write_bytes(data)
        await self.run("UPDATE recording SET manifest_sha256 = :d WHERE chain_seq = :s", d=digest(data), s=place + 1)
        if place == len(self.rows) - 1:
            await self.run("UPDATE recording_chain SET sha256 = :d", d=digest(data))


@pytest.fixture
async def house(database: Database, settings: Settings) -> House:
    ids = [await a_recording(database, settings) for _ in range(5)]
    await finish(database, settings, *ids)
    house = House(database, settings, [await stored(database, each) for each in ids])
    assert await findings(database, settings) == []
    return house


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


FILES: dict[str, tuple[Callable[[House], object], list[tuple[str, str]]]] = {
    # what is done: the faults that are found, with the file as {place in the chain}.kind
    "one byte of audio": (lambda h: flip(h.audio[1], 1000), [("changed", "1.flac")]),
    "the last byte of audio": (lambda h: flip(h.audio[4], -1), [("changed", "4.flac")]),
    "audio cut short": (lambda h: os.truncate(h.audio[2], 5000), [("changed", "2.flac")]),
    "audio removed": (lambda h: h.audio[0].unlink(), [("missing", "0.flac")]),
    "audio exchanged": (lambda h: swap(h.audio[0], h.audio[1]), [("changed", "0.flac"), ("changed", "1.flac")]),
    "one byte of a manifest": (lambda h: flip(h.manifests[3], 40), [("changed", "3.json")]),
    "a manifest removed": (lambda h: h.manifests[3].unlink(), [("missing", "3.json")]),
    "the last manifest removed": (lambda h: h.manifests[4].unlink(), [("missing", "4.json")]),
    "a manifest emptied": (lambda h: h.manifests[0].write_bytes(b""), [("changed", "0.json")]),
    "manifests exchanged": (
        lambda h: swap(h.manifests[1], h.manifests[2]),
        [("changed", "1.json"), ("changed", "2.json")],
    ),
    "a recording with its manifest removed": (
        lambda h: remove(h.audio[4], h.manifests[4]),
        [("missing", "4.flac"), ("missing", "4.json")],
    ),
    "a file added": (lambda h: (h.audio[0].parent / "stray.flac").write_bytes(b"x"), [("extra", "stray.flac")]),
    "a manifest added": (lambda h: (h.audio[0].parent / "stray.json").write_bytes(b"{}"), [("extra", "stray.json")]),
    "the same recording in another format": (
        lambda h: h.audio[0].with_suffix(".opus").write_bytes(b"x"),
        [("extra", "0.opus")],
    ),
    "a copy on another day": (
        lambda h: shutil.copytree(h.audio[0].parent, h.settings.recordings / "2026/11/22"),
        [("extra", f"{n}.{kind}") for n in range(5) for kind in ("flac", "json")],
    ),
    "an old half-written file": (
        lambda h: old(h.audio[0].parent / ".stray.abc.part"),
        [("extra", ".stray.abc.part")],
    ),
}


def remove(*paths: Path) -> None:
    for path in paths:
        path.unlink()


def old(path: Path) -> None:
    path.write_bytes(b"half")
    os.utime(path, (time.time() - 86400,) * 2)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # what lies on the disk is the same with each
@pytest.mark.parametrize("deed", FILES)
async def test_what_was_done_to_files_is_found(house: House, deed: str) -> None:
    do, expected = FILES[deed]
    do(house)
    found = await findings(house.database, house.settings)
    short = {path.stem: str(place) for place, path in enumerate(house.audio)}
    named = [(str(each.fault), Path(each.where)) for each in found]
    assert sorted((fault, short.get(path.stem, path.stem) + path.suffix) for fault, path in named) == sorted(expected)
    assert all(each.what and each.do for each in found)


async def rows_and_files_gone(house: House, *places: int) -> None:
    for place in places:
        await house.run("DELETE FROM recording WHERE chain_seq = :s", s=place + 1)
        house.audio[place].unlink()
        house.manifests[place].unlink()


@pytest.mark.parametrize(
    "statement,expected",
    [
        ("UPDATE recording SET sha256 = 'x' WHERE chain_seq = 2", {"changed", "disagrees"}),
        ("UPDATE recording SET seconds = 9 WHERE chain_seq = 2", {"disagrees"}),
        ("UPDATE recording SET gaps = '[1]' WHERE chain_seq = 2", None),
        ("UPDATE recording SET kind = 'voicemail' WHERE chain_seq = 2", {"disagrees"}),
        ("UPDATE recording SET leg_id = 'other' WHERE chain_seq = 2", {"disagrees"}),
        ("UPDATE recording SET manifest_sha256 = 'x' WHERE chain_seq = 2", {"changed", "broken"}),
        ("UPDATE recording SET chain_seq = 9 WHERE chain_seq = 5", {"broken"}),
        ("UPDATE recording SET chain_seq = 9 WHERE chain_seq = 2", {"broken"}),
        ("UPDATE recording SET chain_seq = NULL, manifest_sha256 = NULL WHERE chain_seq = 2", {"broken", "extra"}),
        ("UPDATE recording SET path = NULL WHERE chain_seq = 2", {"extra"}),
        ("UPDATE recording_chain SET seq = 4", {"broken"}),
        ("UPDATE recording_chain SET seq = 6", {"broken"}),
        ("UPDATE recording_chain SET sha256 = 'x'", {"broken"}),
        ("DELETE FROM recording_chain", {"broken"}),
    ],
)
async def test_what_was_done_to_the_database_is_found(house: House, statement: str, expected: set[str] | None) -> None:
    if expected is None:
        statement, expected = statement.replace("'[1]'", """'[{"channel": "all"}]'"""), {"disagrees"}
    await house.run(statement)
    assert {fault for fault, _ in await faults(house.database, house.settings)} == expected


async def test_recordings_removed_from_database_and_disk_leave_a_hole(house: House) -> None:
    await rows_and_files_gone(house, 1, 2)
    [finding] = await findings(house.database, house.settings)
    assert (str(finding.fault), finding.where) == ("broken", "chain")
    assert finding.what == "links 2 to 3 are missing in the database"


async def test_a_tail_that_was_cut_off_is_found(house: House) -> None:
    await rows_and_files_gone(house, 3, 4)
    [finding] = await findings(house.database, house.settings)
    assert finding.what == "links 4 to 5 are missing in the database"


async def test_only_a_noted_link_tells_of_a_tail_that_was_cut_off_everywhere(house: House) -> None:
    noted = Link(5, str(house.rows[4].manifest_sha256))
    assert await findings(house.database, house.settings, noted=noted) == []
    await rows_and_files_gone(house, 3, 4)
    await house.run("UPDATE recording_chain SET seq = 3, sha256 = :d", d=house.rows[2].manifest_sha256)
    assert await findings(house.database, house.settings) == []
    [finding] = await findings(house.database, house.settings, noted=noted)
    assert finding.what == "link 5 is not the one that was noted"


@pytest.mark.parametrize("place,found", [(2, "4.json"), (4, None)])
async def test_a_manifest_made_anew_with_its_row_breaks_the_next_link(
    house: House, place: int, found: str | None
) -> None:
    noted = Link(5, str(house.rows[4].manifest_sha256))
    await house.remake(place)
    got = await findings(house.database, house.settings)
    if found is not None:
        [finding] = got
        assert (str(finding.fault), finding.where) == ("broken", house.rows[3].path.replace(".flac", ".json"))  # type: ignore[union-attr]
        assert "link 4 does not follow link 3" in finding.what
    else:  # nothing follows the last one; only who noted it can tell
        assert got == []
        assert len(await findings(house.database, house.settings, noted=noted)) == 1


async def test_only_the_time_that_was_asked_for(house: House) -> None:
    day = datetime.fromtimestamp(ENDED, UTC)
    house.audio[1].unlink()
    await house.run("UPDATE recording SET started_at = :at WHERE chain_seq <= 2", at=_bound(house, day - timedelta(9)))
    assert await findings(house.database, house.settings, since=day - timedelta(1)) == []
    assert len(await faults(house.database, house.settings, since=day - timedelta(20))) == 1
    house.audio[3].unlink()
    [finding] = await findings(house.database, house.settings, since=day - timedelta(1))
    assert finding.where == house.rows[3].path
    assert await findings(house.database, house.settings, since=day + timedelta(9)) == []


def _bound(house: House, at: datetime) -> object:
    return at.replace(tzinfo=None).isoformat(" ", "microseconds") if house.database.sqlite else at


async def test_what_is_being_finished_is_nothing_extra(house: House) -> None:
    pending = await a_recording(house.database, house.settings)
    folder = house.audio[0].parent
    (folder / f"{pending}.flac").write_bytes(b"its job has just renamed it")
    (folder / f".{pending}.x7.part").write_bytes(b"its job writes")
    assert await findings(house.database, house.settings) == []
    (folder / f"{pending}.json").write_bytes(b"no job writes this before the chain")
    assert len(await findings(house.database, house.settings)) == 1


async def test_sound_that_nobody_waits_for_is_told(house: House) -> None:
    pending = await a_recording(house.database, house.settings)
    spool = house.settings.recording_spool
    orphan = spool / "0195d3b0-l1-tx.wav"
    shutil.copy(spool / f"{pending}-rx.wav", orphan)
    assert await findings(house.database, house.settings, spool=spool) == []
    for path in spool.iterdir():
        os.utime(path, (time.time() - 7200,) * 2)
    assert await faults(house.database, house.settings, spool=spool) == [("extra", str(orphan))]


async def test_a_missing_directory_is_said_once(house: House) -> None:
    house.settings.recordings.rename(house.settings.recordings.with_name("elsewhere"))
    with pytest.raises(ServiceError, match="is missing"):
        await findings(house.database, house.settings)


# -- housekeeping ------------------------------------------------------------------------------------------------------


async def test_what_killed_processes_left_is_settled(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = await a_recording(house.database, house.settings)
    with monkeypatch.context() as patch:
        patch.setattr(seal_recording, "_publish", lambda *_: None)  # killed after the commit
        await finish(house.database, house.settings, recording)
    row = await stored(house.database, recording)
    parts = [house.settings.recordings / path for path in files(house.settings) if path.endswith(".part")]
    assert len(parts) == 1
    folder = house.audio[0].parent
    left = [folder / f".{house.rows[0].id}.abc.part", folder / f".{house.rows[0].id}.0123456789abcdef.json.part"]
    for path in left:
        path.write_bytes(b"half")
    young = folder / ".young.abc.part"
    young.write_bytes(b"half")
    for path in [*left, *parts]:
        os.utime(path, (time.time() - 7300,) * 2)
    await settle_parts(house.database, house.settings)
    assert [path for path in files(house.settings) if path.endswith(".part")] == [
        young.relative_to(house.settings.recordings).as_posix()
    ]
    assert told(house.settings, row)["seq"] == 6
    assert await findings(house.database, house.settings) == []


async def test_recordings_from_before_there_were_manifests_get_theirs(house: House) -> None:
    database, settings = house.database, house.settings
    await house.run("UPDATE recording SET chain_seq = NULL, manifest_sha256 = NULL, gaps = NULL")
    await house.run("DELETE FROM recording_chain")
    for path in house.manifests:
        path.unlink()
    flip(house.audio[1], 1000)
    assert await faults(database, settings) == [("changed", house.rows[1].path)]
    for _ in range(2):  # asked for once
        await link_older(database)
    async with database.session(read_only=True) as session:
        assert len(await list_jobs(session)) == 5

    async def run(what: Job) -> None:
        await finish_recording(database, settings, what.payload)

    assert await Worker(database, {FINISH_RECORDING: run}, poll_seconds=0.05).run_until_empty(60)
    async with database.session(read_only=True) as session:
        left = list(await session.scalars(select(RecordingRow.id).where(RecordingRow.chain_seq.is_(None))))
    # What was changed since it was stored is not put on record as if it had been recorded so.
    assert left == [house.rows[1].id]
    changed = await stored(database, left[0])
    assert (changed.status, changed.sha256) == (RecordingStatus.SUSPECT, house.rows[1].sha256)
    assert await faults(database, settings) == [("changed", house.rows[1].path)]
