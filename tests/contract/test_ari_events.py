"""Decoding what Asterisk sends, the odd included."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callrouter.asterisk.ari_events import (
    EVENT_FILTER,
    EVENT_TYPES,
    Channel,
    ChannelDestroyed,
    Dial,
    EventDecoder,
    StasisStart,
    UnknownEvent,
    decode_event,
    encode_event,
)

START = {
    "type": "StasisStart",
    "application": "callrouter",
    "timestamp": "2026-11-21T22:25:47.123+0000",
    "args": ["new", "15550100"],
    "asterisk_id": "02:fc:00:00:00:01",
    "channel": {
        "id": "call-1",
        "name": "PJSIP/spring-00000000",
        "state": "Ring",
        "protocol_id": "abc@127.0.0.1",
        "caller": {"name": "Zoë", "number": "+15550100"},
        "connected": {"name": "", "number": ""},
        "accountcode": "",
        "dialplan": {"context": "in", "exten": "1", "priority": 2, "app_name": "Stasis", "app_data": "callrouter"},
        "creationtime": "2026-11-21T14:25:47.100-0800",
        "language": "en",
        "channelvars": {"CR_CALL": "x"},
        "a_field_of_tomorrow": {"deep": [1]},
    },
}


def test_event_is_typed_and_times_are_epoch_seconds():
    event = decode_event(json.dumps(START))
    assert isinstance(event, StasisStart)
    assert event.args == ["new", "15550100"]
    assert event.timestamp == pytest.approx(1795299947.123)
    assert event.channel.creationtime == pytest.approx(1795299947.100)
    assert event.channel.caller.name == "Zoë"
    assert event.channel.in_stasis
    assert decode_event(encode_event(event)) == event


def test_unknown_type_is_an_event_and_counted():
    decoder = EventDecoder()
    event = decoder(b'{"type":"SomethingNew","application":"callrouter","x":1}')
    assert event == UnknownEvent(type="SomethingNew", application="callrouter")
    assert decoder.unknown == {"SomethingNew": 1}
    assert decoder.malformed == 0


@pytest.mark.parametrize(
    "frame",
    [b"", b"{", b"null", b"[]", b'"x"', b"{}", b'{"type":7}', b'{"type":"StasisStart"}', b"\xff\xfe", b"[" * 100_000],
)
def test_what_is_no_event_is_counted_and_never_raised(frame: bytes):
    decoder = EventDecoder()
    assert decoder(frame) is None
    assert decoder.malformed == 1


@pytest.mark.parametrize(
    "raw, name",
    [
        (b'"Zo\xeb"', "Zo\ufffd"),
        (b'"Zo\xc3"', "Zo\ufffd"),
        (b'"\\ud83d lone"', "? lone"),
        (b'"\\udc00"', "?"),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'"a\\u0000b"', "a\0b"),
    ],
)
def test_names_in_odd_encodings_survive(raw: bytes, name: str):
    frame = b'{"type":"StasisStart","args":[],"channel":{"id":"c","caller":{"number":"1","name":' + raw + b"}}}"
    event = decode_event(frame)
    assert isinstance(event, StasisStart)
    assert event.channel.caller.name == name


def test_bad_or_missing_time_is_zero():
    event = decode_event(b'{"type":"Dial","timestamp":"yesterday","peer":{"id":"b"},"dialstatus":"RINGING"}')
    assert event == Dial(peer=Channel(id="b"), dialstatus="RINGING")
    assert event.timestamp == 0.0


def test_optional_fields_may_be_missing():
    event = decode_event(b'{"type":"ChannelDestroyed","cause":16,"cause_txt":"Normal","channel":{"id":"c"}}')
    assert event == ChannelDestroyed(channel=Channel(id="c"), cause=16, cause_txt="Normal")


def test_filter_names_known_events_only():
    assert set(EVENT_FILTER) <= set(EVENT_TYPES)


@given(st.binary())
def test_any_bytes_are_an_event_or_none(data: bytes):
    EventDecoder()(data)


texts = st.sampled_from(["", "id", "a", "Zoë", "\ud83d", "2026-11-21T22:25:47.123+0000"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from(sorted(EVENT_TYPES)),
    st.dictionaries(st.sampled_from(["channel", "timestamp", "peer"]), json_values),
)
def test_any_json_is_an_event_or_none(kind: str, fields: dict[str, object]):
    EventDecoder()(json.dumps({"type": kind, **fields}).encode())
