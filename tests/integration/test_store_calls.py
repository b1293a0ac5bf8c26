"""Calls, their legs, recordings and tags in the database; on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from callrouter.core import events as e
from callrouter.core.disposition import Disposition, LegResult
from callrouter.core.records import CallRecord, Leg, RecordingKind, RecordingRef, RecordingStatus, TraceStep
from callrouter.errors import InputError, NotFoundError
from callrouter.store import calls, config, recordings
from callrouter.store.call_save import append_events, save_call, save_calls
from callrouter.store.calls import CallFilter
from callrouter.store.codec import Line, to_builtins
from callrouter.store.database import Database
from callrouter.store.recordings import RecordingFile

T = 1_800_000_000.0
FILE = RecordingFile("2027/01/15/r.flac", "flac", 12345, "a" * 64, 61.5, -18.25, -20.5)


def record(number: int = 1, **fields: Any) -> CallRecord:
    call_id = f"01a2000{number:x}-0000-7000-8000-00000000000{number:x}"
    values: dict[str, Any] = {
        "id": call_id,
        "uniqueid": f"{T + number}.{number}",
        "linkedid": None,
        "did": "+12025550100",
        "caller": "+12025550101",
        "caller_name": "Zoë",
        "trunk": "carrier",
        "started_at": T + number,
    }
    return CallRecord(**{**values, **fields})


def finished() -> CallRecord:
    call = record(
        ended_at=T + 80.25,
        answered_at=T + 10.5,
        ring_seconds=5.5,
        talk_seconds=69.75,
        hold_seconds=1.5,
        answered_by="desk",
        cause=16,
        disposition=Disposition.ANSWERED,
        reason="desk answered",
        recording_problem="the disk was full",
        source="radio",
        medium="offline",
        config_version=3,
        tags=("lead", "spring"),
        path=("greet", "ring"),
        trace=(TraceStep(T + 1, "routing", "routed", "it is ours"),),
    )
    legs = (
        Leg("l1", 1, None, "desk", "PJSIP/desk", T + 2, T + 3, None, T + 5, 17, LegResult.BUSY),
        Leg("l2", 2, None, "cell", "PJSIP/cell", T + 5, T + 6, T + 10.5, T + 80, 16, LegResult.ANSWERED, 1.5),
    )
    refs = (RecordingRef("r1", RecordingKind.CONVERSATION, "l2", T + 10.5),)
    return replace(call, legs=legs, recordings=refs)


async def do(database: Database, work: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
    async with database.session() as session:
        return await work(session, *args, **kwargs)


async def look(database: Database, work: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
    async with database.session(read_only=True) as session:
        return await work(session, *args, **kwargs)


async def test_a_record_comes_back_as_it_was_saved(database: Database) -> None:
    for _ in range(2):
        await do(database, save_call, finished())
    stored = await look(database, calls.get_call, finished().id)
    assert stored.record == finished()
    assert [each.id for each in stored.recordings] == ["r1"]


async def test_a_recording_that_came_to_nothing_goes(database: Database) -> None:
    call, other = finished(), record(2, recordings=(RecordingRef("r9", RecordingKind.VOICEMAIL, None, T + 4),))
    planned = replace(call, recordings=(*call.recordings, RecordingRef("r2", RecordingKind.CONVERSATION, "l1", T + 4)))
    made = RecordingRef("r3", RecordingKind.CONVERSATION, "l1", T + 4)
    await do(database, save_calls, [replace(planned, recordings=(*planned.recordings, made)), other])
    await do(database, recordings.recording_finished, "r3", FILE)
    await do(database, save_call, call)
    found = await look(database, calls.get_call, call.id)
    assert [(each.id, each.status) for each in found.recordings] == [
        ("r3", RecordingStatus.OK),
        ("r1", RecordingStatus.PENDING),
    ]
    assert [each.id for each in (await look(database, calls.get_call, other.id)).recordings] == ["r9"]


async def test_a_call_in_progress_is_brought_up_to_date(database: Database) -> None:
    await do(database, save_call, record())
    assert [call.id for call in await look(database, calls.open_calls)] == [record().id]
    await do(database, save_call, finished())
    assert await look(database, calls.open_calls) == []
    assert (await look(database, calls.get_call, record().id)).record.disposition is Disposition.ANSWERED


async def test_a_call_known_by_asterisks_id_keeps_its_own(database: Database) -> None:
    await do(database, save_call, finished())
    assert await do(database, save_call, replace(finished(), id="other", reason="seen twice")) == finished().id
    assert [call.reason for call in await look(database, calls.list_calls)] == ["seen twice"]
    assert await look(database, calls.known_uniqueids, [finished().uniqueid, "none"]) == {finished().uniqueid}


async def test_what_the_recording_job_found_is_not_undone(database: Database) -> None:
    await do(database, save_call, finished())
    await do(database, recordings.recording_finished, "r1", FILE, problem="one channel is silent")
    await do(database, save_call, finished())
    stored = (await look(database, calls.get_call, finished().id)).recordings[0]
    assert (stored.status, stored.problem, stored.path) == (RecordingStatus.SUSPECT, "one channel is silent", FILE.path)
    assert (stored.left_dbfs, stored.right_dbfs, stored.seconds) == (-18.25, -20.5, 61.5)
    assert stored.verified_at is not None
    assert stored.verified_at.tzinfo is not None


async def test_recordings_are_listed_found_and_marked(database: Database) -> None:
    await do(database, save_call, finished())
    await do(database, recordings.recording_failed, "r1", "it was never written")
    found = await look(database, recordings.list_recordings, status=RecordingStatus.MISSING)
    assert [(each.id, each.problem) for each in found] == [("r1", "it was never written")]
    assert await look(database, recordings.list_recordings, before="r1") == []
    await do(database, recordings.recording_finished, "r1", FILE)
    await do(database, recordings.recording_verified, "r1")
    assert (await look(database, recordings.get_recording, "r1")).status is RecordingStatus.OK
    assert [each.id for each in await look(database, recordings.recordings_of, finished().id)] == ["r1"]
    for work, args in ((recordings.get_recording, ()), (recordings.recording_failed, ("x",))):
        with pytest.raises(NotFoundError):
            await do(database, work, "nothing", *args)


async def test_pages_follow_each_other_without_gap_or_overlap(database: Database) -> None:
    for number in range(1, 8):
        # Three of them began in the same moment.
        await do(database, save_call, record(number, started_at=T + min(number, 5)))
    everything = [call.id for call in await look(database, calls.list_calls)]
    paged: list[str] = []
    while page := await look(database, calls.list_calls, limit=2, before=paged[-1] if paged else None):
        paged += [call.id for call in page]
    assert paged == everything
    assert len(paged) == 7
    with pytest.raises(NotFoundError):
        await look(database, calls.list_calls, before="nothing")


async def test_filters(database: Database) -> None:
    who: dict[str, Any] = {"who": "test"}
    async with database.session() as session:
        company = await config.add_company(session, name="acme", timezone="UTC", **who)
        radio = await config.add_campaign(session, "acme", name="radio", source="r", medium="m", **who)
        await config.add_target(session, "acme", name="desk", sip_uri="sip:desk@192.0.2.1", **who)
        number = await config.add_number(session, "acme", number="+12025550100", name="one", target="desk", **who)
        of_ours = {"company_id": company.id, "campaign_id": radio.id, "number_id": number.id}
        await save_call(session, record(1, disposition=Disposition.BUSY, ended_at=T + 2, **of_ours))
        await save_call(session, record(2, company_id=company.id, caller=None, test=True))
        await save_call(session, record(3, did="+12025550199", handled_by="failsafe", disposition=Disposition.REJECTED))

    async def found(**wanted: Any) -> list[int]:
        rows = await look(database, calls.list_calls, CallFilter(**wanted))
        return sorted(int(row.id[7]) for row in rows)

    assert await found() == [1, 2, 3]
    assert await found(company="acme") == [1, 2]
    assert await found(campaign="radio") == [1]
    assert await found(campaign="acme/radio", company="acme") == [1]
    assert await found(number="one") == [1, 2]
    assert await found(number="(202) 555-0100") == [1, 2]
    assert await found(number="+1 202 555 0199") == [3]
    assert await found(caller="202-555-0101") == [1, 3]
    assert await found(disposition="busy") == [1]
    assert await found(disposition="in-progress") == [2]
    assert await found(test=True) == [2]
    assert await found(test=False, handled_by="controller") == [1]
    assert await found(since=datetime.fromtimestamp(T + 2, UTC)) == [2, 3]
    assert await found(until=datetime.fromtimestamp(T + 2, UTC)) == [1]
    first = (await look(database, calls.list_calls, CallFilter(disposition="busy")))[0]
    assert (first.company, first.campaign, first.number) == ("acme", "radio", "one")
    assert await look(database, calls.count_calls) == {"busy": 1, "rejected": 1, "in-progress": 1}
    for wanted, error in (
        ({"company": "acmee"}, NotFoundError),
        ({"campaign": "tv"}, NotFoundError),
        ({"number": "two"}, NotFoundError),
        ({"disposition": "lost"}, InputError),
    ):
        with pytest.raises(error):
            await found(**wanted)

    async with database.session() as session:
        await config.remove_number(session, "one", **who)
        await config.remove_campaign(session, "radio", **who)
    assert await found(campaign="radio") == [1]
    assert await found(number="+12025550100") == [1, 2]


async def test_a_call_is_found_by_parts_of_its_id(database: Database) -> None:
    await do(database, save_call, record(1))
    await do(database, save_call, record(2))
    for ref in (record(1).id, "01a20001", "000000001", record(1).uniqueid):
        assert (await look(database, calls.get_call, ref)).record.id == record(1).id
    with pytest.raises(InputError, match="several calls"):
        await look(database, calls.get_call, "01a2")
    for ref in ("01a20009", "%", "x" * 10):
        with pytest.raises(NotFoundError):
            await look(database, calls.get_call, ref)


async def test_a_log_keeps_what_came_first_under_a_number(database: Database) -> None:
    digit = Line("c", 2, T, "Digit", to_builtins(e.Digit(T, "1")))
    strange = Line("c", 3, 1e300, "FromTheFuture", {"x": [1, None]})
    await do(database, append_events, [digit, strange])
    await do(database, append_events, [replace(digit, data={"at": T, "digit": "9"}), replace(digit, seq=1)])
    log = await look(database, calls.call_log, "c")
    assert [line.seq for line in log] == [1, 2, 3]
    assert log[1].value == e.Digit(T, "1")
    assert log[2].data == {"x": [1, None]}


async def test_odd_texts_never_cost_a_cdr(database: Database) -> None:
    odd = record(did="\x00'; DROP TABLE call; --", caller="\ud800", caller_name="日本 🙂" * 500)
    await do(database, save_call, replace(odd, legs=(), tags=("a\x00b",), path=("\x00",)))
    stored = (await look(database, calls.get_call, odd.id)).record
    assert stored.caller_name == odd.caller_name
    assert stored.did == "\ufffd'; DROP TABLE call; --"
