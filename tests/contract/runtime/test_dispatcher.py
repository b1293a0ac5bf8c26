"""Which event belongs to which call; claiming; what is left behind in memory."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from callrouter.asterisk import ari_events
from callrouter.core import events as e
from callrouter.core.disposition import Disposition
from callrouter.core.state import Calling, Choosing, HandedOver, Saying
from callrouter.runtime import dispatcher as dispatcher_module
from callrouter.testing.fake_asterisk import FakeChannel
from tests.builders import table
from tests.contract.runtime.support import MENU, Rig, until

FREED = {"variables": {"TIMEOUT(absolute)": "0"}}


async def talking(rig: Rig, channel: str = "call-1") -> Calling:
    """A caller whom the number's one target is talking to."""
    await rig.use(table())
    rig.asterisk.call(channel)
    leg: Calling = await rig.waits_in(channel, Calling)
    await until(lambda: "continue cr-dial" in rig.asterisk.of(channel), "the talk phase")
    rig.asterisk.dial(channel, f"peer-{channel}", "")
    rig.asterisk.dial(channel, f"peer-{channel}", "ANSWER")
    await until(lambda: rig.types().count("LegAnswered") == 1, "the answer")
    return leg


async def test_a_broadcast_call_is_claimed_and_followed(rig: Rig) -> None:
    rig.asterisk.call()
    await rig.waits_in("call-1", Saying)
    (claim,) = rig.asterisk.asked("POST", "events", "claim")
    assert claim.args == {"channelId": "call-1", "application": "callrouter"}
    assert rig.dispatcher.total == 1
    assert FREED not in [request.args for request in rig.asterisk.requests], "StasisBroadcast has no dead man"


@pytest.mark.parametrize("status", [404, 409])
async def test_a_call_that_another_took_or_that_is_gone_is_not_ours(rig: Rig, status: int) -> None:
    rig.asterisk.reply("POST", "^events/claim", status, {"message": "no"})
    rig.asterisk.call()
    await until(lambda: rig.asterisk.asked("POST", "events", "claim"), "the claim")
    await until(lambda: not rig.dispatcher._tasks, "its end")
    assert (rig.dispatcher.active, rig.dispatcher._claimed) == (0, set())


async def test_a_claim_that_fails_leaves_the_call_to_the_failsafe(rig: Rig) -> None:
    rig.asterisk.reply("POST", "^events/claim", 500, {"message": "Allocation failed"})
    rig.asterisk.call()
    await until(lambda: rig.asterisk.asked("POST", "events", "claim"), "the claim")
    await until(lambda: not rig.dispatcher._tasks, "its end")
    assert (rig.dispatcher.active, rig.dispatcher._claimed) == (0, set())


@pytest.mark.parametrize("why", ["no table", "draining"])
async def test_nothing_is_claimed_without_a_routing_or_while_stopping(rig: Rig, why: str) -> None:
    if why == "no table":
        rig.table = None
    else:
        rig.dispatcher.draining = True
    rig.asterisk.call("call-1")
    rig.asterisk.call("call-2", claimed=False)
    await rig.requested("call-2", "variables", "continue cr-failsafe")
    assert not rig.asterisk.asked("POST", "events", "claim")
    assert rig.asterisk.channels["call-2"].variables["CR_FS_REASON"] == "CONTROLLER"
    assert rig.dispatcher.active == 0
    assert rig.lines() == []


async def test_without_broadcast_the_dead_man_is_held_off_at_every_entry(rig: Rig) -> None:
    await rig.use(table(MENU.replace("start: menu", "start: ring")))
    rig.asterisk.call(claimed=False)
    leg: Calling = await rig.waits_in("call-1", Calling)
    await until(lambda: FREED in [r.args for r in rig.asterisk.asked("POST", "channels", "call-1")], "the renewal")
    await until(lambda: "continue cr-dial" in rig.asterisk.of("call-1"), "the talk phase")
    rig.asterisk.back("call-1", "BUSY", 17, leg.leg_id)
    await rig.waits_in("call-1", Saying)
    await until(
        lambda: [r.args for r in rig.asterisk.asked("POST", "channels", "call-1")].count(FREED) == 2, "the second"
    )


async def test_each_event_reaches_its_own_call_among_many(rig: Rig) -> None:
    channels = [f"call-{number}" for number in range(30)]
    for channel in channels:
        rig.asterisk.call(channel, claimed=channel[-1] != "3")
    for channel in channels:
        await rig.waits_in(channel, Saying)
    await until(lambda: len(rig.asterisk.playbacks) == 30, "the prompts")
    for playback in list(rig.asterisk.playbacks):
        rig.asterisk.finish_playback(playback)
    for channel in channels:
        await rig.waits_in(channel, Choosing)
    for channel in channels[::3]:
        rig.asterisk.digit(channel, "1")
    for channel in channels[::3]:
        await rig.waits_in(channel, Calling)
        rig.asterisk.dial(channel, f"peer-{channel}", "")
    for channel in channels:
        if channel not in channels[::3]:
            await rig.waits_in(channel, Choosing)
        rig.asterisk.hangup(channel)
    await rig.idle()
    calls = {line.call for line in rig.lines()}
    assert len(calls) == 30
    for call_id in calls:
        record = rig.record(call_id)
        rang = record.uniqueid in channels[::3]
        assert [leg.target for leg in record.legs] == (["ana"] if rang else [])
        assert record.disposition is Disposition.ABANDONED
        assert sum(isinstance(entry, e.CallArrived) for entry in rig.entries(call_id)) == 1


async def test_events_of_nobody_and_late_ones_change_nothing(rig: Rig) -> None:
    asterisk = rig.asterisk
    asterisk.call()
    playing: Saying = await rig.waits_in("call-1", Saying)
    await until(lambda: playing.playback_id in asterisk.playbacks, "the prompt")
    stranger = FakeChannel("stranger").to_json()
    asterisk.send({"type": "ChannelDtmfReceived", "channel": stranger, "digit": "1", "duration_ms": 1})
    asterisk.send({"type": "StasisEnd", "channel": stranger})
    asterisk.send({"type": "ChannelDestroyed", "channel": stranger, "cause": 16, "cause_txt": ""})
    asterisk.send({"type": "Dial", "peer": stranger, "dialstatus": "ANSWER"})
    asterisk.send({"type": "StasisStart", "channel": stranger, "args": []})
    asterisk.send({"type": "StasisStart", "channel": stranger, "args": ["something", "else"]})
    asterisk.send({"type": "StasisStart", "channel": asterisk.channels["call-1"].to_json(), "args": ["incoming"]})
    asterisk.send({"type": "StasisStart", "channel": asterisk.channels["call-1"].to_json(), "args": ["dialed"]})
    asterisk.send({"type": "NewInAsterisk30", "x": 1})
    for target in ("channel:stranger", "bridge:call-1", "call-1", ""):
        value = {"id": "p", "media_uri": "", "target_uri": target, "state": "done"}
        asterisk.send({"type": "PlaybackFinished", "playback": value})
    late = {"id": "old-p9", "media_uri": "", "target_uri": "channel:call-1", "state": "done"}
    asterisk.send({"type": "PlaybackFinished", "playback": late})
    asterisk.send({"type": "RecordingFailed", "recording": {"name": "m", "target_uri": "channel:call-1"}})
    asterisk.finish_playback(playing.playback_id)
    await rig.waits_in("call-1", Choosing)
    assert rig.dispatcher.active == 1
    asterisk.hangup("call-1")
    await rig.idle()
    asterisk.send({"type": "ChannelDtmfReceived", "channel": stranger | {"id": "call-1"}, "digit": "1"})
    asterisk.call("call-2")
    await rig.waits_in("call-2", Saying)
    assert rig.types().count("CallArrived") == 2


async def test_a_channel_that_returns_from_a_dial_nobody_knows_is_given_back(rig: Rig) -> None:
    rig.asterisk.caller("lost")
    rig.asterisk.back("lost", "BUSY", 17, "old-l1")
    await rig.requested("lost", "variables", "continue cr-failsafe")
    assert rig.dispatcher.active == 0


async def test_hold_is_told_by_ami_for_either_side_and_by_ari(rig: Rig) -> None:
    leg = await talking(rig)
    rig.dispatcher.hold("call-1", True, 10.0)
    rig.dispatcher.hold("call-1", False, 11.0)
    rig.dispatcher.hold("peer-call-1", True, 12.0)
    rig.dispatcher.hold("peer-call-1", False, 13.0)
    rig.dispatcher.hold("stranger", True, 14.0)
    rig.asterisk.send({"type": "ChannelHold", "channel": rig.asterisk.channels["peer-call-1"].to_json()})
    rig.asterisk.send({"type": "ChannelUnhold", "channel": rig.asterisk.channels["call-1"].to_json()})
    await until(lambda: rig.types().count("LegHeld") == 6, "the holds")
    held = [entry for entry in rig.entries() if isinstance(entry, e.LegHeld)]
    assert [(one.leg_id, one.on) for one in held] == [(leg.leg_id, on) for on in (True, False) * 3]


async def test_hold_in_a_menu_or_without_a_leg_says_nothing(rig: Rig) -> None:
    rig.asterisk.call()
    await rig.waits_in("call-1", Saying)
    rig.dispatcher.hold("call-1", True, 10.0)
    call = rig.dispatcher.get("call-1")
    assert call is not None
    call.session = replace(call.session, wait=HandedOver())
    rig.dispatcher.hold("call-1", True, 11.0)
    rig.asterisk.hangup("call-1")
    await rig.idle()
    assert "LegHeld" not in rig.types()


async def test_a_hang_up_in_a_menu_ends_the_call_though_only_stasis_end_tells_of_it(rig: Rig) -> None:
    rig.asterisk.call()
    await rig.waits_in("call-1", Saying)
    rig.asterisk.end("call-1")
    await rig.idle()
    assert rig.types()[-2:] == ["CallerHungUp", "Concluded"]
    assert rig.record().disposition is Disposition.ABANDONED


async def test_leaving_the_application_for_a_dial_or_the_failsafe_is_no_hang_up(rig: Rig) -> None:
    await talking(rig, "call-1")
    rig.asterisk.reply("POST", "call-2/continue", 500, {"message": "no"})
    rig.asterisk.call("call-2")
    await until(lambda: "ActionFailed" in rig.types(), "the failure")
    await rig.waits_in("call-2", HandedOver)
    rig.asterisk.send({"type": "StasisEnd", "channel": rig.asterisk.channels["call-2"].to_json()})
    rig.asterisk.call("call-3")
    await rig.waits_in("call-3", Calling)
    assert rig.dispatcher.active == 3
    assert "CallerHungUp" not in rig.types()


async def test_the_store_breaking_is_told_to_every_call(rig: Rig) -> None:
    await talking(rig, "call-1")
    rig.asterisk.call("call-2")
    await rig.waits_in("call-2", Calling)
    rig.dispatcher.store_changed("the disk is full")
    await until(lambda: rig.types().count("RecordingTrouble") == 2, "both told")
    rig.store_problem = "the disk is full"
    rig.asterisk.call("call-3")
    await rig.waits_in("call-3", Calling)
    await until(lambda: "continue cr-dial" in rig.asterisk.of("call-3"), "the talk phase")
    assert rig.asterisk.channels["call-3"].variables["CR_REC"] == ""


async def test_what_is_known_of_trunks_is_told_to_every_call(rig: Rig) -> None:
    await talking(rig, "call-1")
    rig.dispatcher.trunks_changed((("carrier", "it does not answer"),))
    rig.dispatcher.trunks_changed((("carrier", "it does not answer"),))
    await until(lambda: rig.types().count("TrunksChanged") == 1, "told once")
    rig.asterisk.call("call-2")
    await rig.waits_in("call-2", Calling)
    call = rig.dispatcher.get("call-2")
    assert call is not None
    assert call.session.trunks_down == (("carrier", "it does not answer"),)
    rig.dispatcher.trunks_changed(())
    await until(lambda: not call.session.trunks_down, "it is back")


async def test_a_call_keeps_the_routing_it_arrived_with(rig: Rig) -> None:
    rig.asterisk.call()
    await rig.waits_in("call-1", Saying)
    await rig.use(table())
    rig.asterisk.digit("call-1", "2")
    await until(lambda: rig.asterisk.of("call-1").count("play") == 2, "the greeting of the old flow")
    rig.asterisk.call("call-2")
    await rig.waits_in("call-2", Calling)


async def test_who_needs_us_is_waited_for(rig: Rig) -> None:
    rig.asterisk.call()
    await rig.waits_in("call-1", Saying)
    assert rig.dispatcher.in_application == 1
    waiting = asyncio.create_task(rig.dispatcher.wait_unneeded())
    rig.asterisk.digit("call-1", "1")
    await asyncio.wait_for(waiting, 5)
    assert (rig.dispatcher.in_application, rig.dispatcher.active) == (0, 1)


async def test_after_a_thousand_calls_nothing_is_left_in_memory(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher_module, "CLAIMED_SECONDS", 0.2)
    await rig.use(table())
    asterisk, dispatcher = rig.asterisk, rig.dispatcher
    asterisk.look = lambda: None
    asterisk.reply("POST", "^events/claim", 204)  # claimed, but the fake lets none enter by itself
    for start in range(0, 1000, 100):
        channels = [f"call-{number}" for number in range(start, start + 100)]
        for channel in channels:
            asterisk.call(channel)
        for channel in channels[::2]:  # the callers of the others hang up before they enter
            asterisk.enter(channel, "incoming")
        for channel in channels[::2]:
            await rig.waits_in(channel, Calling)
            asterisk.dial(channel, f"peer-{channel}", "")
            asterisk.dial(channel, f"peer-{channel}", "ANSWER")
        await until(lambda: len(dispatcher._peers) == 50, "the legs")
        for channel in channels:
            asterisk.hangup(channel)
        await rig.idle()
    assert dispatcher.total == 500
    assert (dispatcher._calls, dispatcher._peers) == ({}, {})
    await until(lambda: not dispatcher._claimed, "claims forgotten")
    await until(lambda: not dispatcher._tasks, "tasks ended")
    assert rig.types().count("Concluded") == 500


def test_every_event_the_runtime_acts_on_passes_the_filter() -> None:
    acted_on = {
        kind.__name__
        for kind in (
            ari_events.CallBroadcast, ari_events.StasisStart, ari_events.StasisEnd, ari_events.ChannelDestroyed,
            ari_events.ChannelDtmfReceived, ari_events.PlaybackFinished, ari_events.RecordingFinished,
            ari_events.RecordingFailed, ari_events.Dial, ari_events.ChannelHold, ari_events.ChannelUnhold,
            ari_events.ApplicationReplaced,
        )
    }  # fmt: skip
    assert acted_on == set(ari_events.EVENT_FILTER)
