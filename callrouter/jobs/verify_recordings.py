"""Going through all recordings: files against database, database against manifests, manifests against each other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path

from callrouter.core.records import RecordingStatus
from callrouter.errors import ServiceError
from callrouter.media.manifest import FIRST, Link
from callrouter.media.raw_legs import recording_of
from callrouter.media.sweep import left_with_sound
from callrouter.media.verification import (
    Chain,
    Fault,
    Finding,
    check_files,
    extra,
    is_claimed,
    kept_files,
    owner_of,
)
from callrouter.store.database import Database
from callrouter.store.recording_chain import (
    chain_head,
    first_link_since,
    last_link,
    link,
    links,
    recordings_by_id,
    unlinked,
)
from callrouter.store.recordings import StoredRecording

BATCH = 200
_ENDLESS = 2**31 - 1


@dataclass(slots=True)
class Progress:
    """How far a verification is; changes while it runs."""

    checked: int = 0
    """Recordings read so far."""
    of: int = 0
    """Links of the chain to go through."""
    unlinked: int = 0
    """Recordings without a manifest, from before there were any."""
    files: int = 0
    """Files looked at whether anybody claims them."""
    head: Link | None = None
    """The newest link when it began."""


async def verify_all(
    database: Database,
    recordings_dir: Path,
    progress: Progress,
    since: datetime | None = None,
    noted: Link | None = None,
    tell: Callable[[], None] = lambda: None,
    spool: Path | None = None,
) -> AsyncIterator[Finding]:
    """Everything that is wrong, as it is found. Memory does not grow with the number of recordings.

    What is finished meanwhile is not looked at.

    :param since: only recordings that began then or later; the chain from the first of these on
    :param noted: a link that was written down elsewhere, and must still be there
    :param tell: called when ``progress`` has changed
    :param spool: where Asterisk leaves raw recordings: sound that nobody waits for is told; None: not looked into
    :raises ServiceError: the recordings directory is not there at all
    """
    async with database.session(read_only=True) as session:
        newest = await chain_head(session)
        head = progress.head = Link(newest.seq, newest.sha256) if newest else None
        first = 1 if since is None else await first_link_since(session, since)
        before = await link(session, first - 1) if first is not None else None
        still = await link(session, noted.seq) if noted is not None else None
    if not await asyncio.to_thread(recordings_dir.is_dir):
        raise ServiceError(
            f"the recordings directory {recordings_dir} is missing", hint="is its disk mounted? callrouter doctor looks"
        )
    if noted is not None and (still is None or still.sha256 != noted.sha256):
        what = f"link {noted.seq} is not the one that was noted"
        yield Finding(Fault.BROKEN, "chain", what, "compare with a backup: the chain was made anew")
    if first == 1 or (first is None and head is None):
        start = Link(0, FIRST)
    elif first is None:
        assert head is not None
        start = head
    else:
        start = Link(first - 1, before.sha256 if before else "")
    until = head.seq if head else _ENDLESS
    progress.of = until - start.seq if head else 0
    chain = Chain(recordings_dir, start)
    while True:
        async with database.session(read_only=True) as session:
            rows = await links(session, chain.last.seq, until, BATCH)
        if not rows:
            break
        for finding in await asyncio.to_thread(_along, chain, rows):
            yield finding
        progress.checked = chain.checked
        tell()
    for finding in chain.end(head):
        yield finding
    async with database.session(read_only=True) as session:
        last, newest = await last_link(session), await chain_head(session)
    if newest is not None and last > newest.seq:
        what = f"the database says it ends at link {newest.seq}, and has recordings up to link {last}"
        yield Finding(Fault.BROKEN, "chain", what, "bring the database back from a backup")
    after = ""
    while True:
        async with database.session(read_only=True) as session:
            rows = await unlinked(session, after, since, BATCH)
        if not rows:
            break
        for finding in await asyncio.to_thread(check_some, recordings_dir, rows):
            yield finding
        after = rows[-1].id
        progress.unlinked += len(rows)
        progress.checked += len(rows)
        tell()
    files = kept_files(recordings_dir, since)
    while (paths := await asyncio.to_thread(next, files, None)) is not None:
        async with database.session(read_only=True) as session:
            owners = await recordings_by_id(session, {owner_of(path) for path in paths})
        for path in paths:
            if not is_claimed(recordings_dir, path, owners.get(owner_of(path)), time.time()):
                yield extra(path)
        progress.files += len(paths)
        tell()
    if spool is not None:
        async for finding in _left_in_spool(database, spool):
            yield finding


async def _left_in_spool(database: Database, spool: Path) -> AsyncIterator[Finding]:
    raw = left_with_sound(spool, time.time())
    while some := await asyncio.to_thread(lambda: list(islice(raw, BATCH))):
        async with database.session(read_only=True) as session:
            owners = await recordings_by_id(session, {recording_of(path) for path in some})
        for path in some:
            owner = owners.get(recording_of(path))
            if owner is None or owner.status is not RecordingStatus.PENDING:
                what = "sound in the spool that no recording waits for"
                yield Finding(Fault.EXTRA, str(path), what, "listen to it; its call's id is in its name")


def _along(chain: Chain, rows: Sequence[StoredRecording]) -> list[Finding]:
    return [finding for row in rows for finding in chain.take(row)]


def check_some(recordings_dir: Path, rows: Sequence[StoredRecording]) -> list[Finding]:
    """Only these recordings: their files and manifests, not their places in the chain. Blocks on the disk."""
    return [finding for row in rows for finding in check_files(recordings_dir, row, None)]
