"""What the worker tidies up by itself, every few minutes."""

from __future__ import annotations

import asyncio
import time

import structlog

from callrouter.config import Settings
from callrouter.errors import DatabaseError
from callrouter.media.sweep import sweep_spool
from callrouter.store.database import Database
from callrouter.store.recordings import pending_recordings

log = structlog.get_logger(__name__)

INTERVAL_SECONDS = 300.0


async def keep_house(database: Database, settings: Settings) -> None:
    """Sweep the spool of empty raw files, until cancelled."""
    while True:
        try:
            async with database.session(read_only=True) as session:
                pending = await pending_recordings(session)
            removed = await asyncio.to_thread(sweep_spool, settings.recording_spool, pending, time.time())
            if removed:
                log.info("spool_swept", removed=removed)
        except DatabaseError as exc:
            log.warning("housekeeping_waits", problem=exc.message)
        await asyncio.sleep(INTERVAL_SECONDS)
