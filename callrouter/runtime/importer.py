"""Calls that only Asterisk saw, brought into the database: once each, also across restarts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

import structlog
import uuid_utils

from callrouter.asterisk.cel import CelTail
from callrouter.asterisk.ledger import LedgerRow
from callrouter.core.routing import RoutingTable
from callrouter.runtime.callers import Callers
from callrouter.runtime.dispatcher import Dispatcher
from callrouter.runtime.supervision import LedgerTail, Place
from callrouter.runtime.unwatched import log_of
from callrouter.store.calls import known_uniqueids
from callrouter.store.database import Database
from callrouter.store.drain import LedgerPosition, get_ledger_position, set_ledger_position
from callrouter.store.journal import Journal

log = structlog.get_logger(__name__)

SETTLE_SECONDS = 3.0
"""A younger row may be of a call whose own log is still on its way into the database."""
SIP_CHANNEL = "PJSIP/"


class LedgerImporter:
    """Follows Asterisk's CDR file and takes in the calls that have no log of ours; and, after Asterisk has died, those
    of which only channel events (CEL) remain.

    Exactly once: a row is taken when its unique id is neither in the database nor followed by us, and the position is
    stored only behind rows that were settled so.
    """

    def __init__(
        self,
        tail: LedgerTail,
        events: CelTail,
        database: Database,
        journal: Journal,
        dispatcher: Dispatcher,
        country: str,
        callers: Callers | None = None,
    ) -> None:
        self._tail = tail
        self._events = events
        self._database = database
        self._journal = journal
        self._dispatcher = dispatcher
        self._country = country
        self._callers = callers or Callers()
        self._waiting: list[tuple[LedgerRow, Place]] = []
        self._placed = False
        """Whether it is known where the last run stopped."""
        self._connected_at: float | None = None
        self._live: frozenset[str] = frozenset()
        self._kept: tuple[str, int] | None = None
        self.imported = 0

    async def start(self) -> None:
        """Go to where the last run stopped.

        :raises DatabaseError: the position cannot be read
        """
        async with self._database.session(read_only=True) as session:
            position = await get_ledger_position(session, str(self._tail.path))
            events = await get_ledger_position(session, str(self._events.path))
        self._tail.seek(Place(position.file, position.offset) if position is not None else Place())
        if events is not None:
            self._events.seek(events.file, events.offset)
        await asyncio.to_thread(self._events.poll)
        self._placed = True

    def connected(self, live: Collection[str]) -> None:
        """Asterisk is there (again): calls that it does not know any more, and of which it wrote no CDR, died with it.

        :param live: unique ids of its channels
        """
        self._live, self._connected_at = frozenset(live), time.time()

    def cut_row(self, uniqueid: str) -> LedgerRow | None:
        """What channel events say of a call that ended with Asterisk; its channel must be known to be gone."""
        self._events.poll()
        row = self._events.unfinished().get(uniqueid)
        return None if row is None else last_seen(row)

    async def look(self, table: RoutingTable, settled: bool) -> int:
        """One round; returns how many calls were taken in.

        :param settled: all that we logged is in the database
        :raises DatabaseError: it cannot be asked; the rows wait
        """
        if not self._placed:
            await self.start()
        self._waiting += self._tail.take()
        self._events.poll()
        if not settled:
            return 0
        now = time.time()
        ready = []
        for row, place in self._waiting:
            if now - row.end < SETTLE_SECONDS or self._dispatcher.owns(row.uniqueid):
                break
            ready.append((row, place))
        looked_at, cut = self._cut(now)
        rows = [self._events.named(row) for row, _ in ready] + cut
        taken = await self.take_in(rows, table)
        for row in rows:
            self._events.forget(row.uniqueid)
        if looked_at == self._connected_at:
            self._connected_at = None
        if ready or (cut and self._events.place != self._kept):
            async with self._database.session() as session:
                if ready:
                    place = ready[-1][1]
                    await set_ledger_position(session, str(self._tail.path), LedgerPosition(place.file, place.offset))
                self._kept = self._events.place
                await set_ledger_position(session, str(self._events.path), LedgerPosition(*self._kept))
        self._waiting = self._waiting[len(ready) :]
        return taken

    async def take_in(self, rows: Iterable[LedgerRow], table: RoutingTable) -> int:
        """Log the calls of these rows that are not known; on return their logs are on the disk.

        :raises DatabaseError: it cannot be asked which are known; nothing was done
        """
        rows = [row for row in rows if row.channel.startswith(SIP_CHANNEL)]
        if not rows:
            return 0
        async with self._database.session(read_only=True) as session:
            known = await known_uniqueids(session, [row.uniqueid for row in rows])
        taken = 0
        for row in rows:
            if row.uniqueid not in known:
                call_id = str(uuid_utils.uuid7())
                for entry in log_of(row, call_id, table, self._country):
                    self._journal.append(call_id, entry)
                    self._callers.follow(call_id, entry)
                known.add(row.uniqueid)
                taken += 1
        # The place must not be stored before what was read up to it is safe.
        await asyncio.to_thread(self._journal.sync)
        self.imported += taken
        if taken:
            log.info("calls_imported", count=taken)
        return taken

    def _cut(self, now: float) -> tuple[float | None, list[LedgerRow]]:
        """Calls that ended with an Asterisk that died, looked for once after each connection; and which."""
        began = self._connected_at
        if began is None or now - began < SETTLE_SECONDS:
            return 0.0, []
        return began, [
            last_seen(row)
            for uniqueid, row in self._events.unfinished().items()
            if row.start < began
            and uniqueid not in self._live
            and uniqueid not in self._tail.rows
            and not self._dispatcher.owns(uniqueid)
        ]


def last_seen(row: LedgerRow) -> LedgerRow:
    """A call that was cut off, its end where it was last seen: by an event, or by what was written of its recording."""
    end = row.end
    for side in ("rx", "tx"):
        if row.recording:
            try:
                end = max(end, Path(f"{row.recording}-{side}.wav").stat().st_mtime)
            except OSError:
                continue
    talked = row.dialstatus == "ANSWER" and row.talk_at is not None and not row.talk_seconds
    return replace(row, end=end, talk_seconds=end - (row.talk_at or end) if talked else row.talk_seconds)
