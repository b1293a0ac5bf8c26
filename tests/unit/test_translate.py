from __future__ import annotations

import json
from typing import Any

import pytest

from callrouter.asterisk.ari_events import AriEvent, EventDecoder
from callrouter.core import events as e
from callrouter.core.state import Calling, Choosing, HandedOver, Session, Wait
from callrouter.runtime.translate import arrival, channel_of, translate

WHEN = "2025-10-09T08:53:20.000+0000"
AT = 1_760_000_000.0


def ari(kind: str, **fields: Any) -> AriEvent:
    event = EventDecoder()(
        json.dumps({"type": kind, "timestamp": WHEN, "application": "callrouter", **fields}).encode()
    )
    assert event is not None
    return event


def channel(ident: str = "1.1", **fields: Any) -> dict[str, Any]:
    return {"id": ident, "name": f"PJSIP/{ident}", "state": "Up", **fields}


def start(did: str = "12025550123", **changes: Any) -> AriEvent:
    values: dict[str, Any] = {
        "caller": {"number": "3125550199", "name": "Ana\x1b Lee"},
        "dialplan": {"context": "cr-entry", "exten": "s", "priority": 1, "app_name": "Stasis", "app_data": ""},
        "channelvars": {"CR_DID": did, "CR_TRUNK": "carrier"},
    }
    return ari("StasisStart", args=["incoming"], channel=channel(**(values | changes)))


def arrives(event: AriEvent, countries: dict[str, str] | None = None, default: str = "US") -> e.CallArrived:
    return arrival(event, "c", countries or {}, default)  # type: ignore[arg-type]


def test_an_arrival_is_normalised():
    assert arrival(start(), "c", {}, "US", "disk full") == e.CallArrived(  # type: ignore[arg-type]
        at=AT, call_id="c", channel="1.1", did="+12025550123", caller="+13125550199", caller_name="Ana Lee",
        trunk="carrier", linkedid="1.1", test=False, store_problem="disk full",
    )  # fmt: skip


def test_what_a_trunk_says_of_the_caller():
    said = {
        "CR_DID": "+12025550123", "CR_TRUNK": "carrier", "CR_DIVERSION": "<sip:2025550177@gw>;reason=away",
        "CR_VERSTAT": ";verstat=TN-Validation-Passed-A@gw>::",
    }  # fmt: skip
    found = arrives(start(channelvars=said))
    assert (found.diverted_from, found.privacy) == ("+12025550177 (away)", None)
    assert found.verstat == "TN-Validation-Passed-A"
    found = arrives(start(channelvars=said | {"CR_PRIVACY": "id"}))
    assert (found.caller, found.caller_name, found.privacy) == (None, None, "id")


def test_the_trunks_country_reads_national_numbers():
    assert arrives(start("02079460018"), {"carrier": "GB"}).did == "+442079460018"
    assert arrives(start("02079460018", channelvars={"CR_DID": "02079460018"}), {"carrier": "GB"}, "DE").did == (
        "+492079460018"
    )


@pytest.mark.parametrize(
    "changes,did,caller,name,trunk,test",
    [
        ({"channelvars": {}}, "", "+13125550199", "Ana Lee", None, False),
        ({"channelvars": {}, "dialplan": {"exten": "+12025550123"}}, "+12025550123", "+13125550199", "Ana Lee", None,
         False),
        ({"caller": {"number": "anonymous", "name": "Anonymous"}}, "+12025550123", None, None, "carrier", False),
        ({"caller": {"number": "", "name": ""}}, "+12025550123", None, None, "carrier", False),
        ({"channelvars": {"CR_DID": "+12025550123", "CR_TRUNK": "simulator"}}, "+12025550123", "+13125550199",
         "Ana Lee", "simulator", True),
        ({"channelvars": {"CR_DID": None, "CR_TRUNK": None}}, "", "+13125550199", "Ana Lee", None, False),
        ({"channelvars": {"CR_DID": "&$(x)'", "CR_TRUNK": "carrier"}}, "", "+13125550199", "Ana Lee", "carrier", False),
    ],
)  # fmt: skip
def test_odd_arrivals_are_read_as_far_as_they_go(changes, did, caller, name, trunk, test):
    found = arrives(start(**changes))
    assert (found.did, found.caller, found.caller_name, found.trunk, found.test) == (did, caller, name, trunk, test)


TALKING = Calling("c-l1", "ana")
HANDED = HandedOver("fs-1", "ana", 1)
PLAYBACK = {"id": "c-p1", "media_uri": "sound:x", "target_uri": "channel:1.1", "language": "en"}
RECORDING = {"name": "c-m1", "format": "wav", "target_uri": "channel:1.1"}


def dial(status: str, **fields: Any) -> AriEvent:
    return ari("Dial", dialstatus=status, peer=channel("2.2"), **fields)


CASES: list[tuple[AriEvent, Wait, e.Event | None]] = [
    (ari("StasisStart", args=["dialed", "BUSY", "17", "c-l1"], channel=channel()), TALKING,
     e.DialReturned(AT, "c-l1", "BUSY", 17)),
    (ari("StasisStart", args=["dialed", "ANSWER", "16", "c-l1", "no space"], channel=channel()), TALKING,
     e.DialReturned(AT, "c-l1", "ANSWER", 16, "no space")),
    (ari("StasisStart", args=["dialed", "", "", "c-l1", ""], channel=channel()), TALKING,
     e.DialReturned(AT, "c-l1", "", 0)),
    (ari("StasisStart", args=["dialed", "BUSY", "x17", "c-l1"], channel=channel()), TALKING,
     e.DialReturned(AT, "c-l1", "BUSY", 0)),
    (ari("StasisStart", args=["dialed", "BUSY"], channel=channel()), TALKING, None),
    (ari("StasisStart", args=["incoming"], channel=channel()), TALKING, None),
    (ari("ChannelDtmfReceived", channel=channel(), digit="#", duration_ms=90), Choosing("c-t1"), e.Digit(AT, "#")),
    (ari("PlaybackFinished", playback={**PLAYBACK, "state": "done"}), TALKING, e.PlaybackEnded(AT, "c-p1")),
    (ari("PlaybackFinished", playback={**PLAYBACK, "state": "failed"}), TALKING, e.PlaybackEnded(AT, "c-p1", False)),
    (ari("RecordingFinished", recording={**RECORDING, "state": "done", "duration": 7}), TALKING,
     e.RecordingEnded(AT, "c-m1", 7.0)),
    (ari("RecordingFinished", recording={**RECORDING, "state": "done"}), TALKING, e.RecordingEnded(AT, "c-m1", 0.0)),
    (ari("RecordingFailed", recording={**RECORDING, "state": "failed", "cause": "x"}), TALKING,
     e.RecordingEnded(AT, "c-m1", 0.0, ok=False)),
    (ari("ChannelDestroyed", channel=channel(), cause=17, cause_txt="busy"), TALKING, e.CallerHungUp(AT, 17)),
    (dial("", caller=channel()), TALKING, e.LegStarted(AT, "c-l1", "2.2")),
    (dial("RINGING", caller=channel()), TALKING, e.LegRinging(AT, "c-l1")),
    (dial("PROGRESS", caller=channel()), TALKING, e.LegProgress(AT, "c-l1")),
    (dial("ANSWER", caller=channel()), TALKING, e.LegAnswered(AT, "c-l1")),
    (dial("BUSY", caller=channel()), TALKING, None),
    (dial("RINGING", caller=channel()), Choosing("c-t1"), None),
    (dial("", caller=channel(channelvars={"CR_LEG": "fs-2"})), HANDED, e.LegStarted(AT, "fs-2", "2.2")),
    (dial("ANSWER", caller=channel(channelvars={"CR_LEG": "fs-2"})), HANDED, e.LegAnswered(AT, "fs-2")),
    (dial("ANSWER", caller=channel()), HANDED, None),
    (dial("ANSWER"), HANDED, e.LegAnswered(AT, "fs-1")),
    (ari("ChannelHold", channel=channel()), TALKING, e.LegHeld(AT, "c-l1", True)),
    (ari("ChannelUnhold", channel=channel("2.2")), HANDED, e.LegHeld(AT, "fs-1", False)),
    (ari("ChannelHold", channel=channel()), Choosing("c-t1"), None),
    (ari("StasisEnd", channel=channel()), TALKING, None),
    (ari("SomethingNew", channel=channel()), TALKING, None),
]  # fmt: skip


@pytest.mark.parametrize("event,wait,told", CASES)
def test_each_event_is_told_in_the_cores_words_or_not_at_all(event, wait, told):
    assert translate(event, Session("c", wait=wait)) == told


@pytest.mark.parametrize(
    "event,of",
    [
        (start(), "1.1"),
        (dial("RINGING", caller=channel()), "1.1"),
        (dial("RINGING"), None),
        (ari("PlaybackFinished", playback={**PLAYBACK, "state": "done"}), "1.1"),
        (ari("PlaybackFinished", playback={**PLAYBACK, "target_uri": "bridge:9", "state": "done"}), None),
        (ari("RecordingFinished", recording={**RECORDING, "state": "done"}), "1.1"),
        (ari("RecordingFailed", recording={**RECORDING, "state": "failed"}), "1.1"),
        (ari("ChannelDestroyed", channel=channel("3.3")), "3.3"),
        (ari("ChannelDtmfReceived", channel=channel(), digit="1"), "1.1"),
        (ari("ChannelHold", channel=channel()), "1.1"),
        (ari("CallBroadcast", channel=channel(), caller="x", called="y"), "1.1"),
        (ari("SomethingNew"), None),
    ],
)
def test_each_event_is_about_one_channel(event, of):
    assert channel_of(event) == of
