"""What can be wrong with a database is said in plain words."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import make_url

from callrouter.errors import ConflictError, DatabaseError
from callrouter.store import config
from callrouter.store.database import Database, locate
from callrouter.store.models import TargetRow
from tests.fixtures.postgres import PostgresServer


@pytest.fixture
async def sqlite(tmp_path: Path, migrated_sqlite: Path) -> AsyncIterator[Database]:
    path = shutil.copy(migrated_sqlite, tmp_path / "callrouter.db")
    database = Database(f"sqlite:///{path}")
    yield database
    await database.dispose()


async def add_company(database: Database, name: str = "acme") -> None:
    async with database.session() as session:
        await config.add_company(session, name=name, timezone="UTC", who="test")


async def test_sqlite_is_set_as_it_should_be(sqlite: Database) -> None:
    async with sqlite.session(read_only=True) as session:
        found = [
            (await session.execute(text(f"PRAGMA {name}"))).scalar()
            for name in ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
        ]
    assert found == ["wal", 1, 2, 5000]


async def test_foreign_keys_hold(database: Database) -> None:
    async def orphan() -> None:
        async with database.session() as session:
            row = TargetRow(company_id="nobody", name="x", title="", sip_uri="sip:a@b", ring_seconds=1)
            row.created_by = row.updated_by = "test"
            session.add(row)

    with pytest.raises(ConflictError):
        await orphan()


async def test_times_come_back_aware_and_in_utc(database: Database) -> None:
    await add_company(database)
    async with database.session(read_only=True) as session:
        at = (await config.list_changes(session))[0].at
    assert at.tzinfo is not None
    assert abs((datetime.now(UTC) - at).total_seconds()) < 60


async def test_a_database_that_is_not_set_up(tmp_path: Path, postgres: PostgresServer) -> None:
    missing = Database(f"sqlite:///{tmp_path / 'none.db'}")
    with pytest.raises(DatabaseError, match="does not exist") as caught:
        await add_company(missing)
    assert caught.value.hint == "run: callrouter db upgrade"
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "empty.db").touch()
    for url in (f"sqlite:///{tmp_path / 'empty.db'}", await postgres.create_database()):
        database = Database(url)
        with pytest.raises(DatabaseError, match="is not set up") as caught:
            await add_company(database)
        assert caught.value.hint == "run: callrouter db upgrade"
        with pytest.raises(DatabaseError, match="is not set up"):
            await database.require_current()
        await database.dispose()


async def test_a_file_that_goes_away_at_the_last_moment_is_not_replaced_by_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "odd name#.db"
    database = Database(f"sqlite+aiosqlite:///{path}")
    await database.upgrade()
    await database.dispose()
    path.rename(tmp_path / "aside")
    looked = iter([True])
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda self: next(looked, None) or exists(self))
    with pytest.raises(DatabaseError, match="does not exist"):
        async with database.session(read_only=True) as session:
            await session.execute(text("SELECT 1 FROM config_state"))
    assert not exists(path)
    (tmp_path / "aside").rename(path)
    async with database.session() as session:
        assert (await session.execute(text("SELECT count(*) FROM config_state"))).scalar() == 1
    await database.dispose()


async def test_a_locked_database(sqlite: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    other = sqlite3.connect(str(sqlite.path), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr("callrouter.store.database.BUSY_MS", 50)
    impatient = Database(f"sqlite:///{sqlite.path}")
    try:
        with pytest.raises(DatabaseError, match="is locked by another program"):
            await add_company(impatient)
        async with impatient.session(read_only=True) as session:
            assert await config.list_companies(session) == []  # reading goes on
    finally:
        await impatient.dispose()
        other.execute("ROLLBACK")
        other.close()
    await add_company(sqlite)


async def test_a_writer_waits_for_another(sqlite: Database) -> None:
    other = sqlite3.connect(str(sqlite.path), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(add_company(sqlite))
    done, _ = await asyncio.wait({waiting}, timeout=0.2)
    assert not done
    other.execute("COMMIT")
    other.close()
    await asyncio.wait_for(waiting, 10)


async def test_a_full_disk(sqlite: Database) -> None:
    """SQLite's own limit of pages gives the error that a full disk gives."""
    assert sqlite.path is not None
    async with sqlite.session() as session:
        await session.execute(text("PRAGMA max_page_count=1"))
        with pytest.raises(Exception, match="full") as caught:
            await session.execute(text("CREATE TABLE big AS SELECT zeroblob(1000000)"))
        found = sqlite.explain(caught.value)
    assert found is not None
    assert "the disk is full" in found.message


def test_a_read_only_file(tmp_path: Path) -> None:
    """As a user who is not root, for whom nothing is read-only."""
    program = f"""
import asyncio, os, sys
from pathlib import Path
from callrouter.errors import DatabaseError
from callrouter.store import config
from callrouter.store.database import Database

async def main():
    path = Path({str(tmp_path / "ro" / "callrouter.db")!r})
    database = Database(f"sqlite:///{{path}}")
    await database.upgrade()
    await database.dispose()
    for left in path.parent.glob("*-*"):
        left.unlink()
    path.chmod(0o444)
    path.parent.chmod(0o555)
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
        os.setgid(65534)
        os.setuid(65534)
    try:
        async with database.session() as session:
            await config.add_company(session, name="a", timezone="UTC", who="x")
    except DatabaseError as exc:
        print(exc.message, "|", exc.hint)
    try:
        await Database(f"sqlite:///{{path.parent}}/new.db").upgrade()
    except DatabaseError as exc:
        print(exc.message)

asyncio.run(main())
"""
    for directory in (tmp_path, *tmp_path.parents):
        if directory == Path("/tmp"):
            break
        directory.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, env=os.environ)
    first, second = done.stdout.strip().splitlines()
    assert "callrouter.db is read-only" in first or "cannot be opened" in first
    assert "writable" in first
    assert "new.db: Permission denied" in second


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("hello " * 1000)
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    with pytest.raises(DatabaseError, match="is no SQLite database"):
        await database.check()
    await database.dispose()


async def test_a_server_that_is_not_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        database = Database(f"postgresql://ana:geheim@127.0.0.1:{port}/calls")
        with pytest.raises(DatabaseError, match="does not answer") as caught:
            await database.check()
    assert "geheim" not in str(caught.value)
    assert f"127.0.0.1:{port}" in str(caught.value)
    with pytest.raises(DatabaseError, match="does not answer"):
        await add_company(database)
    await database.dispose()


async def test_a_wrong_password_user_or_database(postgres: PostgresServer) -> None:
    right = make_url(postgres.url("postgres"))
    for wrong, says in (
        (right.set(password="geheim"), "refuses the password"),
        (right.set(username="nobody"), "refuses the password"),
        (right.set(database="nothing"), "does not exist on the server"),
    ):
        database = Database(wrong.render_as_string(hide_password=False))
        with pytest.raises(DatabaseError, match=says) as caught:
            await database.check()
        assert "geheim" not in str(caught.value)
        assert postgres.password not in str(caught.value)
        await database.dispose()


async def test_a_connection_that_was_cut_is_made_anew(postgres: PostgresServer) -> None:
    database = Database(await postgres.create_database())
    await database.upgrade()
    killer = Database(postgres.url("postgres"))
    async with killer.engine.connect() as connection:
        name = database.url.database
        await connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"), {"name": name}
        )
    await add_company(database)
    await database.dispose()
    await killer.dispose()


async def test_a_connection_in_use_at_the_end_is_closed_when_it_comes_back(database: Database) -> None:
    closed: list[object] = []
    event.listen(database.engine.sync_engine, "close", lambda connection, _record: closed.append(connection))
    async with database.session() as session:
        in_use = (await (await session.connection()).get_raw_connection()).dbapi_connection
        await database.dispose()
        assert closed == []
        await config.add_company(session, name="acme", timezone="UTC", who="test")
    assert closed == [in_use]
    # The database can be used on, and keeps its connections.
    async with database.session() as session:
        assert [each.name for each in await config.list_companies(session)] == ["acme"]
    assert closed == [in_use]


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://ana:geheim@h/d", "sqlite://", "sqlite:///:memory:"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(DatabaseError) as caught:
        Database(url)
    assert "geheim" not in str(caught.value)
    assert caught.value.hint


def test_drivers_are_filled_in() -> None:
    assert locate("postgresql://h/d").drivername == "postgresql+asyncpg"
    assert locate("postgres://h/d").drivername == "postgresql+asyncpg"
    assert locate("sqlite:////tmp/x.db").drivername == "sqlite+aiosqlite"


async def test_a_read_only_session_cannot_write_on_postgresql(postgres: PostgresServer) -> None:
    database = Database(await postgres.create_database())
    await database.upgrade()

    async def write() -> None:
        async with database.session(read_only=True) as session:
            await config.add_company(session, name="acme", timezone="UTC", who="test")

    with pytest.raises(DatabaseError, match="is read-only"):
        await write()
    await add_company(database)
    await database.dispose()
