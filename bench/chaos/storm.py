"""Calls while things die: a mix of calls at a steady rate, a server killed at random moments, and an account of it all.

What happened is told by others: the simulated carrier (callers and phones, each with a SIP Call-ID of its own) and
Asterisk's CDR file. Every caller has a number of their own, by which the three accounts are put together.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from callrouter.asterisk.ledger import LedgerRow
from callrouter.core.disposition import Disposition
from callrouter.store import config
from callrouter.store.models import CallEventRow, CallRecordRow, RecordingRow
from callrouter.testing.audio import duration
from callrouter.testing.carrier_legs import CallResult, PhoneCall
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
STAYING = ("direct", "menu")
"""Kinds whose callers wait for the business to answer."""
OVER_TRUNK = ("direct", "no-answer", "leaves-ringing")
"""Kinds that are dialled over a trunk, so that each has a slot of its company's, which must not be lost."""
TRUNK = "out"
TALK_OFF = 0.5
"""Seconds by which a conversation may be told too long or too short, beyond what the machine stood still meanwhile."""
RECORDING_OFF = 1.5
"""The same for its recording: a machine that is busy loses speech."""
SHORT_TALK = 1.0

_TOLD = re.compile(r'^{.*"event": ?"(recovered|calls_imported|call_adopted)".*}$')
_PLAUSIBLE = {
    "direct": {Disposition.ANSWERED},
    "menu": {Disposition.ANSWERED},
    "busy": {Disposition.BUSY},
    "no-answer": {Disposition.NO_ANSWER},
    # The failsafe takes no messages: there the caller hears the destination's busy tone. A server that dies while it
    # greets makes them wait, and they may leave.
    "voicemail": {Disposition.VOICEMAIL, Disposition.BUSY, Disposition.ABANDONED},
    "leaves-menu": {Disposition.ABANDONED, Disposition.ANSWERED},
    "leaves-ringing": {Disposition.ABANDONED},
}


@dataclass(frozen=True)
class Placed:
    """One call as its caller saw it."""

    kind: str
    result: CallResult


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
        """Place calls at a steady rate.

        :param calls: at most
        :param enough: asked with the number of calls placed; True ends it
        """
        kinds = [kind for kind, count in MIX.items() for _ in range(count)]
        loop = asyncio.get_running_loop()
        begin = loop.time()

        async def one(kind: str, script: CallScript) -> None:
            result = await self.place.carrier.place(script)
            self.placed.append(Placed(kind, result))

        async with asyncio.TaskGroup() as group:
            for number in range(calls):
                await asyncio.sleep(max(0.0, begin + number / per_second - loop.time()))
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
            told={"kills": self.kills, "slots_at_most": self.slots, "start_s": _median_and_worst(self.starts)},
        )

    async def _connected(self) -> str:
        return await _true(self.place.status().get("ari", {}).get("state") == "connected")

    async def _status(self, *path: str) -> str:
        """What the server counts; empty when it is nothing."""
        found: Any = self.place.status()
        for name in path:
            found = found.get(name, {})
        return "" if found == 0 else f"{found}"


@dataclass
class Account:
    """What callers, phones, Asterisk and the records say, put together."""

    placed: Sequence[Placed]
    phones: Sequence[PhoneCall]
    ledger: Sequence[LedgerRow]
    rows: Mapping[str, CallRecordRow]
    recordings: Mapping[str, Sequence[RecordingRow]]
    logs: Mapping[str, int]
    """By Asterisk's unique id, how many logs of ours begin with its arrival."""
    left: Mapping[str, str]
    """What should be gone, and is not."""
    ledger_whole: bool
    server_log: str
    told: Mapping[str, Any]
    """Numbers of the storm itself."""
    metronome: Metronome
    """Nobody's clock is better than this one: not that of callers and phones, nor Asterisk's."""
    faults: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)

    def check(self) -> Account:
        """Compare; what is wrong stands in ``faults``."""
        callers = {one.result.caller: one for one in self.placed}
        rows: dict[str, list[CallRecordRow]] = defaultdict(list)
        for row in self.rows.values():
            rows[row.caller or ""].append(row)
        ledger: dict[str, list[LedgerRow]] = defaultdict(list)
        for line in self.ledger:
            ledger[line.caller].append(line)
        phones: dict[str, list[PhoneCall]] = defaultdict(list)
        for phone in self.phones:
            phones[phone.from_number].append(phone)
        missing = double = stayed = reached = conversations = 0
        off: list[float] = []
        for caller, placed in callers.items():
            mine, theirs = rows[caller], ledger[caller]
            taken = placed.result.sip_call_id and (theirs or placed.result.answered or placed.result.ringing)
            if self.ledger_whole and taken and len(theirs) != 1:
                self._fault(placed, f"{len(theirs)} rows in Asterisk's CDR file")
            if len(mine) == len(theirs) == 1:
                ids = (mine[0].uniqueid, placed.result.sip_call_id)
                if ids != (theirs[0].uniqueid, theirs[0].sip_call_id):
                    self._fault(placed, f"{ids} is {theirs[0].uniqueid} of {theirs[0].sip_call_id} in the CDR file")
            if taken and not mine:
                missing += 1
                self._fault(placed, "no record")
            if len(mine) > 1 or any(self.logs.get(row.uniqueid, 0) > 1 for row in mine):
                double += 1
                self._fault(placed, f"recorded {[self.logs.get(row.uniqueid) for row in mine]} times")
            talks = [(phone, talk) for phone in phones[caller] if (talk := together(placed.result, phone)) > 0]
            if placed.kind in STAYING:
                stayed += 1
                if talks:
                    reached += 1
                else:
                    self._fault(placed, f"did not reach the business, {_of(mine)}", counted=False)
            if len(mine) != 1:
                continue
            row = mine[0]
            if row.disposition is None:
                self._fault(placed, "still in progress")
                continue
            long = [talk for _, talk in talks if talk >= SHORT_TALK]
            if long:
                conversations += 1
                off.append(self._talk(placed, row, long, phones[caller]))
            elif self.ledger_whole and not talks and row.disposition == Disposition.ANSWERED:
                self._fault(placed, f"nobody answered, {_of(mine)}")
            elif placed.kind not in STAYING and row.disposition not in _PLAUSIBLE[placed.kind] and self.ledger_whole:
                self._fault(placed, f"is told as {_of(mine)}")
        self.faults += [f"left: {count} {what}" for what, count in self.left.items()]
        if "Traceback" in self.server_log:
            at = self.server_log.index("Traceback")
            self.faults.append(f"in the server's log: {self.server_log[max(0, at - 600) : at + 1500]}")
        faults = len(re.findall(r'"event": ?"(call_failed|call_not_\w+|part_failed)"', self.server_log))
        if faults:
            self.faults.append(f"{faults} faults in the server's log")
        said = [json.loads(line) for line in self.server_log.splitlines() if _TOLD.search(line)]
        found = [one for one in said if one["event"] == "recovered"]
        taken_up = Counter(one["call"] for one in said if one["event"] == "call_adopted")
        recordings = [one for many in self.recordings.values() for one in many]
        handled = Counter(row.handled_by for row in self.rows.values())
        self.numbers = {
            "calls": len(self.placed),
            **self.told,
            "missing": missing,
            "double": double,
            "stayed": stayed,
            "reached": reached,
            "conversations": conversations,
            "talk_off_s": _median_and_worst(off),
            "stood_still_s": round(sum(late for _, late in self.metronome.late), 1),
            "adopted": sum(one.get("adopted", 0) for one in found),
            "adopted_again": sum(times > 1 for times in taken_up.values()),
            "closed_at_start": sum(one.get("closed", 0) for one in found),
            "given_back": self.server_log.count('"call_given_back"'),
            "imported": sum(one.get("count", 0) for one in said if one["event"] == "calls_imported"),
            "handled_by_failsafe": handled["failsafe"],
            "end_missed": self.server_log.count('"call_end_missed"'),
            "dispositions": dict(Counter(str(row.disposition) for row in self.rows.values())),
            "recordings": dict(Counter(one.status for one in recordings)),
            "recordings_not_ok": [
                f"{one.kind} {one.status}: {one.problem}" for one in recordings if one.status != "ok"
            ],
        }
        if stayed and reached < 0.999 * stayed:
            self.faults.append(f"only {reached} of {stayed} callers who stayed reached the business")
        return self

    def _talk(self, placed: Placed, row: CallRecordRow, long: Sequence[float], phones: Sequence[PhoneCall]) -> float:
        """A conversation: answered, with its length and a finished recording; returns by how much it is off."""
        if row.disposition != Disposition.ANSWERED:
            self._fault(placed, f"talked for {max(long):.1f} s, {_of([row])}")
            return 0.0
        off = abs(row.talk_seconds - sum(long))
        still = self.metronome.between(placed.result.started, placed.result.ended + 1.0)
        if off > TALK_OFF + still:
            told = f"{row.talk_seconds:.2f} s, {_of([row])}, though the machine stood still for {still:.2f} s"
            self._fault(placed, f"talked for {sum(long):.2f} s, told as {told}")
        finished = [
            one
            for one in self.recordings.get(row.id, ())
            if one.status in ("ok", "suspect") and one.kind != "voicemail"
        ]
        # A machine that stands still loses speech on the way; then what the phone heard is what there was to record.
        lengths = [*long, *(duration(phone.heard) for phone in phones if phone.heard is not None)]
        if not any(
            abs((one.seconds or 0.0) - length) <= RECORDING_OFF + still for one in finished for length in lengths
        ):
            states = [(one.id, one.status, one.problem, one.seconds) for one in self.recordings.get(row.id, ())]
            self._fault(placed, f"talked for {max(long):.1f} s, recordings {states}, {_of([row])}")
        return off

    def _fault(self, placed: Placed, what: str, *, counted: bool = True) -> None:
        result = placed.result
        text = f"{placed.kind} {result.caller} at {result.started:.3f} ({result.sip_call_id}): {what}"
        if counted:
            self.faults.append(text)
        else:
            self.numbers.setdefault("unreached", []).append(text)
            self.unreached.append(text)

    unreached: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """The numbers, one a line; then what is wrong."""
        lines = [f"  {name:20} {value}" for name, value in self.numbers.items()]
        lines += [f"  not reached: {text}" for text in self.unreached[:10]]
        lines += [f"  WRONG: {text}" for text in self.faults[:30]]
        if len(self.faults) > 30:
            lines.append(f"  … and {len(self.faults) - 30} more")
        return "\n".join(lines)


def together(caller: CallResult, phone: PhoneCall) -> float:
    """Seconds that a caller and a phone were both in an answered call."""
    if caller.answered_at is None or phone.answered_at is None:
        return 0.0
    return min(caller.ended, phone.ended or caller.ended) - max(caller.answered_at, phone.answered_at)


def _of(rows: Sequence[CallRecordRow]) -> str:
    return "; ".join(
        f"record {row.uniqueid} {row.disposition} by {row.handled_by}: {row.reason}"
        f" [{' > '.join(str(step.get('what')) for step in row.trace)}]"
        for row in rows
    )


def _median_and_worst(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.2f}, at most {max(seconds):.2f}" if seconds else "none"


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
