"""The runtime's parts, wired to a fake Asterisk: the real journal, the real prompt library, a routing table to swap."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web

from callrouter.asterisk.ari import AriClient
from callrouter.asterisk.ari_events import iso
from callrouter.asterisk.ari_stream import AriStream, Connected, Disconnected
from callrouter.asterisk.ledger import LEDGER_COLUMNS
from callrouter.core.cdr import LogItem, fold
from callrouter.core.records import CallRecord
from callrouter.core.routing import RoutingTable, spoken
from callrouter.media.audio import Samples
from callrouter.media.prompts import PromptLibrary
from callrouter.runtime.call import Log
from callrouter.runtime.dispatcher import Dispatcher
from callrouter.runtime.executor import Executor
from callrouter.runtime.webhooks import Webhooks
from callrouter.store.codec import Line, items
from callrouter.store.journal import Journal, Position, read
from callrouter.testing.fake_asterisk import FakeAsterisk, FakeChannel, FakeRequest
from tests.builders import DID, table
from tests.waiting import eventually

APP = "callrouter"

MENU = """
start: menu
nodes:
  menu: {type: menu, prompt: Press 1 or 2, options: {1: ring, 2: message}, timeout: 5, on_exhausted: bye}
  ring: {type: dial, target: ana, on_busy: message, on_no_answer: message, on_failed: message}
  message: {type: voicemail, greeting: Speak up, on_failed: bye}
  bye: {type: hangup}
"""


async def until(
    done: Callable[[], object] | Callable[[], Awaitable[object]], what: str = "", seconds: float = 8
) -> None:
    """As ``eventually``, looking often: a fake Asterisk is quick."""
    await eventually(done, what, seconds, pause=0.005)


class Tone:
    """Speaks every text as a short tone."""

    name = "tone"

    def in_language(self, language: str) -> Tone:
        return self

    def speak(self, text: str) -> tuple[Samples, int]:
        return np.sin(np.arange(800, dtype=np.float32) / 3).astype(np.float32), 8000


@dataclass(slots=True)
class Caller(FakeChannel):
    """A caller's channel with what ari.conf's ``channelvars`` and the dialplan add."""

    did: str = DID
    trunk: str = "carrier"
    leg: str = ""
    app_data: str = ""
    age: float = 0.0

    def to_json(self) -> dict[str, Any]:
        value = FakeChannel.to_json(self)
        value["channelvars"] = {"CR_DID": self.did, "CR_TRUNK": self.trunk, "CR_LEG": self.leg}
        value["dialplan"]["app_data"] = self.app_data
        value["creationtime"] = iso(time.time() - self.age)
        return value


class Asterisk(FakeAsterisk):
    """Remembers with every request what it could see at that moment."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.look: Callable[[], Any] = lambda: None
        self.seen: list[tuple[FakeRequest, Any]] = []

    async def _rest(self, request: web.Request) -> web.Response:
        now, before = self.look(), len(self.requests)
        response = await super()._rest(request)
        self.seen += [(made, now) for made in self.requests[before : before + 1]]
        return response

    def asked(self, method: str = "", *segments: str) -> list[FakeRequest]:
        """Requests of a method whose path begins so."""
        return [r for r in self.requests if method in ("", r.method) and r.segments[: len(segments)] == segments]

    def of(self, channel: str) -> list[str]:
        """What was asked of a channel, in order: "answer", "play", "continue cr-dial" …"""
        found = []
        for request in self.asked("", "channels", channel):
            what = request.segments[2] if len(request.segments) > 2 else request.method.lower()
            found.append(f"{what} {request.args['context']}" if what == "continue" else what)
        return found

    def caller(self, channel: str, **values: Any) -> Caller:
        """A channel of a caller, not in the application yet."""
        made = Caller(channel, **({"number": "+13125550199", "exten": "incoming"} | values))
        self.channels[channel] = made
        return made

    def call(self, channel: str = "call-1", *, claimed: bool = True, **values: Any) -> Caller:
        """A caller arrives, by broadcast (and is claimed) or straight into the application."""
        made = self.caller(channel, **values)
        if claimed:
            self.broadcast(channel, exten=made.exten)
        else:
            made.app_data = f"{self.app},incoming,{made.trunk},{made.did}"
            self.enter(channel, "incoming", made.trunk, made.did)
        return made

    def back(self, channel: str, status: str, cause: int, leg: str, problem: str = "") -> None:
        """The talk phase is over: the caller comes back into the application."""
        entry = self.channels[channel]
        if isinstance(entry, Caller):
            entry.app_data = ",".join([self.app, "dialed", status, str(cause), leg, problem])
        self.enter(channel, "dialed", status, str(cause), leg, problem)

    def end(self, channel: str) -> None:
        """The caller hangs up in the application, and nothing but StasisEnd tells of it."""
        entry = self.channels.pop(channel)
        entry.in_stasis = False
        self._about(entry, "StasisEnd")


@dataclass
class Rig:
    """A dispatcher with calls, on a fake Asterisk."""

    asterisk: Asterisk
    ari: AriClient
    library: PromptLibrary
    executor: Executor
    journal: Journal
    dispatcher: Dispatcher
    directory: Path
    table: RoutingTable | None = None
    store_problem: str | None = None
    spool: Path = field(default_factory=Path)

    def lines(self) -> list[Line]:
        return [line for line, _ in read(self.journal.directory, Position()) if line is not None]

    def entries(self, call_id: str | None = None) -> list[LogItem]:
        return items(line for line in self.lines() if call_id in (None, line.call))

    def types(self) -> list[str]:
        return [line.type for line in self.lines()]

    def record(self, call_id: str | None = None) -> CallRecord:
        record = fold(self.entries(call_id))
        assert record is not None
        return record

    async def use(self, routing: RoutingTable) -> RoutingTable:
        """Put a table in force, its prompts rendered."""
        report = await self.library.render(set(spoken(routing)))
        assert report.ok, report
        self.table = routing
        return routing

    async def requested(self, channel: str, *what: str) -> None:
        """Wait until exactly this was asked of a channel."""
        try:
            await until(lambda: self.asterisk.of(channel) == list(what))
        except AssertionError:
            raise AssertionError(f"{self.asterisk.of(channel)} instead of {list(what)}") from None

    async def idle(self) -> None:
        """Until no call is left."""
        await until(lambda: self.dispatcher.active == 0, "the call's end")

    async def waits_in(self, channel: str, kind: type) -> Any:
        """Until the call waits for such a thing; returns it."""

        def there() -> bool:
            call = self.dispatcher.get(channel)
            return call is not None and isinstance(call.session.wait, kind)

        await until(there, f"{channel} waiting in {kind.__name__}")
        call = self.dispatcher.get(channel)
        assert call is not None
        return call.session.wait


@asynccontextmanager
async def open_rig(
    directory: Path, *, journal: Journal | None = None, log: Log | None = None, webhooks: Webhooks | None = None
) -> AsyncIterator[Rig]:
    """Wired and connected. At the end no task may be left.

    :param log: what calls write to, if it is not the journal
    :param webhooks: what asks web services; None: nothing may be asked
    """
    before = asyncio.all_tasks()
    journal = journal or Journal(directory / "journal")
    spool = directory / "spool"
    async with Asterisk(app=APP, finish_playbacks=False) as asterisk:
        asterisk.look = lambda: [line.type for line, _ in read(journal.directory, Position()) if line]
        async with AriClient(asterisk.base_url, asterisk.user, asterisk.password) as ari:
            library = PromptLibrary(directory / "prompts", Tone())
            executor = Executor(ari, APP, library, spool, 3600)
            dispatcher = Dispatcher(
                ari,
                APP,
                executor,
                log or journal,
                lambda: rig.table,
                lambda: rig.store_problem,
                "US",
                webhooks=webhooks,
            )
            rig = Rig(asterisk, ari, library, executor, journal, dispatcher, directory, spool=spool)
            await rig.use(table(MENU))
            async with AriStream(asterisk.base_url, asterisk.user, asterisk.password, APP) as stream:

                async def pump() -> None:
                    async for item in stream:
                        if not isinstance(item, Connected | Disconnected):
                            dispatcher.dispatch(item)

                task = asyncio.create_task(pump())
                await until(lambda: stream.connected, "the event socket")
                try:
                    yield rig
                finally:
                    await dispatcher.abandon()
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task
    journal.close()
    await until(lambda: asyncio.all_tasks() - {asyncio.current_task()} <= before, "the end of every task")


def ledger_line(uniqueid: str, *, end: float | None = None, **values: object) -> str:
    """A row as Asterisk writes it: a call that the failsafe connected, unless said otherwise."""
    end = time.time() - 60 if end is None else end
    row: dict[str, object] = {
        "uniqueid": uniqueid, "linkedid": uniqueid, "start": f"{end - 40:.6f}", "answer": f"{end - 30:.6f}",
        "end": f"{end:.6f}", "billsec": 30, "disposition": "ANSWERED", "channel": f"PJSIP/trunk-carrier-{uniqueid}",
        "trunk": "carrier", "did": DID, "caller": "+13125550199", "handled_by": "failsafe", "failsafe_reason": "FAILED",
        "dialstatus": "ANSWER", "cause": 16, "dial_at": f"{end - 39:.6f}", "talk_at": f"{end - 30:.6f}",
        "talk_end": f"{end:.6f}", "target": "PJSIP/callrouter-uri/sip:ana@192.0.2.7", "leg": f"fs-{uniqueid}-1",
        "recording": f"/spool/fs-{uniqueid}-1", "recording_problem": "", "number_id": "", "campaign_id": "",
        "company_id": "", "sip_call_id": "",
    }  # fmt: skip
    row |= values
    assert [name for name, _ in LEDGER_COLUMNS] == list(row)
    return ",".join(f'"{value}"' for value in row.values()) + "\n"


def write_ledger(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(lines)
