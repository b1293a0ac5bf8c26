"""Reconciliation: what journal, database, Asterisk and the carrier say of the same calls, compared. Pure.

All times are seconds since the epoch, UTC. What is still going on is no finding: calls in progress, and those that
ended a moment ago and are on their way from one place to the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from callrouter.core.disposition import Disposition


class Kind(StrEnum):
    """Everything that can be found. A call that is none of these is the same everywhere."""

    MISSING = "missing"
    MISSING_ROW = "missing-row"
    STALE = "stale"
    OPEN = "open"
    NOT_IN_LEDGER = "not-in-ledger"
    DOUBLE = "double"
    DURATION = "duration"
    UNOWNED = "unowned"
    RECORDING_UNFINISHED = "recording-unfinished"
    RECORDING_MISSING = "recording-missing"
    CARRIER_ONLY = "carrier-only"
    OURS_ONLY = "ours-only"
    CARRIER_DURATION = "carrier-duration"
    CARRIER_DOUBLE = "carrier-double"


MEANING: dict[Kind, str] = {
    Kind.MISSING: "Asterisk has a record of the call, and the database has none",
    Kind.MISSING_ROW: "the call's log is in the database, and its row is not",
    Kind.STALE: "the call's log says that it ended, and its row does not",
    Kind.OPEN: "the call is open in the database, and Asterisk has no such channel",
    Kind.NOT_IN_LEDGER: "the database has the call, and Asterisk has no record of it",
    Kind.DOUBLE: "the call has several records or several logs in one place",
    Kind.DURATION: "database and Asterisk disagree about how long the call lasted",
    Kind.UNOWNED: "the call belongs to no company, and was not refused",
    Kind.RECORDING_UNFINISHED: "the recording was never finished, and no job is going to",
    Kind.RECORDING_MISSING: "the recording's file is not where the database says",
    Kind.CARRIER_ONLY: "the carrier has the call, and we have not",
    Kind.OURS_ONLY: "we have the call, and the carrier has not",
    Kind.CARRIER_DURATION: "the carrier and we disagree about how long the call was connected",
    Kind.CARRIER_DOUBLE: "the carrier has the call twice",
}

CERTAIN = frozenset({Kind.MISSING, Kind.MISSING_ROW, Kind.STALE, Kind.OPEN, Kind.RECORDING_UNFINISHED})
"""What can be put right without asking anybody: everything needed for it is at hand."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not agree."""

    kind: Kind
    detail: str
    """What is said where."""
    call_id: str | None = None
    uniqueid: str | None = None
    recording_id: str | None = None
    line: int | None = None
    """Of the carrier's file, from 1."""
    at: float | None = None
    """When the call began."""
    repaired: bool = False

    @property
    def certain(self) -> bool:
        """Whether it can be repaired without asking anybody."""
        return self.kind in CERTAIN


@dataclass(frozen=True, slots=True)
class OurRecording:
    id: str
    status: str
    job: str | None
    """State of the job that finishes it; None: there is none."""
    file: bool | None
    """Whether its file is there; None: it should have none."""


@dataclass(frozen=True, slots=True)
class OurCall:
    """A row of the database."""

    id: str
    uniqueid: str
    did: str
    caller: str | None
    trunk: str | None
    started_at: float
    ended_at: float | None
    company_id: str | None
    disposition: str | None
    test: bool = False
    cut: bool = False
    """Asterisk ended while it was up, so that there is no CDR of it."""
    recordings: tuple[OurRecording, ...] = ()


@dataclass(frozen=True, slots=True)
class LoggedCall:
    """A call's log in the database."""

    id: str
    uniqueid: str
    began_at: float
    over: bool


@dataclass(frozen=True, slots=True)
class AsteriskCall:
    """A row of Asterisk's CDRs, or what its channel events tell."""

    uniqueid: str
    did: str
    caller: str | None
    trunk: str
    start: float
    answer: float | None
    end: float
    ended: bool = True
    """False: its end was not written: it lasts, or Asterisk died."""
    sip_call_id: str = ""


@dataclass(frozen=True, slots=True)
class CarrierCall:
    """A line of a carrier's list."""

    line: int
    did: str
    caller: str | None
    start: float
    seconds: float
    """Connected; 0: it was not."""
    sip_call_id: str = ""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What is still the same."""

    start_seconds: float = 5.0
    """Between two clocks."""
    duration_seconds: float = 2.0
    settle_seconds: float = 30.0
    """A call that ended more lately is on its way from one place to the next."""


@dataclass(frozen=True, slots=True)
class Sources:
    """All sides. What is not known is None and not compared."""

    at: float
    """When they were asked."""
    since: float
    until: float
    ours: tuple[OurCall, ...] = ()
    logs: tuple[LoggedCall, ...] = ()
    waiting: frozenset[str] = frozenset()
    """Unique ids of calls of which something still waits in the journal."""
    cdrs: tuple[AsteriskCall, ...] = ()
    events: tuple[AsteriskCall, ...] = ()
    ledger_since: float | None = None
    """From when on Asterisk's CDRs are kept; None: there are none."""
    live: frozenset[str] | None = None
    """Unique ids of Asterisk's channels now; None: it was not asked."""
    carrier: tuple[CarrierCall, ...] | None = None
    carrier_trunk: str | None = None
    """The trunk whose list it is; None: all."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What came of it."""

    found: tuple[Finding, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    """How many calls each side has, and how many are the same everywhere."""

    @property
    def unexplained(self) -> tuple[Finding, ...]:
        """What was not put right."""
        return tuple(one for one in self.found if not one.repaired)


def reconcile(sources: Sources, tolerance: Tolerance = Tolerance()) -> Findings:
    """Compare all sides.

    Each call is told from others by Asterisk's unique id; the carrier's by SIP Call-ID where it has it, else by caller,
    number and time.
    """
    return _Comparison(sources, tolerance).result()


class _Comparison:
    def __init__(self, sources: Sources, tolerance: Tolerance) -> None:
        self._sources = sources
        self._tolerance = tolerance
        self._ours = {call.uniqueid: call for call in sources.ours}
        self._cdrs = {call.uniqueid: call for call in sources.cdrs}
        self._events = {call.uniqueid: call for call in sources.events}
        self._logs: dict[str, list[LoggedCall]] = {}
        for log in sources.logs:
            self._logs.setdefault(log.uniqueid, []).append(log)

    def result(self) -> Findings:
        known = [*self._ours, *self._logs, *self._cdrs, *self._events]
        found: list[Finding] = []
        compared = same = going_on = 0
        for uniqueid in dict.fromkeys(known):
            if not self._sources.since <= self._began(uniqueid) < self._sources.until:
                continue
            if self._going_on(uniqueid):
                going_on += 1
                continue
            compared += 1
            findings = list(self._call(uniqueid))
            same += not findings
            found += findings
        found += self._carrier()
        counts = {
            "compared": compared,
            "same": same,
            "in_progress": going_on,
            "database": len(self._ours),
            "logs": len(self._sources.logs),
            "cdr": len(self._cdrs),
            "events": len(self._events),
        }
        if self._sources.carrier is not None:
            counts["carrier"] = len(self._sources.carrier)
        return Findings(tuple(sorted(found, key=lambda one: (one.at or 0.0, one.kind))), counts)

    # -- one call ------------------------------------------------------------------------------------------------------

    def _began(self, uniqueid: str) -> float:
        ours = self._ours.get(uniqueid)
        if ours is not None:
            return ours.started_at
        told = self._cdrs.get(uniqueid) or self._events.get(uniqueid)
        return told.start if told is not None else self._logs[uniqueid][0].began_at

    def _going_on(self, uniqueid: str) -> bool:
        sources = self._sources
        if uniqueid in sources.waiting or (sources.live is not None and uniqueid in sources.live):
            return True
        ours, cdr, events = self._ours.get(uniqueid), self._cdrs.get(uniqueid), self._events.get(uniqueid)
        ends = [each.end for each in (cdr, events) if each is not None]
        ends += [ours.ended_at] if ours is not None and ours.ended_at is not None else []
        ends += [self._began(uniqueid)]
        if sources.at - max(ends) < self._tolerance.settle_seconds:
            return True
        # Whether a channel that nobody was asked about lives cannot be known.
        closed = cdr is not None or (ours is not None and ours.ended_at is not None) or self._log_over(uniqueid)
        return sources.live is None and not closed

    def _log_over(self, uniqueid: str) -> bool:
        return any(log.over for log in self._logs.get(uniqueid, ()))

    def _call(self, uniqueid: str) -> Iterator[Finding]:
        ours, logs = self._ours.get(uniqueid), self._logs.get(uniqueid, [])
        told = self._cdrs.get(uniqueid) or self._events.get(uniqueid)
        at = self._began(uniqueid)
        if len({log.id for log in logs}) > 1:
            names = ", ".join(sorted({log.id for log in logs}))
            yield Finding(Kind.DOUBLE, f"logs {names}", ours.id if ours else None, uniqueid, at=at)
        if ours is None:
            if logs:
                over = "ended" if self._log_over(uniqueid) else "open"
                yield Finding(Kind.MISSING_ROW, f"the log is {over}", logs[0].id, uniqueid, at=at)
            elif told is not None:
                detail = f"{told.caller or 'anonymous'} → {told.did}, {told.end - told.start:.0f} s"
                yield Finding(Kind.MISSING, detail, None, uniqueid, at=at)
            return
        if ours.ended_at is None:
            if self._log_over(uniqueid):
                yield Finding(Kind.STALE, "the log has ended", ours.id, uniqueid, at=at)
            else:
                end = "has its record" if uniqueid in self._cdrs else "left no record of it"
                yield Finding(Kind.OPEN, f"Asterisk {end}", ours.id, uniqueid, at=at)
        yield from self._against_asterisk(ours, told)
        if ours.company_id is None and ours.disposition not in (None, Disposition.REJECTED):
            yield Finding(Kind.UNOWNED, f"{ours.did}: {ours.disposition}", ours.id, uniqueid, at=at)
        if ours.ended_at is not None:
            yield from self._recordings(ours)

    def _against_asterisk(self, ours: OurCall, told: AsteriskCall | None) -> Iterator[Finding]:
        since = self._sources.ledger_since
        if told is None:
            if since is not None and ours.started_at > since and ours.ended_at is not None and not ours.cut:
                detail = f"{ours.caller or 'anonymous'} → {ours.did}"
                yield Finding(Kind.NOT_IN_LEDGER, detail, ours.id, ours.uniqueid, at=ours.started_at)
            return
        if ours.ended_at is None or ours.uniqueid not in self._cdrs:
            return
        mine, theirs = ours.ended_at - ours.started_at, told.end - told.start
        # The controller sees a call when it enters the application, which is later than Asterisk does.
        if abs(ours.ended_at - told.end) > self._tolerance.duration_seconds and self._differ(mine, theirs):
            detail = f"{mine:.1f} s in the database, {theirs:.1f} s for Asterisk"
            yield Finding(Kind.DURATION, detail, ours.id, ours.uniqueid, at=ours.started_at)

    def _differ(self, mine: float, theirs: float) -> bool:
        return abs(mine - theirs) > self._tolerance.duration_seconds

    def _recordings(self, ours: OurCall) -> Iterator[Finding]:
        for one in ours.recordings:
            if one.status == "pending" and one.job not in ("queued", "running"):
                why = "its job was given up" if one.job == "dead" else "it has no job"
                yield Finding(
                    Kind.RECORDING_UNFINISHED, f"{one.id}: {why}", ours.id, ours.uniqueid, one.id, at=ours.started_at
                )
            elif one.file is False:
                yield Finding(
                    Kind.RECORDING_MISSING,
                    f"{one.id}: {one.status}",
                    ours.id,
                    ours.uniqueid,
                    one.id,
                    at=ours.started_at,
                )

    # -- the carrier ---------------------------------------------------------------------------------------------------

    def _carrier(self) -> list[Finding]:
        lines = self._sources.carrier
        if not lines:
            return []
        candidates = self._sides()
        pairs, repeated = self._pairs(lines, candidates)
        found = [self._about(Kind.CARRIER_DOUBLE, line, f"as line {first.line}") for line, first in repeated]
        matched = {id(line) for line, _ in pairs} | {id(line) for line, _ in repeated}
        for line, uniqueid in pairs:
            connected = _connected(candidates[uniqueid])
            if not self._going_on(uniqueid) and self._differ(connected, line.seconds):
                detail = f"{line.seconds:.0f} s for the carrier, {connected:.1f} s for Asterisk"
                found.append(self._about(Kind.CARRIER_DURATION, line, detail, uniqueid))
        settled = self._sources.at - self._tolerance.settle_seconds
        found += [
            self._about(Kind.CARRIER_ONLY, line, f"{line.caller or 'anonymous'} → {line.did}, {line.seconds:.0f} s")
            for line in lines
            if id(line) not in matched and line.start + line.seconds <= settled
        ]
        taken = {uniqueid for _, uniqueid in pairs}
        # Many carriers list only what was connected, and none lists what it did not have yet.
        unconnected = any(line.seconds == 0 for line in lines)
        first, last = min(line.start for line in lines), max(line.start for line in lines)
        for uniqueid, side in candidates.items():
            listed = first <= side.start + self._tolerance.start_seconds and side.start <= last
            if uniqueid in taken or not listed or self._going_on(uniqueid):
                continue
            if side.answer is None and not unconnected:
                continue
            ours = self._ours.get(uniqueid)
            detail = f"{side.caller or 'anonymous'} → {side.did}, {_connected(side):.0f} s"
            found.append(Finding(Kind.OURS_ONLY, detail, ours.id if ours else None, uniqueid, at=side.start))
        return found

    def _about(self, kind: Kind, line: CarrierCall, detail: str, uniqueid: str | None = None) -> Finding:
        ours = self._ours.get(uniqueid or "")
        return Finding(kind, detail, ours.id if ours else None, uniqueid, line=line.line, at=line.start)

    def _sides(self) -> dict[str, AsteriskCall]:
        """What the carrier's lines can be: calls as Asterisk saw them, and those of which only we know."""
        trunk = self._sources.carrier_trunk
        sides = {**self._events, **self._cdrs}
        for uniqueid, ours in self._ours.items():
            if uniqueid not in sides:
                end = ours.ended_at or ours.started_at
                sides[uniqueid] = AsteriskCall(
                    uniqueid, ours.did, ours.caller, ours.trunk or "", ours.started_at, ours.started_at, end
                )
        # The built-in carrier has no list, unless somebody names it.
        tests = {uniqueid for uniqueid, ours in self._ours.items() if ours.test and trunk is None}
        return {
            uniqueid: side
            for uniqueid, side in sides.items()
            if uniqueid not in tests and trunk in (None, side.trunk) and self._sources.since <= side.start
        }

    def _pairs(
        self, lines: Iterable[CarrierCall], candidates: dict[str, AsteriskCall]
    ) -> tuple[list[tuple[CarrierCall, str]], list[tuple[CarrierCall, CarrierCall]]]:
        """Each line with its call, and lines that repeat another one."""
        by_call_id = {side.sip_call_id: uniqueid for uniqueid, side in candidates.items() if side.sip_call_id}
        by_did: dict[str, list[str]] = {}
        for uniqueid, side in candidates.items():
            by_did.setdefault(side.did, []).append(uniqueid)
        pairs: list[tuple[CarrierCall, str]] = []
        taken: dict[str, CarrierCall] = {}
        repeated: list[tuple[CarrierCall, CarrierCall]] = []
        rest: list[CarrierCall] = []
        for line in lines:
            named = by_call_id.get(line.sip_call_id) if line.sip_call_id else None
            if named is None:
                rest.append(line)
            elif named in taken:
                repeated.append((line, taken[named]))
            else:
                taken[named] = line
                pairs.append((line, named))
        possible = [
            (abs(candidates[uniqueid].start - line.start), place, uniqueid)
            for place, line in enumerate(rest)
            for uniqueid in by_did.get(line.did, ())
            if uniqueid not in taken and self._may_be(line, candidates[uniqueid])
        ]
        used: Counter[int] = Counter()
        for _, place, uniqueid in sorted(possible):
            if not used[place] and uniqueid not in taken:
                used[place] += 1
                taken[uniqueid] = rest[place]
                pairs.append((rest[place], uniqueid))
        seen: dict[CarrierCall, CarrierCall] = {}
        for place, line in enumerate(rest):
            key = CarrierCall(0, line.did, line.caller, line.start, line.seconds, line.sip_call_id)
            first = seen.setdefault(key, line)
            if first is not line and not used[place]:
                repeated.append((line, first))
        return pairs, repeated

    def _may_be(self, line: CarrierCall, side: AsteriskCall) -> bool:
        callers = {line.caller, side.caller}
        same_caller = len(callers) == 1 or None in callers
        # Some carriers count from the INVITE, others from the answer.
        moments = [side.start] if side.answer is None else [side.start, side.answer]
        return same_caller and min(abs(line.start - at) for at in moments) <= self._tolerance.start_seconds


def _connected(side: AsteriskCall) -> float:
    return side.end - side.answer if side.answer is not None else 0.0
