"""What the worker tidies up by itself, every few minutes."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import structlog

from callrouter.config import Settings
from callrouter.errors import CallrouterError
from callrouter.jobs.seal_recording import publish
from callrouter.media.sweep import sweep_spool
from callrouter.media.verification import is_waiting, owner_of, stale_parts
from callrouter.store.database import Database
from callrouter.store.drain import FINISH_ATTEMPTS, FINISH_RECORDING
from callrouter.store.jobs import enqueue
from callrouter.store.recording_chain import recordings_by_id, unlinked
from callrouter.store.recordings import pending_recordings

log = structlog.get_logger(__name__)

INTERVAL_SECONDS = 300.0


async def keep_house(database: Database, settings: Settings) -> None:
    """Tidy up, until cancelled."""
    while True:
        try:
            await sweep(database, settings)
            await settle_parts(database, settings)
            await link_older(database)
        except (CallrouterError, OSError) as exc:
            log.warning("housekeeping_waits", problem=exc.message if isinstance(exc, CallrouterError) else str(exc))
        await asyncio.sleep(INTERVAL_SECONDS)


async def sweep(database: Database, settings: Settings) -> None:
    """Remove empty raw files that nobody waits for."""
    async with database.session(read_only=True) as session:
        pending = await pending_recordings(session)
    removed = await asyncio.to_thread(sweep_spool, settings.recording_spool, pending, time.time())
    if removed:
        log.info("spool_swept", removed=removed)


async def settle_parts(database: Database, settings: Settings) -> None:
    """Half-written files of killed processes: a manifest that is in the chain gets its name, the rest is removed."""
    root = settings.recordings
    parts = await asyncio.to_thread(lambda: list(stale_parts(root, time.time())))
    for start in range(0, len(parts), 500):
        some = parts[start : start + 500]
        async with database.session(read_only=True) as session:
            rows = await recordings_by_id(session, {owner_of(path) for path in some})
        for path in some:
            row = rows.get(owner_of(path))
            if row is not None and is_waiting(path, row):
                await publish(settings, row)
                log.info("manifest_published", recording=row.id)
                continue
            with suppress(OSError):
                (root / path).unlink()
                log.info("half_written_removed", file=path)


async def link_older(database: Database) -> None:
    """Ask for manifests of recordings that were finished before there were any."""
    after = ""
    while True:
        async with database.session(read_only=True) as session:
            some = await unlinked(session, after)
        if not some:
            return
        async with database.session() as session:
            for row in some:
                payload = {"recording_id": row.id}
                key = f"link_recording:{row.id}"
                await enqueue(session, FINISH_RECORDING, payload, key=key, max_attempts=FINISH_ATTEMPTS)
        after = some[-1].id
