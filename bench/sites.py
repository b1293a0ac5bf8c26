"""Two private Asterisks that do the same for a caller: callrouter's, and one that a dialplan alone runs."""

from __future__ import annotations

import asyncio
import csv
import os
import re
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from bench.load import Load, Placed, place
from callrouter.asterisk.process import AsteriskProcess
from callrouter.asterisk.secrets import ensure_secret
from callrouter.bootstrap import asterisk_process, prepare_asterisk
from callrouter.config import Settings
from callrouter.core.disposition import Disposition
from callrouter.store import config
from callrouter.store.calls import CallFilter, StoredCall, get_call, list_calls
from callrouter.store.database import Database
from callrouter.store.models import CallRecordRow
from tests.fixtures.installation import Installation, installation
from tests.fixtures.own_settings import free_port, private_settings
from tests.waiting import eventually

DID = "+12025550100"
CAMPAIGN = "spring-radio"
HEADER_BYTES = 44
"""Of a WAV file without sound."""
TICKS = os.sysconf("SC_CLK_TCK")

PEER_DIALPLAN = """\
[general]
static = yes
writeprotect = yes

[cr-trunk-simulator]
exten => _[+0-9]!,1,Set(CDR(userfield)={campaign})
 same => n,MixMonitor(,br({spool}/${{UNIQUEID}}-rx.wav)t({spool}/${{UNIQUEID}}-tx.wav))
 same => n,Dial(PJSIP/callrouter-uri/sip:desk@{host}:{port},20)
 same => n,Hangup()
"""
"""What is bought for the price that callrouter's is compared with: recorded, dialled, tagged, in Asterisk's own CDR."""


class WrongResultError(Exception):
    """Less was done than the benchmark counts on: a call, a record, a tag or a recording is missing."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Processor seconds spent, by process."""

    asterisk: float
    controller: float


def cpu_seconds(pid: int) -> float:
    """User and system time of a process with all its threads (proc(5), ``/proc/PID/stat``)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def pin(pid: int, processors: set[int]) -> None:
    """Keep all threads of a process on some processors."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), processors)


@dataclass
class Site:
    """An Asterisk with what decides for it."""

    name: str
    settings: Settings
    asterisk: AsteriskProcess
    phone: tuple[str, int]
    controller: int | None = None
    """Process id."""

    @property
    def recordings(self) -> Path:
        return self.settings.recording_spool

    def cost(self) -> Cost:
        return Cost(cpu_seconds(self.asterisk.pid or 0), cpu_seconds(self.controller) if self.controller else 0.0)

    async def place(self, load: Load) -> tuple[Placed, Cost]:
        """Place a load and tell what it cost, until the last call is over."""
        before = self.cost()
        server = (self.settings.sip_bind, self.settings.sip_port)
        placed = await place(load, DID, server, self.phone, self.settings.home_dir)
        await eventually(self._idle, "no channel left", 30)
        after = self.cost()
        if placed.succeeded != load.calls:
            raise WrongResultError(
                f"{self.name}: {placed.succeeded} of {load.calls} calls went as they should: "
                f"{placed.callers.errors[-300:]}"
            )
        return placed, Cost(after.asterisk - before.asterisk, after.controller - before.controller)

    async def _idle(self) -> bool:
        return (await self.asterisk.rx("core show channels count")).startswith("0 ")

    def check_recordings(self, load: Load) -> None:
        """Each call has both sides on disk, about as long as it talked; they are removed.

        :raises WrongResultError: one has not
        """
        least = HEADER_BYTES + 16_000 * load.talk_seconds * 0.5
        for side in ("rx", "tx"):
            files = list(self.recordings.glob(f"*-{side}.wav"))
            whole = [path for path in files if path.stat().st_size >= least]
            if len(whole) != load.calls:
                raise WrongResultError(f"{self.name}: {len(whole)} of {load.calls} recordings of one side ({side})")
            for path in files:
                path.unlink()


@dataclass
class Product(Site):
    place_: Installation | None = None
    records: int = 0

    @property
    def installed(self) -> Installation:
        assert self.place_ is not None
        return self.place_

    async def check(self, load: Load) -> None:
        """Each call has one record: answered, with its campaign, written by the controller; and its recordings."""
        self.records += load.calls
        database = self.installed.database

        async def written() -> bool:
            async with database.session(read_only=True) as session:
                over = select(func.count()).select_from(CallRecordRow).where(CallRecordRow.ended_at.is_not(None))
                return (await session.scalar(over) or 0) >= self.records

        await eventually(written, f"{self.records} records", 60)
        async with database.session(read_only=True) as session:
            rows = await list_calls(session, CallFilter(), limit=self.records + 10)
            calls: list[StoredCall] = [await get_call(session, row.id) for row in rows[: load.calls]]
        good = [
            call
            for call in calls
            if call.campaign == CAMPAIGN
            and call.record.disposition is Disposition.ANSWERED
            and call.record.handled_by == "controller"
            and len(call.record.legs) == 1
        ]
        if len(rows) != self.records or len(good) != load.calls:
            raise WrongResultError(f"{len(rows)} records of {self.records} calls; {len(good)} of the last are right")
        self.check_recordings(load)

    def events(self) -> tuple[int, int]:
        """ARI events and their bytes since the start, as the controller tells."""
        told = self.installed.status().get("ari", {})
        return int(told.get("events", 0)), int(told.get("bytes", 0))


@dataclass
class Peer(Site):
    records: int = 0

    async def check(self, load: Load) -> None:
        """Each call has one row in Asterisk's CDR file: answered, with its campaign; and its recordings."""
        self.records += load.calls
        file = self.settings.asterisk_dir / "log" / "cdr-csv" / "Master.csv"
        with file.open(newline="") as lines:
            rows = list(csv.reader(lines))
        good = [row for row in rows if "ANSWERED" in row and CAMPAIGN in row]
        if len(rows) != self.records or len(good) != self.records:
            raise WrongResultError(f"peer: {len(rows)} rows of {self.records} calls, {len(good)} of them right")
        self.check_recordings(load)


@asynccontextmanager
async def product(**settings: object) -> AsyncIterator[Product]:
    """callrouter: its server as a process, one company, one campaign, one number that rings one line."""
    async with installation(work=False, **settings) as place_:
        phone = (place_.settings.simulator_address, free_port(place_.settings.simulator_address, socket.SOCK_DGRAM))
        said: dict[str, Any] = {"who": "bench", "why": "benchmark"}
        async with place_.database.session() as session:
            await config.add_company(
                session, name="acme", title="Acme", timezone="America/New_York", record=True, **said
            )
            await config.add_campaign(
                session, "acme", name=CAMPAIGN, title="Spring radio", source="radio", medium="offline", **said
            )
            await config.add_target(
                session, "acme", name="desk", ring_seconds=20, sip_uri=f"sip:desk@{phone[0]}:{phone[1]}", **said
            )
            await config.add_number(session, "acme", number=DID, name="line", campaign=CAMPAIGN, target="desk", **said)
        child = await place_.spawn_server()
        await place_.in_force()
        yield Product("callrouter", place_.settings, place_.asterisk, phone, child.pid, place_)


@asynccontextmanager
async def peer() -> AsyncIterator[Peer]:
    """The same Asterisk with the same modules for calls, and a dialplan that knows where the one number goes."""
    home = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        settings = private_settings(home)
        for name in ("ari-password", "ami-password"):
            ensure_secret(settings.secrets_dir, name)
        database = Database(settings.database)
        await database.upgrade()
        await database.dispose()
        install = await prepare_asterisk(settings)
        phone = (settings.simulator_address, free_port(settings.simulator_address, socket.SOCK_DGRAM))
        etc = settings.asterisk_etc_dir
        dialplan = PEER_DIALPLAN.format(campaign=CAMPAIGN, spool=settings.recording_spool, host=phone[0], port=phone[1])
        (etc / "extensions.conf").write_text(dialplan)
        (etc / "cdr.conf").write_text(
            "[general]\nenable = yes\nbatch = no\n[csv]\nloguniqueid = yes\nloguserfield = yes\n"
        )
        (etc / "cel.conf").write_text("[general]\nenable = no\n")
        modules = re.sub(r".*(cdr_custom|cel_custom|res_cdrel_custom)\.so\n", "", (etc / "modules.conf").read_text())
        (etc / "modules.conf").write_text(modules + "require = cdr_csv.so\n")
        (settings.asterisk_dir / "log" / "cdr-csv").mkdir(parents=True, exist_ok=True)
        asterisk = asterisk_process(settings, install)
        await asterisk.start()
        try:
            yield Peer("dialplan", settings, asterisk, phone)
        finally:
            await asterisk.stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)


@asynccontextmanager
async def both(**settings: object) -> AsyncIterator[tuple[Product, Peer]]:
    """Both, side by side; the Asterisks on one processor, all else on the others where there are others."""
    async with product(**settings) as ours, peer() as theirs:
        processors = sorted(os.sched_getaffinity(0))
        if len(processors) > 1:
            for site in (ours, theirs):
                pin(site.asterisk.pid or 0, {processors[0]})
            pin(ours.controller or 0, set(processors[1:]))
        await asyncio.sleep(1.0)
        yield ours, theirs
