"""One call: logged before acted on, its timers, and that nothing which fails strands a caller."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import cast

import pytest

from callrouter.core import events as e
from callrouter.core.cdr import LogItem
from callrouter.core.disposition import Disposition
from callrouter.core.flow import nodes as n
from callrouter.core.routing import RoutingTable
from callrouter.core.state import Calling, Choosing, HandedOver, Saying, Taking
from callrouter.runtime import executor as executor_module
from callrouter.store.journal import Journal
from tests.builders import DID, table
from tests.contract.runtime.support import MENU, Rig, open_rig, until


class Poisoned(Mapping[str, n.Node]):
    """A flow's nodes that break when one of them is looked at."""

    def __init__(self, nodes: Mapping[str, n.Node], bad: str) -> None:
        self.nodes, self.bad = nodes, bad

    def __getitem__(self, name: str) -> n.Node:
        if name == self.bad:
            raise RuntimeError("a fault in the program")
        return self.nodes[name]

    def get(self, name: str, default: object = None) -> n.Node:
        return self[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)


def poisoned(bad: str) -> RoutingTable:
    good = table(MENU)
    entry = good.entries[DID]
    broken = replace(entry, flow=replace(entry.flow, nodes=cast("dict[str, n.Node]", Poisoned(entry.flow.nodes, bad))))
    return replace(good, entries=MappingProxyType({DID: broken}))


async def in_menu(rig: Rig, channel: str = "call-1") -> Choosing:
    """A caller who heard the menu and is to press a key."""
    rig.asterisk.call(channel)
    playing: Saying = await rig.waits_in(channel, Saying)
    await until(lambda: playing.playback_id in rig.asterisk.playbacks, "the prompt")
    rig.asterisk.finish_playback(playing.playback_id)
    choosing: Choosing = await rig.waits_in(channel, Choosing)
    return choosing


async def test_an_event_is_in_the_journal_before_what_it_causes_is_asked_for(rig: Rig) -> None:
    await in_menu(rig)
    rig.asterisk.digit("call-1", "1")
    leg: Calling = await rig.waits_in("call-1", Calling)
    await rig.requested("call-1", "answer", "play", "variables", "continue cr-dial")
    rig.asterisk.dial("call-1", "peer-1", "")
    rig.asterisk.back("call-1", "BUSY", 17, leg.leg_id)
    await until(lambda: rig.asterisk.of("call-1").count("play") == 2, "the greeting")
    cause = {"answer": "CallArrived", "play": "CallArrived", "variables": "Digit", "continue": "Digit"}
    for request, journal in rig.asterisk.seen:
        if request.segments[:2] == ("channels", "call-1"):
            what = request.segments[2]
            wanted = "DialReturned" if what == "play" and "DialReturned" in journal else cause[what]
            assert wanted in journal, (request.path, journal)
    plays = [journal for request, journal in rig.asterisk.seen if "play" in request.segments]
    assert plays[1][-1] in ("Visited", "Decided")
    assert "DialReturned" in plays[1]


async def test_a_call_from_arrival_to_end_makes_its_record(rig: Rig) -> None:
    await in_menu(rig)
    rig.asterisk.digit("call-1", "1")
    leg: Calling = await rig.waits_in("call-1", Calling)
    await rig.requested("call-1", "answer", "play", "variables", "continue cr-dial")
    for status in ("", "RINGING", "ANSWER"):
        rig.asterisk.dial("call-1", "peer-1", status)
    await until(lambda: "LegAnswered" in rig.types(), "the answer")
    rig.asterisk.hangup("call-1")
    await rig.idle()
    record = rig.record()
    assert (record.did, record.caller, record.trunk) == (DID, "+13125550199", "carrier")
    assert (record.disposition, record.answered_by, record.cause) == (Disposition.ANSWERED, "ana", 16)
    assert [(one.id, one.ringing_at is not None) for one in record.legs] == [(leg.leg_id, True)]
    assert [one.id for one in record.recordings] == [leg.leg_id]


async def test_a_timer_fires_and_one_that_was_cancelled_does_not(rig: Rig) -> None:
    short = MENU.replace("timeout: 5", "timeout: 0.5")
    await rig.use(table(short))
    await in_menu(rig)
    await until(lambda: rig.asterisk.of("call-1").count("play") == 2, "the menu a second time")
    assert rig.types().count("TimerFired") == 1
    (second,) = rig.asterisk.playbacks
    rig.asterisk.finish_playback(second)
    await rig.waits_in("call-1", Choosing)
    rig.asterisk.digit("call-1", "2")
    await until(lambda: rig.asterisk.of("call-1").count("play") == 3, "the greeting")
    call = rig.dispatcher.get("call-1")
    assert call is not None
    await until(lambda: set(call._timers) == set(rig.asterisk.playbacks), "nothing but the playback's guard running")
    assert rig.types().count("TimerFired") == 1


async def test_a_playback_whose_end_asterisk_never_reports_is_taken_as_ended_badly(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_module, "_seconds", lambda path: -4.9)
    rig.asterisk.call()
    await rig.waits_in("call-1", Saying)
    await rig.waits_in("call-1", Choosing)
    assert len(rig.asterisk.playbacks) == 1, "Asterisk still plays it"
    (ended,) = [entry for entry in rig.entries() if isinstance(entry, e.PlaybackEnded)]
    assert ended.ok is False


async def test_a_recording_whose_end_is_lost_is_stopped_by_its_timer(rig: Rig) -> None:
    await rig.use(table(MENU.replace("on_failed: bye}\n  bye", "on_failed: bye, max_seconds: 5}\n  bye")))
    await in_menu(rig)
    rig.asterisk.digit("call-1", "2")
    await until(lambda: rig.asterisk.playbacks, "the greeting")
    (playback,) = rig.asterisk.playbacks
    rig.asterisk.finish_playback(playback)
    taking: Taking = await rig.waits_in("call-1", Taking)
    call = rig.dispatcher.get("call-1")
    assert call is not None
    await until(lambda: taking.timer_id in call._timers, "the timer")
    await until(lambda: taking.recording_id in rig.asterisk.recordings, "the recording")
    rig.asterisk.recordings.clear()
    call.put(e.TimerFired(taking.since + 15, taking.timer_id))
    await until(lambda: rig.asterisk.asked("POST", "recordings", "live", taking.recording_id, "stop"), "its stop")
    await rig.idle()
    assert rig.record().disposition is Disposition.VOICEMAIL


@pytest.mark.parametrize("bad", ["menu", "ring"])
async def test_a_fault_in_a_step_sends_the_caller_to_the_failsafe_and_the_record_still_closes(
    rig: Rig, bad: str
) -> None:
    rig.table = poisoned(bad)
    if bad == "menu":
        rig.asterisk.call()
    else:
        await in_menu(rig)
        rig.asterisk.digit("call-1", "1")
    await rig.waits_in("call-1", HandedOver)
    await until(lambda: rig.asterisk.of("call-1")[-1:] == ["continue cr-failsafe"], "the failsafe")
    assert rig.asterisk.channels["call-1"].variables["CR_FS_REASON"] == "CONTROLLER"
    assert "channel:call-1" in rig.asterisk.subscriptions
    await until(lambda: rig.dispatcher.in_application == 0, "a call that needs us no more")
    rig.asterisk.hangup("call-1")
    await rig.idle()
    record = rig.record()
    assert record.ended_at is not None
    assert record.disposition is not None
    assert any("a fault in the program" in step.why for step in record.trace)


async def test_a_backup_that_the_failsafe_connects_after_a_fault_is_in_the_record(rig: Rig) -> None:
    rig.table = poisoned("ring")
    await in_menu(rig)
    rig.asterisk.digit("call-1", "1")
    await rig.waits_in("call-1", HandedOver)
    await until(lambda: rig.asterisk.of("call-1")[-1:] == ["continue cr-failsafe"], "the failsafe")
    rig.asterisk.channels["call-1"].leg = "fs-call-1-1"  # type: ignore[attr-defined]
    for status in ("", "ANSWER"):
        rig.asterisk.dial("call-1", "peer-1", status)
    await until(lambda: "LegAnswered" in rig.types(), "the answer")
    rig.asterisk.hangup("call-1")
    await rig.idle()
    assert (rig.record().disposition, rig.record().answered_by) == (Disposition.ANSWERED, "ana")


async def test_a_fault_at_the_very_end_still_closes_the_call(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await in_menu(rig)
    call = rig.dispatcher.get("call-1")
    assert call is not None
    call.session = replace(call.session, last_leg_reason=Unprintable())
    rig.asterisk.hangup("call-1")
    await rig.idle()
    record = rig.record()
    assert (record.disposition, record.ended_at is not None) == (Disposition.FAILED, True)
    assert rig.journal.open_calls() == set()


class Unprintable(str):
    __slots__ = ()

    def __bool__(self) -> bool:
        raise RuntimeError("a fault in the program")


async def test_a_full_disk_does_not_disturb_a_call_and_nothing_of_it_is_lost(tmp_path: Path) -> None:
    full = False

    def write(fd: int, data: bytes) -> int:
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(fd, data)

    async with open_rig(tmp_path, journal=Journal(tmp_path / "journal", write=write)) as rig:
        full = True
        await in_menu(rig)
        rig.asterisk.digit("call-1", "1")
        await rig.requested("call-1", "answer", "play", "variables", "continue cr-dial")
        assert rig.journal.problem is not None
        assert rig.lines() == []
        full = False
        rig.asterisk.hangup("call-1")
        await rig.idle()
        await until(lambda: rig.types()[-1:] == ["Concluded"], "the journal")
        assert rig.record().disposition is Disposition.ABANDONED


async def test_a_journal_that_raises_does_not_strand_the_caller(tmp_path: Path) -> None:
    class Broken:
        def append(self, call_id: str, entry: LogItem) -> object:
            raise RuntimeError("no journal")

    async with open_rig(tmp_path, log=Broken()) as rig:
        rig.asterisk.call()
        await until(lambda: rig.asterisk.of("call-1")[-1:] == ["continue cr-failsafe"], "the failsafe")
        rig.asterisk.hangup("call-1")
        await rig.idle()


async def test_abandoning_leaves_the_channel_alone(rig: Rig) -> None:
    await in_menu(rig)
    before = len(rig.asterisk.requests)
    await rig.dispatcher.abandon()
    assert rig.dispatcher.active == 0
    assert len(rig.asterisk.requests) == before
    assert rig.asterisk.channels["call-1"].in_stasis
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("call-")]
    assert "Concluded" not in rig.types()


async def test_leaving_hands_over_only_who_needs_us(rig: Rig) -> None:
    await in_menu(rig, "call-1")
    await in_menu(rig, "call-2")
    rig.asterisk.digit("call-2", "1")
    await rig.waits_in("call-2", Calling)
    for channel in ("call-1", "call-2"):
        call = rig.dispatcher.get(channel)
        assert call is not None
        call.leave("the server stops")
    await until(lambda: rig.asterisk.of("call-1")[-1:] == ["continue cr-failsafe"], "the failsafe")
    assert rig.asterisk.of("call-2")[-1] == "continue cr-dial"
    assert "Concluded" not in rig.types(), "the caller is still there, with the failsafe"


async def test_a_caller_who_goes_before_the_dial_is_listened_to_has_an_end_at_once(rig: Rig) -> None:
    """Asterisk knows the channel no more, so nobody would ever report its end."""
    await in_menu(rig)
    call = rig.dispatcher.get("call-1")
    assert call is not None
    gone = {"message": "Event source does not exist"}
    rig.asterisk.reply("POST", "^applications/.*/subscription", 422, gone)
    rig.asterisk.digit("call-1", "1")
    await until(lambda: rig.dispatcher.active == 0, "the call is over")
    record = rig.record(call.id)
    assert record.disposition is Disposition.ABANDONED
    assert "rang" in str(record.reason)
    assert "action_failed" not in str(record.trace)


async def test_digits_of_a_sensitive_entry_are_written_nowhere(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Neither those it takes, nor one that comes late, nor those that a conversation has."""
    caplog.set_level("DEBUG")
    await rig.use(
        table(
            "start: pin\nnodes:\n"
            "  pin: {type: gather, prompt: PIN, name: pin, min: 4, max: 4, sensitive: yes, next: menu,\n"
            "        on_exhausted: menu}\n"
            "  menu: {type: menu, prompt: M, options: {7: ring}, timeout: 60, on_exhausted: ring}\n"
            "  ring: {type: dial, target: ana, on_busy: menu, on_no_answer: menu, on_failed: menu}\n"
        )
    )
    await in_menu(rig)
    for digit in "72787":
        rig.asterisk.digit("call-1", digit)
    await until(lambda: rig.types().count("Digit") == 5, "the digits")
    playing: Saying = await rig.waits_in("call-1", Saying)
    rig.asterisk.hangup("call-1")
    await rig.idle()
    assert playing.part == "prompt"
    assert [entry.digit for entry in rig.entries() if isinstance(entry, e.Digit)] == ["•"] * 5
    record = rig.record()
    assert record.path == ("pin", "menu")
    assert ("gathered pin", "•••• (4 digits)") in [(one.what, one.why) for one in record.trace]
    for path in rig.directory.rglob("*.jsonl"):
        assert '"digit":"7"' not in path.read_text("utf-8").replace(" ", "")
    assert "7278" not in caplog.text


async def test_a_greeting_whose_end_is_read_when_the_caller_has_long_gone_leaves_no_message(rig: Rig) -> None:
    await in_menu(rig)
    rig.asterisk.digit("call-1", "2")
    greeting: Saying = await rig.waits_in("call-1", Saying)
    await until(lambda: greeting.playback_id in rig.asterisk.playbacks, "the greeting")
    call = rig.dispatcher.get("call-1")
    assert call is not None
    del rig.asterisk.channels["call-1"]
    ended = time.time()
    call.put(e.PlaybackEnded(ended - 10.0, greeting.playback_id, ok=True))
    call.put(e.CallerHungUp(ended - 4.0, 16))
    await rig.idle()
    record = rig.record()
    assert (record.disposition, record.reason) == (Disposition.ABANDONED, "the caller hung up in message")
    assert [type(one).__name__ for one in rig.entries() if getattr(one, "gone", False)] == ["ActionFailed"]
