"""``callrouter demo``: sets a small business up, calls it, and shows what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from callrouter.asterisk.secrets import ensure_secret
from callrouter.bootstrap import (
    asterisk_process,
    make_worker,
    open_database,
    open_server,
    prepare_asterisk,
    stopping_on_signals,
)
from callrouter.config import Settings, load_settings
from callrouter.demo.business import CALLS, MENU_NUMBER, load_business, phones
from callrouter.errors import AsteriskError
from callrouter.store.calls import CallFilter, CallRow, list_calls
from callrouter.store.database import Database
from callrouter.testing.carrier import SimulatedCarrier

Say = Callable[[str], None]
SETTLE_SECONDS = 30.0
"""How long the records and recordings of finished calls may take."""


def demo_settings(home: Path) -> Settings:
    """Settings of the demonstration: a home of its own, and ports that are free now, kept in its settings file."""
    ports = _free_ports(3)
    values = {"sip_port": ports[0], "ari_port": ports[1], "ami_port": ports[2], "rtp_start": 16000, "rtp_end": 17999}
    home.mkdir(parents=True, exist_ok=True)
    file = home / "callrouter.toml"
    file.write_text(
        "# Written by callrouter demo at each start.\n" + "".join(f"{k} = {v}\n" for k, v in values.items())
    )
    return load_settings(file, {}, home=str(home))


async def run_demo(home: Path, say: Say, show: Callable[[list[CallRow]], None], *, keep: bool) -> None:
    """The whole demonstration.

    :param home: its own home directory
    :param say: told each step
    :param show: given the calls that were placed, as stored
    :param keep: leave everything running after the calls, until SIGINT or SIGTERM
    :raises CallrouterError: something could not be set up
    """
    settings = demo_settings(home)
    say(f"home: {home}")
    for name in ("ari-password", "ami-password"):
        ensure_secret(settings.secrets_dir, name)
    database = Database(settings.database)
    try:
        await database.upgrade()
    finally:
        await database.dispose()
    async with contextlib.AsyncExitStack() as stack:
        install = await prepare_asterisk(settings)
        say(f"Asterisk {install.version_text}: starting the server's and the simulated carrier's")
        carrier = SimulatedCarrier(
            install,
            home / "carrier",
            address=settings.simulator_address,
            server=(settings.sip_bind, settings.sip_port),
            phones=phones(),
        )
        asterisk = asterisk_process(settings, install)
        await asyncio.gather(asterisk.start(), carrier.start())
        stack.push_async_callback(asterisk.stop)
        stack.push_async_callback(carrier.stop)
        database = await stack.enter_async_context(open_database(settings))
        async with database.session() as session:
            fresh = await load_business(session, carrier)
        say("business: two companies, three campaigns, five tracking numbers" + ("" if fresh else " (from last time)"))
        server = await stack.enter_async_context(open_server(settings))
        serving = asyncio.create_task(server.run())
        worker = make_worker(settings, database)
        working = asyncio.create_task(worker.run())
        try:
            await _ready(server.ready, serving)
            say("server: ready; placing five calls at once")
            began = datetime.now(UTC)
            show(await _place_calls(carrier, database, began, say))
            if keep:
                _say_how_to_dial(settings, say)
                stop = asyncio.Event()
                with stopping_on_signals(stop.set):
                    await stop.wait()
        finally:
            server.stop()
            worker.stop()
            await asyncio.gather(serving, working, return_exceptions=True)


async def _ready(ready: asyncio.Event, serving: asyncio.Task[None]) -> None:
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({waiting, serving}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        waiting.cancel()
        await serving
        raise AsteriskError("the server stopped before it was ready")


async def _place_calls(carrier: SimulatedCarrier, database: Database, began: datetime, say: Say) -> list[CallRow]:
    async def one(number: int) -> None:
        call = CALLS[number]
        await asyncio.sleep(number * 0.3)
        say(f"  call {number + 1}: {call.script.caller} dials {call.script.did} ({call.shows})")
        result = await carrier.place(call.script)
        say(f"  call {number + 1}: over after {result.ended - result.started:.1f} s")

    await asyncio.gather(*(one(number) for number in range(len(CALLS))))
    say("waiting for the records and the recordings")
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        async with database.session() as session:
            rows = await list_calls(session, CallFilter(since=began), limit=len(CALLS))
        if len(rows) == len(CALLS) and all(_settled(row) for row in rows):
            return rows
        if time.monotonic() > deadline:
            say("not all records are complete yet; callrouter call list shows them later")
            return rows
        await asyncio.sleep(0.2)


def _settled(row: CallRow) -> bool:
    return row.disposition is not None and all(recording.status != "pending" for recording in row.recordings)


def _say_how_to_dial(settings: Settings, say: Say) -> None:
    say("")
    say("all is running; Ctrl-C ends it. From a softphone on this machine (no registration), dial:")
    say(f"    sip:{MENU_NUMBER}@{settings.sip_bind}:{settings.sip_port}")
    say(f"or, in another shell:  callrouter --home {settings.home_dir} call test {MENU_NUMBER} --digits 1")
    say(f"and look:              callrouter --home {settings.home_dir} call list")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
