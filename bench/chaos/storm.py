"""Calls while things die: a mix of calls at a steady rate, a server killed at random moments, and an account of it all.

What happened is told by others: the simulated carrier (callers and phones, each with a SIP Call-ID of its own) and
Asterisk's CDR file. Every caller has a number of their own, by which the three accounts are put together.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sized
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from bench.chaos.account import Account, Placed, median_and_worst
from callrouter.store import config
from callrouter.store.models import CallEventRow, CallRecordRow, RecordingRow
from callrouter.testing.carrier_script import Answered, CallScript, Digits, Hangup, UntilHangup, Wait, answer, busy
from callrouter.testing.carrier_script import no_answer as silent
from tests.acceptance.conversations import sales_menu
from tests.fixtures.installation import BUSINESS_HZ, CALLER_HZ, Business, Installation
from tests.outages import Metronome

MENU = sales_menu(timeout=3, max_tries=2)
MESSAGE = """
start: dial
nodes:
  dial: {type: dial, target: desk, on_busy: message, on_no_answer: message, on_failed: message}
  message: {type: voicemail, greeting: Please speak., on_done: end, on_failed: end}
  end: {type: hangup}
"""
MIX = {"direct": 8, "menu": 5, "busy": 1, "no-answer": 1, "voicemail": 2, "leaves-menu": 1, "leaves-ringing": 2}
"""Kinds of calls, and how many of each in twenty."""
OVER_TRUNK = ("direct", "no-answer", "leaves-ringing")
"""Kinds that are dialled over a trunk, so that each has a slot of its company's, which must not be lost."""
TRUNK = "out"
AT_ONCE = 50
"""Callers at most. Ten a second make some forty; on a machine that is slower than they are, more would tell nothing."""


@dataclass
class Storm:
    """Businesses for each kind of call, and the calls that were placed."""

    place: Installation
    rng: random.Random
    businesses: dict[str, Business] = field(default_factory=dict)
    placed: list[Placed] = field(default_factory=list)
    kills: int = 0
    slots: int = 0
    """The most legs over trunks that a server was seen to count."""
    starts: list[float] = field(default_factory=list)
    """Seconds from the start of a process to the last call adopted."""
    metronome: Metronome = field(default_factory=Metronome)

    async def prepare(self) -> None:
        """Make a business for each kind of call, and a trunk for some."""
        self.metronome.start()
        async with self.place.database.session() as session:
            await config.add_trunk(
                session,
                name=TRUNK,
                host=self.place.settings.simulator_address,
                port=self.place.carrier.sip_port,
                match=["127.3.3.3"],
                qualify_seconds=0,
                who="chaos",
            )
        tone = f"tone:{BUSINESS_HZ}"
        phones: dict[str, tuple[Any, dict[str, Any]]] = {
            "direct": (answer(after=0.3, speak=tone), {}),
            "menu": (answer(after=0.3, speak=tone, hang_up_after=2.5), {"flow": MENU}),
            "busy": (busy(), {}),
            "no-answer": (silent(), {"ring": 3}),
            "voicemail": (busy(), {"flow": MESSAGE}),
            "leaves-menu": (answer(after=0.3, speak=tone), {"flow": MENU}),
            "leaves-ringing": (answer(after=20.0, speak=tone), {}),
        }
        for kind, (behaviour, more) in phones.items():
            trunk = TRUNK if kind in OVER_TRUNK else None
            made = self.businesses[kind] = await self.place.business({"desk": behaviour}, trunk=trunk, **more)
            async with self.place.database.session() as session:
                free = {"max_outbound_calls": None, "max_outbound_per_hour": None}
                await config.edit_company(session, made.company, free, who="chaos")
        await self.place.in_force()

    def script(self, kind: str) -> CallScript:
        """A caller of a kind, with a number that nobody else has."""
        steps: tuple[Any, ...]
        match kind:
            case "direct":
                steps = (Answered(), Wait(self.rng.uniform(2.0, 4.0)), Hangup())
            case "menu":
                steps = (Wait(1.5), Digits("1"), UntilHangup())
            case "voicemail":
                steps = (Answered(), Wait(6.0), Hangup())
            case "leaves-menu":
                steps = (Answered(), Wait(self.rng.uniform(0.3, 1.5)), Hangup())
            case "leaves-ringing":
                steps = (Wait(self.rng.uniform(0.5, 2.5)), Hangup())
            case _:
                steps = (UntilHangup(),)
        return CallScript(
            did=self.businesses[kind].did,
            caller=f"+1{self.rng.choice((212, 312, 415, 617))}{2_000_000 + len(self._callers):07d}",
            speak=f"tone:{CALLER_HZ}",
            steps=steps,
            max_seconds=60,
            ring_timeout=60,
        )

    _callers: list[str] = field(default_factory=list)

    async def rain(self, calls: int, per_second: float, enough: Callable[[int], bool] = lambda _: False) -> None:
        """Place calls at a steady rate, which what the machine misses while it stands still does not raise later.

        :param calls: at most
        :param enough: asked with the number of calls placed; True ends it
        """
        kinds = [kind for kind, count in MIX.items() for _ in range(count)]
        loop = asyncio.get_running_loop()
        due = loop.time()
        room = asyncio.Semaphore(AT_ONCE)

        async def one(kind: str, script: CallScript) -> None:
            try:
                result = await self.place.carrier.place(script)
                self.placed.append(Placed(kind, result))
            finally:
                room.release()

        async with asyncio.TaskGroup() as group:
            for number in range(calls):
                await asyncio.sleep(max(0.0, due - loop.time()))
                await room.acquire()
                due = max(due, loop.time()) + 1 / per_second
                if enough(number):
                    break
                kind = self.rng.choice(kinds)
                script = self.script(kind)
                self._callers.append(script.caller)
                group.create_task(one(kind, script))

    async def kill_servers(self, kills: int, over: Callable[[], bool], longest: float) -> None:
        """Kill the server with -9 at random moments, one in three while it starts, and start it again at once.

        :param longest: seconds that it lives at most, once it takes calls
        """
        started = time.monotonic()
        while not over() and self.kills < kills:
            if self.rng.random() < 0.33:
                await asyncio.sleep(self.rng.uniform(0.2, 2.5))
            else:
                await _within(30.0, self._connected)
                self.starts.append(time.monotonic() - started)
                await asyncio.sleep(self.rng.uniform(0.0, longest))
            self.slots = max(self.slots, self.place.status().get("outbound_calls", 0))
            await self.place.end_child(signal.SIGKILL)
            self.kills += 1
            started = time.monotonic()
            await self.place.spawn_server(ready=False)

    # -- the account -----------------------------------------------------------------------------------------------

    async def account(self, patience: float, *, ledger_whole: bool = True) -> Account:
        """Wait until all is written down, and compare.

        :param patience: seconds to wait when nothing more comes
        :param ledger_whole: Asterisk lived all the time, so that its CDR file has every call
        """
        place = self.place
        left = {"channels": await _within(5.0, lambda: _zero(place.channels()))}
        async with place.ari() as ari:
            left["bridges"] = await _within(5.0, lambda: _zero(_count(ari.bridges())))
        await _within(30.0, self._connected)
        left["calls in the server"] = await _within(30.0, lambda: self._status("calls"))
        left["lines in the journal"] = await _within(30.0, lambda: self._status("journal", "pending"))
        left["slots taken"] = await _within(5.0, lambda: self._status("outbound_calls"))
        rows: dict[str, CallRecordRow] = {}
        recordings: dict[str, list[RecordingRow]] = {}
        wanted = set(self._callers)
        least, deadline = len(wanted) * 3, time.monotonic() + patience
        while True:
            async with place.database.session(read_only=True) as session:
                found = list(await session.scalars(select(CallRecordRow)))
                rows = {row.uniqueid: row for row in found}
                recordings = defaultdict(list)
                for recording in await session.scalars(select(RecordingRow)):
                    recordings[recording.call_id].append(recording)
            open_things = sum(one.status == "pending" for many in recordings.values() for one in many)
            open_things += len(wanted - {row.caller for row in rows.values()})
            open_things += sum(row.disposition is None for row in rows.values())
            if open_things < least:
                least, deadline = open_things, time.monotonic() + patience
            if not open_things or time.monotonic() > deadline:
                break
            await asyncio.sleep(1.0)
        async with place.database.session(read_only=True) as session:
            arrivals = list(await session.scalars(select(CallEventRow.data).where(CallEventRow.type == "CallArrived")))
        logs = Counter(str(data["channel"]) for data in arrivals)
        self.metronome.stop()
        return Account(
            metronome=self.metronome,
            placed=self.placed,
            phones=await place.carrier.phone_calls(),
            ledger=place.ledger(),
            rows=rows,
            recordings=recordings,
            logs=logs,
            left={what: count for what, count in left.items() if count},
            ledger_whole=ledger_whole,
            server_log=place.server_log(),
            told={"kills": self.kills, "slots_at_most": self.slots, "start_s": median_and_worst(self.starts)},
        )

    async def _connected(self) -> str:
        return await _true(self.place.status().get("ari", {}).get("state") == "connected")

    async def _status(self, *path: str) -> str:
        """What the server counts; empty when it is nothing."""
        found: Any = self.place.status()
        for name in path:
            found = found.get(name, {})
        return "" if found == 0 else f"{found}"


async def _count(found: Awaitable[Sized]) -> int:
    return len(await found)


async def _zero(count: Awaitable[int]) -> str:
    found = await count
    return str(found) if found else ""


async def _true(value: bool) -> str:
    return "" if value else "no"


async def _within(seconds: float, look: Callable[[], Awaitable[str]]) -> str:
    """Look until there is nothing to tell; what the last look told."""
    deadline = time.monotonic() + seconds
    while (told := await look()) and time.monotonic() < deadline:  # noqa: ASYNC110 - nobody tells us
        await asyncio.sleep(0.1)
    return told
