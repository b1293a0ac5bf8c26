"""A yes and a no of before, and the words they become; back again what is not forced is a no."""

from __future__ import annotations

from sqlalchemy import text

from callrouter.core.model import RecordingPolicy
from callrouter.store import config
from callrouter.store.database import Database


async def test_a_company_goes_on_as_it_did(database: Database) -> None:
    async with database.session() as session:
        for name in ("loud", "quiet", "open"):
            await config.add_company(session, name=name, timezone="UTC", record=name == "loud", who="test")
        await config.edit_company(session, "open", {"record": "inherit"}, who="test")
    await database.downgrade("0002")
    async with database.engine.connect() as connection:
        rows = await connection.execute(text("SELECT name, record FROM company ORDER BY name"))
        assert [(name, bool(record)) for name, record in rows] == [("loud", True), ("open", False), ("quiet", False)]
    await database.upgrade()
    async with database.session(read_only=True) as session:
        found = {each.name: each for each in await config.list_companies(session)}
    assert {name: each.record for name, each in found.items()} == {
        "loud": RecordingPolicy.FORCE,
        "quiet": RecordingPolicy.NEVER,
        "open": RecordingPolicy.NEVER,
    }
    assert not any(each.consent_required or each.pause_keys for each in found.values())
