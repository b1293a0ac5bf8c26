"""From the journal into the database: each entry once, and each call's record folded from its log.

A batch of entries, the records folded from them, the jobs they give rise to and the new position in the journal are one
transaction. Whatever is killed when, a batch is there as a whole or not at all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import select
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncSession

from callrouter.core import cdr
from callrouter.core.events import CallerHungUp, DialReturned, LedgerClosed, LegAnswered
from callrouter.core.notes import Concluded, LegPlanned, Routed
from callrouter.core.records import CallRecord, RecordingStatus
from callrouter.errors import CallrouterError, DatabaseError, ServiceError
from callrouter.store.call_save import append_events, save_calls
from callrouter.store.calls import call_logs, open_calls
from callrouter.store.codec import Line, LogItem, items
from callrouter.store.database import Database
from callrouter.store.jobs import enqueue_all
from callrouter.store.journal import Journal, Position, is_over
from callrouter.store.models import CallRecordRow, JournalPositionRow, LedgerPositionRow
from callrouter.store.rotation import move_turns
from callrouter.store.types import now
from callrouter.store.upsert import insert

FINISH_RECORDING = "finish_recording"
"""Kind of the job that finishes a recording; payload ``{"recording_id": id}``."""
FINISH_ATTEMPTS = 150
"""A full disk may stay full over a night; attempts are at most ten minutes apart."""
TURN_SECONDS = 0.25
"""From one batch to the next: the more entries a batch has, the less each costs; and others get SQLite's lock, for
which they ask ten times a second."""
TELLING = frozenset(
    kind.__name__ for kind in (Routed, LegPlanned, LegAnswered, DialReturned, Concluded, CallerHungUp, LedgerClosed)
)
"""Entries after which a call's row is brought up to date."""

log = structlog.get_logger(__name__)


class Drain:
    """Copies a journal into a database, for as long as the process lives.

    :param batch: entries in one transaction
    :param interval: seconds between two looks at the journal
    """

    def __init__(self, journal: Journal, database: Database, *, batch: int = 500, interval: float = 0.1) -> None:
        self.problem: str | None = None
        """Why entries do not reach the database at present; None: they do."""
        self._journal = journal
        self._database = database
        self._batch = batch
        self._interval = interval
        self._position: Position | None = None
        self._turn = asyncio.Lock()

    @property
    def position(self) -> Position:
        """How far the journal has been drained, as far as is known."""
        return self._position or Position()

    @property
    def pending(self) -> int:
        """Bytes of the journal that are not yet in the database; 0: all is there."""
        return self._journal.bytes_after(self.position)

    async def run(self) -> None:
        """Drain until cancelled. A database that is away or locked is waited for; the journal grows meanwhile."""
        pause = self._interval
        while True:
            try:
                moved = await self.step()
                pause = self._interval
            except CallrouterError as exc:
                if self.problem != exc.message:
                    log.warning("drain_waits", problem=exc.message, hint=exc.hint)
                self.problem, moved = exc.message, 0
                pause = min(5.0, pause * 2)
            # Between two batches the others' turn: SQLite gives its lock to whoever asks first.
            await asyncio.sleep(TURN_SECONDS if moved else pause)

    async def flush(self, deadline: float) -> bool:
        """Drain everything that was appended before this call.

        :param deadline: give up after so many seconds
        :returns: whether all of it is in the database
        """
        until = time.monotonic() + deadline
        await asyncio.to_thread(self._journal.sync)
        end = self._journal.end
        while True:
            try:
                while await self.step():
                    pass
                if not self._journal.waiting and self._journal.synced >= end:
                    return True
            except CallrouterError as exc:
                self.problem = exc.message
            if time.monotonic() >= until:
                return False
            await asyncio.sleep(min(0.05, deadline))
            if self._journal.waiting:
                await asyncio.to_thread(self._journal.sync)
                end = self._journal.end

    async def step(self) -> int:
        """Drain one batch.

        :returns: how many entries it had; 0: all is drained
        :raises DatabaseError: away, locked, full, not migrated …; nothing was changed
        :raises ServiceError: the journal cannot be read
        """
        async with self._turn:
            if not self._journal.id:
                return 0
            if self._position is None:
                self._position = await self._begin()
            position = self._position
            try:
                batch = self._journal.read_from(position, self._batch)
            except OSError as exc:
                raise ServiceError(f"the journal cannot be read: {exc}", hint="look at the disk") from exc
            if not batch:
                self.problem = None
                return 0
            behind = batch[-1][1]
            try:
                async with self._database.session() as session:
                    if await self._stored(session, lock=True) != position:
                        self._position = None
                        raise DatabaseError("somebody else drains this journal", hint="run one server on one home")
                    await self._store(session, [line for line, _ in batch if line is not None])
                    await self._move(session, behind)
            except StatementError as exc:
                raise DatabaseError(f"the database refuses the journal's entries: {type(exc.orig).__name__}") from exc
            self._position = behind
            self.problem = None
            if behind.segment != position.segment:
                self._journal.forget(behind)
            return len(batch)

    # -- within ----------------------------------------------------------------------------------------------------

    async def _begin(self) -> Position:
        """How far an earlier run came."""
        async with self._database.session(read_only=True) as session:
            stored = await self._stored(session)
        if stored <= self._journal.end:
            return stored
        # An earlier state of the journal was put in its place (a disk's backup, say). What is stored stays as it is.
        log.warning("journal_was_put_back", stored=stored, end=self._journal.end)
        async with self._database.session() as session:
            await self._move(session, Position())
        return Position()

    async def _stored(self, session: AsyncSession, *, lock: bool = False) -> Position:
        statement = select(JournalPositionRow.segment, JournalPositionRow.offset)
        statement = statement.where(JournalPositionRow.journal == self._journal.id)
        found = (await session.execute(statement.with_for_update() if lock else statement)).first()
        return Position(found[0], found[1]) if found else Position()

    async def _move(self, session: AsyncSession, position: Position) -> None:
        values = {"segment": position.segment, "offset": position.offset, "updated_at": now()}
        statement = insert(session, JournalPositionRow).values(journal=self._journal.id, **values)
        await session.execute(statement.on_conflict_do_update(index_elements=["journal"], set_=values))

    async def _store(self, session: AsyncSession, lines: Sequence[Line]) -> None:
        await append_events(session, lines)
        await move_turns(session, lines)
        touched = {line.call for line in lines}
        telling = {line.call for line in lines if line.type in TELLING}
        quiet = touched - telling
        if quiet:
            # An entry that comes after the end still belongs in the record.
            ended = select(CallRecordRow.id).where(CallRecordRow.id.in_(quiet), CallRecordRow.ended_at.is_not(None))
            telling |= set(await session.scalars(ended))
        if telling:
            await self._save(session, await call_logs(session, telling))

    async def _save(self, session: AsyncSession, logs: Mapping[str, Sequence[Line]]) -> None:
        """Bring the rows of calls up to date, in one go; one by one when that fails.

        One call that cannot be stored must not keep all others out. Its log is kept, so nothing is lost.
        """
        if len(logs) > 1 and await self._saved(session, logs):
            return
        for call_id, lines in logs.items():
            await self._saved(session, {call_id: lines}, told=True)

    async def _saved(self, session: AsyncSession, logs: Mapping[str, Sequence[Line]], *, told: bool = False) -> bool:
        """Whether all of these could be stored; else none was.

        :param told: what stands in the way is logged
        :raises StatementError: it is the database's trouble, not a call's
        """
        try:
            async with session.begin_nested():
                await save_folded(session, logs.values())
        except StatementError as exc:
            if self._database.explain(exc) is not None:
                raise
            if told:
                log.error("call_not_stored", call=next(iter(logs)), exc_info=exc)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as exc:
            if told:
                log.error("call_not_folded", call=next(iter(logs)), exc_info=exc)
        else:
            return True
        return False


async def save_folded(session: AsyncSession, logs: Collection[Sequence[Line]]) -> list[CallRecord]:
    """Store the records that calls' logs fold into, and have the recordings of those that are over finished.

    :returns: the records; none for a log that does not begin with an arrival
    """
    found = [(record, lines) for lines in logs if (record := cdr.fold(items(lines))) is not None]
    await save_calls(session, [record for record, _ in found])
    over = [record for record, lines in found if is_over({line.type for line in lines})]
    recordings = [each.id for record in over for each in record.recordings if each.status is RecordingStatus.PENDING]
    await enqueue_finish(session, recordings)
    return [record for record, _ in found]


async def enqueue_finish(session: AsyncSession, recording_ids: Iterable[str]) -> None:
    """Have recordings finished; nothing for one that this was asked for before."""
    payloads = {f"{FINISH_RECORDING}:{each}": {"recording_id": each} for each in recording_ids}
    await enqueue_all(session, FINISH_RECORDING, payloads, max_attempts=FINISH_ATTEMPTS)


async def open_logs(journal: Journal, database: Database | None) -> dict[str, list[LogItem]]:
    """The logs of calls that have begun and not ended, for the recovery at start.

    They come from the journal, which keeps whatever belongs to a call in progress; from the database come those whose
    journal was lost. When the database is away, the journal alone has to do.

    :param database: None: known to be away
    """
    logs = await asyncio.to_thread(journal.open_logs)
    if database is None:
        return logs
    try:
        async with database.session(read_only=True) as session:
            missing = [call.id for call in await open_calls(session) if not journal.knows(call.id)]
            for call_id, lines in (await call_logs(session, missing)).items():
                if not is_over({line.type for line in lines}):
                    logs[call_id] = items(lines)
                    journal.resume(call_id, lines[-1].seq)
    except DatabaseError as exc:
        log.warning("recovery_without_database", problem=exc.message)
    return logs


@dataclass(frozen=True, slots=True)
class LedgerPosition:
    """How far a file of Asterisk's own CDRs has been read."""

    file: str
    """Tells a rotated file from the one read before (its inode, say)."""
    offset: int


async def get_ledger_position(session: AsyncSession, ledger: str) -> LedgerPosition | None:
    """How far a ledger was read; None when it never was."""
    row = await session.get(LedgerPositionRow, ledger, populate_existing=True)
    return LedgerPosition(row.file, row.offset) if row else None


async def set_ledger_position(session: AsyncSession, ledger: str, position: LedgerPosition) -> None:
    """Note how far a ledger was read; in the transaction that stores what was read."""
    values = {"file": position.file, "offset": position.offset, "updated_at": now()}
    statement = insert(session, LedgerPositionRow).values(ledger=ledger, **values)
    await session.execute(statement.on_conflict_do_update(index_elements=["ledger"], set_=values))
