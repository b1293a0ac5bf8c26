"""Benchmarks without calls: how fast a call is routed, how fast records reach the database."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import tempfile
import time
from pathlib import Path

from sqlalchemy import func, select

from bench.figures import Figure, number, progress
from bench.sites import WrongResultError
from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.disposition import Disposition
from callrouter.core.records import RecordingKind
from callrouter.core.routing import RouteToFlow, build_table, decide
from callrouter.store.codec import LogItem
from callrouter.store.database import Database
from callrouter.store.drain import Drain
from callrouter.store.journal import Journal
from callrouter.store.models import CallRecordRow
from tests import builders

SIZES = (10, 1_000, 100_000)
DECISIONS = 200_000
BEGAN = 1_800_000_000.0
CALL_TABLES = ("call", "leg", "call_event", "recording", "job")
"""What a call writes to."""


# -- routing -----------------------------------------------------------------------------------------------------------


async def routing(quick: bool) -> list[Figure]:
    """Decisions a second against a dictionary's lookups, and how long a table takes to build."""
    rounds = 2 if quick else 5
    figures = []
    for size in SIZES[: 2 if quick else None]:
        dids = [f"+1{2_020_000_000 + index}" for index in range(size)]
        numbers = tuple(
            builders.number(id=f"n{index}", e164=did, name=f"line-{index}", target="ana")
            for index, did in enumerate(dids)
        )
        ours, theirs, built = [], [], []
        wanted = random.Random(size).choices(dids, k=DECISIONS)
        for done in range(rounds):
            progress(f"  round {done + 1} of {rounds}: {size:,} numbers")
            began = time.perf_counter()
            table = build_table(builders.snapshot(numbers=numbers))
            built.append(time.perf_counter() - began)
            began = time.perf_counter()
            for did in wanted:
                decision = decide(table, did)
            ours.append(DECISIONS / (time.perf_counter() - began))
            if not isinstance(decision, RouteToFlow) or decision.entry.number.e164 != wanted[-1]:
                raise WrongResultError(f"{wanted[-1]} is routed elsewhere")
            began = time.perf_counter()
            for did in wanted:
                table.entries.get(did)
            theirs.append(DECISIONS / (time.perf_counter() - began))
        bar = 200_000 if size == 1_000 else None
        figures += [
            Figure(f"decisions with {size:,} numbers", "1/s", tuple(ours), limit=bar, at_least=True),
            Figure(f"… against a dictionary's lookups, {size:,}", "1/s", tuple(ours), tuple(theirs)),
            Figure(f"table of {size:,} numbers, built in", "s", tuple(built)),
        ]
    return figures


# -- records -----------------------------------------------------------------------------------------------------------


def a_call(call: str) -> list[LogItem]:
    """All that the journal holds of a call that was answered."""
    at = BEGAN
    return [
        e.CallArrived(at, call, f"chan-{call}", "+12025550100", "+12025550101", None, "t"),
        note.Routed(at, "it is ours", config_version=1),
        note.LegPlanned(at, "target", f"{call}-leg", "t1", "desk", "PJSIP/desk", 25, "it is so"),
        e.LegStarted(at + 1, f"{call}-leg", "chan-b"),
        e.LegRinging(at + 1, f"{call}-leg"),
        note.RecordingPlanned(at + 2, f"{call}-rec", RecordingKind.CONVERSATION, f"{call}-leg"),
        e.LegAnswered(at + 2, f"{call}-leg"),
        e.DialReturned(at + 62, f"{call}-leg", "ANSWER", 16),
        e.CallerHungUp(at + 62),
        note.Concluded(at + 62, Disposition.ANSWERED, "desk answered"),
    ]


async def cdr(quick: bool) -> list[Figure]:
    """Records of calls a second, from the journal into SQLite, against a loop that inserts the same rows.

    The loop knows the rows already, and commits once a call, as a CDR back-end does.
    """
    calls, rounds = (100, 2) if quick else (500, 5)
    ours, theirs = [], []
    for done in range(rounds):
        progress(f"  round {done + 1} of {rounds}: {calls} calls")
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            home = Path(name)
            ours.append(await _drained(home, calls))
            theirs.append(await asyncio.to_thread(_inserted, home, calls))
    return [Figure("calls stored, SQLite", "1/s", tuple(ours), tuple(theirs), limit=0.8, at_least=True)]


async def _drained(home: Path, calls: int) -> float:
    database = Database(f"sqlite+aiosqlite:///{home / 'ours.db'}")
    journal = Journal(home / "journal")
    try:
        await database.upgrade()
        for index in range(calls):
            for entry in a_call(f"c{index}"):
                journal.append(f"c{index}", entry)
        began = time.perf_counter()
        if not await Drain(journal, database).flush(120):
            raise WrongResultError("the journal was not drained")
        seconds = time.perf_counter() - began
        async with database.session(read_only=True) as session:
            over = select(func.count()).select_from(CallRecordRow).where(CallRecordRow.ended_at.is_not(None))
            if (stored := await session.scalar(over)) != calls:
                raise WrongResultError(f"{stored} of {number(calls)} calls are in the database")
        return calls / seconds
    finally:
        journal.close()
        await database.dispose()


def _inserted(home: Path, calls: int) -> float:
    """The same rows, by hand, into an empty database with the same tables."""
    source = sqlite3.connect(home / "ours.db", isolation_level=None)
    rows = {}
    for table in CALL_TABLES:
        cursor = source.execute(f"SELECT * FROM {table}")
        names = [column[0] for column in cursor.description]
        rows[table] = (names, cursor.fetchall())
    source.execute("VACUUM INTO ?", (str(home / "theirs.db"),))
    source.close()
    target = sqlite3.connect(home / "theirs.db", isolation_level=None)
    target.execute("PRAGMA journal_mode = wal")
    target.execute("PRAGMA synchronous = full")
    for table in reversed(CALL_TABLES):
        target.execute(f"DELETE FROM {table}")
    share = {table: max(1, len(found) // calls) for table, (_, found) in rows.items()}
    began = time.perf_counter()
    for index in range(calls):
        target.execute("BEGIN IMMEDIATE")
        for table, (names, found) in rows.items():
            part = found[index * share[table] : (index + 1) * share[table]]
            marks = ", ".join("?" * len(names))
            target.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", part)
        target.execute("COMMIT")
    seconds = time.perf_counter() - began
    target.close()
    return calls / seconds
