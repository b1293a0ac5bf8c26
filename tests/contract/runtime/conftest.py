"""What the runtime's tests share."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from callrouter.store.database import Database
from tests.contract.runtime.support import Rig, open_rig


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(tmp_path) as opened:
        yield opened


@pytest.fixture
async def database(tmp_path: Path, migrated_sqlite: Path) -> AsyncIterator[Database]:
    """An empty SQLite database of the present schema."""
    path = shutil.copy(migrated_sqlite, tmp_path / "callrouter.db")
    database = Database(f"sqlite+aiosqlite:///{path}")
    yield database
    await database.dispose()
