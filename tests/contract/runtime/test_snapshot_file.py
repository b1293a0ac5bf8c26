"""The routing snapshot in home: whole or not at all, for its owner alone, refused when it is not what it says."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import structlog

from callrouter.core.snapshot import ConfigSnapshot
from callrouter.errors import ConfigError, DatabaseError
from callrouter.runtime import configuration as configuration_module
from callrouter.runtime.service import write_status
from callrouter.store import config
from callrouter.store.database import Database
from callrouter.store.snapshot_file import SNAPSHOT_FILE, KeptConfig, keep_config, kept_config
from tests.contract.runtime.support import until
from tests.contract.runtime.test_database_away import database_file, known, remove, snapshot_file  # noqa: F401
from tests.contract.runtime.world import World, tones, world  # noqa: F401 - fixtures


async def test_what_is_in_force_is_kept_for_its_owner_alone(known: World) -> None:
    path = snapshot_file(known)
    assert path.stat().st_mode & 0o777 == 0o600
    database = Database(known.settings.database)
    async with database.session(read_only=True) as session:
        there = await config.load_config(session)
    kept = kept_config(path, database.shown)
    await database.dispose()
    assert kept is not None
    assert kept.config == there
    assert abs(kept.saved_at - time.time()) < 60
    assert [each.name for each in known.settings.home_dir.glob(f".{SNAPSHOT_FILE}*")] == []


def bent(raw: bytes) -> Iterator[tuple[str, bytes]]:
    head, _, body = raw.partition(b"\n")
    name, _, digest = head.split(b" ")
    yield "empty", b""
    yield "cut off", raw[:-10]
    yield "one bit", raw[:-20] + bytes([raw[-20] ^ 1]) + raw[-19:]
    yield "a later format", b" ".join((name, b"2", digest)) + b"\n" + body
    yield "another program's", b"SQLite format 3\x00" + bytes(4000)
    yield "zeros", bytes(len(raw))
    yield "no newline", b"\xff" * 5000


async def test_a_damaged_or_foreign_file_is_refused_and_said(known: World) -> None:
    path = snapshot_file(known)
    raw = path.read_bytes()
    remove(database_file(known))
    for what, changed in bent(raw):
        path.write_bytes(changed)
        with structlog.testing.capture_logs() as logged, pytest.raises(DatabaseError, match="does not exist"):
            async with known.server(ready=False) as (_, task):
                await task
        (line,) = [line for line in logged if line["event"] == "snapshot_refused"]
        assert str(path) in line["problem"], what


def test_a_file_of_another_database_or_no_file_at_all_is_refused(tmp_path: Path) -> None:
    path = tmp_path / SNAPSHOT_FILE
    assert kept_config(path, "one") is None
    keep_config(path, KeptConfig("one", 1.0, ConfigSnapshot(7)))
    assert kept_config(path, "one") == KeptConfig("one", 1.0, ConfigSnapshot(7))
    with pytest.raises(ConfigError, match="another database"):
        kept_config(path, "two")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="no file"):
        kept_config(path, "one")
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError):
        kept_config(path, "one")


def test_a_file_that_fits_nothing_is_refused(tmp_path: Path) -> None:
    """Whole by its checksum, and yet not what this program knows."""
    path = tmp_path / SNAPSHOT_FILE

    class Other(msgspec.Struct):
        database: str = "one"
        saved_at: str = "yesterday"

    keep_config(path, Other())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="cannot be read"):
        kept_config(path, "one")


async def test_a_full_disk_keeps_the_file_before_and_is_told_and_tried_again(
    known: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot_file(known).read_bytes()
    real = os.fsync

    def full(fd: int) -> None:
        if SNAPSHOT_FILE in str(Path(f"/proc/self/fd/{fd}").readlink()):
            raise OSError(28, "No space left on device")
        real(fd)

    monkeypatch.setattr(configuration_module, "RETRY_SECONDS", 0.2)
    monkeypatch.setattr(os, "fsync", full)
    async with known.server() as (server, _):
        assert "No space left" in "".join(known.status().get("problems") or server.status()["problems"])
        assert snapshot_file(known).read_bytes() == before
        assert [each.name for each in known.settings.home_dir.glob(f".{SNAPSHOT_FILE}*")] == []
        monkeypatch.setattr(os, "fsync", real)
        await until(lambda: server.status()["problems"] == [], "the second attempt")
        assert snapshot_file(known).read_bytes() != before


def test_on_a_full_disk_the_status_is_still_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "status.json"
    write_status(path, {"at": 1, "problem": None})
    size = path.stat().st_size

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    write_status(path, {"at": 2, "problem": "the disk is full " * 20})
    assert json.loads(path.read_text())["at"] == 2
    assert path.stat().st_size == size, "no more room was asked for"
