"""Calls that only Asterisk saw, brought into the database: once each, also across restarts."""

from __future__ import annotations

import asyncio
import time

import structlog
import uuid_utils

from callrouter.asterisk.ledger import LedgerRow
from callrouter.core.routing import RoutingTable
from callrouter.runtime.dispatcher import Dispatcher
from callrouter.runtime.failsafe_calls import log_of
from callrouter.runtime.supervision import LedgerTail, Place
from callrouter.store.calls import known_uniqueids
from callrouter.store.database import Database
from callrouter.store.drain import LedgerPosition, get_ledger_position, set_ledger_position
from callrouter.store.journal import Journal

log = structlog.get_logger(__name__)

SETTLE_SECONDS = 3.0
"""A younger row may be of a call whose own log is still on its way into the database."""


class LedgerImporter:
    """Follows Asterisk's CDR file and takes in the calls that have no log of ours.

    Exactly once: a row is taken when its unique id is neither in the database nor followed by us, and the position is
    stored only behind rows that were settled so.
    """

    def __init__(
        self, tail: LedgerTail, database: Database, journal: Journal, dispatcher: Dispatcher, country: str
    ) -> None:
        self._tail = tail
        self._database = database
        self._journal = journal
        self._dispatcher = dispatcher
        self._country = country
        self._waiting: list[tuple[LedgerRow, Place]] = []
        self._placed = False
        """Whether it is known where the last run stopped."""
        self.imported = 0

    async def start(self) -> None:
        """Go to where the last run stopped.

        :raises DatabaseError: the position cannot be read
        """
        async with self._database.session(read_only=True) as session:
            position = await get_ledger_position(session, str(self._tail.path))
        self._tail.seek(Place(position.file, position.offset) if position is not None else Place())
        self._placed = True

    async def look(self, table: RoutingTable, settled: bool) -> int:
        """One round; returns how many calls were taken in.

        :param settled: all that we logged is in the database
        :raises DatabaseError: it cannot be asked; the rows wait
        """
        if not self._placed:
            await self.start()
        self._waiting += self._tail.take()
        if not settled:
            return 0
        now = time.time()
        ready = []
        for row, place in self._waiting:
            if now - row.end < SETTLE_SECONDS or self._dispatcher.owns(row.uniqueid):
                break
            ready.append((row, place))
        if not ready:
            return 0
        async with self._database.session(read_only=True) as session:
            known = await known_uniqueids(session, [row.uniqueid for row, _ in ready])
        taken = 0
        for row, _ in ready:
            if row.uniqueid not in known and row.channel.startswith("PJSIP/"):
                call_id = str(uuid_utils.uuid7())
                for entry in log_of(row, call_id, table, self._country):
                    self._journal.append(call_id, entry)
                known.add(row.uniqueid)
                taken += 1
        # The place must not be stored before what was read up to it is safe.
        await asyncio.to_thread(self._journal.sync)
        async with self._database.session() as session:
            place = ready[-1][1]
            await set_ledger_position(session, str(self._tail.path), LedgerPosition(place.file, place.offset))
        self._waiting = self._waiting[len(ready) :]
        self.imported += taken
        if taken:
            log.info("calls_imported", count=taken)
        return taken
