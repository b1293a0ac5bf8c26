"""The ledger: Asterisk's own CDR file, written without this program and read when a call must be reconstructed.

One row for each channel that came in. ``cdr.conf`` keeps a call's dials and bridges in one row
(``ignorestatechanges``, ``ignoredialchanges``), so ``uniqueid`` is a key.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from callrouter.files import whole_lines

LEDGER_COLUMNS: tuple[tuple[str, str], ...] = (
    ("uniqueid", "CDR(uniqueid)"),
    ("linkedid", "CDR(linkedid)"),
    ("start", "CDR(start,u)"),
    ("answer", "CDR(answer,u)"),
    ("end", "CDR(end,u)"),
    ("billsec", "CDR(billsec)"),
    ("disposition", "CDR(disposition)"),
    ("channel", "CDR(channel)"),
    ("trunk", "CDR(cr_trunk)"),
    ("did", "CDR(cr_did)"),
    ("caller", "CDR(cr_caller)"),
    ("handled_by", "CDR(cr_handled)"),
    ("failsafe_reason", "CDR(cr_failsafe)"),
    ("dialstatus", "CDR(cr_dialstatus)"),
    ("cause", "CDR(cr_cause)"),
    ("dial_at", "CDR(cr_dial_at)"),
    ("talk_at", "CDR(cr_talk_at)"),
    ("talk_end", "CDR(cr_talk_end)"),
    ("target", "CDR(cr_target)"),
    ("leg", "CDR(cr_leg)"),
    ("recording", "CDR(cr_rec)"),
    ("recording_problem", "CDR(cr_rec_problem)"),
    ("number_id", "CDR(cr_number)"),
    ("campaign_id", "CDR(cr_campaign)"),
    ("company_id", "CDR(cr_company)"),
    ("sip_call_id", "CDR(cr_call_id)"),
)
"""Column and the Asterisk function that fills it, in order. Append only: old files are still read."""
OLDEST_COLUMNS = 25
"""How many the first version wrote."""


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One call, as Asterisk saw it. Times are seconds since the epoch, UTC."""

    uniqueid: str
    linkedid: str
    start: float
    answer: float | None
    """When the caller's channel was answered, by a menu or by the business."""
    end: float
    billsec: float
    """Seconds from ``answer`` to ``end``; for the conversation see ``talk_seconds``."""
    disposition: str
    channel: str
    trunk: str
    did: str
    """As dialled; as E.164 when the failsafe knew it."""
    caller: str
    handled_by: str
    """"controller" or "failsafe"."""
    failsafe_reason: str
    """STASISSTATUS (FAILED, TIMEOUT), DEADMAN, or what the controller set; empty when the failsafe was not used."""
    dialstatus: str
    """DIALSTATUS of the last destination; empty when none was dialled."""
    cause: int
    """Q.850 cause of the last destination, or of the caller's hang-up when it came first."""
    dial_at: float | None
    """When the last destination was dialled."""
    talk_seconds: float
    """Conversation with the last destination; 0 when it did not answer."""
    talk_at: float | None
    """When that conversation began: the business had answered and heard its whisper."""
    target: str
    """Dial string of the last destination."""
    leg: str
    recording: str
    """Base path of the last destination's recording, "-rx.wav" and "-tx.wav" follow; empty when not recorded."""
    recording_problem: str
    number_id: str
    campaign_id: str
    company_id: str
    sip_call_id: str = ""
    """Call-ID of the caller's INVITE (RFC 3261, 8.1.1.4)."""
    cut: bool = False
    """Put together from channel events: Asterisk ended while the call was up and wrote no CDR; ``end`` is when the
    call was last seen."""


def csv_quoted(source: str) -> str:
    return "${CSV_QUOTE(${" + source + "})}"


def ledger_mapping() -> str:
    """The right-hand side of cdr_custom.conf's mapping."""
    return ",".join(csv_quoted(source) for _, source in LEDGER_COLUMNS)


def ledger_fields() -> str:
    """The same columns for an Asterisk that reads field lists, without evaluating functions for every row."""

    def field(source: str) -> str:
        name, _, flag = source.removeprefix("CDR(").rstrip(")").partition(",")
        if name.startswith("cr_"):
            return f"{name}(uservar)"
        return f"{name}(double)" if flag else name

    return ",".join(field(source) for _, source in LEDGER_COLUMNS)


def parse_ledger(line: str) -> LedgerRow:
    """One line of the ledger.

    :raises ValueError: it is no whole row (the last line of a file may be cut short by a crash)
    """
    cells = cells_of(line)
    if not OLDEST_COLUMNS <= len(cells) <= len(LEDGER_COLUMNS):
        raise ValueError(f"a ledger row has {len(LEDGER_COLUMNS)} columns, this one {len(cells)}")
    row = dict(zip((name for name, _ in LEDGER_COLUMNS), cells, strict=False))
    dial_at = _time(row.pop("dial_at"))
    talk_at, talk_end = _time(row.pop("talk_at")), _time(row.pop("talk_end"))
    start, end = _time(row.pop("start")), _time(row.pop("end"))
    if start is None or end is None:
        raise ValueError("a ledger row has no times")
    answer, cause = _time(row.pop("answer")), int(_number(row.pop("cause")))
    # Asterisk's own column has whole seconds; asking it for fractions sends 22.10.1 into an endless loop.
    del row["billsec"]
    return LedgerRow(
        start=start,
        answer=answer,
        end=end,
        billsec=end - answer if answer else 0.0,
        cause=cause,
        dial_at=dial_at,
        talk_seconds=(talk_end or end) - talk_at if talk_at else 0.0,
        talk_at=talk_at,
        cut=False,
        **row,
    )


def cells_of(line: str) -> list[str]:
    """The cells of one line of CSV as Asterisk writes it.

    :raises csv.Error: it is none
    """
    return next(csv.reader([line.rstrip("\r\n")], strict=True), [])


def behind_a_torn_one(line: str, columns: int) -> str:
    """A whole row that was written behind one that a power failure had cut off, and so stands in the same line; else
    the line as it is.

    :param columns: how many a row has now
    """
    start = 0
    while start >= 0:
        try:
            cells = cells_of(line[start:])
            # No first column ever holds a quotation mark: it is one that was cut off, and another's beginning.
            if len(cells) == columns and '"' not in cells[0]:
                return line[start:]
            if len(cells) < columns:
                return line
        except csv.Error:
            pass
        start = line.find('"', start + 1)
    return line


def read_ledger(path: Path, offset: int = 0) -> Iterator[tuple[LedgerRow, int]]:
    """Whole rows from byte ``offset`` on, each with the offset behind it. A damaged row is passed over."""
    for line, end in whole_lines(path, offset):
        text = behind_a_torn_one(line.decode("utf-8", "replace"), len(LEDGER_COLUMNS))
        try:
            yield parse_ledger(text), end
        except (ValueError, csv.Error):
            continue


def file_identity(facts: os.stat_result) -> str:
    """Tells a rotated file from the one under the same name now."""
    return f"{facts.st_dev}:{facts.st_ino}"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _time(text: str) -> float | None:
    return _number(text) or None


assert {name for name, _ in LEDGER_COLUMNS} - {"talk_end"} <= {f.name for f in fields(LedgerRow)}
