"""The server's life: start, run, stop. Every part is handed in; ``bootstrap`` makes them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import structlog

import callrouter
from callrouter.asterisk import ari_events
from callrouter.asterisk.ami import Ami
from callrouter.asterisk.ami_events import PAUSE_EVENT, SECURITY_EVENTS, AmiEvent, Intruders, remote_host
from callrouter.asterisk.ari import AriClient
from callrouter.asterisk.ari_events import EVENT_FILTER
from callrouter.asterisk.ari_stream import AriStream, Connected, Disconnected
from callrouter.config import Settings
from callrouter.core.cdr import LogItem
from callrouter.errors import CallrouterError, DatabaseError
from callrouter.media.store_health import StoreWatch
from callrouter.runtime.callers import LOOK_BACK, Callers
from callrouter.runtime.configuration import Configuration
from callrouter.runtime.dispatcher import Dispatcher
from callrouter.runtime.importer import LedgerImporter
from callrouter.runtime.notify import notify, watchdog_seconds
from callrouter.runtime.outbound import KEPT_SECONDS, Alarm, Outbound
from callrouter.runtime.reconciliation import Nightly, summary
from callrouter.runtime.recovery import Recovery, begun_with
from callrouter.runtime.rotation import Rotation, follow_journal, learn_rotation
from callrouter.runtime.supervision import LedgerTail, Supervisor, resync
from callrouter.runtime.trunks import trunks_down
from callrouter.store.callers import stored_callers
from callrouter.store.database import Database
from callrouter.store.drain import Drain, open_logs
from callrouter.store.journal import Journal, Position
from callrouter.store.outbound import journal_legs, outbound_legs

log = structlog.get_logger(__name__)

STATUS_SECONDS = 1.0
CALLERS_SECONDS = 1.0
TRUNKS_SECONDS = 0.5
COUNT_SECONDS = 30.0
SUPERVISE_SECONDS = 5.0
IMPORT_SECONDS = 1.0
STATUS_BLOCK = 8192
"""The status file's size is a multiple of this."""
CONNECT_SECONDS = 5.0
"""How long a start waits for Asterisk before it is called done without."""
CATCH_UP_SECONDS = 2.0
"""How long a start waits until the last run's journal is in the database."""
STOP_SECONDS = 10.0
"""How long a stop waits for callers in menus; those who talk need no controller."""
LAST_DRAIN_SECONDS = 3.0


@dataclass(frozen=True)
class Parts:
    """What a server is made of."""

    settings: Settings
    ari: AriClient
    ami: Ami
    database: Database
    journal: Journal
    drain: Drain
    configuration: Configuration
    dispatcher: Dispatcher
    outbound: Outbound
    rotation: Rotation
    callers: Callers
    store_watch: StoreWatch
    ledger: LedgerTail
    importer: LedgerImporter
    supervisor: Supervisor
    nightly: Nightly
    make_stream: Callable[[Callable[[bool], Awaitable[None]]], AriStream]


class Server:
    """Takes calls until it is told to stop."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.stream = parts.make_stream(self._connected)
        self.started_at = time.time()
        self.ready = asyncio.Event()
        self._online = asyncio.Event()
        self._stop = asyncio.Event()
        self._logs: dict[str, list[LogItem]] = {}
        self._missed: set[str] = set()
        self._intruders = Intruders()
        self._import_at = time.monotonic()
        """When the next look into Asterisk's own records is due, on the steady clock."""
        self._tasks: list[asyncio.Task[None]] = []
        self._counted_at: float | None = None
        self._past: Position | None = None
        """How far the journal went when this run began."""
        """When the legs that others dialled were last counted; seconds since the epoch."""
        self._turns_known = False
        """Whether the database has told whose turn it is in each group."""

    def stop(self) -> None:
        """Ask it to stop; ``run`` then returns."""
        self._stop.set()

    async def run(self) -> None:
        """Start, serve, stop.

        :raises CallrouterError: it could not be started
        """
        parts = self.parts
        try:
            await self._start()
            await self._first_connection()
            notify("READY=1\nSTATUS=" + ("taking calls" if self.stream.connected else "waiting for Asterisk"))
            log.info("server_ready", calls=parts.dispatcher.active)
            self.ready.set()
            await self._stop.wait()
        finally:
            notify("STOPPING=1")
            await self._shut_down()

    # -- start ---------------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        parts = self.parts
        await parts.ami.start(required=False)
        parts.ami.on_event("Hold", self._hold)
        parts.ami.on_event("Unhold", self._hold)
        parts.ami.on_event("UserEvent", self._pause)
        for name in SECURITY_EVENTS:
            parts.ami.on_event(name, self._turned_away)
        await parts.configuration.start()
        self._background("drain", self._drain())
        met = parts.configuration.met.is_set()
        if met:
            # Not long: callers wait for us, and nobody for that.
            await self._flush(CATCH_UP_SECONDS)
        self._logs = await open_logs(parts.journal, parts.database if met else None)
        await parts.store_watch.check_now()
        if met:
            with contextlib.suppress(DatabaseError):  # it is tried again with the first import
                await parts.importer.start()
        await self._count_first()
        self.stream.start()
        self._background("outbound", self._every(COUNT_SECONDS, self._count_outbound))
        self._background("events", self._events())
        self._background("configuration", parts.configuration.watch())
        self._background("store", parts.store_watch.run())
        self._background("supervise", self._every(SUPERVISE_SECONDS, self._supervise))
        self._background("import", self._every(IMPORT_SECONDS, self._import))
        self._background("callers", self._every(CALLERS_SECONDS, self._learn_callers))
        self._background("trunks", self._every(TRUNKS_SECONDS, self._look_at_trunks))
        self._background("reconcile", self._reconcile())
        self._background("status", self._every(STATUS_SECONDS, self._write_status))
        if (watchdog := watchdog_seconds()) is not None:
            self._background("watchdog", self._every(watchdog / 3, self._sign_of_life))

    async def _drain(self) -> None:
        """Nothing is written to a database that was not found to be ours."""
        await self.parts.configuration.met.wait()
        await self.parts.drain.run()

    async def _reconcile(self) -> None:
        await self.parts.configuration.met.wait()
        await self.parts.nightly.run()
        await self._stop.wait()  # nothing more to do, and no reason to end the server

    async def _first_connection(self) -> None:
        """Until calls come to us. Without Asterisk it is no use waiting: the failsafe is Asterisk's own."""
        stopped = asyncio.create_task(self._stop.wait())
        online = asyncio.create_task(self._online.wait())
        await asyncio.wait({stopped, online}, timeout=CONNECT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for task in (stopped, online):
            task.cancel()

    def _background(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A part that ends by itself takes the server down with it: better restarted whole than running in part."""
        if task.cancelled():
            return
        if self._stop.is_set():
            task.exception()  # it was asked for
            return
        log.critical("part_failed", part=task.get_name(), exc_info=task.exception())
        self._stop.set()

    async def _connected(self, _first: bool) -> None:
        """The event socket is up: ask for the events we use, then learn what happened while we were away."""
        parts = self.parts
        app = parts.settings.ari_app
        await parts.ari.set_event_filter(app, EVENT_FILTER)
        parts.ledger.poll()
        table = parts.configuration.table
        if table is not None and self._logs:
            known = parts.database if parts.configuration.away is None else None
            table_for = await begun_with(self._logs, table, parts.configuration.last_run, known)
            recovery = Recovery(
                parts.ari,
                app,
                parts.dispatcher,
                parts.journal,
                parts.ledger.rows,
                table_for,
                parts.ledger.poll,
                parts.importer.cut_row,
                parts.settings.recording_spool,
            )
            found = await recovery.run(self._logs)
            self._logs = {}
            log.info("recovered", adopted=found.adopted, closed=found.closed, given_back=found.given_back)
        parts.importer.connected({channel.id for channel in await parts.ari.channels()})
        await resync(parts.ari, parts.dispatcher, parts.ledger.rows, app, refresh=parts.ledger.poll)

    # -- running -------------------------------------------------------------------------------------------------------

    async def _events(self) -> None:
        async for item in self.stream:
            match item:
                case Connected():
                    self._online.set()
                case Disconnected():
                    pass
                case ari_events.ApplicationReplaced():
                    log.error("replaced", hint="another callrouter serves this Asterisk; stop one of them")
                case _:
                    self.parts.dispatcher.dispatch(item)

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except CallrouterError as exc:
                log.warning("round_failed", work=getattr(work, "__name__", ""), problem=exc.message)
            await asyncio.sleep(seconds)

    async def _supervise(self) -> None:
        parts = self.parts
        if self.stream.connected:
            await resync(parts.ari, parts.dispatcher, parts.ledger.rows, parts.settings.ari_app, self._missed)
        if parts.ami.connected:
            await parts.supervisor.look(time.monotonic())

    async def _import(self) -> None:
        parts = self.parts
        table = parts.configuration.table
        # After a pause of this process (stopped, or the machine asleep) the events of those calls come first.
        paused = time.monotonic() - self._import_at > IMPORT_SECONDS
        try:
            if table is not None and self.stream.connected and not paused:
                with contextlib.suppress(DatabaseError):
                    await parts.importer.look(table, settled=parts.drain.pending == 0)
        finally:
            self._import_at = time.monotonic() + IMPORT_SECONDS

    async def _count_first(self) -> None:
        """Before a call can ask: what an earlier run dialled. What the database does not tell now, it tells later."""
        parts = self.parts
        if parts.drain.pending or not parts.configuration.met.is_set():
            parts.outbound.learn(await asyncio.to_thread(journal_legs, parts.settings.journal_dir))
        await follow_journal(parts.rotation, parts.settings.journal_dir)
        counting = asyncio.create_task(self._count_outbound(), name="outbound-first")
        self._tasks.append(counting)
        await asyncio.wait({counting}, timeout=CATCH_UP_SECONDS)

    async def _count_outbound(self) -> None:
        """Legs of an earlier run, and those that the dialplan dialled by itself."""
        parts, now = self.parts, time.time()
        if not parts.configuration.met.is_set():
            return
        if not self._turns_known:
            self._turns_known = await learn_rotation(parts.rotation, parts.database)
        changed = self._counted_at - 2 * COUNT_SECONDS if self._counted_at is not None else 0.0
        with contextlib.suppress(DatabaseError):  # it is asked again
            async with parts.database.session(read_only=True) as session:
                parts.outbound.learn(await outbound_legs(session, now - KEPT_SECONDS, changed))
            self._counted_at = now

    async def _learn_callers(self) -> None:
        """Who called before this run; once, as soon as the database has all of that."""
        parts = self.parts
        if self._past is None:
            self._past = parts.journal.end
        if parts.callers.complete or parts.drain.position < self._past or not parts.configuration.met.is_set():
            return
        with contextlib.suppress(DatabaseError):  # it is asked again
            async with parts.database.session(read_only=True) as session:
                since = parts.callers.since
                parts.callers.learn(await stored_callers(session, since - LOOK_BACK, since))

    async def _look_at_trunks(self) -> None:
        ami = self.parts.ami.state
        # What was known before the connection broke says nothing of now.
        self.parts.dispatcher.trunks_changed(trunks_down(ami.trunks) if ami.connected else ())

    def _pause(self, event: AmiEvent) -> None:
        fields = event.fields
        if fields.get("UserEvent") == PAUSE_EVENT and fields.get("Do") in ("pause", "resume"):
            on, channel, call_id = fields["Do"] == "pause", fields.get("Uniqueid", ""), fields.get("Call", "")
            self.parts.dispatcher.pause(on, time.time(), channel, "" if channel else call_id)

    def _hold(self, event: AmiEvent) -> None:
        self.parts.dispatcher.hold(event.fields.get("Uniqueid", ""), event.name == "Hold", time.time())

    def _turned_away(self, event: AmiEvent) -> None:
        host = remote_host(event.fields.get("RemoteAddress", ""))
        times = self._intruders.turned_away(host, time.monotonic())
        if times:
            # What a firewall is fed from (security/fail2ban): the address comes first, and callers choose none of it.
            log.warning("turned_away", address=host, times=times, last=event.name)

    async def _sign_of_life(self) -> None:
        notify("WATCHDOG=1")

    async def _write_status(self) -> None:
        await asyncio.to_thread(write_status, self.parts.settings.home_dir / "status.json", self.status())

    def _alarms(self) -> list[Alarm]:
        table = self.parts.configuration.table
        companies = {entry.company.id: entry.company for entry in table.entries.values()} if table else {}
        return self.parts.outbound.alarms(time.time(), companies)

    def status(self) -> dict[str, Any]:
        """What ``callrouter status`` shows."""
        parts = self.parts
        ami = parts.ami.state
        table, away = parts.configuration.table, parts.configuration.away
        return {
            "at": time.time(),
            "pid": os.getpid(),
            "version": callrouter.__version__,
            "started_at": self.started_at,
            "ari": {
                "state": self.stream.state,
                "error": self.stream.error.message if self.stream.error else None,
                "events": self.stream.events_received,
                "bytes": self.stream.bytes_received,
            },
            "ami": {
                "connected": ami.connected,
                "authenticated": ami.authenticated,
                "error": ami.error,
                "channels": ami.channels,
                "trunks": {
                    name.removeprefix("trunk-"): {
                        "registration": trunk.registration,
                        "contact": trunk.contact,
                        "rtt": trunk.rtt,
                    }
                    for name, trunk in ami.trunks.items()
                    if name.startswith("trunk-")
                },
                "security": {
                    f"{kind} from {address}": count for (kind, address), count in sorted(ami.security.items())
                },
            },
            "calls": parts.dispatcher.active,
            "total": parts.dispatcher.total,
            "outbound_calls": sum(parts.outbound.running.values()),
            "alarms": [msgspec.to_builtins(alarm) for alarm in self._alarms()],
            "imported": parts.importer.imported,
            "orphans_ended": parts.supervisor.ended,
            "reconciliation": summary(parts.nightly.last),
            "config_version": table.version if table else None,
            "problems": [f"{problem.where}: {problem.message}" for problem in parts.configuration.problems],
            "config_kept_at": parts.configuration.kept_at,
            "database": {"problem": away.message if away else parts.drain.problem},
            "journal": {"pending": parts.drain.pending, "problem": parts.journal.problem},
            "recording_store": {"problem": parts.store_watch.problem},
            "tasks": len(asyncio.all_tasks()),
        }

    # -- stop ----------------------------------------------------------------------------------------------------------

    async def _shut_down(self) -> None:
        """New calls go to the failsafe; callers in menus get a while, then the failsafe; talks go on without us."""
        parts = self.parts
        self._stop.set()
        parts.dispatcher.draining = True
        if self.stream.connected and parts.dispatcher.in_application:
            notify(f"STATUS=waiting for {parts.dispatcher.in_application} calls")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await parts.dispatcher.wait_unneeded()
            await parts.dispatcher.hand_over()
        await self.stream.close()
        await parts.dispatcher.abandon()
        for task in self._tasks:
            if task.get_name() != "drain":
                task.cancel()
        if parts.configuration.met.is_set():
            await self._flush(LAST_DRAIN_SECONDS)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            # A database that does not answer holds them up, and is not waited for. What is left is in the journal.
            await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
        await parts.ami.stop()
        await asyncio.to_thread(parts.journal.close)
        with contextlib.suppress(OSError):
            (parts.settings.home_dir / "status.json").unlink()
        log.info("server_stopped")

    async def _flush(self, seconds: float) -> None:
        """Have the journal drained; not longer than that, even by a database that does not answer."""
        flush = asyncio.create_task(self._drain_once(seconds), name="flush")
        self._tasks.append(flush)
        await asyncio.wait({flush}, timeout=seconds)

    async def _drain_once(self, seconds: float) -> None:
        with contextlib.suppress(CallrouterError):
            await self.parts.drain.flush(seconds)


def write_status(path: Path, status: dict[str, Any]) -> None:
    """Replace the status file, whole; on a full disk, overwrite it in place: then above all it is to be read."""
    # Padded, so that what follows has room in it on a disk that gives no more.
    text = json.dumps(status).encode()
    text += b" " * (-len(text) % STATUS_BLOCK)
    temporary = path.with_suffix(".tmp")
    try:
        temporary.write_bytes(text)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        with contextlib.suppress(OSError), path.open("r+b") as file:
            file.write(text)
            file.truncate()
