"""The schema: up, down, up again; agrees with the models; what is wrong with it is recognised."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from callrouter.errors import DatabaseError
from callrouter.store import config, migrate
from callrouter.store.database import Database, SchemaStatus


async def tables(database: Database) -> set[str]:
    async with database.engine.connect() as connection:
        return set(await connection.run_sync(lambda sync: inspect(sync).get_table_names())) - {"alembic_version"}


async def test_an_upgrade_makes_what_the_models_say(database: Database) -> None:
    async with database.engine.connect() as connection:
        assert await connection.run_sync(migrate.differences) == []
    assert (await database.check()).ok


async def test_up_down_up(empty_database: Database) -> None:
    assert (await empty_database.check()).status is SchemaStatus.ABSENT
    first = await empty_database.upgrade()
    assert (first.before, first.after) == (None, migrate.head())
    made = await tables(empty_database)
    await empty_database.downgrade("base")
    assert await tables(empty_database) == set()
    assert (await empty_database.check()).status is SchemaStatus.ABSENT
    await empty_database.upgrade()
    assert await tables(empty_database) == made
    async with empty_database.session(read_only=True) as session:
        assert await config.config_version(session) == 1


def test_the_revisions_are_those_that_alembic_finds() -> None:
    known = ScriptDirectory(str(migrate.directory())).walk_revisions()
    assert migrate.revisions() == tuple(each.revision for each in known)[::-1]


async def test_every_revision_goes_down_and_up_one_by_one(database: Database) -> None:
    revisions = migrate.revisions()
    for revision in reversed(revisions):
        await database.downgrade("-1")
        assert (await database.check()).revision != revision
    for _ in revisions:
        await database.upgrade("+1")
    assert (await database.check()).ok


async def test_an_upgrade_of_what_is_up_to_date_does_nothing(database: Database) -> None:
    again = await database.upgrade()
    assert (again.before, again.after, again.backup) == (migrate.head(), migrate.head(), None)


async def test_a_newer_database_is_left_alone(database: Database) -> None:
    async with database.session() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = 'f00d'"))
    assert (await database.check()).status is SchemaStatus.NEWER
    with pytest.raises(DatabaseError, match=r"written by a newer callrouter \(revision f00d\)"):
        await database.upgrade()
    with pytest.raises(DatabaseError, match="newer callrouter"):
        await database.require_current()


@pytest.mark.parametrize(
    "damage,named",
    [
        ("DROP TABLE call_tag", "call_tag"),
        ("ALTER TABLE job DROP COLUMN last_error", "last_error"),
        ("DELETE FROM alembic_version", "no revision"),
        ("CREATE TABLE _alembic_tmp_call (id INTEGER)", "_alembic_tmp_call"),
    ],
)
async def test_a_half_applied_migration_is_recognised(database: Database, damage: str, named: str) -> None:
    async with database.session() as session:
        await session.execute(text(damage))
    state = await database.check()
    assert state.status is SchemaStatus.HALF_APPLIED
    assert named in state.detail
    with pytest.raises(DatabaseError, match="only in part") as caught:
        await database.upgrade()
    assert "backup" in (caught.value.hint or "")


async def test_a_migration_that_fails_leaves_nothing_behind(
    empty_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last statement fails; both databases roll back the tables made before."""
    broken = tmp_path / "migrations"
    shutil.copytree(migrate.directory(), broken)
    first = broken / "versions" / "0001_initial.py"
    insert = 'op.execute("INSERT INTO config_state (id, version) VALUES (1, 1)")'
    assert insert in first.read_text()
    first.write_text(first.read_text().replace(insert, 'op.execute("INSERT INTO nowhere (id) VALUES (1)")'))
    with monkeypatch.context() as patched:
        patched.setattr(migrate, "directory", lambda: broken)
        with pytest.raises(DatabaseError):
            await empty_database.upgrade()
    assert await tables(empty_database) == set()
    await empty_database.upgrade()
    assert (await empty_database.check()).ok


async def test_a_sqlite_database_is_copied_before_it_is_changed(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'callrouter.db'}")
    await database.upgrade()
    async with database.session() as session:
        await config.add_company(session, name="acme", timezone="Europe/Berlin", who="test")
    done = await database.downgrade("base")
    await database.dispose()
    assert done.backup is not None
    assert done.backup.stat().st_mode & 0o777 == 0o600
    copy = sqlite3.connect(done.backup)
    assert copy.execute("SELECT name FROM company").fetchall() == [("acme",)]
    copy.close()


async def test_a_new_sqlite_file_is_private_and_its_directory_is_made(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'a' / 'b' / 'callrouter.db'}")
    await database.upgrade()
    assert database.path is not None
    assert database.path.stat().st_mode & 0o777 == 0o600
    await database.dispose()


def test_migrations_are_found_beside_the_package() -> None:
    assert (migrate.directory() / "versions" / "0001_initial.py").is_file()
