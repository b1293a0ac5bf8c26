"""Calls and recordings on the command line."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import soundfile as sf

from callrouter.cli.call import moment
from callrouter.core.disposition import Disposition, LegResult
from callrouter.core.records import CallRecord, Consent, ConsentResponse, Leg, RecordingKind, RecordingRef, TraceStep
from callrouter.errors import InputError
from callrouter.store.call_save import save_call
from callrouter.store.database import Database
from callrouter.store.recordings import RecordingFile, recording_finished
from callrouter.store.types import new_id
from tests.unit.cli_home import Cli, acme, cli, upgraded

__all__ = ["acme", "cli", "upgraded"]

START = datetime(2026, 11, 21, 23, 30, tzinfo=UTC).timestamp()
PATH = "2026/11/21/rec.flac"


def store(cli: Cli, *records: CallRecord, file: RecordingFile | None = None) -> None:
    async def work() -> None:
        database = Database(f"sqlite+aiosqlite:///{cli.home / 'callrouter.db'}")
        async with database.session() as session:
            for record in records:
                await save_call(session, record)
                for ref in record.recordings:
                    if file is not None:
                        await recording_finished(session, ref.id, file)
        await database.dispose()

    asyncio.run(work())


def a_call(cli: Cli, **other: object) -> CallRecord:
    company = cli.json("company", "show", "acme")
    campaign = cli.json("campaign", "show", "spring-radio")
    record = CallRecord(
        id=new_id(), uniqueid=new_id(), linkedid=None, did="+12025550100", caller="+12125550123",
        caller_name="Eve \x1b]0;owned\x07\u202e", trunk="main", started_at=START, company_id=company["id"],
        campaign_id=campaign["id"], source="radio", medium="offline", config_version=3, answered_at=START + 5,
        ended_at=START + 65, ring_seconds=5.0, talk_seconds=60.0, answered_by="ana", cause=16,
        disposition=Disposition.ANSWERED, reason="ana answered after 5.0 s", tags=("sales",), path=("greet", "sales"),
        trace=(
            TraceStep(START, "number", "runs desk@1", "+12025550100 is spring-radio"),
            TraceStep(START + 1, "desk@1/greet", "digit 1 → sales", "the caller pressed 1"),
        ),
    )  # fmt: skip
    legs = (
        Leg(new_id(), 1, None, "ana", "PJSIP/x", START + 1, START + 2, START + 5, START + 65, 16, LegResult.ANSWERED),
    )
    return replace(record, legs=legs, **other)  # type: ignore[arg-type]


def test_no_calls_yet(acme):
    assert "callrouter call test +1" in acme("call", "list").stdout
    assert acme.json("call", "list") == []
    assert "No recordings yet" in acme("recording", "list").stdout
    assert acme("call", "tail", "--once").stdout == ""
    assert "call list" in acme.refusal("call", "show", "abcd1234", code=1)["hint"]


def test_a_call_in_the_list(acme):
    call = a_call(acme)
    store(acme, call, a_call(acme, id=new_id(), uniqueid="b", disposition=None, ended_at=None, test=True))
    shown = acme("call", "list").stdout
    assert max(map(len, shown.splitlines())) <= 100
    # New York's clock, not UTC.
    assert "11-21 18:30" in shown
    assert "in progress" in shown
    listed = acme.json("call", "list", "--disposition", "answered")
    assert [c["id"] for c in listed] == [call.id]
    assert listed[0]["started_at"] == "2026-11-21T23:30:00.000+00:00"
    assert listed[0]["campaign"] == "spring-radio"
    assert len(acme.json("call", "list", "--since", "2026-11-21T18:30", "--company", "acme")) == 2
    assert acme.json("call", "list", "--since", "2026-11-21T18:31", "--company", "acme") == []
    assert len(acme.json("call", "list", "--no-test")) == 1
    assert acme.json("call", "list", "--failsafe") == []
    assert "No calls like that" in acme("call", "list", "--caller", "+13235550000").stdout
    assert "no disposition" in acme.refusal("call", "list", "--disposition", "anserwed", code=2)["error"]
    assert acme.refusal("call", "list", "--since", "yesterday", code=2)


def test_a_call_in_full(acme):
    call = a_call(acme)
    store(acme, call)
    shown = acme("call", "show", call.id[-8:]).stdout
    assert "ana answered after 5.0 s" in shown
    assert "desk@1/greet" in shown
    assert "the caller pressed 1" in shown
    assert "user" not in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    told = acme.json("call", "show", call.id)
    assert told["trace"][1]["why"] == "the caller pressed 1"
    assert told["legs"][0]["talk_seconds"] == 60.0
    assert told["legs"][0]["answered_at"].endswith("+00:00")
    assert told["tags"] == ["sales"]


def test_following_calls_prints_one_object_a_line(acme):
    store(acme, *(a_call(acme, id=new_id(), uniqueid=str(n), started_at=START + n) for n in range(3)))
    lines = acme("call", "tail", "--once", "--json").stdout.splitlines()
    assert [json.loads(line)["uniqueid"] for line in lines] == ["0", "1", "2"]
    assert len(acme("call", "tail", "--once", "-n", "1").stdout.splitlines()) == 1


@pytest.fixture
def recorded(acme: Cli) -> tuple[Cli, CallRecord, Path]:
    call = a_call(acme, recordings=(RecordingRef("rec", RecordingKind.CONVERSATION, None, START + 5),))
    path = acme.home / "recordings" / PATH
    path.parent.mkdir(parents=True)
    sf.write(path, np.zeros((8000, 2), np.int16), 8000)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    store(acme, call, file=RecordingFile(PATH, "flac", path.stat().st_size, digest, 1.0, -20.0, -21.0))
    return acme, call, path


def test_recordings(recorded, tmp_path):
    cli, call, path = recorded
    recording = cli.json("recording", "list")[0]
    assert recording["path"] == PATH
    assert recording["started_at"] == "2026-11-21T23:30:05.000+00:00"
    assert "conversation" in cli("recording", "list", "--call", call.id).stdout
    assert str(path) in cli("call", "show", call.id).stdout
    assert cli.json("recording", "play", call.id)["file"] == str(path)
    written = cli.json("recording", "export", recording["id"], "--to", tmp_path / "out", "--format", "wav")
    assert sf.info(written[0]).channels == 2
    assert "555" not in Path(written[0]).name
    since = cli.json("recording", "export", "--company", "acme", "--since", "2026-11-01", "--to", tmp_path / "all")
    assert len(since) == 1
    assert cli.refusal("recording", "export", "--to", tmp_path / "none", code=2)


def test_recordings_are_verified(recorded):
    cli, call, path = recorded
    assert cli.json("recording", "verify")["clean"] is True
    (path.parent / "stray.flac").write_bytes(b"x")
    assert "extra: 2026/11/21/stray.flac" in cli("recording", "verify", code=1).stdout
    path.write_bytes(b"tampered")
    assert f"changed: {PATH}" in cli("recording", "verify", call.id, code=1).stdout
    path.unlink()
    assert cli.json("recording", "verify", code=1)["missing"] == [PATH]
    assert "recording verify" in cli.refusal("recording", "play", call.id, code=1)["hint"]


def test_moments():
    zone = ZoneInfo("America/New_York")
    now = datetime(2026, 11, 21, tzinfo=UTC)
    assert moment("2026-11-21", zone) == datetime(2026, 11, 21, 5, tzinfo=UTC)
    assert moment("2026-11-21T18:00+01:00", zone) == datetime(2026, 11, 21, 17, tzinfo=UTC)
    assert moment("90m", zone, now) == now - timedelta(minutes=90)
    for text in ("soon", "", "9999999999999d"):
        with pytest.raises(InputError):
            moment(text, zone)


def test_a_list_says_of_a_caller_what_the_call_itself_says(acme):
    call = a_call(
        acme, privacy="id", diverted_from="+12025550177 (no-answer)", verstat="TN-Validation-Passed-A", language="es",
        values=(("plan", "gold"),), tags=("lead", "sales"),
        consent=Consent(START + 2, "desk@1/ask", "opt_in", ConsentResponse.AGREED, "6f1d", "1"),
    )  # fmt: skip
    store(acme, call, a_call(acme, id=new_id(), uniqueid="b", tags=()))
    shown = acme.json("call", "show", call.id)
    listed = {each["id"]: each for each in acme.json("call", "list")}
    said = ("privacy", "diverted_from", "verstat", "tags", "values", "language", "consent")
    assert {name: listed[call.id][name] for name in said} == {name: shown[name] for name in said}
    assert listed[call.id]["values"] == {"plan": "gold"}
    assert [(each["tags"], each["consent"]) for key, each in listed.items() if key != call.id] == [([], None)]
