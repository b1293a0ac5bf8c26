"""PostgreSQL's own programs, when they fail, and when there are none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sqlalchemy import text

from callrouter.errors import DatabaseError
from callrouter.store import postgres_tools
from callrouter.store.database import Database
from tests.fixtures.postgres import PostgresServer


@pytest.mark.postgres
async def test_programs_that_are_missing_or_fail_are_named(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await postgres.create_database()
    database = Database(url)
    await database.upgrade("0001")
    broken = tmp_path / "broken.dump"
    broken.write_bytes(b"PGDMP" + os.urandom(500))
    tools = postgres_tools.find(database.url)
    with pytest.raises(DatabaseError, match="pg_restore could not work on") as caught:
        tools.restore(broken, tmp_path / "x.sql", "before_restore_x", lambda *_: None)
    assert postgres.password not in caught.value.message
    # psql fails in the middle: the name for what is there is taken.
    async with database.session() as session:
        await session.execute(text("UPDATE config_state SET version = 77"))
    tools.dump(whole := tmp_path / "whole.dump", lambda *_: None)
    async with database.session() as session:
        await session.execute(text("CREATE SCHEMA before_restore_x"))
    with pytest.raises(DatabaseError, match=r"psql could not work on .*already exists"):
        tools.restore(whole, tmp_path / "x.sql", "before_restore_x", lambda *_: None)
    async with database.session() as session:
        assert await session.scalar(text("SELECT version FROM public.config_state")) == 77
    done = await database.upgrade(copies=tmp_path)
    assert done.backup is not None
    assert ".before-" in done.backup.name
    assert done.backup.name.endswith("-from-0001.pgdump")
    assert done.backup.stat().st_mode & 0o777 == 0o600
    assert done.backup.read_bytes().startswith(b"PGDMP")
    monkeypatch.setattr(postgres_tools, "DEBIAN", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(postgres_tools.ToolsMissing, match="pg_dump, pg_restore and psql are not installed"):
        await database.downgrade("0001", copies=tmp_path)
    assert (await database.check()).ok
    await database.dispose()
