"""A whole server on a fake Asterisk and a fake manager interface, with a database of its own."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from callrouter.asterisk.secrets import ensure_secret
from callrouter.bootstrap import open_server
from callrouter.config import Settings, load_settings
from callrouter.core.cdr import fold
from callrouter.core.records import CallRecord
from callrouter.core.state import Calling, Choosing, Saying
from callrouter.media.speech import EspeakSpeaker
from callrouter.runtime.service import Server
from callrouter.store import config
from callrouter.store.calls import get_call, list_calls
from callrouter.store.codec import items
from callrouter.store.database import Database
from callrouter.store.journal import Position, read
from callrouter.testing.fake_ami import FakeAmi
from tests.contract.runtime.support import APP, MENU, Asterisk, Tone, until

DID = "+12025550123"
DIRECT = "+12025550124"


@pytest.fixture(autouse=True)
def tones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts are tones: no speech engine is needed here."""
    monkeypatch.setattr(EspeakSpeaker, "speak", Tone.speak)


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What a service manager hears."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        sock.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        monkeypatch.delenv("WATCHDOG_USEC", raising=False)
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        yield sock


def heard(sock: socket.socket) -> list[str]:
    found = []
    while True:
        try:
            found.append(sock.recv(4096).decode())
        except BlockingIOError:
            return found


class World:
    """An Asterisk, a manager interface, a database with two numbers: all a server needs."""

    def __init__(self, settings: Settings, asterisk: Asterisk, ami: FakeAmi) -> None:
        self.settings = settings
        self.asterisk = asterisk
        self.ami = ami

    @property
    def status_file(self) -> Path:
        return self.settings.home_dir / "status.json"

    def status(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self.status_file.read_text()))
        except OSError:
            return {}

    @asynccontextmanager
    async def server(self, *, ready: bool = True) -> AsyncIterator[tuple[Server, asyncio.Task[None]]]:
        """A running server; stopped at the end. It leaves no task behind."""
        before = asyncio.all_tasks()
        async with open_server(self.settings) as server:
            task = asyncio.create_task(server.run(), name="server")
            try:
                if ready:
                    await until(lambda: server.ready.is_set() or task.done(), "ready")
                    await until(lambda: server.stream.connected or task.done(), "the event socket")
                yield server, task
            finally:
                server.stop()
                await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 30)
        mine = {"server", "drain", "events", "configuration", "store", "supervise", "import", "status", "watchdog"}
        left = [one for one in asyncio.all_tasks() - before if not one.done()]
        await until(lambda: all(one.done() for one in left if self._is_ours(one, mine)), f"the end of {left}")

    def _is_ours(self, task: asyncio.Task[Any], names: set[str]) -> bool:
        name = task.get_name()
        return name in names or name.startswith(("call-", "ari-", "ami"))

    def record(self, channel: str) -> CallRecord:
        """A call's record out of the journal."""
        lines = [line for line, _ in read(self.settings.journal_dir, Position()) if line is not None]
        calls = {line.call for line in lines}
        for call in calls:
            record = fold(items(line for line in lines if line.call == call))
            if record is not None and record.uniqueid == channel:
                return record
        raise LookupError(channel)

    async def stored(self) -> list[CallRecord]:
        database = Database(self.settings.database)
        try:
            async with database.session(read_only=True) as session:
                return [(await get_call(session, row.id)).record for row in await list_calls(session)]
        finally:
            await database.dispose()


async def add_acme(database: Database) -> None:
    """A company with one number that runs MENU and one that rings its target."""
    async with database.session() as s:
        await config.add_company(s, name="acme", timezone="America/New_York", who="t")
        await config.add_target(s, "acme", name="ana", sip_uri="sip:ana@192.0.2.7", who="t")
        await config.add_flow(s, "acme", name="desk", text=MENU, who="t")
        await config.add_number(s, "acme", number=DID, name="menu", flow="desk", who="t")
        await config.add_number(s, "acme", number=DIRECT, name="direct", target="ana", who="t")


@pytest.fixture
async def world(tmp_path: Path, migrated_sqlite: Path) -> AsyncIterator[World]:
    home = tmp_path / "home"
    async with Asterisk(app=APP, finish_playbacks=False) as asterisk, FakeAmi() as ami:
        for action in ("PJSIPShowRegistrationsOutbound", "PJSIPShowEndpoints", "Reload"):
            ami.reply(action, "Response: Success\nMessage: none")
        ami.reply(
            "CoreShowChannels",
            "Response: Success\nEventList: start\nMessage: Channels will follow",
            "Event: CoreShowChannelsComplete\nEventList: Complete\nListItems: 0",
        )
        settings = load_settings(environ={}, home=str(home), ari_port=asterisk.port, ami_port=ami.port)
        asterisk.password = ensure_secret(settings.secrets_dir, "ari-password").reveal()
        ami.secret = ensure_secret(settings.secrets_dir, "ami-password").reveal()
        database = Database(settings.database)
        assert database.path is not None
        shutil.copy(migrated_sqlite, database.path)
        await add_acme(database)
        await database.dispose()
        yield World(settings, asterisk, ami)


async def waits(server: Server, channel: str, kind: type) -> None:
    def there() -> bool:
        call = server.parts.dispatcher.get(channel)
        return call is not None and isinstance(call.session.wait, kind)

    await until(there, f"{channel} waiting in {kind.__name__}")


async def in_menu(world: World, server: Server, channel: str) -> None:
    world.asterisk.call(channel)
    await waits(server, channel, Saying)
    await until(lambda: world.asterisk.playbacks, "the prompt")
    for playback in list(world.asterisk.playbacks):
        world.asterisk.finish_playback(playback)
    await waits(server, channel, Choosing)


async def talking(world: World, server: Server, channel: str) -> None:
    world.asterisk.call(channel, did=DIRECT)
    await waits(server, channel, Calling)
    await until(lambda: "continue cr-dial" in world.asterisk.of(channel), "the talk phase")
    for status in ("", "ANSWER"):
        world.asterisk.dial(channel, f"peer-{channel}", status)
    call = server.parts.dispatcher.get(channel)
    assert call is not None
    await until(lambda: call.session.wait.answered_at is not None, "the answer")  # type: ignore[union-attr]
