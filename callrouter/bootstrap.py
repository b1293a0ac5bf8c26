"""The composition root: the only place that knows every part and wires them together."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from callrouter.asterisk.ami import Ami
from callrouter.asterisk.apply import put_in_place
from callrouter.asterisk.ari import AriClient
from callrouter.asterisk.ari_stream import AriStream
from callrouter.asterisk.cel import CelTail
from callrouter.asterisk.doors import refuse_danger
from callrouter.asterisk.install import AsteriskInstall, find_asterisk
from callrouter.asterisk.process import AsteriskProcess
from callrouter.asterisk.render import make_directories
from callrouter.asterisk.secrets import load_secrets, webhook_secret
from callrouter.config import Settings
from callrouter.core.flow.urls import parse_hosts
from callrouter.errors import AriError
from callrouter.media.store_health import StoreWatch
from callrouter.media.voices import prompt_library
from callrouter.runtime.callers import Callers
from callrouter.runtime.configuration import Configuration, trunks_in_force
from callrouter.runtime.dispatcher import Dispatcher
from callrouter.runtime.executor import Executor
from callrouter.runtime.importer import LedgerImporter
from callrouter.runtime.outbound import Outbound
from callrouter.runtime.reconciliation import Nightly
from callrouter.runtime.rotation import Rotation
from callrouter.runtime.service import Parts, Server
from callrouter.runtime.supervision import LedgerTail, Supervisor
from callrouter.runtime.trunks import Trunks
from callrouter.runtime.webhooks import Webhooks
from callrouter.store.database import Database
from callrouter.store.drain import FINISH_RECORDING, Drain
from callrouter.store.journal import Journal

if TYPE_CHECKING:  # the server, which callers wait for, starts without what the worker needs
    from callrouter.jobs.queue import Job, Worker

log = structlog.get_logger(__name__)

DISPOSE_SECONDS = 5.0
"""A database that does not answer is not said goodbye to."""


@asynccontextmanager
async def open_server(settings: Settings) -> AsyncIterator[Server]:
    """A server with all its parts, not yet running.

    :raises CallrouterError: a secret is missing, another server writes the journal
    """
    refuse_danger(settings)
    secrets = load_secrets(settings)
    async with open_database(settings, required=False) as database:
        make_directories(settings)
        settings.recordings.mkdir(parents=True, exist_ok=True)
        base_url = f"http://{settings.ari_host}:{settings.ari_port}"
        password = secrets.ari.reveal()
        webhooks = Webhooks(parse_hosts(settings.webhook_hosts), webhook_secret(settings).reveal)
        async with AriClient(base_url, settings.ari_user, password) as ari, contextlib.aclosing(webhooks):
            ami = Ami(settings.ami_host, settings.ami_port, settings.ami_user, secrets.ami.reveal())
            journal = Journal(settings.journal_dir)
            library = prompt_library(settings)

            configuration = Configuration(settings, database, library, Trunks(settings, ami).apply)
            spool = settings.recording_spool
            executor = Executor(ari, settings.ari_app, library, spool, settings.max_call_seconds, ami.mute_recording)
            outbound = Outbound()
            rotation = Rotation()
            callers = Callers()
            dispatcher = Dispatcher(
                ari,
                settings.ari_app,
                executor,
                journal,
                table=lambda: configuration.table,
                store_problem=lambda: watch.problem,
                default_country=settings.country,
                outbound=outbound,
                rotation=rotation,
                callers=callers,
                webhooks=webhooks,
            )
            watch = StoreWatch(
                [settings.recording_spool, settings.recordings],
                settings.recording_min_free_mb,
                dispatcher.store_changed,
            )
            tail = LedgerTail(settings.ledger_path)

            async def live() -> set[str] | None:
                try:
                    return {channel.id for channel in await ari.channels()} | dispatcher.channels
                except AriError:
                    return None

            def make_stream(on_connect: Callable[[bool], Awaitable[None]]) -> AriStream:
                return AriStream(base_url, settings.ari_user, password, settings.ari_app, on_connect=on_connect)

            yield Server(
                Parts(
                    settings=settings,
                    ari=ari,
                    ami=ami,
                    database=database,
                    journal=journal,
                    drain=Drain(journal, database),
                    configuration=configuration,
                    dispatcher=dispatcher,
                    outbound=outbound,
                    rotation=rotation,
                    callers=callers,
                    store_watch=watch,
                    ledger=tail,
                    importer=LedgerImporter(
                        tail,
                        CelTail(settings.channel_events_path),
                        database,
                        journal,
                        dispatcher,
                        settings.country,
                        callers,
                    ),
                    supervisor=Supervisor(ami, dispatcher),
                    nightly=Nightly(settings, database, live),
                    make_stream=make_stream,
                )
            )


@asynccontextmanager
async def open_database(settings: Settings, *, required: bool = True) -> AsyncIterator[Database]:
    """The database, of the version this program needs.

    :param required: False: it may be away, or of another version; who uses it finds out
    :raises DatabaseError: it is away, absent, older or newer; says what to do
    """
    database = Database(settings.database)
    try:
        if required:
            await database.require_current()
        yield database
    finally:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(database.dispose(), DISPOSE_SECONDS)


def make_worker(settings: Settings, database: Database) -> Worker:
    """What runs after calls."""
    from callrouter.jobs.finish_recording import finish_recording
    from callrouter.jobs.queue import Worker

    async def finish(job: Job) -> None:
        await finish_recording(database, settings, job.payload)

    return Worker(database, {FINISH_RECORDING: finish})


async def serve(settings: Settings) -> None:
    """Run the server until SIGTERM or SIGINT."""
    async with open_server(settings) as server:
        with stopping_on_signals(server.stop):
            await server.run()


async def work(settings: Settings) -> None:
    """Run jobs until SIGTERM or SIGINT."""
    from callrouter.jobs.housekeeping import keep_house

    async with open_database(settings, required=False) as database:
        worker = make_worker(settings, database)
        with stopping_on_signals(worker.stop):
            if not await worker.database_there():
                return
            housekeeping = asyncio.create_task(keep_house(database, settings))
            try:
                await worker.run()
            finally:
                housekeeping.cancel()
                await asyncio.gather(housekeeping, return_exceptions=True)


@contextlib.contextmanager
def stopping_on_signals(stop: Callable[[], None]):  # type: ignore[no-untyped-def]
    """While inside, SIGTERM and SIGINT call ``stop``."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


# -- Asterisk ----------------------------------------------------------------------------------------------------------


async def prepare_asterisk(settings: Settings) -> AsteriskInstall:
    """Find an Asterisk and render its configuration out of settings and database.

    :raises CallrouterError: there is none, or what was rendered does not hold together
    """
    install = find_asterisk(settings)
    async with open_database(settings, required=False) as database:
        trunks = await trunks_in_force(settings, database)
    put_in_place(settings, install, trunks)
    return install


def asterisk_process(settings: Settings, install: AsteriskInstall) -> AsteriskProcess:
    """The Asterisk that runs on our configuration; not started."""
    return AsteriskProcess(
        install, settings.asterisk_etc_dir / "asterisk.conf", settings.asterisk_dir / "log" / "console.log"
    )
