"""Channel events: what is known of a call whose Asterisk died."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from callrouter.asterisk import cel
from callrouter.asterisk.cel import CEL_COLUMNS, CelTail, calls_in, cel_mapping, named
from callrouter.core.cdr import fold
from callrouter.core.disposition import Disposition
from callrouter.runtime.importer import last_seen
from callrouter.runtime.unwatched import log_of
from tests.builders import CALLER, DID, T0, ledger_row, table

CHANNEL = "callrouter-1760000000.0"
REC = f"/spool/fs-{CHANNEL}-1"
DIALLED = "PJSIP/callrouter-uri/sip:ana@192.0.2.7"


def line(event: str, after: float, app: str = "", data: str = "", **changes: Any) -> str:
    """A line as Asterisk writes it, of the caller's channel unless said otherwise."""
    values: dict[str, object] = {
        "event": event, "at": f"{T0 + after:.6f}", "uniqueid": CHANNEL, "linkedid": CHANNEL,
        "channel": "PJSIP/trunk-carrier-00000000", "peer": "", "exten": "s", "context": "cr-leg", "extra": "",
        "caller": CALLER, "app": app, "data": data,
    }  # fmt: skip
    values |= changes
    assert list(values) == [name for name, _ in CEL_COLUMNS]
    return ",".join('"' + str(value).replace('"', '""') + '"' for value in values.values()) + "\n"


ARRIVES = [line("CHAN_START", 0, exten=DID, context="cr-trunk-carrier")]
WAITS = [*ARRIVES, line("APP_START", 0.1, "StasisBroadcast", f"500,^callrouter$,incoming:carrier:{DID}")]
RECORDS = [*WAITS, line("APP_START", 0.6, "MixMonitor", f",br({REC}-rx.wav)t({REC}-tx.wav)")]
RINGS = [
    *RECORDS,
    line("APP_START", 0.7, "Dial", f"{DIALLED},20,gib(cr-leg-out^s^1)U(cr-connect^)"),
    line("CHAN_START", 0.8, uniqueid="callrouter-1760000000.1", context="cr-none"),
]
TALKS = [
    *RINGS,
    line("ANSWER", 5.9, "Dial", f"{DIALLED},20"),
    line("BRIDGE_ENTER", 6, "Dial", f"{DIALLED},20", extra='{"bridge_id":"b"}'),
    line("BRIDGE_ENTER", 6, uniqueid="callrouter-1760000000.1"),
]
PARTS = [*TALKS, line("BRIDGE_EXIT", 26, "Dial", f"{DIALLED},20")]
ENDS = [*PARTS, line("HANGUP", 26.1), line("LINKEDID_END", 26.2)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "callrouter.csv"


def unfinished(path: Path, lines: list[str]) -> dict[str, Any]:
    path.write_text("".join(lines))
    return read_again(path)


def read_again(path: Path) -> dict[str, Any]:
    tail = CelTail(path)
    tail.poll()
    return tail.unfinished()


@pytest.mark.parametrize(
    "lines,disposition,reason,talked",
    [
        (ARRIVES, Disposition.FAILED, "Asterisk ended while the call was up", 0),
        (WAITS, Disposition.FAILED, "Asterisk ended while the call was up", 0),
        (RECORDS, Disposition.FAILED, "Asterisk ended while the call was up", 0),
        (RINGS, Disposition.FAILED, "Asterisk ended while the call was up: ana rang", 0),
        (
            PARTS,
            Disposition.ANSWERED,
            "Asterisk ended while the call was up: ana answered and talked for 20 s",
            20,
        ),
    ],
    ids=["arrived", "waits", "records", "rings", "talked"],
)
def test_what_remains_of_a_call_becomes_an_honest_record(path, lines, disposition, reason, talked):
    row = last_seen(unfinished(path, lines)[CHANNEL])
    record = fold(log_of(row, "c", table(), "US"))
    assert record is not None
    assert (record.uniqueid, record.did, record.caller, record.trunk) == (CHANNEL, DID, CALLER, "carrier")
    assert (record.handled_by, record.campaign_id) == ("failsafe", "campaign-1")
    assert (record.disposition, record.reason) == (disposition, reason)
    assert record.talk_seconds == pytest.approx(talked)
    assert all(leg.ended_at is not None for leg in record.legs)


def test_the_recording_is_the_one_that_was_being_made(path):
    row = unfinished(path, TALKS)[CHANNEL]
    assert (row.recording, row.leg, row.target) == (REC, f"fs-{CHANNEL}-1", DIALLED)
    record = fold(log_of(row, "c", table(), "US"))
    assert record is not None
    assert [(one.id, one.leg_id) for one in record.recordings] == [(row.leg, row.leg)]
    assert (record.legs[0].target, record.legs[0].answered_at) == ("ana", T0 + 6)


def test_the_end_is_when_the_recording_was_last_written(path, tmp_path):
    import os

    row = replace(unfinished(path, TALKS)[CHANNEL], recording=str(tmp_path / "leg"))
    side = tmp_path / "leg-tx.wav"
    side.write_bytes(b"RIFF")
    os.utime(side, (T0 + 66, T0 + 66))
    seen = last_seen(row)
    assert (seen.end, seen.talk_seconds) == (T0 + 66, 60)


def test_a_second_destination_without_a_recording_has_none(path):
    row = unfinished(path, [*RINGS, line("APP_START", 9, "Dial", "PJSIP/other,20,g")])[CHANNEL]
    assert (row.target, row.recording, row.leg) == ("PJSIP/other", "", "")


def test_a_number_from_the_to_header_is_the_one_that_was_offered(path):
    lines = [line("CHAN_START", 0, exten="trunk", context="cr-trunk-carrier"),
             line("APP_START", 0.1, "Stasis", f"callrouter,incoming,carrier,{DID}")]  # fmt: skip
    assert unfinished(path, lines)[CHANNEL].did == DID


def test_a_call_that_ended_is_none(path):
    assert unfinished(path, ENDS) == {}
    assert calls_in(path, 0)[CHANNEL].ended
    assert calls_in(path, T0 + 1) == {}


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_power_failure_may_cut_the_last_line(path, cut):
    assert CHANNEL in unfinished(path, [*TALKS, ENDS[-2][:-cut]])


def test_damaged_lines_are_passed_over(path):
    lines = [*TALKS, "\x00" * 512 + "\n", '"HANGUP","x"\n', '"HAN\n', *ENDS[-2:]]
    assert unfinished(path, lines) == {}
    assert CHANNEL in unfinished(path, [TALKS[0], "\x00\xff\n", '"CHAN_START",\n'])


def test_lines_of_before_are_still_read(path):
    old = [",".join(each.split(",")[:9]) + "\n" for each in (ARRIVES[0], line("ANSWER", 2))]
    row = unfinished(path, old)[CHANNEL]
    assert (row.did, row.answer, row.caller) == (DID, T0 + 2, "")


def test_a_tail_goes_on_where_calls_last(path):
    path.write_text("".join([*ENDS, *(each.replace(CHANNEL, "callrouter-2.0") for each in TALKS)]))
    tail = CelTail(path)
    tail.poll()
    file, offset = tail.place
    assert offset == len("".join(ENDS))
    later = CelTail(path)
    later.seek(file, offset)
    later.poll()
    assert later.unfinished() == tail.unfinished()
    later.forget("callrouter-2.0")
    assert later.place == (file, path.stat().st_size)


def test_a_rotated_file_is_read_from_its_start_and_may_end_older_calls(path):
    path.write_text("".join(TALKS))
    tail = CelTail(path)
    tail.poll()
    path.rename(path.with_suffix(".1"))
    tail.poll()
    assert CHANNEL in tail.unfinished()
    path.write_text(ENDS[-2])
    tail.poll()
    assert tail.unfinished() == {}


def test_every_column_is_quoted():
    assert cel_mapping().count("CSV_QUOTE") == len(CEL_COLUMNS)


def test_a_line_written_behind_a_torn_one_is_read(path):
    whole = TALKS[0]
    for cut in range(1, len(ENDS[-2]) - 1):
        path.write_text("".join(ENDS[:-2]) + ENDS[-2][:cut] + whole.replace(CHANNEL, "callrouter-2.0"))
        assert "callrouter-2.0" in read_again(path), cut


def test_a_cdr_written_behind_a_torn_one_is_read(path):
    from callrouter.asterisk.ledger import read_ledger
    from tests.contract.runtime.support import ledger_line

    first, second = ledger_line("1.1", caller="a, b"), ledger_line("2.2")
    for cut in range(len(first) - 1):
        path.write_text(first[:cut] + second)
        assert [row.uniqueid for row, _ in read_ledger(path)] == ["2.2"], cut
    path.write_bytes(b"\0" * 4000 + second.encode())
    assert [row.uniqueid for row, _ in read_ledger(path)] == ["2.2"]
    old = ",".join(ledger_line("3.3").split(",")[:25]) + "\n"
    path.write_text(old)
    assert [(row.uniqueid, row.sip_call_id) for row, _ in read_ledger(path)] == [("3.3", "")]


def test_a_leg_that_is_dialled_over_a_trunk_is_no_call_of_its_own(path):
    leg = "callrouter-1760000000.1"
    lines = [*ARRIVES, line("CHAN_START", 1, uniqueid=leg, context="cr-trunk-carrier"), line("ANSWER", 2, uniqueid=leg)]
    assert set(unfinished(path, lines)) == {CHANNEL}


def test_what_was_refused_before_it_was_offered_is_known_as_such(path):
    path.write_text("".join([*ARRIVES, line("HANGUP", 0.1)]))
    assert not calls_in(path, 0)[CHANNEL].entered
    path.write_text("".join(ENDS))
    assert calls_in(path, 0)[CHANNEL].entered


# -- cancelled before the dialplan's first step ------------------------------------------------------------------------

UNNAMED: dict[str, Any] = {
    "uniqueid": CHANNEL, "trunk": "", "did": "", "caller": "", "handled_by": "", "failsafe_reason": "",
    "dialstatus": "", "target": "", "leg": "", "talk_at": None, "talk_seconds": 0.0, "recording": "",
}  # fmt: skip
GONE = [*ARRIVES, line("HANGUP", 0.1), line("LINKEDID_END", 0.1)]


def test_a_cdr_without_names_is_given_those_of_its_channel(path):
    path.write_text("".join(GONE))
    tail = CelTail(path)
    tail.poll()
    row = tail.named(ledger_row(**UNNAMED))
    assert (row.trunk, row.did, row.caller) == ("carrier", DID, CALLER)
    assert row == replace(ledger_row(**UNNAMED), trunk="carrier", did=DID, caller=CALLER)
    record = fold(log_of(row, "c", table(), "US"))
    assert record is not None
    assert (record.did, record.caller, record.campaign_id) == (DID, CALLER, "campaign-1")
    assert (record.disposition, record.reason) == ("abandoned", "the caller hung up before the call was routed")
    assert tail.unfinished() == {}
    assert tail.place == (tail.place[0], 0), "a restart still finds it"
    tail.forget(CHANNEL)
    assert tail.place == (tail.place[0], path.stat().st_size)
    assert tail.named(ledger_row(**UNNAMED)).did == ""


def test_a_cdr_that_the_dialplan_named_stays_as_it_is(path):
    path.write_text("".join(GONE))
    told = calls_in(path, 0)[CHANNEL]
    withheld = ledger_row(uniqueid=CHANNEL, did="+12025550199", caller="")
    assert named(withheld, told) == withheld
    begun = replace(withheld, trunk="other", handled_by="")
    assert named(begun, told) == replace(begun, caller=CALLER)
    assert named(ledger_row(**UNNAMED), None) == ledger_row(**UNNAMED)


def test_of_calls_that_were_never_offered_only_the_last_are_kept(path, monkeypatch):
    monkeypatch.setattr(cel, "UNOFFERED", 2)
    many = [each.replace(CHANNEL, f"{n}.0") for n in range(5) for each in GONE]
    path.write_text("".join([*many, *RINGS]))
    tail = CelTail(path)
    tail.poll()
    assert [n for n in range(5) if tail.named(ledger_row(**UNNAMED | {"uniqueid": f"{n}.0"})).did] == [3, 4]
    assert set(tail.unfinished()) == {CHANNEL}
