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
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from callrouter.asterisk.ledger import LedgerRow
from callrouter.core.disposition import Disposition
from callrouter.store.models import CallEventRow, CallRecordRow, RecordingRow
from callrouter.testing.audio import duration
from callrouter.testing.carrier_legs import CallResult, PhoneCall
from callrouter.testing.carrier_script import Answered, CallScript, Digits, Hangup, UntilHangup, Wait, answer, busy
from callrouter.testing.carrier_script import no_answer as silent
from tests.acceptance.conversations import sales_menu
from tests.fixtures.installation import BUSINESS_HZ, CALLER_HZ, Business, Installation

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
TALK_OFF = 1.5
SHORT_TALK = 1.0

_TOLD = re.compile(r'^{.*"event": ?"(recovered|calls_imported)".*}$')
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
    began: float = 0.0
    ended: float = 0.0

    async def prepare(self) -> None:
        """Make a business for each kind of call."""
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
            self.businesses[kind] = await self.place.business({"desk": behaviour}, **more)

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
        self.began = self.began or time.time()

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
        self.ended = time.time()

    async def kill_servers(self, kills: int, over: Callable[[], bool], longest: float) -> None:
        """Kill the server with -9 at random moments, one in three while it starts, and start it again at once.

        :param longest: seconds that it lives at most, once it takes calls
        """
        while not over() and self.kills < kills:
            if self.rng.random() < 0.33:
                await asyncio.sleep(self.rng.uniform(0.2, 2.5))
            else:
                await _within(30.0, self._connected)
                await asyncio.sleep(self.rng.uniform(0.0, longest))
            await self.place.end_child(signal.SIGKILL)
            self.kills += 1
            await self.place.spawn_server(ready=False)

    # -- the account -----------------------------------------------------------------------------------------------

    async def account(self, patience: float, *, ledger_whole: bool = True) -> Account:
        """Wait until all is written down, and compare.

        :param ledger_whole: Asterisk lived all the time, so that its CDR file has every call
        """
        place = self.place
        channels_left = await _within(5.0, lambda: _zero(place.channels()))
        await _within(30.0, self._connected)
        drained = await _within(30.0, lambda: _true(self._settled(place.status())))
        rows: dict[str, CallRecordRow] = {}
        recordings: dict[str, list[RecordingRow]] = {}
        deadline = time.monotonic() + patience
        wanted = set(self._callers)
        while True:
            async with place.database.session(read_only=True) as session:
                found = list(await session.scalars(select(CallRecordRow)))
                rows = {row.uniqueid: row for row in found}
                recordings = defaultdict(list)
                for recording in await session.scalars(select(RecordingRow)):
                    recordings[recording.call_id].append(recording)
            waiting = [one for many in recordings.values() for one in many if one.status == "pending"]
            missing = wanted - {row.caller for row in rows.values()}
            open_rows = [row for row in rows.values() if row.disposition is None]
            if time.monotonic() > deadline or not (waiting or missing or open_rows):
                break
            await asyncio.sleep(1.0)
        async with place.database.session(read_only=True) as session:
            arrivals = list(await session.scalars(select(CallEventRow.data).where(CallEventRow.type == "CallArrived")))
        logs = Counter(str(data["channel"]) for data in arrivals)
        return Account(
            placed=self.placed,
            phones=await place.carrier.phone_calls(),
            ledger=place.ledger(),
            rows=rows,
            recordings=recordings,
            logs=logs,
            channels_left=channels_left,
            drained=drained,
            ledger_whole=ledger_whole,
            server_log=place.server_log(),
            kills=self.kills,
        )

    async def _connected(self) -> str:
        return await _true(self.place.status().get("ari", {}).get("state") == "connected")

    def _settled(self, status: Mapping[str, Any]) -> bool:
        return status.get("calls") == 0 and status.get("journal", {}).get("pending") == 0


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
    channels_left: str
    drained: str
    ledger_whole: bool
    server_log: str
    kills: int
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
        worst = 0.0
        for caller, placed in callers.items():
            mine, theirs = rows[caller], ledger[caller]
            taken = placed.result.sip_call_id and (theirs or placed.result.answered or placed.result.ringing)
            if self.ledger_whole and taken and len(theirs) != 1:
                self._fault(placed, f"{len(theirs)} rows in Asterisk's CDR file")
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
                worst = max(worst, self._talk(placed, row, long, phones[caller]))
            elif self.ledger_whole and not talks and row.disposition == Disposition.ANSWERED:
                self._fault(placed, f"nobody answered, {_of(mine)}")
            elif placed.kind not in STAYING and row.disposition not in _PLAUSIBLE[placed.kind] and self.ledger_whole:
                self._fault(placed, f"is told as {_of(mine)}")
        if self.channels_left:
            self.faults.append(f"channels left after 5 s: {self.channels_left}")
        if self.drained:
            self.faults.append(f"not settled: {self.drained}")
        if "Traceback" in self.server_log:
            at = self.server_log.index("Traceback")
            self.faults.append(f"in the server's log: {self.server_log[max(0, at - 600) : at + 1500]}")
        faults = len(re.findall(r'"event": ?"(call_failed|call_not_\w+|part_failed)"', self.server_log))
        if faults:
            self.faults.append(f"{faults} faults in the server's log")
        said = [json.loads(line) for line in self.server_log.splitlines() if _TOLD.search(line)]
        found = [one for one in said if one["event"] == "recovered"]
        handled = Counter(row.handled_by for row in self.rows.values())
        self.numbers = {
            "calls": len(self.placed),
            "kills": self.kills,
            "missing": missing,
            "double": double,
            "stayed": stayed,
            "reached": reached,
            "conversations": conversations,
            "talk_off_at_most_s": round(worst, 2),
            "adopted": sum(one.get("adopted", 0) for one in found),
            "closed_at_start": sum(one.get("closed", 0) for one in found),
            "given_back": self.server_log.count('"call_given_back"'),
            "imported": sum(one.get("count", 0) for one in said if one["event"] == "calls_imported"),
            "handled_by_failsafe": handled["failsafe"],
            "end_missed": self.server_log.count('"call_end_missed"'),
            "dispositions": dict(Counter(str(row.disposition) for row in self.rows.values())),
            "recordings": dict(Counter(one.status for many in self.recordings.values() for one in many)),
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
        if off > TALK_OFF:
            self._fault(placed, f"talked for {sum(long):.2f} s, told as {row.talk_seconds:.2f} s, {_of([row])}")
        finished = [
            one
            for one in self.recordings.get(row.id, ())
            if one.status in ("ok", "suspect") and one.kind != "voicemail"
        ]
        # A machine that stands still loses speech on the way; then what the phone heard is what there was to record.
        lengths = [*long, *(duration(phone.heard) for phone in phones if phone.heard is not None)]
        if not any(abs((one.seconds or 0.0) - length) <= TALK_OFF for one in finished for length in lengths):
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
