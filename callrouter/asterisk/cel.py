"""Channel events (CEL): Asterisk's second ledger. A CDR is written when a call ends; these lines as things happen, so
that they outlive an Asterisk that dies in the middle of a call."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from callrouter.asterisk.ledger import LedgerRow, behind_a_torn_one, cells_of, csv_quoted, file_identity
from callrouter.files import whole_lines

CEL_COLUMNS: tuple[tuple[str, str], ...] = (
    ("event", "eventtype"),
    ("at", "eventtime"),
    ("uniqueid", "CHANNEL(uniqueid)"),
    ("linkedid", "CHANNEL(linkedid)"),
    ("channel", "CHANNEL(channame)"),
    ("peer", "BRIDGEPEER"),
    ("exten", "CHANNEL(exten)"),
    ("context", "CHANNEL(context)"),
    ("extra", "eventextra"),
    ("caller", "CALLERID(num)"),
    ("app", "CHANNEL(appname)"),
    ("data", "CHANNEL(appdata)"),
)
"""Column and what fills it, in order. Append only: old files are still read."""
OLD_COLUMNS = 9
"""Lines of before version 0.2 have so many."""
TRUNK_CONTEXT = "cr-trunk-"
OFFERS = ("stasis", "stasisbroadcast")
UNOFFERED = 1000
"""How many calls that ended before they were offered to a controller a tail keeps."""
_RECORDING = re.compile(r"r\(([^()]+)-rx\.wav\)")


def cel_mapping() -> str:
    """The right-hand side of cel_custom.conf's mapping.

    Without control characters: a line break in a number that was dialled would begin a line of the caller's own.
    """
    return ",".join(csv_quoted(f"FILTER(\\x20-\\x7e,${{{source}}})") for _, source in CEL_COLUMNS)


@dataclass(frozen=True, slots=True)
class CelLine:
    """One thing that happened to a channel. ``at`` is seconds since the epoch, UTC."""

    event: str
    at: float
    uniqueid: str
    linkedid: str
    channel: str
    peer: str
    exten: str
    context: str
    extra: str
    caller: str = ""
    app: str = ""
    data: str = ""


@dataclass(frozen=True, slots=True)
class CelCall:
    """A call that came in, as far as its channel's events tell."""

    row: LedgerRow
    """In the form of Asterisk's CDR; ``end`` is the last that was seen of it."""
    place: int
    """Where its first line stands in the file."""
    entered: bool = False
    """Whether it came as far as being offered to a controller: what is refused before that leaves no CDR either."""
    ended: bool = False


class CelFold:
    """Calls that came in over a trunk, folded from the lines of their channels.

    :param keep_ended: whether all calls that have ended are kept, not only the last that were never offered to a
        controller: their CDRs may lack what these lines know (see :func:`named`)
    """

    def __init__(self, *, keep_ended: bool = False) -> None:
        self.calls: dict[str, CelCall] = {}
        self._keep_ended = keep_ended

    def add(self, line: CelLine, place: int) -> None:
        """One more line, of any channel; ``place`` is where it begins."""
        call = self.calls.get(line.uniqueid)
        if call is None:
            # A leg that we dial over a trunk begins in the same context, and belongs to its caller's channel.
            begins = line.event == "CHAN_START" and line.uniqueid == line.linkedid
            if begins and line.context.startswith(TRUNK_CONTEXT):
                self.calls[line.uniqueid] = CelCall(_begun(line), place)
            return
        if line.event == "HANGUP" and call.entered and not self._keep_ended:
            del self.calls[line.uniqueid]
            return
        self.calls[line.uniqueid] = replace(
            call,
            row=_told(call.row, line),
            entered=call.entered or (line.event == "APP_START" and line.app.lower() in OFFERS),
            ended=call.ended or line.event == "HANGUP",
        )
        if line.event == "HANGUP" and not self._keep_ended:
            unoffered = [key for key, each in self.calls.items() if each.ended]
            for key in unoffered[:-UNOFFERED]:
                del self.calls[key]


class CelTail:
    """The file of channel events, followed as it grows; the calls in it that have not ended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fold = CelFold()
        self._file = ""
        self._offset = 0

    def seek(self, file: str, offset: int) -> None:
        """Go on from where an earlier run stopped."""
        self._file, self._offset, self._fold = file, offset, CelFold()

    @property
    def place(self) -> tuple[str, int]:
        """From where a later run has to read: the file, and the first line of the oldest call that is kept."""
        return self._file, min((call.place for call in self._fold.calls.values()), default=self._offset)

    def poll(self) -> None:
        """Read what was written since. Another file under the name was rotated in."""
        try:
            facts = self.path.stat()
        except OSError:
            return
        file = file_identity(facts)
        if file != self._file or facts.st_size < self._offset:
            # Whose calls began in the file before are known, and may end in this one.
            self._fold.calls = {key: replace(call, place=0) for key, call in self._fold.calls.items()}
            self._file, self._offset = file, 0
        for line, begin, end in read_cel(self.path, self._offset):
            self._offset = end
            if line is not None:
                self._fold.add(line, begin)

    def unfinished(self) -> dict[str, LedgerRow]:
        """Calls whose end was not written, by unique id: they last, or Asterisk ended before they did."""
        return {key: call.row for key, call in self._fold.calls.items() if not call.ended}

    def named(self, row: LedgerRow) -> LedgerRow:
        """A CDR with who called whom, see :func:`named`."""
        return named(row, self._fold.calls.get(row.uniqueid))

    def forget(self, uniqueid: str) -> None:
        """Asterisk will write no more of this call."""
        self._fold.calls.pop(uniqueid, None)


def calls_in(path: Path, since: float) -> dict[str, CelCall]:
    """Every call that began at ``since`` (seconds since the epoch) or later, ended or not, by unique id."""
    fold = CelFold(keep_ended=True)
    for line, begin, _ in read_cel(path):
        if line is not None and line.at >= since:
            fold.add(line, begin)
    return fold.calls


def named(row: LedgerRow, call: CelCall | None) -> LedgerRow:
    """A CDR with trunk, DID and caller, which a call cancelled at the dialplan's first steps has from here alone.

    CDR(dst) and CDR(src) know them too, but as the caller wrote them: a line break there would begin a row of his own.
    """
    if row.handled_by or call is None:  # which the dialplan sets behind these
        return row
    told = call.row
    return replace(row, trunk=row.trunk or told.trunk, did=row.did or told.did, caller=row.caller or told.caller)


def _begun(line: CelLine) -> LedgerRow:
    return LedgerRow(
        uniqueid=line.uniqueid,
        linkedid=line.linkedid,
        start=line.at,
        answer=None,
        end=line.at,
        billsec=0.0,
        disposition="",
        channel=line.channel,
        trunk=line.context.removeprefix(TRUNK_CONTEXT),
        did=line.exten,
        caller=line.caller,
        handled_by="failsafe",
        failsafe_reason="",
        dialstatus="",
        cause=41,
        dial_at=None,
        talk_seconds=0.0,
        talk_at=None,
        target="",
        leg="",
        recording="",
        recording_problem="",
        number_id="",
        campaign_id="",
        company_id="",
        cut=True,
    )


def _told(row: LedgerRow, line: CelLine) -> LedgerRow:
    """What a line of the caller's channel adds."""
    row = replace(row, end=max(row.end, line.at))
    match line.event, line.app.lower():
        case "ANSWER", _:
            return replace(row, answer=row.answer or line.at)
        case "APP_START", app if app in OFFERS:
            # incoming:TRUNK:DID, with commas where Stasis() takes it.
            words = re.split(r"[,:]", line.data)
            if "incoming" in words[:-2]:
                trunk, did = words[words.index("incoming") + 1 :][:2]
                return replace(row, trunk=trunk, did=did)
        case "APP_START", "mixmonitor":
            if (found := _RECORDING.search(line.data)) is not None:
                return replace(row, recording=found[1], leg=Path(found[1]).name, dial_at=None)
        case "APP_START", "dial":
            if row.dial_at is not None:
                # No MixMonitor came before it: this destination is not recorded.
                row = replace(row, recording="", leg="")
            target = line.data.partition(",")[0]
            return replace(row, dial_at=line.at, target=target, talk_at=None, talk_seconds=0.0, dialstatus="")
        case "BRIDGE_ENTER", _:
            return replace(row, talk_at=row.talk_at or line.at, dialstatus="ANSWER")
        case "BRIDGE_EXIT", _ if row.talk_at is not None:
            return replace(row, talk_seconds=line.at - row.talk_at)
    return row


def parse_cel(line: str) -> CelLine:
    """One line.

    :raises ValueError: it is no whole one
    """
    cells = cells_of(line)
    if len(cells) not in (OLD_COLUMNS, len(CEL_COLUMNS)):
        raise ValueError(f"a line of channel events has {len(CEL_COLUMNS)} columns, this one {len(cells)}")
    values = dict(zip((name for name, _ in CEL_COLUMNS), cells, strict=False))
    return CelLine(at=float(values.pop("at")), **values)


def read_cel(path: Path, offset: int = 0) -> Iterator[tuple[CelLine | None, int, int]]:
    """Whole lines from byte ``offset`` on, each with where it begins and ends; None for one that is damaged."""
    for raw, end in whole_lines(path, offset):
        begin = end - len(raw)
        try:
            text = behind_a_torn_one(raw.decode("utf-8", "replace"), len(CEL_COLUMNS))
            yield parse_cel(text), begin, end
        except (ValueError, csv.Error):
            yield None, begin, end
