"""After a crash: every call that lives is gone on with, every call that ended is closed, none is lost or doubled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from callrouter.core import events as e
from callrouter.core import notes as note
from callrouter.core.cdr import LogItem
from callrouter.core.disposition import Disposition
from callrouter.core.routing import build_table
from callrouter.core.state import Calling, Choosing, Leaving, Saying, Session, Taking
from callrouter.runtime.recovery import Recovered, Recovery, begun_with, rebuild
from callrouter.runtime.supervision import LedgerTail
from tests.builders import CALL, DID, T0, arrived, snapshot, version
from tests.contract.runtime.crashed import (
    CHANNEL,
    CHOOSING,
    GREETING,
    RINGING,
    SAYING,
    TABLE,
    TAKING,
    TALKING,
    alive,
    died,
    log_of,
    recovered,
    recovery,
    rig,
)
from tests.contract.runtime.support import APP, MENU, Rig, ledger_line, open_rig, until, write_ledger
from tests.contract.runtime.test_call import poisoned

__all__ = ["rig"]


def test_the_logs_stand_where_they_are_named_for() -> None:
    waits = [type(rebuild(CALL, log_of(events), TABLE)[0].wait) for events in (SAYING, CHOOSING, RINGING, TALKING)]
    assert waits == [Saying, Choosing, Calling, Calling]
    waits = [type(rebuild(CALL, log_of(events), TABLE)[0].wait) for events in (GREETING, TAKING)]
    assert waits == [Saying, Taking]


@pytest.mark.parametrize(
    "events", [SAYING, CHOOSING, GREETING, TAKING], ids=["saying", "choosing", "greeting", "taking"]
)
async def test_a_caller_who_waits_for_us_hears_the_node_again(rig: Rig, events: list[e.Event]) -> None:
    died(rig.journal, events)
    alive(rig.asterisk)
    if events is TAKING:
        rig.asterisk.recordings[f"{CALL}-m4"] = {"name": f"{CALL}-m4", "target_uri": f"channel:{CHANNEL}"}
    assert await recovered(rig) == Recovered(adopted=1)
    await until(lambda: rig.asterisk.playbacks, "the prompt")
    (playback,) = rig.asterisk.playbacks
    assert int(playback.rpartition("-p")[2]) > 1000, "no id of before is used again"
    assert f"channel:{CHANNEL}" in rig.asterisk.subscriptions
    stopped = [r.path for r in rig.asterisk.requests if r.segments[0] in ("playbacks", "recordings")]
    assert stopped == {1: ["playbacks/c-p1"], 2: [], 4: ["recordings/live/c-m4/stop"]}.get(
        len(events) if events is not GREETING else 0, ["playbacks/c-p3"]
    )
    rig.asterisk.end(CHANNEL)
    await rig.idle()
    assert rig.types().count("Concluded") == 1


@pytest.mark.parametrize("events", [RINGING, TALKING], ids=["ringing", "talking"])
async def test_a_caller_who_rings_or_talks_is_not_disturbed(rig: Rig, events: list[e.Event]) -> None:
    died(rig.journal, events)
    alive(rig.asterisk, None)
    assert await recovered(rig) == Recovered(adopted=1)
    waiting: Calling = await rig.waits_in(CHANNEL, Calling)
    assert waiting.leg_id == f"{CALL}-l3"
    assert {request.method for request in rig.asterisk.asked("", "channels", CHANNEL)} <= {"GET"}
    assert rig.dispatcher.owns(CHANNEL)
    rig.asterisk.back(CHANNEL, "ANSWER", 16, waiting.leg_id)
    await until(lambda: "delete" in rig.asterisk.of(CHANNEL), "the end")
    await rig.idle()
    record = rig.record()
    assert (record.disposition, record.answered_by) == (Disposition.ANSWERED, "ana")
    assert len(record.legs) == 1


async def test_an_answer_that_nobody_saw_is_read_from_the_bridge(rig: Rig) -> None:
    died(rig.journal, RINGING)
    alive(rig.asterisk, None)
    rig.asterisk.bridges["b1"] = [CHANNEL, "peer"]
    await recovered(rig)
    await until(lambda: "LegAnswered" in rig.types(), "the answer")
    rig.asterisk.hangup(CHANNEL)
    await rig.idle()
    assert rig.record().disposition is Disposition.ANSWERED
    assert [one.leg_id for one in rig.record().recordings] == [f"{CALL}-l3"]


async def test_a_dial_that_returned_meanwhile_goes_on_by_its_exit(rig: Rig) -> None:
    died(rig.journal, RINGING)
    alive(rig.asterisk, f"{APP},dialed,NOANSWER,19,{CALL}-l3,")
    await recovered(rig)
    playing: Saying = await rig.waits_in(CHANNEL, Saying)
    await until(lambda: playing.playback_id in rig.asterisk.playbacks, "the greeting")
    call = rig.dispatcher.get(CHANNEL)
    assert call is not None
    assert call.session.node == "message"
    (returned,) = [entry for entry in rig.entries() if isinstance(entry, e.DialReturned)]
    assert (returned.status, returned.cause, returned.recording_problem) == ("NOANSWER", 19, None)


@pytest.mark.parametrize("events", [RINGING, TALKING], ids=["ringing", "talking"])
async def test_a_conversation_that_ended_meanwhile_is_as_long_as_it_was(rig: Rig, events: list[e.Event]) -> None:
    """Not until we came back: the caller has waited since the business hung up."""
    died(rig.journal, events)
    caller = alive(rig.asterisk, f"{APP},dialed,ANSWER,16,{CALL}-l3,")
    caller.variables |= {"CR_LEG": f"{CALL}-l3", "CR_TALK_AT": str(T0 + 9), "CR_TALK_END": str(T0 + 20)}
    assert await recovered(rig) == Recovered(adopted=1)
    await until(lambda: "delete" in rig.asterisk.of(CHANNEL), "the end")
    await rig.idle()
    record = rig.record()
    assert (record.disposition, record.answered_by, record.talk_seconds) == (Disposition.ANSWERED, "ana", 11)
    assert [one.leg_id for one in record.recordings] == [f"{CALL}-l3"]


@pytest.mark.parametrize("asked", ["subscription", "variables"])
@pytest.mark.parametrize("events", [RINGING, TALKING], ids=["ringing", "talking"])
async def test_a_channel_that_ends_while_we_look_is_closed_with_the_ledgers_word(
    rig: Rig, tmp_path: Path, asked: str, events: list[e.Event]
) -> None:
    """It was among the channels, and in a bridge, a moment ago: nobody will tell us of its end."""
    died(rig.journal, events)
    alive(rig.asterisk, None)
    rig.asterisk.bridges["b1"] = [CHANNEL, "peer"]
    if asked == "subscription":
        rig.asterisk.reply("POST", "subscription", 422, {"message": "Event source does not exist"})
    else:
        rig.asterisk.reply("GET", "variables", 404, {"message": "Channel not found"})
    tail = LedgerTail(tmp_path / "cdr.csv")
    row = ledger_line(
        CHANNEL,
        end=T0 + 20,
        talk_at=str(T0 + 9),
        handled_by="controller",
        leg=f"{CALL}-l3",
    )
    write_ledger(tail.path, [row])
    found = await recovery(rig, tail.rows, refresh=tail.poll).run(rig.journal.open_logs())
    assert found == Recovered(closed=1)
    record = rig.record()
    assert (record.disposition, record.talk_seconds) == (Disposition.ANSWERED, 11)


async def test_a_dial_that_was_decided_but_never_begun_is_begun(rig: Rig) -> None:
    died(rig.journal, RINGING[:-2])
    alive(rig.asterisk)
    await recovered(rig)
    await rig.requested(CHANNEL, "variables", "continue cr-dial")
    assert rig.asterisk.channels[CHANNEL].variables["CR_LEG"] == f"{CALL}-l3"
    await rig.waits_in(CHANNEL, Calling)
    rig.asterisk.hangup(CHANNEL)
    await rig.idle()
    assert [leg.id for leg in rig.record().legs] == [f"{CALL}-l3"], "the leg that was planned, and no other"


async def test_a_record_of_asterisk_that_comes_a_moment_late_is_waited_for(rig: Rig, tmp_path: Path) -> None:
    died(rig.journal, TALKING)
    tail = LedgerTail(tmp_path / "cdr.csv")
    rounds = 0

    def refresh() -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 3:
            write_ledger(tail.path, [ledger_line(CHANNEL, end=T0 + 100, handled_by="controller", leg=f"{CALL}-l3")])
        tail.poll()

    logs = rig.journal.open_logs()
    found = await recovery(rig, tail.rows, refresh=refresh).run(logs)
    assert found == Recovered(closed=1)
    assert rig.record().ended_at == T0 + 100


@pytest.mark.parametrize("events", [SAYING, CHOOSING, TALKING, TAKING], ids=["saying", "choosing", "talking", "taking"])
async def test_a_channel_that_ended_without_a_ledger_row_closes_the_call(rig: Rig, events: list[e.Event]) -> None:
    died(rig.journal, events)
    assert await recovered(rig) == Recovered(closed=1)
    record = rig.record()
    assert record.cause == 41
    assert record.ended_at == max(event.at for event in events), "the last that is known of it"
    assert record.disposition is not None
    assert rig.journal.open_calls() == set()
    assert await recovered(rig) == Recovered()


async def test_a_channel_that_ended_is_closed_with_the_ledgers_word(rig: Rig, tmp_path: Path) -> None:
    died(rig.journal, RINGING)
    tail = LedgerTail(tmp_path / "cdr.csv")
    write_ledger(tail.path, [ledger_line(CHANNEL, end=T0 + 100, handled_by="controller", leg=f"{CALL}-l3")])
    tail.poll()
    assert await recovered(rig, tail) == Recovered(closed=1)
    record = rig.record()
    assert (record.disposition, record.ended_at) == (Disposition.ANSWERED, T0 + 100)
    assert record.talk_seconds == pytest.approx(30, abs=1)


async def test_a_hang_up_that_was_decided_but_not_done_is_done(rig: Rig) -> None:
    died(rig.journal, [arrived(did="+12025550000")])
    assert isinstance(rebuild(CALL, rig.entries(), TABLE)[0].wait, Leaving)
    alive(rig.asterisk)
    await recovered(rig)
    await rig.requested(CHANNEL, "delete")
    await rig.idle()
    assert rig.record().disposition is Disposition.REJECTED


@pytest.mark.parametrize("app, age, given", [(APP, 60.0, 1), (APP, 1.0, 0), ("another", 60.0, 0)])
async def test_a_channel_without_a_log_is_given_back(rig: Rig, app: str, age: float, given: int) -> None:
    rig.asterisk.caller("stray", age=age, app_data=f"{app},incoming,carrier,+1").in_stasis = True
    assert await recovered(rig) == Recovered(given_back=given)
    assert rig.asterisk.of("stray") == ["variables", "continue cr-failsafe"] * given


async def test_a_log_that_stops_before_its_conclusion_is_concluded_once(rig: Rig) -> None:
    for entry in [*log_of(CHOOSING), e.CallerHungUp(T0 + 5, 16)]:
        rig.journal.append(CALL, entry)
    assert rig.journal.open_calls() == {CALL}
    assert await recovered(rig) == Recovered(closed=1)
    assert rig.journal.open_calls() == set()
    record = rig.record()
    assert (record.disposition, record.ended_at, record.cause) == (Disposition.ABANDONED, T0 + 5, 16)
    assert rig.types().count("CallerHungUp") == 1


async def test_a_log_without_an_arrival_is_no_call(rig: Rig) -> None:
    rig.journal.append("other", note.Tagged(T0, "p", ("t",)))
    logs: dict[str, list[LogItem]] = {"other": [note.Tagged(T0, "p", ("t",))], "none": []}
    assert await recovery(rig, {}).run(logs) == Recovered()


async def test_a_log_that_cannot_be_rebuilt_costs_only_its_own_call(rig: Rig) -> None:
    died(rig.journal, RINGING, "bad-call")
    died(rig.journal, [arrived(channel="2.2", call_id="good-call")], "good-call")
    alive(rig.asterisk)
    other = rig.asterisk.caller("2.2", age=60.0, app_data=f"{APP},incoming,carrier,+1")
    other.in_stasis = True
    result = await recovered(rig, routing=poisoned("ring"))
    assert (result.adopted, result.closed, result.given_back) == (1, 1, 1)
    await rig.waits_in("2.2", Saying)
    assert rig.asterisk.of(CHANNEL) == ["variables", "continue cr-failsafe"]
    assert rig.record("bad-call").disposition is Disposition.FAILED
    assert rig.journal.open_calls() == {"good-call"}


async def test_a_call_that_is_followed_already_is_not_adopted_twice(rig: Rig) -> None:
    died(rig.journal, SAYING)
    alive(rig.asterisk)
    await recovered(rig)
    await rig.waits_in(CHANNEL, Saying)
    assert await recovered(rig) == Recovered()


@pytest.mark.parametrize(
    "events, app_data",
    [
        (SAYING, f"{APP},incoming,carrier,{DID}"),
        (CHOOSING, f"{APP},incoming,carrier,{DID}"),
        (TAKING, f"{APP},incoming,carrier,{DID}"),
        (TALKING, None),
        (RINGING, f"{APP},dialed,BUSY,17,{CALL}-l3,"),
    ],
    ids=["saying", "choosing", "taking", "talking", "returned"],
)
async def test_a_second_crash_finds_the_session_that_the_first_recovery_left(
    tmp_path: Path, events: list[e.Event], app_data: str | None
) -> None:
    """What the log gives again is what was in memory, ids included: else a second recovery would not know its legs."""
    async with open_rig(tmp_path) as rig:
        died(rig.journal, events)
        alive(rig.asterisk, app_data)
        await recovered(rig)
        call = rig.dispatcher.get(CHANNEL)
        assert call is not None
        await until(lambda: "Resumed" in rig.types() and call._queue.empty(), "the resumption")
        if app_data is not None:
            await until(lambda: "play" in rig.asterisk.of(CHANNEL), "the prompt")
        live: Session = call.session
        assert rebuild(CALL, rig.entries(), TABLE)[0] == live
        await rig.dispatcher.abandon()

        assert await recovered(rig) == Recovered(adopted=1)
        again = rig.dispatcher.get(CHANNEL)
        assert again is not None
        await until(lambda: rig.types().count("Resumed") == 2 and again._queue.empty(), "the second resumption")
        await until(lambda: rebuild(CALL, rig.entries(), TABLE)[0] == again.session, "the same session")
        assert again.session.counter > live.counter
        rig.asterisk.hangup(CHANNEL)
        await rig.idle()
        assert rig.types().count("Concluded") == 1


async def test_a_hold_by_the_business_is_seen_in_an_adopted_conversation(rig: Rig) -> None:
    died(rig.journal, TALKING)
    alive(rig.asterisk, None)
    assert await recovered(rig) == Recovered(adopted=1)
    rig.dispatcher.hold("peer", True, T0 + 20)
    await until(lambda: "LegHeld" in rig.types(), "the hold")


async def test_a_call_keeps_its_flow_when_that_was_changed_while_the_controller_was_away(rig: Rig) -> None:
    died(rig.journal, CHOOSING)
    alive(rig.asterisk)
    changed = MENU.replace("options: {1: ring, 2: message}", "options: {1: bye, 2: bye}")
    now = build_table(replace(snapshot(changed), version=8, flows=(version(changed, id="version-2", version=4),)))
    logs = rig.journal.open_logs()
    find = await begun_with(logs, now, snapshot(MENU), None)
    assert await Recovery(rig.ari, APP, rig.dispatcher, rig.journal, {}, find).run(logs) == Recovered(adopted=1)
    await rig.waits_in(CHANNEL, Saying)
    rig.asterisk.digit(CHANNEL, "1")
    await rig.waits_in(CHANNEL, Calling)
    rig.asterisk.hangup(CHANNEL)
    await rig.idle()
