"""Typed ARI events and resources, decoded from Asterisk's JSON.

Every struct is a subset of the model of the same name in Asterisk's ``rest-api/*.json``; a contract test compares them.
Unknown event types become :class:`UnknownEvent`, unknown fields are ignored, and nothing here raises for what Asterisk
sends except :func:`decode`, which is for REST answers.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, TypeVar, get_args

import msgspec
import structlog
from msgspec import Struct

log = structlog.get_logger(__name__)

T = TypeVar("T")

EVENT_FILTER: tuple[str, ...] = (
    "StasisStart",
    "StasisEnd",
    "ChannelDestroyed",
    "ChannelDtmfReceived",
    "PlaybackFinished",
    "RecordingFinished",
    "RecordingFailed",
    "Dial",
    "CallBroadcast",
    "ChannelHold",
    "ChannelUnhold",
    "ApplicationReplaced",
)
"""The events the runtime acts on; everything else stays in Asterisk (``PUT /applications/{app}/eventFilter``)."""


class Epoch(float):
    """Seconds since the epoch, UTC; on the wire ISO 8601 such as ``2026-11-21T22:25:47.123+0000``."""

    __slots__ = ()


def _dec_hook(kind: type, value: Any) -> Any:
    if kind is Epoch:
        try:
            return Epoch(datetime.fromisoformat(value).timestamp())
        except (TypeError, ValueError):
            return Epoch(0.0)
    raise NotImplementedError(kind)


# -- resources ---------------------------------------------------------------------------------------------------------


class CallerID(Struct, frozen=True):
    number: str = ""
    name: str = ""


class DialplanCEP(Struct, frozen=True):
    """Where a channel is in the dialplan. ``app_name`` is "Stasis" while an application controls it."""

    context: str = ""
    exten: str = ""
    priority: int = 0
    app_name: str = ""
    app_data: str = ""


class Channel(Struct, frozen=True):
    id: str
    name: str = ""
    state: str = ""
    caller: CallerID = CallerID()
    connected: CallerID = CallerID()
    dialplan: DialplanCEP = DialplanCEP()
    creationtime: Epoch = Epoch(0.0)
    protocol_id: str = ""
    """SIP Call-ID of the leg."""
    accountcode: str = ""
    language: str = ""
    caller_rdnis: str = ""
    channelvars: dict[str, Any] = {}
    """The variables named by ``channelvars`` in ari.conf."""

    @property
    def in_stasis(self) -> bool:
        """True while an ARI application (some application) controls the channel."""
        return self.dialplan.app_name == "Stasis"


class Playback(Struct, frozen=True):
    id: str
    media_uri: str = ""
    target_uri: str = ""
    state: str = ""
    """queued, playing, continuing, done, failed, cancelled"""


class LiveRecording(Struct, frozen=True):
    name: str
    format: str = ""
    target_uri: str = ""
    state: str = ""
    duration: int | None = None
    """Seconds."""
    talking_duration: int | None = None
    silence_duration: int | None = None
    cause: str = ""


class Bridge(Struct, frozen=True):
    id: str
    technology: str = ""
    bridge_type: str = ""
    bridge_class: str = ""
    creator: str = ""
    name: str = ""
    channels: list[str] = []
    creationtime: Epoch = Epoch(0.0)


class Application(Struct, frozen=True):
    name: str
    channel_ids: list[str] = []
    bridge_ids: list[str] = []
    endpoint_ids: list[str] = []
    device_names: list[str] = []
    events_allowed: list[dict[str, Any]] = []
    events_disallowed: list[dict[str, Any]] = []


class AsteriskPing(Struct, frozen=True):
    asterisk_id: str
    ping: str
    timestamp: Epoch = Epoch(0.0)


class SystemInfo(Struct, frozen=True):
    version: str
    entity_id: str = ""


class StatusInfo(Struct, frozen=True):
    startup_time: Epoch = Epoch(0.0)
    last_reload_time: Epoch = Epoch(0.0)


class AsteriskInfo(Struct, frozen=True):
    system: SystemInfo | None = None
    status: StatusInfo | None = None

    @property
    def version(self) -> str:
        """Such as ``22.10.1``; empty when Asterisk did not say."""
        return self.system.version if self.system else ""


class Variable(Struct, frozen=True):
    value: str = ""


class Variables(Struct, frozen=True):
    variables: dict[str, Any] = {}


# -- events ------------------------------------------------------------------------------------------------------------


class Event(Struct, frozen=True, kw_only=True, tag_field="type"):
    """What every event carries."""

    application: str = ""
    timestamp: Epoch = Epoch(0.0)


class StasisStart(Event, frozen=True, kw_only=True, tag=True):
    channel: Channel
    args: list[str] = []
    replace_channel: Channel | None = None


class StasisEnd(Event, frozen=True, kw_only=True, tag=True):
    channel: Channel


class ChannelDestroyed(Event, frozen=True, kw_only=True, tag=True):
    channel: Channel
    cause: int = 0
    """Q.850 hangup cause."""
    cause_txt: str = ""
    tech_cause: int | None = None
    """SIP status code, where Asterisk knows it."""


class ChannelHangupRequest(Event, frozen=True, kw_only=True, tag=True):
    channel: Channel
    cause: int | None = None
    tech_cause: int | None = None
    soft: bool | None = None


class ChannelDtmfReceived(Event, frozen=True, kw_only=True, tag=True):
    channel: Channel
    digit: str
    duration_ms: int = 0


class PlaybackStarted(Event, frozen=True, kw_only=True, tag=True):
    playback: Playback


class PlaybackFinished(Event, frozen=True, kw_only=True, tag=True):
    playback: Playback


class RecordingStarted(Event, frozen=True, kw_only=True, tag=True):
    recording: LiveRecording


class RecordingFinished(Event, frozen=True, kw_only=True, tag=True):
    recording: LiveRecording


class RecordingFailed(Event, frozen=True, kw_only=True, tag=True):
    recording: LiveRecording


class Dial(Event, frozen=True, kw_only=True, tag=True):
    peer: Channel
    dialstatus: str = ""
    """Empty at the start, then RINGING, PROGRESS, ANSWER, BUSY, NOANSWER, CHANUNAVAIL, CONGESTION, CANCEL …"""
    caller: Channel | None = None
    dialstring: str = ""
    forward: str = ""
    forwarded: Channel | None = None


class CallBroadcast(Event, frozen=True, kw_only=True, tag=True):
    """A call that waits in StasisBroadcast for an application to claim it."""

    channel: Channel
    caller: str = ""
    called: str = ""


class ChannelHold(Event, frozen=True, kw_only=True, tag=True):
    channel: Channel
    musicclass: str = ""


class ChannelUnhold(Event, frozen=True, kw_only=True, tag=True):
    channel: Channel


class ChannelEnteredBridge(Event, frozen=True, kw_only=True, tag=True):
    bridge: Bridge
    channel: Channel | None = None


class ChannelLeftBridge(Event, frozen=True, kw_only=True, tag=True):
    bridge: Bridge
    channel: Channel


class ChannelStateChange(Event, frozen=True, kw_only=True, tag=True):
    channel: Channel


class ChannelVarset(Event, frozen=True, kw_only=True, tag=True):
    variable: str
    value: str = ""
    channel: Channel | None = None


class ApplicationReplaced(Event, frozen=True, kw_only=True, tag=True):
    """Another socket took over our application name; this one gets no more events."""


KnownEvent = (
    StasisStart
    | StasisEnd
    | ChannelDestroyed
    | ChannelHangupRequest
    | ChannelDtmfReceived
    | PlaybackStarted
    | PlaybackFinished
    | RecordingStarted
    | RecordingFinished
    | RecordingFailed
    | Dial
    | CallBroadcast
    | ChannelHold
    | ChannelUnhold
    | ChannelEnteredBridge
    | ChannelLeftBridge
    | ChannelStateChange
    | ChannelVarset
    | ApplicationReplaced
)


class UnknownEvent(Struct, frozen=True, kw_only=True):
    """An event type this program does not know; never an error."""

    type: str
    application: str = ""
    timestamp: Epoch = Epoch(0.0)


AriEvent = KnownEvent | UnknownEvent

EVENT_TYPES: dict[str, type[Event]] = {kind.__name__: kind for kind in get_args(KnownEvent)}

_event_decoder: msgspec.json.Decoder[KnownEvent] = msgspec.json.Decoder(KnownEvent, dec_hook=_dec_hook)
_unknown_decoder: msgspec.json.Decoder[UnknownEvent] = msgspec.json.Decoder(UnknownEvent, dec_hook=_dec_hook)


def _repair(data: bytes) -> bytes:
    """Make JSON of text that is almost UTF-8: bad bytes and lone surrogates become replacement characters."""
    value = json.loads(data.decode("utf-8", "replace"))
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def decode(data: bytes, kind: type[T]) -> T:
    """Decode a REST answer.

    :raises msgspec.ValidationError: it is not such a thing
    :raises ValueError: it is no JSON
    """
    try:
        return msgspec.json.decode(data, type=kind, dec_hook=_dec_hook)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError):
        return msgspec.json.decode(_repair(data), type=kind, dec_hook=_dec_hook)


class EventDecoder:
    """Decodes event frames and counts what it could not.

    ``malformed`` counts frames that were no event at all; ``unknown`` counts events by unknown type.
    """

    def __init__(self) -> None:
        self.malformed = 0
        self.unknown: dict[str, int] = {}

    def __call__(self, data: bytes) -> AriEvent | None:
        """One frame to one event; None, logged and counted, when it is none."""
        try:
            return self._decode(data)
        except (ValueError, RecursionError):
            try:
                return self._decode(_repair(data))
            except (ValueError, RecursionError) as exc:
                self.malformed += 1
                # The frame itself may hold telephone numbers: its size must do.
                log.warning("ari_event_malformed", error=str(exc), size=len(data), malformed=self.malformed)
                return None

    def _decode(self, data: bytes) -> AriEvent:
        try:
            return _event_decoder.decode(data)
        except msgspec.ValidationError:
            event = _unknown_decoder.decode(data)
            if event.type in EVENT_TYPES:
                raise
            # Bounded: the names come from the peer.
            if event.type in self.unknown or len(self.unknown) < 100:
                self.unknown[event.type] = self.unknown.get(event.type, 0) + 1
            return event


def decode_event(data: bytes | str) -> AriEvent | None:
    """Decode one event frame; None when it is no event. For tests and replay; a stream has its own decoder."""
    return EventDecoder()(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)


def encode_event(event: KnownEvent) -> bytes:
    """The event as JSON again, timestamps as Asterisk writes them; the inverse of :func:`decode_event`."""
    return msgspec.json.encode(event, enc_hook=_enc_hook)


def _enc_hook(value: Any) -> Any:
    if isinstance(value, Epoch):
        return iso(value)
    raise NotImplementedError(type(value))


def iso(seconds: float) -> str:
    """Seconds since the epoch in Asterisk's form, UTC."""
    moment = datetime.fromtimestamp(seconds, tz=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}+0000"
