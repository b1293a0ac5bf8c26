"""An account of a storm: what callers, phones, Asterisk's CDR file and our records say of each call, put together."""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from callrouter.asterisk.ledger import LedgerRow
from callrouter.core.disposition import Disposition
from callrouter.store.models import CallRecordRow, RecordingRow
from callrouter.testing.audio import duration
from callrouter.testing.carrier_legs import CallResult, PhoneCall
from tests.outages import Metronome

STAYING = ("direct", "menu")
"""Kinds whose callers wait for the business to answer."""
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
            "talk_off_s": median_and_worst(off),
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


def median_and_worst(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.2f}, at most {max(seconds):.2f}" if seconds else "none"
