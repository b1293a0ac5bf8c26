"""Comparing everything that knows of calls, and mending what is certain. Safe while calls run, and safe to repeat."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
import uuid_utils

from callrouter.asterisk.cel import CelCall, calls_in, named
from callrouter.asterisk.ledger import LedgerRow, read_ledger
from callrouter.config import Settings
from callrouter.core.begun import flow_versions_in, table_begun_with
from callrouter.core.cdr import LogItem
from callrouter.core.phone import normalize_caller, normalize_dialled
from callrouter.core.reconcile import (
    AsteriskCall,
    CarrierCall,
    Finding,
    Findings,
    Kind,
    Sources,
    Tolerance,
    reconcile,
)
from callrouter.core.routing import RoutingTable, build_table
from callrouter.errors import CallrouterError
from callrouter.runtime.importer import SIP_CHANNEL, last_seen
from callrouter.runtime.recovery import close_log
from callrouter.runtime.unwatched import log_of
from callrouter.store.calls import call_log, known_uniqueids
from callrouter.store.codec import items
from callrouter.store.config import get_flow_version, load_config
from callrouter.store.database import Database
from callrouter.store.reconciliation import (
    Run,
    add_log,
    finish_again,
    keep_run,
    logged_calls,
    our_calls,
    waiting_in_journal,
)

log = structlog.get_logger(__name__)

MARGIN_SECONDS = 3600.0
"""What is read around the span, for two places may differ about when a call began."""
DAY = 86400.0
START_SECONDS = 20.0
"""After a start: what the last run left is on its way into the database first."""
AGAIN_SECONDS = 300.0
REPEAT_DAYS = 3
"""How many days the nightly run looks back: what was away one night is compared the next."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to compare.

    :param since, until: calls that began then; seconds since the epoch, UTC
    :param carrier: the carrier's calls; None: not compared
    :param repair: whether what is certain is mended
    """

    since: float
    until: float
    carrier: tuple[CarrierCall, ...] | None = None
    carrier_trunk: str | None = None
    tolerance: Tolerance = field(default_factory=Tolerance)
    repair: bool = True


@dataclass(frozen=True, slots=True)
class Records:
    """What Asterisk wrote, by unique id."""

    cdrs: dict[str, LedgerRow]
    events: dict[str, CelCall]
    since: float | None
    """From when on CDRs are kept."""


async def compare(settings: Settings, database: Database, live: Collection[str] | None, wanted: Wanted) -> Run:
    """Compare, mend what is certain, and keep the result.

    :param live: unique ids of Asterisk's channels, asked for just before; None: Asterisk did not answer
    :raises DatabaseError: it cannot be asked; nothing was changed that is not whole
    """
    started = time.time()
    async with database.session(read_only=True) as session:
        snapshot = await load_config(session)
        begin, end = wanted.since - MARGIN_SECONDS, wanted.until + MARGIN_SECONDS
        logs = await logged_calls(session, begin, end)
        ours = await our_calls(session, begin, end, settings.recordings)
        ids, channels = await waiting_in_journal(session, settings.journal_dir)
    # After the database: a call that ended in between has its record here, and is told to be young by that.
    records = await asyncio.to_thread(asterisk_records, settings, begin, end)
    table = build_table(snapshot)
    waiting = channels | {call.uniqueid for call in ours if call.id in ids}
    waiting |= {each.uniqueid for each in logs if each.id in ids}
    sources = Sources(
        at=time.time(),
        since=wanted.since,
        until=wanted.until,
        ours=tuple(ours),
        logs=tuple(logs),
        waiting=frozenset(waiting),
        cdrs=tuple(_call(row, table, settings) for row in records.cdrs.values()),
        events=tuple(_call(each.row, table, settings, ended=each.ended) for each in records.events.values()),
        ledger_since=records.since,
        live=frozenset(live) if live is not None else None,
        carrier=wanted.carrier,
        carrier_trunk=wanted.carrier_trunk,
    )
    findings = reconcile(sources, wanted.tolerance)
    if wanted.repair:
        repairs = Repairs(settings, database, table, records)
        findings = replace(findings, found=tuple([await repairs.mend(one) for one in findings.found]))
    run = _run(started, wanted, findings, live is not None)
    if wanted.repair:
        async with database.session() as session:
            await keep_run(session, run)
    if findings.unexplained:
        log.warning("reconciled", found=len(findings.found), unexplained=len(findings.unexplained), **findings.counts)
    else:
        log.info("reconciled", found=len(findings.found), unexplained=0, **findings.counts)
    return run


def asterisk_records(settings: Settings, since: float, until: float) -> Records:
    """Asterisk's CDRs and channel events of a span, rotated files that lie beside them included."""
    cdrs: dict[str, LedgerRow] = {}
    first: float | None = None
    for path in _files(settings.ledger_path):
        for row, _ in read_ledger(path):
            first = row.start if first is None else min(first, row.start)
            if row.channel.startswith(SIP_CHANNEL) and since <= row.start < until:
                cdrs[row.uniqueid] = row
    events: dict[str, CelCall] = {}
    for path in _files(settings.channel_events_path):
        for key, call in calls_in(path, since).items():
            if key in cdrs:
                cdrs[key] = named(cdrs[key], call)
            if call.row.start < until and (call.entered or not call.ended):
                events[key] = call
    return Records(cdrs, events, first)


def _files(path: Path) -> list[Path]:
    """A file and what it was rotated to, oldest first; what is compressed is passed over."""
    beside = [each for each in path.parent.glob(f"{path.name}?*") if each.suffix not in (".gz", ".xz", ".bz2", ".zst")]
    return sorted(beside, key=lambda each: each.stat().st_mtime) + ([path] if path.exists() else [])


def _call(row: LedgerRow, table: RoutingTable, settings: Settings, *, ended: bool = True) -> AsteriskCall:
    country = table.country_of_trunk.get(row.trunk, settings.country)
    return AsteriskCall(
        uniqueid=row.uniqueid,
        did=normalize_dialled(row.did, country),
        caller=normalize_caller(row.caller, country),
        trunk=row.trunk,
        start=row.start,
        answer=row.answer,
        end=row.end,
        ended=ended,
        sip_call_id=row.sip_call_id,
    )


class Repairs:
    """Puts right what is certain, each in a transaction of its own."""

    def __init__(self, settings: Settings, database: Database, table: RoutingTable, records: Records) -> None:
        self._settings = settings
        self._database = database
        self._table = table
        self._records = records

    async def mend(self, finding: Finding) -> Finding:
        """The finding, mended where that can be done."""
        match finding.kind:
            case Kind.MISSING:
                done = await self._import(finding.uniqueid or "")
            case Kind.MISSING_ROW | Kind.STALE | Kind.OPEN:
                done = await self._close(finding)
            case Kind.RECORDING_UNFINISHED:
                async with self._database.session() as session:
                    await finish_again(session, finding.recording_id or "")
                done = True
            case _:
                return finding
        return replace(finding, repaired=done)

    def _row(self, uniqueid: str) -> LedgerRow | None:
        if (row := self._records.cdrs.get(uniqueid)) is not None:
            return row
        told = self._records.events.get(uniqueid)
        return last_seen(replace(told.row, cut=not told.ended)) if told is not None else None

    async def _import(self, uniqueid: str) -> bool:
        """A call that only Asterisk has."""
        row = self._row(uniqueid)
        if row is None:
            return False
        call_id = str(uuid_utils.uuid7())
        async with self._database.session() as session:
            if await known_uniqueids(session, [uniqueid]):
                return True  # it came in meanwhile
            return await add_log(session, call_id, log_of(row, call_id, self._table, self._settings.country))

    async def _close(self, finding: Finding) -> bool:
        """A log that is there: closed where it has not ended, and its row folded from it anew."""
        call_id = finding.call_id or ""
        async with self._database.session() as session:
            entries = items(await call_log(session, call_id))
            if not entries:
                return False
            found = [await get_flow_version(session, version_id) for version_id in sorted(flow_versions_in(entries))]
            versions = {version.id: version for version in found if version is not None}
            table, same = table_begun_with(entries, self._table, (), versions)
            added = _Entries()
            close_log(call_id, entries, table, self._row(finding.uniqueid or ""), added, same=same)
            return await add_log(session, call_id, added.entries)


class _Entries:
    """A journal in memory."""

    def __init__(self) -> None:
        self.entries: list[LogItem] = []

    def append(self, _call_id: str, entry: LogItem) -> None:
        self.entries.append(entry)


def _run(started: float, wanted: Wanted, findings: Findings, asked: bool) -> Run:
    names = ["journal", "database", "cdr", "events", *(["channels"] if asked else [])]
    if wanted.carrier is not None:
        names.append("carrier")
    counts: dict[str, Any] = {**findings.counts, "unexplained": len(findings.unexplained)}
    return Run(
        id=str(uuid_utils.uuid7()),
        started_at=_at(started),
        finished_at=_at(time.time()),
        since=_at(wanted.since),
        until=_at(wanted.until),
        sources=tuple(names),
        counts=counts,
        findings=tuple(_plain(one) for one in findings.found),
    )


def _plain(one: Finding) -> dict[str, Any]:
    return {
        "kind": str(one.kind),
        "detail": one.detail,
        "call": one.call_id,
        "uniqueid": one.uniqueid,
        "recording": one.recording_id,
        "line": one.line,
        "at": one.at,
        "repaired": one.repaired,
    }


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


class Nightly:
    """Compares some time after the start, and every night.

    :param live: unique ids of Asterisk's channels; None: it does not answer
    """

    def __init__(
        self, settings: Settings, database: Database, live: Callable[[], Awaitable[Collection[str] | None]]
    ) -> None:
        self._settings = settings
        self._database = database
        self._live = live
        self.last: Run | None = None

    async def run(self) -> None:
        """Until cancelled. What cannot be asked now is asked again later; calls are never waited for."""
        pause = START_SECONDS
        while True:
            await asyncio.sleep(pause)
            pause = AGAIN_SECONDS
            try:
                await self.once()
            except (CallrouterError, OSError) as exc:
                log.warning("not_reconciled", problem=str(exc))
                continue
            if not self._settings.reconcile_at:
                return
            pause = seconds_until(self._settings.reconcile_at, time.time())

    async def once(self) -> Run:
        """Compare the last days now.

        :raises DatabaseError: it cannot be asked
        """
        now = time.time()
        live = await self._live()
        self.last = await compare(self._settings, self._database, live, Wanted(now - REPEAT_DAYS * DAY, now))
        return self.last


def seconds_until(clock: str, now: float) -> float:
    """Seconds until the machine's clock next shows "HH:MM"."""
    hour, minute = (int(part) for part in clock.split(":"))
    local = datetime.fromtimestamp(now).astimezone()
    due = local.replace(hour=hour, minute=minute, second=0, microsecond=0).timestamp()
    return due - now if due > now else due + DAY - now


def summary(run: Run | None) -> dict[str, Any] | None:
    """What ``callrouter status`` tells of the last run."""
    if run is None:
        return None
    return {
        "at": run.started_at.timestamp(),
        "compared": run.counts.get("compared", 0),
        "findings": len(run.findings),
        "unexplained": run.counts.get("unexplained", 0),
    }
