"""Backups of both databases while they are written, and what comes back from them."""

from __future__ import annotations

import asyncio
import itertools
import os
import sqlite3
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select, text

from callrouter.backup.archive import ArchiveReader, Manifest
from callrouter.backup.create import create
from callrouter.backup.keys import Lock
from callrouter.backup.restore import Restored, restore
from callrouter.config import Settings, load_settings
from callrouter.errors import ArchiveError, CallrouterError, ConfigError, ConflictError
from callrouter.store import config, migrate, postgres_tools
from callrouter.store.database import Database
from callrouter.store.drain import Drain
from callrouter.store.jobs import list_jobs
from callrouter.store.journal import Journal, Position, read
from callrouter.store.models import CallEventRow, CallRecordRow
from tests.fixtures.postgres import PostgresServer
from tests.integration.test_store_drain import begin, end, talk, whole

LOCK = Lock("key-file", bytes(32))


def quiet(_what: str, _done: int, _total: int) -> None:
    """Progress that nobody looks at."""


@dataclass
class Place:
    """Where to back up from, and fresh places to restore to."""

    settings: Settings
    database: Database
    tmp_path: Path
    postgres: PostgresServer | None
    _count: itertools.count[int]

    async def fresh(self) -> tuple[Path, str]:
        """A home that does not exist, and the URL of a database that is empty."""
        home = self.tmp_path / f"fresh-{next(self._count)}"
        return home, await self.postgres.create_database() if self.postgres else f"sqlite:///{home}/callrouter.db"

    async def create(self, name: str = "x.backup", recordings: bool = False) -> tuple[Path, Manifest]:
        target = self.tmp_path / name
        return target, await asyncio.to_thread(
            create, self.settings, None, target, LOCK, recordings=recordings, progress=quiet
        )

    async def restore(self, archive: Path, home: Path, url: str, *, force: bool = False) -> Restored:
        toml = self.tmp_path / "to.toml"
        toml.write_text(f'database_url = "{url}"\n')
        return await asyncio.to_thread(restore, archive, LOCK, home, config=toml, force=force, progress=quiet)


@pytest.fixture
async def place(database: Database, tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    url = database.url.render_as_string(hide_password=False)
    settings = load_settings(None, {}, home=str(tmp_path / "home"), database_url=url)
    settings.home_dir.mkdir()
    postgres = None if database.sqlite else request.getfixturevalue("postgres")
    return Place(settings, database, tmp_path, postgres, itertools.count())


async def logs(database: Database) -> dict[str, list[tuple[int, str]]]:
    """Each call's entries in the database: number and kind."""
    found: dict[str, list[tuple[int, str]]] = {}
    async with database.session(read_only=True) as session:
        rows = await session.execute(
            select(CallEventRow.call_id, CallEventRow.seq, CallEventRow.type).order_by(
                CallEventRow.call_id, CallEventRow.seq
            )
        )
        for call, seq, kind in rows:
            found.setdefault(call, []).append((seq, kind))
    return found


async def drained(home: Path, url: str) -> tuple[dict[str, list[tuple[int, str]]], int, list[str]]:
    """What a server finds that starts on a restored home, once all is drained: logs, how many came from the journal,
    and the calls that have a record."""
    database = Database(url)
    journal = Journal(home / "journal", fsync_interval=1000)
    try:
        before = sum(map(len, (await logs(database)).values()))
        assert await Drain(journal, database).flush(20)
        after = await logs(database)
        async with database.session(read_only=True) as session:
            keys = [job.payload["recording_id"] for job in await list_jobs(session)]
            records = list(await session.scalars(select(CallRecordRow.id)))
        assert len(keys) == len(set(keys))
        return after, sum(map(len, after.values())) - before, records
    finally:
        journal.close()
        await database.dispose()


async def test_every_backup_that_is_made_under_load_holds_one_moment(place: Place) -> None:
    """Calls are written and drained, segments roll and are deleted; a restored home has all that was written before the
    backup began, nothing twice, and of each call a beginning without a gap."""
    journal = Journal(place.settings.journal_dir, fsync_interval=0.005, segment_bytes=4000)
    drain = Drain(journal, place.database, batch=7, interval=0.001)
    written: list[tuple[str, int]] = []
    stop = asyncio.Event()
    numbers = itertools.count()

    async def calls() -> None:
        while not stop.is_set():
            call = f"call-{next(numbers):05d}"
            for part in (begin, talk, end):
                seq = journal._seqs.get(call, 0)
                part(journal, call)
                written.extend((call, number) for number in range(seq + 1, journal._seqs[call] + 1))
                await asyncio.sleep(0.01)

    working = [asyncio.create_task(calls()), asyncio.create_task(drain.run())]
    from_journal = meanwhile = 0
    try:
        while len(written) < 200:
            await asyncio.sleep(0.01)
        for number in range(4):
            sure = list(written)
            archive, _ = await place.create(f"{number}.backup")
            seen = len(written) - len(sure)
            home, url = await place.fresh()
            await place.restore(archive, home, url)
            found, late, records = await drained(home, url)
            entries = {(call, seq) for call, log in found.items() for seq, _ in log}
            assert set(sure) <= entries <= set(written)
            assert all([seq for seq, _ in log] == list(range(1, len(log) + 1)) for log in found.values())
            assert sorted(records) == sorted(call for call, log in found.items() if len(log) > 1)
            meanwhile += seen
            from_journal += late
    finally:
        stop.set()
        working[1].cancel()
        await asyncio.gather(*working, return_exceptions=True)
        journal.close()
    assert meanwhile > 0, "calls went on while backups were made"
    assert from_journal > 0, "what was not drained yet came out of the journal"


async def test_segments_that_are_deleted_while_the_database_is_copied_are_in_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that was pending at the moment of the database is drained, and its segments deleted, before they are read."""
    journal = Journal(place.settings.journal_dir, fsync_interval=1000, segment_bytes=1500)
    drain = Drain(journal, place.database)
    whole(journal, "drained")
    assert await drain.flush(10)
    for number in range(9):
        whole(journal, f"pending-{number}")
    journal.sync()
    loop = asyncio.get_running_loop()
    from callrouter.backup import create as module

    real = module._add_database

    def add_database(*args: object) -> None:
        there = set(place.settings.journal_dir.glob("*.jsonl"))
        assert asyncio.run_coroutine_threadsafe(drain.flush(10), loop).result(20)
        assert len(there - set(place.settings.journal_dir.glob("*.jsonl"))) > 2
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_add_database", add_database)
    archive, _ = await place.create()
    journal.close()
    home, url = await place.fresh()
    await place.restore(archive, home, url)
    found, late, _ = await drained(home, url)
    assert set(found) == {"drained", *(f"pending-{number}" for number in range(9))}
    assert late == 9 * 10


async def test_a_line_that_is_being_written_is_left_out(place: Place) -> None:
    journal = Journal(place.settings.journal_dir, fsync_interval=1000)
    whole(journal, "a")
    journal.close()
    [segment] = place.settings.journal_dir.glob("*.jsonl")
    with segment.open("ab") as file:
        file.write(b'{"call":"b","se')
    archive, _ = await place.create()
    home, url = await place.fresh()
    await place.restore(archive, home, url)
    assert len([line for line, _ in read(home / "journal", Position()) if line]) == 10
    assert (home / "journal" / segment.name).read_bytes().endswith(b"\n")
    assert set((await drained(home, url))[0]) == {"a"}


# -- versions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def test_a_backup_of_the_first_schema_is_brought_up_to_date(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue("postgres") if kind == "postgres" else None
    url = await server.create_database() if server else f"sqlite:///{tmp_path / 'old.db'}"
    old = Database(url)
    await old.upgrade("0001")
    async with old.session() as session:
        await session.execute(text("UPDATE config_state SET version = 41"))
    await old.dispose()
    home = tmp_path / "home"
    home.mkdir()
    place = Place(load_settings(None, {}, home=str(home), database_url=url), old, tmp_path, server, itertools.count())
    archive, manifest = await place.create()
    assert (manifest.revision, manifest.config_version) == ("0001", 41)
    fresh, to = await place.fresh()
    done = await place.restore(archive, fresh, to)
    assert done.revision == migrate.head() != "0001"
    database = Database(to)
    assert (await database.check()).ok
    async with database.session() as session:
        assert await config.config_version(session) == 41
        await config.add_company(session, name="acme", timezone="Europe/Berlin", who="test")
    await database.dispose()
    assert not list(fresh.glob("*.before-*")), "the backup itself is the copy"


async def test_a_backup_of_a_newer_program_is_refused(place: Place) -> None:
    async with place.database.session() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = 'f00d'"))
    archive, _ = await place.create()
    home, url = await place.fresh()
    with pytest.raises(ArchiveError, match="schema f00d, which this callrouter does not know") as caught:
        await place.restore(archive, home, url)
    assert "newer" in str(caught.value.hint)
    assert not home.exists()


async def test_a_database_of_the_other_kind_is_refused(place: Place, tmp_path: Path) -> None:
    archive, _ = await place.create()
    other = f"sqlite:///{tmp_path}/o.db" if place.postgres else "postgresql://callrouter@127.0.0.1:1/x"
    with pytest.raises(ConfigError, match="and database_url names"):
        await place.restore(archive, tmp_path / "fresh", other)
    assert not (tmp_path / "fresh").exists()


# -- what is there already ---------------------------------------------------------------------------------------------


async def company(database: Database, name: str) -> None:
    async with database.session() as session:
        await config.add_company(session, name=name, timezone="Europe/Berlin", who="test")


async def companies(database: Database) -> list[str]:
    async with database.session(read_only=True) as session:
        return [one.name for one in await config.list_companies(session)]


async def test_what_is_there_stays_unless_forced_and_then_it_is_kept_aside(place: Place) -> None:
    await company(place.database, "then")
    archive, _ = await place.create()
    await company(place.database, "since")
    home = place.settings.home_dir
    url = place.database.url.render_as_string(hide_password=False)
    journal = Journal(home / "journal", fsync_interval=1000)
    whole(journal, "since")
    with pytest.raises(ConflictError, match="a server runs on"):
        await place.restore(archive, home, url, force=True)
    journal.close()
    if not place.postgres:
        with pytest.raises(ConflictError, match="open in another process"):
            await place.restore(archive, home, url, force=True)
    await place.database.dispose()
    with pytest.raises(ConflictError, match="there is something already") as caught:
        await place.restore(archive, home, url)
    assert str(home / "journal") in caught.value.message
    assert await companies(place.database) == ["since", "then"]
    await place.database.dispose()

    done = await place.restore(archive, home, url, force=True)
    assert await companies(place.database) == ["then"]
    aside = next(home.glob("before-restore-*"))
    assert str(aside) in done.aside
    assert aside.stat().st_mode & 0o777 == 0o700
    assert list((aside / "journal").glob("*.jsonl")), "the journal that was there"
    assert not list((home / "journal").glob("*.jsonl")), "there was none when the backup was made"
    if place.postgres:
        [schema] = [each for each in done.aside if each.startswith(postgres_tools.ASIDE)]
        async with place.database.session(read_only=True) as session:
            assert list(await session.scalars(text(f"SELECT name FROM {schema}.company ORDER BY 1"))) == [
                "since",
                "then",
            ]
        again, _ = await place.create("again.backup")
        fresh, to = await place.fresh()
        await place.restore(again, fresh, to)  # what was set aside is not in the next backup
    else:
        [old] = home.glob("before-restore-*/database/*.db")
        with sqlite3.connect(old) as connection:
            assert connection.execute("SELECT name FROM company ORDER BY 1").fetchall() == [("since",), ("then",)]
        connection.close()


async def test_a_restore_that_fails_changes_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await company(place.database, "then")
    (place.settings.secrets_dir).mkdir(mode=0o700)
    (place.settings.secrets_dir / "trunk-x").write_text("old")
    archive, _ = await place.create()
    (place.settings.secrets_dir / "trunk-x").write_text("new")
    await company(place.database, "since")
    await place.database.dispose()
    home, url = place.settings.home_dir, place.database.url.render_as_string(hide_password=False)

    def snapshot() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(place.tmp_path.rglob("*")) if path.is_file()}

    async def refused(error: type[CallrouterError], words: str) -> None:
        there = snapshot()
        with pytest.raises(error, match=words):
            await place.restore(archive, home, url, force=True)
        now = snapshot()
        now.pop(str(place.tmp_path / "to.toml"))
        there.pop(str(place.tmp_path / "to.toml"), None)
        assert now.keys() - {key for key in now if "before-restore" in key} == there.keys()
        assert (place.settings.secrets_dir / "trunk-x").read_text() == "new"
        assert await companies(place.database) == ["since", "then"]
        await place.database.dispose()

    raw = archive.read_bytes()
    archive.write_bytes(raw[: len(raw) // 2])
    await refused(ArchiveError, "cut off")
    archive.write_bytes(raw)
    # Whatever cannot be moved at the end: all that was moved goes back.
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if "unpacked" in self.parts and target == place.settings.secrets_dir / "trunk-x":
            raise PermissionError(13, "Permission denied", str(target))
        return real(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", rename)
        with pytest.raises(CallrouterError, match="cannot be moved") as caught:
            await place.restore(archive, home, url, force=True)
    assert (place.settings.secrets_dir / "trunk-x").read_text() == "new"
    if place.postgres:
        assert "is restored already; what it held is in schema before_restore_" in str(caught.value.hint)
    else:
        assert await companies(place.database) == ["since", "then"]
    await place.database.dispose()


# -- recordings and the rest -------------------------------------------------------------------------------------------


async def test_everything_that_cannot_be_made_again_comes_back(place: Place) -> None:
    home, settings = place.settings.home_dir, place.settings
    files = {
        "secrets/trunk-x": 0o600,
        "prompts/originals/hello.mp3": 0o644,
        "failsafe/callrouter-failsafe.conf": 0o644,
        "routing.snapshot": 0o600,
        "asterisk/log/cdr-custom/callrouter.csv": 0o644,
        "asterisk/log/cdr-custom/callrouter.csv.1": 0o644,
        "asterisk/log/cel-custom/callrouter.csv": 0o644,
        "recordings/2026/11/21/a-l1.flac": 0o640,
        "recordings/2026/11/21/a-l1.json": 0o640,
        "asterisk/spool/recording/b-l1-rx.wav": 0o644,
    }
    left_out = ["status.json", "prompts/0123.ulaw", "recordings/2026/11/21/.a-l2.x.part", "asterisk/log/messages"]
    for name in [*files, *left_out]:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(f"{name}\n")
        (home / name).chmod(files.get(name, 0o644))
        os.utime(home / name, (1e9, 1e9))
    with (home / "asterisk/log/cdr-custom/callrouter.csv").open("a") as ledger:
        ledger.write('"half a row')
    os.utime(home / "asterisk/log/cdr-custom/callrouter.csv", (1e9, 1e9))
    archive, _ = await place.create("all.backup", recordings=True)
    small, manifest = await place.create("small.backup")
    assert not any(one.name.startswith(("recordings/", "spool/")) for one in manifest.members)
    fresh, url = await place.fresh()
    done = await place.restore(archive, fresh, url)
    assert {str(path.relative_to(fresh)) for path in fresh.rglob("*") if path.is_file()} == {
        *files,
        *([] if place.postgres else ["callrouter.db"]),
    }
    for name, mode in files.items():
        assert (fresh / name).read_text() == f"{name}\n"
        assert (fresh / name).stat().st_mode & 0o777 == mode
        assert (fresh / name).stat().st_mtime == 1e9
    assert (fresh / "secrets").stat().st_mode & 0o777 == 0o700
    assert (done.kept, done.aside) == ((), ())
    # Recordings and logs that are there stay; only those that differ are named.
    (fresh / "recordings/2026/11/21/a-l1.flac").write_text("another")
    await Database(url).dispose()
    again = await place.restore(archive, fresh, url, force=True)
    assert again.kept == (fresh / "recordings/2026/11/21/a-l1.flac",)
    assert (fresh / "recordings/2026/11/21/a-l1.flac").read_text() == "another"
    with small.open("rb") as file:
        assert ArchiveReader(file, LOCK).manifest.recordings is False
    assert settings.home_dir == home


# -- PostgreSQL's programs ---------------------------------------------------------------------------------------------


@pytest.mark.postgres
async def test_a_password_is_on_no_command_line(
    place: Place, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    real: Callable[..., object] = subprocess.Popen

    def popen(command: list[str], **options: object) -> object:
        seen.append(command)
        return real(command, **options)

    monkeypatch.setattr("callrouter.store.postgres_tools.subprocess.Popen", popen)
    archive, _ = await place.create()
    home, url = await place.fresh()
    await place.restore(archive, home, url)
    assert [Path(command[0]).name for command in seen] == (["pg_dump", "pg_restore", "psql"] if place.postgres else [])
    assert not any(postgres.password in word for command in seen for word in command)
