"""What lost events leave behind: calls without a channel, channels without a call, legs without a caller."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from callrouter.asterisk.ami import Ami
from callrouter.core.disposition import Disposition
from callrouter.core.state import Calling, Saying
from callrouter.errors import AmiError, AriError
from callrouter.runtime import supervision
from callrouter.runtime.supervision import ORPHAN_SECONDS, LedgerTail, Place, Supervisor, resync
from callrouter.testing.fake_ami import FakeAmi
from tests.builders import table
from tests.contract.runtime.support import APP, Caller, Rig, ledger_line, until, write_ledger


def rows(directory: Path, *lines: str) -> LedgerTail:
    path = directory / "cdr.csv"
    write_ledger(path, lines)
    tail = LedgerTail(path)
    tail.poll()
    return tail


# -- the ledger's tail -------------------------------------------------------------------------------------------------


def test_a_ledger_that_is_not_there_yet_has_no_rows(tmp_path: Path) -> None:
    tail = LedgerTail(tmp_path / "none" / "cdr.csv")
    assert tail.take() == []
    write_ledger(tail.path, [ledger_line("1.1")])
    assert [row.uniqueid for row, _ in tail.take()] == ["1.1"]


def test_rows_are_given_once_each_also_when_others_look_too(tmp_path: Path) -> None:
    tail = rows(tmp_path, ledger_line("1.1"))
    write_ledger(tail.path, [ledger_line("1.2")])
    tail.poll()
    assert [row.uniqueid for row, _ in tail.take()] == ["1.1", "1.2"]
    assert tail.take() == []
    assert set(tail.rows) == {"1.1", "1.2"}


def test_a_line_that_is_still_being_written_waits_for_its_end(tmp_path: Path) -> None:
    line = ledger_line("1.2")
    tail = rows(tmp_path, ledger_line("1.1"), line[:40])
    assert [row.uniqueid for row, _ in tail.take()] == ["1.1"]
    write_ledger(tail.path, [line[40:]])
    assert [row.uniqueid for row, _ in tail.take()] == ["1.2"]


def test_a_damaged_line_costs_only_itself(tmp_path: Path) -> None:
    tail = rows(tmp_path, ledger_line("1.1"), "rubbish\n", '"torn in a cra\n', "\n", ledger_line("1.2"))
    assert [row.uniqueid for row, _ in tail.take()] == ["1.1", "1.2"]


def test_a_rotated_ledger_is_read_from_its_beginning(tmp_path: Path) -> None:
    tail = rows(tmp_path, ledger_line("1.1"), ledger_line("1.2"))
    tail.take()
    tail.path.rename(tmp_path / "cdr.csv.1")
    assert tail.take() == []
    write_ledger(tail.path, [ledger_line("1.3")])
    assert [row.uniqueid for row, _ in tail.take()] == ["1.3"]


def test_what_came_before_the_rotation_is_not_lost(tmp_path: Path) -> None:
    tail = rows(tmp_path, ledger_line("1.1"))
    tail.take()
    write_ledger(tail.path, [ledger_line("1.2")])
    tail.path.rename(tmp_path / "cdr.csv.1")
    write_ledger(tail.path, [ledger_line("1.3")])
    assert [row.uniqueid for row, _ in tail.take()] == ["1.2", "1.3"]


def test_a_ledger_emptied_in_place_is_read_from_its_beginning(tmp_path: Path) -> None:
    tail = rows(tmp_path, ledger_line("1.1"), ledger_line("1.2"))
    tail.take()
    tail.path.write_text(ledger_line("1.3"))
    assert [row.uniqueid for row, _ in tail.take()] == ["1.3"]


def test_a_later_run_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    tail = rows(tmp_path, ledger_line("1.1"), ledger_line("1.2"))
    (_, first), _second = tail.take()
    later = LedgerTail(tail.path)
    later.seek(first)
    assert [row.uniqueid for row, _ in later.take()] == ["1.2"]
    elsewhere = LedgerTail(tail.path)
    elsewhere.seek(Place("another file", first.offset))
    assert [row.uniqueid for row, _ in elsewhere.take()] == ["1.1", "1.2"]


def test_memory_for_rows_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "KEEP_ROWS", 3)
    tail = rows(tmp_path, *(ledger_line(f"1.{number}") for number in range(6)))
    assert list(tail.rows) == ["1.3", "1.4", "1.5"]


# -- our calls and Asterisk's channels ---------------------------------------------------------------------------------


async def lost(rig: Rig, channel: str) -> None:
    """The channel ends and every event about it is lost."""
    del rig.asterisk.channels[channel]


async def test_a_call_whose_end_was_missed_is_closed_with_the_ledgers_word(rig: Rig, tmp_path: Path) -> None:
    await rig.use(table())
    rig.asterisk.call("1.1")
    leg: Calling = await rig.waits_in("1.1", Calling)
    await lost(rig, "1.1")
    tail = rows(tmp_path, ledger_line("1.1", handled_by="controller", failsafe_reason="", leg=leg.leg_id))
    await resync(rig.ari, rig.dispatcher, tail.rows, APP, set())
    await rig.idle()
    record = rig.record()
    assert (record.disposition, record.answered_by) == (Disposition.ANSWERED, "ana")
    assert record.talk_seconds == pytest.approx(30, abs=1)
    assert record.ended_at == pytest.approx(tail.rows["1.1"].end)


async def test_a_call_without_a_channel_or_a_ledger_row_is_closed_at_the_second_look(rig: Rig) -> None:
    rig.asterisk.call()
    await rig.waits_in("call-1", Saying)
    await lost(rig, "call-1")
    missed: set[str] = set()
    await resync(rig.ari, rig.dispatcher, {}, APP, missed)
    assert missed == {"call-1"}
    assert rig.dispatcher.active == 1, "its end may be on its way"
    await resync(rig.ari, rig.dispatcher, {}, APP, missed)
    await rig.idle()
    assert rig.record().cause == 41
    await resync(rig.ari, rig.dispatcher, {}, APP, missed)
    assert missed == set()


async def test_after_a_lost_connection_it_is_closed_at_once(rig: Rig) -> None:
    rig.asterisk.call()
    await rig.waits_in("call-1", Saying)
    await lost(rig, "call-1")
    await resync(rig.ari, rig.dispatcher, {}, APP)
    await rig.idle()


async def test_a_return_from_a_dial_that_was_missed_is_read_from_the_channel(rig: Rig) -> None:
    from tests.contract.runtime.support import MENU

    await rig.use(table(MENU.replace("start: menu", "start: ring")))
    rig.asterisk.call()
    leg: Calling = await rig.waits_in("call-1", Calling)
    await until(lambda: "continue cr-dial" in rig.asterisk.of("call-1"), "the talk phase")
    channel = rig.asterisk.channels["call-1"]
    assert isinstance(channel, Caller)
    channel.in_stasis, channel.app_data = True, f"{APP},dialed,BUSY,17,{leg.leg_id},no room, no recording"
    await resync(rig.ari, rig.dispatcher, {}, APP, set())
    await rig.waits_in("call-1", Saying)
    await resync(rig.ari, rig.dispatcher, {}, APP, set())
    assert rig.types().count("DialReturned") == 1, "read twice, it means nothing new"
    rig.asterisk.hangup("call-1")
    await rig.idle()
    record = rig.record()
    assert [str(one.result) for one in record.legs] == ["busy"]
    assert record.recording_problem == "no room, no recording"


async def test_a_conversation_whose_end_was_missed_is_as_long_as_it_was(rig: Rig) -> None:
    await rig.use(table())
    rig.asterisk.call()
    leg: Calling = await rig.waits_in("call-1", Calling)
    await until(lambda: "continue cr-dial" in rig.asterisk.of("call-1"), "the talk phase")
    channel = rig.asterisk.channels["call-1"]
    assert isinstance(channel, Caller)
    channel.in_stasis, channel.app_data = True, f"{APP},dialed,ANSWER,16,{leg.leg_id},"
    now = time.time()
    channel.variables |= {"CR_TALK_AT": str(now - 9), "CR_TALK_END": str(now - 4)}
    await resync(rig.ari, rig.dispatcher, {}, APP)
    await rig.idle()
    record = rig.record()
    assert (record.disposition, round(record.talk_seconds, 3)) == (Disposition.ANSWERED, 5.0)


@pytest.mark.parametrize(
    "age, app_name, data, given",
    [
        (60.0, "Stasis", f"{APP},incoming,carrier,+1", True),
        (1.0, "Stasis", f"{APP},incoming,carrier,+1", False),
        (60.0, "Stasis", "another-app,incoming", False),
        (60.0, "StasisBroadcast", f"500,^{APP}$,incoming:a:b", True),
        (60.0, "Dial", "PJSIP/x", False),
    ],
)
async def test_a_channel_of_ours_that_nobody_follows_is_given_back(
    rig: Rig, age: float, app_name: str, data: str, given: bool
) -> None:
    class Other(Caller):
        def to_json(self) -> dict[str, object]:
            value = super(Caller, self).to_json()
            value["dialplan"] |= {"app_name": app_name, "app_data": data}
            value["creationtime"] = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(time.time() - age))}.000+0000"
            return value

    rig.asterisk.channels["stray"] = Other("stray", in_stasis=True)
    await resync(rig.ari, rig.dispatcher, {}, APP, set())
    assert rig.asterisk.of("stray") == (["variables", "continue cr-failsafe"] if given else [])


@pytest.mark.parametrize("age, claimed, given", [(3.0, False, True), (3.0, True, False), (0.2, False, False)])
async def test_right_after_a_connection_who_came_before_it_is_given_back_at_once(
    rig: Rig, age: float, claimed: bool, given: bool
) -> None:
    """Claimed by a controller that died before the call was in its log: nobody else will be told of it."""
    stray = rig.asterisk.caller("stray", age=age, app_data=f"{APP},incoming,carrier,+1")
    stray.in_stasis = True
    if claimed:
        rig.dispatcher._claimed.add("stray")
    await resync(rig.ari, rig.dispatcher, {}, APP)
    assert rig.asterisk.of("stray") == (["variables", "continue cr-failsafe"] if given else [])


async def test_without_an_answer_nothing_is_concluded(rig: Rig) -> None:
    rig.asterisk.call()
    await rig.waits_in("call-1", Saying)
    rig.asterisk.reply("GET", "^channels$", 503, {"message": "loading"})
    with pytest.raises(AriError):
        await resync(rig.ari, rig.dispatcher, {}, APP)
    assert rig.dispatcher.active == 1


# -- orphans -----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def asterisk() -> AsyncIterator[FakeAmi]:
    async with FakeAmi() as fake:
        yield fake


@pytest.fixture
async def ami(asterisk: FakeAmi) -> AsyncIterator[Ami]:
    async with Ami("127.0.0.1", asterisk.port, asterisk.user, asterisk.secret) as ami:
        yield ami


def shows(asterisk: FakeAmi, *channels: dict[str, str]) -> None:
    base = {"Event": "CoreShowChannel", "Application": "AppDial", "BridgeId": ""}
    messages = ["\n".join(f"{name}: {value}" for name, value in (base | channel).items()) for channel in channels]
    asterisk.reply(
        "CoreShowChannels", "Response: Success\nEventList: start\nMessage: Channels will follow", *messages,
        "Event: CoreShowChannelsComplete\nEventList: Complete\nListItems: 1",
    )  # fmt: skip


def leg(uniqueid: str, linkedid: str = "", **more: str) -> dict[str, str]:
    return {"Channel": f"PJSIP/leg-{uniqueid}", "Uniqueid": uniqueid, "Linkedid": linkedid or uniqueid, **more}


def ended(asterisk: FakeAmi) -> list[tuple[str, str]]:
    return [(one["Channel"], one["Cause"]) for one in asterisk.actions if one["Action"] == "Hangup"]


async def test_a_leg_alone_for_half_a_minute_is_ended(rig: Rig, asterisk: FakeAmi, ami: Ami) -> None:
    supervisor = Supervisor(ami, rig.dispatcher)
    asterisk.reply("Hangup", "Response: Success\nMessage: Channel Hungup")
    shows(asterisk, leg("2.2", "2.1"))
    assert await supervisor.look(100.0) == []
    assert await supervisor.look(100.0 + ORPHAN_SECONDS - 0.1) == []
    assert ended(asterisk) == []
    assert await supervisor.look(100.0 + ORPHAN_SECONDS) == ["2.2"]
    assert ended(asterisk) == [("PJSIP/leg-2.2", "31")]
    assert supervisor.ended == 1


async def test_a_leg_that_was_not_alone_in_between_begins_anew(rig: Rig, asterisk: FakeAmi, ami: Ami) -> None:
    supervisor = Supervisor(ami, rig.dispatcher)
    shows(asterisk, leg("2.2", "2.1"))
    await supervisor.look(100.0)
    shows(asterisk, leg("2.2", "2.1"), leg("2.1", Application="Dial"))
    await supervisor.look(120.0)
    shows(asterisk, leg("2.2", "2.1"))
    assert await supervisor.look(140.0) == []
    assert await supervisor.look(169.0) == []
    assert ended(asterisk) == []


@pytest.mark.parametrize(
    "channels",
    [
        [leg("2.2", "2.1", BridgeId="b1")],
        [leg("2.2", Application="Stasis")],
        [leg("2.2", Application="Playback")],
        [leg("2.2", "2.1"), leg("2.1", Application="Dial")],
        [leg("call-1")],
    ],
    ids=["bridged", "in an application", "in the dialplan", "with its caller", "ours"],
)
async def test_what_somebody_looks_after_is_left_alone(
    rig: Rig, asterisk: FakeAmi, ami: Ami, channels: list[dict[str, str]]
) -> None:
    rig.asterisk.call("call-1")
    await rig.waits_in("call-1", Saying)
    supervisor = Supervisor(ami, rig.dispatcher)
    shows(asterisk, *channels)
    for now in (0.0, 100.0, 1000.0):
        assert await supervisor.look(now) == []
    assert ended(asterisk) == []


async def test_a_manager_that_does_not_answer_is_reported(rig: Rig, asterisk: FakeAmi, ami: Ami) -> None:
    await asterisk.stop()
    await until(lambda: not ami.connected, "the connection's end")
    with pytest.raises(AmiError):
        await Supervisor(ami, rig.dispatcher).look(0.0)
