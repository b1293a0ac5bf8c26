"""What the runtime's tests share."""

from __future__ import annotations

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
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty SQLite database of the present schema."""
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'callrouter.db'}")
    await database.upgrade()
    yield database
    await database.dispose()
